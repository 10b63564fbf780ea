"""The linters, as processes that run beside other tests and are asked when it is their turn."""

from __future__ import annotations

import hashlib
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
        *("tests/lint", "tests/unit", "tests/security", "tests/plays", "tests/machines"),
    ],
}
#: These two take long and, unlike mypy and ruff, remember nothing: what they accepted once need not
#: be read again. What they look at: these places, and these files anywhere.
REMEMBERED = ("ansible-lint production", "yamllint")
ACCEPTED = ROOT / "build" / "lint" / "accepted-by"
LOOKED_AT_PLACES = ("roles/", "playbooks/", "templates/", "molecule/", "inventory/", "requirements")
LOOKED_AT_FILES = (
    *(".yml", ".yaml", ".j2", ".cfg"),
    *(".ansible-lint", ".ansible-lint-ignore", ".yamllint", ".gitignore"),
)


def looked_at() -> str:
    """A hash over the name and content of all that the remembered linters look at, and over them.

    They are the pins in ``requirements/`` and this file, which has their commands.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    seen = hashlib.sha256(Path(__file__).read_bytes())
    for name in sorted(filter(None, set(listed.stdout.decode().split("\0")))):
        path = ROOT / name
        if name.startswith(LOOKED_AT_PLACES) or name.endswith(LOOKED_AT_FILES):
            content = path.read_bytes() if path.is_file() else b"gone"
            seen.update(f"{name}\0{len(content)}\0".encode() + content)
    return seen.hexdigest()


class Linting:
    """A linter at work over the tree; it gives way to the tests it runs beside."""

    def __init__(self, name: str, command: list[str | Path]) -> None:
        self._looked_at = looked_at() if name in REMEMBERED else None
        self._accepted = ACCEPTED / name.split()[0]
        self._process: subprocess.Popen[bytes] | None = None
        if self._looked_at and self._remembers():
            return
        # Files, not pipes: nobody reads before the end.
        self._room = tempfile.TemporaryDirectory()
        self._said = [Path(self._room.name) / name for name in ("stdout", "stderr")]
        with self._said[0].open("wb") as stdout, self._said[1].open("wb") as stderr:
            self._process = subprocess.Popen(
                ["nice", *command],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PATH": f"{BIN}:{os.environ['PATH']}",
                    # ansible-lint has the playbooks checked, which are for nobody without hosts.
                    "ANSIBLE_INVENTORY": str(ROOT / "inventory" / "example"),
                },
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def objection(self) -> str | None:
        """What the linter says of a tree it does not accept; None of one it does. Waits for it."""
        if self._process is None:
            return None
        if self._process.wait() == 0:
            if self._looked_at and self._looked_at == looked_at():
                ACCEPTED.mkdir(parents=True, exist_ok=True)
                self._accepted.write_text(self._looked_at)
            return None
        said = "\n".join(path.read_text(errors="replace") for path in self._said).strip()
        return said or f"no word, status {self._process.returncode}"

    def _remembers(self) -> bool:
        return self._accepted.is_file() and self._accepted.read_text() == self._looked_at

    def stop(self) -> None:
        """End the linter and whatever it started, where nobody waited for it."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._room.cleanup()
