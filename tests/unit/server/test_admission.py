"""Who gives way to whom, told from counts alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ptslink.server.admission import Admission, counted_as


@dataclass
class Caller:
    """A connection that waits for its request, or has one under way."""

    number: int
    address: str = "192.0.2.1"
    local_port: int = 3000
    busy: bool = False
    gone: bool = False

    def give_way(self) -> bool:
        self.gone = not self.busy
        return self.gone


def admission(connections: int = 100, per_address: int = 100) -> Admission:
    return Admission(connections=connections, per_address=per_address, failures=100)


def test_the_longest_waiting_connection_of_an_address_gives_way() -> None:
    gate = admission(per_address=2)
    mine = [Caller(1), Caller(2)]
    stranger = Caller(3, "198.51.100.7")
    for caller in (*mine, stranger, Caller(4)):
        assert gate.arrive(caller) is None
    assert [caller.gone for caller in (*mine, stranger)] == [True, False, False]


def test_requests_under_way_are_not_cut_off() -> None:
    gate = admission(per_address=2)
    busy = [Caller(1, busy=True), Caller(2, busy=True)]
    for caller in busy:
        gate.arrive(caller)
    assert gate.arrive(Caller(3)) == "2 requests of this address are being answered."
    busy[1].busy = False
    assert gate.arrive(Caller(4)) is None
    assert busy[1].gone


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", ""])
def test_a_proxys_connections_are_many_callers(address: str) -> None:
    gate = admission(per_address=1)
    callers = [Caller(number, address) for number in range(5)]
    assert [gate.arrive(caller) for caller in callers] == [None] * 5
    assert not any(caller.gone for caller in callers)


def test_links_do_not_give_way() -> None:
    gate = admission(connections=2)
    links = [Caller(1), Caller(2)]
    for caller in links:
        gate.arrive(caller)
        gate.link(caller, caller.address)
    assert gate.arrive(Caller(3)) == "2 connections are open, which is the limit."
    assert not any(caller.gone for caller in links)


def test_nothing_is_remembered_of_whoever_left() -> None:
    gate = admission(connections=2, per_address=2)
    callers = [Caller(number) for number in range(6)]
    for caller in callers:
        gate.arrive(caller)
    for caller in callers:
        gate.leave(caller)
    assert (gate.open, gate.waiting) == (0, 0)
    assert gate._waiting_at == {}


def test_a_customers_whole_network_is_one_address() -> None:
    gate = admission(per_address=2)
    neighbours = [Caller(number, f"2001:db8:1:2::{number:x}") for number in range(1, 4)]
    stranger = Caller(9, "2001:db8:1:3::1")
    for caller in (*neighbours[:2], stranger, neighbours[2]):
        assert gate.arrive(caller) is None
    assert [caller.gone for caller in (*neighbours, stranger)] == [True, False, False, False]
    for caller in neighbours:
        gate.link(caller, caller.address)
    assert gate.too_much("2001:db8:1:2:ffff::", 0.0) is not None
    assert gate.too_much("2001:db8:1:3::1", 0.0) is None
    for caller in neighbours:
        gate.unlink(caller.address)
        gate.leave(caller)
    assert gate.too_much("2001:db8:1:2:ffff::", 0.0) is None
    gate.leave(stranger)
    assert gate._waiting_at == {}


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_what_an_address_is_counted_as(address: str, counted: str) -> None:
    assert counted_as(address) == counted


def test_failures_are_those_of_the_network() -> None:
    gate = Admission(connections=10, per_address=10, failures=2)
    for number in range(2):
        gate.fail(f"2001:db8::{number}", 0.0)
    assert gate.too_much("2001:db8::77", 0.0) == "more than 2 failed attempts within a minute"
