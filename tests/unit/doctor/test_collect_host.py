"""Readers of the host's state, over what commands really printed on a provisioned machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptslink.doctor.collect import host

CAPTURES = Path(__file__).parent / "captures"


def capture(name: str) -> str:
    return (CAPTURES / name).read_text()


def test_units_as_systemd_shows_them() -> None:
    units = {
        facts["unit"]: facts
        for facts in map(host.read_unit, host.read_show(capture("systemctl-show.txt")))
    }
    service = units["ptslink.service"]
    assert (service["active"], service["sub"], service["result"]) == (
        "active",
        "running",
        "success",
    )
    assert service["enabled"] == "enabled"
    assert service["stock"]["LimitNOFILE"].isdecimal()
    assert service["since"] > 1.7e9
    assert units["no-such.service"]["load"] == "not-found"
    assert units["no-such.service"]["pid"] is None


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("Sun 2026-11-22 20:16:40 UTC", 1795378600.0),
        ("n/a", None),
        ("", None),
    ],
)
def test_timestamps(text: str, epoch: float | None) -> None:
    assert host.read_timestamp(text) == epoch


def test_package_runs() -> None:
    runs = host.read_apt_history(capture("apt-history.log"))
    assert [run["unattended"] for run in runs] == [False] * len(runs)
    assert any("nginx" in run["packages"] for run in runs)
    assert all(run["start"] <= run["end"] for run in runs)
    night = (
        "\nStart-Date: 2026-11-23  06:12:01\nCommandline: /usr/bin/unattended-upgrade\n"
        "Upgrade: nginx:amd64 (1.22.1-9+deb12u2, 1.22.1-9+deb12u3)\nEnd-Date: 2026-11-23  06:12:09"
    )
    (run,) = host.read_apt_history(night)
    assert run["unattended"]
    assert run["packages"] == ["nginx"]
    assert run["end"] - run["start"] == 8


def entry(message: object, unit: str = "ptslink.service") -> str:
    return json.dumps(
        {"MESSAGE": message, "_SYSTEMD_UNIT": unit, "__REALTIME_TIMESTAMP": "1795378600000000"}
    )


KERNEL_OOM = (
    "Memory cgroup out of memory: Killed process 412 (ptslink) total-vm:90000kB, anon-rss:60000kB"
)
SYSTEMD_OOM = "ptslink.service: A process of this unit has been killed by the OOM killer."


@pytest.mark.parametrize(
    ("message", "process", "unit"),
    [(KERNEL_OOM, "ptslink", None), (SYSTEMD_OOM, None, "ptslink.service")],
)
def test_kills_for_want_of_memory(message: str, process: str | None, unit: str | None) -> None:
    (kill,) = host.read_oom(host.read_journal(entry(message)))
    assert (kill["process"], kill["unit"], kill["at"]) == (process, unit, 1795378600.0)


def test_exhausted_resources_are_told_by_errno() -> None:
    text = "\n".join(
        [
            entry("OSError: [Errno 24] Too many open files"),
            entry("sqlite3.OperationalError: database or disk is full"),
            entry("all is well"),
            "no json at all",
            entry(list(b"[Errno 28] No space left \xff")),
        ]
    )
    found = host.read_trouble(host.read_journal(text))
    assert {name: len(lines) for name, lines in found.items()} == {"EMFILE": 1, "ENOSPC": 2}


def test_memory_pressure_steal_and_quota() -> None:
    assert host.read_meminfo("MemTotal: 2048 kB\nMemAvailable: 1024 kB\n")["available"] == 1 << 20
    assert host.read_pressure("some avg10=12.50 avg60=1 avg300=0 total=9\n") == 12.5
    assert host.read_pressure("") is None
    before, after = "cpu  10 0 0 90 0 0 0 0 0 0\n", "cpu  20 0 0 150 0 0 0 30 0 0\n"
    assert host.read_steal(before, after) == 30.0
    assert host.read_steal("", after) is None
    assert host.read_cpu_stat("nr_periods 200\nnr_throttled 50\n") == 0.25
    assert host.read_cpu_stat("usage_usec 5\n") is None


def test_clock() -> None:
    text = "Timezone=Etc/UTC\nCanNTP=no\nNTP=no\nNTPSynchronized=no\n"
    assert host.read_timedate(text) == {"can_sync": False, "ntp": False, "synchronized": False}
