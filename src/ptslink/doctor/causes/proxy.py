"""Causes of the layer proxy: nginx before the service, and the proxies of others on the way.

Facts used: those of ``nginx.*`` (:mod:`ptslink.doctor.collect.nginx`), ``link.local`` and
``service.*`` (:mod:`ptslink.doctor.collect.service`), attempts
(:mod:`ptslink.doctor.attempts`), links and timers (:mod:`ptslink.doctor.pattern`); ``net.sockets``
``recv_q``; ``host.unit`` ``started``. From the client's side:

``http.upgrade``  ``status``, ``headers``, ``body``, ``first_bytes``, ``ended``, ``host``;
    ``held_seconds``: how long the connection stayed open after an answer that was not 101
``http.upgrade`` with ``variation`` true and ``tried``: what was different, such as ``user-agent``
``ws.idle``       ``seconds`` asked for, ``after_seconds`` at which it ended, ``ended`` fin/rst
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ptslink.doctor.attempts import Attempt
from ptslink.doctor.cause import Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import (
    PROVISION_NGINX,
    PROVISION_SERVER,
    RELOAD,
    RETRY_AFTERMATH,
    by_nginx,
    by_service,
    failing,
    limited,
    location,
    match,
    said,
    service_answers,
    service_config,
    where,
)
from ptslink.doctor.causes.tls import is_plain
from ptslink.doctor.collect.nginx_config import location_for, site_for
from ptslink.doctor.evidence import Case, Json
from ptslink.doctor.pattern import (
    constant,
    current,
    link_location,
    links,
    mass_drops,
    near,
    timers,
)
from ptslink.handshake.path import link_path

_WORKS = "The upgrade through nginx is answered with 101, and the link stays."


def _nginx_fix(summary: str, expect: str = _WORKS, **more: Any) -> Fix:
    return Fix(
        summary, expect, more.pop("auto", Auto.YES), more.pop("command", PROVISION_NGINX), **more
    )


# --- The handshake through nginx ---------------------------------------------------------------


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
    place = location(case)
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
        return match(seen, 0.97 if sure else 0.7, *lines, ruled_out=out if sure else ())
    if place and "upgrade" in absent and not _direct_only(case):
        line = f"{where(*place)} passes no Upgrade header on to the service."
        return match(None, 0.8, line)
    return None


def _direct_only(case: Case) -> bool:
    """Whether nothing shows that the link goes through nginx at all."""
    return not any(True for _ in case.all("nginx.config"))


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
    return match(seen, 0.97 if place else 0.8, *lines, ruled_out=("hs-http10-device",))


def _map_missing(case: Case) -> Match | None:
    process = case.first("nginx.process")
    if process is None or not process.facts.get("running"):
        return None
    message = str(process.facts.get("test_message") or "")
    if process.facts.get("test_ok") is not False or not message:
        return None
    unknown = re.search(r'unknown "(\w+)" variable', message)
    lines = [f"nginx -t: {message}", "nginx runs on with the configuration it had before."]
    return match(None, 0.95 if unknown else 0.9, *lines, ruled_out=("px-not-running-bad-config",))


def _not_running(case: Case) -> Match | None:
    process = case.first("nginx.process")
    if process is None or process.facts.get("running") or not process.facts.get("installed"):
        return None
    message = str(process.facts.get("test_message") or "")
    if process.facts.get("test_ok") is not False or not message:
        return None
    state = process.facts.get("active_state")
    out = ("px-map-missing", "tcp-service-down")
    return match(
        None, 0.97, f"nginx does not run (unit {state}); nginx -t: {message}", ruled_out=out
    )


def _upstream_refused(case: Case) -> Match | None:
    def refused(a: Attempt) -> bool:
        return a.event("connect-refused", "no-live-upstreams") is not None

    seen = failing(case, refused)
    if seen is not None:
        event = seen.event("connect-refused", "no-live-upstreams")
        assert event is not None
        out = ("px-upstream-timeout", "px-selinux-denied", "px-https-to-plain-upstream")
        return match(seen, 0.96, f"nginx: {event['text']}", ruled_out=out)
    seen = failing(case, lambda a: a.status == 502 and by_nginx(a))
    down = [
        piece
        for piece in case.all("link.local")
        if piece.facts.get("hop") == "service" and piece.facts.get("errno") == "ECONNREFUSED"
    ]
    if seen is not None and not seen.events and (down or _no_listener(case)):
        return match(seen, 0.93, "Nothing listens on the service's port of this machine.")
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
        sure = 0.95
    else:
        timer = settings.get("proxy_read_timeout")
        why = "The kernel took the connection, the process never answered on it."
        out = ("px-upstream-refused",)
        # A blocked loop shows the same; backlogged sockets of open links tell it apart.
        sure = 0.9
    lines = [f"nginx: {event['text']}", why]
    if timer and near(seen.seconds, timer):
        lines.append(f"It took {seen.seconds:.2f} s, the configured timeout is {timer:g} s.")
    return match(seen, sure, *lines, ruled_out=out)


def _selinux(case: Case) -> Match | None:
    def denied(a: Attempt) -> bool:
        event = a.event("connect-denied")
        return event is not None and "unix:" not in f"{event.get('upstream')}{event['text']}"

    seen = failing(case, denied)
    if seen is None:
        return None
    event = seen.event("connect-denied")
    assert event is not None
    why = "Permission denied (13) on connect comes from a security module, not the network."
    return match(seen, 0.96, f"nginx: {event['text']}", why, ruled_out=("px-upstream-refused",))


def _https_redirect(case: Case) -> Match | None:
    def redirected(a: Attempt) -> bool:
        if a.status not in (301, 302, 303, 307, 308):
            return False
        target = a.header("Location") or ""
        if target:
            same = _host(target) in (_host_of(a), "", *_own_hosts(case))
            return target.startswith("https://") and same and not a.tls
        return by_nginx(a) and a.source == "nginx" and not a.tls

    seen = failing(case, redirected)
    if seen is None:
        return None
    target = seen.header("Location")
    rules = list(_returning(case, "30"))
    lines = [f"Location: {target}"] if target else []
    lines += [f"{file}: return {' '.join(args)}" for file, args in rules]
    lines.append("A controller does not follow redirects.")
    return match(seen, 0.95, *lines, ruled_out=("px-captive-portal", "px-default-server"))


def _host(url: str) -> str:
    return re.sub(r":\d+$", "", url.split("://")[-1].split("/")[0]).strip("[]")


def _host_of(a: Attempt) -> str:
    return _host(a.host or str(a.facts.get("address") or ""))


def _own_hosts(case: Case) -> list[str]:
    return [_host(case.target)] + [
        str(entry["address"]) for entry in case.fact("net.addresses", "addresses") or []
    ]


def _returning(case: Case, start: str, condition: bool = False) -> Iterator[tuple[str, list[str]]]:
    """``return`` lines of nginx's sites whose code starts so: (file and line, arguments)."""
    for site in case.fact("nginx.config", "sites") or []:
        for level in (site, *site["locations"]):
            for rule in level["settings"]["return"]:
                if rule["args"] and rule["args"][0].startswith(start):
                    when = f" if {rule['if']}" if rule["if"] else ""
                    if not condition or when:
                        yield f"{site['file']} line {rule['line']}{when}", rule["args"]


def _accepted_paths(case: Case) -> set[str]:
    listen = service_config(case, "listen")
    paths = [listen.get("path", "ptsWebSocket"), *listen.get("alternative_paths", [])]
    return {link_path("/" + str(path)) for path in paths}


def _asks_link(a: Attempt, case: Case) -> bool:
    """Whether the path asked for is one the service serves."""
    return a.path is not None and link_path(a.path) in _accepted_paths(case)


def _path_rewrite(case: Case) -> Match | None:
    place = link_location(case)
    target = str(place[1]["settings"]["proxy_pass"]) if place else ""
    uri = target.split("://")[-1].partition("/")[2]
    with_uri = "/" in target.split("://")[-1]
    rewrites = place[1]["settings"]["rewrite"] if place else []

    def rewritten(a: Attempt) -> bool:
        if not (a.status == 404 and by_service(a) and a.hop != "service"):
            return False
        if a.source == "service":
            return False
        if a.backend_path is not None:
            return a.backend_path != a.path and _asks_link(a, case)
        return _asks_link(a, case) and (with_uri or bool(rewrites))

    seen = failing(case, rewritten)
    if seen is None:
        return None
    lines = []
    if seen.backend_path is not None:
        lines.append(f"nginx was asked for {seen.path}, the service for {seen.backend_path}.")
    if place and with_uri:
        lines.append(f"{where(*place)}: proxy_pass {target} replaces the path by /{uri}.")
    lines += [f"{where(*place)}: rewrite {rule}" for rule in rewrites] if place else []
    return match(seen, 0.96, *lines, ruled_out=("px-location-404", "hs-wrong-path"))


def _location_404(case: Case) -> Match | None:
    def nowhere(a: Attempt) -> bool:
        if not (a.status == 404 and by_nginx(a)):
            return False
        return _asks_link(a, case) and _wrong_site(a, case) is None

    seen = failing(case, nowhere)
    if seen is None:
        return None
    lines = ["nginx's own page: no location of this site passes the path on to the service."]
    site = site_for(_config(case), seen.port or 80, seen.host or "")
    if site:
        listed = ", ".join(f"{p['modifier']} {p['match']}".strip() for p in site["locations"])
        lines.append(f"{site['file']} line {site['line']} has the locations: {listed or 'none'}.")
    return match(seen, 0.94, *lines, ruled_out=("px-path-rewrite", "hs-wrong-path"))


def _config(case: Case) -> Mapping[str, Json]:
    piece = case.first("nginx.config")
    return piece.facts if piece is not None else {}


def _wrong_site(a: Attempt, case: Case) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The site that answers for the Host sent, and the one that should have, if they differ."""
    config = _config(case)
    if not config or a.port is None or not a.path:
        return None
    got = site_for(config, a.port, a.host or "")
    if got is None:
        return None
    taken = location_for(got, a.path)
    if taken is not None and taken["settings"]["proxy_pass"] and not got["settings"]["return"]:
        return None
    for site in config.get("sites", []):
        if site is got or all(entry["port"] != a.port for entry in site["listen"]):
            continue
        place = location_for(site, a.path)
        if place is not None and place["settings"]["proxy_pass"]:
            return got, site
    return None


def _default_server(case: Case) -> Match | None:
    def elsewhere(a: Attempt) -> bool:
        if a.status == 101 or by_service(a):
            return False
        if _wrong_site(a, case) is not None:
            return True
        return a.status == 444

    seen = failing(case, elsewhere)
    if seen is None:
        named = _works_by_name(case)
        if named is None:
            return None
        seen = failing(case, lambda a: a.source in ("site", "control"))
        line = f"With Host: {named} the link is made; with the address it is not."
        return match(seen, 0.9, line)
    wrong = _wrong_site(seen, case)
    lines = [f"The request's Host is {seen.host!r}."]
    if wrong:
        got, right = wrong
        lines.append(
            f"{got['file']} line {got['line']} answers it ({' '.join(got['names']) or 'default'})."
        )
        lines.append(
            f"The link is in {right['file']} line {right['line']} ({' '.join(right['names'])})."
        )
    out = ("px-location-404", "px-https-redirect", "hs-malformed-request")
    return match(seen, 0.95 if wrong else 0.8, *lines, ruled_out=out)


def _works_by_name(case: Case) -> str | None:
    for piece in case.all("http.upgrade"):
        if piece.facts.get("tried") == "host" and piece.facts.get("status") == 101:
            return str(piece.facts.get("host"))
    return None


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
    return match(seen, 0.96, *lines, ruled_out=("px-upstream-refused",))


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
    return match(seen, 0.95, *lines, ruled_out=("tls-plain-client-to-tls-port",))


def _target_port(case: Case, target: str) -> int | None:
    name = target.split("://")[-1].split("/")[0]
    servers = (_config(case).get("upstreams") or {}).get(name, [name])
    port = str(servers[0]).rpartition(":")[2] if servers else ""
    return int(port) if port.isdecimal() else None


def _upstream_is_tls_site(case: Case, a: Attempt) -> bool:
    port = str(a.upstream or "").rpartition(":")[2]
    return any(
        entry["ssl"] and str(entry["port"]) == port
        for site in _config(case).get("sites", [])
        for entry in site["listen"]
    )


# --- Limits and doors --------------------------------------------------------------------------


def _limit_req(case: Case) -> Match | None:
    return _limit(case, "limit-req", "limit_req", ("px-limit-conn", "app-rate-lockout"))


def _limit_conn(case: Case) -> Match | None:
    return _limit(case, "limit-conn", "limit_conn", ("px-limit-req", "app-rate-lockout"))


def _limit(case: Case, kind: str, directive: str, out: tuple[str, ...]) -> Match | None:
    found = limited(case, lambda a: a.event(kind) is not None)
    if found is not None:
        seen, alone = found
        event = seen.event(kind)
        assert event is not None
        zone = re.search(r'by zone "([^"]+)"', str(event["text"]))
        rule = (_config(case).get("zones") or {}).get(zone[1]) if zone else None
        lines = [f"nginx: {event['text']}"] + ([f"The zone: {rule}"] if rule else [])
        return match(seen, 0.96 if alone else 0.55, *lines, ruled_out=out)
    place = location(case)
    rules = place[1]["settings"][directive] if place else []
    refused = failing(case, lambda a: a.status in (503, 429) and by_nginx(a) and not a.events)
    other = "limit_conn" if directive == "limit_req" else "limit_req"
    if refused is not None and place and rules and not place[1]["settings"][other]:
        return match(refused, 0.85, f"{where(*place)}: {directive} {rules[0]}", ruled_out=out)
    return None


def _access_denied(case: Case) -> Match | None:
    seen = failing(case, lambda a: a.status == 403 and by_nginx(a))
    if seen is None:
        return None
    event = seen.event("denied-by-rule")
    lines = [f"nginx: {event['text']}"] if event else []
    place = link_location(case)
    if place and place[1]["settings"]["access"]:
        lines.append(f"{where(*place)}: {'; '.join(place[1]['settings']['access'])}")
    lines += [f"{file}: return {' '.join(args)}" for file, args in _returning(case, "403")]
    if any(
        piece.facts.get("tried") == "user-agent" and piece.facts.get("status") == 101
        for piece in case.all("http.upgrade")
    ):
        lines.append("With a User-Agent the same request is answered with 101.")
    return match(seen, 0.95, *lines, ruled_out=("hs-id-unknown", "hs-origin-rejected"))


def _auth_required(case: Case) -> Match | None:
    seen = failing(
        case, lambda a: a.status in (401, 407) and (by_nginx(a) or bool(a.event("auth-required")))
    )
    if seen is None or seen.status == 407:
        return None
    lines = []
    if challenge := seen.header("WWW-Authenticate"):
        lines.append(f"WWW-Authenticate: {challenge}")
    place = link_location(case)
    for name in ("auth_basic", "auth_request"):
        value = place[1]["settings"][name] if place else None
        if place and value and value != "off":
            lines.append(f"{where(*place)}: {name} {value}")
    return match(seen, 0.95, *lines, ruled_out=("hs-auth-mismatch",))


def _emfile(case: Case) -> Match | None:
    lines: list[str] = []
    for piece in case.all("nginx.error"):
        events = [
            e
            for e in piece.facts["events"]
            if e["kind"] in ("too-many-files", "too-few-connections")
        ]
        fresh = [e for e in events if _after_start(case, e["time"])]
        if fresh:
            lines.append(f"nginx: {fresh[-1]['text']} ({len(fresh)} times)")
    for piece in case.all("nginx.process"):
        for worker in piece.facts.get("workers", []):
            used, most = worker.get("files"), worker.get("files_limit")
            if used and most and used >= 0.95 * most:
                lines.append(f"nginx worker {worker['pid']} has {used} of {most} files open.")
    if not lines:
        return None
    limits = _config(case)
    lines.append(
        f"worker_rlimit_nofile {limits.get('worker_rlimit_nofile') or 'unset'}, "
        f"worker_connections {limits.get('worker_connections')}"
    )
    return match(None, 0.96, *lines, ruled_out=("host-emfile-backend",))


def _after_start(case: Case, when: float) -> bool:
    started = case.fact("nginx.process", "reloaded") or case.fact("nginx.process", "started")
    return started is None or when >= started - 1.0


def _h2_only(case: Case) -> Match | None:
    def settings_frame(a: Attempt) -> bool:
        head = a.first_bytes
        served = len(head) >= 9 and head[0] == 0 and head[3] == 4 and a.source != "service"
        return (served and a.method is not None) or a.event("http2-preface") is not None

    seen = failing(case, settings_frame)
    if seen is None:
        return None
    lines = ["The server's first bytes are an HTTP/2 SETTINGS frame: the port speaks HTTP/2 only."]
    for site in _config(case).get("sites", []):
        plain = [e["port"] for e in site["listen"] if e["http2"] and not e["ssl"]]
        if plain:
            lines.append(f"{site['file']} line {site['line']}: listen {plain[0]} http2 without ssl")
    return match(seen, 0.97, *lines, ruled_out=("hs-malformed-request",))


# --- Open links --------------------------------------------------------------------------------


def _read_timeout(case: Case) -> Match | None:
    configured = timers(case)
    limit, interval = configured.proxy_read, configured.ping_interval
    cut = [link for link in current(case) if link.event("upgraded-timeout") is not None]
    silent = [
        link
        for link in current(case)
        if not link.events
        and link.lost
        and link.proxied
        and link.transport == "fin"
        and near(link.seconds, limit)
        and not link.messages_out
    ]
    idle = case.first("ws.idle", "site") or case.first("ws.idle", "control")
    if limit is None:
        # Without nginx's configuration its own log line still says it.
        if not cut:
            return None
        return match(None, 0.85, cut[-1].shown(), f"nginx: {cut[-1].events[0]['text']}")
    pinged = bool(interval) and interval is not None and interval < limit
    if pinged and (cut or silent):
        return None  # pings should have prevented it: the service did not send them
    lines = [
        f"proxy_read_timeout is {limit:g} s; the service pings every {interval:g} s."
        if interval
        else f"proxy_read_timeout is {limit:g} s; the service sends no pings."
    ]
    if cut or silent:
        last = (cut or silent)[-1]
        lines.insert(0, last.shown())
        lines += [f"nginx: {event['text']}" for event in last.events[:1]]
        out = ("app-event-loop-blocked", "px-other-idle-timeout", "ws-device-idle-timeout")
        return match(None, 0.96, *lines, ruled_out=out, fix=_read_timeout_fix(case))
    after = idle.facts.get("after_seconds") if idle else None
    if after is not None and near(after, limit):
        return match(
            None,
            0.93,
            f"An idle link ended after {after:g} s.",
            *lines,
            fix=_read_timeout_fix(case),
        )
    if interval and interval >= limit and not _direct_only(case):
        lines.append("Any link that is idle for so long is cut before the next ping.")
        # It would bite an idle link; no link was seen to be bitten.
        return match(None, 0.45, *lines, fix=_read_timeout_fix(case))
    return None


def _read_timeout_fix(case: Case) -> Fix:
    configured = timers(case)
    cycle = (configured.ping_interval or 0.0) + (configured.ping_timeout or 0.0)
    value = int(max(300, 3 * cycle))
    return Fix(
        "Raise proxy_read_timeout and proxy_send_timeout above the service's ping cycle: "
        f"{value} s.",
        "Idle links outlive the old timeout; nginx logs no more 'while proxying upgraded "
        "connection'.",
        Auto.YES,
        PROVISION_NGINX,
        {"nginx_proxy_idle_timeout_seconds": value, "pts_server_ping_interval_seconds": 20},
    )


def _other_idle_timeout(case: Case) -> Match | None:
    configured = timers(case)
    known = (
        configured.proxy_read,
        configured.keepalive,
        configured.idle,
        configured.worker_shutdown,
    )
    front = _foreign_front(case)
    idle = case.first("ws.idle", "site") or case.first("ws.idle", "control")
    after = idle.facts.get("after_seconds") if idle else None
    if after is not None and idle is not None and idle.facts.get("code") is None:
        ours = any(near(after, timer) for timer in known)
        quiet = not [link for link in current(case) if link.events]
        if not ours and quiet and ("server" in case.vantages() or front):
            lines = [
                f"An idle link ended after {after:g} s without a closing frame.",
                "That is none of nginx's or the service's configured timers.",
            ]
            lines += [f"In front stands: {front}"] if front else []
            return match(None, 0.9 if front else 0.7, *lines, ruled_out=("px-read-timeout-60",))
    together = [link for drop in mass_drops(links(case)) for link in drop.links]
    lost = [
        link
        for link in current(case)
        if link.lost
        and link.transport in ("fin", "rst")
        and not link.events
        # What ends at one moment is no timer that runs from each link's own last byte.
        and link.seconds > 2.0
        and link not in together
    ]
    owners = {link.controller for link in lost}
    same = constant([link.seconds for link in lost])
    if same is None or any(near(same, timer) for timer in known):
        return None
    if not front and (len(owners) < 2 or len({link.peer for link in lost}) > 1):
        return None
    lines = [
        f"{len(lost)} links of {len(owners)} controllers ended after {same:.2f} s each, no frames.",
        "No nginx line tells of a cut, and no configured timer has this value.",
    ]
    lines += [f"In front stands: {front}"] if front else [f"All come from {lost[-1].peer}."]
    return match(
        None,
        0.92 if front else 0.75,
        lost[-1].shown(),
        *lines,
        ruled_out=("px-read-timeout-60", "ws-device-idle-timeout"),
    )


#: Headers of an answer that name a proxy of somebody else.
_FRONT_HEADERS = ("cf-ray", "x-amz-cf-id", "x-azure-ref", "x-served-by", "x-varnish", "x-cache")
_FRONT_SERVERS = ("cloudflare", "awselb", "haproxy", "envoy", "cloudfront", "varnish", "traefik")


def _foreign_front(case: Case) -> str | None:
    """What in an answer, or in a request as it arrived, names a proxy that is not ours."""
    for piece in (*case.all("http.upgrade", "site"), *case.all("http.upgrade", "control")):
        headers = {
            str(k).lower(): str(v) for k, v in dict(piece.facts.get("headers") or {}).items()
        }
        for name in (*_FRONT_HEADERS, "via"):
            if name in headers:
                return f"{name}: {headers[name]}"
        server = headers.get("server", "").lower()
        if any(word in server for word in _FRONT_SERVERS):
            return f"Server: {headers['server']}"
    for name, unit in _front_units(case):
        return f"{name} ({unit}) listens on this machine"
    return None


def _front_units(case: Case) -> Iterator[tuple[str, str]]:
    for entry in case.fact("net.listeners", "listeners") or []:
        process = str(entry.get("process") or "")
        if process in ("haproxy", "traefik", "caddy", "envoy", "squid", "varnishd"):
            yield process, str(entry.get("unit") or f"port {entry['port']}")


def _reload_shutdown(case: Case) -> Match | None:
    grace = timers(case).worker_shutdown
    if not grace:
        return None
    for reload, slack in _reloads(case):
        hit = [
            link
            for link in links(case)
            if (link.lost or not link.code)
            and -slack <= link.at - reload - grace <= 2.5
            and link.began < reload
        ]
        if hit:
            lines = [
                f"nginx was told to reload; {hit[0].at - reload:.1f} s later "
                f"{len(hit)} links were lost without a closing frame.",
                f"worker_shutdown_timeout is {grace:g} s: old workers end their links then.",
            ]
            out = ("px-restart", "app-no-graceful-stop")
            return match(None, 0.95, hit[0].shown(), *lines, ruled_out=out)
    return None


def _reloads(case: Case) -> Iterator[tuple[float, float]]:
    """When nginx was reloaded, and how far the true moment may lie before it, in seconds."""
    for piece in case.all("nginx.error"):
        for event in piece.facts["events"]:
            if event["kind"] == "reloading":
                yield event["time"], 0.5
    # nginx tells of it at "notice", which is seldom kept; the age of its workers tells as well.
    started, reloaded = (case.fact("nginx.process", k) for k in ("started", "reloaded"))
    if reloaded and (started is None or reloaded - started > 2.0):
        yield float(reloaded), 1.5


def _restart(case: Case) -> Match | None:
    started = case.fact("nginx.process", "started")
    stops = [
        event["time"]
        for piece in case.all("nginx.error")
        for event in piece.facts["events"]
        if event["kind"] == "stopping"
    ]
    if started:
        stops.append(float(started))
    service = _service_started(case)
    for stop in stops:
        hit = [
            link
            for link in links(case)
            if (link.lost or not link.code) and link.proxied and abs(link.at - stop) <= 6.0
        ]
        hit = [link for link in hit if link.began < stop - 0.5]
        if not hit or len({link.controller for link in hit}) < min(3, _controllers(case)):
            continue
        if service is not None and abs(service - stop) <= 6.0:
            continue  # the service went as well: its own stop explains it
        lines = [
            f"{len(hit)} links ended within 6 s of nginx's own stop, without a closing frame.",
            "A reload would have kept them.",
        ]
        return match(
            None,
            0.93,
            hit[0].shown(),
            *lines,
            ruled_out=("px-reload-shutdown", "app-no-graceful-stop"),
        )
    return None


def _service_started(case: Case) -> float | None:
    for piece in case.all("host.unit"):
        if piece.facts.get("unit") == "ptslink.service" and piece.facts.get("started"):
            return float(piece.facts["started"])
    return None


def _controllers(case: Case) -> int:
    """How many controllers are known from the links; at least one."""
    return max(1, len({link.controller for link in links(case)}))


# --- Proxies of others -------------------------------------------------------------------------


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
        short = [
            link
            for link in current(case)
            if link.lost and link.seconds <= 1.5 and not link.messages_in
        ]
        lines = [
            f"The 101 arrives with header names in lower case: {', '.join(lowered)}.",
            "ptslink and nginx send Sec-WebSocket-Accept; a proxy between has changed it.",
        ]
        lines += [short[-1].shown()] if short else []
        return match(None, 0.93 if short else 0.75, *lines, ruled_out=("hs-bad-accept",))
    return None


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
    out = ("hs-device-no-upgrade", "px-upgrade-headers-missing", "hs-http10-device")
    return match(seen, 0.95, *lines, ruled_out=out)


def _captive_portal(case: Case) -> Match | None:
    def portal(a: Attempt) -> bool:
        if a.source not in ("site", "control") or a.status not in (200, 302, 303, 307, 511):
            return False
        target = a.header("Location")
        if target and _host(target) in (_host_of(a), *_own_hosts(case)):
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
    lines = [f"Server: {seen.header('Server') or 'not named'}"]
    if target := seen.header("Location"):
        lines.append(f"It sends the client to {target}")
    silent = "server" in case.vantages()
    lines += ["The server saw nothing of the request."] if silent else []
    return match(
        seen,
        0.93 if silent or seen.header("Location") else 0.8,
        *lines,
        ruled_out=("px-https-redirect", "nat-forward-wrong-host"),
    )


def _error_held_open(case: Case) -> Match | None:
    keepalive = timers(case).keepalive
    for piece in case.all("http.upgrade"):
        held = piece.facts.get("held_seconds")
        status = piece.facts.get("status")
        if held is None or status in (None, 101):
            continue
        if near(held, keepalive) or (keepalive is None and held >= 30.0):
            lines = [f"Answered {status}, and the connection stayed open for {held:g} s."]
            lines += [f"keepalive_timeout is {keepalive:g} s."] if keepalive else []
            lines.append(
                "A controller that waits for the end takes it for a connection; see the status."
            )
            return match(None, 0.7, *lines)
    return None


CAUSES: tuple[Cause, ...] = (
    Cause(
        "px-upgrade-headers-missing",
        Layer.PROXY,
        "nginx does not pass the Upgrade header on",
        _nginx_fix(
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
        _nginx_fix("Set proxy_http_version 1.1; in the location of the link."),
        _http10_upstream,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-map-missing",
        Layer.PROXY,
        "nginx's configuration on disk is refused; a reload keeps the old one",
        _nginx_fix(
            "Repair the line nginx -t names (for the link: the map that defines the variable), "
            "then reload.",
            "nginx -t passes, and a reload takes the new configuration.",
        ),
        _map_missing,
    ),
    Cause(
        "px-read-timeout-60",
        Layer.PROXY,
        "nginx cuts links that are idle: proxy_read_timeout",
        _nginx_fix(
            "Raise proxy_read_timeout and proxy_send_timeout well above the service's ping cycle.",
            "Idle links outlive the old timeout.",
            ansible={"nginx_proxy_idle_timeout_seconds": 300},
        ),
        _read_timeout,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "px-other-idle-timeout",
        Layer.PROXY,
        "A proxy or load balancer in front cuts idle links",
        Fix(
            "Raise the idle timeout of that proxy (HAProxy: timeout tunnel 1h; ALB, "
            "Cloudflare, NLB, "
            "Azure: idle timeout), and ping more often than half of it.",
            "Links outlive the constant at which they were cut.",
            Auto.ASK,
            PROVISION_SERVER,
            {"pts_server_ping_interval_seconds": 15},
        ),
        _other_idle_timeout,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "px-upstream-refused",
        Layer.PROXY,
        "The service behind nginx does not listen",
        Fix(
            "Start the service and see why it stopped.",
            "ss -ltn shows the service's port, and the upgrade is answered with 101.",
            Auto.YES,
            "systemctl reset-failed ptslink; systemctl enable --now ptslink && journalctl -u "
            "ptslink -n 50",
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
            "systemctl status ptslink; nft list ruleset | grep -w lo; systemctl restart ptslink",
        ),
        _upstream_timeout,
        (*RETRY_AFTERMATH, "px-read-timeout-60"),
    ),
    Cause(
        "px-selinux-denied",
        Layer.PROXY,
        "SELinux forbids nginx to connect to the service",
        Fix(
            "Allow it: httpd_can_network_connect on.",
            "getsebool says on; the upgrade is answered with 101.",
            Auto.YES,
            "setsebool -P httpd_can_network_connect on",
        ),
        _selinux,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-https-redirect",
        Layer.PROXY,
        "The plain port redirects everything to https",
        _nginx_fix(
            "Exempt the link's path from the redirect on port 80, or give the controller the "
            "TLS port.",
            "The plain port answers the upgrade with 101.",
            controller="Server tab: protocol HTTPS and port 443, where TLS is wanted",
        ),
        _https_redirect,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-path-rewrite",
        Layer.PROXY,
        "nginx changes the path on the way to the service",
        _nginx_fix("Write proxy_pass without a path (http://ptslink;), and no rewrite."),
        _path_rewrite,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-location-404",
        Layer.PROXY,
        "nginx has no location for the link's path",
        _nginx_fix(
            "Let the location of the link take every path: location / { proxy_pass "
            "http://ptslink; }"
        ),
        _location_404,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-default-server",
        Layer.PROXY,
        "Another site of nginx answers: the Host does not match",
        _nginx_fix(
            "Make the site of the link the one for bare addresses: no names, or the address among "
            "them.",
            "A request with the address as its Host is answered with 101.",
            ansible={"nginx_proxy_server_names": [], "nginx_proxy_default_site": "absent"},
        ),
        _default_server,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-https-to-plain-upstream",
        Layer.PROXY,
        "nginx speaks TLS to a plain service",
        _nginx_fix("Write proxy_pass http:// instead of https://."),
        _https_to_plain,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-http-to-tls-upstream",
        Layer.PROXY,
        "nginx speaks plain HTTP to a TLS service",
        _nginx_fix(
            "Point proxy_pass at the plain port of the service.",
            ansible={"nginx_proxy_local_upstream": "127.0.0.1:3000"},
        ),
        _http_to_tls,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-limit-req",
        Layer.PROXY,
        "nginx limits requests: limit_req",
        _nginx_fix(
            "Take limit_req off the location of the link; retries are the service's to judge.",
            "No more 'limiting requests' lines; the upgrade is answered with 101.",
        ),
        _limit_req,
        ("dev-reconnect-storm", "dev-site-shared-nat", "px-error-held-open"),
    ),
    Cause(
        "px-limit-conn",
        Layer.PROXY,
        "nginx limits connections per address: limit_conn",
        _nginx_fix(
            "Take limit_conn off the location of the link: a whole station shares one address.",
            "No more 'limiting connections' lines; every controller of the site connects.",
        ),
        _limit_conn,
        ("dev-reconnect-storm", "px-error-held-open"),
    ),
    Cause(
        "px-access-denied",
        Layer.PROXY,
        "nginx forbids the request: 403",
        _nginx_fix("Take the deny, allow, geo or User-Agent rule off the location of the link."),
        _access_denied,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-auth-required",
        Layer.PROXY,
        "nginx asks for a password: 401",
        _nginx_fix(
            "Set auth_basic off; in the location of the link; let the service check credentials.",
            ansible={"pts_server_settings": {"controllers": {"users": {"LOGIN": "PASSWORD"}}}},
        ),
        _auth_required,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-emfile",
        Layer.PROXY,
        "nginx runs out of files or connections",
        _nginx_fix(
            "Raise worker_rlimit_nofile and worker_connections, and LimitNOFILE of nginx.service.",
            "No more 'Too many open files' lines; connections are answered.",
            command="install -d /etc/systemd/system/nginx.service.d && printf "
            "'[Service]\\nLimitNOFILE=65536\\n' > /etc/systemd/system/nginx.service.d/limits.conf"
            " && systemctl daemon-reload && systemctl restart nginx",
        ),
        _emfile,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-reload-shutdown",
        Layer.PROXY,
        "A reload of nginx ends all links: worker_shutdown_timeout",
        _nginx_fix(
            "Remove worker_shutdown_timeout (or make it hours): old workers may keep their links.",
            "Links survive the next reload.",
            command="sed -i '/worker_shutdown_timeout/d' /etc/nginx/nginx.conf && " + RELOAD,
        ),
        _reload_shutdown,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "px-restart",
        Layer.PROXY,
        "nginx was restarted, and all links with it",
        Fix(
            "Reload instead of restarting, and keep nginx out of the nightly upgrades or give "
            "them a window.",
            "Links survive the next change of nginx.",
            Auto.YES,
            "systemctl reload nginx",
        ),
        _restart,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "px-not-running-bad-config",
        Layer.PROXY,
        "nginx does not start: its configuration is refused",
        _nginx_fix(
            "Repair the line nginx -t names, then start nginx.",
            "nginx -t passes and nginx runs.",
            command="nginx -t; systemctl start nginx",
        ),
        _not_running,
        ("tcp-service-down", "tcp-wrong-port", "px-map-missing"),
    ),
    Cause(
        "px-h2-only",
        Layer.PROXY,
        "The plain port speaks HTTP/2 only",
        _nginx_fix("Take http2 off the plain listener."),
        _h2_only,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-header-case",
        Layer.PROXY,
        "A proxy writes the answer's header names in lower case",
        Fix(
            "Let the proxy keep the case (HAProxy: h1-case-adjust with option "
            "h1-case-adjust-bogus-client), or "
            "put nginx in its place.",
            "The 101 carries Sec-WebSocket-Accept as written here, and the controller stays.",
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
    Cause(
        "px-error-held-open",
        Layer.PROXY,
        "An error answer is followed by an open connection",
        _nginx_fix(
            "Set keepalive_timeout 0; in the location of the link; the fault itself is the status.",
            "The connection ends with the answer.",
        ),
        _error_held_open,
    ),
)
