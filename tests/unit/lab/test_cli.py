"""The command line: defaults, refusals, exit statuses; nothing here makes a lab."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ptslab import cli, host, lab, state
from ptslab.layout import MachineRequest
from ptslab.state import Lab, Machine

SCRIPT = Path(__file__).resolve().parents[3] / "scripts/lab"


@pytest.fixture(autouse=True)
def empty_computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No lab, and root as far as the command line can tell."""
    monkeypatch.setattr(state, "HOME", tmp_path / "state")
    monkeypatch.setattr(host.os, "geteuid", lambda: 0)
    monkeypatch.delenv("PTSLINK_LAB", raising=False)


@pytest.mark.parametrize(
    ("environment", "arguments", "chosen"),
    [
        (None, [], "lab"),
        ("", [], "lab"),
        ("mine", [], "mine"),
        ("mine", ["--lab", "other"], "other"),
    ],
)
def test_which_lab_is_meant(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, arguments: list[str], chosen: str
) -> None:
    if environment is not None:
        monkeypatch.setenv("PTSLINK_LAB", environment)
    assert cli.parser().parse_args(["up", *arguments]).lab == chosen


def test_up_passes_on_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def up(name: str, requests: object, *, mirror: bool, **_: object) -> Lab:
        asked.extend([name, requests, mirror])
        return Lab(name, 0, "up", "b")

    monkeypatch.setattr(lab, "up", up)
    assert cli.main(["up", "--lab", "x", "--machine", "a=trixie", "--no-mirror"]) == 0
    assert asked == ["x", (MachineRequest("a", "trixie"),), False]


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--machine", "Server"],
        ["up", "--machine", "a=sid"],
        ["up", "--lab", "No Such"],
        ["down", "--lab", "../etc"],
        ["inventory", "--lab", "a/b"],
    ],
)
def test_bad_names_exit_2_and_say_so(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith("lab: ")


@pytest.mark.parametrize(
    "arguments", [[], ["raise"], ["up", "--mirror"], ["cache", "--suite", "x"]]
)
def test_what_argparse_refuses_exits_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["inventory"],
        ["inventory", "--list"],
        ["ssh", "server"],
        ["exec", "controller", "--", "true"],
        ["reboot", "server"],
        ["log", "server"],
        ["cut-mirror"],
    ],
)
def test_without_a_lab_one_line_says_how_to_raise_it(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "lab: no lab 'lab' is up: raise it with 'scripts/lab up'\n"


@pytest.mark.parametrize("verb", ["up", "down", "status", "inventory", "cache", "prepare"])
def test_without_root_every_verb_exits_2_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    monkeypatch.setattr(host.os, "geteuid", lambda: 1000)
    assert cli.main([verb]) == 2
    assert "needs root: run it again with sudo" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_down_of_a_lab_that_is_not_there_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["down"]) == 0
    assert "lab lab: not up" in capsys.readouterr().err


def test_status_says_when_nothing_is_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().out == "no lab is up\n"
    assert cli.main(["status", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_a_lab_whose_network_is_gone_is_called_broken(capsys: pytest.CaptureFixture[str]) -> None:
    Lab("old", 98, "up", host.boot_id(), (Machine("server", "bookworm", 0, "/image"),)).save()
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().out.startswith("old: broken, slot 98")
    assert cli.main(["ssh", "--lab", "old", "server"]) == 1


def test_exec_enters_the_namespace_of_this_lab() -> None:
    found = Lab("x", 5, "up", "b")
    assert lab.enter_command(found, "router", ["nft", "list", "ruleset"]) == (
        "ip", "netns", "exec", "ptslab5-router", "nft", "list", "ruleset",
    )  # fmt: skip


def test_help_fits_eighty_columns() -> None:
    text = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "80", "PATH": "/usr/bin:/bin"},
    ).stdout
    assert max(len(line) for line in text.splitlines()) <= 80
    for verb in ("up", "down", "status", "ssh", "exec", "inventory", "log", "disk", "cut-mirror"):
        assert f"\n    {verb} " in text or f"\n    {verb}\n" in text
