"""Causes between two addresses: links, routes, packet sizes, losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.reach import AT_ONCE_MS, LOST_SYN_MS, Reach, lines, listed, reach_of
from ptslink.doctor.evidence import Case, Evidence, Status

_SITE_ONLY = ("fw-upstream-drop", "fw-site-egress-block", "fw-ufw-drop", "tcp-service-down")


def _links(case: Case) -> list[Evidence]:
    return [piece for piece in case.all("route.links") if piece.vantage != "server"]


def _device_offline(case: Case) -> Match | None:
    for piece in _links(case):
        names = [one["name"] for one in piece.facts.get("interfaces", ()) if one["up"]]
        if piece.facts.get("interfaces") is not None and not names:
            return Match(
                CERTAIN,
                lines(
                    f"{piece.vantage}: no network interface has a link ({piece.seen})",
                    "nothing can leave this place, whatever the server does",
                ),
                ruled_out=("l3-device-no-default-route", "dns-resolver-unreachable", *_SITE_ONLY),
            )
    return _silent_site(case)


def _silent_site(case: Case) -> Match | None:
    """Server only: a site that was asked for is known, and nothing of it arrives any more."""
    reach = reach_of(case)
    if reach.site or reach.watch is None:
        return None
    asked = {piece.facts["peer"] for piece in case.all("net.route_to") if piece.status is Status.OK}
    seen = {source for source, ports in reach.watch.get("syn_in", {}).items() if ports}
    sockets = case.fact("net.sockets", "sockets") or ()
    linked = {one["peer"] for one in sockets if one["state"] == "ESTAB"}
    silent = asked & reach.known_peers - seen - linked
    if not silent or not (seen | linked) - asked:
        return None
    return Match(
        LIKELY,
        lines(
            f"server: no packet from {listed(sorted(silent))} in {reach.watch['seconds']:g} s "
            "and no connection of it left",
            f"server: other sites are there ({listed(sorted((seen | linked) - asked))})",
        ),
        ruled_out=("tcp-service-down", "fw-ufw-drop"),
    )


def _no_default_route(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("ENETUNREACH")
    if failed is None or failed.ms > AT_ONCE_MS:
        return None
    if any(one.errno != "ENETUNREACH" for one in reach.site):
        return None  # a family without a way out beside one that has it
    ways = list(case.all("route.to", failed.vantage))
    missing = [piece for piece in ways if piece.facts.get("default") is False]
    if ways and not missing:
        return None
    return Match(
        CERTAIN if missing else LIKELY,
        lines(
            f"{failed}: the kernel here knows no way, it sent nothing",
            f"{failed.vantage}: no default route" if missing else None,
        ),
        ruled_out=("l3-device-wrong-gateway", "l3-device-offline", *_SITE_ONLY),
    )


def _hop(case: Case, vantage: str, *, gateway: bool) -> Evidence | None:
    for piece in case.all("route.neighbour", vantage):
        if bool(piece.facts.get("gateway")) is gateway:
            return piece
    return None


def _wrong_gateway(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("EHOSTUNREACH", "ETIMEDOUT")
    if failed is None or failed.ms < AT_ONCE_MS:
        return None
    hop = _hop(case, failed.vantage, gateway=True)
    if hop is not None:
        if hop.facts.get("state") != "silent":
            return None
        return Match(
            CERTAIN,
            lines(
                f"{failed}",
                f"{hop.vantage}: the gateway {hop.facts['address']} does not answer on its own "
                "network (ARP)",
            ),
            ruled_out=("fw-firewalld-reject", "l3-wrong-server-ip", *_SITE_ONLY),
        )
    if failed.errno != "EHOSTUNREACH" or _hop(case, failed.vantage, gateway=False) is not None:
        return None
    return Match(
        LIKELY,
        lines(
            f"{failed}",
            "an error of this kind after seconds is an unanswered ARP on the first hop; a "
            "firewall that rejects says so at once",
        ),
        ruled_out=("fw-firewalld-reject", "tcp-service-down"),
    )


def _wrong_server_ip(case: Case) -> Match | None:
    reach = reach_of(case)
    if reach.target_is_name or not reach.site or reach.leads_here_from_elsewhere:
        return None
    first = reach.site[0]
    near = _hop(case, first.vantage, gateway=False)
    if not reach.connected and near is not None and near.facts.get("state") == "silent":
        return Match(
            STRONG,
            lines(
                str(first),
                f"{near.vantage}: {first.address} should be on this very network, and nobody "
                "there has that address (ARP)",
                _addresses(reach),
            ),
            ruled_out=("l3-device-wrong-gateway", "fw-firewalld-reject", "tcp-service-down"),
        )
    if reach.server_addresses and not reach.is_server(first.address) and reach.nothing_arrived:
        behind_nat = _behind_nat(reach, first.address)
        return Match(
            LIKELY if behind_nat else STRONG,
            lines(
                str(first),
                _addresses(reach),
                "server: not one of these attempts reached its network card",
                "the server has private addresses only, so a router in front of it may own "
                "the address that was dialled"
                if behind_nat
                else None,
            ),
            ruled_out=()
            if behind_nat
            else ("nat-forward-wrong-host", "fw-upstream-drop", "fw-site-egress-block",
                  "tcp-service-down", "l3-mtu-blackhole"),
        )  # fmt: skip
    hop = _hop(case, first.vantage, gateway=True)
    slow = first.errno == "EHOSTUNREACH" and first.ms >= AT_ONCE_MS
    if not reach.connected and slow and hop is not None and hop.facts.get("state") == "answers":
        return Match(
            LIKELY,
            lines(
                str(first),
                f"{hop.vantage}: the gateway {hop.facts['address']} answers, so the last router "
                "asked for the address in vain",
                _addresses(reach),
            ),
            ruled_out=("l3-device-wrong-gateway", "fw-firewalld-reject"),
        )
    return None


def _addresses(reach: Reach) -> str | None:
    if not reach.server_addresses:
        return None
    return f"server: its addresses are {listed(sorted(reach.server_addresses))}"


def _behind_nat(reach: Reach, dialled: str) -> bool:
    """Whether a router in front of the server may own *dialled*: public against private."""
    from ipaddress import ip_address

    try:
        public = ip_address(dialled.partition("%")[0]).is_global
    except ValueError:
        return False
    return public and not any(ip_address(one).is_global for one in reach.server_addresses)


def _own_addresses(case: Case) -> str | None:
    """The server's addresses with their prefixes: a wrong one leaves it without a way."""
    found = [
        f"{one['address']}/{one['prefix']} on {one.get('interface') or 'an interface'}"
        for one in case.fact("net.addresses", "addresses") or ()
        if one.get("scope") == "global"
    ]
    if not found and case.first("net.addresses") is None:
        return None
    told = f"server: its addresses are {listed(found) or 'none but that of loopback'}"
    reach = reach_of(case)
    dialled = {one.address for one in reach.connects}
    missing = [one for one in dialled if not reach.is_server(one)]
    return told + (f", and {listed(missing)} is none of them" if missing else "")


#: What every interface carries (RFC 8200 5); below that, packets of the link are lost. Bytes.
_LEAST_MTU = 1280


def _interface_unfit(case: Case) -> Match | None:
    """The server's own interface cannot carry the link, whatever is right above it."""
    silent = [
        piece
        for piece in case.evidence
        if piece.status is Status.FAILED
        and (
            piece.facts.get("ended") == "timeout"
            or piece.facts.get("errno") in ("ETIMEDOUT", "EHOSTUNREACH")
        )
    ]
    used = {one.get("interface") for one in case.fact("net.addresses", "addresses") or ()} | {"lo"}
    odd = [
        f"server: {one['name']} {what}"
        for one in case.fact("net.addresses", "interfaces") or ()
        # One that is down may have lost its address as well.
        if one["name"] in used or used == {"lo"}
        for what in _unfit(one)
    ]
    if not silent or not odd:
        return None
    return Match(
        STRONG,
        (f"{silent[0].probe} from {silent[0].vantage}: {silent[0].seen}", *odd),
        ("fw-upstream-drop", "l3-mtu-blackhole", "l3-asymmetric-stateful-fw", "l3-no-return-route",
         "tcp-service-down", "app-event-loop-blocked", "px-upstream-timeout"),
    )  # fmt: skip


def _unfit(interface: Mapping[str, Any]) -> Iterator[str]:
    if not interface["up"]:
        yield "is down" + (" (loopback: nginx reaches the service by it)"
                           if interface["name"] == "lo" else "")  # fmt: skip
    if interface.get("arp") is False:
        yield "asks nobody for a hardware address (NOARP)"
    if (interface.get("mtu") or _LEAST_MTU) < _LEAST_MTU:
        yield f"has an MTU of {interface['mtu']} bytes"


def _no_return_route(case: Case) -> Match | None:
    reach = reach_of(case)
    blind = [
        piece
        for piece in case.all("net.route_to")
        if piece.facts.get("reachable") is False
    ]  # fmt: skip
    no_default = case.fact("net.routes", "default")
    unanswered = reach.unanswered(reach.port) if reach.port is not None else {}
    if reach.failed("ETIMEDOUT") is None and reach.site:
        return None
    grew = reach.grew("IpOutNoRoutes") or 0
    lost = [piece for piece in blind if piece.facts["peer"] in unanswered]
    if lost or (unanswered and grew > 0):
        return Match(
            CERTAIN,
            lines(
                f"server: {sum(unanswered.values())} SYN from {listed(unanswered)} arrived, no "
                "SYN-ACK left",
                *(f"server: the way back to {p.facts['peer']}: {p.facts['error']}" for p in lost),
                _own_addresses(case),
                f"server: {grew} packets had no route out in that time" if grew else None,
            ),
            ruled_out=("fw-ufw-drop", "fw-upstream-drop", "l3-rp-filter-asymmetric",
                       "l3-asymmetric-stateful-fw"),
        )  # fmt: skip
    if blind:
        return Match(
            LIKELY,
            lines(
                *(f"server: no way back to {p.facts['peer']}: {p.facts['error']}" for p in blind)
            ),
        )
    if no_default is not None and not no_default.get("ipv4") and reach.failed("ETIMEDOUT"):
        return Match(
            LIKELY,
            lines(
                str(reach.failed("ETIMEDOUT")),
                "server: no IPv4 default route: only its own network is answered",
            ),
        )
    return None


def _rp_filter(case: Case) -> Match | None:
    reach = reach_of(case)
    modes = case.fact("net.rp_filter", "interfaces") or {}
    strict = [name for name, value in modes.items() if value == 1]
    grew = reach.grew("TcpExtIPReversePathFilter")
    if reach.site and reach.failed("ETIMEDOUT") is None:
        return None
    unanswered = reach.unanswered(reach.port) if reach.port is not None else {}
    if grew and strict and (unanswered or not reach.site or reach.watch is None):
        return Match(
            CERTAIN if unanswered else LIKELY,
            lines(
                f"server: the reverse-path filter dropped {grew} packets while the link was tried",
                f"server: it is strict (1) on {listed(strict)}",
                f"server: SYN from {listed(unanswered)} arrived and got no answer"
                if unanswered
                else None,
            ),
            ruled_out=("fw-ufw-drop", "l3-no-return-route", "l3-asymmetric-stateful-fw",
                       "fw-upstream-drop"),
        )  # fmt: skip
    return None


def _asymmetric(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("ETIMEDOUT")
    if failed is None:
        return None
    syns, answers = reach.syns(failed.port), reach.answers(failed.port)
    both = {peer: n for peer, n in answers.items() if peer in syns}
    half_open = [
        one
        for one in case.fact("net.sockets", "sockets") or ()
        if one["state"] == "SYN-RECV" and one["local_port"] == failed.port
    ]
    if not both and not half_open:
        return None
    return Match(
        # A wrong TTL of the server's own looks the same.
        LIKELY,
        lines(
            str(failed),
            f"server: SYN arrived from {listed(syns)}; SYN-ACK left to {listed(both)}"
            if both
            else None,
            f"server: {len(half_open)} half-open connections (SYN-RECV) on port {failed.port}"
            if half_open
            else None,
            "the answer leaves the server and never reaches the site: it is cut on the way back",
        ),
        ruled_out=("fw-ufw-drop", "fw-upstream-drop", "l3-no-return-route",
                   "l3-rp-filter-asymmetric", "tcp-conntrack-full"),
    )  # fmt: skip


def _big_lost(case: Case) -> Evidence | None:
    """A step that carries a full-sized packet and died in silence after small ones went through."""
    for probe in ("tls.handshake", "ws.large", "http.large"):
        for piece in case.all(probe):
            silent = piece.facts.get("errno") == "ETIMEDOUT" or piece.facts.get("ended") == (
                "timeout"
            )
            # What did not even connect lost small packets.
            if piece.status is Status.FAILED and silent and piece.facts.get("at_bytes") != 0:
                return piece
    return None


def _stuck(case: Case) -> Mapping[str, Any] | None:
    """A connection that resends a full segment in vain while its peer is alive."""
    for one in case.fact("net.sockets", "sockets") or ():
        mss = one.get("mss") or 0
        if (
            one["state"] in ("ESTAB", "FIN-WAIT-1", "CLOSE-WAIT", "LAST-ACK", "CLOSING")
            and one.get("backoff", 0) >= 1
            and one.get("bytes_retrans", 0) >= mss // 2 > 0
            and one["send_q"] >= mss // 2
        ):
            return one  # type: ignore[no-any-return]
    return None


def _mtu(case: Case) -> Match | None:
    reach = reach_of(case)
    if reach.site and not reach.connected:
        return None
    lost, stuck = _big_lost(case), _stuck(case)
    if lost is None and stuck is None:
        return None
    if packet_loss(case) is not None:
        return None  # small packets are lost as well
    if lost is None and reach.site:
        # Seen from the server alone it may be a dead peer; here the peer is alive and well.
        return None
    # A silent TLS handshake has other reasons too; only the resent segment tells.
    silent = lost is not None and stuck is None and lost.probe == "tls.handshake"
    if silent and reach.server_seen and case.first("net.sockets") is not None:
        return None
    return Match(
        STRONG if lost is not None and stuck is not None else LIKELY,
        lines(
            f"{lost.vantage}: {lost.probe}: {lost.seen}" if lost is not None else None,
            "TCP connects and small answers come through" if reach.connected else None,
            f"server: to {stuck['peer']} {stuck.get('bytes_retrans')} bytes resent, "
            f"backoff {stuck.get('backoff')}, {stuck['send_q']} bytes without acknowledgement, "
            f"segments of {stuck.get('mss')}, path MTU believed {stuck.get('pmtu')}"
            if stuck is not None
            else None,
        ),
        ruled_out=("tls-record-too-large", "px-upstream-timeout", "tls-no-shared-cipher")
        if stuck is not None
        else (),
    )


def packet_loss(case: Case) -> Match | None:
    """Connections of which some came about only after their SYN was sent again."""
    reach = reach_of(case)
    tries = [
        (float(attempt["ms"]), attempt.get("errno"))
        for piece in case.all("tcp.again")
        for attempt in piece.facts.get("attempts", ())
    ]
    tries += [(one.ms, one.errno) for one in (*reach.site, *reach.other_ports)
              if one.errno in (None, "ETIMEDOUT")]  # fmt: skip
    quick = [ms for ms, errno in tries if errno is None and ms < LOST_SYN_MS]
    slow = [ms for ms, errno in tries if errno is None and ms >= LOST_SYN_MS]
    dead = [ms for ms, errno in tries if errno == "ETIMEDOUT"]
    refused = any(errno == "ECONNREFUSED" for _, errno in tries)
    if len(slow) + len(dead) < 2 or not (quick or slow) or not slow or refused:
        return None
    if (reach.grew("TcpExtListenOverflows") or 0) > 0 or _queue_full(reach):
        return None  # the server itself let the SYNs fall
    resent = reach.grew("TcpRetransSegs") or 0
    return Match(
        LIKELY,
        lines(
            f"of {len(tries)} connections {len(quick)} took no time, {len(slow)} took "
            f"{', '.join(f'{ms / 1000:.1f} s' for ms in sorted(slow)[:4])}"
            + (f", {len(dead)} never came about" if dead else ""),
            "a lost SYN is sent again after 1, 3 and 7 s: these times are its mark",
            f"server: {resent} segments sent again meanwhile" if resent else None,
        ),
        ruled_out=("fw-ufw-drop", "fw-upstream-drop", "fw-ufw-limit-lockout",
                   "l3-mtu-blackhole"),
    )  # fmt: skip


def _queue_full(reach: Reach) -> bool:
    return any(one["queue"] >= one["backlog"] > 0 for one in reach.listeners or ())


CAUSES: tuple[Cause, ...] = (
    Cause(
        "l3-interface-unfit",
        Layer.L3,
        "A network interface of the server is not as the link needs it",
        Fix(
            "Bring it back to what the machine's network configuration says, and find out what "
            "changed it.",
            "`ip link` shows it up, with ARP and an MTU of 1280 bytes or more.",
            Auto.ASK,
            commands=(("ip", "addr"), ("ip", "link")),
        ),
        _interface_unfit,
        aftermath=(
            "l3-no-return-route",
            "fw-upstream-drop",
            "l3-mtu-blackhole",
            "px-upstream-timeout",
        ),
    ),
    Cause(
        "l3-device-offline",
        Layer.L3,
        "The device or its site is off the network: no link, no power, or no address",
        Fix(
            "Somebody has to look at the site: power, cable and link light, the router, the SIM. "
            "Nothing on the server will help.",
            "The link light is on, the device has an address, and a SYN arrives at the server.",
            Auto.NO,
        ),
        _device_offline,
        aftermath=(
            "l3-device-no-default-route",
            "dns-resolver-unreachable",
            "tcp-half-open-ghost",
        ),
    ),
    Cause(
        "l3-device-no-default-route",
        Layer.L3,
        "No way out of the site's network: the gateway is not set",
        Fix(
            "Set the gateway (and the mask) in the network settings, or switch DHCP on.",
            "The server's address answers; an attempt no longer fails within a millisecond.",
            Auto.NO,
            controller="Network settings: Gateway (or DHCP)",
        ),
        _no_default_route,
        aftermath=("dns-resolver-unreachable",),
    ),
    Cause(
        "l3-device-wrong-gateway",
        Layer.L3,
        "The gateway of the site's network does not exist or is dead",
        Fix(
            "Correct gateway and mask in the network settings; check that the router is on.",
            "The gateway answers ARP and the server's address is reached.",
            Auto.NO,
            controller="Network settings: Gateway, Mask",
        ),
        _wrong_gateway,
        aftermath=("dns-resolver-unreachable",),
    ),
    Cause(
        "l3-wrong-server-ip",
        Layer.L3,
        "The address that is dialled is not the server's",
        Fix(
            "Put the server's own address into the controller: read the whole remote-server "
            "configuration, change the address, write the whole back.",
            "The controller's SYN arrives at the server's network card.",
            Auto.ASK,
            controller="RemoteServerConfiguration: IpAddress (0.0.0.0 when DomainName is used)",
        ),
        _wrong_server_ip,
        aftermath=("tcp-service-down", "px-location-404"),
    ),
    Cause(
        "l3-no-return-route",
        Layer.L3,
        "The server has no way back to the site's network",
        Fix(
            "Give the server a route to the site's network (a VPN's subnet, or the default route) "
            "in the distribution's network configuration, so that it survives a restart.",
            "`ip route get SITE_ADDRESS` names an interface, and a SYN is answered.",
            Auto.ASK,
            commands=(("ip", "route", "add", "SITE_NETWORK", "via", "ROUTER"),),
        ),
        _no_return_route,
    ),
    Cause(
        "l3-rp-filter-asymmetric",
        Layer.L3,
        "The strict reverse-path filter drops what arrives on another interface than it would "
        "leave by",
        Fix(
            "Make the routes symmetric, or let the filter be loose on a server with several ways.",
            "TcpExtIPReversePathFilter no longer grows and the SYN is answered.",
            Auto.ASK,
            commands=(("sysctl", "-w", "net.ipv4.conf.all.rp_filter=2"),),
        ),
        _rp_filter,
    ),
    Cause(
        "l3-asymmetric-stateful-fw",
        Layer.L3,
        "The server's answer takes another way and is eaten by a firewall there",
        Fix(
            "Make both directions pass the same firewall (route, or source NAT before it), or let "
            "that firewall accept the answers.",
            "SYN-RECV sockets disappear and the connection is made in one round trip.",
            Auto.NO,
        ),
        _asymmetric,
    ),
    Cause(
        "l3-mtu-blackhole",
        Layer.L3,
        "Full-sized packets vanish on the way: a path MTU black hole",
        Fix(
            "Clamp the segment size on the server so that no packet is too big for the path, and "
            "let TCP probe the path MTU.",
            "TLS handshakes complete and large messages arrive; no segment is sent twice.",
            Auto.YES,
            commands=(
                ("sysctl", "-w", "net.ipv4.tcp_mtu_probing=1", "net.ipv4.tcp_base_mss=1200"),
            ),
        ),
        _mtu,
    ),
    Cause(
        "l3-packet-loss",
        Layer.L3,
        "Packets are lost on the way: a bad radio link or an overloaded line",
        Fix(
            "Give the link more patience meanwhile (a longer pong timeout) and have the line "
            "looked at: antenna, SIM, provider.",
            "Connections are made in one round trip and pongs arrive in time.",
            Auto.YES,
            ansible={"pts_server_ping_timeout_seconds": 60},
        ),
        packet_loss,
    ),
)
