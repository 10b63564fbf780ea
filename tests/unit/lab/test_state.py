"""The state file: whole or not at all, and nothing of another version is guessed at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptslab import host, state
from ptslab.errors import LabError
from ptslab.state import Lab, Machine, Running

LAB = Lab("demo", 3, "up", "boot", (Machine("server", "bookworm", 0, "/image"),))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state, "HOME", tmp_path)
    return tmp_path


def test_a_lab_is_read_as_it_was_written(home: Path) -> None:
    LAB.save()
    assert state.load("demo") == LAB
    assert state.labs() == [LAB]
    assert [path.name for path in (home / "labs/demo").iterdir()] == ["lab.json"]


def test_a_lab_that_is_not_there_is_none() -> None:
    assert state.load("demo") is None
    assert state.labs() == []
    assert state.names() == []


def test_a_directory_without_a_state_file_is_a_name_but_no_lab(home: Path) -> None:
    (home / "labs/half").mkdir(parents=True)
    assert state.names() == ["half"]
    assert state.labs() == []


@pytest.mark.parametrize("text", ["", "{", '{"version": 99}'])
def test_a_state_file_that_cannot_be_used_is_named(home: Path, text: str) -> None:
    path = home / "labs/demo/lab.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(LabError, match=str(path)):
        state.load("demo")


def test_the_private_key_lies_where_only_root_looks() -> None:
    LAB.save()
    assert LAB.directory.stat().st_mode & 0o077 == 0


def test_what_the_supervisor_wrote_is_read_back() -> None:
    running = Running(
        supervisor=host.Process(10, 1000, "b"),
        nspawn=host.Process(11, 1001, "b"),
        boots=2,
        phase="running",
        exit_status=None,
        cgroups=("/sys/fs/cgroup/x",),
    )
    machine = LAB.machines[0]
    LAB.machine_directory(machine).mkdir(parents=True)
    assert LAB.running(machine) is None
    LAB.save_running(machine, running)
    assert LAB.running(machine) == running
    assert Running.from_json(json.loads(json.dumps(running.to_json()))) == running
