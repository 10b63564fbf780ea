"""The rate of new connections: sized for whole sites, never for ssh, ours alone to remove."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

NFT = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")


@pytest.fixture
def rate(
    plugin: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    guard = plugin("host_firewall/module_utils/host_firewall_guard")
    monkeypatch.setitem(sys.modules, "ansible.module_utils.host_firewall_guard", guard)
    module = plugin("host_firewall/module_utils/host_firewall_rate")
    monkeypatch.setattr(guard, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(module, "FILE", tmp_path / "rate.nft")
    monkeypatch.setattr(module, "SYSTEMD", tmp_path)
    return module


def rule(port: int, rate: int = 0, protocol: str = "tcp") -> dict[str, Any]:
    return {"port": port, "protocol": protocol, "sources": [], "rate": rate, "purpose": "x"}


def test_ports_without_a_rate_have_no_table(rate: Any) -> None:
    assert rate.limits([rule(80), rule(3000)], [22]) == []
    assert rate.wanted_held([], "/usr/sbin/nft", "ptslink") == rate.NOTHING


def test_ssh_is_never_limited(rate: Any) -> None:
    with pytest.raises(rate.Refused, match="sshd listens on port 2222"):
        rate.limits([rule(80, 50), rule(2222, 50)], [22, 2222])


def test_a_site_that_comes_back_as_a_whole_is_let_in_twice_over(rate: Any) -> None:
    (limit,) = rate.limits([rule(80, 50)], [22])
    assert limit.burst == 100


def test_nginx_speaking_to_the_server_is_not_counted(rate: Any) -> None:
    """All controllers that come through nginx have the loopback as their source."""
    lines = rate.table(rate.limits([rule(3000, 50)], []), "ptslink").splitlines()
    body = [line.strip() for line in lines[lines.index("    chain input {") :]]
    assert body[2:4] == ['iifname "lo" accept', "ct state != new accept"]


def test_each_address_is_counted_by_itself_and_each_port(rate: Any) -> None:
    text = rate.table(rate.limits([rule(3000, 60), rule(80, 50), rule(80)], []), "ptslink")
    rules = re.findall(r"(\w+) dport (\d+) update @(\w+) \{ (.*?) limit rate over (\d+)/s", text)
    assert rules == [
        ("tcp", "80", "tcp_80_v4", "ip saddr", "50"),
        ("tcp", "80", "tcp_80_v6", "ip6 saddr & ffff:ffff:ffff:ffff::", "50"),
        ("tcp", "3000", "tcp_3000_v4", "ip saddr", "60"),
        ("tcp", "3000", "tcp_3000_v6", "ip6 saddr & ffff:ffff:ffff:ffff::", "60"),
    ]


def test_the_table_does_nothing_but_drop(rate: Any) -> None:
    """It may not let in what ufw or firewalld would refuse, nor deny by policy."""
    text = rate.table(rate.limits([rule(80, 50), rule(53, 5, "udp")], []), "ptslink")
    assert "policy accept;" in text
    assert all(" drop comment " in line for line in text.splitlines() if " dport " in line)


def test_what_is_loaded_is_known_again_and_an_emptied_table_is_seen(rate: Any) -> None:
    wanted = rate.wanted_held(rate.limits([rule(80, 50)], []), "/usr/sbin/nft", "ptslink")
    printed = "\n".join(wanted.file.splitlines()[3:]).replace("    ", "\t")
    assert rate.loaded(printed, "ptslink") == wanted.loaded
    emptied = "\n".join(line for line in printed.splitlines() if "limit rate" not in line)
    assert rate.loaded(emptied, "ptslink") != wanted.loaded
    other = rate.wanted_held(rate.limits([rule(80, 51)], []), "/usr/sbin/nft", "ptslink")
    assert other.loaded != wanted.loaded


def test_addresses_that_just_connected_are_no_difference(rate: Any) -> None:
    """nft prints each address in a set with its limit: traffic is not configuration."""
    wanted = rate.wanted_held(rate.limits([rule(80, 50)], []), "/usr/sbin/nft", "ptslink")
    printed = "\n".join(wanted.file.splitlines()[3:])
    element = "elements = { 192.0.2.7 limit rate over 50/second burst 100 packets expires 9s }"
    filled = printed.replace("timeout 10s; }", f"timeout 10s; {element} }}")
    assert filled.count("limit rate over") > printed.count("limit rate over")
    assert rate.loaded(filled, "ptslink") == wanted.loaded


@pytest.mark.skipif(NFT is None or os.geteuid() != 0, reason="needs nft and root")
def test_a_table_the_kernel_has_counted_in_is_the_one_wanted(rate: Any, tmp_path: Path) -> None:
    wanted = rate.wanted_held(rate.limits([rule(80, 50), rule(53, 5, "udp")], []), NFT, "ptslink")
    (tmp_path / "table").write_text(wanted.file)
    printed = subprocess.run(
        ["unshare", "--net", "sh", "-ec",
         f"{NFT} -f {tmp_path}/table; "
         f"{NFT} add element inet ptslink tcp_80_v4 '{{ 192.0.2.7 limit rate over 50/second }}'; "
         f"{NFT} list table inet ptslink"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "192.0.2.7" in printed
    assert rate.loaded(printed, "ptslink") == wanted.loaded


def test_a_diff_names_each_limit_once(rate: Any) -> None:
    wanted = rate.wanted_held(rate.limits([rule(80, 50)], []), "/usr/sbin/nft", "ptslink")
    assert wanted.lines == ["at most 50 a second from one address to 80/tcp"]


@pytest.mark.skipif(NFT is None, reason="nft is not installed here")
def test_nft_takes_the_table(rate: Any) -> None:
    """Parsed by nft; whether a kernel takes it is seen on the machines."""
    text = rate.table(rate.limits([rule(80, 50), rule(53, 5, "udp")], []), "ptslink")
    parsed = subprocess.run(
        ["unshare", "--user", "--net", "--map-root-user", NFT or "", "--check", "--file", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "syntax error" not in parsed.stderr
    assert parsed.returncode == 0 or "Operation not permitted" in parsed.stderr, parsed.stderr


# Putting it in force, and back.


@pytest.fixture
def asked(rate: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every command, noted instead of run; nft has what the last reload read."""
    commands: list[str] = []
    table = {"text": ""}

    def said(*command: str) -> tuple[int, str]:
        if command[1:2] == ("list",):
            return (0, table["text"]) if table["text"] else (1, "No such file")
        commands.append(" ".join(command))
        wants = rate.SYSTEMD / "multi-user.target.wants" / rate.UNIT
        match command[1]:
            case "enable":
                wants.parent.mkdir(exist_ok=True)
                wants.symlink_to(rate.SYSTEMD / rate.UNIT)
            case "reload-or-restart":
                table["text"] = rate.FILE.read_text()
            case "disable":
                wants.unlink()
                table["text"] = ""
        return 0, ""

    monkeypatch.setattr(rate.guard, "said", said)
    return commands


def test_a_limit_is_in_force_now_and_after_a_reboot_and_gone_when_taken_out(
    rate: Any, asked: list[str]
) -> None:
    wanted = rate.wanted_held(rate.limits([rule(80, 50)], []), "nft", "ptslink")
    rate.bring(rate.NOTHING, wanted, "nft", "ptslink")
    assert rate.read("nft", "ptslink") == wanted
    assert [command.split()[1] for command in asked] == [
        "daemon-reload",
        "enable",
        "reload-or-restart",
    ]
    rate.bring(wanted, rate.NOTHING, "nft", "ptslink")
    assert rate.read("nft", "ptslink") == rate.NOTHING
    assert not rate.FILE.exists()


def test_what_is_as_wanted_is_left(rate: Any, asked: list[str]) -> None:
    wanted = rate.wanted_held(rate.limits([rule(80, 50)], []), "nft", "ptslink")
    rate.bring(wanted, wanted, "nft", "ptslink")
    rate.bring(rate.NOTHING, rate.NOTHING, "nft", "ptslink")
    assert asked == []


@pytest.mark.usefixtures("asked")
def test_the_way_back_brings_the_former_limits_or_none(rate: Any) -> None:
    none = rate.way_back(rate.NOTHING, "nft", "ptslink")
    assert f"rm -f {rate.FILE}" in none
    assert "nft delete table inet ptslink 2>/dev/null" in none
    wanted = rate.wanted_held(rate.limits([rule(80, 50)], []), "nft", "ptslink")
    rate.bring(rate.NOTHING, wanted, "nft", "ptslink")
    lines = rate.way_back(wanted, "nft", "ptslink")
    assert lines[0].startswith("cp -p ")
    assert lines[-1] == f"systemctl reload-or-restart {rate.UNIT}"


# What variables say.


@pytest.fixture
def filters(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("host_firewall/filter_plugins/host_firewall")


@pytest.mark.parametrize("key", [3000, "3000"])
def test_a_port_of_its_own_networks_goes_before_those_of_all(filters: Any, key: object) -> None:
    rules = filters.link_rules([80, 3000, 443], ["198.51.100.0/24"], {key: ["10.0.0.0/8"], 443: []})
    assert {rule["port"]: rule["sources"] for rule in rules} == {
        80: ["198.51.100.0/24"],
        443: [],
        3000: ["10.0.0.0/8"],
    }


@pytest.mark.parametrize(
    ("port_sources", "families", "ipv6", "says"),
    [
        ({}, {}, True, ""),
        ({3000: ["10.0.0.0/8"]}, {}, True, ""),
        ({"3000": ["2001:db8::/32"]}, {3000: ["ipv4", "ipv6"]}, True, ""),
        ({3000: ["2001:db8::/32", "10.0.0.0/8"]}, {3000: ["ipv4"]}, True, ""),
        ({8080: ["10.0.0.0/8"]}, {}, True, "port 8080, which controllers do not come in on"),
        ({3000: "10.0.0.0/8"}, {}, True, "Fix: a list of networks, as {3000: [10.0.0.0/8]}"),
        ({3000: ["10.0.0.0/8"]}, {3000: ["ipv6"]}, True, "port 3000 hears ipv6 alone"),
        ({3000: ["2001:db8::/32"]}, {3000: ["ipv4"]}, True, "port 3000 hears ipv4 alone"),
        ({3000: ["2001:db8::/32"]}, {}, False, "port 3000 hears ipv4 alone"),
    ],
)
def test_networks_nobody_could_come_from_are_refused(
    filters: Any, port_sources: dict[Any, Any], families: dict[Any, Any], ipv6: bool, says: str
) -> None:
    faults = filters.source_faults([80, 3000], [], port_sources, families, ipv6)
    assert len(faults) == (1 if says else 0)
    assert says in "".join(faults)


def test_networks_of_all_ports_are_judged_port_by_port(filters: Any) -> None:
    faults = filters.source_faults([80, 3000], ["2001:db8::/32"], {80: []}, {3000: ["ipv4"]}, True)
    assert len(faults) == 1
    assert faults[0].startswith("port 3000 hears ipv4 alone")


@pytest.mark.parametrize(
    ("sources", "warned"), [([], ""), (["10.0.0.0/8"], "80"), (["203.0.113.0/24"], "")]
)
def test_a_run_that_cannot_prove_the_link_from_where_it_comes_is_told(
    plugin: Callable[[str], ModuleType], sources: list[str], warned: str
) -> None:
    guard = plugin("host_firewall/module_utils/host_firewall_guard")
    rules = [{"port": 80, "protocol": "tcp", "sources": sources, "purpose": "controllers"}]
    said = guard.shut_to("203.0.113.9", guard.link_rules(rules))
    assert (f"port {warned} is shut to 203.0.113.9" in said) if warned else said == ""
