"""Certificates: those on the disk, and those that are served.

Evidence (vantage ``server``):

``tls.disk``  one per certificate file that nginx or the service is configured with
    ``file``, ``readable`` bool, ``error``, what :func:`read_pem` says, ``key_matches`` bool or
    None, ``ports`` [int], ``now`` (epoch seconds), ``before``: ``file`` and ``chain`` of what this
    file took the place of and ``until`` (epoch seconds), or None
``tls.served``  one per TLS port, with the server's own name
    ``port``, ``name``, ``now``, ``version``, ``cipher``, of the certificates served what
    :func:`read_pem` says, ``verify`` (OpenSSL's verify return code), ``verify_text``
``tls.offer``  one per TLS port and variant, ``variation`` true: ``port``, ``variant`` ``tls1.2``/
    ``tls1.3``/``no-sni``/``rsa``/``ecdsa``/``legacy``, ``ok``, ``alert`` int or None, ``reason``,
    ``fingerprint`` of the certificate shown or None

The client-side survey gives ``tls.handshake`` and ``tls.certificate`` with the same keys.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ptslink.doctor.collect.edge import Machine, Stopwatch
from ptslink.doctor.evidence import Evidence, Json, Status
from ptslink.doctor.probe.certificate import read_certificate, read_chain

#: What openssl s_client is asked for, by variant.
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "tls1.2": ("-tls1_2",),
    "tls1.3": ("-tls1_3",),
    "no-sni": ("-noservername",),
    "rsa": ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"),
    "ecdsa": ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    "legacy": ("-tls1_2", "-cipher", "AES128-SHA"),
}

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def read_s_client(text: str) -> dict[str, Json]:
    """What ``openssl s_client`` (3.x) printed: handshake, chain, verification, alert."""
    facts: dict[str, Json] = {}
    alert = re.search(r"SSL alert number (\d+)", text)
    facts["alert"] = int(alert[1]) if alert else None
    failed = re.search(r"error:[0-9A-F]{8}:[^:\n]*:[^:\n]*:([^:\n]+):", text)
    facts["reason"] = failed[1] if failed else None
    session = re.search(r"^New, (\S+), Cipher is (\S+)", text, re.MULTILINE)
    ok = bool(session and session[2] != "(NONE)")
    facts["ok"] = ok
    facts["version"] = session[1] if session and ok else None
    protocol = re.search(r"^\s*Protocol\s*: (\S+)", text, re.MULTILINE)
    if protocol and ok:
        facts["version"] = protocol[1]
    facts["cipher"] = session[2] if session and ok else None
    verify = re.search(r"Verify return code: (\d+) \(([^)]*)\)", text)
    facts["verify"] = int(verify[1]) if verify and ok else None
    facts["verify_text"] = verify[2] if verify and ok else None
    return facts


def read_pem(text: str) -> dict[str, Json]:
    """The first certificate in *text* (:func:`.certificate.read_certificate`), and of all of them,
    in order, ``chain`` (:func:`.certificate.read_chain`) and ``chain_bytes``, their sizes as sent.

    Raises:
        ValueError: there is none, or one that cannot be read.
    """
    ders = [ssl.PEM_cert_to_DER_cert(block) for block in _PEM.findall(text)]
    if not ders:
        raise ValueError("there is no certificate in it")
    sizes = [len(der) for der in ders]
    return {**read_certificate(ders[0]), "chain": read_chain(ders), "chain_bytes": sizes}


def replaced(file: Path) -> tuple[Path, float] | None:
    """What *file* took the place of, and when (epoch seconds); None where nothing is known of it.

    Known are our own store (``generations/ID/KIND.pem``, the directory's time is that of its being
    put in force) and certbot's archive (``archive/NAME/fullchain7.pem``).
    """
    real = file.resolve()
    generations = real.parent.parent
    try:
        if generations.name == "generations":
            others = [other for other in generations.glob(f"[!.]*/{real.name}") if other != real]
            last = max(others, key=lambda other: other.parent.stat().st_mtime, default=None)
            return None if last is None else (last, real.parent.stat().st_mtime)
        numbered = re.fullmatch(r"(.*?)(\d+)\.pem", real.name)
        if generations.name == "archive" and numbered:
            last = real.with_name(f"{numbered[1]}{int(numbered[2]) - 1}.pem")
            return (last, real.stat().st_mtime) if last.exists() else None
    except OSError:
        return None
    return None


# --- The thin edge -----------------------------------------------------------------------------


def collect(machine: Machine) -> Iterator[Evidence]:
    """Certificates and what the TLS ports offer; skipped where no TLS is configured."""
    from ptslink.doctor.collect import nginx, service

    watch = Stopwatch()
    ports: dict[str, list[int]] = {}
    names: dict[int, str] = {}
    keys: dict[str, str] = {}
    for site in nginx.configured(watch).facts.get("sites", []):
        for listen in site["listen"]:
            if not listen["ssl"]:
                continue
            own = [n for n in site["names"] if not n.startswith(("~", "*", "_", "."))]
            if not names.get(listen["port"]):
                names[listen["port"]] = own[0] if own else ""
            settings = site["settings"]
            pairs = zip(settings["ssl_certificate"], settings["ssl_certificate_key"], strict=False)
            for file, key in pairs:
                ports.setdefault(file, []).append(listen["port"])
                keys[file] = key
    tls = (service.configured(watch).facts.get("config") or {}).get("tls") or {}
    if tls.get("port"):
        names.setdefault(tls["port"], "")
        for kind in ("rsa", "ecdsa"):
            if tls.get(f"{kind}_certificate"):
                ports.setdefault(tls[f"{kind}_certificate"], []).append(tls["port"])
                keys[tls[f"{kind}_certificate"]] = tls[f"{kind}_key"]
    if not names:
        yield watch.skipped("tls.disk", "no TLS listener is configured")
        return
    for file, used in ports.items():
        yield from watch.guarded(
            "tls.disk",
            lambda file=file, used=used: _disk(machine, watch, file, keys[file], sorted(set(used))),  # type: ignore[misc]
        )
    for port, name in names.items():
        yield from watch.guarded(
            "tls.served",
            lambda port=port, name=name: _served(machine, watch, port, name),  # type: ignore[misc]
        )


def _disk(machine: Machine, watch: Stopwatch, file: str, key: str, ports: list[int]) -> Evidence:
    facts: dict[str, Json] = {"file": file, "ports": ports, "now": time.time()}
    if "$" in file or file.startswith("data:"):
        return watch.skipped("tls.disk", f"{file} is a variable")
    pem = machine.read(file)
    if pem is None:
        missing = not Path(file).exists()
        facts |= {"readable": False, "error": "missing" if missing else "may not be read"}
        if not missing and not machine.is_root():
            return watch.skipped("tls.disk", f"{file} may not be read; run as root")
        return watch.piece("tls.disk", Status.FAILED, f"{file}: {facts['error']}", facts)
    facts |= {"readable": True, "error": None}
    try:
        facts |= read_pem(pem) | {"before": _before(machine, file)}
    except ValueError as error:
        facts["error"] = str(error)
        return watch.piece("tls.disk", Status.FAILED, f"{file}: {error}", facts)
    public = machine.run("openssl", "x509", "-in", file, "-noout", "-pubkey")
    private = machine.run("openssl", "pkey", "-in", key, "-pubout")
    both = public.ok and private.ok
    facts["key_matches"] = public.text.strip() == private.text.strip() if both else None
    days = (facts["not_after"] - facts["now"]) / 86400
    seen = f"{file}: {facts['subject']}, {facts['key']}, "
    seen += f"expires in {days:.0f} days" if days > 0 else f"expired {-days:.0f} days ago"
    return watch.piece("tls.disk", Status.OK, seen, facts)


def _before(machine: Machine, file: str) -> dict[str, Json] | None:
    found = replaced(Path(file))
    pem = machine.read(str(found[0])) if found else None
    if found is None or pem is None:
        return None
    with contextlib.suppress(ValueError):
        return {"file": str(found[0]), "until": found[1], "chain": read_pem(pem)["chain"]}
    return None


def _served(machine: Machine, watch: Stopwatch, port: int, name: str) -> Iterator[Evidence]:
    asked = ("-servername", name) if name else ()
    base = ("openssl", "s_client", "-connect", f"127.0.0.1:{port}")
    done = machine.run(*base, *asked, "-showcerts", seconds=4.0)
    if done.missing:
        yield watch.skipped("tls.served", done.missing)
        return
    facts = {"port": port, "name": name, "now": time.time()}
    facts |= read_s_client(done.text + done.error) | _shown(done.text)
    seen = f"port {port}: {facts['version']} {facts['cipher']}"
    if not facts["ok"]:
        seen = f"port {port}: no handshake, {facts['reason'] or done.why}"
    yield watch.piece("tls.served", Status.OK if facts["ok"] else Status.UNKNOWN, seen, facts)
    for variant, arguments in VARIANTS.items():
        sni = () if variant == "no-sni" else asked
        tried = machine.run(*base, *sni, *arguments, seconds=4.0)
        offer = read_s_client(tried.text + tried.error)
        offer["fingerprint"] = _shown(tried.text).get("fingerprint")
        told = "accepted" if offer["ok"] else f"refused: {offer['reason'] or tried.why}"
        yield watch.piece(
            "tls.offer",
            Status.OK if offer["ok"] else Status.UNKNOWN,
            f"port {port}, {variant}: {told}",
            {"port": port, "variant": variant, "variation": True, "name": name, **offer},
        )


def _shown(text: str) -> dict[str, Json]:
    """What s_client printed of certificates; {} where it got none."""
    with contextlib.suppress(ValueError):
        return read_pem(text)
    return {}
