"""Causes of the layer ws-protocol: frames, pings and idle timers of an open link.

Facts used: links and timers (:mod:`ptslink.doctor.pattern`) from ``service.records`` and
``nginx.access``; ``net.sockets`` ``send_q``, ``timer``, ``peer``; ``service.config``. From the
client's side: ``ws.accept`` ``extensions``, ``offered``; ``ws.large`` ``bytes``, ``code``.
"""

from __future__ import annotations

import itertools
import statistics

from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import (
    ends_told,
    service_config,
    unrecorded,
)
from ptslink.doctor.commands import PROVISION_SERVER
from ptslink.doctor.evidence import Case
from ptslink.doctor.pattern import (
    LOOP,
    LOOP_GAP_SECONDS,
    SHORT_SECONDS,
    Link,
    ailing,
    constant,
    ending,
    links,
    mass_drops,
    near,
    timers,
)

_LOOP = ("dev-reconnect-storm", "app-first-message", "px-header-case")


def _shown(hits: list[Link], *lines: str) -> tuple[str, ...]:
    """The last hit, how often it happened, and its first bytes."""
    last = hits[-1]
    seen = [last.shown()]
    if len(hits) > 1:
        seen.append(f"The same end {len(hits)} times, every {_period(hits):.1f} s.")
    if last.first_bytes:
        seen.append(f"First bytes: {last.first_bytes[:24].hex(' ')}")
    return (*seen, *lines)


def _period(hits: list[Link]) -> float:
    return statistics.median(b.began - a.began for a, b in itertools.pairwise(hits))


def _rsv1(case: Case) -> Match | None:
    hits = ending(
        case,
        lambda link: (
            link.code in ("rsv1-on-frame", "http-text-after-upgrade")
            or (
                link.code == "reserved-bits"
                and bool(link.first_bytes and link.first_bytes[0] & 0x40)
            )
            or ("reserved bits" in link.error and not link.first_bytes)
        ),
    )
    if not hits:
        return None
    last = hits[-1]
    if last.code == "http-text-after-upgrade":
        text = last.first_bytes[:32].decode("latin-1")
        lines = (f"The controller sent HTTP text after the 101 ({text!r}), whose letters look like "
                 "a frame with RSV1 set.",)  # fmt: skip
    else:
        lines = ("RSV1 is set and no extension was negotiated (RFC 6455 5.2).",)
    out = ("ws-deflate-unsupported", "ws-unmasked", "ws-bad-frame", "app-handler-exception")
    return Match(CERTAIN, _shown(hits, *lines), out)


def _unmasked(case: Case) -> Match | None:
    hits = ending(
        case, lambda link: link.code == "unmasked-frame" or "incorrect masking" in link.error
    )
    if not hits:
        return None
    interval = timers(case).ping_interval
    lines = ["The mask bit is 0; a client must mask every frame (RFC 6455 5.1)."]
    if interval and near(hits[-1].seconds, interval):
        lines.append(f"It dies at the first ping ({interval:g} s): only its pongs are unmasked.")
    return Match(
        CERTAIN, _shown(hits, *lines), ("ws-ping-unanswered", "nat-idle-silent", "ws-bad-frame")
    )


def _utf8(case: Case) -> Match | None:
    hits = ending(
        case,
        lambda link: (
            link.code == "not-utf8" or bool(link.close_sent and link.close_sent[0] == 1007)
        ),
    )
    if not hits:
        return None
    line = "A text message is not UTF-8: most likely a name in a Windows code page."
    sure = _named(hits, "not-utf8")
    return Match(sure, _shown(hits, line), ("app-handler-exception", "ws-bad-frame"))


def _named(hits: list[Link], code: str) -> float:
    """How sure a close code makes: alone, it may have been sent for another reason."""
    last = hits[-1]
    told = last.code == code or last.first_bytes or (last.close_sent and last.close_sent[1])
    return CERTAIN if told else LIKELY


def _too_big(case: Case) -> Match | None:
    hits = ending(
        case,
        lambda link: (
            link.code == "message-too-big" or bool(link.close_sent and link.close_sent[0] == 1009)
        ),
    )
    limit = service_config(case, "limits").get("message_bytes")
    if not hits:
        for piece in case.all("ws.large"):
            if piece.facts.get("code") == 1009:
                return Match(LIKELY, (f"Closed with 1009: {piece.seen}",))
        return None
    lines = [f"limits.message_bytes is {limit}."] if limit else []
    fix = Fix(
        "Raise the largest message; a controller's configuration has tens of kilobytes.",
        "The same upload is confirmed.",
        Auto.YES,
        PROVISION_SERVER,
        {"pts_server_message_bytes_max": max(4 * 1024 * 1024, 4 * int(limit or 0))},
    )
    sure = _named(hits, "message-too-big")
    return Match(sure, _shown(hits, *lines), ("app-handler-exception",), fix)


_BAD_FRAMES = (
    "invalid-opcode",
    "control-frame-too-long",
    "fragmented-control-frame",
    "broken-fragmentation",
    "malformed-close",
    "protocol-error",
    "json-text-without-frame",
)
_BAD_WORDS = ("invalid opcode", "continuation frame", "control frame")


def _closes(case: Case) -> Match | None:
    """A controller that closes in good order before it has said anything, again and again."""
    hits = ending(
        case,
        lambda link: (
            link.closed_by == "peer"
            and link.close_rcvd is not None
            and link.close_rcvd[0] in (1000, 1001, 1005)
            and link.messages_in == 0
            and link.seconds <= SHORT_SECONDS
        ),
    )
    if len(hits) < LOOP or hits[-1].began - hits[-2].at > LOOP_GAP_SECONDS:
        return None
    line = "It was let in, and ends each link itself with a closing frame."
    return Match(STRONG, _shown(hits, line), ("app-no-confirmation",))


def _unreadable(case: Case) -> Match | None:
    """What a controller sends is no message; it waits for a confirmation that cannot come."""
    hits = ending(case, lambda link: "unreadable" in link.notes and not link.messages_out)
    if not hits:
        return None
    told = [
        str(event.get("message"))
        for piece in case.all("service.records")
        for event in piece.facts.get("events", [])
        if event.get("code") == "unreadable"
    ]
    return Match(
        STRONG,
        _shown(hits, "Not one of its texts is a jsonPTS message.", *told[-1:]),
        ("app-no-confirmation", "px-other-idle-timeout", "ws-device-idle-timeout"),
    )


def _bad_frame(case: Case) -> Match | None:
    hits = ending(
        case,
        lambda link: (
            link.code in _BAD_FRAMES
            or (
                link.code == "reserved-bits"
                and not (link.first_bytes and link.first_bytes[0] & 0x40)
            )
            or any(words in link.error for words in _BAD_WORDS)
        ),
    )
    if not hits:
        return None
    line = f"The service closed with 1002: {hits[-1].error or hits[-1].code}."
    return Match(
        STRONG, _shown(hits, line), ("ws-rsv1-compressed", "ws-unmasked", "ws-invalid-utf8")
    )


def _pingless(link: Link) -> bool:
    return link.code == "ping-timeout" or bool(
        link.close_sent and link.close_sent[0] == 1011 and "ping" in link.close_sent[1]
    )


def _ping_unanswered(case: Case) -> Match | None:
    hits = ending(case, _pingless)
    if not hits:
        return None
    last = hits[-1]
    configured = timers(case)
    stuck = _stuck_peer(case, last.peer)
    # A peer whose kernel still takes what we send is alive and only does not answer pings.
    alive = any(
        link.transport in ("fin", "closed") or link.close_rcvd or link.messages_in for link in hits
    )
    never = all(not link.pongs for link in hits)
    if stuck or not alive:
        return None
    lines = []
    cycle = (configured.ping_interval or 0.0) + (configured.ping_timeout or 0.0)
    if cycle:
        lines.append(f"Ping interval + timeout are {cycle:g} s; no pong came ({last.pings} pings).")
    lines.append("Its kernel still acknowledges: nothing waits unsent for this peer.")
    if not never:
        lines.append("It answered pings before.")
    out = ("tcp-half-open-ghost", "nat-idle-silent", "app-event-loop-blocked")
    return Match(STRONG if never else LIKELY, _shown(hits, *lines), out)


def _stuck_peer(case: Case, peer: str) -> bool:
    """Whether data for this peer waits unacknowledged in the kernel."""
    return any(
        entry.get("peer") == peer and entry.get("send_q") and entry.get("timer") == "on"
        for piece in case.all("net.sockets")
        for entry in piece.facts.get("sockets", [])
    )


def _device_idle(case: Case) -> Match | None:
    configured = timers(case)
    interval = configured.ping_interval
    known = (configured.proxy_read, configured.idle, configured.worker_shutdown)
    together = [link for drop in mass_drops(links(case)) for link in drop.links]
    best: tuple[list[Link], float] | None = None
    for own in ailing(case).values():
        ends = [
            link
            for link in own
            if link.code.startswith("lost-fin")
            and not link.event("upgraded-timeout", "upgraded-reset")
            and link not in together
        ]
        if len(ends) < 3 or len(ends) < 0.7 * len(own):
            continue
        quiet = [_quiet_time(link) for link in ends]
        same = constant(quiet)
        if same is None or same <= 2.0 or any(near(same, timer) for timer in known):
            continue
        if best is None or len(ends) > len(best[0]):
            best = (ends, same)
    if best is None:
        return None
    hits, same = best
    if interval and same > 1.5 * interval:
        return None  # pings reach it more often than that: it is not silence that it minds
    lines = [f"Each time it ended the connection {same:.1f} s after the last sign from the server."]
    lines.append(
        f"The service pings every {interval:g} s." if interval else "The service sends no pings."
    )
    lines.append("The FIN comes from the controller, without a closing frame.")
    value = max(5, int(same / 2))
    fix = Fix(
        f"Ping every {value} s: half of what this controller tolerates.",
        "Its links outlive the constant at which they ended.",
        Auto.YES,
        PROVISION_SERVER,
        {"pts_server_ping_interval_seconds": value},
    )
    out = ("nat-idle-silent", "px-read-timeout-60", "px-other-idle-timeout")
    return Match(STRONG, _shown(hits, *lines), out, fix)


def _quiet_time(link: Link) -> float:
    """Seconds from the server's last known sign to the end."""
    signs = [link.seconds]
    if link.last_ping is not None:
        signs.append(link.last_ping)
    return min(signs)


def _deflate(case: Case) -> Match | None:
    for piece in case.all("ws.accept"):
        extensions = str(piece.facts.get("extensions") or "")
        if "permessage-deflate" not in extensions or piece.facts.get("variation"):
            continue
        offered = "permessage-deflate" in str(piece.facts.get("offered") or "")
        line = "The 101 switches permessage-deflate on" + (
            "." if offered else ", which nobody offered."
        )
        lost = [
            link
            for own in ailing(case).values()
            for link in own
            if link.lost and link.seconds < 5.0
        ]
        seen = (line, *(link.shown() for link in lost[-1:]))
        return Match(
            STRONG if lost or not offered else LIKELY,
            seen,
            ("ws-rsv1-compressed", "hs-subprotocol"),
        )
    return _deflate_agreed(case)


#: Who cannot read compressed messages is gone this soon after the first of them, seconds.
_SOON = 5.0


def _deflate_agreed(case: Case) -> Match | None:
    """Another server than ours agreed to compress, and the controller left at its first words."""
    if ends_told(case, "handler-failed", "dependency", "already-connected", "rate-limited"):
        return None
    hits = unrecorded(
        case, lambda link: "permessage-deflate" in link.extensions and link.seconds <= _SOON
    )
    if len(hits) < 2:
        return None
    line = f"{len(hits)} links on which permessage-deflate was agreed ended within {_SOON:g} s."
    out = ("ws-rsv1-compressed", "ws-server-frame-too-big")
    return Match(STRONG, (hits[-1].shown(), line), out)


def _server_frame(case: Case) -> Match | None:
    """Links that die right after the server sent something large or a particular request."""
    for piece in case.all("service.records"):
        asked = [r for r in piece.facts.get("events", []) if r.get("code") == "command"]
        hits: list[tuple[str, int]] = []
        for own in ailing(case).values():
            for link in own:
                for record in asked:
                    same = record.get("controller") == link.controller
                    if same and link.lost and 0.0 <= link.at - record["at"] <= 2.0:
                        hits.append((str(record.get("type")), int(record.get("bytes") or 0)))
        kinds = {kind for kind, _ in hits}
        if len(hits) >= 2 and len(kinds) == 1:
            kind, size = hits[-1]
            much = f" ({size} bytes)" if size else ""
            line = f"{len(hits)} links were lost within 2 s of sending {kind}{much}."
            out = ("app-first-message", "ws-deflate-unsupported", "ws-device-idle-timeout")
            return Match(STRONG, (line,), out)
    return _large_unasked(case)


#: Confirmations and the requests of ptslink stay below; a small controller's buffer is not
#: larger. Bytes.
_LARGE = 2048


def _large_unasked(case: Case) -> Match | None:
    """Another server than ours sends much at once, and each link ends at about as much."""
    hits = unrecorded(case, lambda link: link.seconds <= 10.0 and (link.passed or 0) >= _LARGE)
    sizes = [link.passed or 0 for link in hits]
    if len(hits) < 2 or max(sizes) - min(sizes) > _LARGE:
        return None
    told = max(
        (size for probe in ("ws.ping", "ws.idle") for piece in case.all(probe)
         for size in piece.facts.get("unasked_bytes") or ()), default=0,
    )  # fmt: skip
    lines = [hits[-1].shown(),
             f"{len(hits)} links ended young after the server had sent about {max(sizes)} "
             "bytes."]  # fmt: skip
    lines += [f"Of its own accord it sends a message of {told} bytes."] if told >= _LARGE else []
    out = ("ws-deflate-unsupported", "ws-device-idle-timeout")
    return Match(STRONG if told >= _LARGE else LIKELY, tuple(lines), out)


_FIRMWARE = "Update the controller's firmware, and tell its maker what was seen."
_STAYS = "The controller's next link lasts and brings messages."

CAUSES: tuple[Cause, ...] = (
    Cause(
        "ws-rsv1-compressed",
        Layer.WS_PROTOCOL,
        "The controller sets the reserved bit RSV1",
        Fix(
            "Accept frames with a stray RSV1 bit; " + _FIRMWARE,
            _STAYS,
            Auto.ASK,
            PROVISION_SERVER,
            {"pts_server_settings": {"listen": {"tolerate_rsv1": True}}},
        ),
        _rsv1,
        _LOOP,
    ),
    Cause(
        "ws-unmasked",
        Layer.WS_PROTOCOL,
        "The controller sends frames without a mask",
        Fix(
            _FIRMWARE + " Where only pongs are unmasked, switch the server's pings off.",
            _STAYS,
            Auto.ASK,
            PROVISION_SERVER,
            {"pts_server_ping_interval_seconds": 0},
        ),
        _unmasked,
        _LOOP,
    ),
    Cause(
        "ws-invalid-utf8",
        Layer.WS_PROTOCOL,
        "The controller sends text that is not UTF-8",
        Fix(
            "Write names (station, grades, users) in plain letters on the controller, or set "
            "pts_server_utf8_validation to false, the default: the server then keeps such text as "
            "it came, and pts_server_code_page says how it is shown.",
            _STAYS,
            Auto.ASK,
            PROVISION_SERVER,
            {"pts_server_utf8_validation": False},
            controller="Names of the station, fuel grades and users",
        ),
        _utf8,
        _LOOP,
    ),
    Cause(
        "ws-too-big",
        Layer.WS_PROTOCOL,
        "A message is larger than the service accepts",
        Fix(
            "Raise the largest message.",
            "The same upload is confirmed.",
            Auto.YES,
            PROVISION_SERVER,
            {"pts_server_message_bytes_max": 4194304},
        ),
        _too_big,
        _LOOP,
    ),
    Cause(
        "ws-bad-frame",
        Layer.WS_PROTOCOL,
        "The controller sends malformed frames",
        Fix(_FIRMWARE, _STAYS, Auto.NO),
        _bad_frame,
        _LOOP,
    ),
    Cause(
        "ws-message-unreadable",
        Layer.WS_PROTOCOL,
        "The controller sends text that is no jsonPTS message, so nothing is confirmed",
        Fix(
            "Look what the device is: another program may have its address and id. " + _FIRMWARE,
            "Its texts are read and confirmed.",
            Auto.NO,
        ),
        _unreadable,
        (*_LOOP, "app-no-confirmation", "px-other-idle-timeout"),
    ),
    Cause(
        "ws-closed-by-controller",
        Layer.WS_PROTOCOL,
        "The controller closes each link itself, at once",
        Fix(
            "Nothing on the server or on the way ends it: look at the controller's log and its "
            "settings. " + _FIRMWARE,
            _STAYS,
            Auto.NO,
            controller="Server tab: 'Use full communication with server using Websocket'",
        ),
        _closes,
        _LOOP,
    ),
    Cause(
        "ws-ping-unanswered",
        Layer.WS_PROTOCOL,
        "The controller never answers pings",
        Fix(
            "Judge it by its messages instead of by pongs: a long ping timeout.",
            _STAYS,
            Auto.YES,
            PROVISION_SERVER,
            {"pts_server_ping_timeout_seconds": 600},
        ),
        _ping_unanswered,
        _LOOP,
    ),
    Cause(
        "ws-device-idle-timeout",
        Layer.WS_PROTOCOL,
        "The controller leaves when it hears nothing",
        Fix(
            "Ping more often than the controller's own timeout.",
            _STAYS,
            Auto.YES,
            PROVISION_SERVER,
            {"pts_server_ping_interval_seconds": 15},
        ),
        _device_idle,
        _LOOP,
    ),
    Cause(
        "ws-deflate-unsupported",
        Layer.WS_PROTOCOL,
        "Compression is on, the controller cannot read it",
        Fix(
            "Never agree to permessage-deflate. ptslink does not; switch it off in what stands "
            "there.",
            "The 101 carries no Sec-WebSocket-Extensions.",
            Auto.YES,
            PROVISION_SERVER,
        ),
        _deflate,
        _LOOP,
    ),
    Cause(
        "ws-server-frame-too-big",
        Layer.WS_PROTOCOL,
        "A request is larger than the controller can take",
        Fix(
            "Split the request: fewer packets a message, shorter time ranges a report.",
            "The request is answered.",
            Auto.ASK,
        ),
        _server_frame,
        _LOOP,
    ),
)
