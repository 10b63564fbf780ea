"""Names and addresses of labs: what stands side by side, what is refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

import pytest

from ptslab.errors import UsageError
from ptslab.layout import (
    INTERFACE_NAME_MAX,
    MACHINES_MAX,
    SLOTS,
    HostNetwork,
    Layout,
    MachineRequest,
    allocate_slot,
    check_lab_name,
    conflict,
    parse_machines,
)


def interfaces(layout: Layout) -> set[str]:
    return {
        layout.bridge,
        layout.router_link,
        *(layout.machine_link(index) for index in range(MACHINES_MAX)),
    }


def test_every_interface_name_fits_the_kernel() -> None:
    longest = max((name for slot in SLOTS for name in interfaces(Layout("lab", slot))), key=len)
    assert len(longest) <= INTERFACE_NAME_MAX


def test_two_labs_share_no_name_and_no_address() -> None:
    for one, other in combinations([Layout(f"l{slot}", slot) for slot in (0, 1, 9, 10, 99)], 2):
        assert not interfaces(one) & interfaces(other)
        assert one.router_namespace != other.router_namespace
        assert one.controller_namespace != other.controller_namespace
        assert one.nft_table != other.nft_table
        assert not one.wan.overlaps(other.wan)
        assert not one.lan.overlaps(other.lan)


def test_addresses_of_slot_four() -> None:
    layout = Layout("lab", 4)
    assert layout.gateway == IPv4Address("10.77.4.1")
    assert layout.router_wan == IPv4Address("10.77.4.2")
    assert layout.router_lan == IPv4Address("10.78.4.1")
    assert layout.machine_address(0) == IPv4Address("10.77.4.10")
    assert layout.machine_address(7) == IPv4Address("10.77.4.17")
    assert layout.controllers[0] == IPv4Address("10.78.4.10")
    assert layout.controllers[-1] == IPv4Address("10.78.4.59")
    assert len(layout.controllers) == 50


def test_every_machine_has_an_address_and_a_mac_of_its_own() -> None:
    layout = Layout("lab", 99)
    addresses = {layout.machine_address(index) for index in range(MACHINES_MAX)}
    assert len(addresses) == MACHINES_MAX
    assert all(address in layout.wan for address in addresses)
    assert not addresses & {layout.gateway, layout.router_wan, layout.wan.broadcast_address}
    assert len({layout.machine_mac(index) for index in range(MACHINES_MAX)}) == MACHINES_MAX


@pytest.mark.parametrize("slot", [-1, 100])
def test_a_slot_outside_the_range_is_no_layout(slot: int) -> None:
    with pytest.raises(ValueError, match="slot"):
        Layout("lab", slot)


@pytest.mark.parametrize("name", ["lab", "a", "molecule-default", "x_1", "0", "a" * 32])
def test_lab_names_that_are_accepted(name: str) -> None:
    assert check_lab_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "Lab", "a b", "a/b", "..", "a.b", "ä", "a" * 33, "a\n"]
)
def test_lab_names_that_are_refused_with_the_name_and_the_rule(name: str) -> None:
    with pytest.raises(UsageError, match="a-z, 0-9") as refusal:
        check_lab_name(name)
    assert repr(name) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "name", "suite"),
    [
        ("server", "server", "bookworm"),
        ("server=trixie", "server", "trixie"),
        ("m1=bookworm", "m1", "bookworm"),
        ("back-office", "back-office", "bookworm"),
    ],
)
def test_machines_that_are_accepted(text: str, name: str, suite: str) -> None:
    assert MachineRequest.parse(text) == MachineRequest(name, suite)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server=sid", "bookworm, trixie"),
        ("server=", "bookworm, trixie"),
        ("=trixie", "machine name ''"),
        ("Server", "a-z, 0-9"),
        ("1st", "starting with a letter"),
        ("a/../b", "a-z, 0-9"),
        ("router", "means the lab's own router"),
        ("controller", "means the lab's own controller"),
    ],
)
def test_machines_that_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        MachineRequest.parse(text)


def test_no_machine_asked_for_means_one_server() -> None:
    assert parse_machines([]) == (MachineRequest("server", "bookworm"),)


def test_a_machine_asked_for_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="'a' is asked for more than once"):
        parse_machines(["a", "b", "a=trixie"])


def test_more_machines_than_a_lab_holds_are_refused() -> None:
    parse_machines([f"m{number}" for number in range(MACHINES_MAX)])
    with pytest.raises(UsageError, match="at most 64"):
        parse_machines([f"m{number}" for number in range(MACHINES_MAX + 1)])


EMPTY = HostNetwork()


def host(
    interfaces: set[str] | None = None,
    namespaces: set[str] | None = None,
    tables: set[str] | None = None,
    networks: list[str] | None = None,
) -> HostNetwork:
    return HostNetwork(
        frozenset(interfaces or ()),
        frozenset(namespaces or ()),
        frozenset(tables or ()),
        tuple(IPv4Network(network) for network in networks or ()),
    )


@pytest.mark.parametrize(
    ("there", "obstacle"),
    [
        (host(interfaces={"eth0", "lo", "ptslab10", "ptslab10-m0"}), None),
        (host(namespaces={"ptslab10-router", "vpn"}), None),
        (host(networks=["192.0.2.0/24", "0.0.0.0/0", "10.0.0.0/8", "10.77.2.0/24"]), None),
        (host(interfaces={"ptslab1"}), "interface ptslab1 exists"),
        (host(interfaces={"ptslab1-m3"}), "interface ptslab1-m3 exists"),
        (host(namespaces={"ptslab1-controller"}), "namespace ptslab1-controller exists"),
        (host(networks=["10.77.1.0/24"]), "10.77.1.0/24 is in use"),
        (host(networks=["10.77.0.0/16"]), "10.77.0.0/16 is in use"),
        (host(networks=["10.78.1.128/25"]), "overlaps 10.78.1.0/24"),
        (host(networks=["10.77.1.200/32"]), "overlaps 10.77.1.0/24"),
    ],
)
def test_what_is_in_the_way_of_slot_one(there: HostNetwork, obstacle: str | None) -> None:
    found = conflict(Layout("lab", 1), there)
    if obstacle is None:
        assert found is None
    else:
        assert found is not None
        assert obstacle in found


def test_the_first_free_slot_is_taken() -> None:
    assert allocate_slot("lab", frozenset(), EMPTY).slot == 0
    assert allocate_slot("lab", frozenset({0, 1, 3}), EMPTY).slot == 2


def test_a_slot_with_something_foreign_in_it_is_passed_over() -> None:
    there = host(interfaces={"ptslab0"}, networks=["10.78.1.0/24"])
    assert allocate_slot("lab", frozenset(), there).slot == 2


def test_no_slot_left_names_the_first_obstacle_and_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"10\.77\.0\.0/16 is in use.*scripts/lab down"):
        allocate_slot("lab", frozenset(), host(networks=["10.77.0.0/16"]))
    with pytest.raises(UsageError, match="all slots taken"):
        allocate_slot("lab", frozenset(SLOTS), EMPTY)


def test_a_foreign_table_of_the_labs_name_is_refused_with_the_command_to_remove_it() -> None:
    with pytest.raises(UsageError, match="nft delete table ip ptslab_demo"):
        allocate_slot("demo", frozenset(), host(tables={"ptslab_demo"}))
    assert allocate_slot("other", frozenset(), host(tables={"ptslab_demo"})).slot == 0
