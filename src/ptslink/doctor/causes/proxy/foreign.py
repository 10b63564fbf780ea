"""Proxies of others on the way: of the site, of its provider, or in front of the machine."""

from __future__ import annotations

from ptslink.doctor.attempts import Attempt
from ptslink.doctor.cause import CERTAIN, GUESS, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import RETRY_AFTERMATH, by_service, failing, match
from ptslink.doctor.causes.proxy.common import host_in, host_of, own_hosts
from ptslink.doctor.evidence import Case
from ptslink.doctor.pattern import SHORT_SECONDS, current


def _header_case(case: Case) -> Match | None:
    for piece in (*case.all("http.upgrade", "site"), *case.all("http.upgrade", "control")):
        headers = dict(piece.facts.get("headers") or {})
        if piece.facts.get("status") != 101 or not headers:
            continue
        lowered = [
            name
            for name in headers
            if name.lower().startswith("sec-websocket-") and name == name.lower()
        ]
        if not lowered:
            continue
        through = [link for link in current(case) if link.lost]
        short = [link for link in through if link.seconds <= SHORT_SECONDS and not link.messages_in]
        if not short and _carried(case):
            return None  # these controllers read them
        lines = [
            f"The 101 arrives with header names in lower case: {', '.join(lowered)}.",
            "ptslink and nginx send Sec-WebSocket-Accept; a proxy between has changed it.",
        ]
        lines += [short[-1].shown()] if short else []
        return match(None, STRONG if short else GUESS, *lines, ruled_out=("hs-bad-accept",))
    return None


def _carried(case: Case) -> bool:
    """Whether a controller's link stands, or was seen to carry something."""
    connected = case.fact("service.live", "controllers") or []
    return bool(connected) or any(link.messages_in for link in current(case))


def _forward_proxy(case: Case) -> Match | None:
    def through(a: Attempt) -> bool:
        if a.source in ("site", "control"):
            squid = a.header("X-Squid-Error") or a.status == 407
            return bool(squid) or bool(a.header("Via") and not by_service(a) and a.status != 101)
        via = a.via or a.request.get("via")
        return bool(via) and (
            a.upgrade is False or a.version == "1.0" or a.status in (400, 426, 505)
        )

    seen = failing(case, through)
    if seen is None:
        return None
    named = (
        seen.via or seen.request.get("via") or seen.header("Via") or seen.header("X-Squid-Error")
    )
    lines = [f"A proxy of the site names itself: {named or 'status 407'}"]
    if seen.upgrade is False:
        lines.append("The Upgrade header was gone before the request reached this server.")
    out = ("hs-device-no-upgrade", "px-upgrade-headers-missing", "hs-http10-device",
           "nat-forward-wrong-host", "px-captive-portal")  # fmt: skip
    # A port forward to another machine shows no proxy's name.
    return match(seen, CERTAIN, *lines, *_answers_for_all(case), ruled_out=out)


def _answers_for_all(case: Case) -> list[str]:
    """Where something between answers for every address: that it does, for a person."""
    return [
        f"{piece.facts['address']}, an address nobody has, answers there as well."
        for piece in case.all("tcp.nobody")
        if piece.facts["errno"] is None
    ]


def _captive_portal(case: Case) -> Match | None:
    def portal(a: Attempt) -> bool:
        if a.source not in ("site", "control") or a.status not in (200, 302, 303, 307, 511):
            return False
        target = a.header("Location")
        if target and host_in(target) in (host_of(a), *own_hosts(case)):
            return False
        server = (a.header("Server") or "").lower()
        return a.code is None and "ptslink" not in server

    seen = failing(case, portal)
    if seen is None:
        return None
    arrived = [
        a
        for piece in case.all("nginx.access")
        for a in piece.facts["lines"]
        if a.get("controller") == seen.controller and seen.controller
    ]
    if arrived:
        return None
    target, for_all = seen.header("Location"), _answers_for_all(case)
    if not target and not for_all and case.first("tcp.nobody") is not None:
        return None  # a page like any other, and only this address leads to it
    lines = [f"Server: {seen.header('Server') or 'not named'}"]
    if target:
        lines.append(f"It sends the client to {target}")
    silent = "server" in case.vantages()
    lines += ["The server saw nothing of the request."] if silent else []
    sure = CERTAIN if for_all else STRONG if silent or target else LIKELY
    out = ("px-https-redirect", "nat-forward-wrong-host")
    return match(seen, sure, *lines, *for_all, ruled_out=out)


CAUSES: tuple[Cause, ...] = (
    Cause(
        "px-header-case",
        Layer.PROXY,
        "A proxy writes the answer's header names in lower case",
        Fix(
            "Let the proxy keep the case (HAProxy: h1-case-adjust with option "
            "h1-case-adjust-bogus-client), or "
            "put nginx in its place.",
            "The 101 carries Sec-WebSocket-Accept as written here, and the controller stays.",
            # The catalogue says yes for an own proxy. Ours is nginx, which keeps the case; any
            # other one's configuration is not provisioned, so there is nothing to put back.
            Auto.ASK,
        ),
        _header_case,
        ("dev-reconnect-storm", "app-first-message"),
    ),
    Cause(
        "px-forward-proxy",
        Layer.PROXY,
        "A proxy in the site's network stands between",
        Fix(
            "Exempt the controller from the site's proxy, or use TLS, which it cannot rewrite.",
            "Requests arrive without a Via header and with Upgrade.",
            Auto.NO,
            controller="Server tab: protocol HTTPS and the TLS port",
        ),
        _forward_proxy,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-captive-portal",
        Layer.PROXY,
        "A captive portal answers instead of the server",
        Fix(
            "Pay for or unlock the site's internet access, or allow the controller's MAC there.",
            "The answer to the upgrade comes from this server.",
            Auto.NO,
        ),
        _captive_portal,
    ),
)
