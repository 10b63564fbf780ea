"""The thin edge between collectors and the machine: run a command, read a file, both bounded.

Standard library only. Nothing here changes the machine. Tests put captured outputs in its place.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ptslink.doctor.evidence import Evidence, Json, Status
from ptslink.doctor.search_path import search_path

#: The most that is kept of a command's output or a file: a log does not fill the memory.
LARGEST = 4 << 20


@dataclass(frozen=True, slots=True)
class Output:
    """What a command said. ``code`` is None when it did not run to its end."""

    text: str
    code: int | None = 0
    #: Why there is no result: not installed, not allowed, too slow. Empty when it ran.
    missing: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def why(self) -> str:
        """One line on why it failed."""
        last = (self.error or self.text).strip().splitlines()
        return self.missing or (last[-1] if last else f"exit status {self.code}")


def journal_refused(output: Output) -> str:
    """Why journalctl's answer says nothing of the lines asked for; empty where it was answered.

    Exit status 1 without a word on standard error means that no line fits. Who may not read the
    system's journal gets his own lines, a hint, and exit status 0.
    """
    if output.missing:
        return output.missing
    if "insufficient permissions" in output.error or "not seeing messages" in output.error:
        return "the journal is shown to root and the group systemd-journal only"
    if "No journal files" in output.error:
        return "there is no journal to read"
    return output.why if output.code and output.error.strip() else ""


class Machine(Protocol):
    """What collectors may ask of the machine they look at."""

    def run(self, *command: str, seconds: float = 5.0) -> Output:
        """Run a command without a shell; never raises for what the command does."""

    def read(self, path: str, *, tail: bool = False) -> str | None:
        """The text of a file (its end when it is overlong and *tail*), None if unreadable."""

    def names(self, path: str) -> list[str] | None:
        """The names in a directory, None if it cannot be listed."""

    def is_root(self) -> bool:
        """Whether we run with uid 0."""


class LocalMachine:
    """The machine this runs on."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        kept = os.environ if environment is None else environment
        self._environment = {
            **kept,
            "PATH": search_path(kept),
            "LC_ALL": "C.UTF-8",
            "SYSTEMD_COLORS": "0",
            "SYSTEMD_PAGER": "",
        }

    def run(self, *command: str, seconds: float = 5.0) -> Output:
        program = shutil.which(command[0], path=self._environment["PATH"])
        if program is None:
            return Output("", None, f"{command[0]} is not installed")
        try:
            done = subprocess.run(
                [program, *command[1:]],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Output("", None, f"{command[0]} did not answer within {seconds:g} s")
        except OSError as error:
            return Output("", None, f"{command[0]}: {error.strerror or error}")
        return Output(
            done.stdout[:LARGEST].decode("utf-8", "replace"),
            done.returncode,
            "",
            done.stderr[:LARGEST].decode("utf-8", "replace"),
        )

    def read(self, path: str, *, tail: bool = False) -> str | None:
        try:
            with Path(path).open("rb") as file:
                if tail:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - LARGEST))
                # In pieces: the kernel refuses one big read of a file in /proc/sys.
                parts = iter(lambda: file.read(65536), b"")
                return b"".join(itertools.islice(parts, LARGEST // 65536)).decode(
                    "utf-8", "replace"
                )
        except OSError:
            return None

    def names(self, path: str) -> list[str] | None:
        try:
            return sorted(os.listdir(path))  # noqa: PTH208 - only the names are wanted
        except OSError:
            return None

    def is_root(self) -> bool:
        return os.geteuid() == 0


class Stopwatch:
    """Makes server-side evidence with the time since the last piece."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def piece(
        self, probe: str, status: Status, seen: str, facts: Mapping[str, Json] | None = None
    ) -> Evidence:
        now = time.monotonic()
        ms, self._since = (now - self._since) * 1000, now
        return Evidence(probe, status, seen, facts or {}, ms, "server")

    def skipped(self, probe: str, why: str) -> Evidence:
        return self.piece(probe, Status.SKIPPED, why)

    def guarded(
        self, probe: str, look: Callable[[], Evidence | Iterable[Evidence]]
    ) -> Iterator[Evidence]:
        """What *look* sees. Where it breaks, what it saw before that counts, and *probe* is
        skipped and says why: what one program printed must not cost what the others show."""
        try:
            seen = look()
            yield from (seen,) if isinstance(seen, Evidence) else seen
        except Exception as error:
            yield self.skipped(probe, f"could not be read: {type(error).__name__}: {error}")
