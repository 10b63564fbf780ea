"""What runs is told from what lies on the disk, by times alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SHOWN = """Id=ptslink.service
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no
ExecMainStartTimestamp=Sun 2026-11-22 21:26:36.029262 UTC
InactiveExitTimestamp=Sun 2026-11-22 21:26:35.945691 UTC

Id=ptslink.socket
ActiveState=active
NeedDaemonReload=no
InactiveExitTimestamp=Sun 2026-11-22 21:20:00 UTC
"""
STARTED = 1795382796.029262


@pytest.fixture
def in_force(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("pts_server/library/pts_server_in_force")


@pytest.fixture
def site(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("nginx_proxy/library/nginx_proxy_site")


def test_units_are_read_with_their_times(in_force: Any) -> None:
    shown = in_force.blocks(SHOWN)
    assert set(shown) == {"ptslink.service", "ptslink.socket"}
    assert in_force.moment(shown["ptslink.service"]["ExecMainStartTimestamp"]) == STARTED
    assert in_force.moment(shown["ptslink.socket"]["InactiveExitTimestamp"]) is not None
    assert in_force.moment("") is None


@pytest.mark.parametrize(
    ("shown", "idle"),
    [
        ({}, True),
        ({"ActiveState": "inactive"}, True),
        ({"ActiveState": "active"}, False),
        ({"ActiveState": "activating"}, False),
        ({"ActiveState": "failed"}, False),
    ],
)
def test_what_failed_or_is_tried_again_is_not_idle(
    in_force: Any, shown: dict[str, str], idle: bool
) -> None:
    assert in_force.is_idle(shown) is idle


@pytest.mark.parametrize(
    ("changes", "file", "now", "says"),
    [
        ({}, STARTED - 1, STARTED + 60, None),
        ({}, STARTED + 0.5, STARTED + 60, "changed after it started"),
        ({"NeedDaemonReload": "yes"}, STARTED - 1, STARTED + 60, "definition"),
        ({}, STARTED - 1, STARTED - 3600, "clock"),
        ({"ActiveState": "inactive"}, STARTED + 1, STARTED + 60, None),
        ({"ActiveState": "activating"}, STARTED + 1, STARTED + 60, None),
        (
            {"ActiveState": "activating", "NeedDaemonReload": "yes"},
            STARTED - 1,
            STARTED + 60,
            "definition",
        ),
        ({"ActiveState": "failed"}, STARTED + 1, STARTED + 60, None),
    ],
)
def test_a_unit_is_stale_when_its_files_are_newer(
    in_force: Any, changes: dict[str, str], file: float, now: float, says: str | None
) -> None:
    shown = {**in_force.blocks(SHOWN)["ptslink.service"], **changes}
    found = in_force.reason(shown, {"/etc/ptslink/ptslink.toml": file}, now)
    assert found == says if says is None else says in found


def test_a_switched_link_counts_and_its_target_does_not(in_force: Any, tmp_path: Path) -> None:
    (tmp_path / "release").write_text("old")
    link = tmp_path / "current"
    link.symlink_to("release")
    times = in_force.changed_at([str(link), str(tmp_path / "missing")])
    assert times == {str(link): link.lstat().st_ctime}


def test_the_last_reading_is_the_last_change_of_state(site: Any) -> None:
    shown = "ActiveState=active\nStateChangeTimestamp=Sun 2026-11-22 21:26:36.029262 UTC\n"
    assert site.last_read(shown) == STARTED
    assert site.last_read(shown.replace("=active", "=inactive")) is None
    assert site.last_read("ActiveState=active\nStateChangeTimestamp=\n") is None


def test_a_file_newer_than_the_last_reading_is_unread(site: Any, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "ours.conf").write_text("")
    changed = (tmp_path / "conf.d" / "ours.conf").lstat().st_ctime
    paths = ["conf.d/ours.conf"]
    assert site.unread(tmp_path, paths, changed - 1, changed + 60) == paths
    assert site.unread(tmp_path, paths, changed + 1, changed + 60) == []
    assert site.unread(tmp_path, paths, None, changed + 60) == [], "not running: a start reads all"
    assert site.unread(tmp_path, paths, changed + 600, changed + 60) == paths, "clock set back"


def test_a_removed_file_is_unread_until_the_next_reading(site: Any, tmp_path: Path) -> None:
    directory = tmp_path / "sites-enabled"
    directory.mkdir()
    os.utime(directory)
    removed = directory.lstat().st_ctime
    assert site.unread(tmp_path, ["sites-enabled/default"], removed - 1, removed + 60)
    assert not site.unread(tmp_path, ["sites-enabled/default"], removed + 1, removed + 60)


@pytest.mark.parametrize(
    ("active", "enabled", "runs"),
    [
        ("active", "enabled", True),
        ("active", "disabled", False),
        ("activating", "enabled", False),
        ("failed", "enabled", False),
        # No such unit.
        ("inactive", "", False),
    ],
)
def test_what_runs_now_and_after_a_reboot_need_not_be_started(
    in_force: Any, site: Any, active: str, enabled: str, runs: bool
) -> None:
    assert in_force.runs({"ActiveState": active, "UnitFileState": enabled}) is runs
    assert site.runs(f"MainPID=7\nActiveState={active}\nUnitFileState={enabled}\n") is runs


@pytest.mark.parametrize(
    ("changes", "since", "says"),
    [
        ({"NRestarts": "0"}, 1, ""),
        ({"NRestarts": "57"}, 3, "57 times"),
        ({"NRestarts": "57", "ActiveState": "activating"}, 3, "57 times"),
        # One that died long ago and has run since.
        ({"NRestarts": "2"}, 600, ""),
        ({"NRestarts": "57", "ActiveState": "inactive"}, 3, ""),
    ],
)
def test_a_service_is_judged_over_time(
    in_force: Any, changes: dict[str, str], since: float, says: str
) -> None:
    shown = {**in_force.blocks(SHOWN)["ptslink.service"], **changes}
    said = in_force.restless(shown, STARTED + since)
    assert says in said
    assert bool(said) == bool(says)


@pytest.mark.parametrize(
    ("after", "ended"),
    [
        ({"NRestarts": "57", "ActiveState": "active"}, False),
        ({"NRestarts": "58", "ActiveState": "active", "Result": "exit-code"}, True),
        ({"NRestarts": "57", "ActiveState": "activating", "Result": "exit-code"}, True),
        # Started anew by hand meanwhile: systemd counts from none again.
        ({"NRestarts": "0", "ActiveState": "active"}, False),
    ],
)
def test_one_that_is_watched_has_to_stay_up(
    in_force: Any, after: dict[str, str], ended: bool
) -> None:
    assert bool(in_force.kept_ending({"NRestarts": "57"}, after)) == ended
