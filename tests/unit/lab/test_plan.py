"""The network as data: everything carries the lab's name, nothing reaches out of place."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ptslab import plan
from ptslab.layout import Layout

LAYOUT = Layout("demo", 7)


def words(commands: list[plan.Command]) -> list[str]:
    return [" ".join(command) for command in commands]


def test_every_link_and_namespace_made_on_this_computer_carries_the_prefix() -> None:
    commands = plan.build_network(LAYOUT) + plan.machine_cable(LAYOUT, 3)
    made = [
        command[command.index("add") + 1]
        for command in commands
        if command[:3] in (("ip", "link", "add"), ("ip", "netns", "add"))
    ]
    assert made == [
        "ptslab7",
        "ptslab7-router",
        "ptslab7-controller",
        "ptslab7-wan",
        "ptslab7-m3",
        "ptslab7-m3",
    ]


def test_nothing_is_set_in_this_computers_own_namespace_but_the_labs_links() -> None:
    for command in plan.build_network(LAYOUT) + plan.machine_cable(LAYOUT, 0):
        assert command[0] == "ip"
        in_a_namespace = command[1] == "-n" or command[1:3] == ("netns", "exec")
        if not in_a_namespace:
            assert any(word.startswith("ptslab7") for word in command), command


def test_the_controllers_leave_through_the_router_and_the_router_through_this_computer() -> None:
    commands = words(plan.build_network(LAYOUT))
    assert "ip -n ptslab7-controller route add default via 10.78.7.1" in commands
    assert "ip -n ptslab7-router route add default via 10.77.7.1" in commands


def test_the_controller_namespace_has_all_fifty_addresses() -> None:
    added = [c for c in words(plan.build_network(LAYOUT)) if c.startswith(
        "ip -n ptslab7-controller address add 10.78.7.")]  # fmt: skip
    assert len(added) == 50
    assert added[0] == "ip -n ptslab7-controller address add 10.78.7.10/24 dev eth0"


def test_the_router_forwards_and_nobody_else_does() -> None:
    settings = [c for c in words(plan.build_network(LAYOUT)) if "ip_forward" in c]
    assert settings == [
        "ip netns exec ptslab7-router sysctl -qw net.ipv4.ip_forward=1",
        "ip netns exec ptslab7-controller sysctl -qw net.ipv4.ip_forward=0",
    ]
    assert any("ip_forward=0" in c for c in words(plan.machine_cable(LAYOUT, 0)))


def test_every_cable_carries_single_segments() -> None:
    # 2 ends router-bridge, 2 ends router-controller, the bridge; 2 ends of a machine's cable
    assert sum("gso_max_segs 1" in c for c in words(plan.build_network(LAYOUT))) == 5
    assert sum("gso_max_segs 1" in c for c in words(plan.machine_cable(LAYOUT, 0))) == 2


def test_the_labs_table_masquerades_its_own_addresses_only() -> None:
    rules = plan.host_rules(LAYOUT)
    assert "table ip ptslab_demo {" in rules
    assert 'ip saddr 10.77.7.0/24 oifname != "ptslab7" masquerade' in rules
    assert rules.count("masquerade") == 1


def test_a_cut_machine_is_refused_before_anything_is_accepted_on_the_way_out() -> None:
    rules = plan.host_rules(LAYOUT)
    accept_out = rules.index('iifname "ptslab7" accept')
    for cut in ("@cut_silent drop", "@cut reject"):
        assert rules.rindex(cut) < accept_out


def test_the_router_drops_what_it_does_not_know_and_lets_faults_go_first() -> None:
    rules = plan.router_rules(LAYOUT)
    order = [
        "jump faults",
        "ct state invalid drop",
        "ct state established,related accept",
        'iifname "lan" oifname "wan" accept',
    ]
    assert [rules.index(line) for line in order] == sorted(rules.index(line) for line in order)
    assert "policy drop" in rules


@pytest.mark.parametrize(("silent", "name"), [(False, "cut"), (True, "cut_silent")])
def test_cutting_names_the_addresses(silent: bool, name: str) -> None:
    addresses = [LAYOUT.machine_address(0), LAYOUT.machine_address(2)]
    assert plan.cut(LAYOUT, addresses, silent=silent) == [
        ("nft", "add", "element", "ip", "ptslab_demo", name, "{ 10.77.7.10, 10.77.7.12 }")
    ]


def test_restoring_empties_both_sets() -> None:
    assert words(plan.restore(LAYOUT)) == [
        "nft flush set ip ptslab_demo cut",
        "nft flush set ip ptslab_demo cut_silent",
    ]


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
@pytest.mark.parametrize("rules", [plan.host_rules(LAYOUT), plan.router_rules(LAYOUT)])
def test_nft_understands_the_rules(rules: str) -> None:
    done = subprocess.run(
        ("nft", "--check", "--file", "-"), input=rules, text=True, capture_output=True, check=False
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("nft --check needs root")
    assert done.stderr == ""
