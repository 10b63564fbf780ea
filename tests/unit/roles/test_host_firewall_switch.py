"""The dead-man switch: its shell decides with one file, whatever systemd does meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def guard(
    plugin: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Any:
    """Keeps its things below a directory of the test; commands of systemd are noted, not run."""
    module: Any = plugin("host_firewall/module_utils/host_firewall_guard")
    kept = tmp_path / "kept"
    monkeypatch.setattr(module, "KEPT", kept)
    monkeypatch.setattr(module, "ARMED", kept / "armed")
    monkeypatch.setattr(module, "GOING_OFF", kept / "going-off")
    module.commands = []

    def said(*command: str, **_: Any) -> tuple[int, str]:
        module.commands.append(command)
        return module.active if "is-active" in command else 0, ""

    monkeypatch.setattr(module, "said", said)
    module.active = 3
    return module


def started(guard: Any) -> list[str]:
    """What systemd was asked to run."""
    (command,) = (one for one in guard.commands if one[0] == "systemd-run")
    return list(command[command.index("/bin/sh") :])


def test_a_change_that_nobody_confirms_is_undone(guard: Any, tmp_path: Path) -> None:
    armed = guard.arm(lambda: [f"touch {tmp_path}/undone"], 0)
    assert Path(armed).exists()
    subprocess.run(started(guard), check=True)
    assert (tmp_path / "undone").exists()
    assert sorted(path.name for path in guard.KEPT.iterdir()) == ["restore"]


def test_one_that_is_confirmed_stays(guard: Any, tmp_path: Path) -> None:
    Path(guard.arm(lambda: [f"touch {tmp_path}/undone"], 0)).unlink()
    subprocess.run(started(guard), check=True)
    assert not (tmp_path / "undone").exists()


def test_it_waits_for_nothing_of_systemd(guard: Any) -> None:
    """A timer's OnActiveSec begins anew with each daemon-reload."""
    guard.arm(lambda: [], 35)
    (command,) = (one for one in guard.commands if one[0] == "systemd-run")
    assert not [word for word in command if word.startswith(("--on-", "--timer"))]
    assert started(guard)[-1].startswith("sleep 35;")


def test_the_way_back_of_an_interrupted_run_is_kept(guard: Any, tmp_path: Path) -> None:
    guard.arm(lambda: [f"touch {tmp_path}/first"], 35)
    guard.active = 0
    assert guard.pending() == str(guard.ARMED)
    guard.arm(lambda: [f"touch {tmp_path}/second"], 35)
    assert f"touch {tmp_path}/first" in (guard.KEPT / "restore").read_text()


@pytest.mark.parametrize(("active", "confirmed"), [(3, False), (0, True)])
def test_one_that_is_gone_or_confirmed_is_not_pending(
    guard: Any, active: int, confirmed: bool
) -> None:
    armed = Path(guard.arm(lambda: [], 35))
    if confirmed:
        armed.unlink()
    guard.active = active
    assert guard.pending() == ""
