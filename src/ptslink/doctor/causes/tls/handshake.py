"""Before the certificate: TLS or not, versions, suites, the server's name, who must show one."""

from __future__ import annotations

from collections.abc import Mapping

from ptslink.doctor.attempts import Attempt, troubles
from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import (
    RETRY_AFTERMATH,
    failing,
    match,
    said,
)
from ptslink.doctor.causes.tls.common import (
    REFUSES_CERTIFICATE,
    SHAKES,
    alerts,
    client_failed,
    dials_an_address,
    offered,
    reason,
    served_certificates,
    tls_sites,
)
from ptslink.doctor.commands import PROVISION_NGINX, PROVISION_TLS, RELOAD
from ptslink.doctor.evidence import Case, Json


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
    return match(seen, CERTAIN, line, ruled_out=("px-http-to-tls-upstream", "hs-malformed-request"))


def is_plain(case: Case, port: int | None) -> bool:
    """Whether a port is known to be a plain one: then it is nginx that asks a TLS port."""
    if offered(case, port).get("tls-on-plain") is False:
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
    failed = client_failed(case)
    lines = []
    if seen is not None:
        lines.append("The first bytes are a TLS ClientHello (16 03).")
    if failed is not None and reason(failed) in (
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
    ):
        lines.append(f"The client's own TLS says {reason(failed)}: no TLS was spoken back.")
    if not lines:
        return None
    return match(
        seen, CERTAIN, *lines, ruled_out=("hs-malformed-request", "tls-client-version-too-old")
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
    for site, settings in tls_sites(case):
        if port is None or any(entry["port"] == port for entry in site["listen"]):
            return settings.get("ssl_protocols")
    return None


def _lists_old(protocols: str | None) -> bool:
    return bool(protocols) and any(p in str(protocols).split() for p in ("TLSv1", "TLSv1.1"))


def only_13(protocols: str | None) -> bool:
    return protocols is not None and protocols.split() == ["TLSv1.3"]


def _too_old(case: Case) -> Match | None:
    found = _version_event(case)
    if found is None:
        return None
    seen, event = found
    protocols = _protocols(case, event.get("port"))
    if _lists_old(protocols) or only_13(protocols):
        return None
    offers = offered(case, event.get("port"))
    if offers.get("tls1.2") is False:
        return None
    lines = [f"nginx: {event['text']}"]
    if event.get("reason") == "no suitable signature algorithm":
        lines.append("That is OpenSSL 3's answer to a ClientHello of TLS 1.1 or older.")
    if offers.get("tls1.2"):
        lines.append("TLS 1.2 is accepted on this port: the controller offers less.")
    sure = STRONG if offers.get("tls1.2") or protocols else LIKELY
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
    return match(seen, CERTAIN, *lines, ruled_out=("tls-client-version-too-old",))


def _min_too_high(case: Case) -> Match | None:
    found = _version_event(case)
    offers = offered(case)
    refused = offers.get("tls1.2") is False and offers.get("tls1.3") is True
    failed = client_failed(case)
    alert = failed is not None and "PROTOCOL_VERSION" in reason(failed)
    port = found[1].get("port") if found else None
    protocols = _protocols(case, port)
    if port is None:
        every = [settings.get("ssl_protocols") for _, settings in tls_sites(case)]
        protocols = next((listed for listed in every if only_13(listed)), None)
    if not (refused or only_13(protocols)):
        return None
    lines = []
    if refused:
        lines.append("Tried from here: TLS 1.2 is refused, TLS 1.3 accepted.")
    if only_13(protocols):
        lines.append("ssl_protocols is TLSv1.3 alone.")
    if found:
        lines.append(f"nginx: {found[1]['text']}")
    sure = CERTAIN if refused or found or alert else LIKELY
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
    return disk or {str(p.facts["key"]) for p in served_certificates(case) if p.facts.get("key")}


def _ecdsa_only(case: Case) -> Match | None:
    found = _no_cipher_event(case)
    failed = client_failed(case)
    hurt = failed is not None and "HANDSHAKE_FAILURE" in reason(failed)
    port = found[1].get("port") if found else (failed.facts.get("port") if failed else None)
    if found is None and not hurt:
        return None
    keys, offers = _key_types(case, port), offered(case, port)
    by_offer = offers.get("ecdsa") is True and offers.get("rsa") is False
    if not (keys == {"ecdsa"} or by_offer):
        return None
    lines = [f"nginx: {found[1]['text']}"] if found else []
    if keys:
        lines.append(f"The certificate's key is {', '.join(sorted(keys))}.")
    if files := [str(p.facts["file"]) for p in case.all("tls.disk") if p.facts.get("key")]:
        lines.append(f"No ssl_certificate with an RSA key is served, only {', '.join(files)}.")
    if by_offer:
        lines.append("ECDHE-RSA suites are refused, ECDHE-ECDSA suites accepted.")
    return match(found[0] if found else None, CERTAIN, *lines, ruled_out=("tls-no-shared-cipher",))


def _no_shared_cipher(case: Case) -> Match | None:
    found = _no_cipher_event(case)
    failed = client_failed(case)
    hurt = failed is not None and "HANDSHAKE_FAILURE" in reason(failed)
    if found is None and not hurt:
        return None
    port = found[1].get("port") if found else None
    keys, offers = _key_types(case, port), offered(case, port)
    if keys == {"ecdsa"} or (offers.get("ecdsa") and offers.get("rsa") is False):
        return None
    suites = next(
        (
            settings.get("ssl_ciphers")
            for site, settings in tls_sites(case)
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
    sure = STRONG if "rsa" in keys or offers.get("legacy") is False else LIKELY
    return match(
        found[0] if found else None, sure, *lines, ruled_out=("tls-ecdsa-cert-rsa-client",)
    )


def _sni(case: Case) -> Match | None:
    seen = failing(case, lambda a: a.event("tls-rejected") is not None)
    offers = offered(case)
    split = offers.get("no-sni") is False and any(
        offers.get(variant) for variant in ("tls1.2", "tls1.3", "rsa", "ecdsa")
    )
    unnamed = "UNRECOGNIZED_NAME" in reason(client_failed(case))
    rejecting = [s for _, s in tls_sites(case) if s.get("ssl_reject_handshake") == "on"]
    if not (seen or unnamed or (split and rejecting)):
        return _shown_anothers(case)
    lines = ["nginx: handshake rejected (ssl_reject_handshake)"] if seen else []
    if split:
        lines.append("Without a server name the handshake fails, with it it succeeds.")
    if rejecting:
        lines.append("The default TLS server of the port has ssl_reject_handshake on.")
    return match(seen, CERTAIN, *lines, ruled_out=("tls-no-shared-cipher", "px-default-server"))


def _shown_anothers(case: Case) -> Match | None:
    """Somebody refuses the certificate, and who names no server is shown another's."""
    refused = alerts(case, *REFUSES_CERTIFICATE)
    failed = client_failed(case)
    unnamed = failed is not None and failed.facts.get("verify_code") and dials_an_address(case)
    if not (refused or unnamed):
        return None
    shown: dict[bool, set[str]] = {True: set(), False: set()}
    for piece in case.all("tls.offer"):
        sent = piece.facts.get("name") if piece.vantage == "server" else not dials_an_address(case)
        if piece.facts.get("fingerprint"):
            named = bool(sent) and piece.facts["variant"] != "no-sni"
            shown[named].add(str(piece.facts["fingerprint"]))
    if not all(shown.values()) or shown[True] & shown[False]:
        return None
    lines = [a.shown() for a in refused[:1]]
    lines += [f"The client's verification says: {failed.seen}"] if unnamed and failed else []
    lines.append("Who names no server (SNI) is shown another certificate than who names it.")
    out = ("tls-untrusted-ca", "tls-name-mismatch", "tls-root-rotated", "tls-device-clock")
    return match(None, CERTAIN, *lines, ruled_out=out)


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
    asking = [s["ssl_verify_client"] for _, s in tls_sites(case) if s.get("ssl_verify_client")]
    lines = [f"ssl_verify_client {asking[0]}"] if asking else []
    return match(seen, CERTAIN, *lines, "Controllers have no certificates of their own.")


CAUSES: tuple[Cause, ...] = (
    Cause(
        "tls-plain-client-to-tls-port",
        Layer.TLS,
        "The controller speaks ws:// to the TLS port",
        Fix(
            "Switch the controller to TLS, or give it the plain port.",
            SHAKES,
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
        Fix("Update its firmware; until then use the plain port inside a VPN.", SHAKES, Auto.ASK),
        _too_old,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-seclevel-mismatch",
        Layer.TLS,
        "Old TLS is switched on, OpenSSL's level refuses it",
        Fix(
            "Append @SECLEVEL=0 to ssl_ciphers of that server block only; it weakens TLS.",
            SHAKES,
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
        (*RETRY_AFTERMATH, "px-default-server"),
    ),
    Cause(
        "tls-mtls-required",
        Layer.TLS,
        "nginx demands a certificate of the client",
        Fix(
            "Set ssl_verify_client off; in the link's server block.",
            SHAKES,
            Auto.ASK,
            PROVISION_NGINX,
        ),
        _mtls,
        RETRY_AFTERMATH,
    ),
)
