"""What nginx refuses or has no room for: limits, doors, files."""

from __future__ import annotations

import re

from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Cause, Layer, Match
from ptslink.doctor.causes.failing import (
    RETRY_AFTERMATH,
    by_nginx,
    failing,
    limited,
    location,
    match,
    where,
)
from ptslink.doctor.causes.proxy.common import hung_up, nginx_config, nginx_fix, returning
from ptslink.doctor.commands import written
from ptslink.doctor.evidence import Case
from ptslink.doctor.pattern import link_location


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
        rule = (nginx_config(case).get("zones") or {}).get(zone[1]) if zone else None
        lines = [f"nginx: {event['text']}"] + ([f"The zone: {rule}"] if rule else [])
        return match(seen, CERTAIN if alone else LIKELY, *lines, ruled_out=out)
    place = location(case)
    rules = place[1]["settings"][directive] if place else []
    refused = failing(case, lambda a: a.status in (503, 429) and by_nginx(a) and not a.events)
    other = "limit_conn" if directive == "limit_req" else "limit_req"
    if refused is not None and place and rules and not place[1]["settings"][other]:
        return match(refused, LIKELY, f"{where(*place)}: {directive} {rules[0]}", ruled_out=out)
    return None


def _access_denied(case: Case) -> Match | None:
    seen = failing(case, lambda a: (a.status == 403 and by_nginx(a)) or hung_up(a, case))
    if seen is None:
        return None
    if seen.status == 444:
        lines = [f"{file}: return {' '.join(args)}" for file, args in returning(case, "444")]
        lines.append("nginx closes the connection without an answer, as it is told to.")
        return match(seen, STRONG, *lines, ruled_out=("px-default-server", "hs-malformed-request"))
    event = seen.event("denied-by-rule")
    lines = [f"nginx: {event['text']}"] if event else []
    place = link_location(case)
    if place and place[1]["settings"]["access"]:
        lines.append(f"{where(*place)}: {'; '.join(place[1]['settings']['access'])}")
    lines += [f"{file}: return {' '.join(args)}" for file, args in returning(case, "403")]
    if any(
        piece.facts.get("tried") == "user-agent" and piece.facts.get("status") == 101
        for piece in case.all("http.upgrade")
    ):
        lines.append("With a User-Agent the same request is answered with 101.")
    return match(seen, STRONG, *lines, ruled_out=("hs-id-unknown", "hs-origin-rejected"))


#: nginx's own passwords: none was sent, or a wrong one.
_AUTH = ("auth-required", "auth-wrong")


def _auth_required(case: Case) -> Match | None:
    seen = failing(
        case, lambda a: a.status in (401, 407) and (by_nginx(a) or bool(a.event(*_AUTH)))
    )
    if seen is None or seen.status == 407:
        return None
    event = seen.event(*_AUTH)
    lines = [f"nginx: {event['text']}"] if event else []
    if challenge := seen.header("WWW-Authenticate"):
        lines.append(f"WWW-Authenticate: {challenge}")
    place = link_location(case)
    for name in ("auth_basic", "auth_request"):
        value = place[1]["settings"][name] if place else None
        if place and value and value != "off":
            lines.append(f"{where(*place)}: {name} {value}")
    return match(seen, STRONG, *lines, ruled_out=("hs-auth-mismatch",))


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
    limits = nginx_config(case)
    lines.append(
        f"worker_rlimit_nofile {limits.get('worker_rlimit_nofile') or 'unset'}, "
        f"worker_connections {limits.get('worker_connections')}"
    )
    return match(None, CERTAIN, *lines, ruled_out=("host-emfile-backend",))


def _after_start(case: Case, when: float) -> bool:
    started = case.fact("nginx.process", "reloaded") or case.fact("nginx.process", "started")
    return started is None or when >= started - 1.0


CAUSES: tuple[Cause, ...] = (
    Cause(
        "px-limit-req",
        Layer.PROXY,
        "nginx limits requests: limit_req",
        nginx_fix(
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
        nginx_fix(
            "Take limit_conn off the location of the link: a whole station shares one address.",
            "No more 'limiting connections' lines; every controller of the site connects.",
        ),
        _limit_conn,
        ("dev-reconnect-storm", "px-error-held-open"),
    ),
    Cause(
        "px-access-denied",
        Layer.PROXY,
        "nginx is told to refuse the request (403, or 444: closed without an answer)",
        nginx_fix(
            "Take the deny, allow, geo, User-Agent or return rule off the location of the link."
        ),
        _access_denied,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-auth-required",
        Layer.PROXY,
        "nginx asks for a password: 401",
        nginx_fix(
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
        nginx_fix(
            "Raise worker_rlimit_nofile and worker_connections, and LimitNOFILE of nginx.service.",
            "No more 'Too many open files' lines; connections are answered.",
            commands=(
                ("mkdir", "-p", "/etc/systemd/system/nginx.service.d"),
                written(
                    "/etc/systemd/system/nginx.service.d/limits.conf",
                    "[Service]",
                    "LimitNOFILE=65536",
                ),
                ("systemctl", "daemon-reload"),
                ("systemctl", "restart", "nginx"),
            ),
        ),
        _emfile,
        RETRY_AFTERMATH,
    ),
)
