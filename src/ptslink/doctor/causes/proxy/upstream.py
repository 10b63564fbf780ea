"""How nginx asks the service behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ptslink.doctor.attempts import Attempt
from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import (
    RETRY_AFTERMATH,
    by_nginx,
    by_service,
    failing,
    location,
    match,
    said,
    service_answers,
    service_config,
    where,
)
from ptslink.doctor.causes.proxy.common import answering, direct_only, nginx_config, nginx_fix
from ptslink.doctor.causes.tls.handshake import is_plain
from ptslink.doctor.commands import journal
from ptslink.doctor.evidence import Case, Json
from ptslink.doctor.pattern import link_location, near


def _upgrade_headers_missing(case: Case) -> Match | None:
    def lost(a: Attempt) -> bool:
        if not (a.upgrade and a.hop != "service" and by_service(a)):
            return False
        if a.source == "service":
            return False
        named = ("upgrade-header-missing", "upgrade-required")
        missing = a.code in named or (a.status == 426 and a.code is None)
        return missing or (a.status == 400 and said(a, "missing Upgrade", "missing Connection"))

    seen = failing(case, lost)
    place = (answering(seen, case) if seen is not None else None) or location(case)
    headers = place[1]["settings"]["set_header"] if place else None
    absent = [
        name for name in ("upgrade", "connection") if headers is not None and not headers.get(name)
    ]
    if seen is not None:
        lines = ["The request had Upgrade: websocket when it reached nginx; the service missed it."]
        sure = seen.source in ("nginx", "local")
        if place and absent:
            lines.append(
                f"{where(*place)} sets no {' or '.join(n.title() for n in absent)} header."
            )
            sure = True
        if service_answers(case):
            lines.append("Asked directly, the service answers 101.")
        out = ("hs-device-no-upgrade", "hs-device-no-connection", "px-forward-proxy")
        return match(seen, CERTAIN if sure else LIKELY, *lines, ruled_out=out if sure else ())
    if place and "upgrade" in absent and not direct_only(case):
        line = f"{where(*place)} passes no Upgrade header on to the service."
        return match(None, LIKELY, line)
    return None


def _http10_upstream(case: Case) -> Match | None:
    def old(a: Attempt) -> bool:
        told = a.status == 505 or a.code in ("http-1.0", "http-version") or said(a, "HTTP/1.0")
        return (
            told
            and by_service(a)
            and a.source in ("nginx", "local", "site", "control")
            and (a.version != "1.0" and a.hop != "service")
        )

    seen = failing(case, old)
    if seen is None:
        return None
    place = link_location(case)
    version = place[1]["settings"]["proxy_http_version"] if place else None
    if place and version not in (None, "1.0"):
        return None
    lines = ["The client spoke HTTP/1.1, the service was asked in HTTP/1.0: nginx's default."]
    if place:
        lines.append(f"{where(*place)} has proxy_http_version {version or 'unset'}.")
    return match(seen, CERTAIN if place else LIKELY, *lines, ruled_out=("hs-http10-device",))


def _upstream_refused(case: Case) -> Match | None:
    def refused(a: Attempt) -> bool:
        return a.event("connect-refused", "no-live-upstreams") is not None

    seen = failing(case, refused)
    if seen is not None:
        event = seen.event("connect-refused", "no-live-upstreams")
        assert event is not None
        out = ("px-upstream-timeout", "px-selinux-denied", "px-https-to-plain-upstream")
        return match(seen, CERTAIN, f"nginx: {event['text']}", ruled_out=out)
    seen = failing(case, lambda a: a.status == 502 and by_nginx(a))
    down = [
        piece
        for piece in case.all("link.local")
        if piece.facts.get("hop") == "service" and piece.facts.get("errno") == "ECONNREFUSED"
    ]
    if seen is not None and not seen.events and (down or _no_listener(case)):
        return match(seen, STRONG, "Nothing listens on the service's port of this machine.")
    return None


def _no_listener(case: Case) -> bool:
    port = service_config(case, "listen").get("port")
    listed = case.first("net.listeners")
    if port is None or listed is None:
        return False
    return all(entry["port"] != port for entry in listed.facts.get("listeners", []))


def _upstream_timeout(case: Case) -> Match | None:
    seen = failing(case, lambda a: a.event("connect-timeout", "header-timeout") is not None)
    if seen is None:
        return None
    event = seen.event("connect-timeout", "header-timeout")
    assert event is not None
    settings = (link_location(case) or ({}, {"settings": {}}))[1]["settings"]
    if event["kind"] == "connect-timeout":
        timer = settings.get("proxy_connect_timeout")
        why = (
            "nginx's SYN to the service is not answered: dropped on the way, or its queue is full."
        )
        out: tuple[str, ...] = ("app-event-loop-blocked", "px-upstream-refused")
        sure = STRONG
    else:
        timer = settings.get("proxy_read_timeout")
        why = "The kernel took the connection, the process never answered on it."
        out = ("px-upstream-refused",)
        # A blocked loop shows the same; backlogged sockets of open links tell it apart.
        sure = STRONG
    lines = [f"nginx: {event['text']}", why]
    if timer and near(seen.seconds, timer):
        lines.append(f"It took {seen.seconds:.2f} s, the configured timeout is {timer:g} s.")
    return match(seen, sure, *lines, ruled_out=out)


def _to_network(event: Mapping[str, Json] | None) -> bool:
    """Whether it is of a connect over TCP: a Unix socket's permissions are another matter."""
    return event is not None and "unix:" not in f"{event.get('upstream')}{event['text']}"


def _selinux(case: Case) -> Match | None:
    seen = failing(case, lambda a: _to_network(a.event("connect-denied")))
    if seen is None:
        return None
    event = seen.event("connect-denied")
    assert event is not None
    state = case.first("host.selinux")
    if state is None:
        # Without its state this is the likeliest of several that give the same error.
        why = "Permission denied (13) on connect comes from a security module or a sandbox; the "
        why += "state of SELinux was not seen."
        fix = replace(_ALLOW_CONNECT, auto=Auto.ASK)
        return match(seen, LIKELY, f"nginx: {event['text']}", why,
                     ruled_out=("px-upstream-refused",), fix=fix)  # fmt: skip
    if state.facts["mode"] != "enforcing":
        return None
    allowed = (state.facts.get("booleans") or {}).get("httpd_can_network_connect")
    denials = state.facts.get("denials") or []
    if allowed and not denials:
        return None
    lines = [f"nginx: {event['text']}", f"server: {state.seen}"]
    lines += [f"server: {denials[-1]}"] if denials else []
    told = bool(denials) or allowed is False
    out = ("px-upstream-refused", "px-connect-failed")
    return match(seen, CERTAIN if told else STRONG, *lines, ruled_out=out)


def _connect_failed(case: Case) -> Match | None:
    """nginx's connect fails, and neither a closed port nor anything known forbids it."""

    def failed(a: Attempt) -> bool:
        return _to_network(a.event("connect-failed", "connect-denied"))

    seen = failing(case, failed)
    if seen is None:
        return None
    event = seen.event("connect-failed", "connect-denied")
    assert event is not None
    if event["kind"] == "connect-denied" and case.first("host.selinux") is None:
        return None
    lines = [f"nginx: {event['text']}"]
    state = case.first("host.selinux")
    lines += [f"server: {state.seen}"] if state is not None else []
    lines += [f"server: {p.seen}" for p in case.all("host.sandbox")
              if p.facts["unit"] == "nginx.service"]  # fmt: skip
    return match(seen, LIKELY, *lines, ruled_out=("px-upstream-refused", "px-upstream-timeout"))


def _https_to_plain(case: Case) -> Match | None:
    seen = failing(case, lambda a: a.event("upstream-tls") is not None)
    if seen is None:
        return None
    event = seen.event("upstream-tls")
    assert event is not None
    lines = [f"nginx: {event['text']}"]
    place = link_location(case)
    if place:
        lines.append(f"{where(*place)}: proxy_pass {place[1]['settings']['proxy_pass']}")
    return match(seen, CERTAIN, *lines, ruled_out=("px-upstream-refused",))


def _http_to_tls(case: Case) -> Match | None:
    place = link_location(case)
    target = str(place[1]["settings"]["proxy_pass"]) if place else ""
    tls_port = service_config(case, "tls").get("port")
    to_tls = (
        bool(tls_port) and target.startswith("http://") and _target_port(case, target) == tls_port
    )

    def plain(a: Attempt) -> bool:
        if a.status == 400 and said(a, "plain HTTP request was sent to HTTPS port"):
            # Said on a plain port it can only come from behind.
            return a.source in ("site", "control", "local") and is_plain(case, a.port)
        if a.status == 400 and by_service(a) and a.hop != "service":
            return (a.source == "nginx" and to_tls) or _upstream_is_tls_site(case, a)
        return to_tls and a.event("upstream-closed", "upstream-header") is not None

    seen = failing(case, plain)
    if seen is None:
        return None
    lines = ["nginx speaks plain HTTP to an upstream that expects TLS."]
    if place:
        lines.append(f"{where(*place)}: proxy_pass {target}")
    return match(seen, STRONG, *lines, ruled_out=("tls-plain-client-to-tls-port",))


def _target_port(case: Case, target: str) -> int | None:
    name = target.split("://")[-1].split("/")[0]
    servers = (nginx_config(case).get("upstreams") or {}).get(name, [name])
    port = str(servers[0]).rpartition(":")[2] if servers else ""
    return int(port) if port.isdecimal() else None


def _upstream_is_tls_site(case: Case, a: Attempt) -> bool:
    port = str(a.upstream or "").rpartition(":")[2]
    return any(
        entry["ssl"] and str(entry["port"]) == port
        for site in nginx_config(case).get("sites", [])
        for entry in site["listen"]
    )


_ALLOW_CONNECT = Fix(
    "Allow it: httpd_can_network_connect on.",
    "getsebool says on; the upgrade is answered with 101.",
    Auto.YES,
    (("setsebool", "-P", "httpd_can_network_connect", "on"),),
)

CAUSES: tuple[Cause, ...] = (
    Cause(
        "px-upgrade-headers-missing",
        Layer.PROXY,
        "nginx does not pass the Upgrade header on",
        nginx_fix(
            "Pass Upgrade and Connection on in the location of the link: proxy_set_header "
            "Upgrade $http_upgrade; proxy_set_header Connection $ptslink_connection; with "
            "the map of the same name."
        ),
        _upgrade_headers_missing,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-http10-upstream",
        Layer.PROXY,
        "nginx asks the service in HTTP/1.0",
        nginx_fix("Set proxy_http_version 1.1; in the location of the link."),
        _http10_upstream,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-upstream-refused",
        Layer.PROXY,
        "The service behind nginx does not listen",
        Fix(
            "Start the service and see why it stopped.",
            "ss -ltn shows the service's port, and the upgrade is answered with 101.",
            Auto.YES,
            (
                ("systemctl", "reset-failed", "ptslink"),
                ("systemctl", "enable", "--now", "ptslink"),
                journal("ptslink", lines=50),
            ),
        ),
        _upstream_refused,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-upstream-timeout",
        Layer.PROXY,
        "The service behind nginx takes connections but does not answer",
        Fix(
            "See what the process waits for, then restart it; if nginx's SYN itself is "
            "dropped, remove the "
            "rule on the loopback interface.",
            "Handshakes through nginx are answered at once.",
            Auto.ASK,
            (
                ("systemctl", "status", "ptslink"),
                ("nft", "list", "ruleset"),
                ("systemctl", "restart", "ptslink"),
            ),
        ),
        _upstream_timeout,
        (*RETRY_AFTERMATH, "px-read-timeout-60"),
    ),
    Cause(
        "px-selinux-denied",
        Layer.PROXY,
        "SELinux forbids nginx to connect to the service",
        _ALLOW_CONNECT,
        _selinux,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-connect-failed",
        Layer.PROXY,
        "nginx's connect to the service fails, and not because nobody listens",
        Fix(
            "See what keeps nginx from it: errno 1 or 13 is a security module (AppArmor) or a "
            "sandbox, 97 a forbidden address family, 99, 101 or 113 the address in proxy_pass.",
            "The connect succeeds, and the upgrade is answered with 101.",
            Auto.ASK,
            (
                ("systemctl", "cat", "nginx"),
                ("aa-status",),
                ("journalctl", "-k", "-g", "apparmor|avc", "-n", "20", "--no-pager"),
            ),
        ),
        _connect_failed,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-https-to-plain-upstream",
        Layer.PROXY,
        "nginx speaks TLS to a plain service",
        nginx_fix("Write proxy_pass http:// instead of https://."),
        _https_to_plain,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-http-to-tls-upstream",
        Layer.PROXY,
        "nginx speaks plain HTTP to a TLS service",
        nginx_fix(
            "Point proxy_pass at the plain port of the service.",
            ansible={"nginx_proxy_local_upstream": "127.0.0.1:3000"},
        ),
        _http_to_tls,
        RETRY_AFTERMATH,
    ),
)
