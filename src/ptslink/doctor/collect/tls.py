"""Certificates: those on the disk, and those that are served.

Evidence (vantage ``server``):

``tls.disk``  one per certificate file that nginx or the service is configured with
    ``file``, ``readable`` bool, ``error``, and of the first certificate ``subject``, ``issuer``,
    ``serial``, ``not_before``, ``not_after`` (epoch seconds), ``sans`` [``DNS:x``, ``IP
    Address:y``], ``key`` ``rsa``/``ecdsa``/..., ``key_bits``; ``chain_bytes`` [int] of the file,
    ``key_matches`` bool or None, ``ports`` [int], ``now`` (epoch seconds), ``fingerprint``,
    ``chain`` (:func:`ptslink.doctor.probe.certificate.read_chain`), ``before``: ``file`` and
    ``chain`` of what this file took the place of and ``until`` (epoch seconds), or None
``tls.served``  one per TLS port, with the server's own name
    ``port``, ``name``, ``version``, ``cipher``, the same of the certificate served (of ``chain``
    only ``subject`` and ``issuer``), ``verify`` (OpenSSL's verify return code), ``verify_text``
``tls.offer``  one per TLS port and variant, ``variation`` true: ``port``, ``variant`` ``tls1.2``/
    ``tls1.3``/``no-sni``/``rsa``/``ecdsa``/``legacy``, ``ok``, ``alert`` int or None, ``reason``

The client-side survey gives ``tls.handshake`` and ``tls.certificate`` with the same keys.
"""

from __future__ import annotations

import calendar
import contextlib
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from ptslink.doctor.collect.edge import Machine, Stopwatch
from ptslink.doctor.evidence import Evidence, Json, Status
from ptslink.doctor.probe.certificate import read_chain

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


def read_x509(text: str) -> dict[str, Json]:
    """``openssl x509 -noout -subject -issuer -serial -dates -ext subjectAltName -text``."""
    facts: dict[str, Json] = {}
    for name in ("subject", "issuer", "serial"):
        match = re.search(rf"^{name}=\s*(.*)$", text, re.MULTILINE)
        if match:
            facts[name] = match[1].strip()
    for name in ("notBefore", "notAfter"):
        match = re.search(rf"^{name}=(.*)$", text, re.MULTILINE)
        if match:
            facts["not_before" if name == "notBefore" else "not_after"] = _moment(match[1])
    names = re.search(r"Subject Alternative Name:[^\n]*\n\s*([^\n]+)", text)
    facts["sans"] = [part.strip() for part in names[1].split(",")] if names else []
    algorithm = re.search(r"Public Key Algorithm: (\S+)", text)
    key = algorithm[1] if algorithm else ""
    facts["key"] = "rsa" if key.startswith("rsa") else "ecdsa" if "ecPublicKey" in key else key
    bits = re.search(r"Public-Key: \((\d+) bit\)", text)
    facts["key_bits"] = int(bits[1]) if bits else None
    fingerprint = re.search(r"Fingerprint=([0-9A-F:]+)", text)
    facts["fingerprint"] = fingerprint[1] if fingerprint else None
    return facts


def _moment(text: str) -> float | None:
    try:
        return float(calendar.timegm(time.strptime(text.strip(), "%b %d %H:%M:%S %Y GMT")))
    except ValueError:
        return None


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
    facts["chain"] = [
        {"subject": subject.strip(), "issuer": issuer.strip()}
        for subject, issuer in re.findall(r"^\s*\d+ s:(.*)\n\s*i:(.*)$", text, re.MULTILINE)
    ]
    sizes = [len(pem) * 3 // 4 for pem in _PEM.findall(text)]
    facts["chain_bytes"] = sum(sizes) or None
    return facts


def chain_of(pem: str) -> list[bytes]:
    """The certificates of a PEM file, as sent (DER). Raises ValueError."""
    return [ssl.PEM_cert_to_DER_cert(block) for block in _PEM.findall(pem)]


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
        yield _disk(machine, watch, file, keys[file], sorted(set(used)))
    for port, name in names.items():
        yield from _served(machine, watch, port, name)


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
    done = machine.run(
        "openssl", "x509", "-in", file, "-noout", "-subject", "-issuer", "-serial", "-dates",
        "-fingerprint", "-sha256", "-text",
    )  # fmt: skip
    if not done.ok:
        facts["error"] = done.why
        return watch.piece("tls.disk", Status.FAILED, f"{file}: {done.why}", facts)
    facts |= read_x509(done.text)
    facts |= _chain(pem) | {"before": _before(machine, file)}
    public = machine.run("openssl", "x509", "-in", file, "-noout", "-pubkey")
    private = machine.run("openssl", "pkey", "-in", key, "-pubout")
    both = public.ok and private.ok
    facts["key_matches"] = public.text.strip() == private.text.strip() if both else None
    seen = f"{file}: {facts.get('subject')}, {facts['key']}"
    if facts.get("not_after"):
        days = (facts["not_after"] - facts["now"]) / 86400
        seen += f", {'expires in' if days > 0 else 'expired'} {abs(days):.0f} days"
        seen += "" if days > 0 else " ago"
    return watch.piece("tls.disk", Status.OK, seen, facts)


def _chain(pem: str) -> dict[str, Json]:
    """``chain_bytes`` and ``chain``, as far as they can be read."""
    facts: dict[str, Json] = {}
    with contextlib.suppress(ValueError):
        ders = chain_of(pem)
        facts["chain_bytes"] = [len(der) for der in ders]
        facts["chain"] = read_chain(ders)
    return facts


def _before(machine: Machine, file: str) -> dict[str, Json] | None:
    found = replaced(Path(file))
    pem = machine.read(str(found[0])) if found else None
    if found is None or pem is None:
        return None
    return {"file": str(found[0]), "until": found[1], **_chain(pem)}


def _served(machine: Machine, watch: Stopwatch, port: int, name: str) -> Iterator[Evidence]:
    asked = ("-servername", name) if name else ()
    base = ("openssl", "s_client", "-connect", f"127.0.0.1:{port}")
    done = machine.run(*base, *asked, "-showcerts", seconds=4.0)
    if done.missing:
        yield watch.skipped("tls.served", done.missing)
        return
    facts = {"port": port, "name": name, "now": time.time()}
    facts |= read_s_client(done.text + done.error)
    leaf = _PEM.search(done.text)
    if leaf:
        facts |= _leaf(machine, leaf[0])
    seen = f"port {port}: {facts['version']} {facts['cipher']}"
    if not facts["ok"]:
        seen = f"port {port}: no handshake, {facts['reason'] or done.why}"
    yield watch.piece("tls.served", Status.OK if facts["ok"] else Status.UNKNOWN, seen, facts)
    for variant, arguments in VARIANTS.items():
        sni = () if variant == "no-sni" else asked
        tried = machine.run(*base, *sni, *arguments, seconds=4.0)
        offer = read_s_client(tried.text + tried.error)
        told = "accepted" if offer["ok"] else f"refused: {offer['reason'] or tried.why}"
        yield watch.piece(
            "tls.offer",
            Status.OK if offer["ok"] else Status.UNKNOWN,
            f"port {port}, {variant}: {told}",
            {"port": port, "variant": variant, "variation": True, "name": name, **offer},
        )


def _leaf(machine: Machine, pem: str) -> dict[str, Json]:
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pem)
        file.flush()
        done = machine.run(
            "openssl", "x509", "-in", file.name, "-noout", "-subject", "-issuer", "-serial",
            "-dates", "-fingerprint", "-sha256", "-text",
        )  # fmt: skip
    return read_x509(done.text) if done.ok else {}
