"""What is in the way of the link is found by what it does to a packet, whoever put it there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ptslink.doctor.collect import firewall

CAPTURES = Path(__file__).parents[1] / "doctor" / "captures"
ADDRESS = {"ifname": "eth0", "addr_info": [
    {"family": "inet", "local": "203.0.113.7", "scope": "global"},
    {"family": "inet", "local": "203.0.113.8", "scope": "global"},
    {"family": "inet6", "local": "2001:db8::7", "scope": "global"},
]}  # fmt: skip
FILES = {
    "/proc/net/route": "Iface Destination ...\n"
    "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
    "/proc/net/ipv6_route": f"{'0' * 32} 00 {'0' * 32} 00 fe80 00000400 1 0 1 eth0\n",
}
ORACLE = """*filter
:INPUT ACCEPT [0:0]
-A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT
-A INPUT -j REJECT --reject-with icmp-host-prohibited
COMMIT
"""
DOCKER = """*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER {}! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80
COMMIT
"""
FILTER = "*filter\n:INPUT ACCEPT [0:0]\n:ufw-user-input - [0:0]\n{}\nCOMMIT\n"


def nft(family: str, hook: str, *expressions: list[Any], **chain: Any) -> str:
    """What nft lists of a table with one base chain."""
    place = {"family": family, "table": "own"}
    items = [
        {"table": {"family": family, "name": "own", **chain.pop("table", {})}},
        {"chain": {**place, "name": "c", "type": "filter", "hook": hook, "prio": 0, **chain}},
        *({"rule": {**place, "chain": "c", "handle": 4, "expr": expr}} for expr in expressions),
    ]  # fmt: skip
    return json.dumps({"nftables": items})


def on(protocol: str, field: str, value: Any, op: str = "==") -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": op, "left": left, "right": value}}


DROPS_ALL = nft("inet", "input", policy="drop")
LETS_SSH_IN = [on("tcp", "dport", 22), {"accept": None}]


@pytest.fixture
def way(plugin: Callable[[str], ModuleType]) -> Any:
    plugin("host_firewall/module_utils/host_firewall_guard")
    return plugin("host_firewall/library/host_firewall_in_the_way")


@pytest.fixture
def machine(way: Any) -> Callable[..., Any]:
    """A host with the rules given; keywords are files, and what is enabled."""

    class Machine(way.Host):  # type: ignore[misc]
        def __init__(self, ip: str, ip6: str, listing: str, files: dict[str, str], unit: str):
            self.files, self.unit = {**FILES, **files}, unit
            self.commands = {"iptables-save": ip, "ip6tables-save": ip6, "nft": listing}

        def read(self, path: str) -> str:
            return self.files.get(path, "")

        def run(self, *command: str) -> str:
            if command[0] == "ip":
                return json.dumps([{"dev": "eth0"}] if "get" in command else [ADDRESS])
            return self.commands.get(command[0], "")

        def enabled(self, unit: str) -> bool:
            return unit == self.unit

    def made(ip: str = "", ip6: str = "", listing: str = "", unit: str = "", **files: str) -> Any:
        given = {
            f"/etc/{name.replace('__', '/').replace('_', '.')}": t for name, t in files.items()
        }
        return Machine(ip, ip6, listing, given, unit)

    return made


def said(way: Any, host: Any, **given: Any) -> str:
    """All complaints of a host, in one text."""
    ports = [
        {"port": port, "sources": given.get("sources", []), "families": ["ipv4", "ipv6"]}
        for port in (80, 3000)
    ]
    found = way.complaints(
        way.tables(host),
        given.get("backend", "ufw"),
        ports,
        given.get("ipv6", "needed"),
        given.get("connection", ("198.51.100.9", 22)),
        host,
    )
    return " ".join(found)


#: (rules, what is said)
IN_THE_WAY: list[tuple[dict[str, str], list[str]]] = [
    (
        {"ip": ORACLE, "iptables__rules_v4": ORACLE},
        ["rejects what comes to port 80, 3000 by IPv4 ", "table ip filter, chain INPUT",
         "`-j REJECT --reject-with icmp-host-prohibited`",
         "Fix: iptables -D INPUT -j REJECT --reject-with icmp-host-prohibited ",
         "/etc/iptables/rules.v4 (netfilter-persistent save)"],
    ),
    ({"ip6": ORACLE}, ["by IPv6 ", "Fix: ip6tables -D INPUT"]),
    (
        {"ip": "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -m multiport --dports "
               "3000:3999 -j DROP\nCOMMIT\n"},
        ["drops what comes to port 3000 by IPv4", "Fix: iptables -t raw -D PREROUTING"],
    ),
    (
        {"ip": "*mangle\n:PREROUTING DROP [0:0]\n-A PREROUTING -p tcp --dport 22 -j ACCEPT\n"},
        ["`policy drop`", "Fix: iptables -t mangle -P PREROUTING ACCEPT"],
    ),
    (
        {"listing": nft("inet", "input", LETS_SSH_IN, policy="drop")},
        ["a policy drops what comes to port 80, 3000 by IPv4 and IPv6 (table inet own, chain c",
         "Fix: nft insert rule inet own c tcp dport { 80, 3000 } accept"],
    ),
    (
        {"listing": nft("netdev", "ingress", [on("tcp", "dport", 80), {"drop": None}], dev="eth0")},
        ["drops what comes to port 80 by IPv4 and IPv6 (table netdev own"],
    ),
    (
        {"listing": nft("ip", "prerouting", [
            {"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["daddr"]}},
                       "right": "local"}},
            on("tcp", "dport", 80), {"redirect": {"port": 8080}}])},
        ["sends port 80 (IPv4) to port 8080 of this host", "nft delete rule ip own c handle 4"],
    ),
    (
        {"ip": DOCKER.format("")},
        ["sends port 80 (IPv4) to 172.17.0.2:80 (table ip nat, chain DOCKER: ",
         "iptables -t nat -D DOCKER ! -i docker0 "],
    ),
    # ufw's own rules: in force, or still in its files.
    (
        {"ip": FILTER.format("-A INPUT -j ufw-before-input\n:ufw-before-input - [0:0]\n"
                             "-A ufw-before-input -j ufw-user-input\n"
                             "-A ufw-user-input -p tcp -m tcp --dport 3000 -j DROP")},
        ["chain ufw-user-input", "ufw delete deny 3000/tcp"],
    ),
    (
        {"ufw__user_rules": FILTER.format("-A ufw-user-input -p tcp --dport 80 -j REJECT\n"),
         "ufw__user6_rules": FILTER.replace("ufw-", "ufw6-").format(
             "-A ufw6-user-input -p tcp --dport 80 -j REJECT\n")},
        ["rejects what comes to port 80 by IPv4 and IPv6", "ufw delete reject 80/tcp"],
    ),
    (
        {"ufw__before_rules": FILTER.format("-A ufw-before-input -p tcp --dport 80 -j DROP")},
        ["/etc/ufw/before.rules"],
    ),
    (
        {"ufw__user_rules": "### tuple ### limit tcp 80 0.0.0.0/0 any 0.0.0.0/0 in\n"},
        ["ufw limits port 80 to 6 connections", "ufw delete limit 80/tcp"],
    ),
    ({"default__ufw": "IPV6=no\n"}, ["IPV6=no in /etc/default/ufw", "host_firewall_ipv6: true"]),
    # A second firewall that lets the link in and takes ours away.
    (
        {"unit": "nftables.service", "nftables_conf": "#!/usr/sbin/nft -f\n\nflush ruleset\n"},
        ["each start of it takes the rules of ufw away", "systemctl disable --now nftables"],
    ),
    (
        {"unit": "nftables.service", "nftables_conf": "flush ruleset\n", "listing": DROPS_ALL},
        ["Fix: that of nftables.service, below. ", "drops what comes to port 22, 80, 3000 by"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "says"), IN_THE_WAY)
def test_what_is_in_the_way_is_named_with_its_place_and_its_mending(
    way: Any, machine: Callable[..., Any], rules: dict[str, str], says: list[str]
) -> None:
    told = said(way, machine(**rules))
    for part in says:
        assert part in told


#: Rules that are in nobody's way.
HARMLESS: list[dict[str, str]] = [
    {},
    # ufw, once it is on, comes to decide for itself: a policy is behind it.
    {"ip": "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n"},
    {"ip": (CAPTURES / "iptables-ufw.txt").read_text()},
    # Behind what ufw lets in, it is never reached.
    {"ip": "*filter\n:INPUT DROP [0:0]\n:ufw-before-input - [0:0]\n:ufw-user-input - [0:0]\n"
           "-A INPUT -j ufw-before-input\n-A INPUT -j REJECT\n"
           "-A ufw-before-input -j ufw-user-input\nCOMMIT\n"},
    # Of one sender, of one of two addresses, on another interface, of another port.
    {"ip": "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s 192.0.2.9/32 -j DROP\nCOMMIT\n"},
    {"ip": DOCKER.format("-d 203.0.113.8/32 ")},
    {"ip": DOCKER.format("").replace("--dport 80", "--dport 8080")},
    {"listing": nft("netdev", "ingress", [{"drop": None}], dev="eth1")},
    {"listing": nft("inet", "input", [{"drop": None}], table={"flags": ["dormant"]})},
    # A limit counts.
    {"listing": nft("inet", "input", [{"limit": {"rate": 5, "per": "second"}}, {"drop": None}])},
    {"default__ufw": "IPV6=yes\n"},
    # Enabled, and it takes nobody else's rules.
    {"unit": "nftables.service", "nftables_conf": "table inet own\ndelete table inet own\n"},
    {"nftables_conf": "flush ruleset\n"},
]  # fmt: skip


@pytest.mark.parametrize("rules", HARMLESS)
def test_what_is_in_nobodys_way_is_not_told(
    way: Any, machine: Callable[..., Any], rules: dict[str, str]
) -> None:
    assert said(way, machine(**rules)) == ""


def test_what_is_behind_another_is_told_in_the_same_run(
    way: Any, machine: Callable[..., Any]
) -> None:
    host = machine(ip=ORACLE + DOCKER.format(""), listing=DROPS_ALL)
    there = way.tables(host)
    before = repr(there)
    packets = [firewall.Packet(80, interface="eth0")]
    found = [str(way.decider(outcome)) for outcome in way.all_shut(there, packets, 80)]
    assert [place.partition(":")[0] for place in found] == [
        "ip nat DOCKER",
        "ip filter INPUT",
        "inet own c",
    ]
    assert repr(there) == before, "the next port is judged by all of them again"


def test_only_those_who_shall_come_are_asked_for(way: Any, machine: Callable[..., Any]) -> None:
    only = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT ! -s 10.0.0.0/8 -p tcp --dport 1:65535 -j DROP\n"
    here = ("10.0.0.9", 22)
    assert said(way, machine(ip=only), sources=["10.0.0.0/8"], connection=here) == ""
    assert "port 80, 3000" in said(way, machine(ip=only), connection=here)
    assert said(way, machine(ip=only), connection=("192.0.2.1", 22)).startswith(
        "a rule drops what comes to port 22, 80, 3000"
    )


def test_a_host_without_ipv6_needs_no_answer_to_it(way: Any, machine: Callable[..., Any]) -> None:
    assert said(way, machine(ip6=ORACLE, default__ufw="IPV6=no\n"), ipv6="no") == ""
    assert said(way, machine(default__ufw="IPV6=no\n"), ipv6="keep") == ""
    came = ("2001:db8::9", 22)
    assert "IPV6=no" in said(way, machine(default__ufw="IPV6=no\n"), ipv6="keep", connection=came)


def test_firewalld_lets_ours_in_after_its_zones(way: Any, machine: Callable[..., Any]) -> None:
    rules = (CAPTURES / "nft-ruleset.json").read_text()
    assert way.loaded(firewall.read_nft(rules)) == "firewalld"
    # 8081 is dropped by a table of somebody else's, whatever the zones say.
    host = machine(listing=rules)
    ports = [{"port": port, "sources": [], "families": ["ipv4"]} for port in (80, 443, 8081)]
    found = way.complaints(way.tables(host), "firewalld", ports, "no", None, host)
    assert [part in " ".join(found) for part in ("8081", "443")] == [True, False]


def test_which_firewall_is_loaded_is_seen_in_the_kernel(way: Any) -> None:
    ufw = firewall.read_iptables((CAPTURES / "iptables-ufw.txt").read_text(), "ip")
    assert way.loaded(ufw) == "ufw"
    assert way.loaded(firewall.read_iptables(ORACLE, "ip")) == ""
