"""Causes of the outer layers, the host and the controller: named where they are, silent elsewhere.

``injected`` holds what the doctor really saw when each cause was injected on a machine
(tests/machines/faults); the rest is evidence by hand for what a lab cannot inject.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, WORDS
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.verdict import judge
from unit.doctor.outer_cases import (
    NOW,
    SERVER,
    SITE,
    changed,
    connect,
    firewall,
    healthy,
    listener,
    piece,
    unit,
)
from unit.doctor.programs import assert_runnable

CASES = sorted((Path(__file__).parent / "injected").glob("*.json"))


def named(case: Case) -> list[str]:
    found = judge(case, CAUSES).findings
    for finding in found:
        assert_runnable(finding.fix)
        assert finding.match.confidence in WORDS
    return [finding.id for finding in found]


def test_a_healthy_link_has_no_finding() -> None:
    assert named(Case("ws://10.77.1.10/ptsWebSocket", healthy())) == []


def test_there_are_captured_cases() -> None:
    assert len(CASES) >= 30


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_captured_fault_is_named_first(path: Path) -> None:
    data = json.loads(path.read_text())
    evidence = [Evidence.from_json(one) for one in data["evidence"]]
    expected = [] if data["healthy"] else [data["id"]]
    assert named(Case(data["url"], evidence))[:1] == expected


def attempt(controller: str, at: float, **facts: Any) -> dict[str, Any]:
    merged = {
        "at": at, "controller": controller, "peer": SITE, "code": "accepted", "status": 101,
        "reason": "", "method": "GET", "path": "/ptsWebSocket", "http": "1.1",
        "headers": [["Upgrade", "websocket"]], "local_port": 3000,
    }  # fmt: skip
    return merged | facts


def link(controller: str, at: float, seconds: float, code: str, **facts: Any) -> dict[str, Any]:
    merged = {
        "at": at, "controller": controller, "peer": SITE, "code": code, "seconds": seconds,
        "closed_by": "transport", "close_sent": None, "close_rcvd": None, "transport": "rst",
        "messages_in": 3, "messages_out": 3, "pings": 1, "pongs": 1, "types": {"UploadStatus": 2},
    }  # fmt: skip
    return merged | facts


def records(links: list[Any] | None = None, attempts: list[Any] | None = None) -> Evidence:
    return piece("service.records", links=links or [], attempts=attempts or [], events=[], now=NOW)


ID = "00AA00000000000000000001"
OTHER = "00AA00000000000000000002"
OOM = {"at": NOW - 60, "process": "ptslink", "unit": "ptslink.service", "line": "Killed process 3"}

#: Takes every second SYN to the port of the link, and one that forbids something else.
EVERY_SECOND = "inet odd i: tcp dport 80 numgen inc mod 2 0 drop"
ODD_SYNS = "inet odd i: tcp dport 80 tcp sequence 1 drop"
TYPED = "ip filter ufw-before-input: -m rt --rt-type 0 -j DROP"


def half_lost(rule: str, count: int | None = None, answered: int | None = None) -> Case:
    """Every second SYN of the site is lost; *answered* of ten that the server's card saw."""
    again = [{"errno": None, "ms": 1030.0}, {"errno": None, "ms": 0.4}] * 4
    watch = [] if answered is None else [
        piece("net.watch", seconds=9.0, ports=[80], syn_in={SITE: {"80": 10}}, rst_out={},
              syn_ack_out={SITE: {"80": answered}}, rst_in={}, icmp_out={}),
    ]  # fmt: skip
    return changed(connect(ms=1031.0), piece("tcp.again", "site", port=80, attempts=again),
                   firewall(maybe=[rule], maybe_packets=[count]), *watch,
                   without=("net.watch",))  # fmt: skip


# cause, the case it must be named first in
NAMED: list[tuple[str, Case]] = [
    (
        "tcp-conntrack-full",
        changed(
            connect("ETIMEDOUT", 5000),
            piece("net.conntrack", count=262144, max=262144, dropped=9, full_lines=4),
        ),
    ),
    (
        "host-oom-kill",
        changed(unit(result="oom-kill", active="failed", sub="failed"), unit("nginx.service")),
    ),
    ("host-oom-kill", changed(piece("host.oom", kills=[OOM]), unit(restarts=1))),
    (
        "host-cpu-starved",
        changed(piece("host.cpu", cpus=1, load=[9.0, 9.0, 9.0], some10=20.0, steal=0.0,
                      throttled={"ptslink.service": 0.9})),
    ),
    (
        "host-clock-wrong",
        changed(piece("host.clock", now=NOW, synchronized=False, newest_seen=NOW + 86400)),
    ),
    (
        "host-clock-wrong",
        changed(
            piece("host.clock", now=NOW, synchronized=False, newest_seen=NOW - 5),
            piece("http.get", "site", status=426, date_offset_s=7200.0),
        ),
    ),
    ("dev-ws-disabled", changed(piece("controller.config", controller=ID, websockets=False))),
    (
        "dev-ip-vs-domain",
        changed(
            piece("controller.config", controller=ID, ip_address="192.0.2.1", domain_name="a.b")
        ),
    ),
    (
        "dev-reboot-loop",
        changed(
            records(
                [
                    link(ID, NOW - 100 + 20 * n, 19.0, "replaced", closed_by="server",
                         types={"UploadConfiguration": 1, "UploadStatus": 9})
                    for n in range(4)
                ]
            )
        ),
    ),
    (
        "l3-device-offline",
        changed(
            piece("route.links", "site", Status.FAILED, interfaces=[{"name": "e", "up": False}]),
            connect("ENETUNREACH", 0.1),
        ),
    ),
    (
        "fw-fail2ban-ban",
        changed(
            connect("ECONNREFUSED", 0.3),
            piece("net.bans", jails={"nginx-limit-req": [SITE]}, rules=[SITE]),
            piece("net.watch", seconds=3.0, ports=[80], syn_in={SITE: {"80": 3}}, syn_ack_out={},
                  rst_out={}, rst_in={}, icmp_out={SITE: {"3/3": 3}}),
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (half_lost(EVERY_SECOND, 5, answered=5), "fw-ufw-drop"),
        (half_lost(EVERY_SECOND), "fw-ufw-drop"),
        (half_lost(EVERY_SECOND, 0, answered=5), "fw-ufw-drop"),
        (half_lost(ODD_SYNS, answered=5), "fw-ufw-drop"),
        (half_lost(ODD_SYNS, 5), "fw-ufw-drop"),
        # Nothing shows that the rule took them.
        (half_lost(EVERY_SECOND, 0), "l3-packet-loss"),
        (half_lost(EVERY_SECOND, 5, answered=10), "l3-packet-loss"),
        (half_lost(ODD_SYNS), "l3-packet-loss"),
        (half_lost(ODD_SYNS.replace("80", "8080"), 5), "l3-packet-loss"),
        (half_lost(TYPED, 5, answered=5), "l3-packet-loss"),
    ],
)
def test_a_rule_that_takes_some_connections_is_told_from_a_bad_line(
    case: Case, expected: str
) -> None:
    (finding,) = judge(case, CAUSES).findings
    assert finding.id == expected
    assert (EVERY_SECOND in str(finding.match) or ODD_SYNS in str(finding.match)) == (
        expected == "fw-ufw-drop"
    )


@pytest.mark.parametrize(("expected", "case"), NAMED)
def test_a_cause_is_named_first(expected: str, case: Case) -> None:
    assert named(case)[:1] == [expected]


# what must not be named, and the case of its neighbour or of an innocent
SILENT: list[tuple[str, Case]] = [
    # Strangers are banned all the time; the site is not among them.
    ("fw-fail2ban-ban", changed(piece("net.bans", jails={"sshd": ["203.0.113.9"]}, rules=[]))),
    # A nearly full table that still takes connections.
    ("tcp-conntrack-full", changed(piece("net.conntrack", count=200000, max=262144, dropped=0))),
    # A kill of yesterday, or of somebody else's process.
    ("host-oom-kill", changed(piece("host.oom", kills=[OOM | {"at": NOW - 90000}]))),
    (
        "host-oom-kill",
        changed(piece("host.oom", kills=[OOM | {"process": "backup", "unit": None}])),
    ),
    # A busy machine whose link is quick.
    (
        "host-cpu-starved",
        changed(piece("host.cpu", cpus=2, load=[9.0, 9.0, 9.0], some10=90.0, steal=0.0,
                      throttled={})),
    ),
    # One clock is off, and the server's is synchronized: it is the other place's.
    ("host-clock-wrong", changed(piece("http.get", "site", status=426, date_offset_s=7200.0))),
    # A container that cannot synchronize is not thereby wrong.
    ("host-clock-wrong", changed(piece("host.clock", now=NOW, synchronized=False))),
    # A rule that limits, and nobody refused by it.
    ("fw-ufw-limit-lockout", changed(firewall(maybe=["ufw-user-input: recent -j ufw-user-limit"]))),
    # Only listed networks may come in, and the site is one of them: it is connected.
    ("fw-ufw-drop", changed(firewall("drop"))),
    # A service restarted once, and running.
    ("host-crash-loop", changed(unit(restarts=1), unit("nginx.service"))),
    # A site without IPv6 is well with a name that has both.
    (
        "dns-aaaa-only-or-v6-first",
        changed(
            piece("dns.resolve", "site", host="a.b", is_address=False,
                  addresses=["10.77.1.10", "2001:db8::1"], errno=None),
            connect(),
            connect("ENETUNREACH", 0.1, address="2001:db8::1", family="ipv6", variation=True),
        ),
    ),
    # Two links lost to a reset, and none in answer to a ping.
    (
        "nat-idle-silent",
        changed(
            records([link(ID, NOW - 9, 5.0, "lost-rst", last_ping_seconds_before_end=4.0)]),
            piece("service.config", config={"keepalive": {"ping_interval_seconds": 5}}),
        ),
    ),
    # Attempts a minute apart are no storm.
    (
        "dev-reconnect-storm",
        changed(records(attempts=[attempt(ID, NOW - 60 * n) for n in range(12)])),
    ),
    # Two controllers of one station, nobody limited.
    (
        "dev-site-shared-nat",
        changed(records(attempts=[attempt(ID, NOW - 9), attempt(OTHER, NOW - 8)])),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "case"), SILENT)
def test_a_cause_is_silent_where_it_is_not(wrong: str, case: Case) -> None:
    assert wrong not in named(case)


def test_refused_has_several_causes_told_apart_by_the_server() -> None:
    refused = connect("ECONNREFUSED", 0.3)
    others = [listener(22, process="sshd")]
    down = changed(
        refused,
        piece("net.listeners", listeners=others, ports=[]),
        unit("nginx.service", active="inactive", sub="dead"),
    )
    loopback = changed(
        refused, piece("net.listeners", listeners=[listener(80, "127.0.0.1")], ports=[80])
    )
    rejected = changed(refused, firewall("reject", answer="tcp-reset"))
    assert [named(case)[:1] for case in (down, loopback, rejected)] == [
        ["tcp-service-down"],
        ["tcp-bind-loopback"],
        ["fw-reject-other"],
    ]


def test_the_site_alone_is_not_enough_to_blame_a_firewall() -> None:
    case = Case("ws://10.77.1.10/", [connect("ETIMEDOUT", 5000)])
    assert named(case) == ["unlisted-tcp"]


GATEWAY = "10.77.5.1"


def refused(sender: str, code: int, errno: str = "EHOSTUNREACH", **facts: Any) -> Evidence:
    icmp = {"from": sender, "type": 3, "code": code}
    return connect(errno, 0.4, icmp=icmp, **facts)


def way(gateway: str = GATEWAY) -> Evidence:
    return piece("route.to", "site", address=SERVER, gateway=gateway, source=SITE, errno=None)


# From the site alone: who refused tells whose firewall it is.
REFUSED = [
    ([refused(SERVER, 13)], "fw-firewalld-reject"),
    ([refused(GATEWAY, 13), way()], "fw-site-egress-block"),
    ([refused("198.51.100.1", 13), way()], "unlisted-tcp"),
    # No firewall's word: a router that knows no way.
    ([refused(GATEWAY, 1), way()], "unlisted-tcp"),
    ([refused(SERVER, 3, "ECONNREFUSED"), way()], "unlisted-tcp"),
]


@pytest.mark.parametrize(("evidence", "id_"), REFUSED)
def test_who_sent_the_refusal_tells_whose_firewall_it_is(
    evidence: list[Evidence], id_: str
) -> None:
    assert named(Case("ws://10.77.1.10/ptsWebSocket", evidence))[:1] == [id_]


def unresolved(*rcodes: str | None) -> Case:
    servers = [
        piece("dns.server", "site", server=f"192.0.2.{n}", rcode=rcode, variation=True,
              errno=None if rcode else "ETIMEDOUT", answers=0)
        for n, rcode in enumerate(rcodes)
    ]  # fmt: skip
    failed = piece("dns.resolve", "site", Status.FAILED, 4000.0, host="pts.example.net",
                   is_address=False, errno="EAI_AGAIN", addresses=[])  # fmt: skip
    return Case("ws://pts.example.net/ptsWebSocket", [failed, *servers])


@pytest.mark.parametrize(
    ("rcodes", "id_", "sure"),
    [
        ((), "dns-resolver-unreachable", STRONG),
        ((None, None), "dns-resolver-unreachable", CERTAIN),
        (("SERVFAIL",), "unlisted-dns", LIKELY),
        ((None, "REFUSED"), "unlisted-dns", LIKELY),
    ],
)
def test_a_name_server_that_says_no_is_not_one_that_says_nothing(
    rcodes: tuple[str | None, ...], id_: str, sure: float
) -> None:
    [finding] = judge(unresolved(*rcodes), CAUSES).findings
    assert (finding.id, finding.match.confidence) == (id_, sure)


def test_a_watch_that_began_late_is_no_proof_that_nothing_arrived() -> None:
    probe = "0" * 16 + "AABBCCDD"
    evidence = [
        connect(),
        piece("http.upgrade", "site", status=101, controller_id=probe, port=80),
        piece("net.watch", ports=[80], seconds=2.0, syn_in={}, syn_ack_out={}, rst_out={},
              rst_in={}, icmp_out={}),
    ]  # fmt: skip
    url = "ws://10.77.1.10/ptsWebSocket"
    assert named(Case(url, evidence))[:1] == ["nat-forward-wrong-host"]
    arrived = records(attempts=[attempt(probe, NOW)])
    assert named(Case(url, [*evidence, arrived])) == []


@pytest.mark.parametrize(("at_bytes", "found"), [(0, False), (4096, True)])
def test_large_packets_are_lost_only_where_the_link_was_made(at_bytes: int, found: bool) -> None:
    silent = piece("ws.large", "site", Status.FAILED, at_bytes=at_bytes, errno="ETIMEDOUT")
    assert ("l3-mtu-blackhole" in named(changed(silent))) is found


@pytest.mark.parametrize(
    ("began", "ended", "expected"),
    [
        (NOW - 1.0, NOW + 9.0, ["nat-forward-wrong-host"]),
        (NOW + 0.5, NOW + 9.0, []),
        (NOW - 1.0, NOW + 2.0, []),
    ],
)
def test_a_connection_is_only_missed_by_a_watch_that_covers_the_sites_tries(
    began: float, ended: float, expected: list[str]
) -> None:
    watch = piece("net.watch", ports=[80], seconds=ended - began, syn_in={}, syn_ack_out={},
                  rst_out={}, rst_in={}, icmp_out={}, **{"from": began, "to": ended})  # fmt: skip
    window = piece("survey.window", "site", **{"from": NOW, "to": NOW + 3.0})
    assert named(Case("ws://10.77.1.10/ptsWebSocket", [connect(), window, watch])) == expected


def test_a_watch_that_began_late_still_misses_what_is_tried_on_end() -> None:
    watch = piece("net.watch", ports=[80], seconds=5.0, syn_in={}, syn_ack_out={}, rst_out={},
                  rst_in={}, icmp_out={}, **{"from": NOW + 0.5, "to": NOW + 9.0})  # fmt: skip
    window = piece("survey.window", "site", **{"from": NOW, "to": NOW + 3.0})
    case = changed(connect("ETIMEDOUT", 5000.0), window, watch, without=("http.upgrade",))
    assert named(case)[:1] == ["fw-upstream-drop"]


@pytest.mark.parametrize(("dropped", "named_first"), [(7, True), (0, False)])
def test_our_own_limit_is_the_cause_only_where_it_dropped_something(
    dropped: int, named_first: bool
) -> None:
    rule = 'inet ptslink input: tcp dport 80 limit drop comment "ptslink: at most 50 a second"'
    case = changed(
        connect("ETIMEDOUT", 5000.0),
        firewall(maybe=[rule], maybe_packets=[dropped]),
        without=("http.upgrade", "net.watch"),  # which would have seen no answer leave
    )
    found = judge(case, CAUSES).findings
    assert (found[0].id == "fw-ufw-limit-lockout") is named_first
    if named_first:
        assert "host_firewall_link_rate" in str(found[0].match.fix)


URL = "ws://10.77.1.10/ptsWebSocket"


def card(vantage: str = "site", **facts: Any) -> Evidence:
    """What the network card showed of tries that got no further than their SYN."""
    merged: dict[str, Any] = {
        "address": SERVER, "variation": True, "sent": {"80": 1, "443": 1}, "resent": {},
        "answered": {"443": 7}, "resets": [], "icmp": [],
    }  # fmt: skip
    return piece("tcp.packets", vantage, **(merged | facts))


def reset(hops: int, port: int = 80, to: str = "syn") -> list[dict[str, Any]]:
    return [{"port": port, "to": to, "hops": hops}]


@pytest.mark.parametrize(
    ("resets", "expected"),
    [
        (reset(0), "fw-site-egress-block"),
        (reset(3), "fw-upstream-drop"),
        # As far as what answers, a router more or less: the far end's own.
        (reset(7), "unlisted-tcp"),
        (reset(6), "unlisted-tcp"),
        (reset(0, port=3000), "unlisted-tcp"),
        (reset(0, to="connection"), "unlisted-tcp"),
        ([], "unlisted-tcp"),
    ],
)
def test_a_refusal_made_nearer_than_what_answers_is_not_the_servers(
    resets: list[dict[str, Any]], expected: str
) -> None:
    case = Case(URL, [connect("ECONNREFUSED"), card(resets=resets)])
    assert named(case)[:1] == [expected]


@pytest.mark.parametrize(("far", "expected"), [(1, "fw-site-egress-block"), (0, "unlisted-tcp")])
def test_a_refusal_by_no_router_is_near_where_others_pass_one(far: int, expected: str) -> None:
    looked = card(resets=reset(0), answered={"443": far})
    assert named(Case(URL, [connect("ECONNREFUSED"), looked]))[:1] == [expected]


def test_without_anything_that_answers_no_refusal_is_near() -> None:
    case = Case(URL, [connect("ECONNREFUSED"), card(resets=reset(0), answered={})])
    assert named(case) == ["unlisted-tcp"]


def test_what_one_site_alone_is_refused_on_the_way_is_kept_in_by_its_network() -> None:
    elsewhere = connect(vantage="control")
    case = Case(URL, [connect("ECONNREFUSED"), elsewhere, card(resets=reset(3))])
    assert named(case)[:1] == ["fw-site-egress-block"]


def test_a_syn_that_arrived_was_not_refused_on_the_way() -> None:
    refused = [connect("ECONNREFUSED"), card(resets=reset(0))]
    case = changed(*refused, without=("http.upgrade",))
    assert "fw-site-egress-block" not in named(case)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"443": 1}, "fw-site-egress-block"),
        ({"80": 3, "443": 1}, "unlisted-tcp"),
        # Nothing left at all: nobody answers for the gateway, or for the address.
        ({}, "unlisted-tcp"),
    ],
)
def test_a_syn_that_never_left_was_held_back_where_it_was_made(
    sent: dict[str, int], expected: str
) -> None:
    case = Case(URL, [connect("ETIMEDOUT", 5000.0), card(sent=sent)])
    assert named(case)[:1] == [expected]


def test_that_nothing_came_back_is_told_and_not_where_an_error_did() -> None:
    watch = piece("net.watch", ports=[80], seconds=5.0, syn_in={}, syn_ack_out={}, rst_out={},
                  rst_in={}, icmp_out={})  # fmt: skip
    prohibited = [{"from": "198.51.100.1", "type": 3, "code": 13, "port": 80}]
    for icmp, silent in (([], True), (prohibited, False)):
        looked = card(sent={"80": 3}, icmp=icmp)
        case = changed(connect("ETIMEDOUT", 5000.0), watch, looked, without=("http.upgrade",))
        [finding, *_] = judge(case, CAUSES).findings
        assert finding.id == "fw-upstream-drop"
        told = "site: 3 SYN left the network card; neither RST nor ICMP came back"
        assert (told in finding.match.evidence) is silent
