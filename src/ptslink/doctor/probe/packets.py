"""What the probe's own tries look like at this machine's network card. Linux; root or CAP_NET_RAW.

Evidence ``tcp.packets``, one an address tried, ports as text:

``address``  ``variation`` (it breaks nothing)
``sent``     {port: n} SYNs that left this machine, after its own packet filter; ``resent`` those
    of them that were sent again
``answered`` {port: hops} how many hops away the SYN-ACK was made, as its TTL tells
``resets``   [{``port``, ``to``: syn|connection, ``hops``}] RSTs that came, equal ones once
``icmp``     [{``from``, ``type``, ``code``, ``port``}] errors about our packets, equal ones once

Only SYN, RST and ICMP are taken, their headers alone, nothing is stored, and what is not between
this machine and the ports tried is not looked at. The tries of ``path.trace`` are left out: theirs
are made to fail.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from ptslink.doctor.capture import JOIN, read_rows
from ptslink.doctor.evidence import Evidence, Status
from ptslink.doctor.packet_socket import OUTGOING, packet_socket
from ptslink.doctor.probe.path import MOST_HOPS

#: So many packets are kept, the first ones: a survey makes less than a tenth of them.
MOST: Final = 4000
#: A packet that is seen twice within this time crossed two interfaces (a bridge, a bond). A SYN
#: is sent again after a second (RFC 6298 2.1). Seconds.
TWICE_SECONDS: Final = 0.3
#: What TTL packets start with: Linux and BSD, Windows, routers.
STARTS: Final = (64, 128, 255)
#: The ICMP and ICMPv6 types that tell of an error (RFC 792, RFC 4443).
_ERRORS: Final = {4: (3, 11, 12), 6: (1, 2, 3, 4)}
_WAKE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Packet:
    """When one was seen, epoch seconds, and its first bytes from the IP header on."""

    at: float
    raw: bytes


class Packets:
    """Takes packets from ``with`` on, in a thread of its own, until :meth:`evidence` is asked."""

    def __init__(self) -> None:
        #: Why none are taken; "" when they are.
        self.why = ""
        self.taken: list[Packet] = []
        self._stop = threading.Event()
        self._held = contextlib.ExitStack()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Packets:
        try:
            sock = self._held.enter_context(packet_socket())
        except AttributeError:
            self.why = "packets are only taken on Linux"
        except OSError as error:
            self.why = (
                f"no packets are taken: {error.strerror or error}; it takes root (CAP_NET_RAW)"
            )
        else:
            sock.settimeout(_WAKE_SECONDS)
            self._thread = threading.Thread(target=self._take, args=(sock,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._end()

    def evidence(
        self, addresses: Iterable[str], ports: Collection[int], vantage: str
    ) -> Iterator[Evidence]:
        """What came and went so far; it ends here."""
        self._end()
        if self.why:
            yield Evidence("tcp.packets", Status.SKIPPED, self.why, vantage=vantage)
            return
        for address in dict.fromkeys(addresses):
            facts = packet_facts(self.taken, address, ports)
            yield Evidence("tcp.packets", Status.OK, told(facts), facts, vantage=vantage)

    def _end(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._held.close()

    def _take(self, sock: socket.socket) -> None:
        while not self._stop.is_set() and len(self.taken) < MOST:
            try:
                raw, (interface, _, kind, *_) = sock.recvfrom(256)
            except TimeoutError:
                continue
            except OSError as error:  # the interface went away, say
                self.why = f"no more packets could be taken: {error.strerror or error}"
                return
            if interface != "lo" or kind != OUTGOING:
                self.taken.append(Packet(time.time(), raw))


def packet_facts(packets: Iterable[Packet], address: str, ports: Collection[int]) -> dict[str, Any]:
    """The facts about *address*, see above. Pure."""
    rows = [row for row in _rows(_once(packets)) if _is_about(row, address, ports)]
    traced = {
        row["tcp.srcport"]
        for row in rows
        if row["ip.dst"] == address and not row["icmp.type"] and int(row["ip.ttl"]) <= MOST_HOPS
    }
    streams, icmp = read_rows(
        row for row in rows if not traced & {row["tcp.srcport"], row["tcp.dstport"]}
    )
    sent: dict[str, int] = {}
    resent: dict[str, int] = {}
    answered: dict[str, int] = {}
    resets: list[dict[str, Any]] = []
    for stream in streams:
        port = str(stream["server_port"])
        if stream["syn"]:
            sent[port] = sent.get(port, 0) + 1 + stream["syn_retries"]
            resent[port] = resent.get(port, 0) + stream["syn_retries"]
        if stream["syn_ack"]:
            answered.setdefault(port, hops(stream["ttl"]["server"]))
        if (ttl := stream["rst_ttl"].get("server")) is not None:
            to = "connection" if stream["syn_ack"] else "syn"
            resets.append({"port": int(port), "to": to, "hops": hops(ttl)})
    errors = [
        {"from": one["from"], "type": one["type"], "code": one["code"],
         "port": one["about"]["port"]}
        for one in icmp
    ]  # fmt: skip
    return {"address": address, "variation": True, "sent": sent,
            "resent": {port: n for port, n in resent.items() if n}, "answered": answered,
            "resets": _distinct(resets), "icmp": _distinct(errors)}  # fmt: skip


def hops(ttl: int) -> int:
    """How many routers a packet passed that arrived with *ttl*; 0: it was made on this network."""
    return next(start for start in STARTS if start >= ttl) - ttl


def told(facts: Mapping[str, Any]) -> str:
    """One line for a person."""
    sent, resent = sum(facts["sent"].values()), sum(facts["resent"].values())
    parts = [f"{sent} SYN" + (f" ({resent} sent again)" if resent else "")]
    parts += [f"port {port} answered from {n} hops away" for port, n in facts["answered"].items()]
    parts += [
        f"RST to a {'SYN' if one['to'] == 'syn' else one['to']} on port {one['port']} from "
        f"{one['hops']} hops away"
        for one in facts["resets"]
    ]
    parts += [f"ICMP {one['type']}/{one['code']} from {one['from']}" for one in facts["icmp"]]
    if len(parts) == 1:
        parts.append("no answer, no RST, no ICMP")
    return f"to {facts['address']}: {', '.join(parts)}"


def _distinct(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({tuple(item.values()): item for item in items}.values())


def _once(packets: Iterable[Packet]) -> Iterator[Packet]:
    """*packets* without those that were only seen on a second interface, whatever their TTL."""
    last: dict[bytes, float] = {}
    for packet in packets:
        raw = packet.raw
        same = raw[:8] + raw[12:] if raw[:1] and raw[0] >> 4 == 4 else raw[:7] + raw[8:]
        if packet.at - last.get(same, 0.0) > TWICE_SECONDS:
            yield packet
        last[same] = packet.at


def _rows(packets: Iterable[Packet]) -> Iterator[dict[str, str]]:
    """*packets* as rows of the capture's reader; ``tcp.*`` of an ICMP error is what it quotes."""
    numbers: dict[frozenset[tuple[str, str]], int] = {}
    for packet in packets:
        with contextlib.suppress(struct.error, ValueError, IndexError):
            row = _row(packet.raw)
            ends = frozenset(
                (row[f"ip.{end}"].split(JOIN)[-1], row[f"tcp.{end}port"]) for end in ("src", "dst")
            )
            number = numbers.setdefault(ends, len(numbers))
            yield row | {"tcp.stream": str(number), "frame.time_epoch": f"{packet.at:.6f}"}


def _row(raw: bytes) -> dict[str, str]:
    """One packet; ValueError, IndexError or struct.error when it is neither TCP nor about it."""
    source, target, ttl, protocol, body = _ip(raw)
    row = {"ip.src": source, "ip.dst": target, "ip.ttl": str(ttl), "icmp.type": ""}
    if protocol == socket.IPPROTO_TCP:
        from_port, to_port = struct.unpack_from("!HH", body)
        row |= {"tcp.flags": hex(body[13]), "tcp.len": "0"}
    else:
        kind, code = body[0], body[1]
        if kind not in _ERRORS[raw[0] >> 4]:
            raise ValueError("no error")
        quoted_source, quoted_target, _, quoted, inner = _ip(body[8:])
        if quoted != socket.IPPROTO_TCP:
            raise ValueError("not about TCP")
        from_port, to_port = struct.unpack_from("!HH", inner)
        row |= {"icmp.type": str(kind), "icmp.code": str(code),
                "ip.src": f"{source}{JOIN}{quoted_source}",
                "ip.dst": f"{target}{JOIN}{quoted_target}"}  # fmt: skip
    return row | {"tcp.srcport": str(from_port), "tcp.dstport": str(to_port)}


def _ip(raw: bytes) -> tuple[str, str, int, int, bytes]:
    """Source, destination, TTL, protocol and the rest of an IP packet."""
    version = raw[0] >> 4
    if version == 4:
        ends, ttl, protocol, start = (raw[12:16], raw[16:20]), raw[8], raw[9], (raw[0] & 0x0F) * 4
    elif version == 6:
        ends, ttl, protocol, start = (raw[8:24], raw[24:40]), raw[7], raw[6], 40
    else:
        raise ValueError("not IP")
    source, target = (str(ipaddress.ip_address(end)) for end in ends)
    return source, target, ttl, protocol, raw[start:]


def _is_about(row: Mapping[str, str], address: str, ports: Collection[int]) -> bool:
    """Whether a packet is one of ours to *address* or an answer to it, or an error about it."""
    source, target = (row[f"ip.{end}"].split(JOIN)[-1] for end in ("src", "dst"))
    if target == address and int(row["tcp.dstport"]) in ports:
        return True
    return source == address and not row["icmp.type"] and int(row["tcp.srcport"]) in ports
