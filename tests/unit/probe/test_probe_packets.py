"""What the network card shows of the probe's own tries: who refused them, and from how far."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import struct
import time
from typing import Any

import pytest

from ptslink.doctor.evidence import Status
from ptslink.doctor.probe import packets
from ptslink.doctor.probe.packets import Packet, Packets, hops, packet_facts, told

HERE, THERE, ROUTER = "10.9.0.2", "203.0.113.5", "198.51.100.1"
HERE6, THERE6, ROUTER6 = "2001:db8:1::2", "2001:db8:2::5", "2001:db8:9::1"
SYN, RST, ACK = 0x02, 0x04, 0x10
PORTS = {80, 443}


def ip(source: str, target: str, ttl: int, protocol: int, body: bytes, number: int = 7) -> bytes:
    ends = ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed
    if ":" in source:
        return struct.pack("!IHBB", 6 << 28, len(body), protocol, ttl) + ends + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), number, 0, ttl, protocol, 0)
    return head + ends + body


def tcp(source: int, target: int, flags: int, sequence: int = 1) -> bytes:
    return struct.pack("!HHIIBBHHH", source, target, sequence, 0, 0x50, flags, 0, 0, 0)


def out(at: float, flags: int, port: int = 80, own: int = 40001, ttl: int = 64) -> Packet:
    packet = ip(HERE, THERE, ttl, 6, tcp(own, port, flags), number=int(at * 1000))
    return Packet(1000.0 + at, packet)


def back(at: float, flags: int, port: int = 80, own: int = 40001, ttl: int = 57) -> Packet:
    return Packet(1000.0 + at, ip(THERE, HERE, ttl, 6, tcp(port, own, flags)))


def error(at: float, kind: int, code: int, about: Packet, sender: str = ROUTER) -> Packet:
    version = 6 if ":" in sender else 4
    body = struct.pack("!BBHI", kind, code, 0, 0) + about.raw[:60]
    target = HERE6 if version == 6 else HERE
    return Packet(1000.0 + at, ip(sender, target, 62, 58 if version == 6 else 1, body))


def facts(*taken: Packet, address: str = THERE) -> dict[str, Any]:
    return packet_facts(taken, address, PORTS)


@pytest.mark.parametrize(
    ("ttl", "far"), [(64, 0), (57, 7), (128, 0), (120, 8), (255, 0), (250, 5), (65, 63), (1, 63)]
)
def test_a_ttl_tells_how_far_away_a_packet_was_made(ttl: int, far: int) -> None:
    assert hops(ttl) == far


def test_a_syn_that_nobody_answers_is_counted_with_its_repetitions() -> None:
    seen = facts(out(0.0, SYN), out(1.0, SYN), out(3.0, SYN))
    assert (seen["sent"], seen["resent"]) == ({"80": 3}, {"80": 2})
    assert (seen["answered"], seen["resets"], seen["icmp"]) == ({}, [], [])
    assert told(seen) == f"to {THERE}: 3 SYN (2 sent again), no answer, no RST, no ICMP"


def test_a_reset_from_nearer_than_what_answers_is_told_from_one_of_the_far_end() -> None:
    seen = facts(
        out(0.0, SYN), back(0.01, RST | ACK, ttl=64),
        out(0.1, SYN, 443, 40002), back(0.15, SYN | ACK, 443, 40002),
        out(0.2, RST, 443, 40002),
    )  # fmt: skip
    assert seen["resets"] == [{"port": 80, "to": "syn", "hops": 0}]
    assert seen["answered"] == {"443": 7}
    assert "RST to a SYN on port 80 from 0 hops away" in told(seen)


def test_a_connection_that_is_cut_is_no_refused_one() -> None:
    seen = facts(out(0.0, SYN), back(0.05, SYN | ACK), back(0.4, RST, ttl=61))
    assert seen["resets"] == [{"port": 80, "to": "connection", "hops": 3}]


def test_an_error_names_who_sent_it_and_about_which_port() -> None:
    first, again = out(0.0, SYN), out(1.0, SYN)
    seen = facts(first, error(0.01, 3, 13, first), again, error(1.01, 3, 13, again))
    assert seen["icmp"] == [{"from": ROUTER, "type": 3, "code": 13, "port": 80}]


def test_ipv6_is_read_as_well() -> None:
    syn = Packet(1000.0, ip(HERE6, THERE6, 64, 6, tcp(40001, 80, SYN)))
    answer = Packet(1000.2, ip(THERE6, HERE6, 60, 6, tcp(80, 40001, RST | ACK)))
    seen = facts(syn, error(0.1, 1, 1, syn, ROUTER6), answer, address=THERE6)
    assert seen["resets"] == [{"port": 80, "to": "syn", "hops": 4}]
    assert seen["icmp"] == [{"from": ROUTER6, "type": 1, "code": 1, "port": 80}]


def test_what_is_not_about_the_tries_is_left_out() -> None:
    probe = out(0.0, SYN, own=50001, ttl=3)  # path.trace
    other = ip(HERE, "203.0.113.9", 64, 6, tcp(40003, 80, SYN))
    ssh = out(0.0, SYN, port=22, own=40004)
    ping = ip(ROUTER, HERE, 62, 1, bytes(28))
    seen = facts(probe, error(0.1, 11, 0, probe), Packet(1000.0, other), ssh, Packet(1000.0, ping))
    assert (seen["sent"], seen["icmp"]) == ({}, [])


def test_a_packet_that_crosses_a_bridge_is_one_packet() -> None:
    syn = out(0.0, SYN)
    assert facts(syn, Packet(syn.at + 0.001, syn.raw))["sent"] == {"80": 1}


@pytest.mark.parametrize("cut", range(0, 40))
def test_a_broken_packet_is_passed_over(cut: int) -> None:
    assert facts(Packet(1000.0, out(0.0, SYN).raw[:cut]), out(1.0, SYN))["sent"]["80"] >= 1


def test_without_the_right_it_is_skipped_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied() -> Any:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(packets, "packet_socket", denied)
    with Packets() as taking:
        [piece] = taking.evidence([THERE], PORTS, "site")
    assert piece.status is Status.SKIPPED
    assert (
        piece.seen == "no packets are taken: Operation not permitted; it takes root (CAP_NET_RAW)"
    )


class Wire:
    """A packet socket that gives *frames*, then nothing."""

    def __init__(self, frames: list[tuple[bytes, str, int]]) -> None:
        self.frames = frames

    def settimeout(self, _: float) -> None: ...

    def recvfrom(self, _: int) -> tuple[bytes, tuple[str, int, int]]:
        if not self.frames:
            time.sleep(0.01)
            raise TimeoutError
        raw, interface, kind = self.frames.pop(0)
        return raw, (interface, 0x0800, kind)


def test_it_takes_what_it_gets_and_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = out(0.0, SYN).raw
    wire = Wire([(raw, "eth0", 4), (raw, "lo", 4)])
    monkeypatch.setattr(packets, "packet_socket", lambda: contextlib.nullcontext(wire))
    began = time.monotonic()
    with Packets() as taking:
        while wire.frames:
            time.sleep(0.005)
        [piece] = taking.evidence([THERE, THERE], PORTS, "control")
    assert time.monotonic() - began < 0.5
    assert (piece.status, piece.vantage, piece.facts["sent"]) == (Status.OK, "control", {"80": 1})
    assert len(taking.taken) == 1
    assert taking._thread is not None
    assert not taking._thread.is_alive()
