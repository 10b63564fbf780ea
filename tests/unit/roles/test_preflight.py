"""Preflight: whose port it is, and which names are nobody's."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

WANTED = [
    {"ports": [3000], "units": ["ptslink.service", "ptslink.socket"], "variable": "a"},
    {"ports": [80, 8080], "units": ["nginx.service"], "variable": "b"},
]


@pytest.fixture
def judge(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("preflight/filter_plugins/preflight")


@pytest.fixture
def probe(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("preflight/library/preflight_probe")


def listener(port: int, pid: int, command: str, unit: str) -> dict[str, Any]:
    return {"port": port, "processes": [{"pid": pid, "command": command, "unit": unit}]}


@pytest.mark.parametrize(
    ("seen", "complaint"),
    [
        (listener(80, 7, "nginx", "nginx.service"), None),
        (listener(3000, 8, "ptslink", "ptslink.service"), None),
        (listener(3000, 1, "systemd", "init.scope"), None),
        (
            listener(80, 9, "apache2", "apache2.service"),
            "port 80 (b) is taken by apache2 (pid 9, apache2.service)",
        ),
        (
            listener(8080, 1, "systemd", "init.scope"),
            "port 8080 (b) is taken by systemd (pid 1, init.scope)",
        ),
        (
            listener(3000, 12, "node", ""),
            "port 3000 (a) is taken by node (pid 12, no unit)",
        ),
        (
            {"port": 3000, "processes": []},
            "port 3000 (a) is taken by a process that cannot be named",
        ),
        (listener(22, 3, "sshd", "ssh.service"), None),
    ],
)
def test_a_port_is_ours_or_a_strangers(
    judge: Any, seen: dict[str, Any], complaint: str | None
) -> None:
    assert judge.strangers([seen, seen], WANTED) == ([complaint] if complaint else [])


def test_a_renamed_variable_is_told_its_new_name(judge: Any) -> None:
    renamed = {"pts_server_uri": {"to": "pts_server_path"}}
    known = {"pts_server": ["pts_server_path"]}
    assert judge.unknown_variables(["pts_server_uri"], known, renamed) == [
        "pts_server_uri is now called pts_server_path: rename it where you set it"
    ]


def test_other_peoples_variables_are_left_alone(judge: Any) -> None:
    known = {"pts_server": ["pts_server_port"]}
    names = ["ansible_host", "shop_port", "server_port", "pts_server_port"]
    assert judge.unknown_variables(names, known, {}) == []


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:0BB8 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
   2: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1
"""


def test_listening_sockets_are_told_from_connections(probe: Any) -> None:
    assert probe.listening_inodes(TABLE, {80, 3000}) == {"4711": 80, "4713": 3000}
    assert probe.listening_inodes(TABLE, {443}) == {}


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/init.scope\n", "init.scope"),
        (
            "1:name=systemd:/system.slice/system-getty.slice/getty@tty1.service",
            "getty@tty1.service",
        ),
        ("0::/\n", ""),
    ],
)
def test_the_unit_is_read_from_the_cgroup(probe: Any, cgroup: str, unit: str) -> None:
    assert probe.unit_of(cgroup) == unit


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
@pytest.mark.parametrize(
    ("ahead", "complaint"),
    [
        (0, ""),
        (58, ""),
        (-58, ""),
        (62, "62 seconds ahead of this machine's"),
        (-3600, "3600 seconds behind this machine's"),
    ],
)
def test_a_clock_is_judged_alike_in_any_time_zone(
    judge: Any, monkeypatch: pytest.MonkeyPatch, zone: str, ahead: int, complaint: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    assert judge.clock_complaint(time.time() + ahead, 60) == complaint
    monkeypatch.undo()
    time.tzset()
