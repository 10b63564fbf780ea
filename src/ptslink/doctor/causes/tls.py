"""Causes of the layer tls.

Facts used: attempts with nginx's events (``tls-failed``, ``tls-alert``, ``tls-rejected``,
``tls-closed``, ``plain-to-tls``, ``no-client-certificate``), ``nginx.config``; ``tls.disk``,
``tls.served``, ``tls.offer`` (:mod:`ptslink.doctor.collect.tls`), ``service.records``.
From the client's side, with the same keys:

``tls.handshake``    ``reason`` (OpenSSL's word), ``alert``? int received, ``errno``, ``port``,
    ``verify_code``; with ``variation`` true and ``variant`` (as ``tls.offer``), ``ok``
``tls.certificate``  ``subject``, ``issuer``, ``sans``, ``not_before``, ``not_after`` (epoch
    seconds), ``key``, ``chain_bytes`` [int], ``verify`` (OpenSSL's code), ``now``, ``name`` asked
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ptslink.doctor.attempts import Attempt, troubles
from ptslink.doctor.cause import Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import (
    PROVISION_NGINX,
    RELOAD,
    RETRY_AFTERMATH,
    failing,
    match,
    said,
)
from ptslink.doctor.evidence import Case, Evidence, Json, Status

PROVISION_TLS = "ansible-playbook -i INVENTORY site.yml --tags tls_certificate,nginx_proxy"

#: OpenSSL's verify return codes (X509_V_ERR_*).
_UNTRUSTED = (18, 19, 20, 21, 2)
_EXPIRED, _NOT_YET, _NAME = 10, 9, (62, 63, 64)


def _client(case: Case) -> Iterator[Evidence]:
    """The client side's own handshakes: those of the link, not its variations."""
    for piece in case.all("tls.handshake"):
        if not piece.facts.get("variation"):
            yield piece


def _client_failed(case: Case) -> Evidence | None:
    return next((p for p in _client(case) if p.status is Status.FAILED), None)


def _reason(piece: Evidence | None) -> str:
    return str(piece.facts.get("reason") or "").upper().replace(" ", "_") if piece else ""


def _offers(case: Case, port: int | None = None) -> dict[str, bool]:
    """Which variants the server accepted, asked from anywhere."""
    found: dict[str, bool] = {}
    for piece in (*case.all("tls.offer"), *case.all("tls.handshake")):
        variant, ok = piece.facts.get("variant"), piece.facts.get("ok")
        if variant is None or ok is None:
            continue
        if port is None or piece.facts.get("port") in (None, port):
            found.setdefault(str(variant), bool(ok))
    return found


def _certificates(case: Case) -> Iterator[Evidence]:
    """Certificates as served: seen by a client first, then by the server itself."""
    yield from case.all("tls.certificate")
    yield from case.all("tls.served")


def _alerts(case: Case, *numbers: int) -> list[Attempt]:
    """Handshakes that a client broke off with one of these alerts, and still does."""
    found = []
    for trouble in troubles(case):
        event = trouble.root.event("tls-alert")
        if event is not None and event.get("alert") in numbers:
            found.append(trouble.root)
    return found


def _valid(piece: Evidence) -> bool | None:
    """Whether a certificate is within its dates on the clock that looked at it."""
    before, after, now = (piece.facts.get(k) for k in ("not_before", "not_after", "now"))
    if after is None or now is None:
        return None
    return bool((before or 0.0) <= now <= after)


def _tls_sites(case: Case) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """nginx's TLS listeners: (site, settings)."""
    for site in case.fact("nginx.config", "sites") or []:
        if any(entry["ssl"] for entry in site["listen"]):
            yield site, site["settings"]


# --- TLS or not --------------------------------------------------------------------------------


def _plain_to_tls(case: Case) -> Match | None:
    def plain(a: Attempt) -> bool:
        if a.hop == "service" or a.by == "backend" or is_plain(case, a.port):
            return False
        return a.event("plain-to-tls") is not None or said(
            a, "plain HTTP request was sent to HTTPS port"
        )

    seen = failing(case, plain)
    if seen is None:
        return None
    line = "The port expects TLS; the controller speaks plain HTTP (ws://) to it."
    return match(seen, 0.97, line, ruled_out=("px-http-to-tls-upstream", "hs-malformed-request"))


def is_plain(case: Case, port: int | None) -> bool:
    """Whether a port is known to be a plain one: then it is nginx that asks a TLS port."""
    if _offers(case, port).get("tls-on-plain") is False:
        return True
    listens = [
        entry["ssl"]
        for site in case.fact("nginx.config", "sites") or []
        for entry in site["listen"]
        if entry["port"] == port
    ]
    return bool(listens) and not any(listens)


def _tls_to_plain(case: Case) -> Match | None:
    def hello(a: Attempt) -> bool:
        return a.code == "tls-on-plain-port" or (
            a.first_bytes[:2] == b"\x16\x03" and a.source in ("nginx", "service")
        )

    seen = failing(case, hello)
    failed = _client_failed(case)
    lines = []
    if seen is not None:
        lines.append("The first bytes are a TLS ClientHello (16 03).")
    if failed is not None and _reason(failed) in (
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
    ):
        lines.append(f"The client's own TLS says {_reason(failed)}: no TLS was spoken back.")
    if not lines:
        return None
    return match(
        seen, 0.96, *lines, ruled_out=("hs-malformed-request", "tls-client-version-too-old")
    )


# --- Versions and suites -----------------------------------------------------------------------

_OLD_WORDS = ("no suitable signature algorithm", "unsupported protocol", "version too low")


def _version_event(case: Case) -> tuple[Attempt, Mapping[str, Json]] | None:
    for trouble in troubles(case):
        event = trouble.root.event("tls-failed")
        if event is not None and event.get("reason") in _OLD_WORDS:
            return trouble.root, event
    return None


def _protocols(case: Case, port: Json) -> str | None:
    for site, settings in _tls_sites(case):
        if port is None or any(entry["port"] == port for entry in site["listen"]):
            return settings.get("ssl_protocols")
    return None


def _lists_old(protocols: str | None) -> bool:
    return bool(protocols) and any(p in str(protocols).split() for p in ("TLSv1", "TLSv1.1"))


def _only_13(protocols: str | None) -> bool:
    return protocols is not None and protocols.split() == ["TLSv1.3"]


def _too_old(case: Case) -> Match | None:
    found = _version_event(case)
    if found is None:
        return None
    seen, event = found
    protocols = _protocols(case, event.get("port"))
    if _lists_old(protocols) or _only_13(protocols):
        return None
    offers = _offers(case, event.get("port"))
    if offers.get("tls1.2") is False:
        return None
    lines = [f"nginx: {event['text']}"]
    if event.get("reason") == "no suitable signature algorithm":
        lines.append("That is OpenSSL 3's answer to a ClientHello of TLS 1.1 or older.")
    if offers.get("tls1.2"):
        lines.append("TLS 1.2 is accepted on this port: the controller offers less.")
    sure = 0.94 if offers.get("tls1.2") or protocols else 0.85
    return match(seen, sure, *lines, ruled_out=("tls-seclevel-mismatch", "tls-server-min-too-high"))


def _seclevel(case: Case) -> Match | None:
    found = _version_event(case)
    if found is None or found[1].get("reason") != "no suitable signature algorithm":
        return None
    seen, event = found
    protocols = _protocols(case, event.get("port"))
    if not _lists_old(protocols):
        return None
    lines = [f"nginx: {event['text']}",
             f"ssl_protocols {protocols} allows it, OpenSSL's security level 2 still refuses "
             "it."]  # fmt: skip
    return match(seen, 0.96, *lines, ruled_out=("tls-client-version-too-old",))


def _min_too_high(case: Case) -> Match | None:
    found = _version_event(case)
    offers = _offers(case)
    refused = offers.get("tls1.2") is False and offers.get("tls1.3") is True
    failed = _client_failed(case)
    alert = failed is not None and "PROTOCOL_VERSION" in _reason(failed)
    port = found[1].get("port") if found else None
    protocols = _protocols(case, port)
    if port is None:
        every = [settings.get("ssl_protocols") for _, settings in _tls_sites(case)]
        protocols = next((listed for listed in every if _only_13(listed)), None)
    if not (refused or _only_13(protocols)):
        return None
    lines = []
    if refused:
        lines.append("Tried from here: TLS 1.2 is refused, TLS 1.3 accepted.")
    if _only_13(protocols):
        lines.append("ssl_protocols is TLSv1.3 alone.")
    if found:
        lines.append(f"nginx: {found[1]['text']}")
    sure = 0.96 if refused or found or alert else 0.85
    out = ("tls-client-version-too-old", "tls-no-shared-cipher")
    return match(found[0] if found else None, sure, *lines, ruled_out=out)


def _no_cipher_event(case: Case) -> tuple[Attempt, Mapping[str, Json]] | None:
    for trouble in troubles(case):
        event = trouble.root.event("tls-failed")
        if event is not None and event.get("reason") == "no shared cipher":
            return trouble.root, event
    return None


def _key_types(case: Case, port: Json) -> set[str]:
    """Key types of the certificates of a port: on disk, else as served."""
    disk = {
        str(p.facts["key"])
        for p in case.all("tls.disk")
        if p.facts.get("key") and (port is None or port in p.facts.get("ports", []))
    }
    return disk or {str(p.facts["key"]) for p in _certificates(case) if p.facts.get("key")}


def _ecdsa_only(case: Case) -> Match | None:
    found = _no_cipher_event(case)
    failed = _client_failed(case)
    hurt = failed is not None and "HANDSHAKE_FAILURE" in _reason(failed)
    port = found[1].get("port") if found else (failed.facts.get("port") if failed else None)
    if found is None and not hurt:
        return None
    keys, offers = _key_types(case, port), _offers(case, port)
    by_offer = offers.get("ecdsa") is True and offers.get("rsa") is False
    if not (keys == {"ecdsa"} or by_offer):
        return None
    lines = [f"nginx: {found[1]['text']}"] if found else []
    if keys:
        lines.append(f"The certificate's key is {', '.join(sorted(keys))}.")
    if by_offer:
        lines.append("ECDHE-RSA suites are refused, ECDHE-ECDSA suites accepted.")
    return match(found[0] if found else None, 0.96, *lines, ruled_out=("tls-no-shared-cipher",))


def _no_shared_cipher(case: Case) -> Match | None:
    found = _no_cipher_event(case)
    failed = _client_failed(case)
    hurt = failed is not None and "HANDSHAKE_FAILURE" in _reason(failed)
    if found is None and not hurt:
        return None
    port = found[1].get("port") if found else None
    keys, offers = _key_types(case, port), _offers(case, port)
    if keys == {"ecdsa"} or (offers.get("ecdsa") and offers.get("rsa") is False):
        return None
    suites = next(
        (
            settings.get("ssl_ciphers")
            for site, settings in _tls_sites(case)
            if port is None or any(entry["port"] == port for entry in site["listen"])
        ),
        None,
    )
    lines = [f"nginx: {found[1]['text']}"] if found else []
    if "rsa" in keys:
        lines.append("There is an RSA certificate: the suites are at fault, not the key.")
    if suites:
        lines.append(f"ssl_ciphers {suites}")
    if offers.get("legacy") is False:
        lines.append("AES128-SHA, which old firmware needs, is refused.")
    sure = 0.95 if "rsa" in keys or offers.get("legacy") is False else 0.75
    return match(
        found[0] if found else None, sure, *lines, ruled_out=("tls-ecdsa-cert-rsa-client",)
    )


# --- Certificates ------------------------------------------------------------------------------


def _expired(case: Case) -> Match | None:
    served = next((p for p in _certificates(case) if p.facts.get("not_after") is not None), None)
    piece = served or next(case.all("tls.disk"), None)
    if piece is None or piece.facts.get("not_after") is None:
        return _expired_by_client(case)
    after, now = piece.facts["not_after"], piece.facts.get("now")
    if now is None or now <= after:
        return None
    lines = [f"{piece.facts.get('subject')}: expired {(now - after) / 86400:.1f} days ago."]
    fresh = [p for p in case.all("tls.disk") if _valid(p)]
    fix = None
    if served is not None and fresh:
        lines.append(f"{fresh[0].facts['file']} on the disk is valid: nginx only has to reload it.")
        fix = Fix("Reload nginx: the renewed certificate is on the disk already.",
                  "The certificate served ends in the future.", Auto.YES, RELOAD)  # fmt: skip
    alerts = _alerts(case, 45)
    lines += [f"Clients broke off with alert 45: {a.shown()}" for a in alerts[:1]]
    out = ("tls-device-clock", "tls-root-rotated", "tls-untrusted-ca")
    return match(None, 0.97, *lines, ruled_out=out, fix=fix)


def _expired_by_client(case: Case) -> Match | None:
    failed = _client_failed(case)
    if failed is None or failed.facts.get("verify_code") != _EXPIRED:
        return None
    return match(None, 0.85, f"The client's verification says: {failed.seen}")


def _served_valid(case: Case) -> bool:
    pieces = [*_certificates(case), *case.all("tls.disk")]
    return bool(pieces) and all(_valid(p) is not False for p in pieces)


def _untrusted(case: Case) -> Match | None:
    alerts = _alerts(case, 48)
    failed = _client_failed(case)
    code = failed.facts.get("verify_code") if failed else None
    if not alerts and code not in _UNTRUSTED:
        return None
    if _rotated(case) is not None:
        return None
    lines = [a.shown() for a in alerts[:1]]
    lines += (
        [f"The client's verification says: {failed.seen}"] if code in _UNTRUSTED and failed else []
    )
    certificate = next((p for p in (*_certificates(case), *case.all("tls.disk"))), None)
    if certificate is not None:
        issuer, subject = certificate.facts.get("issuer"), certificate.facts.get("subject")
        own = "itself" if issuer == subject else issuer
        lines.append(f"The certificate is issued by {own}.")
    out = ("tls-cert-expired", "tls-name-mismatch", "tls-device-clock")
    return match(None, 0.93, *lines, ruled_out=out)


def _public(issuer: str) -> bool:
    return any(
        name in issuer for name in ("Let's Encrypt", "DigiCert", "Sectigo", "ZeroSSL", "GlobalSign")
    )


def _rotated(case: Case) -> Match | None:
    """Some clients break off for an unknown issuer or date, others of the same port do not."""
    hurt = _alerts(case, 45, 48)
    certificate = next((p for p in (*_certificates(case), *case.all("tls.disk"))), None)
    if not hurt or certificate is None or not _served_valid(case):
        return None
    issuer = str(certificate.facts.get("issuer") or "")
    changed = certificate.facts.get("issuer_before")
    others = _tls_successes(case)
    if certificate.facts.get("issuer") == certificate.facts.get("subject"):
        return None
    if not (changed or (_public(issuer) and others and len({a.client for a in hurt}) > 1)):
        return None
    lines = [a.shown() for a in hurt[:2]]
    lines.append(
        f"The issuer now is {issuer}" + (f", before it was {changed}." if changed else ".")
    )
    lines += [f"{others} handshakes of others succeed."] if others else []
    return match(
        None, 0.9 if changed else 0.7, *lines, ruled_out=("tls-untrusted-ca", "tls-device-clock")
    )


def _tls_successes(case: Case) -> int:
    return sum(
        1
        for piece in case.all("nginx.access")
        for line in piece.facts["lines"]
        if line.get("tls") and line.get("status") == 101
    )


def _name(case: Case) -> Match | None:
    alerts = _alerts(case, 42, 46)
    failed = _client_failed(case)
    code = failed.facts.get("verify_code") if failed else None
    reason = _reason(failed)
    mismatch = code in _NAME or "HOSTNAME_MISMATCH" in reason
    if not alerts and not mismatch:
        return None
    pieces = [p for p in _certificates(case) if p.facts.get("sans") is not None]
    pieces = pieces or [p for p in case.all("tls.disk") if p.facts.get("sans") is not None]
    if not mismatch and not pieces:
        return None
    sans = [str(s) for s in pieces[0].facts["sans"]] if pieces else []
    wanted = _wanted_names(case)
    covered = bool(wanted) and all(any(_covers(s, w) for s in sans) for w in wanted)
    if covered and not mismatch:
        return None
    lines = [a.shown() for a in alerts[:1]]
    lines += [f"The client's verification says: {failed.seen}"] if mismatch and failed else []
    lines.append(f"The certificate names {', '.join(sans) or 'nothing'}.")
    lines += [f"Controllers use {', '.join(wanted)}."] if wanted else []
    sure = 0.95 if mismatch else 0.85
    return match(None, sure, *lines, ruled_out=("tls-untrusted-ca", "tls-cert-expired"))


def _wanted_names(case: Case) -> list[str]:
    """What clients call the server: the target's host and the names asked for."""
    host = case.target.split("://")[-1].split("/")[0].rpartition(":")[0].strip("[]")
    named = [host] if host and "." in host else []
    named += [str(p.facts["name"]) for p in _client(case) if p.facts.get("name")]
    return list(dict.fromkeys(named))


def _covers(san: str, name: str) -> bool:
    kind, _, value = san.partition(":")
    if kind.startswith("IP"):
        return value == name
    if value.startswith("*."):
        return name.partition(".")[2] == value[2:]
    return value.lower() == name.lower()


def _device_clock(case: Case) -> Match | None:
    alerts = _alerts(case, 45, 46)
    if not alerts or not _served_valid(case):
        return None
    clients = {a.client for a in alerts}
    others = _tls_successes(case)
    wrong = _wrong_clocks(case)
    served = next((p for p in (*_certificates(case), *case.all("tls.disk"))), None)
    lines = [alerts[0].shown(), "The certificate is within its dates on this server's clock."]
    lines += [f"{others} handshakes of others succeed."] if others else []
    lines += [f"Its clock is off: {wrong[0]}"] if wrong else []
    verified = any(p.facts.get("ok") and p.facts.get("verify") == 0 for p in _certificates(case))
    if served is None or (len(clients) > 1 and not wrong):
        return None
    sure = 0.93 if wrong or others or verified else 0.7
    out = ("tls-cert-expired", "tls-root-rotated", "tls-untrusted-ca")
    return match(None, sure, *lines, ruled_out=out)


def _wrong_clocks(case: Case) -> list[str]:
    """Notes of our service about controllers whose times cannot be right."""
    return [
        f"{record.get('controller')}: {record.get('code')}"
        for piece in case.all("service.records")
        for record in piece.facts.get("events", [])
        if "clock" in str(record.get("code")) or "time" in str(record.get("code"))
    ]


def _sni(case: Case) -> Match | None:
    seen = failing(case, lambda a: a.event("tls-rejected") is not None)
    offers = _offers(case)
    split = offers.get("no-sni") is False and any(
        offers.get(variant) for variant in ("tls1.2", "tls1.3", "rsa", "ecdsa")
    )
    failed = _client_failed(case)
    unnamed = failed is not None and "UNRECOGNIZED_NAME" in _reason(failed)
    rejecting = [s for _, s in _tls_sites(case) if s.get("ssl_reject_handshake") == "on"]
    if not (seen or unnamed or (split and rejecting)):
        return None
    lines = ["nginx: handshake rejected (ssl_reject_handshake)"] if seen else []
    if split:
        lines.append("Without a server name the handshake fails, with it it succeeds.")
    if rejecting:
        lines.append("The default TLS server of the port has ssl_reject_handshake on.")
    return match(seen, 0.96, *lines, ruled_out=("tls-no-shared-cipher", "px-default-server"))


def _mtls(case: Case) -> Match | None:
    seen = failing(
        case,
        lambda a: (
            a.event("no-client-certificate", "client-certificate-bad") is not None
            or said(a, "No required SSL certificate was sent", "SSL certificate error")
        ),
    )
    if seen is None:
        return None
    asking = [s["ssl_verify_client"] for _, s in _tls_sites(case) if s.get("ssl_verify_client")]
    lines = [f"ssl_verify_client {asking[0]}"] if asking else []
    return match(seen, 0.97, *lines, "Controllers have no certificates of their own.")


#: What small TLS stacks keep a chain or a record in, bytes (field reports: 3 to 6 KB).
SMALL_BUFFER = 4096


def _record_too_large(case: Case) -> Match | None:
    chain = 0
    for piece in (*_certificates(case), *case.all("tls.disk")):
        size = piece.facts.get("chain_bytes")
        total = sum(size) if isinstance(size, list) else int(size or 0)
        chain = max(chain, total)
    overflow = _alerts(case, 22)
    closed = failing(
        case,
        lambda a: a.event("tls-closed") is not None or bool(a.event("tls-alert") and a in overflow),
    )
    if overflow:
        line = f"The client broke off with record_overflow; the chain has {chain} bytes."
        return match(overflow[0], 0.95, line, ruled_out=("l3-mtu-blackhole",))
    if closed is None or chain <= SMALL_BUFFER:
        return None
    if _retransmits(case, closed.client):
        return None
    lines = [f"The certificate chain has {chain} bytes; the client ends the handshake on its own.",
             "Its kernel acknowledged what was sent: the path carries large packets."]  # fmt: skip
    return match(closed, 0.85, *lines, ruled_out=("l3-mtu-blackhole",))


def _retransmits(case: Case, client: str | None) -> bool:
    return any(
        entry.get("peer") == client and (entry.get("retrans") or entry.get("backoff"))
        for piece in case.all("net.sockets")
        for entry in piece.facts.get("sockets", [])
    )


_SHAKES = "The TLS handshake of the controller completes."

CAUSES: tuple[Cause, ...] = (
    Cause(
        "tls-plain-client-to-tls-port",
        Layer.TLS,
        "The controller speaks ws:// to the TLS port",
        Fix(
            "Switch the controller to TLS, or give it the plain port.",
            _SHAKES,
            Auto.ASK,
            controller="Server tab: protocol HTTPS, or the port of the plain listener",
        ),
        _plain_to_tls,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-client-to-plain-port",
        Layer.TLS,
        "The controller speaks wss:// to a plain port",
        Fix(
            "Give the controller the TLS port, or switch TLS off in it.",
            "The service's records show a request instead of a ClientHello.",
            Auto.ASK,
            controller="Server tab: protocol HTTP, or the port of the TLS listener",
        ),
        _tls_to_plain,
        (*RETRY_AFTERMATH, "hs-malformed-request"),
    ),
    Cause(
        "tls-client-version-too-old",
        Layer.TLS,
        "The controller offers only TLS 1.1 or older",
        Fix("Update its firmware; until then use the plain port inside a VPN.", _SHAKES, Auto.ASK),
        _too_old,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-seclevel-mismatch",
        Layer.TLS,
        "Old TLS is switched on, OpenSSL's level refuses it",
        Fix(
            "Append @SECLEVEL=0 to ssl_ciphers of that server block only; it weakens TLS.",
            _SHAKES,
            Auto.ASK,
            RELOAD,
        ),
        _seclevel,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-server-min-too-high",
        Layer.TLS,
        "The server offers TLS 1.3 only",
        Fix(
            "Allow TLS 1.2 as well: ssl_protocols TLSv1.2 TLSv1.3;",
            "openssl s_client -tls1_2 completes a handshake.",
            Auto.YES,
            PROVISION_NGINX,
        ),
        _min_too_high,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-ecdsa-cert-rsa-client",
        Layer.TLS,
        "The certificate is ECDSA, the controller knows RSA only",
        Fix(
            "Serve an RSA certificate beside the ECDSA one.",
            "An ECDHE-RSA handshake succeeds beside the ECDHE-ECDSA one.",
            Auto.YES,
            PROVISION_TLS,
        ),
        _ecdsa_only,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-no-shared-cipher",
        Layer.TLS,
        "The server's suites are too new for the controller",
        Fix(
            "Add AES128-GCM-SHA256 and AES128-SHA to ssl_ciphers of the link's server block.",
            "openssl s_client -cipher AES128-SHA completes a handshake.",
            Auto.ASK,
            RELOAD,
        ),
        _no_shared_cipher,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-cert-expired",
        Layer.TLS,
        "The server's certificate has expired",
        Fix(
            "Renew the certificate, reload nginx, and mend the renewal timer.",
            "The certificate served ends in the future.",
            Auto.YES,
            PROVISION_TLS,
        ),
        _expired,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-untrusted-ca",
        Layer.TLS,
        "The controller does not trust the certificate's issuer",
        Fix("Load the issuing CA into the controller, or use a CA it has.", _SHAKES, Auto.NO),
        _untrusted,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-root-rotated",
        Layer.TLS,
        "The certificate's chain changed, old firmware lacks the root",
        Fix(
            "Ask for the former chain (certbot --preferred-chain), use another CA, or update the "
            "firmware.",
            _SHAKES,
            Auto.ASK,
        ),
        _rotated,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-name-mismatch",
        Layer.TLS,
        "The certificate lacks the name or address controllers use",
        Fix(
            "Issue a certificate with that name or address, or let the controller use the name.",
            "The certificate's names contain what the controller dials.",
            Auto.YES,
            PROVISION_TLS,
            controller="Server tab: 'Domain name' instead of the IP address",
        ),
        _name,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-device-clock",
        Layer.TLS,
        "The controller's clock is wrong",
        Fix(
            "Set its clock over the LAN or a plain port, and replace the clock's battery.",
            _SHAKES,
            Auto.NO,
            controller="Parameters: date and time, and synchronisation",
        ),
        _device_clock,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-sni-missing",
        Layer.TLS,
        "The controller names no server (SNI), the default refuses it",
        Fix(
            "Make the link's server block the default_server of its address and port.",
            "openssl s_client -noservername completes a handshake.",
            Auto.YES,
            PROVISION_NGINX,
        ),
        _sni,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-mtls-required",
        Layer.TLS,
        "nginx demands a certificate of the client",
        Fix(
            "Set ssl_verify_client off; in the link's server block.",
            _SHAKES,
            Auto.ASK,
            PROVISION_NGINX,
        ),
        _mtls,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-record-too-large",
        Layer.TLS,
        "Certificate chain or records exceed the controller's buffer",
        Fix(
            "Set ssl_buffer_size 4k; and serve a short chain (one intermediate, ECDSA or RSA "
            "2048).",
            _SHAKES,
            Auto.YES,
            PROVISION_NGINX,
        ),
        _record_too_large,
        RETRY_AFTERMATH,
    ),
)
