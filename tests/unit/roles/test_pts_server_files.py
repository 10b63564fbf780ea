"""Small files are laid whole, in one call, and taken away again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def files(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("pts_server/library/pts_server_files")


def test_a_file_is_laid_with_its_directory_readable_by_all(files: Any, tmp_path: Path) -> None:
    path = tmp_path / "journald.conf.d" / "ptslink.conf"
    files.lay(path, "[Journal]\n")
    assert files.present(path) == "[Journal]\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["ptslink.conf"], "nothing half done"


def test_what_shall_be_gone_is_gone_whether_it_was_there_or_not(files: Any, tmp_path: Path) -> None:
    path = tmp_path / "ptslink.conf"
    path.write_text("old\n")
    files.lay(path, None)
    files.lay(path, None)
    assert files.present(path) is None


def test_a_difference_shows_both_texts(files: Any) -> None:
    shown = files.difference(Path("/etc/x"), None, "new\n")
    assert (shown["before"], shown["after"], shown["after_header"]) == ("", "new\n", "/etc/x")


@pytest.mark.parametrize(
    ("enabled", "active", "expected"),
    [("true", "true", True), ("false", "true", False), ("true", "false", False)],
)
def test_a_timer_is_on_if_it_runs_and_will_after_a_reboot(
    files: Any, tmp_path: Path, enabled: str, active: str, expected: bool
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        f"#!/bin/sh\ncase $1 in is-enabled) {enabled};; is-active) {active};; esac\n"
    )
    systemctl.chmod(0o755)
    assert files.runs([str(systemctl)], "x.timer") is expected
