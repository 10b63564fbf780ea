"""Judging the certificate files a person provides, before any host is touched."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import os
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

KINDS = {"rsa": rsa.RSAPublicKey, "ecdsa": ec.EllipticCurvePublicKey}
#: Smaller ones are refused by OpenSSL's default security level, larger ones by small clients.
RSA_BITS = range(2048, 4097)
#: Places of a checkout that git is told to leave alone.
IGNORED = re.compile(r"(inventory/)?secrets/[^/]+|inventory/[^/]+/tls")


def authority_place(inventory_dir: str) -> str:
    """Where the authority of an inventory is kept: beside it, where no inventory is read.

    An inventory that is a directory is read with all that is in it.

    Args:
        inventory_dir: the directory of the inventory; empty where there is none (``-i HOST,``).
    """
    at = Path(inventory_dir)
    return str(at.parent / "secrets" / at.name) if at.name else ""


def former_place(directory: str, inventory_dir: str) -> str:
    """Where the authority of an inventory was by default before; empty where its place is named."""
    mine = inventory_dir and directory == authority_place(inventory_dir)
    return str(Path(inventory_dir, "tls")) if mine else ""


def authority_certificate(directory: str, former: str) -> str:
    """The file with the authority's certificate, which may still be in its former place."""
    old, new = Path(former, "ca.pem"), Path(directory, "ca.pem")
    return str(old if former and old.is_file() and not new.exists() else new)


def place_complaint(directory: str, checkout: str) -> str:
    """Why an authority cannot be kept in ``directory``, or nothing."""
    place, root = Path(directory), Path(checkout).resolve()
    if not place.is_absolute() or place == Path("/"):
        return "which is no place of its own"
    resolved = place.resolve()
    if resolved.is_relative_to(root):
        inside = resolved.relative_to(root).as_posix()
        return "" if IGNORED.fullmatch(inside) else "where the key of the authority would be shared"
    nearest = next(above for above in (resolved, *resolved.parents) if above.exists())
    if (resolved / "ca.pem").is_file() or os.access(nearest, os.W_OK | os.X_OK):
        return ""
    return f"and you may not write in {nearest}"


def covered(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    """(host names, addresses) a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    return (
        [name.lower() for name in names.get_values_for_type(x509.DNSName)],
        [str(address) for address in names.get_values_for_type(x509.IPAddress)],
    )


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Whether a client that asks for ``name`` accepts it (RFC 6125 6.4: one left-most ``*``)."""
    hosts, addresses = covered(certificate)
    try:
        return str(ipaddress.ip_address(name)) in addresses
    except ValueError:
        pass
    name = name.lower()
    return name in hosts or f"*.{name.partition('.')[2]}" in hosts


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def roots(ca: str) -> list[x509.Certificate]:
    """Authorities clients are taken to trust: a file's, or this computer's."""
    if ca:
        return x509.load_pem_x509_certificates(Path(ca).read_bytes())
    paths = ssl.get_default_verify_paths()
    for bundle in (paths.cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if bundle and Path(bundle).exists():
            return x509.load_pem_x509_certificates(Path(bundle).read_bytes())
    return []


def judge(
    kind: str,
    chain: list[x509.Certificate],
    key: Any,
    names: Iterable[str],
    days: int,
    trusted: Iterable[x509.Certificate],
    now: datetime.datetime,
) -> list[str]:
    """What is wrong with one pair, one sentence each."""
    leaf, *_ = chain
    found = []
    if not isinstance(leaf.public_key(), KINDS[kind]):
        found.append(f"the certificate given as {kind} has a key of another kind")
    elif kind == "rsa" and leaf.public_key().key_size not in RSA_BITS:
        found.append(f"the rsa key has {leaf.public_key().key_size} bits; use 2048 to 4096")
    if key.public_key() != leaf.public_key():
        found.append(f"the {kind} key does not belong to the {kind} certificate")
    for certificate in chain:
        what = certificate.subject.rfc4514_string()
        left = certificate.not_valid_after_utc - now
        if certificate.not_valid_before_utc > now:
            found.append(f"{what} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}")
        elif left < datetime.timedelta(0):
            found.append(f"{what} expired on {certificate.not_valid_after_utc:%Y-%m-%d}")
        elif left < datetime.timedelta(days=days):
            found.append(
                f"{what} expires on {certificate.not_valid_after_utc:%Y-%m-%d}, in less than "
                f"{days} days (tls_certificate_days_left_min)"
            )
    for name in names:
        if not covers(leaf, name):
            hosts, addresses = covered(leaf)
            has = ", ".join(hosts + addresses) or "nothing"
            found.append(f"the {kind} certificate does not cover {name}, only {has}")
    for certificate, issuer in itertools.pairwise(chain):
        if not issued_by(certificate, issuer):
            found.append(
                f"the {kind} chain is out of order: {certificate.subject.rfc4514_string()} is not "
                f"signed by {issuer.subject.rfc4514_string()}"
            )
    last = chain[-1]
    if not (last in trusted or any(issued_by(last, root) for root in trusted)):
        found.append(
            f"the {kind} chain is not complete: it ends with {last.subject.rfc4514_string()}, "
            "which no trusted authority signed. Append the certificate of "
            f"{last.issuer.rfc4514_string()}, or name an authority of your own in "
            "tls_certificate_ca"
        )
    return found


def complaints(
    provided: Mapping[str, Mapping[str, str]],
    names: Iterable[str],
    days: int = 0,
    ca: str = "",
    now: datetime.datetime | None = None,
) -> list[str]:
    """What is wrong with files: ``provided`` is kind -> {certificate, key}, paths on this computer.

    ``days``: how long they must still be valid. ``ca``: a file with the authorities clients
    trust; empty means those this computer trusts.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    try:
        trusted = roots(ca)
    except (OSError, ValueError) as error:
        return [f"tls_certificate_ca {ca} cannot be read: {error}"]
    found = []
    for kind, files in provided.items():
        try:
            chain = x509.load_pem_x509_certificates(Path(files["certificate"]).read_bytes())
        except (OSError, ValueError) as error:
            found.append(f"the {kind} certificate {files['certificate']} cannot be read: {error}")
            continue
        try:
            key = serialization.load_pem_private_key(Path(files["key"]).read_bytes(), None)
        except (OSError, TypeError, ValueError) as error:
            # The error of a key file never quotes it.
            found.append(f"the {kind} key {files['key']} cannot be read: {error}")
            continue
        found += judge(kind, chain, key, list(names), days, trusted, now)
    return found


def not_names(names: Iterable[str], addresses_too: bool = True) -> list[str]:
    """Those of ``names`` no certificate can be for."""
    wrong = []
    for name in names:
        try:
            ipaddress.ip_address(name)
        except ValueError:
            labels = str(name).split(".")
            plain = all(
                label and len(label) <= 63 and label.replace("-", "").isalnum() and label.isascii()
                for label in labels
            )
            if not plain or len(str(name)) > 253:
                wrong.append(str(name))
        else:
            if not addresses_too:
                wrong.append(str(name))
    return wrong


def text(path: str) -> str:
    """A file's text, exactly; a lookup would strip it, and show it when it fails."""
    return Path(path).read_text(encoding="ascii")


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "tls_certificate_authority_certificate": authority_certificate,
            "tls_certificate_authority_place": authority_place,
            "tls_certificate_complaints": complaints,
            "tls_certificate_former_place": former_place,
            "tls_certificate_not_names": not_names,
            "tls_certificate_place_complaint": place_complaint,
            "tls_certificate_text": text,
        }
