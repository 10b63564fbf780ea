#!/usr/bin/python3
"""Keys and certificates of the proxy: judged, tested with nginx, put in force in one rename.

Imported by this role's modules, and installed on the host as a program for the renewal timer.
Standard library and the programs ``openssl``, ``nginx`` and ``certbot``.

Below the directory (``/etc/ptslink/tls``) lie ``generations/ID``, each with ``rsa.pem``,
``rsa.key``, ``ecdsa.pem`` and ``ecdsa.key``, and ``live``, a link to the one in force: both kinds
change in the same instant, and a generation is never altered. ``pending`` holds keys that wait
for their certificate.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = ("rsa", "ecdsa")
#: What a key is made with: sizes the smallest clients take (RFC 8446 9.1 names both).
KEY_OPTIONS = {
    "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "ecdsa": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
}
#: More than there are records of good runs, each of which may want its own back.
GENERATIONS_KEPT = 12
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
DAY_SECONDS = 86400


class Refused(Exception):
    """Nothing was put in force; the message says what was wrong."""


@dataclass(frozen=True)
class Pair:
    """A full chain, the leaf first, and the leaf's key; both PEM."""

    chain: str
    key: str


def run(command: Sequence[str], text: str = "") -> str:
    """Standard output of a program, or Refused with what it said. No shell, no prompts."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Refused(f"{command[0]} is not installed") from None
    if done.returncode:
        said = " | ".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise Refused(f"{Path(command[0]).name} {command[1]}: {said}")
    return done.stdout


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def alternative_names(names: Iterable[str]) -> str:
    """Names as openssl's subjectAltName takes them."""
    return ",".join(f"{'IP' if is_address(name) else 'DNS'}:{name}" for name in names)


def kind_of(public_key: str) -> str:
    """``rsa``, ``ecdsa`` or ``other`` of a public key in PEM."""
    shown = run(["openssl", "pkey", "-pubin", "-noout", "-text"], public_key)
    if "Modulus" in shown:
        return "rsa"
    return "ecdsa" if "ASN1 OID" in shown else "other"


def complaints(
    kind: str, pair: Pair, names: Iterable[str] = (), days: int = 0, authority: str = ""
) -> list[str]:
    """What is wrong with a pair, one sentence each.

    ``days``: how long it must still be valid. ``authority``: PEM of the certificate authority
    that must have signed it; empty means any.
    """
    try:
        public_key = run(["openssl", "x509", "-noout", "-pubkey"], pair.chain)
        of_key = run(["openssl", "pkey", "-pubout"], pair.key)
    except Refused as refused:
        return [f"the {kind} certificate or key cannot be read ({refused})"]
    found = []
    if public_key.split() != of_key.split():
        found.append(f"the {kind} key does not belong to the {kind} certificate")
    if kind_of(public_key) != kind:
        found.append(f"the {kind} certificate is of another kind: {kind_of(public_key)}")
    end = ["openssl", "x509", "-noout", "-checkend"]
    try:
        run([*end, str(days * DAY_SECONDS)], pair.chain)
    except Refused:
        until = run(["openssl", "x509", "-noout", "-enddate"], pair.chain).strip().split("=")[-1]
        found.append(f"the {kind} certificate is valid until {until} only")
    for name in names:
        option = "-checkip" if is_address(name) else "-checkhost"
        try:
            shown = run(["openssl", "x509", "-noout", option, name], pair.chain)
        except Refused as refused:  # since OpenSSL 3.5 the exit status says so too
            shown = str(refused)
        if "does match" not in shown:
            found.append(f"the {kind} certificate does not cover {name}")
    if authority:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as trusted:
            trusted.write(authority)
            trusted.flush()
            try:
                run(
                    ["openssl", "verify", "-no-CApath", "-CAfile", trusted.name],
                    pair.chain,
                )
            except Refused:
                found.append(f"the {kind} certificate is not of this certificate authority")
    return found


def write(path: Path, text: str, mode: int) -> None:
    """A new file with its mode from the first instant, on disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Store:
    """The directory, and the nginx tree that refers to it."""

    def __init__(self, directory: Path, nginx_tree: Path = Path("/etc/nginx")) -> None:
        self.directory = directory
        self.nginx_tree = nginx_tree
        self.live = directory / "live"

    def read(self) -> dict[str, Pair]:
        """What is in force: kind -> pair."""
        return {
            kind: Pair((self.live / f"{kind}.pem").read_text(), key.read_text())
            for kind in KINDS
            if (key := self.live / f"{kind}.key").exists()
        }

    def name(self) -> str:
        """The generation in force, or nothing."""
        return self.live.readlink().name if self.live.is_symlink() else ""

    @staticmethod
    def name_of(pairs: Mapping[str, Pair]) -> str:
        """A generation's name: the same content has the same name."""
        parts = ((kind, pairs[kind].chain, pairs[kind].key) for kind in sorted(pairs))
        text = "\0".join(part for of_a_kind in parts for part in of_a_kind)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def text(self) -> str:
        """Who is certified until when, for a diff a person reads. No key."""
        lines = []
        for kind, pair in self.read().items():
            shown = run(
                ["openssl", "x509", "-noout", "-subject", "-issuer", "-serial", "-enddate"],
                pair.chain,
            )
            lines += [f"{kind}: {line}" for line in shown.splitlines()]
        return "".join(f"{line}\n" for line in lines)

    def request(self, kind: str, names: Sequence[str]) -> str:
        """A signing request for a key that is made here and never leaves."""
        pending = self.directory / "pending"
        pending.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = pending / f"{kind}.key"
        if not key.exists():
            partial = pending / f".{kind}.key"
            partial.unlink(missing_ok=True)
            write(partial, run(["openssl", "genpkey", *KEY_OPTIONS[kind]]), 0o600)
            partial.replace(key)
        common_name = next((name for name in names if len(name) <= 64), "ptslink")
        return run(
            [
                *("openssl", "req", "-new", "-key", str(key), "-subj", f"/CN={common_name}"),
                *("-addext", f"subjectAltName={alternative_names(names)}"),
                *("-addext", "basicConstraints=critical,CA:FALSE"),
                *("-addext", "keyUsage=critical,digitalSignature,keyEncipherment"),
                *("-addext", "extendedKeyUsage=serverAuth"),
            ]
        )

    def pending_key(self, kind: str) -> str:
        return (self.directory / "pending" / f"{kind}.key").read_text()

    def stand_in(self, names: Sequence[str], days: int) -> dict[str, Pair]:
        """Pairs signed by nobody, for nginx to start with until the true ones are there."""
        pairs = {}
        for kind in KINDS:
            key = run(["openssl", "genpkey", *KEY_OPTIONS[kind]])
            with tempfile.NamedTemporaryFile("w", suffix=".key") as file:
                file.write(key)
                file.flush()
                certificate = run(
                    [
                        *("openssl", "req", "-x509", "-key", file.name, "-days", str(days)),
                        *("-subj", "/CN=ptslink stand-in"),
                        *("-addext", f"subjectAltName={alternative_names(names)}"),
                    ]
                )
            pairs[kind] = Pair(certificate, key)
        return pairs

    def test(self, generation: Path) -> None:
        """``nginx -t`` on a copy of its tree that refers to ``generation``, or Refused."""
        main = self.nginx_tree / "nginx.conf"
        if shutil.which("nginx") is None or not main.exists():
            return
        with tempfile.TemporaryDirectory(prefix="nginx-staged-") as temporary:
            copy = Path(temporary) / "nginx"
            shutil.copytree(self.nginx_tree, copy, symlinks=True)
            inside = f"{self.nginx_tree}/"
            turned = {inside: f"{copy}/", f"{self.live}/": f"{generation}/"}
            for path in copy.rglob("*"):
                if path.is_symlink():
                    target = str(path.readlink())
                    if target.startswith(inside):
                        path.unlink()
                        path.symlink_to(f"{copy}/{target.removeprefix(inside)}")
                elif path.is_file():
                    before = after = path.read_bytes()
                    for old, new in turned.items():
                        after = after.replace(old.encode(), new.encode())
                    if after != before:
                        path.write_bytes(after)
            try:
                run(["nginx", "-t", "-q", "-c", str(copy / "nginx.conf")])
            except Refused as refused:
                said = str(refused).replace(str(copy), str(self.nginx_tree))
                raise Refused(f"nginx refuses the certificates: {said}") from refused

    def install(self, pairs: Mapping[str, Pair], names: Iterable[str] = ()) -> bool:
        """Judge, stage, test and put in force; whether anything changed. Raises Refused."""
        name = self.name_of(pairs)
        if name == self.name():
            return False
        names = list(names)
        found = [one for kind, pair in pairs.items() for one in complaints(kind, pair, names)]
        if found:
            raise Refused("; ".join(found))
        generation = self.directory / "generations" / name
        if not generation.exists():
            partial = generation.with_name(f".{name}")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700, parents=True)
            for kind, pair in pairs.items():
                write(partial / f"{kind}.pem", pair.chain, 0o644)
                write(partial / f"{kind}.key", pair.key, 0o600)
            sync(partial)
            partial.rename(generation)
        try:
            self.test(generation)
        except Refused:
            shutil.rmtree(generation)
            raise
        self.point(name)
        self.forget()
        return True

    def point(self, name: str) -> None:
        """Put a generation in force, in one rename."""
        if not (self.directory / "generations" / name).is_dir():
            raise Refused(f"the generation {name} is gone")
        os.utime(self.directory / "generations" / name)
        fresh = self.directory / ".live"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(f"generations/{name}")
        fresh.replace(self.live)
        sync(self.directory)

    def forget(self) -> None:
        """Remove what is no longer needed: pending keys, and generations older than the last."""
        shutil.rmtree(self.directory / "pending", ignore_errors=True)
        everything = sorted(
            (path for path in (self.directory / "generations").iterdir()),
            key=lambda path: path.stat().st_mtime,
        )
        for path in everything[:-GENERATIONS_KEPT]:
            if path.name != self.name():
                shutil.rmtree(path)


@dataclass(frozen=True)
class Acme:
    """Certificates from an ACME server through certbot, in directories of our own."""

    names: Sequence[str]
    server: str
    email: str
    webroot: Path
    #: Where certbot keeps account, keys and certificates.
    directory: Path
    #: Authorities the ACME server's own certificate is checked against; None: the system's.
    authority: Path | None = None

    def certbot(self, *arguments: str) -> str:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        if self.authority:
            environment["REQUESTS_CA_BUNDLE"] = str(self.authority)
        command = [
            *("certbot", *arguments, "--non-interactive"),
            *("--config-dir", str(self.directory)),
            *("--work-dir", "/var/lib/ptslink-tls/work", "--logs-dir", "/var/log/ptslink-tls"),
        ]
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        except FileNotFoundError:
            raise Refused("certbot is not installed") from None
        if done.returncode:
            said = (line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines())
            useful = [line for line in said if line and not line.startswith(("Saving", "- - -"))]
            raise Refused(f"certbot: {' | '.join(useful[-12:])}")
        return done.stdout

    def lineage(self, kind: str) -> Path:
        return self.directory / "live" / f"ptslink-{kind}"

    def pairs(self) -> dict[str, Pair]:
        """What certbot holds now, without kinds it does not have yet."""
        return {
            kind: Pair(
                (self.lineage(kind) / "fullchain.pem").read_text(),
                (self.lineage(kind) / "privkey.pem").read_text(),
            )
            for kind in KINDS
            if (self.lineage(kind) / "privkey.pem").exists()
        }

    def missing(self) -> list[str]:
        """Kinds to be asked for: none yet, another server's, not of these names, or expired."""
        held = self.pairs()
        return [
            kind
            for kind in KINDS
            if kind not in held
            or self.renewed_from(kind) != self.server
            or complaints(kind, held[kind], self.names)
        ]

    def renewed_from(self, kind: str) -> str:
        """The server certbot renews a kind from."""
        settings = self.directory / "renewal" / f"ptslink-{kind}.conf"
        text = settings.read_text() if settings.exists() else ""
        found = re.search(r"^server = (\S+)$", text, re.MULTILINE)
        return found.group(1) if found else ""

    def obtain(self, kind: str) -> None:
        """Ask the server for a certificate of one kind. Raises Refused with certbot's words."""
        key = {
            "rsa": ["--key-type", "rsa", "--rsa-key-size", "2048"],
            "ecdsa": ["--key-type", "ecdsa", "--elliptic-curve", "secp256r1"],
        }[kind]
        contact = ["--email", self.email] if self.email else ["--register-unsafely-without-email"]
        self.certbot(
            *("certonly", "--webroot", "--webroot-path", str(self.webroot), "--agree-tos"),
            *("--server", self.server, "--cert-name", f"ptslink-{kind}", "--force-renewal"),
            *("--renew-with-new-domains", *contact, *key),
            *(part for name in self.names for part in ("--domain", name)),
        )

    def renew(self) -> None:
        """Renew whatever is due. Raises Refused if any could not be."""
        self.certbot("renew", "--no-random-sleep-on-renew")


def reload_nginx() -> None:
    """Never a restart: open links stay with the worker that holds them."""
    run(["nginx", "-t", "-q"])
    run(["systemctl", "reload", "nginx.service"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Renew the proxy's certificates where due.")
    parser.add_argument("verb", choices=["renew", "adopt"], help="adopt: only put in force")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--authority", type=Path, help="trusted for the ACME server itself")
    parser.add_argument("--name", action="append", required=True, dest="names")
    options = parser.parse_args(arguments)
    store = Store(options.directory)
    acme = Acme(
        options.names, "", "", Path(), options.directory / "acme", authority=options.authority
    )
    status = 0
    if options.verb == "renew":
        try:
            acme.renew()
        except Refused as refused:  # one kind may be renewed all the same
            print(f"Not every certificate could be renewed: {refused}", file=sys.stderr)
            status = 1
    try:
        if store.install(acme.pairs(), options.names):
            reload_nginx()
            print(f"In force now:\n{store.text()}", end="")
        else:
            print("Nothing to put in force.")
    except Refused as refused:
        print(f"The certificates in force stay: {refused}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
