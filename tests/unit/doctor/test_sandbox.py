"""What forbids nginx the network: SELinux, or the sandboxing of its unit, told apart (pair 20)."""

from __future__ import annotations

from typing import Any

import pytest

from ptslink.doctor.cause import LIKELY
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.collect import confinement
from ptslink.doctor.collect.edge import Output, Stopwatch
from ptslink.doctor.evidence import Case, Evidence
from ptslink.doctor.finding import Finding
from ptslink.doctor.verdict import judge
from unit.doctor.fake_machine import FakeMachine
from unit.doctor.outer_cases import LISTENERS, SITE, changed, connect, listener, piece, unit
from unit.doctor.traces import on_port, seen

DROP_IN = "/etc/systemd/system/nginx.service.d/hardening.conf"
DISABLED = seen("host.selinux", mode="disabled")
AVC = 'avc:  denied  { name_connect } for comm="nginx" dest=3000'
ENFORCING = seen("host.selinux", mode="enforcing", denials=[AVC],
                 booleans={"httpd_can_network_connect": False})  # fmt: skip
NGINX_SITE = {"listen": [{"port": 80, "ssl": False}], "locations": [], "file": "x", "names": [],
              "settings": {"return": []}}  # fmt: skip


def sandbox(unit_name: str = "nginx.service", file: str = DROP_IN, **settings: str) -> Evidence:
    effective = {"IPAddressDeny": "", "IPAddressAllow": "", "RestrictAddressFamilies": "~",
                 "PrivateNetwork": "no"}  # fmt: skip
    lines = [
        {"file": file, "line": number, "name": name, "value": value}
        for number, (name, value) in enumerate(settings.items(), 2)
    ]
    shown = {
        name: value.replace("any", "0.0.0.0/0 ::/0")
        for name, value in settings.items()
        if name in effective
    }
    return seen("host.sandbox", unit=unit_name, effective=effective | shown, settings=lines)


def refused(errno: int, words: str, *more: Evidence) -> list[Finding]:
    """What is found where nginx's connect failed with *errno*, from what it logged."""
    found = on_port(8003)
    for index, one in enumerate(found):
        if one.probe == "nginx.error":
            kind = {13: "connect-denied", 110: "connect-timeout"}.get(errno, "connect-failed")
            text = f"connect() to 127.0.0.1:9099 failed ({errno}: {words}) while connecting"
            events = [{**event, "kind": kind, "text": text} for event in one.facts["events"]]
            found[index] = seen("nginx.error", file=[], hidden=False, events=events)
    return list(judge(Case("ws://192.0.2.7/ptsWebSocket", [*found, *more]), CAUSES).findings)


def first(findings: list[Finding]) -> Finding:
    assert findings
    return findings[0]


def test_selinux_is_named_where_it_enforces() -> None:
    found = first(refused(13, "Permission denied", ENFORCING, sandbox()))
    assert (found.id, found.fix.auto.value) == ("px-selinux-denied", "yes")
    assert found.match.confidence >= 0.95
    assert any("avc:  denied" in line for line in found.match.evidence)


def test_errno_13_alone_is_no_proof_of_selinux() -> None:
    found = first(refused(13, "Permission denied"))
    assert (found.id, found.fix.auto.value) == ("px-selinux-denied", "ask")
    assert found.match.confidence <= LIKELY


@pytest.mark.parametrize("state", ["disabled", "permissive"])
def test_errno_13_without_selinux_is_another_cause(state: str) -> None:
    found = refused(13, "Permission denied", seen("host.selinux", mode=state), sandbox())
    assert [one.id for one in found] == ["px-connect-failed"]


def test_a_boolean_that_allows_it_is_not_what_denies_it() -> None:
    allowed = seen("host.selinux", mode="enforcing", denials=[],
                   booleans={"httpd_can_network_connect": True})  # fmt: skip
    assert first(refused(13, "Permission denied", allowed)).id == "px-connect-failed"


@pytest.mark.parametrize(
    ("errno", "words", "settings"),
    [
        (97, "Address family not supported by protocol", {"RestrictAddressFamilies": "AF_UNIX"}),
        (13, "Permission denied",
         {"RestrictAddressFamilies": "AF_UNIX", "SystemCallErrorNumber": "EACCES"}),
        (13, "Permission denied",
         {"SystemCallFilter": "~connect", "SystemCallErrorNumber": "EACCES"}),
        (1, "Operation not permitted", {"SystemCallFilter": "~@network-io:EPERM"}),
        (1, "Operation not permitted", {"IPAddressDeny": "any"}),
        (110, "Connection timed out", {"IPAddressDeny": "127.0.0.0/8"}),
    ],
)  # fmt: skip
def test_the_drop_in_that_keeps_nginx_from_connecting_is_named(
    errno: int, words: str, settings: dict[str, str]
) -> None:
    found = first(refused(errno, words, DISABLED, sandbox(**settings)))
    assert (found.id, found.layer.value, found.fix.auto.value) == ("px-sandboxed", "proxy", "ask")
    assert found.match.evidence[0].startswith(f"server: {DROP_IN} line 2: ")
    edit, *rest = found.fix.commands
    assert all(name in edit[3] for name in settings)
    assert (edit[0], edit[-1]) == ("sed", DROP_IN)
    assert rest == [("systemctl", "daemon-reload"), ("systemctl", "restart", "nginx.service")]


def test_settings_that_forbid_something_else_are_not_blamed() -> None:
    hardened = sandbox(RestrictAddressFamilies="AF_INET AF_INET6 AF_UNIX", IPAddressDeny="any",
                       IPAddressAllow="127.0.0.0/8 10.0.0.0/8 ::1/128",
                       SystemCallFilter="~@mount")  # fmt: skip
    assert first(refused(13, "Permission denied", DISABLED, hardened)).id == "px-connect-failed"


def outer(*pieces: Evidence, without: tuple[str, ...] = ()) -> list[Finding]:
    return list(judge(changed(*pieces, without=without), CAUSES).findings)


def down(**facts: Any) -> list[Evidence]:
    return [
        unit(),
        unit("nginx.service", active="failed", sub="failed", result="exit-code", **facts),
        piece("net.listeners", listeners=LISTENERS[1:], ports=[3000]),
        connect("ECONNREFUSED"),
        piece("nginx.config", sites=[NGINX_SITE], upstreams={}),
    ]


def test_an_nginx_that_may_open_no_socket_is_not_just_a_service_that_is_down() -> None:
    line = (
        "nginx: [emerg] socket() 0.0.0.0:80 failed (97: Address family not supported by protocol)"
    )
    found = outer(
        *down(denied=[line]), DISABLED, sandbox(RestrictAddressFamilies="AF_UNIX"),
        without=("http.upgrade",),
    )  # fmt: skip
    assert found[0].id == "px-sandboxed"
    assert f"server: {DROP_IN} line 2: RestrictAddressFamilies=AF_UNIX" in found[0].match.evidence
    assert line in found[0].match.evidence
    # The same without the drop-in.
    found = outer(*down(), DISABLED, sandbox(), without=("http.upgrade",))
    assert found[0].id == "tcp-service-down"


def test_packets_dropped_at_nginxs_sockets_are_not_the_firewalls() -> None:
    watch = piece("net.watch", seconds=3.0, ports=[80], syn_in={SITE: {"80": 3}}, syn_ack_out={},
                  rst_out={}, rst_in={}, icmp_out={})  # fmt: skip
    blocked = (connect("ETIMEDOUT", 5000.0), watch)
    found = outer(*blocked, sandbox(IPAddressDeny="any"), without=("http.upgrade",))
    assert found[0].id == "px-sandboxed"
    assert any("no SYN-ACK left" in line for line in found[0].match.evidence)
    assert "px-sandboxed" not in [
        one.id for one in outer(*blocked, sandbox(), without=("http.upgrade",))
    ]
    # An address of the site that is allowed is not what is dropped.
    allowed = sandbox(IPAddressDeny="any", IPAddressAllow="10.77.0.0/16 127.0.0.0/8")
    assert "px-sandboxed" not in [
        one.id for one in outer(*blocked, allowed, without=("http.upgrade",))
    ]


def test_seen_from_the_server_alone_its_own_try_shows_it() -> None:
    local = piece("link.local", hop="nginx", port=80, errno="ETIMEDOUT")
    found = judge(Case("this server", [
        unit(), unit("nginx.service"), local, sandbox(IPAddressDeny="any"),
        piece("net.listeners", listeners=LISTENERS, ports=[80, 3000]),
    ]), CAUSES).findings  # fmt: skip
    assert found[0].id == "px-sandboxed"


def test_a_private_network_is_not_a_wrong_port() -> None:
    evidence = [
        unit(), unit("nginx.service"), connect("ECONNREFUSED"),
        piece("net.listeners", listeners=[listener(3000, process="ptslink")], ports=[3000]),
        piece("nginx.config", sites=[NGINX_SITE], upstreams={}),
    ]  # fmt: skip
    found = outer(*evidence, sandbox(PrivateNetwork="yes"), without=("http.upgrade",))
    assert found[0].id == "px-sandboxed"
    assert "tcp-wrong-port" not in [one.id for one in found]


def test_a_healthy_link_with_a_hardened_nginx_has_no_finding() -> None:
    assert outer(sandbox(RestrictAddressFamilies="AF_UNIX", IPAddressDeny="any")) == []


def test_a_shipped_unit_is_taken_back_beside_it() -> None:
    box = sandbox(file="/usr/lib/systemd/system/nginx.service", SystemCallFilter="~connect")
    command = str(first(refused(1, "Operation not permitted", DISABLED, box)).fix.command)
    assert "sed" not in command
    assert '"[Service]\\nSystemCallFilter=" > ' in command
    assert "/etc/systemd/system/nginx.service.d/zz-network.conf" in command


# The collector.


def test_the_state_of_selinux_is_collected() -> None:
    machine = FakeMachine(
        {"getsebool": Output("httpd_can_network_connect --> off\n")},
        {"/sys/fs/selinux/enforce": "1",
         "/var/log/audit/audit.log": 'type=AVC avc:  denied  { name_connect } comm="nginx" x\n'
         'type=AVC avc:  denied  { read } comm="sshd" scontext=u:r:sshd_t\n'},
    )  # fmt: skip
    facts = confinement._selinux(machine, Stopwatch()).facts
    assert facts["mode"] == "enforcing"
    assert facts["booleans"] == {"httpd_can_network_connect": False}
    assert len(facts["denials"]) == 1


def test_no_selinux_is_said_to_be_disabled() -> None:
    assert confinement._selinux(FakeMachine(), Stopwatch()).facts == {"mode": "disabled"}


def test_drop_ins_are_read_with_their_lines() -> None:
    shown = (
        "LoadState=loaded\nFragmentPath=/lib/systemd/system/nginx.service\n"
        f"DropInPaths={DROP_IN}\nIPAddressDeny=0.0.0.0/0 ::/0\nRestrictAddressFamilies=AF_UNIX\n"
    )
    machine = FakeMachine(
        {"systemctl show": Output(shown)},
        {DROP_IN: "[Service]\n# RestrictAddressFamilies=none\nRestrictAddressFamilies=AF_UNIX\n",
         "/lib/systemd/system/nginx.service": "[Service]\nPrivateTmp=yes\n"},
    )  # fmt: skip
    [one] = confinement._sandbox(machine, Stopwatch(), "nginx.service")
    assert one.facts["settings"] == [
        {"file": DROP_IN, "line": 3, "name": "RestrictAddressFamilies", "value": "AF_UNIX"}
    ]
    assert one.facts["effective"]["IPAddressDeny"] == "0.0.0.0/0 ::/0"
