"""Causes in forwards and in memories of connections: NAT, conntrack, half-open connections."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.reach import Connect, Reach, lines, listed, reach_of
from ptslink.doctor.evidence import Case
from ptslink.doctor.pattern import Link, current, ending, timers

#: A conntrack table this full drops new connections (share of its maximum).
_FULL = 0.98


def _foreign_banner(case: Case) -> str | None:
    """What a machine said unasked: a forecourt server never speaks first."""
    for piece in case.all("tcp.banner"):
        text = str(piece.facts.get("text") or "")
        if text and not text.startswith("HTTP/"):
            return text.splitlines()[0][:60]
    return None


def _forward_wrong_host(case: Case) -> Match | None:
    reach = reach_of(case)
    first = next((one for one in reach.site if one.errno is None), None)
    if first is None:
        return None
    banner = _foreign_banner(case)
    server = case.fact("http.get", "server") or _server_header(case)
    elsewhere = reach.nothing_arrived
    if not elsewhere and banner is None:
        return None
    if not elsewhere and reach.watch is not None:
        return None  # it is our machine that spoke
    address_ours = not reach.server_addresses or reach.is_server(first.address)
    if elsewhere and not address_ours and not reach.target_is_name and not _maybe_nat(reach, first):
        return None  # the address itself is another machine's
    return Match(
        STRONG if elsewhere else LIKELY,
        lines(
            str(first),
            f"what answers says: {banner}" if banner else None,
            f"what answers calls itself {server}" if server else None,
            "server: not one of these connections reached its network card" if elsewhere else None,
            "the address dialled is the server's own: something on the way sends it elsewhere"
            if elsewhere and reach.server_addresses and address_ours
            else None,
        ),
        ruled_out=("px-location-404", "hs-wrong-path", "tcp-service-down", "px-default-server"),
    )


def _server_header(case: Case) -> str | None:
    headers = case.fact("http.upgrade", "headers") or {}
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return next((str(value) for name, value in pairs if str(name).lower() == "server"), None)


def _maybe_nat(reach: Reach, first: Connect) -> bool:
    return ip_address(first.address.partition("%")[0]).is_global and not any(
        ip_address(one).is_global for one in reach.server_addresses
    )


def _forward_missing(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("ETIMEDOUT", "ECONNREFUSED", "EHOSTUNREACH")
    if failed is None or not reach.server_addresses or reach.is_server(failed.address):
        return None
    if reach.watch is not None and reach.syns(failed.port):
        return None
    source = case.fact("route.to", "source", failed.vantage) or case.fact(
        "tcp.connect", "source", failed.vantage
    )
    inside = bool(source) and _same_lan(case, str(source))
    if inside and (reach.connects_elsewhere or reach.nothing_arrived):
        return Match(
            STRONG,
            lines(
                str(failed),
                f"site: its own address {source} is in the server's own network",
                f"server: its addresses are {listed(sorted(reach.server_addresses))}, not the one "
                "dialled",
                next((str(one) for one in reach.elsewhere if one.errno is None), None),
            ),
            ruled_out=("l3-wrong-server-ip", "fw-ufw-drop", "tcp-service-down"),
        )
    if _maybe_nat(reach, failed) and reach.nothing_arrived and not reach.connects_elsewhere:
        return Match(
            LIKELY,
            lines(
                str(failed),
                "server: it has private addresses only, so a router in front of it owns the "
                "address dialled",
                "server: not one of these attempts was sent on to it",
            ),
            ruled_out=("fw-ufw-drop", "tcp-service-down", "l3-wrong-server-ip"),
        )
    return None


def _same_lan(case: Case, source: str) -> bool:
    for one in case.fact("net.addresses", "addresses") or ():
        if one.get("scope") != "global":
            continue
        network = ip_network(f"{one['address']}/{one['prefix']}", strict=False)
        if network.version == ip_address(source).version and ip_address(source) in network:
            return True
    return False


# Memory of connections.


def _conntrack(case: Case) -> Match | None:
    facts = next((piece.facts for piece in case.all("net.conntrack")), {})
    count, most = facts.get("count"), facts.get("max")
    if not most or count is None:
        return None
    full = count / most >= _FULL
    told = facts.get("full_lines") or 0
    dropped = [piece.facts.get("dropped") or 0 for piece in case.all("net.conntrack")]
    growing = len(dropped) > 1 and dropped[-1] > dropped[0]
    if not full and not growing:
        return None
    reach = reach_of(case)
    if reach.site and reach.failed("ETIMEDOUT") is None and not growing:
        return None
    return Match(
        CERTAIN,
        lines(
            f"server: {count} of {most} connections tracked",
            f"server: {told} times 'table full, dropping packet' in the kernel log" if told
            else None,
            "new connections time out, old ones live",
        ),
        ruled_out=("fw-ufw-drop", "fw-upstream-drop", "l3-packet-loss",
                   "l3-asymmetric-stateful-fw"),
    )  # fmt: skip


def _reset_on_ping(link: Link) -> bool:
    """A link that was lost by a reset, in answer to a ping that came after a silence."""
    reset = link.transport == "rst" or link.event("upgraded-reset") is not None
    answered_ping = link.last_ping is not None and link.last_ping < 1.0
    unanswered = link.last_pong is None or link.last_pong > (link.last_ping or 0)
    return link.lost and reset and answered_ping and unanswered


def _nat_idle(case: Case) -> Match | None:
    configured = timers(case)
    hit = [link for link in current(case) if _reset_on_ping(link)]
    if not hit or not configured.ping_interval:
        return None
    reboots = [link for link in hit if link.types.get("UploadConfiguration")]
    last = hit[-1]
    silence = last.last_pong if last.last_pong is not None else last.seconds
    return Match(
        STRONG if len(hit) > 1 and not reboots else LIKELY,
        lines(
            *(link.shown() for link in hit[-3:]),
            f"the last ping was answered by a reset within {last.last_ping:.2f} s, after "
            f"{silence:.1f} s without traffic; a ping is sent every "
            f"{configured.ping_interval:g} s",
            "something on the way had forgotten the connection while it was silent; the "
            "controller was not told and believes itself connected",
        ),
        ruled_out=("tcp-half-open-ghost", "ws-device-idle-timeout", "px-read-timeout-60",
                   "ws-ping-unanswered"),
        fix=Fix(
            "Ping more often than the shortest memory on the way: below "
            f"{silence:.0f} s of silence, for example every {max(2, int(silence / 2))} s.",
            "No more resets in answer to a ping; links live for days.",
            Auto.YES,
            ansible={"pts_server_ping_interval_seconds": max(2, int(silence / 2))},
        ),
    )  # fmt: skip


def _ghost_sockets(case: Case) -> list[Mapping[str, Any]]:
    """Connections with unacknowledged bytes that are sent again and again."""
    return [
        one
        for one in case.fact("net.sockets", "sockets") or ()
        # A socket in LAST-ACK has heard the other side's FIN: that one said goodbye.
        if one["state"] in ("ESTAB", "FIN-WAIT-1")
        and one["send_q"] > 0
        and one["timer"] == "on"
        and one.get("backoff", 0) >= 2
        and one["send_q"] < max(one.get("mss") or 0, 500)
    ]


def _ghost(case: Case) -> Match | None:
    sockets = _ghost_sockets(case)
    timed_out = [link for link in current(case) if link.code == "ping-timeout"]
    vanished = ending(case, lambda link: link.vanished)
    # Scanners of the Internet vanish all day long: it has to be a controller's address.
    sites = reach_of(case).known_peers | {link.peer for link in timed_out}
    sockets = [one for one in sockets if one["peer"].removeprefix("::ffff:") in sites]
    if not sockets and not vanished:
        return None
    configured = timers(case)
    cycle = (configured.ping_interval or 0) + (configured.ping_timeout or 0)
    peers = sorted({f"{one['peer']}:{one['peer_port']}" for one in sockets})
    first = sockets[0] if sockets else None
    pings_on = bool(configured.ping_interval and configured.ping_timeout)
    return Match(
        STRONG if vanished or (timed_out and first) else LIKELY,
        lines(
            f"server: to {listed(peers)}: {first['state']}, {first['send_q']} bytes never "
            f"acknowledged, sent again with backoff {first.get('backoff')}"
            if first
            else "it answered pings until then, and never the closing frame",
            *(link.shown() for link in (timed_out or vanished)[-2:]),
            f"pings unanswered for {cycle:g} s (ping interval and timeout) end such a link"
            if cycle and timed_out
            else None,
            "the other side's kernel is silent too, so it lost power or its network; a controller "
            "that only ignores pings would still acknowledge them",
        ),
        ruled_out=("ws-ping-unanswered", "nat-idle-silent", "ws-device-idle-timeout"),
        fix=_LOOK_AT_SITE if pings_on else None,
    )


_LOOK_AT_SITE = Fix(
    "Look at power and network of the site. The server does its part: it pings, and lets a new "
    "connection of the same controller replace the old one.",
    "The controller comes back by itself.",
)


CAUSES: tuple[Cause, ...] = (
    Cause(
        "nat-forward-wrong-host",
        Layer.TCP,
        "A port forward leads to another machine",
        Fix(
            "Correct the target of the port forward in the router before the server.",
            "A connection from the site reaches the server's network card, and ptslink answers.",
            Auto.NO,
        ),
        _forward_wrong_host,
        aftermath=(
            "tls-client-to-plain-port",
            "px-location-404",
            "hs-wrong-path",
            "px-default-server",
            "px-captive-portal",
        ),
    ),
    Cause(
        "nat-forward-missing-or-hairpin",
        Layer.TCP,
        "The router before the server does not forward the port, or not for its own inside",
        Fix(
            "Add the port forward; for devices in the server's own network add hairpin NAT, or "
            "let the name resolve to the inside address there.",
            "The port answers from where the controller stands.",
            Auto.NO,
            controller="RemoteServerConfiguration: IpAddress = the server's inside address, for "
            "controllers in its own network",
        ),
        _forward_missing,
    ),
    Cause(
        "tcp-conntrack-full",
        Layer.TCP,
        "The table of tracked connections is full: new ones are dropped",
        Fix(
            "Raise the limit, then find who fills the table.",
            "count stays well below max and new connections are made at once.",
            Auto.YES,
            commands=(("sysctl", "-w", "net.netfilter.nf_conntrack_max=262144"),),
        ),
        _conntrack,
    ),
    Cause(
        "nat-idle-silent",
        Layer.TCP,
        "A NAT or firewall on the way forgets the connection while it is silent",
        Fix(
            "Ping more often than the shortest memory on the way.",
            "No more resets in answer to a ping.",
            Auto.YES,
            ansible={"pts_server_ping_interval_seconds": 15},
        ),
        _nat_idle,
    ),
    Cause(
        "tcp-half-open-ghost",
        Layer.TCP,
        "The controller vanished without a word: power or network lost",
        Fix(
            "Keep the server's pings on, so that a dead link is found within interval and "
            "timeout, and let a new connection of the same controller replace the old one. Look "
            "at power and network of the site.",
            "The dead connection is closed after ping interval plus timeout; the controller comes "
            "back by itself.",
            Auto.YES,
            ansible={
                "pts_server_ping_interval_seconds": 20,
                "pts_server_ping_timeout_seconds": 20,
            },
        ),
        _ghost,
        aftermath=("ws-ping-unanswered",),
    ),
)
