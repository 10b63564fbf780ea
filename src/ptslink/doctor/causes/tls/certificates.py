"""What a controller makes of the certificate: its dates, its issuer, its names, its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from ptslink.doctor.attempts import Attempt, attempts
from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import (
    RETRY_AFTERMATH,
    failing,
    match,
)
from ptslink.doctor.causes.tls.common import (
    BAD,
    EXPIRED,
    NO_ISSUER,
    SHAKES,
    UNKNOWN,
    alerts,
    client,
    client_failed,
    reason,
    served_certificates,
    target_host,
)
from ptslink.doctor.commands import PROVISION_NGINX, PROVISION_TLS, RELOAD
from ptslink.doctor.evidence import Case, Evidence, Json

#: OpenSSL's verify return codes (X509_V_ERR_*).
_UNTRUSTED = (18, 19, 20, 21, 2)
_EXPIRED, _NAME = 10, (62, 63, 64)
#: The alert of a client that has no room (RFC 8446 6.2).
_OVERFLOW = 22
#: A change of issuer is noticed in these first days, in seconds.
_NOTICED_SECONDS = 30 * 86400.0

Facts = Mapping[str, Json]


def _certificates(case: Case) -> list[Evidence]:
    """What is served, and behind it what lies on the disk."""
    return [*served_certificates(case), *case.all("tls.disk")]


def _first(case: Case) -> Facts:
    """The certificate of the link, {} where none was seen."""
    return next((p.facts for p in _certificates(case) if p.facts.get("not_after")), {})


def _chain(facts: Facts) -> list[Facts]:
    """The certificates of a chain whose dates are known, the leaf first."""
    above: list[Facts] = [one for one in facts.get("chain") or [] if one.get("not_after")]
    return above or ([facts] if facts.get("not_after") else [])


def _in_time(facts: Facts) -> bool:
    """Whether a whole chain is within its dates on the clock that looked at it; unseen is."""
    now = facts.get("now")
    return now is None or all(
        (one.get("not_before") or 0.0) <= now <= one["not_after"] for one in _chain(facts)
    )


def _all_in_time(case: Case) -> bool:
    """Whether every certificate seen is within its dates, and there is one."""
    return bool(_first(case)) and all(_in_time(piece.facts) for piece in _certificates(case))


# --- Dates -------------------------------------------------------------------------------------


def _expired(case: Case) -> Match | None:
    facts = _first(case)
    now, broke_off = facts.get("now"), alerts(case, EXPIRED)
    failed = client_failed(case)
    refused = failed is not None and failed.facts.get("verify_code") == _EXPIRED
    over = [one for one in _chain(facts) if now is not None and one["not_after"] < now]
    # Further up a chain there may be what was added for old clients and has expired since.
    if not over or (facts["not_after"] >= now and not broke_off and not refused):
        if not refused or failed is None:
            return None
        return match(None, LIKELY, f"The client's verification says: {failed.seen}")
    lines = [
        f"{one['subject']}: expired {(now - one['not_after']) / 86400:.1f} days ago."
        for one in over
    ]
    fix = None
    fresh = [p for p in case.all("tls.disk") if _in_time(p.facts) and p.facts.get("not_after")]
    if fresh and "file" not in facts:
        lines.append(f"{fresh[0].facts['file']} on the disk is valid: nginx only has to reload it.")
        fix = Fix("Reload nginx: the renewed certificate is on the disk already.",
                  "The certificate served ends in the future.", Auto.YES, RELOAD)  # fmt: skip
    lines += [f"Clients broke off with alert 45: {a.shown()}" for a in broke_off[:1]]
    out = ("tls-device-clock", "tls-root-rotated", "tls-untrusted-ca")
    return match(None, CERTAIN, *lines, ruled_out=out, fix=fix)


def _device_clock(case: Case) -> Match | None:
    """Somebody calls a certificate expired, or bad though it is of the right name.

    Libraries differ in what they say of a certificate that is not yet valid: mbedTLS 46, OpenSSL
    42, which are their words for a wrong name, too.
    """
    broke_off = alerts(case, EXPIRED) or alerts(case, BAD, UNKNOWN)
    if not broke_off or not _all_in_time(case):
        return None
    plain = bool(alerts(case, EXPIRED))
    if not plain and not _name_fits(case):
        return None
    if len({attempt.client for attempt in broke_off}) > 1:
        return None  # several clocks at once: it is what they trust that has expired
    others = _tls_successes(case)
    lines = [broke_off[0].shown(), "The whole chain is within its dates on this server's clock."]
    lines += ["Its names contain what controllers dial."] if not plain else []
    lines += [f"{others} handshakes of others succeed."] if others else []
    out = ("tls-cert-expired", "tls-untrusted-ca")
    return match(None, STRONG if plain else LIKELY, *lines, ruled_out=out)


# --- Issuers -----------------------------------------------------------------------------------


def _untrusted(case: Case) -> Match | None:
    broke_off, failed = alerts(case, NO_ISSUER), client_failed(case)
    told = failed is not None and failed.facts.get("verify_code") in _UNTRUSTED
    if not broke_off and not told:
        return None
    lines = [a.shown() for a in broke_off[:1]]
    if told and failed is not None:
        lines.append(f"The client's verification says: {failed.seen}")
        lines.append("Where controllers trust an authority of their own, try again with --ca FILE.")
    facts = next((piece.facts for piece in _certificates(case)), {})
    if facts.get("issuer"):
        own = "itself" if facts["issuer"] == facts.get("subject") else facts["issuer"]
        lines.append(f"The certificate is issued by {own}.")
    out = ("tls-cert-expired", "tls-name-mismatch", "tls-device-clock")
    return match(None, STRONG if broke_off else LIKELY, *lines, ruled_out=out)


def _anchor(chain: list[Facts]) -> tuple[str, str | None]:
    """Whom a client has to trust: name and key of the issuer of a chain's last certificate."""
    last = chain[-1]
    return str(last["issuer"]), last.get("authority_key")


def _changes(case: Case) -> Iterator[tuple[str, float]]:
    """Files whose chain leads to another issuer than before: the change in words, and its age."""
    for piece in case.all("tls.disk"):
        chain, before = piece.facts.get("chain"), piece.facts.get("before") or {}
        old = before.get("chain")
        if not chain or not old or old[0]["issuer"] == old[0]["subject"]:
            continue  # nobody ever trusted a stand-in that is its own issuer
        (name, key), (old_name, old_key) = _anchor(chain), _anchor(old)
        if name != old_name:
            words = f"The chain leads to {name}, before it led to {old_name}."
        elif key and old_key and key != old_key:
            words = f"The chain leads to another {name} than before: same name, other key."
        else:
            continue
        yield words, float(piece.facts["now"]) - float(before["until"])


def _rotated(case: Case) -> Match | None:
    """Somebody breaks off for an unknown issuer, and the issuer is not who it was."""
    broke_off, failed = alerts(case, NO_ISSUER, EXPIRED), client_failed(case)
    told = failed is not None and failed.facts.get("verify_code") in _UNTRUSTED
    if not (broke_off or told) or not _all_in_time(case):
        return None
    others = _tls_successes(case)
    lines = [a.shown() for a in broke_off[:2]]
    lines += [f"The client's verification says: {failed.seen}"] if told and failed else []
    lines += [f"{others} handshakes of others succeed."] if others else []
    out = ("tls-untrusted-ca", "tls-device-clock")
    change = min(_changes(case), key=lambda one: one[1], default=None)
    if change is not None:
        words, age = change
        lines.append(f"{words} That was {age / 86400:.1f} days ago.")
        sure = STRONG if age < _NOTICED_SECONDS and (told or alerts(case, NO_ISSUER)) else LIKELY
        return match(None, sure, *lines, ruled_out=out)
    facts = _first(case)
    several = len({attempt.client for attempt in broke_off}) > 1
    if several and others and _public(str(facts.get("issuer") or "")):
        lines.append(f"The certificate is issued by {facts['issuer']}.")
        return match(None, LIKELY, *lines, ruled_out=out)
    return None


def _public(issuer: str) -> bool:
    return any(
        name in issuer for name in ("Let's Encrypt", "DigiCert", "Sectigo", "ZeroSSL", "GlobalSign")
    )


def _tls_successes(case: Case) -> int:
    return sum(
        1
        for piece in case.all("nginx.access")
        for line in piece.facts["lines"]
        if line.get("tls") and line.get("status") == 101
    )


# --- Names -------------------------------------------------------------------------------------


def _name(case: Case) -> Match | None:
    broke_off, failed = alerts(case, BAD, UNKNOWN), client_failed(case)
    told = failed is not None and (
        failed.facts.get("verify_code") in _NAME or "HOSTNAME_MISMATCH" in reason(failed)
    )
    if not told and (not broke_off or not _names(case) or _name_fits(case)):
        return None
    wanted = _dialled(case)
    lines = [a.shown() for a in broke_off[:1]]
    lines += [f"The client's verification says: {failed.seen}"] if told and failed else []
    lines.append(f"The certificate names {', '.join(_names(case)) or 'nothing'}.")
    lines += [f"Controllers use {', '.join(wanted)}."] if wanted else []
    sure = STRONG if told else LIKELY
    return match(None, sure, *lines, ruled_out=("tls-untrusted-ca", "tls-cert-expired"))


def _names(case: Case) -> list[str]:
    """The names of the certificate of the link."""
    for piece in _certificates(case):
        if piece.facts.get("sans") is not None:
            return [str(name) for name in piece.facts["sans"]]
    return []


def _name_fits(case: Case) -> bool:
    """Whether the certificate is of the names that controllers dial, as far as they are known."""
    wanted, names = _dialled(case), _names(case)
    return bool(wanted) and all(any(_covers(name, one) for name in names) for one in wanted)


def _dialled(case: Case) -> list[str]:
    """What clients call the server: the target's host and the names asked for, else what stands
    in the requests of controllers, else the server's own address."""
    target = target_host(case)
    asked = [target] if target else []
    asked += [str(p.facts["name"]) for p in client(case) if p.facts.get("name")]
    asked = asked or [
        str(urlsplit(f"//{attempt.host}").hostname)
        for attempt in attempts(case)
        if attempt.host and _of_a_controller(attempt)
    ]
    asked = asked or [
        str(one["address"])
        for one in case.fact("net.addresses", "addresses") or ()
        if one.get("scope") == "global" and one.get("family") == "ipv4"
    ]
    return list(dict.fromkeys(asked))


def _of_a_controller(attempt: Attempt) -> bool:
    return bool(attempt.controller) and not attempt.by_probe


def _covers(san: str, name: str) -> bool:
    kind, _, value = san.partition(":")
    if kind.startswith("IP"):
        return value == name
    if value.startswith("*."):
        return name.partition(".")[2] == value[2:]
    return value.lower() == name.lower()


# --- Size --------------------------------------------------------------------------------------

#: What small TLS stacks keep a chain or a record in, bytes (field reports: 3 to 6 KB).
SMALL_BUFFER = 4096


def _record_too_large(case: Case) -> Match | None:
    chain = 0
    for piece in _certificates(case):
        size = piece.facts.get("chain_bytes")
        total = sum(size) if isinstance(size, list) else int(size or 0)
        chain = max(chain, total)
    overflow = alerts(case, _OVERFLOW)
    closed = failing(
        case,
        lambda a: a.event("tls-closed") is not None or bool(a.event("tls-alert") and a in overflow),
    )
    if overflow:
        line = f"The client broke off with record_overflow; the chain has {chain} bytes."
        return match(overflow[0], STRONG, line, ruled_out=("l3-mtu-blackhole",))
    if closed is None or chain <= SMALL_BUFFER:
        return None
    if _retransmits(case, closed.client):
        return None
    lines = [f"The certificate chain has {chain} bytes; the client ends the handshake on its own.",
             "Its kernel acknowledged what was sent: the path carries large packets."]  # fmt: skip
    return match(closed, LIKELY, *lines, ruled_out=("l3-mtu-blackhole",))


def _retransmits(case: Case, client: str | None) -> bool:
    return any(
        entry.get("peer") == client and (entry.get("retrans") or entry.get("backoff"))
        for piece in case.all("net.sockets")
        for entry in piece.facts.get("sockets", [])
    )


CAUSES: tuple[Cause, ...] = (
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
        Fix("Load the issuing CA into the controller, or use a CA it has.", SHAKES, Auto.NO),
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
            SHAKES,
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
            SHAKES,
            Auto.NO,
            controller="Parameters: date and time, and synchronisation",
        ),
        _device_clock,
        RETRY_AFTERMATH,
    ),
    Cause(
        "tls-record-too-large",
        Layer.TLS,
        "Certificate chain or records exceed the controller's buffer",
        Fix(
            "Set ssl_buffer_size 4k; and serve a short chain (one intermediate, ECDSA or RSA "
            "2048).",
            SHAKES,
            Auto.YES,
            PROVISION_NGINX,
        ),
        _record_too_large,
        RETRY_AFTERMATH,
    ),
)
