"""The linters, as processes that run beside other tests and are asked when it is their turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


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


#: The last one shows a clash of names, or an import that fails, without a machine.
LINTERS: dict[str, list[str | Path]] = {
    "ruff check": [BIN / "ruff", "check", "."],
    "ruff format": [BIN / "ruff", "format", "--check", "."],
    "mypy strict": [BIN / "mypy"],
    "yamllint": [BIN / "yamllint", "--strict", "."],
    "shellcheck": ["shellcheck", "--external-sources", *shell_scripts()],
    "ansible-lint production": [BIN / "ansible-lint", "--offline", "--profile", "production"],
    "pytest collects every suite": [
        *(sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"),
        *("tests/lint", "tests/unit", "tests/machines"),
    ],
}


class Linting:
    """A linter at work over the tree; it gives way to the tests it runs beside."""

    def __init__(self, command: list[str | Path]) -> None:
        # Files, not pipes: nobody reads before the end.
        self._room = tempfile.TemporaryDirectory()
        self._said = [Path(self._room.name) / name for name in ("stdout", "stderr")]
        with self._said[0].open("wb") as stdout, self._said[1].open("wb") as stderr:
            self._process = subprocess.Popen(
                ["nice", *command],
                cwd=ROOT,
                env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def objection(self) -> str | None:
        """What the linter says of a tree it does not accept; None of one it does. Waits for it."""
        if self._process.wait() == 0:
            return None
        said = "\n".join(path.read_text(errors="replace") for path in self._said).strip()
        return said or f"no word, status {self._process.returncode}"

    def stop(self) -> None:
        """End the linter and whatever it started, where nobody waited for it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._room.cleanup()
