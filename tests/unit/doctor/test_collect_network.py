"""Readers of the server's network, over what commands really printed on a provisioned machine."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pytest

from ptslink.doctor.collect import firewall, network, watch
from ptslink.doctor.collect.edge import Output
from ptslink.doctor.collect.firewall import Packet, read_iptables, read_nft, trace
from ptslink.doctor.collect.watch import Tally, tally
from unit.doctor.fake_machine import FakeMachine

CAPTURES = Path(__file__).parent / "captures"


def capture(name: str) -> str:
    return (CAPTURES / name).read_text()


UFW = read_iptables(capture("iptables-ufw.txt"), "ip")
UFW_LIMIT = read_iptables(capture("iptables-ufw-limit.txt"), "ip")
NFT = read_nft(capture("nft-ruleset.json"))
SITE = "10.77.1.2"


# rules, packet -> verdict, and a word of the rule that decides or of the answer
WALKS = [
    (UFW, Packet(80, interface="eth0"), "accept", "--dport 80"),
    (UFW, Packet(3000, interface="eth0"), "accept", "--dport 3000"),
    (UFW, Packet(443, interface="eth0"), "drop", "policy drop"),
    (UFW, Packet(80, "ipv6"), "accept", ""),
    (UFW_LIMIT, Packet(8080, interface="eth0"), "accept", "ufw-user-limit-accept"),
    (NFT, Packet(80), "accept", "80,3000-3002"),
    (NFT, Packet(3001), "accept", "80,3000-3002"),
    (NFT, Packet(80, source=SITE), "reject", "saddr"),
    (NFT, Packet(80, source="10.77.1.3"), "accept", ""),
    (NFT, Packet(443), "reject", "admin-prohibited"),
    (NFT, Packet(8081), "drop", "dport 8081"),
    (NFT, Packet(8082), "reject", "tcp-reset"),
    (NFT, Packet(8083), "drop", ""),
    (NFT, Packet(8084), "accept", ""),
    (NFT, Packet(8085), "drop", "forward: policy drop"),
]


@pytest.mark.parametrize(("tables", "packet", "verdict", "words"), WALKS)
def test_a_syn_is_walked_through_the_rules(
    tables: list[firewall.Table], packet: Packet, verdict: str, words: str
) -> None:
    outcome = trace(tables, packet)
    assert (outcome.verdict, words in f"{outcome.rule} {outcome.answer}") == (verdict, True)


def test_the_way_a_reject_answers_is_told() -> None:
    assert trace(NFT, Packet(443)).answer == "icmp-admin-prohibited"
    assert trace(NFT, Packet(80, source=SITE)).answer == "icmp-port-unreachable"
    assert trace(NFT, Packet(8082)).answer == "tcp-reset"


def test_a_rate_limit_counts_as_not_met_and_is_told_of() -> None:
    (rule,) = trace(UFW_LIMIT, Packet(8080, interface="eth0")).maybe
    assert "recent" in rule
    assert "ufw-user-limit" in rule
    assert trace(UFW_LIMIT, Packet(80, interface="eth0")).maybe == ()


def test_the_limit_of_our_own_table_lets_a_site_in_and_is_told_of_with_its_count() -> None:
    # As nft 1.0.6 lists what host_firewall writes for host_firewall_link_rate.
    expressions = [
        {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                   "right": 80}},
        {"set": {"op": "update", "elem": {"payload": {"protocol": "ip", "field": "saddr"}},
                 "set": "@tcp_80_v4",
                 "stmt": [{"limit": {"rate": 50, "burst": 100, "per": "second", "inv": True}}]}},
        {"counter": {"packets": 3, "bytes": 180}},
        {"drop": None},
    ]  # fmt: skip
    place = {"family": "inet", "table": "ptslink"}
    outcome = trace(
        read_nft(
            json.dumps(
                {
                    "nftables": [
                        {"table": {"family": "inet", "name": "ptslink"}},
                        {"chain": {**place, "name": "input", "hook": "input", "prio": -10}},
                        {"rule": {**place, "chain": "input", "expr": expressions,
                                  "comment": "ptslink: at most 50 a second"}},
                    ]
                }
            )
        ),
        Packet(80, interface="eth0"),
    )  # fmt: skip
    assert outcome.verdict == "accept"
    assert outcome.maybe == (
        'inet ptslink input: tcp dport 80 limit drop comment "ptslink: at most 50 a second"',
    )
    assert outcome.maybe_packets == (3,)


def test_a_rule_that_takes_every_second_packet_is_told_of_with_its_count() -> None:
    # As nft 1.0.6 lists `tcp dport 80 numgen inc mod 2 0 counter drop`.
    expressions = [
        {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                   "right": 80}},
        {"match": {"op": "==", "left": {"numgen": {"mode": "inc", "mod": 2, "offset": 0}},
                   "right": 0}},
        {"counter": {"packets": 7, "bytes": 420}},
        {"drop": None},
    ]  # fmt: skip
    own = {"family": "inet", "table": "odd", "handle": 1}
    chain = {**own, "name": "i", "hook": "input", "prio": -5, "policy": "accept"}
    items = [{"table": {"family": "inet", "name": "odd", "handle": 1}}, {"chain": chain},
             {"rule": {**own, "chain": "i", "expr": expressions}}]  # fmt: skip
    told = trace(firewall.read_nft(json.dumps({"nftables": items})), Packet(80))
    assert told.maybe == ("inet odd i: tcp dport 80 numgen inc mod 2 0 drop",)
    assert told.maybe_packets == (7,)


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,PSH,ACK,URG NONE -j DROP", "accept"),
        ("-p tcp -m tcp --tcp-flags SYN,RST SYN,RST -j DROP", "accept"),
        ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m state --state NEW -j DROP", "accept"),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j DROP", "drop"),
        ("-m addrtype --src-type UNSPEC -j DROP", "accept"),
        ("-m addrtype --dst-type BROADCAST -j DROP", "accept"),
        ("-p tcp -j REJECT --reject-with tcp-reset", "reject"),
    ],
)
def test_rules_against_odd_packets_are_not_met_by_a_plain_one(rule: str, verdict: str) -> None:
    text = f"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT {rule}\nCOMMIT\n"
    assert trace(read_iptables(text, "ip"), Packet(80)).verdict == verdict


def test_a_redirect_and_a_map_of_verdicts_are_followed() -> None:
    place = {"family": "ip", "table": "t"}
    port = {"payload": {"protocol": "tcp", "field": "dport"}}
    items = [
        {"table": {"family": "ip", "name": "t"}},
        {"chain": {**place, "name": "pre", "hook": "prerouting", "prio": -100}},
        {"chain": {**place, "name": "in", "hook": "input", "prio": 0}},
        {"map": {**place, "name": "m", "elem": [[8080, {"drop": None}], [22, {"accept": None}]]}},
        {"rule": {**place, "chain": "pre", "handle": 5, "expr": [
            {"match": {"op": "==", "left": port, "right": 80}}, {"redirect": {"port": 8080}}]}},
        {"rule": {**place, "chain": "in", "handle": 6, "expr": [
            {"vmap": {"key": port, "data": "@m"}}]}},
    ]  # fmt: skip
    tables = read_nft(json.dumps({"nftables": items}))
    outcome = trace(tables, Packet(80))
    assert (outcome.verdict, outcome.redirect) == ("drop", 8080)
    assert str(outcome.sent_by) == "ip t pre: tcp dport 80 redirect"
    assert outcome.at is not None
    assert outcome.at.rule is not None
    assert outcome.at.rule.handle == 6
    assert trace(tables, Packet(22)).verdict == "accept"


def test_a_forwarded_port_names_where_it_goes() -> None:
    assert trace(NFT, Packet(8085)).dnat == "172.18.0.2:80"


def test_a_policy_that_drops_is_in_doubt_where_an_unjudged_rule_may_accept_first() -> None:
    text = "*filter\n:INPUT DROP [0:0]\n-A INPUT -m set --match-set sites src -j ACCEPT\nCOMMIT\n"
    assert trace(read_iptables(text, "ip"), Packet(80)).verdict == "unknown"


def test_only_listed_sources_get_in_where_rules_say_so() -> None:
    text = (
        "*filter\n:INPUT DROP [7:420]\n"
        "[3:180] -A INPUT -s 203.0.113.0/24 -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n"
    )
    tables = read_iptables(text, "ip")
    assert trace(tables, Packet(80)).verdict == "drop"
    assert trace(tables, Packet(80)).packets == 7
    assert trace(tables, Packet(80, source="203.0.113.5")).verdict == "accept"
    assert trace(tables, Packet(80, source="198.51.100.5")).verdict == "drop"


def test_tables_of_iptables_are_not_read_twice() -> None:
    nft = [firewall.Table("ip", "filter", "nft"), firewall.Table("inet", "own", "nft")]
    joined = firewall.join(UFW, nft)
    assert [(table.name, table.dialect) for table in joined] == [
        ("filter", "iptables"),
        ("own", "nft"),
    ]


def test_banned_sources_are_read_from_sets() -> None:
    assert firewall.rejected_sources(NFT) == [SITE, "203.0.113.9"]


def test_no_json_of_nft_is_refused() -> None:
    with pytest.raises(ValueError, match="nft"):
        read_nft("Error: Operation not permitted")


@pytest.mark.parametrize(("tables", "manager"), [(UFW, "ufw"), (NFT, "firewalld"), ([], "none")])
def test_who_manages_the_rules(tables: list[firewall.Table], manager: str) -> None:
    assert network.managed_by(tables) == manager


def test_listeners_have_owners_and_families() -> None:
    found = network.read_listeners(capture("ss-listeners.txt"))
    by_port = {(one["port"], one["family"]): one for one in found}
    assert by_port[80, "ipv4"]["process"] == "nginx"
    assert by_port[80, "ipv6"]["unit"] == "nginx.service"
    assert by_port[3000, "ipv4"]["address"] == "0.0.0.0"
    assert {"ipv4", "ipv6"} >= {one["family"] for one in found if one["port"] in (80, 3000)}
    assert 80 in network.link_ports(found)
    assert 22 not in network.link_ports(found)


def test_a_dual_stack_listener_serves_both() -> None:
    line = 'LISTEN 0 511 *:3000 *:* users:(("ptslink",pid=3,fd=6)) v6only:0\n'
    (one,) = network.read_listeners(line)
    assert (one["family"], one["address"]) == ("both", "::")


def test_who_only_began_the_others_is_no_worker() -> None:
    line = ('LISTEN 0 511 0.0.0.0:3000 0.0.0.0:* users:(("ptslink",pid=30,fd=3),'
            '("systemd",pid=1,fd=40)) cgroup:/system.slice/ptslink.socket\n')  # fmt: skip
    parents = Output("      1\n      0\n", 0)
    commands = {"ss -H -ltnpe": Output(line, 0), "ps -o ppid= -p 30,1": parents}
    seen = {p.probe: p for p in network.collect(FakeMachine(commands), network.Scope())}
    (one,) = seen["net.listeners"].facts["listeners"]
    assert one["workers"] == [30]


def test_both_sides_of_nginx_are_looked_at() -> None:
    listener = 'LISTEN 0 511 127.0.0.1:3000 0.0.0.0:* users:(("ptslink",pid=30,fd=3))\n'
    text = ("ESTAB 0 0 10.77.1.10:80 10.77.1.2:40112\nESTAB 7 0 127.0.0.1:3000 127.0.0.1:5000\n"
            "ESTAB 0 0 10.77.1.10:22 10.77.1.2:40113\n")  # fmt: skip
    commands = {"ss -H -ltnpe": Output(listener, 0), "ss -H -tanoi": Output(text, 0)}
    seen = {p.probe: p for p in network.collect(FakeMachine(commands), network.Scope((80,)))}
    sockets = seen["net.sockets"].facts["sockets"]
    assert [(one["local_port"], one["recv_q"]) for one in sockets] == [(80, 0), (3000, 7)]


SOCKETS = """\
FIN-WAIT-1 0 33 10.77.1.10:80 10.77.1.2:40112 timer:(on,1.3sec,5)
\t bbr wscale:10,10 rto:6656 backoff:5 rtt:0.1/0.05 mss:1448 pmtu:1500 cwnd:1 bytes_sent:340 \
bytes_retrans:165 bytes_acked:130 unacked:1 retrans:1/5 lastrcv:41000
ESTAB 0 0 [::ffff:10.77.1.10]:80 [::ffff:10.77.1.2]:40113 timer:(keepalive,119min,0)
\t ts sack cubic mss:1448 pmtu:1500 bytes_acked:10 lastrcv:4
"""


def test_sockets_carry_what_tells_a_ghost_from_the_living() -> None:
    ghost, alive = network.read_sockets(SOCKETS)
    assert (ghost["state"], ghost["send_q"], ghost["timer"]) == ("FIN-WAIT-1", 33, "on")
    assert (ghost["backoff"], ghost["bytes_retrans"], ghost["retrans"]) == (5, 165, 1)
    assert (alive["send_q"], alive["timer"]) == (0, "keepalive")
    assert (alive["peer"], alive["peer_port"]) == ("::ffff:10.77.1.2", 40113)


def test_counters_are_named_as_nstat_names_them() -> None:
    found = network.read_counters(capture("proc-net-snmp.txt"), capture("proc-net-netstat.txt"))
    assert set(found) == set(network.COUNTERS)


def test_addresses() -> None:
    facts = network.read_addresses(capture("ip-addr.json"))
    own = {(one["address"], one["scope"]) for one in facts["addresses"]}
    assert ("10.77.1.10", "global") in own
    assert {"name": "eth0", "up": True, "arp": True, "mtu": 1500} in facts["interfaces"]


def test_fail2ban() -> None:
    assert network.read_jails(
        "Status\n|- Number of jail:\t2\n`- Jail list:\tnginx-limit-req, sshd"
    ) == [
        "nginx-limit-req",
        "sshd",
    ]
    text = "Status for the jail: x\n`- Actions\n   `- Banned IP list:\t10.77.1.2 192.0.2.9"
    assert network.read_banned(text) == ["10.77.1.2", "192.0.2.9"]
    assert network.read_banned("   `- Banned IP list:\t") == []


def test_conntrack_columns_are_summed_over_processors() -> None:
    text = "entries found drop\n00000028 00000000 0000000a\n00000028 00000000 00000001\n"
    assert network.read_conntrack_stat(text)["drop"] == 11


def _tcp(source: str, destination: str, ports: tuple[int, int], flags: int) -> bytes:
    import ipaddress
    import struct

    a, b = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    body = struct.pack("!HHIIBBHHH", *ports, 0, 0, 5 << 4, flags, 0, 0, 0)
    if a.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + a.packed + b.packed
    else:
        head = struct.pack("!IHBB", 6 << 28, 20, 6, 64) + a.packed + b.packed
    return head + body


def test_packets_are_counted_by_what_they_say() -> None:
    counts = Tally()
    tally(_tcp(SITE, "10.77.1.10", (40000, 80), 0x02), False, counts)
    tally(_tcp("10.77.1.10", SITE, (80, 40000), 0x12), True, counts)
    tally(_tcp(SITE, "10.77.1.10", (40001, 81), 0x02), False, counts)
    tally(_tcp("10.77.1.10", SITE, (81, 40001), 0x14), True, counts)
    tally(_tcp("2001:db8::5", "2001:db8::1", (4, 80), 0x02), False, counts)
    tally(_tcp(SITE, "10.77.1.10", (40000, 80), 0x10), False, counts)
    assert counts.syn_in == {SITE: {"80": 1, "81": 1}, "2001:db8::5": {"80": 1}}
    assert counts.syn_ack_out == {SITE: {"80": 1}}
    assert counts.rst_out == {SITE: {"81": 1}}


def test_icmp_errors_are_counted_with_type_and_code() -> None:
    import ipaddress
    import struct

    head = struct.pack("!BBHHHBBH", 0x45, 0, 36, 0, 0, 64, 1, 0)
    head += ipaddress.ip_address("10.77.1.10").packed + ipaddress.ip_address(SITE).packed
    counts = Tally()
    tally(head + bytes([3, 13]) + bytes(14), True, counts)
    tally(head + bytes([8, 0]) + bytes(14), True, counts)
    assert counts.icmp_out == {SITE: {"3/13": 1}}


def test_broken_packets_are_passed_over() -> None:
    counts = Tally()
    for packet in (b"", bytes(10), bytes([0x45]) + bytes(19), bytes([0x60]) + bytes(45)):
        tally(packet, False, counts)
    assert counts == Tally()


def test_a_watch_tells_when_it_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def settimeout(self, _: float) -> None: ...
        def recvfrom(self, _: int) -> None:
            time.sleep(0.01)
            raise TimeoutError

    monkeypatch.setattr(watch, "packet_socket", lambda: contextlib.nullcontext(Silent()))
    called: list[float] = []
    piece = watch.collect(0.1, [80], ready=lambda: called.append(time.time()))
    ended = time.time()
    assert called[0] - 0.05 <= piece.facts["from"] <= called[0] + 0.001
    assert called[0] + 0.09 <= piece.facts["to"] <= ended + 0.001
