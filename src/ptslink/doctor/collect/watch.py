"""Which packets of the link really reach the server's network card, and what it answers.

Evidence ``net.watch``, vantage ``server``. Packets are seen before the firewall drops them, so
this tells a loss before the server from one inside it. Only headers of SYN, RST and ICMP errors are
read; nothing is sent or changed. Needs root (a packet socket).

Facts: ``seconds``; ``from``, ``to``: epoch seconds, the same time; ``ports``; and counts:
    ``syn_in``      {source: {port: n}} connection attempts to this host, every port
    ``syn_ack_out`` {destination: {port: n}} our answers, by the port that answers
    ``rst_out``     {destination: {port: n}} refusals sent by the kernel
    ``rst_in``      {source: {port: n}} resets of others to our ports
    ``icmp_out``    {destination: {"type/code": n}} errors we send, e.g. ``3/13``
Addresses as text. A source with more than :data:`MOST` ports keeps the first ones.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ptslink.doctor.collect.edge import Stopwatch
from ptslink.doctor.evidence import Evidence, Status
from ptslink.doctor.packet_socket import OUTGOING, packet_socket

#: How many ports a peer and how many peers are kept: a scan of the Internet must not fill memory.
MOST: Final = 64
MOST_PEERS: Final = 256

_SYN, _RST, _ACK = 0x02, 0x04, 0x10


@dataclass(slots=True)
class Tally:
    """Counts of what was seen."""

    syn_in: dict[str, dict[str, int]] = field(default_factory=dict)
    syn_ack_out: dict[str, dict[str, int]] = field(default_factory=dict)
    rst_out: dict[str, dict[str, int]] = field(default_factory=dict)
    rst_in: dict[str, dict[str, int]] = field(default_factory=dict)
    icmp_out: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_facts(self) -> dict[str, Any]:
        return {
            "syn_in": self.syn_in,
            "syn_ack_out": self.syn_ack_out,
            "rst_out": self.rst_out,
            "rst_in": self.rst_in,
            "icmp_out": self.icmp_out,
        }


def _count(table: dict[str, dict[str, int]], peer: str, key: str) -> None:
    if peer not in table and len(table) >= MOST_PEERS:
        return
    row = table.setdefault(peer, {})
    if key in row or len(row) < MOST:
        row[key] = row.get(key, 0) + 1


def tally(packet: bytes, outgoing: bool, into: Tally) -> None:
    """Count one IP packet (from its IP header on). Pure."""
    if len(packet) < 20:
        return
    version = packet[0] >> 4
    if version == 4:
        protocol, start = packet[9], (packet[0] & 0x0F) * 4
        source, destination = packet[12:16], packet[16:20]
        if struct.unpack_from("!H", packet, 6)[0] & 0x1FFF:
            return  # a later fragment has no ports
    elif version == 6 and len(packet) >= 40:
        protocol, start = packet[6], 40
        source, destination = packet[8:24], packet[24:40]
    else:
        return
    peer = str(ipaddress.ip_address(destination if outgoing else source))
    body = packet[start:]
    if protocol == socket.IPPROTO_TCP and len(body) >= 14:
        source_port, destination_port = struct.unpack_from("!HH", body)
        flags = body[13]
        ours = str(source_port if outgoing else destination_port)
        if flags & _SYN and not flags & _ACK and not outgoing:
            _count(into.syn_in, peer, ours)
        elif flags & _SYN and flags & _ACK and outgoing:
            _count(into.syn_ack_out, peer, ours)
        elif flags & _RST:
            _count(into.rst_out if outgoing else into.rst_in, peer, ours)
    elif outgoing and len(body) >= 2:
        unreachable = (protocol, body[0]) in ((socket.IPPROTO_ICMP, 3), (socket.IPPROTO_ICMPV6, 1))
        if unreachable:
            _count(into.icmp_out, peer, f"{body[0]}/{body[1]}")


def collect(
    seconds: float,
    ports: Sequence[int],
    enough: Callable[[], bool] | None = None,
    ready: Callable[[], None] | None = None,
) -> Evidence:
    """Watch for *seconds*; *enough* may end it early, *ready* is called when watching began."""
    watch = Stopwatch()
    counts = Tally()
    try:
        with packet_socket() as sock:
            since = time.time()
            if ready is not None:
                ready()
            began = time.monotonic()
            end = began + seconds
            while (left := end - time.monotonic()) > 0:
                if enough is not None and enough():
                    break
                sock.settimeout(min(left, 0.2))
                try:
                    packet, (interface, _, kind, *_) = sock.recvfrom(256)
                except TimeoutError:
                    continue
                if interface != "lo":
                    tally(packet, kind == OUTGOING, counts)
            elapsed = time.monotonic() - began
            until = time.time()
    except OSError as error:
        return watch.skipped("net.watch", f"no packet socket: {error.strerror or error}")
    wanted = {str(port) for port in ports}
    attempts = sum(n for row in counts.syn_in.values() for port, n in row.items() if port in wanted)
    seconds = round(elapsed, 1)
    times = {"seconds": seconds, "from": round(since, 3), "to": round(until, 3)}
    facts = {**times, "ports": list(ports), **counts.to_facts()}
    seen = f"{attempts} connection attempts to the link's ports in {seconds:g} s"
    return watch.piece("net.watch", Status.OK, seen, facts)
