"""What prints nonsense, a program or a file, costs its own evidence and says so, no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import crossplane
import pytest

from ptslink.doctor.collect import gather, host, network, nginx
from ptslink.doctor.collect.edge import Output
from ptslink.doctor.evidence import Evidence, Status
from unit.doctor.fake_machine import FakeMachine

CAPTURES = Path(__file__).parents[1] / "unit" / "doctor" / "captures"
SITE = "198.51.100.20"
STARTED = "Tue 2026-11-24 20:16:40 UTC"
UNIT = f"Id=ptslink.service\nLoadState=loaded\nActiveState=active\nMainPID=7\nExecMainStartTimestamp={STARTED}\n"  # noqa: E501
JOURNAL = json.dumps({"MESSAGE": "No space left on device", "__REALTIME_TIMESTAMP": "1"})
ACCESS = json.dumps({"time": "2026-11-24T20:16:40+00:00", "status": "101",
                     "request": "GET / HTTP/1.1", "port": "80"})  # fmt: skip
COMMANDS = {
    "ip -j addr": (CAPTURES / "ip-addr.json").read_text(),
    "ip -j route": json.dumps([{"dst": "default", "dev": "eth0"}]),
    "ip -6 -j route": "[]",
    "ip -j route get": json.dumps([{"dst": SITE, "dev": "eth0"}]),
    "ss -H -ltnpe": (CAPTURES / "ss-listeners.txt").read_text(),
    "ss -H -tanoi": f"ESTAB 0 0 10.0.0.1:80 {SITE}:5000\n\t cubic mss:1448\n",
    "iptables-save": (CAPTURES / "iptables-ufw.txt").read_text(),
    "ip6tables-save": "",
    "nft -j list ruleset": (CAPTURES / "nft-ruleset.json").read_text(),
    "fail2ban-client status": "`- Jail list:\tsshd",
    "fail2ban-client status sshd": f"   `- Banned IP list:\t{SITE}",
    "journalctl": JOURNAL,
    "systemctl show": UNIT,
    "systemctl is-enabled": "enabled",
    "timedatectl": "NTPSynchronized=yes\n",
    "getsebool": "httpd_can_network_connect --> off",
    "ps": "7 1 100 nginx: master process /usr/sbin/nginx",
    "nginx -t": "",
}
FILES = {
    "/proc/net/snmp": (CAPTURES / "proc-net-snmp.txt").read_text(),
    "/proc/net/netstat": (CAPTURES / "proc-net-netstat.txt").read_text(),
    "/proc/uptime": "100.0 200.0",
    "/proc/sys/net/netfilter/nf_conntrack_count": "1",
    "/proc/sys/net/netfilter/nf_conntrack_max": "9",
    "/proc/net/stat/nf_conntrack": "entries drop\n00 01\n",
    "/proc/stat": "cpu 1 2 3 4 5 6 7 8\n",
    "/proc/loadavg": "0.1 0.1 0.1 1/2 3",
    "/proc/meminfo": "MemTotal: 10 kB\nMemAvailable: 5 kB\n",
    "/proc/pressure/cpu": "some avg10=1.0",
    "/proc/self/mountinfo": "1 1 0:1 / / rw - ext4 x rw",
    "/proc/7/limits": "Max open files  1024  1024 files",
    "/var/log/apt/history.log": (CAPTURES / "apt-history.log").read_text(),
    "/var/log/nginx/access.log": ACCESS,
    "/var/log/nginx/error.log": "2026/11/24 20:16:40 [error] 7#7: *1 access forbidden by rule",
    "/sys/fs/selinux/enforce": "1",
}
NONSENSE = (
    "\x00\x1b[2J", "[1]", "null", '{"nftables": 5}', "[" * 5000, "=\n=", "9" * 5000,
    "LISTEN a b [::1]:99999999 x", "Max open files  9 9", "-A INPUT -j", "cpu x", "\u0663 \u0663",
    '{"MESSAGE": [999], "__REALTIME_TIMESTAMP": "x"}',
    '{"status": "101", "request": "G / HTTP/1.1", "port": "' + "9" * 5000 + '"}',
)  # fmt: skip


def machine(**changed: str) -> FakeMachine:
    outputs = {name: Output(changed.get(name, text)) for name, text in COMMANDS.items()}
    return FakeMachine(outputs, FILES | {k: v for k, v in changed.items() if k in FILES})


def collected(of: FakeMachine) -> Iterator[Evidence]:
    scope = network.Scope((80,), (SITE,))
    return chain(
        network.collect(of, scope), host.collect(of), nginx.collect(of, Path("/none/nginx.conf"))
    )


def found(of: FakeMachine) -> dict[str, set[Status]]:
    statuses: dict[str, set[Status]] = {}
    for piece in collected(of):
        statuses.setdefault(piece.probe, set()).add(piece.status)
    return statuses


@pytest.fixture(scope="module")
def well() -> dict[str, set[Status]]:
    return found(machine())


@pytest.mark.parametrize("name", sorted((*COMMANDS, *FILES)))
def test_nonsense_of_one_source_costs_its_own_evidence_alone(
    name: str, well: dict[str, set[Status]]
) -> None:
    for nonsense in NONSENSE:
        seen = found(machine(**{name: nonsense}))
        # Who is no unit, or has no process, has no more to show.
        assert set(well) - set(seen) <= {"host.descriptors", "host.sandbox", "net.route_to"}
        lost = [probe for probe in well if seen.get(probe) == {Status.SKIPPED} != well[probe]]
        assert len(lost) <= 3, (nonsense, lost)


def test_what_could_not_be_read_says_why() -> None:
    pieces = {one.probe: one for one in collected(machine(**{"ip -j addr": "[1]"}))}
    broken = pieces["net.addresses"]
    assert broken.status is Status.SKIPPED
    assert broken.seen.startswith("could not be read: TypeError: ")
    assert pieces["net.listeners"].status is Status.OK


def test_a_configuration_nobody_can_read_costs_nothing_else_of_nginx(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RecursionError("include of itself")

    monkeypatch.setattr(crossplane, "parse", breaks)
    config = tmp_path / "nginx.conf"
    config.write_text("include nginx.conf;")
    pieces = {one.probe: one for one in nginx.collect(machine(), config)}
    assert pieces["nginx.config"].seen == (
        f"{config} could not be read: RecursionError: include of itself"
    )
    others = ("nginx.process", "nginx.access", "nginx.error")
    assert {pieces[probe].status for probe in others} == {Status.OK}


def test_a_room_that_breaks_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(network, "collect", breaks)
    for room in ("tls", "service"):
        monkeypatch.setattr(f"ptslink.doctor.collect.{room}.collect", lambda *_, **__: ())
    pieces = {one.probe: one for one in gather(machine=machine())}
    assert pieces["network.collector"].seen == (
        "could not be read: RuntimeError: a mistake of ours"
    )
    assert "host.unit" in pieces
