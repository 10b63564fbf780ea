"""A dry run is compared with the run after it, and exceptions are held exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import parity

ROOT = Path(__file__).parents[2]
WHY = {"why": "a reason"}


def told(playbook: str, check: bool, *tasks: str, host: str = "server") -> list[str]:
    lines: list[dict[str, Any]] = [{"playbook": playbook, "check": check}]
    lines += [{"host": host, "task": task} for task in tasks]
    return [json.dumps(line) for line in lines]


def compared(lines: list[str], *exceptions: dict[str, str]) -> list[str]:
    return parity.problems(*parity.pair(parity.runs(lines)), exceptions)


def test_the_same_changes_are_no_problem() -> None:
    lines = told("site.yml", True, "a", "b", "a") + told("site.yml", False, "a", "a", "b")
    assert compared(lines) == []


@pytest.mark.parametrize(
    ("check", "run", "says"),
    [
        (["a", "b"], ["a"], "server: b: changed according to the check only"),
        (["a"], ["a", "b"], "server: b: changed according to the run only"),
        (["a"], ["a", "a"], "server: a: changed according to the run only"),
    ],
)
def test_a_difference_is_named(check: list[str], run: list[str], says: str) -> None:
    lines = told("site.yml", True, *check) + told("site.yml", False, *run)
    [problem] = compared(lines)
    assert problem.startswith(says)


def test_hosts_are_told_apart() -> None:
    lines = told("site.yml", True, "a", host="one") + told("site.yml", False, "a", host="two")
    assert len(compared(lines)) == 2


def test_an_exception_holds_for_its_task_and_side_only() -> None:
    lines = told("site.yml", True, "a") + told("site.yml", False, "a", "b")
    assert compared(lines, {"task": "b", "told_by": "run", **WHY}) == []
    assert len(compared(lines, {"task": "b", "told_by": "check", **WHY})) == 2


def test_an_exception_that_is_not_needed_any_more_is_a_problem() -> None:
    lines = told("site.yml", True, "a") + told("site.yml", False, "a")
    assert compared(lines, {"task": "b", "told_by": "run", **WHY}) == [
        "b: the exception for the run is not needed any more"
    ]


def test_the_last_dry_run_is_compared_with_the_run_right_after_it() -> None:
    lines = (
        told("site.yml", True, "stale")
        + told("create.yml", False, "x")
        + told("site.yml", True, "a")
        + told("verify.yml", False)
        + told("site.yml", False, "a")
        + told("site.yml", False)
    )
    assert compared(lines) == []
    with pytest.raises(ValueError, match=r"no dry run of site\.yml"):
        parity.pair(parity.runs(told("site.yml", False, "a")))


def test_every_exception_of_a_scenario_has_its_reason() -> None:
    tables = list((ROOT / "molecule").glob("*/vars/parity.yml"))
    assert tables
    for path in tables:
        for entry in parity.table(path):
            assert set(entry) == {"task", "told_by", "why"}
            assert entry["told_by"] in ("check", "run")
            assert entry["why"]


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., list[parity.Run]]:
    """Runs a small playbook with the callback; what it wrote of it."""
    (tmp_path / "site.yml").write_text(
        "- hosts: localhost\n"
        "  connection: local\n"
        "  gather_facts: false\n"
        "  tasks:\n"
        "    - name: It is there\n"
        f"      ansible.builtin.copy: {{content: x, dest: {tmp_path}/there, mode: '0600'}}\n"
    )

    def run(*arguments: str) -> list[parity.Run]:
        subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "site.yml", *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "tests" / "support" / "callback"),
                "ANSIBLE_CALLBACKS_ENABLED": "changed_tasks",
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "PTSLINK_CHANGED_TASKS": str(tmp_path / "told"),
            },
            capture_output=True,
            check=True,
        )
        return parity.runs((tmp_path / "told").read_text().splitlines())

    return run


def test_the_callback_tells_dry_runs_and_runs(recorded: Callable[..., list[parity.Run]]) -> None:
    recorded("--check")
    recorded()
    check, run, again = recorded()
    assert (check.playbook, check.check, run.check) == ("site.yml", True, False)
    assert check.changed == run.changed == {("localhost", "It is there"): 1}
    assert not again.changed
