"""Small files are laid whole, in one call, and taken away again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args


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


def ended(module: Any, capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_what_changed_is_named_in_a_dry_run_as_in_a_run(
    files: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same, other, gone = (tmp_path / name for name in ("same", "other", "gone"))
    for path in (same, other, gone):
        path.write_text("text\n")
        path.chmod(0o644)
    there, new = tmp_path / "there", tmp_path / "new" / "below"
    there.mkdir(mode=0o755)
    wanted = {
        "directories": [str(there), str(new.parent), str(new)],
        "files": [
            {"path": str(same), "content": "text\n"},
            {"path": str(other), "content": "words\n"},
            {"path": str(gone)},
        ],
    }
    changed = sorted(map(str, (other, gone, new.parent, new)))
    assert ended(files, capsys, **wanted, _ansible_check_mode=True)["paths"] == changed
    assert not new.exists()
    assert other.read_text() == "text\n"
    assert ended(files, capsys, **wanted)["paths"] == changed
    assert ended(files, capsys, **wanted) | {"invocation": 0} == {
        "changed": False,
        "paths": [],
        "diff": [],
        "invocation": 0,
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to root")
@pytest.mark.parametrize("kind", ["files", "directories"])
def test_a_file_that_is_not_for_all_to_read_is_a_change(
    files: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = tmp_path / "it"
    if kind == "files":
        path.write_text("text\n")
        wanted: dict[str, Any] = {"files": [{"path": str(path), "content": "text\n"}]}
    else:
        path.mkdir()
        wanted = {"directories": [str(path)]}
    path.chmod(0o700)
    assert ended(files, capsys, **wanted)["paths"] == [str(path)]
    assert path.stat().st_mode & 0o777 == (0o644 if kind == "files" else 0o755)
    assert ended(files, capsys, **wanted)["changed"] is False
