"""Links over time: how they ended, after how long, together with what else. Pure.

A close code tells little (a server that closes on an error reports 1006 as well), so a link is
judged by what was sent and received, by how the transport ended, and by its age compared with the
*configured* timers; never with a literal.

Facts read: ``service.records`` (``links``, ``events``), ``service.config``, ``host.unit``,
``nginx.access`` (the 101 lines), ``nginx.error``, ``nginx.config``, ``nginx.process``,
``capture.stream``, ``host.upgrades``.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ptslink.doctor.attempts import (
    PROBE_ID_PREFIX,
    SAME_SECONDS,
    Trouble,
    other_connection,
    troubles,
)
from ptslink.doctor.collect.nginx_config import location_for, passes_to
from ptslink.doctor.evidence import Case, Evidence, Json, Status, once
from ptslink.handshake.path import link_path

#: Links of different controllers that end within this many seconds of each other end together.
TOGETHER_SECONDS = 1.5
#: So many ends make a mass drop, so many links of one controller a loop.
MASS = 3
LOOP = 4
#: Who stays away longer than this between two links is not looping, seconds.
LOOP_GAP_SECONDS = 60.0
#: So many failed tries in a row are a burst.
BURST = 3
#: What last happened longer ago than this, and than three of its periods, is over (seconds).
STILL_SECONDS = 60.0
#: A link this short never carried anything, seconds.
SHORT_SECONDS = 1.5

Close = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Link:
    """One link that was made and ended, from our records, nginx's log, or both."""

    controller: str
    peer: str
    #: When it ended, epoch seconds.
    at: float
    #: How long it lived.
    seconds: float
    #: Short name of the end, such as ``lost-fin`` or ``ping-timeout``; "" if only nginx saw it.
    code: str = ""
    #: ``peer``, ``server``, ``transport``, or "" if unknown.
    closed_by: str = ""
    close_sent: Close | None = None
    close_rcvd: Close | None = None
    #: ``fin``, ``rst``, ``timeout``, ``closed``, ``aborted``, or "" if unknown.
    transport: str = ""
    error: str = ""
    messages_in: int | None = None
    messages_out: int | None = None
    pings: int | None = None
    pongs: int | None = None
    #: Seconds between the last ping or pong and the end.
    last_ping: float | None = None
    last_pong: float | None = None
    types: Mapping[str, int] = field(default_factory=dict)
    first_bytes: bytes = b""
    notes: tuple[str, ...] = ()
    #: nginx's error events of this link, and whether nginx carried it at all.
    events: tuple[Mapping[str, Json], ...] = ()
    proxied: bool = False
    port: int | None = None
    host: str = ""
    path: str = ""
    firmware: str = ""
    #: nginx's number of the client's connection, where its log has it.
    serial: int | None = None
    #: What nginx passed to the controller, bytes, the answer's head included.
    passed: int | None = None
    #: The extensions that the answer agreed to, where nginx's log has them.
    extensions: str = ""

    @property
    def began(self) -> float:
        return self.at - self.seconds

    @property
    def lost(self) -> bool:
        """No closing frame went either way: the transport was lost (what people call 1006)."""
        return bool(self.code) and self.close_sent is None and self.close_rcvd is None

    @property
    def orderly(self) -> bool:
        """Whether it was closed the way links are meant to be: 1000, 1001 going away, 1012."""
        closes = [close[0] for close in (self.close_sent, self.close_rcvd) if close]
        return bool(closes) and all(code in (1000, 1001, 1005, 1012) for code in closes)

    @property
    def vanished(self) -> bool:
        """Whether the other side answered pings and then nothing at all, not even the close: its
        power or its network went. Who lives on answers the close, or its kernel the FIN."""
        answered = self.close_rcvd is not None or self.transport == "fin"
        return self.code == "ping-timeout" and bool(self.pongs) and not answered

    def event(self, *kinds: str) -> Mapping[str, Json] | None:
        return next((event for event in self.events if event["kind"] in kinds), None)

    def shown(self) -> str:
        """One line for a person."""
        how = self.error or self.code or "ended"
        closes = "".join(
            f", {verb} {close[0]} {close[1]}".rstrip()
            for verb, close in (("sent", self.close_sent), ("received", self.close_rcvd))
            if close
        )
        messages = f", {self.messages_in} messages" if self.messages_in is not None else ""
        return f"{self.controller or self.peer}: {self.seconds:.2f} s{messages}: {how}{closes}"


@dataclass(frozen=True, slots=True)
class Timers:
    """What is configured, in seconds; None: not known. A ping interval of 0 means no pings."""

    ping_interval: float | None = None
    ping_timeout: float | None = None
    close: float | None = None
    idle: float | None = None
    head: float | None = None
    proxy_read: float | None = None
    keepalive: float | None = None
    client_header: float | None = None
    worker_shutdown: float | None = None


def near(value: float | None, timer: float | None) -> bool:
    """Whether a measured time is that timer's: a hundredth and a scheduling delay apart."""
    if value is None or not timer:
        return False
    return -0.1 <= value - timer <= 0.4 + 0.01 * timer


@once
def timers(case: Case) -> Timers:
    """The timers in force, from the evidence of the case."""
    config = case.fact("service.config", "config") or {}
    keepalive, limits = config.get("keepalive", {}), config.get("limits", {})
    settings = link_settings(case)
    return Timers(
        ping_interval=keepalive.get("ping_interval_seconds"),
        ping_timeout=keepalive.get("ping_timeout_seconds"),
        close=limits.get("close_seconds"),
        idle=limits.get("idle_seconds"),
        head=limits.get("head_seconds"),
        proxy_read=settings.get("proxy_read_timeout"),
        keepalive=settings.get("keepalive_timeout"),
        client_header=settings.get("client_header_timeout"),
        worker_shutdown=case.fact("nginx.config", "worker_shutdown_timeout"),
    )


@once
def link_settings(case: Case) -> dict[str, Any]:
    """nginx's effective settings where the link goes through it, or {}.

    The location that proxies the configured path; with several sites, the one that passes on to
    the service's port.
    """
    location = link_location(case)
    return location[1]["settings"] if location else {}


@once
def link_location(case: Case) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The server block and the location that pass the link on to the service."""
    config = case.fact("service.config", "config") or {}
    listen = config.get("listen", {})
    path, port = "/" + str(listen.get("path", "ptsWebSocket")), listen.get("port", 3000)
    facts = {
        "sites": case.fact("nginx.config", "sites") or [],
        "upstreams": case.fact("nginx.config", "upstreams"),
    }
    best: tuple[int, dict[str, Any], dict[str, Any]] | None = None
    for site in facts["sites"]:
        location = location_for(site, path)
        if location is None or not location["settings"]["proxy_pass"]:
            continue
        score = int(passes_to(facts, location, port))
        if best is None or score > best[0]:
            best = (score, site, location)
    return (best[1], best[2]) if best else None


# --- Links -------------------------------------------------------------------------------------


@once
def links(case: Case) -> list[Link]:
    """Every ended link of a controller, each once, in order of their ends."""
    recorded = [
        _of_record(record)
        for piece in case.all("service.records")
        for record in piece.facts.get("links", [])
    ]
    upgraded = [
        event
        for piece in case.all("nginx.error")
        for event in piece.facts["events"]
        if str(event["kind"]).startswith("upgraded-")
    ]
    proxied = [
        _with_events(_of_line(line), upgraded)
        for piece in case.all("nginx.access")
        for line in piece.facts["lines"]
        if line.get("status") == 101 and line.get("request_seconds") is not None
    ]
    lines = _by_who(proxied)
    joined = [_joined(link, lines.get(link.controller, ())) for link in recorded]
    # An nginx that is killed writes no line: that it carried the link, our own record tells.
    carried = {
        (record.get("controller"), round(record["at"]))
        for piece in case.all("service.records")
        for record in piece.facts.get("attempts", [])
        if record.get("proxy") and record.get("status") == 101
    }
    joined = [
        replace(link, proxied=True)
        if any((link.controller, round(link.began) + n) in carried for n in (-1, 0, 1))
        else link
        for link in joined
    ]
    used = _by_who(joined)
    alone = [
        line
        for line in proxied
        if not any(abs(line.at - own.at) <= SAME_SECONDS for own in used.get(line.controller, ()))
    ]
    captured = [
        _of_stream(piece.facts)
        for piece in case.all("capture.stream")
        if piece.facts.get("since_101") is not None
    ]
    every = [
        link
        for link in (*joined, *alone, *captured)
        if not link.controller.startswith(PROBE_ID_PREFIX)
    ]
    return sorted(every, key=lambda link: link.at)


def _by_who(every: Iterable[Link]) -> dict[str, list[Link]]:
    found: dict[str, list[Link]] = {}
    for link in every:
        found.setdefault(link.controller, []).append(link)
    return found


def _of_record(record: Mapping[str, Json]) -> Link:
    first = record.get("first_bytes") or {}
    try:
        raw = bytes.fromhex(str(first.get("hex", "")).replace(" ", ""))
    except ValueError:
        raw = b""
    return Link(
        controller=str(record.get("controller") or ""),
        peer=str(record.get("peer") or ""),
        at=float(record["at"]),
        seconds=float(record.get("seconds") or 0.0),
        code=str(record.get("code") or "unknown"),
        closed_by=str(record.get("closed_by") or ""),
        close_sent=_close(record.get("close_sent")),
        close_rcvd=_close(record.get("close_rcvd")),
        transport=str(record.get("transport") or ""),
        error=str(record.get("error") or ""),
        messages_in=record.get("messages_in"),
        messages_out=record.get("messages_out"),
        pings=record.get("pings"),
        pongs=record.get("pongs"),
        last_ping=record.get("last_ping_seconds_before_end"),
        last_pong=record.get("last_pong_seconds_before_end"),
        types=record.get("types") or {},
        first_bytes=raw,
        notes=tuple(record.get("notes") or ()),
        firmware=str(record.get("firmware") or ""),
    )


#: What a server says in its closing frame -> the short name our service has for it.
_CLOSE_WORDS = (
    ("reserved bits", "rsv1-on-frame"),
    ("incorrect masking", "unmasked-frame"),
    ("keepalive ping timeout", "ping-timeout"),
    ("invalid opcode", "invalid-opcode"),
    ("continuation frame", "broken-fragmentation"),
    ("control frame", "control-frame-too-long"),
)


def _of_stream(facts: Mapping[str, Json]) -> Link:
    """The link a captured connection was, told the way our service tells it."""
    http, seen, end = facts["http"], facts["websocket"] or {}, facts["end"] or {}
    closes = {c["by"]: (c["code"], c["reason"] or "") for c in reversed(seen.get("close", []))}
    sent, told = closes.get("server"), closes.get("client")
    words = sent[1] if sent else ""
    code = next((name for text, name in _CLOSE_WORDS if text in words), "")
    if not code and seen.get("unmasked") and sent and sent[0] == 1002:
        code = "unmasked-frame"
    if not code:
        code = f"lost-{end.get('how', 'fin')}" if not closes else "closed"
    frames = seen.get("frames", {"client": 0, "server": 0})
    return Link(
        controller=str(http["controller"] or facts["client"]),
        peer=facts["client"],
        at=facts["began"] + facts["seconds"],
        seconds=float(facts["since_101"]),
        code=code,
        closed_by="peer" if end.get("by") == "client" else "server",
        close_sent=sent,
        close_rcvd=told,
        transport=str(end.get("how") or ""),
        error=words,
        messages_in=frames["client"],
        messages_out=frames["server"],
        last_ping=facts["quiet"].get("server"),
        path=str(http["path"] or ""),
        port=facts["server_port"],
    )


def _close(value: Json) -> Close | None:
    return (int(value[0]), str(value[1])) if value else None


def _of_line(line: Mapping[str, Json]) -> Link:
    return Link(
        controller=str(line.get("controller") or ""),
        peer=str(line.get("client") or ""),
        at=float(line["time"] or 0.0),
        seconds=float(line["request_seconds"]),
        proxied=True,
        port=line.get("port"),
        host=str(line.get("host") or ""),
        path=str(line.get("path") or ""),
        firmware=str(line.get("firmware") or ""),
        serial=line.get("serial"),
        passed=None if line.get("bytes_sent") is None else int(line["bytes_sent"]),
        extensions=str(line.get("extensions") or ""),
    )


def _with_events(link: Link, events: Iterable[Mapping[str, Json]]) -> Link:
    own = tuple(
        event
        for event in events
        if event.get("client") == link.peer
        and abs(event["time"] - link.at) <= SAME_SECONDS
        and link.path in str(event.get("request"))
        and not other_connection(event, link.serial)
    )
    return replace(link, events=own)


def _joined(link: Link, proxied: Sequence[Link]) -> Link:
    for line in proxied:
        if (
            abs(line.at - link.at) <= SAME_SECONDS
            and abs(line.seconds - link.seconds) <= SAME_SECONDS
        ):
            return replace(
                link,
                events=line.events,
                proxied=True,
                port=line.port,
                host=line.host,
                path=line.path,
                firmware=line.firmware,
            )
    return link


@once
def current(case: Case) -> list[Link]:
    """Links that speak of the present: the last ones of each controller, newest at most an hour
    before the newest of all, and the run of equal ends they belong to."""
    every = links(case)
    newest = max((link.at for link in every), default=0.0)
    return [link for link in every if newest - link.at <= 3600.0]


@once
def ailing(case: Case) -> dict[str, list[Link]]:
    """The recent ends, newest last, of each controller whose link may well end so again.

    A controller that is connected now, and has been for twice as long as its last link lasted (at
    least ten seconds), is over it.
    """
    well: dict[str, float] = {}
    for piece in case.all("service.live"):
        now = piece.facts.get("now")
        for session in piece.facts.get("controllers") or []:
            if now and session.get("since"):
                well[str(session.get("id"))] = now - float(session["since"]) / 1000.0
    found = {}
    for controller, own in by_controller(current(case)).items():
        last = own[-1]
        if well.get(controller, 0.0) > max(10.0, 2.0 * last.seconds):
            continue
        found[controller] = own[-8:]
    return found


def ending(case: Case, fits: Callable[[Link], bool]) -> list[Link]:
    """The fitting ends of a controller whose *last* link ended so, or most of whose last ones did.

    An empty list when there is no such controller; else that of the one with the most.
    """
    best: list[Link] = []
    for own in ailing(case).values():
        hits = [link for link in own if fits(link)]
        if hits and (fits(own[-1]) or 2 * len(hits) > len(own)) and len(hits) > len(best):
            best = hits
    return best


def last_run(own: Sequence[Link]) -> list[Link]:
    """The unbroken run of short links that the last of one controller's *own* belongs to.

    All ended like the last one: the same path, the same closing frames, the same number of bytes
    passed. Empty where the last link was not short.
    """
    run: list[Link] = []
    for link in reversed(own):
        if link.seconds > SHORT_SECONDS:
            break
        if run and (_likeness(link) != _likeness(run[-1])
                    or run[-1].began - link.at > LOOP_GAP_SECONDS):  # fmt: skip
            break
        run.append(link)
    return run[::-1]


def _likeness(link: Link) -> tuple[Json, ...]:
    return (link.code, link.path, link.close_sent, link.close_rcvd, link.passed)


def by_controller(every: Iterable[Link]) -> dict[str, list[Link]]:
    """Links by the controller they belong to (its address where it gave no id)."""
    found: dict[str, list[Link]] = {}
    for link in every:
        found.setdefault(link.controller or link.peer, []).append(link)
    return found


# --- Patterns ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drop:
    """Links of several controllers that ended together."""

    at: float
    links: tuple[Link, ...]

    @property
    def controllers(self) -> set[str]:
        return {link.controller or link.peer for link in self.links}


def mass_drops(every: Sequence[Link]) -> list[Drop]:
    """Moments at which at least MASS controllers lost their links."""
    drops: list[Drop] = []
    group: list[Link] = []
    for link in sorted(every, key=lambda link: link.at):
        if group and link.at - group[-1].at > TOGETHER_SECONDS:
            drops += _drop(group)
            group = []
        group.append(link)
    return [*drops, *_drop(group)]


def _drop(group: Sequence[Link]) -> list[Drop]:
    drop = Drop(group[0].at, tuple(group)) if group else None
    return [drop] if drop and len(drop.controllers) >= MASS else []


@dataclass(frozen=True, slots=True)
class Loop:
    """A controller that connects, is lost, and connects again."""

    controller: str
    links: tuple[Link, ...]
    #: Median seconds from one beginning to the next.
    period: float


def loops(every: Sequence[Link]) -> list[Loop]:
    """Controllers with at least LOOP links whose gaps are short beside their lives, or nil."""
    found = []
    for controller, own in by_controller(every).items():
        if len(own) < LOOP:
            continue
        last = own[-12:]
        periods = [b.began - a.began for a, b in itertools.pairwise(last)]
        gaps = [b.began - a.at for a, b in itertools.pairwise(last)]
        if statistics.median(gaps) <= LOOP_GAP_SECONDS:
            found.append(Loop(controller, tuple(last), statistics.median(periods)))
    return found


def constant(values: Sequence[float]) -> float | None:
    """The value all but a few outliers share, or None: a timer leaves a constant."""
    if len(values) < 3:
        return None
    middle = statistics.median(values)
    close = [v for v in values if abs(v - middle) <= 0.3 + 0.02 * middle]
    return middle if len(close) >= max(3, 0.7 * len(values)) else None


def fingerprints(seconds: float, configured: Timers) -> list[str]:
    """Which configured timers a duration is the mark of, in words."""
    named: list[tuple[float | None, str]] = [
        (configured.proxy_read, "nginx's proxy_read_timeout"),
        (configured.keepalive, "nginx's keepalive_timeout"),
        (configured.client_header, "nginx's client_header_timeout"),
        (configured.head, "the service's limits.head_seconds"),
        (configured.idle, "the service's limits.idle_seconds"),
        (configured.worker_shutdown, "nginx's worker_shutdown_timeout"),
    ]
    interval, timeout = configured.ping_interval, configured.ping_timeout
    if interval and timeout:
        named.append((interval, "one ping interval"))
        named.append((interval + timeout, "ping interval + ping timeout"))
        if configured.close:
            named.append(
                (interval + timeout + configured.close, "ping interval + timeout + close_seconds")
            )
    return [f"{name} ({timer:g} s)" for timer, name in named if timer and near(seconds, timer)]


@once
def moments(case: Case) -> list[tuple[float, str]]:
    """What happened to the machine and when: reloads, restarts, stops, upgrades (epoch seconds)."""
    found: list[tuple[float, str]] = []
    for piece in case.all("nginx.error"):
        found += [
            (event["time"], str(event["kind"]))
            for event in piece.facts["events"]
            if event["kind"] in ("reloading", "stopping", "started", "worker-leaving")
        ]
    when = case.fact("nginx.process", "started")
    if when:
        found.append((float(when), "nginx started"))
    for piece in case.all("host.unit"):
        when = piece.facts.get("started")
        if when:
            found.append((float(when), f"{piece.facts['unit']} started"))
    for run in case.fact("host.upgrades", "runs") or ():
        who = "unattended upgrade" if run.get("unattended") else "package upgrade"
        packages = run.get("packages") or []
        more = f" and {len(packages) - 3} more" if len(packages) > 3 else ""
        who += f" ({', '.join(packages[:3])}{more})" if packages else ""
        begun, ended = run.get("start"), run.get("end")
        # Services are restarted while it runs, or by needrestart behind it.
        found += [(float(begun), f"{who} begun")] if begun and begun != ended else []
        found += [(float(ended), who)] if ended else []
    for piece in case.all("service.records"):
        found += [(r["at"], f"service {r['code']}") for r in piece.facts.get("events", [])]
    return sorted(found)


def gather(say: Callable[[str], None] = lambda _text: None) -> list[Evidence]:
    """The connection records of this server, and what happened to it meanwhile; the verdict tells
    what stands out in them."""
    from ptslink.doctor.collect import gather_records  # the edge, for the command line only

    return list(gather_records(say=say))


def patterns(case: Case) -> list[Evidence]:
    """What stands out in the records, as evidence a person can read (``pattern.*``).

    ``pattern.links``  ``links``, ``short``, ``ends`` {how: n}
    ``pattern.loop``   one a controller: ``controller``, ``period``, ``seconds``, ``fingerprints``,
        ``closed_by``, ``transport``, ``first``, ``layer``
    ``pattern.drop``   one a moment: ``at``, ``controllers``, ``before`` [[seconds, what]],
        ``layer``
    ``pattern.burst``  one who is refused: ``controller``, ``tries``, ``first``, ``root``,
        ``status``, ``limits``, ``layer``

    FAILED is only what goes on now; UNKNOWN what did and may be over.
    """
    every = links(case)
    found = [_overview(every)] if every else []
    if not every and case.first("service.records") is not None:
        found = [
            Evidence("pattern.links", Status.UNKNOWN, "no ended link on record", {}, 0, "server")
        ]
    found += [_loop(case, loop) for loop in loops(current(case))]
    found += [_drop_seen(case, drop) for drop in mass_drops(every)]
    found += [_burst(case, trouble) for trouble in troubles(case) if _of_controller(trouble, case)]
    return found


def _goes_on(case: Case, last: float, period: float) -> bool:
    """Whether what comes every *period* seconds, at *last* for the last time, comes again.

    Without a clock in the case (a capture) its end is the present.
    """
    now = case.fact("service.records", "now") or case.fact("host.clock", "now")
    return now is None or float(now) - last <= STILL_SECONDS + 3 * period


def _loop(case: Case, loop: Loop) -> Evidence:
    configured = timers(case)
    ends = loop.links
    same = constant([link.seconds for link in ends])
    marks = fingerprints(same, configured) if same is not None else []
    seen = f"{loop.controller} reconnects every {loop.period:.1f} s"
    seen += f"; each link lasts {same:.2f} s" if same is not None else "; durations vary"
    seen += f" = {', '.join(marks)}" if marks else ""
    bad = [link for link in ends if not link.orderly]
    seen += f"; the last: {ends[-1].shown()}"
    wrong = (
        loop.controller in ailing(case)
        and ends[-1] in bad
        and 2 * len(bad) > len(ends)
        and _goes_on(case, ends[-1].at, loop.period)
    )
    facts = {
        "controller": loop.controller,
        "period": loop.period,
        "seconds": same,
        "fingerprints": marks,
        "closed_by": ends[-1].closed_by,
        "transport": ends[-1].transport,
        "first": ends[0].shown(),
        "layer": "ws-protocol",
    }
    status = Status.FAILED if wrong else Status.UNKNOWN
    return Evidence("pattern.loop", status, seen, facts, 0, "server")


def _drop_seen(case: Case, drop: Drop) -> Evidence:
    before = [(drop.at - at, what) for at, what in moments(case) if -2 <= drop.at - at <= 120]
    after = ", ".join(f"{what} {ago:.1f} s before" for ago, what in before[-3:])
    seen = f"{len(drop.controllers)} controllers lost together" + (f"; {after}" if after else "")
    facts = {"at": drop.at, "controllers": sorted(drop.controllers), "before": before,
             "layer": "application"}  # fmt: skip
    # Who has come back is over it; a planned stop is told by its closing frames.
    away = drop.controllers & ailing(case).keys()
    wrong = (
        len(away) >= MASS
        and not any(link.orderly for link in drop.links)
        and _goes_on(case, drop.at, 0.0)
    )
    return Evidence("pattern.drop", Status.FAILED if wrong else Status.UNKNOWN, seen, facts, 0,
                    "server")  # fmt: skip


def _of_controller(trouble: Trouble, case: Case) -> bool:
    """Whether it is told of in the logs, and of a controller rather than of somebody scanning: it
    has an id, asks for an upgrade, or for the very path of the link."""
    first = trouble.first
    listen = (case.fact("service.config", "config") or {}).get("listen", {})
    path = "/" + str(listen.get("path", "ptsWebSocket"))
    asks = first.asked is not None and link_path(first.asked) == link_path(path)
    # A page of that path is what a browser asks for, or a probe; a controller asks for an upgrade.
    asks = asks and first.upgrade is not False
    own = (first.controller or "").startswith(PROBE_ID_PREFIX)
    return (
        first.source in ("nginx", "service", "capture")
        and bool(first.controller or first.upgrade or asks)
        and not own
    )


def _burst(case: Case, trouble: Trouble) -> Evidence:
    tries, limits = trouble.failures, trouble.limits
    times = [attempt.at for attempt in tries if attempt.at is not None]
    period = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    seen = f"{trouble.subject}: {len(tries)} tries in a row failed; the first: "
    seen += trouble.first.shown()
    if trouble.root is not trouble.first:
        seen += f"; what keeps it out: {trouble.root.shown()}"
    seen += f"; {len(limits)} of them by a limit, which only follows" if limits else ""
    root = trouble.root
    facts = {
        "controller": trouble.subject,
        "tries": len(tries),
        "first": trouble.first.shown(),
        "root": root.shown(),
        "status": root.status,
        "limits": len(limits),
        "layer": "tls" if root.event("tls-failed", "tls-alert", "tls-rejected", "tls-closed")
        else "http-upgrade",
    }  # fmt: skip
    wrong = len(tries) >= BURST and _goes_on(case, times[-1] if times else 0.0, period)
    return Evidence("pattern.burst", Status.FAILED if wrong else Status.UNKNOWN, seen, facts, 0,
                    "server")  # fmt: skip


def _overview(every: Sequence[Link]) -> Evidence:
    ends: dict[str, int] = {}
    for link in every:
        ends[link.code or "seen by nginx only"] = ends.get(link.code or "seen by nginx only", 0) + 1
    short = sum(1 for link in every if link.seconds <= SHORT_SECONDS)
    words = ", ".join(f"{n}x {code}" for code, n in sorted(ends.items(), key=lambda e: -e[1])[:4])
    facts = {"links": len(every), "short": short, "ends": ends}
    seen = f"{len(every)} ended links, {short} of them under {SHORT_SECONDS:g} s: {words}"
    return Evidence("pattern.links", Status.OK, seen, facts, 0, "server")
