"""What the linters accept, one test a linter, so that a failure names the one that objects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

LINTERS = {
    "ruff check": [BIN / "ruff", "check", "."],
    "ruff format": [BIN / "ruff", "format", "--check", "."],
    "mypy strict": [BIN / "mypy"],
    "yamllint": [BIN / "yamllint", "--strict", "."],
    "ansible-lint production": [BIN / "ansible-lint", "--offline", "--profile", "production"],
}


def shell_scripts() -> list[str]:
    """Every tracked file that bash runs."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "scripts", ".ci", "benchmarks"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    paths = [path for path in listed.stdout.decode().split("\0") if path]
    return [
        path
        for path in paths
        if path.endswith(".sh") or (ROOT / path).read_bytes().startswith(b"#!/usr/bin/env bash")
    ]


@pytest.mark.parametrize("name", LINTERS)
def test_the_linter_accepts_the_tree(name: str) -> None:
    accept(LINTERS[name])


def test_shellcheck_accepts_every_shell_script() -> None:
    scripts = shell_scripts()
    assert "scripts/test" in scripts
    accept(["shellcheck", "--external-sources", *scripts])


def accept(command: list[str | Path]) -> None:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{done.stdout}\n{done.stderr}".strip(), pytrace=False)


def test_every_suite_can_be_collected_together() -> None:
    """A clash of names or an import that fails shows here, without a machine."""
    suites = ["tests/lint", "tests/unit", "tests/machines"]
    accept(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *suites]
    )
