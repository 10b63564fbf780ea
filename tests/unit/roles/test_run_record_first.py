"""A machine whose first run failed is what it was before it; what was confirmed meanwhile stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).parents[3] / "roles"

IDLE = {"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "disabled"}
RUNS = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}
ABSENT = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}


@pytest.fixture
def first(plugin: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, on a host without systemd, whose user is never there."""
    module = plugin("run_record/library/run_record_first")
    monkeypatch.setattr(module, "systemctl", lambda *_: "")
    monkeypatch.setattr(module, "ports_now", lambda: [22])
    monkeypatch.setattr(module, "units_now", lambda _: {})
    return module


@pytest.fixture
def asked(tmp_path: Path) -> dict[str, Any]:
    """What a first run may change: our own directory, and files among those of others."""
    (tmp_path / "etc" / "theirs").mkdir(parents=True)
    (tmp_path / "etc" / "theirs" / "kept").write_text("theirs\n")
    (tmp_path / "etc" / "default").write_text("before\n")
    return {
        "paths": [str(tmp_path / "etc" / name) for name in ("default", "new.d/ours", "unit")],
        "trees": [str(tmp_path / name) for name in ("opt", "lib/state", "etc/theirs")],
        "limits": {},
        "user": "nobody-of-that-name",
        "journal": str(tmp_path / "lib" / "state" / "journal.db"),
    }


def changed(tmp_path: Path) -> None:
    """What a run does."""
    for name in ("etc/new.d/ours", "etc/unit", "etc/theirs/more", "etc/default", "opt/x/y/bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("ours\n")
    (tmp_path / "lib" / "state").mkdir(parents=True)


def everything(tmp_path: Path) -> dict[str, str]:
    return {
        str(path.relative_to(tmp_path)): path.read_text() if path.is_file() else ""
        for path in tmp_path.rglob("*")
    }


def test_files_directories_and_those_on_the_way_are_what_they_were(
    first: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    there = everything(tmp_path)
    before = {**first.state_now(asked), "units": {}, "ports": [22]}
    changed(tmp_path)
    done, left, faults = first.take_back(before, asked)
    assert everything(tmp_path) == there
    assert (left, faults) == ([], [])
    assert "etc/new.d/ours" in " ".join(done)


def test_where_nothing_changed_nothing_is_done(first: Any, asked: dict[str, Any]) -> None:
    before = {**first.state_now(asked), "units": {}, "ports": [22]}
    assert first.take_back(before, asked) == ([], [], [])


@pytest.mark.parametrize(
    ("rows", "stays"), [({"evidence": 1}, False), ({"messages": 1}, True), ({"records": 1}, True)]
)
def test_a_journal_with_what_was_confirmed_stays(
    first: Any, asked: dict[str, Any], tmp_path: Path, rows: dict[str, int], stays: bool
) -> None:
    before = {**first.state_now(asked), "units": {}, "ports": []}
    changed(tmp_path)
    with closing(sqlite3.connect(asked["journal"])) as database, database:
        for table in ("evidence", "messages", "records"):
            database.execute(f"CREATE TABLE {table} (x)")
            database.executemany(f"INSERT INTO {table} VALUES (?)", [(1,)] * rows.get(table, 0))
    _, left, _ = first.take_back(before, asked)
    assert Path(asked["journal"]).exists() == stays
    assert ("were confirmed" in " ".join(left)) == stays
    assert not (tmp_path / "opt").exists()


def test_a_journal_that_cannot_be_read_stays(first: Any, tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_text("no database, and longer than a header " * 9)
    assert first.has_confirmed(tmp_path / "journal.db")


def test_a_port_that_was_listened_on_and_is_not_is_named(
    first: Any, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first, "PATIENCE", 0)
    before = {**first.state_now(asked), "units": {}, "ports": [22, 8080]}
    assert first.take_back(before, asked)[2] == ["nobody listens on port 8080 any more"]


@pytest.mark.parametrize(
    ("was", "now", "done"),
    [
        (ABSENT, RUNS, ["stop", "reset-failed", "disable"]),
        (IDLE, RUNS, ["stop", "reset-failed", "disable"]),
        (ABSENT, {**RUNS, "ActiveState": "failed"}, ["stop", "reset-failed", "disable"]),
        ({**IDLE, "UnitFileState": "enabled"}, RUNS, ["stop", "reset-failed"]),
        (RUNS, RUNS, []),
        (ABSENT, ABSENT, []),
    ],
)
def test_what_did_not_run_is_stopped_and_not_started_by_a_reboot(
    first: Any, was: dict[str, str], now: dict[str, str], done: list[str]
) -> None:
    assert [verb for verb, _ in first.units_back({"a.service": was}, {"a.service": now})] == done


@pytest.mark.parametrize(
    ("unit", "now", "paths", "verbs"),
    [
        ("nginx.service", RUNS, ["/etc/nginx/conf.d/ptslink.conf"], ["reload"]),
        ("nginx.service", RUNS, ["/etc/default/ufw"], []),
        ("nginx.service", {**RUNS, "ActiveState": "failed"}, [], ["start"]),
        ("ptslink.service", RUNS, ["/etc/ptslink/ptslink.toml"], ["restart"]),
    ],
)
def test_what_ran_before_runs_by_its_files_of_before(
    first: Any, unit: str, now: dict[str, str], paths: list[str], verbs: list[str]
) -> None:
    brought = first.running_again({unit: RUNS}, {unit: now}, paths)
    assert [verb for verb, _ in brought] == verbs


def test_what_systemd_and_the_kernel_say_is_read(first: Any) -> None:
    shown = "Id=a.service\nLoadState=loaded\nActiveState=active\n\nId=b.socket\nLoadState=not-found"
    assert first.blocks(shown) == {
        "a.service": {"LoadState": "loaded", "ActiveState": "active"},
        "b.socket": {"LoadState": "not-found"},
    }
    table = (
        "  sl  local\n 0: 0100007F:0050 00000000:0000 0A x\n 1: 00000000:1F90 00000000:0000 01 x"
    )
    assert first.ports_in(table) == {80}


def test_records_are_where_the_role_has_them(first: Any) -> None:
    variables = yaml.safe_load((ROLES / "run_record" / "vars" / "main.yml").read_text())
    documented = yaml.safe_load(first.DOCUMENTATION)["options"]["directory"]["default"]
    assert documented == variables["__run_record_directory"]
