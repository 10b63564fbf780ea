"""Timers of nginx and of proxies before it: links cut while idle, errors held open."""

from __future__ import annotations

from collections.abc import Iterator

from ptslink.doctor.cause import CERTAIN, GUESS, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import match
from ptslink.doctor.causes.proxy.common import direct_only, nginx_fix, returning
from ptslink.doctor.commands import PROVISION_NGINX, PROVISION_SERVER
from ptslink.doctor.evidence import Case
from ptslink.doctor.pattern import Link, constant, current, links, mass_drops, near, timers


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
        return match(None, LIKELY, cut[-1].shown(), f"nginx: {cut[-1].events[0]['text']}")
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
        return match(None, CERTAIN, *lines, ruled_out=out, fix=_read_timeout_fix(case))
    after = idle.facts.get("after_seconds") if idle else None
    if after is not None and near(after, limit):
        return match(
            None,
            STRONG,
            f"An idle link ended after {after:g} s.",
            *lines,
            fix=_read_timeout_fix(case),
        )
    if interval and interval >= limit and not direct_only(case):
        lines.append("Any link that is idle for so long is cut before the next ping.")
        # It would bite an idle link; no link was seen to be bitten.
        return match(None, GUESS, *lines, fix=_read_timeout_fix(case))
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


def _cut_by_nginx(link: Link) -> bool:
    """Whether nginx says that a timer of its own ended it; a reset it tells of came from before."""
    return link.event("upgraded-timeout", "upgraded-client-timeout") is not None


def _other_idle_timeout(case: Case) -> Match | None:
    configured = timers(case)
    known = (
        configured.proxy_read,
        configured.keepalive,
        configured.idle,
        configured.worker_shutdown,
    )
    front = foreign_front(case)
    idle = case.first("ws.idle", "site") or case.first("ws.idle", "control")
    after = idle.facts.get("after_seconds") if idle else None
    if after is not None and idle is not None and idle.facts.get("code") is None:
        ours = any(near(after, timer) for timer in known)
        quiet = not [link for link in current(case) if _cut_by_nginx(link)]
        if not ours and quiet and ("server" in case.vantages() or front):
            lines = [
                f"An idle link ended after {after:g} s without a closing frame.",
                "That is none of nginx's or the service's configured timers.",
            ]
            lines += [f"In front stands: {front}"] if front else []
            sure = STRONG if front else LIKELY
            out = ("px-read-timeout-60",)
            return match(None, sure, *lines, ruled_out=out, fix=_idle_fix(case, after))
    together = [link for drop in mass_drops(links(case)) for link in drop.links]
    lost = [
        link
        for link in current(case)
        if link.lost
        and link.transport in ("fin", "rst")
        and not _cut_by_nginx(link)
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
        STRONG if front else LIKELY,
        lost[-1].shown(),
        *lines,
        ruled_out=("px-read-timeout-60", "ws-device-idle-timeout"),
        fix=_idle_fix(case, same),
    )


def _idle_fix(case: Case, limit: float) -> Fix:
    """Pings that come in time; unasked only where the proxy is this machine's own."""
    own = next((name for name, _ in _front_units(case)), None)
    every = max(2, min(15, int(limit / 2.5)))
    return Fix(
        f"Ping more often than half of the {limit:.0f} s after which that proxy cuts: every "
        f"{every} s. Better still raise its idle timeout as well (HAProxy: timeout tunnel 1h; "
        "ALB, Cloudflare, NLB, Azure: idle timeout).",
        "Links outlive the constant at which they were cut.",
        Auto.YES if own else Auto.ASK,
        PROVISION_SERVER,
        {"pts_server_ping_interval_seconds": every},
    )


#: Headers of an answer that name a proxy of somebody else.
_FRONT_HEADERS = ("cf-ray", "x-amz-cf-id", "x-azure-ref", "x-served-by", "x-varnish", "x-cache")
_FRONT_SERVERS = ("cloudflare", "awselb", "haproxy", "envoy", "cloudfront", "varnish", "traefik")


def foreign_front(case: Case) -> str | None:
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


def _error_held_open(case: Case) -> Match | None:
    keepalive = timers(case).keepalive
    for piece in case.all("http.upgrade"):
        held, status = piece.facts.get("held_seconds"), piece.facts.get("status")
        if held is None or status in (None, 101):
            continue
        if near(held, keepalive) or (keepalive is None and held >= 30.0):
            lines = [f"Answered {status}, and the connection stayed open for {held:g} s."]
            lines += [f"keepalive_timeout is {keepalive:g} s."] if keepalive else []
            lines += [f"{file}: return {' '.join(a)}" for file, a in returning(case, str(status))]
            lines.append(
                "A controller that waits for the end takes it for a connection; see the status."
            )
            return match(None, LIKELY, *lines)
    return None


CAUSES: tuple[Cause, ...] = (
    Cause(
        "px-read-timeout-60",
        Layer.PROXY,
        "nginx cuts links that are idle: proxy_read_timeout",
        nginx_fix(
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
        "px-error-held-open",
        Layer.PROXY,
        "An error answer is followed by an open connection",
        Fix(
            "The fault is the status: mend what it tells of. For a controller that does not look "
            "at it, set keepalive_timeout 0; in the location of the link.",
            "The upgrade is answered with 101, or the connection ends with the answer.",
            # The catalogue says yes. Unasked the status is mended, which has a finding of its own;
            # this setting only shortens the wait, and the next provisioning would take it back.
            Auto.ASK,
        ),
        _error_held_open,
    ),
)
