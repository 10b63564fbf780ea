"""Causes of the layer application: the service itself, and what it depends on.

Facts used: ``service.records``, ``service.live``, ``service.log``, ``service.config``,
``link.local`` (:mod:`ptslink.doctor.collect.service`); attempts and links; ``host.unit``
``started``, ``result``; ``net.sockets`` ``recv_q``, ``local_port``, ``state``, ``peer``;
``net.listeners`` ``pid``, ``process``. From the client's side: ``ws.close`` ``code``, ``reason``,
``after_seconds``; ``ws.ping``/``ws.idle`` ``unasked`` [str]: texts that came before anything was
sent.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Mapping, Sequence

from ptslink.doctor.attempts import PROBE_ID_PREFIX, Attempt, attempts
from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import (
    RETRY_AFTERMATH,
    ends_told,
    failing,
    limited,
    logged,
    match,
    service_config,
    unrecorded,
    where,
)
from ptslink.doctor.commands import PROVISION_NGINX, PROVISION_SERVER, journal
from ptslink.doctor.evidence import Case, Json
from ptslink.doctor.pattern import (
    Link,
    ailing,
    current,
    ending,
    link_location,
    links,
    timers,
)

#: The close code "try again later" (IANA, WebSocket Close Code Number Registry).
_TRY_AGAIN_LATER = 1013
#: What other servers say to who comes too often, whatever code they close with.
_TOO_MANY = re.compile(r"(?i)rate.?limit|too many (?:attempts|requests|connections)")
#: So many replacements within a minute are a quarrel, not a reconnection.
QUARREL = 3


def _events(case: Case, *codes: str) -> list[Mapping[str, Json]]:
    return [
        record
        for piece in case.all("service.records")
        for record in piece.facts.get("events", [])
        if record.get("code") in codes
    ]


# --- One id, several controllers ---------------------------------------------------------------


def _replaced(link: Link) -> bool:
    return any(
        close is not None and (close[0] == 4000 or "replaced" in close[1].lower())
        for close in (link.close_sent, link.close_rcvd)
    )


def _duplicate_id(case: Case) -> Match | None:
    every = attempts(case)
    for controller, own in ailing(case).items():
        hits = [link for link in own if _replaced(link)]
        if len(hits) < QUARREL or controller.startswith(PROBE_ID_PREFIX):
            continue
        tries = [a for a in every if a.controller == controller and a.status == 101]
        peers = {a.client for a in tries if a.client}
        marks = {
            (a.request.get("x-pts-firmware-version-datetime"),
             a.request.get("x-pts-configuration-identifier"))
            for a in tries if a.request
        }  # fmt: skip
        origins = {a.request.get("origin") for a in tries if a.request}
        if len(peers) < 2 and len(marks) < 2 and len(origins) < 2:
            continue
        lines = [f"{len(hits)} links of {controller} were replaced by a newer one of the same id."]
        if len(peers) > 1:
            lines.append(f"They come from {', '.join(sorted(str(p) for p in peers))}.")
        if len(marks) > 1:
            lines.append(f"{len(marks)} firmware or configuration identifiers alternate.")
        elif len(origins) > 1:
            lines.append(f"Their Origins alternate: {', '.join(sorted(str(o) for o in origins))}.")
        out = ("app-ghost-blocks", "dev-reboot-loop", "app-late-cleanup")
        return Match(STRONG, (hits[-1].shown(), *lines), out)
    return None


_ALREADY = ("already connected", "already-connected", "duplicate connection")


def _ghost_blocks(case: Case) -> Match | None:
    seen = failing(
        case,
        lambda a: (
            a.code == "already-connected"
            or (a.status == 409 and a.by == "backend")
            or any(word in f"{a.reason} {a.body}".lower() for word in _ALREADY)
        ),
    )
    hits = ending(
        case,
        lambda link: (
            link.seconds <= 1.5
            and any(
                close is not None
                and (close[0] == 4001 or any(w in close[1].lower() for w in _ALREADY))
                for close in (link.close_sent, link.close_rcvd)
            )
        ),
    )
    told = next(
        (
            p
            for p in case.all("ws.close")
            if any(w in str(p.facts.get("reason")).lower() for w in _ALREADY)
        ),
        None,
    )
    closed = ends_told(case, "already-connected")
    hits = hits or (closed[0] if closed else [])
    if seen is None and not hits and told is None:
        return None
    lines = [hits[-1].shown()] if hits else [told.seen] if told is not None else []
    said_so = logged(case, "already-connected")
    lines += [f"The log: {said_so[-1]['text'][:160]}"] if said_so else []
    peers = {link.peer for link in hits} | ({seen.client} if seen else set())
    stuck = [
        entry
        for piece in case.all("net.sockets")
        for entry in piece.facts.get("sockets", [])
        if entry.get("peer") in peers and entry.get("send_q")
    ]
    if stuck:
        lines.append(f"The old socket of {stuck[0]['peer']} is {stuck[0].get('state')} with "
                     f"{stuck[0]['send_q']} bytes unacknowledged.")  # fmt: skip
    lines.append("A newcomer is refused while the old, dead link still counts.")
    # A 409 alone is what most servers say of a second link, not all.
    words = hits or told is not None or said_so or (seen is not None and (seen.code or seen.body))
    sure = STRONG if words else LIKELY
    return match(seen, sure, *lines, ruled_out=("app-dup-id-replaced", "app-rate-lockout"))


def _late_cleanup(case: Case) -> Match | None:
    """Controllers with an open link that the registry does not know."""
    live = case.first("service.live")
    if live is None or live.facts.get("controllers") is None:
        return None
    now = live.facts.get("now") or 0.0
    known = {str(session.get("id")) for session in live.facts["controllers"]}
    for piece in case.all("service.records"):
        for record in _unended(case, piece.facts.get("attempts", [])):
            controller = str(record["controller"])
            if controller in known or now - record["at"] < 3.0:
                continue
            if not _established(case, str(record.get("peer"))):
                continue
            lines = (f"{controller} was accepted {now - record['at']:.0f} s ago, no end is on "
                     "record,",
                     "its socket is established, and the registry does not list it.")  # fmt: skip
            return Match(STRONG, lines, ("app-dup-id-replaced",))
    return None


def _unended(case: Case, records: Sequence[Mapping[str, Json]]) -> list[Mapping[str, Json]]:
    """Accepted attempts of controllers whose links' ends are not on record, oldest first."""
    accepted = [
        record
        for record in records
        if record.get("status") == 101 and record.get("controller")
        and not str(record["controller"]).startswith(PROBE_ID_PREFIX)
    ]  # fmt: skip
    for link in links(case):
        own = [r for r in accepted if r["controller"] == link.controller]
        began = min(own, key=lambda r: abs(r["at"] - link.began), default=None)
        if began is not None and abs(began["at"] - link.began) <= 2.0:
            accepted.remove(began)
    return accepted


def _established(case: Case, peer: str) -> bool:
    return any(
        entry.get("peer") == peer and entry.get("state") in ("ESTAB", "ESTABLISHED")
        for piece in case.all("net.sockets")
        for entry in piece.facts.get("sockets", [])
    )


# --- Refusals ----------------------------------------------------------------------------------


def _rate_lockout(case: Case) -> Match | None:
    def by_us(a: Attempt) -> bool:
        return a.code == "rate-limited" or (a.status == 429 and a.by != "nginx")

    found = limited(case, by_us)
    if found is not None:
        seen, alone = found
        limits = service_config(case, "limits")
        lines = [seen.reason] if seen.reason else []
        said_so = [] if seen.code else logged(case, "rate-limited")
        lines += [f"The log: {said_so[-1]['text'][:160]}"] if said_so else []
        if limits and seen.code:
            lines.append(f"limits.failures_per_minute is {limits.get('failures_per_minute')}, "
                         "connections_per_address "
                         f"{limits.get('connections_per_address')}.")  # fmt: skip
        if _all_from_loopback(case):
            alone = False
        return match(
            seen,
            STRONG if alone else LIKELY,
            *lines,
            ruled_out=("px-limit-req", "fw-ufw-limit-lockout"),
        )
    hits = ending(case, lambda link: _too_often(link.close_sent))
    if hits:
        return Match(STRONG, (hits[-1].shown(),), ("px-limit-req",))
    told = ends_told(case, "rate-limited")
    if told is not None:
        shown = (told[0][-1].shown(), f"The log: {told[1]['text'][:160]}")
        return Match(STRONG, shown, ("px-limit-req",))
    # A probe has a limit of its own: that it was closed so says it of everybody of its address.
    for piece in (*case.all("ws.close"), *case.all("link.local")):
        facts = piece.facts
        if _too_often((facts.get("code"), str(facts.get("reason") or ""))):
            said_so = logged(case, "rate-limited")
            lines = [f"{piece.vantage}: {piece.seen}"]
            lines += [f"The log: {said_so[-1]['text'][:160]}"] if said_so else []
            return Match(STRONG if said_so else LIKELY, tuple(lines), ("px-limit-req",))
    return None


def _too_often(close: tuple[Json, str] | None) -> bool:
    """Whether a closing frame tells its receiver to try less often, by its code or in words."""
    return close is not None and (close[0] == _TRY_AGAIN_LATER or bool(_TOO_MANY.search(close[1])))


def _handler_exception(case: Case) -> Match | None:
    log = logged(case, "handler-failed", "traceback")
    hits = ending(
        case,
        lambda link: bool(
            link.close_sent and link.close_sent[0] == 1011 and "ping" not in link.close_sent[1]
        ),
    )
    if not hits and _dependency(case) is None:
        ended = ends_told(case, "handler-failed")
        seen = failing(case, lambda a: a.status == 500 and a.by == "backend")
        if ended is not None or (seen is not None and log):
            lines = [ended[0][-1].shown()] if ended is not None else []
            lines.append(f"The log: {(ended[1] if ended is not None else log[-1])['text'][:160]}")
            return match(seen, STRONG, *lines, ruled_out=("app-no-confirmation",))
    if not hits:
        told = [p for p in case.all("ws.close") if p.facts.get("code") == 1011
                and "ping" not in str(p.facts.get("reason") or "")]  # fmt: skip
        if not (told and log):
            return None
        return Match(LIKELY, (told[0].seen, f"The log: {log[-1]['text'][:160]}"))
    if _dependency(case) is not None:
        return None
    lines = [hits[-1].shown(), "1011 without the words 'ping timeout': a fault in the service."]
    lines += [f"The log: {log[-1]['text'][:160]}"] if log else []
    return Match(STRONG, tuple(lines), ("ws-ping-unanswered", "app-event-loop-blocked"))


def _backlogged(case: Case) -> list[Mapping[str, Json]]:
    """Sockets of the service whose received bytes it does not read."""
    port = service_config(case, "listen").get("port", 3000)
    return [
        entry
        for piece in case.all("net.sockets")
        for entry in piece.facts.get("sockets", [])
        if entry.get("local_port") == port and (entry.get("recv_q") or 0) > 0
        and entry.get("state") in ("ESTAB", "ESTABLISHED", "CLOSE-WAIT")
    ]  # fmt: skip


def _queued(case: Case) -> int:
    """Connections the service's listener has not accepted."""
    port = service_config(case, "listen").get("port", 3000)
    return max(
        (int(entry.get("queue") or 0) for entry in case.fact("net.listeners", "listeners") or []
         if entry["port"] == port), default=0,
    )  # fmt: skip


def _nobody_runs(case: Case) -> bool:
    """Whether systemd alone holds the port: what waits there waits for a start."""
    port = service_config(case, "listen").get("port", 3000)
    listeners = case.fact("net.listeners", "listeners") or []
    held = {entry.get("process") for entry in listeners if entry["port"] == port}
    return held == {"systemd"}


def _loop_blocked(case: Case) -> Match | None:
    looping = any(
        piece.facts.get("unit") == "ptslink.service"
        and piece.facts.get("active") in ("activating", "failed")
        for piece in case.all("host.unit")
    )
    if looping or _nobody_runs(case):
        return None  # what hangs runs; what restarts over and over does not hang
    stuck, queued = _backlogged(case), _queued(case)
    hang = failing(case, lambda a: a.event("header-timeout") is not None)
    mute = [
        piece
        for piece in case.all("link.local")
        if piece.facts.get("hop") == "service" and piece.facts.get("ended") == "timeout"
    ]
    configured = timers(case)
    unpinged = [
        link
        for link in current(case)
        if link.event("upgraded-timeout") is not None
        and configured.ping_interval
        and configured.proxy_read
        and configured.ping_interval < configured.proxy_read
    ]
    told = logged(case, "loop-blocked")
    by_sockets = bool(stuck and (hang or mute or unpinged))
    if not (by_sockets or told or (unpinged and hang)):
        return None
    lines = []
    if stuck:
        lines.append(f"{len(stuck)} of its sockets hold bytes that it does not read "
                     f"(Recv-Q up to {max(e['recv_q'] for e in stuck)}).")  # fmt: skip
    lines += [f"{queued} connections wait to be accepted."] if queued else []
    if unpinged:
        lines.append(f"nginx cut a link after {configured.proxy_read:g} s without a byte, "
                     "though the "
                     f"service should ping every {configured.ping_interval:g} s.")  # fmt: skip
    lines += [f"Asked directly, the service does not answer: {mute[0].seen}"] if mute else []
    lines += [f"The log: {told[-1]['text'][:160]}"] if told else []
    out = ("px-read-timeout-60", "px-upstream-timeout", "ws-ping-unanswered", "tcp-port-taken")
    return match(hang, STRONG, *lines, ruled_out=out)


def _first_message(case: Case) -> Match | None:
    for probe in ("ws.ping", "ws.idle", "ws.greeting"):
        for piece in case.all(probe):
            texts = piece.facts.get("unasked") or []
            foreign = [text for text in texts if not _is_json_pts(str(text))]
            if foreign:
                lost = [link for link in current(case) if link.lost and link.seconds <= 1.5]
                lines = [f"Before anything was asked, the server sent: {str(foreign[0])[:100]!r}"]
                lines += [lost[-1].shown()] if lost else []
                return Match(STRONG, tuple(lines), ("px-header-case", "hs-bad-accept"))
    return None


def _is_json_pts(text: str) -> bool:
    """Whether a message, of which only the beginning may be there, is jsonPTS."""
    return re.match(r'\s*\{.*"Protocol"\s*:\s*"jsonPTS"', text, re.DOTALL) is not None


def _no_confirmation(case: Case) -> Match | None:
    hits = ending(
        case,
        lambda link: (
            (link.messages_in or 0) >= 2
            and link.messages_out == 0
            and link.code != ""
            # 1011 says why.
            and not (link.close_sent and link.close_sent[0] == 1011)
        ),
    )
    journal = case.fact("service.live", "health") or {}
    state = journal.get("journal") if isinstance(journal, dict) else None
    if isinstance(state, dict) and state.get("ok") is False:
        return None  # withheld on purpose: the journal cannot store
    for piece in case.all("ws.confirm"):
        if piece.facts.get("confirmed") is False:
            return Match(STRONG, (piece.seen,), ("app-dependency-down",))
    if not hits:
        return _mute(case)
    periods = [b.at - a.at for a, b in itertools.pairwise(hits)]
    lines = [hits[-1].shown(), f"{hits[-1].messages_in} messages came, none was answered."]
    lines += [f"It comes back every {periods[-1]:.1f} s with the same."] if periods else []
    return Match(STRONG, tuple(lines), ("app-handler-exception",))


#: No confirmation is so short; some pings behind the 101 are.
_BELOW_CONFIRMATION = 40
#: A request's head is shorter, with a message of a controller's it is longer.
_MESSAGE_BYTES = 1000
#: Several messages, of which each is to be confirmed.
_MANY_BYTES = 8000


def _head_bytes(case: Case, hop: str) -> int | None:
    """How long the head of a 101 is that comes from nginx or from the service itself."""
    for piece in case.all("link.local"):
        if piece.facts.get("hop") == hop and piece.facts.get("status") == 101:
            fields = piece.facts.get("headers") or {}
            lines = ["HTTP/1.1 101 Switching Protocols", *(f"{k}: {v}" for k, v in fields.items())]
            return len("\r\n".join(lines)) + 4
    return None


def _mute(case: Case) -> Match | None:
    """Open links bring messages, and nothing goes the other way but the 101."""
    head = _head_bytes(case, "service")
    if head is None:
        return None
    port = service_config(case, "listen").get("port", 3000)
    open_now = [
        entry
        for piece in case.all("net.sockets")
        for entry in piece.facts.get("sockets", [])
        if entry.get("local_port") == port and entry.get("state") in ("ESTAB", "ESTABLISHED")
        and (entry.get("bytes_received") or 0) >= _MESSAGE_BYTES and not entry.get("recv_q")
        and entry.get("bytes_sent") is not None
    ]  # fmt: skip
    silent = [one for one in open_now if one["bytes_sent"] < head + _BELOW_CONFIRMATION]
    most_passed = (_head_bytes(case, "nginx") or head) + _BELOW_CONFIRMATION
    hits = unrecorded(case, lambda link: link.passed is None or link.passed < most_passed)
    # What came this moment may be answered in the next.
    steady = any(
        int(one["bytes_received"]) >= _MANY_BYTES and one.get("last_received_ms", 1000) >= 50
        for one in silent
    )
    if not silent or len(silent) < len(open_now) or not (hits or steady):
        return None
    most = max(silent, key=lambda one: int(one["bytes_received"]))
    lines = [*(link.shown() for link in hits[-1:]),
             f"{len(silent)} open links brought messages (up to {most['bytes_received']} bytes); "
             "the server has read them and said nothing but 101 "
             f"({most['bytes_sent']} bytes, {head} of them its head)."]  # fmt: skip
    return Match(STRONG, tuple(lines), ("app-handler-exception",))


def _no_ws_library(case: Case) -> Match | None:
    log = logged(case, "no-websocket-library")
    if not log:
        return None
    seen = failing(case, lambda a: a.status in (404, 400, 426) and a.by != "nginx")
    return match(seen, CERTAIN, f"The log: {log[-1]['text'][:160]}", ruled_out=("hs-wrong-path",))


def _wrong_worker(case: Case) -> Match | None:
    port = service_config(case, "listen").get("port", 3000)
    pids: set[int] = set()
    for piece in case.all("net.listeners"):
        for entry in piece.facts.get("listeners", []):
            if entry["port"] == port and entry.get("process") not in ("nginx", "systemd", None):
                pids |= set(entry.get("workers") or [entry["pid"]])
    if len(pids) < 2:
        return None
    line = f"Port {port} is served by {len(pids)} processes ({', '.join(map(str, sorted(pids)))})."
    return Match(STRONG, (line, "Each knows only its own controllers."))


# --- Who is calling ----------------------------------------------------------------------------


def _loopback(address: str | None) -> bool:
    try:
        return address is not None and ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _all_from_loopback(case: Case) -> bool:
    return _ip_trust_lines(case) is not None


def _ip_trust_lines(case: Case) -> list[str] | None:
    """What shows that the service takes the proxy for the caller."""
    outside = {
        str(line.get("client"))
        for piece in case.all("nginx.access")
        for line in piece.facts["lines"]
        if line.get("controller")
        and not _loopback(line.get("client"))
        # The doctor dials this machine's own address, too.
        and not str(line["controller"]).startswith(PROBE_ID_PREFIX)
    } | _on_nginx(case)
    behind: list[Mapping[str, Json]] = [
        record
        for piece in case.all("service.records")
        for record in piece.facts.get("attempts", [])
        if record.get("controller") and not str(record["controller"]).startswith(PROBE_ID_PREFIX)
    ][-50:]
    if not behind:
        return None
    peers = {str(record.get("peer")) for record in behind}
    headers = _headers(behind[-1])
    told = headers.get("x-real-ip") or headers.get("x-forwarded-for")
    if outside and len(peers) == 1 and _loopback(next(iter(peers))):
        named = "no X-Real-IP" if not told else f"X-Real-IP {told}, which is not believed"
        return [f"nginx sees callers from {len(outside)} addresses, the service only "
                f"{peers.pop()}.",
                f"nginx sends {named}."]  # fmt: skip
    real = headers.get("x-real-ip")
    if real and len(peers) == 1 and real not in peers and not behind[-1].get("proxy"):
        peer = next(iter(peers))
        return [f"Every caller seems to be {peer}, a proxy that says X-Real-IP {real}.",
                "listen.trusted_proxies does not name it."]  # fmt: skip
    return None


def _on_nginx(case: Case) -> set[str]:
    """Callers from outside who are connected to nginx where it passes the link on."""
    place = link_location(case)
    ports = {entry["port"] for entry in place[0]["listen"]} if place else set()
    return {
        str(entry["peer"])
        for piece in case.all("net.sockets")
        for entry in piece.facts.get("sockets", [])
        if entry.get("local_port") in ports and not _loopback(entry.get("peer"))
        and entry.get("state") in ("ESTAB", "ESTABLISHED")
    }  # fmt: skip


def _headers(record: Mapping[str, Json]) -> dict[str, str]:
    headers = record.get("headers") or []
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return {str(pair[0]).lower(): str(pair[1]) for pair in pairs}


def _ip_trust(case: Case) -> Match | None:
    lines = _ip_trust_lines(case)
    if lines is None:
        return None
    place = link_location(case)
    fix = None
    if place and "x-real-ip" not in place[1]["settings"]["set_header"]:
        lines.append(f"{where(*place)} sets no X-Real-IP header.")
        fix = Fix("Set proxy_set_header X-Real-IP $remote_addr; in the location of the link.",
                  "The service's records name the callers' own addresses.", Auto.YES,
                  PROVISION_NGINX)  # fmt: skip
    hit = limited(case, lambda a: a.code == "rate-limited")
    if hit is not None:
        lines.append("A limit per address now hits everybody at once.")
    return Match(STRONG if hit else LIKELY, tuple(lines), ("app-rate-lockout",), fix)


# --- Stops -------------------------------------------------------------------------------------


def _no_graceful_stop(case: Case) -> Match | None:
    started = [
        (float(piece.facts["started"]), piece.facts)
        for piece in case.all("host.unit")
        if piece.facts.get("unit") == "ptslink.service" and piece.facts.get("started")
    ]
    for start, facts in started:
        if facts.get("result") in (
            "oom-kill",
            "exit-code",
            "core-dump",
            "start-limit-hit",
            "watchdog",
        ):
            continue
        grace = float(facts.get("stop_timeout") or 10.0)
        before = [
            link
            for link in links(case)
            if link.began < start - 0.5
            # The next start sets down the ends of links that nobody could record.
            and -(3.0 if link.code == "ended-unclean" else 0.5) <= start - link.at <= grace
            and (link.lost or not link.code)
        ]
        polite = [
            link
            for link in links(case)
            if -0.5 <= start - link.at <= grace + 30
            and link.close_sent
            and link.close_sent[0] in (1001, 1012)
        ]
        if not before or polite:
            continue
        nginx = case.fact("nginx.process", "started")
        if nginx is not None and abs(float(nginx) - start) <= 6.0:
            continue
        lines = [before[-1].shown(),
                 f"{len(before)} links ended within {start - before[0].at:.1f} s of the "
                 "service's own restart,",
                 "none with the closing frame 1012 that a graceful stop sends."]  # fmt: skip
        lines += [f"The unit's last result is {facts['result']}."] if facts.get("result") else []
        return Match(
            STRONG, tuple(lines), ("px-restart", "px-reload-shutdown", "host-auto-upgrade")
        )
    return None


def _dependency(case: Case) -> Match | None:
    health = case.fact("service.live", "health")
    journal = health.get("journal") if isinstance(health, dict) else None
    lines: list[str] = []
    if isinstance(journal, dict) and journal.get("ok") is False:
        lines.append(f"The service cannot store records: {journal.get('reason')}.")
    failed, mended = _events(case, "journal-failing"), _events(case, "journal-recovered")
    if failed and (not mended or mended[-1]["at"] < failed[-1]["at"]) and not lines:
        lines.append(
            f"The service's record: {failed[-1].get('message') or failed[-1].get('reason')}"
        )
    log = logged(case, "dependency")
    ended = ends_told(case, "dependency")
    seen = failing(case, lambda a: a.status == 500 and a.by != "nginx")
    hit = ending(case, lambda link: bool(link.close_sent and link.close_sent[0] == 1011
                                         and "ping" not in link.close_sent[1]))  # fmt: skip
    if not lines and not (log and (seen or hit or ended)):
        return None
    lines += [ended[0][-1].shown()] if ended else []
    lines += [f"The log: {log[-1]['text'][:160]}"] if log else []
    return match(
        seen,
        STRONG if lines else LIKELY,
        *lines,
        ruled_out=("app-handler-exception", "app-no-confirmation"),
    )


# --- Messages of unknown senders ---------------------------------------------------------------

_NAMELESS = ("no-controller-id", "not-jsonpts")
_TOO_MANY_NEW = "too-many-new-controllers"


def _refused_messages(case: Case) -> Match | None:
    """Messages that the service answered with an error because of who sent them."""
    refused: dict[tuple[str, str], int] = {}
    for event in _events(case, *_NAMELESS, _TOO_MANY_NEW):
        sender = (str(event["peer"]) or "this machine", str(event["code"]))
        refused[sender] = refused.get(sender, 0) + 1
    health = case.fact("service.live", "health")
    told = health.get("refused_messages") if isinstance(health, dict) else None
    for one in told["addresses"] if told else ():
        sender = (str(one["address"]) or "this machine", str(one["reason"]))
        refused[sender] = max(refused.get(sender, 0), int(one["messages"]))
    if not refused:
        return None
    worst = sorted(refused.items(), key=lambda item: -item[1])[:5]
    lines = [f"{address}: {count} messages, {code}" for (address, code), count in worst]
    fix = None
    if worst[0][0][1] == _TOO_MANY_NEW:
        limits = service_config(case, "limits")
        now = int(limits.get("new_controllers_per_address") or 0)
        fix = Fix(
            "If these are your controllers, let more new ones in from one address a day; they "
            "keep their records meanwhile and send them again.",
            "Uploads of the new controllers are confirmed.",
            Auto.ASK,
            ansible={
                "pts_server_settings": {
                    "limits": {"new_controllers_per_address": max(500, 2 * now)}
                }
            },
        )
    return Match(STRONG, tuple(lines), ("app-no-confirmation",), fix)


_CODE = "It is a fault in the program: send the maintainers the output of scripts/bundle."

CAUSES: tuple[Cause, ...] = (
    Cause(
        "app-dup-id-replaced",
        Layer.APPLICATION,
        "Two controllers share one id and replace each other",
        Fix(
            "Give each controller its own id: find the clone by the addresses above.",
            "Each id has one steady link.",
            Auto.NO,
            controller="The unit whose configuration was restored from the other's backup",
        ),
        _duplicate_id,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "app-ghost-blocks",
        Layer.APPLICATION,
        "A dead old link keeps the controller from coming back",
        Fix(
            "Let the newest link of an id replace the older one (ptslink does so).",
            "A returning controller is accepted at once.",
            Auto.YES,
            (("systemctl", "restart", "ptslink"),),
        ),
        _ghost_blocks,
        # The dead link itself is seen as well, once its bytes have been sent again a few times.
        (*RETRY_AFTERMATH, "tcp-half-open-ghost"),
    ),
    Cause(
        "app-late-cleanup",
        Layer.APPLICATION,
        "A connected controller is missing from the registry",
        Fix(
            "Restart the service; " + _CODE,
            "Every established link is listed as a controller.",
            Auto.ASK,
            (("systemctl", "restart", "ptslink"),),
        ),
        _late_cleanup,
    ),
    Cause(
        "app-rate-lockout",
        Layer.APPLICATION,
        "The service's own limit keeps refusing the controller",
        Fix(
            "Put the controller on the allow-list (known ones are never limited), or raise the "
            "limit.",
            "The upgrade is answered with 101.",
            Auto.YES,
            PROVISION_SERVER,
            {
                "pts_server_settings": {
                    "limits": {"failures_per_minute": 600, "connections_per_address": 1000}
                }
            },
        ),
        _rate_lockout,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "app-handler-exception",
        Layer.APPLICATION,
        "The service fails on a message",
        Fix(_CODE, "The same message is confirmed.", Auto.ASK, (journal("ptslink", lines=200),)),
        _handler_exception,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "app-event-loop-blocked",
        Layer.APPLICATION,
        "The service hangs: its event loop is blocked",
        Fix(
            "Restart the service to get the station going, and find what it waits for.",
            "Recv-Q of its sockets is 0, handshakes are answered at once.",
            Auto.ASK,
            (
                ("systemctl", "show", "-P", "MainPID", "ptslink"),
                ("py-spy", "dump", "--pid", "PID"),
                ("systemctl", "restart", "ptslink"),
            ),
        ),
        _loop_blocked,
        (
            *RETRY_AFTERMATH,
            "px-read-timeout-60",
            "px-upstream-timeout",
            "ws-ping-unanswered",
            "tcp-accept-queue-full",
        ),
    ),
    Cause(
        "app-first-message",
        Layer.APPLICATION,
        "The server greets with something that is not jsonPTS",
        Fix(
            "Send nothing that was not asked for (ptslink does not); see who else answers here.",
            "Nothing arrives before the controller's first message.",
            Auto.ASK,
        ),
        _first_message,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "app-no-confirmation",
        Layer.APPLICATION,
        "Uploads are not confirmed",
        Fix(
            "Confirm each packet with its own Id and Type. ptslink does; " + _CODE,
            "The controller's page shows both marks green: connected, and answered.",
            Auto.ASK,
        ),
        _no_confirmation,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "app-no-ws-library",
        Layer.APPLICATION,
        "The server program has no WebSocket library",
        Fix(
            "Install one for it: pip install 'uvicorn[standard]'; or put ptslink in its place.",
            "The upgrade is answered with 101.",
            Auto.YES,
            PROVISION_SERVER,
        ),
        _no_ws_library,
        RETRY_AFTERMATH,
    ),
    Cause(
        "app-wrong-worker",
        Layer.APPLICATION,
        "Several workers, each with its own registry",
        Fix(
            "Run one process a port (ptslink does), or send each id always to the same one.",
            "One process listens on the port.",
            Auto.YES,
            (("systemctl", "restart", "ptslink"),),
        ),
        _wrong_worker,
    ),
    Cause(
        "app-proxy-ip-trust",
        Layer.APPLICATION,
        "The service takes its proxy for the caller",
        Fix(
            "Name the proxy in listen.trusted_proxies, and let it send X-Real-IP.",
            "The service's records name the callers' own addresses.",
            Auto.YES,
            PROVISION_SERVER,
            {"pts_server_settings": {"listen": {"trusted_proxies": ["PROXY_ADDRESS"]}}},
        ),
        _ip_trust,
        ("app-rate-lockout", "fw-fail2ban-ban"),
    ),
    Cause(
        "app-no-graceful-stop",
        Layer.APPLICATION,
        "A restart drops links without a closing frame",
        Fix(
            "Stop with SIGTERM and give it time: remove drop-ins that change KillSignal or the "
            "timeout.",
            "At the next restart links end with 1012.",
            Auto.YES,
            PROVISION_SERVER,
        ),
        _no_graceful_stop,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "app-dependency-down",
        Layer.APPLICATION,
        "What the service depends on is down",
        Fix(
            "Bring it back (for ptslink: the journal's disk and file), then see the records "
            "arrive.",
            "GET /health says ok; uploads are confirmed.",
            Auto.ASK,
            (
                ("curl", "-s", "http://127.0.0.1:9180/health"),
                ("df", "-h", "/var/lib/ptslink"),
                ("ls", "-l", "/var/lib/ptslink"),
            ),
        ),
        _dependency,
        ("app-handler-exception", "app-no-confirmation"),
    ),
    Cause(
        "app-messages-refused",
        Layer.APPLICATION,
        "Messages are refused because no known controller sends them",
        Fix(
            "Find out who uses the addresses above. A controller names itself by X-Pts-Id or "
            "PtsId: update the firmware of one that does neither. Shut out anybody else at the "
            "firewall.",
            "Health shows no more refused messages.",
            Auto.NO,
        ),
        _refused_messages,
    ),
)
