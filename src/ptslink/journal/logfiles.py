"""The log files people read, and the JSON lines for the journal of systemd.

One thread writes both, so that a slow disk or a stuck journald never holds up a controller. Files
are ``TYPE_YYYY-MM-DD.log`` (UTC days), one line an event; no separator that data could imitate.
"""

from __future__ import annotations

import contextlib
import json
import queue
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

#: Lines waiting for the disk at most; beyond, lines are dropped and counted.
MAX_WAITING: Final = 20_000
_RETENTION_EVERY: Final = 600.0
_NAME: Final = re.compile(r"([A-Za-z][A-Za-z0-9]{0,63})_(\d{4}-\d\d-\d\d)\.log")


@dataclass(frozen=True, slots=True)
class Line:
    """One event for the logs.

    Attributes:
        at: milliseconds since 1970 UTC.
        files: types of the files it goes to, such as ``("Connection", "ShortConnection")``.
        message: the sentence people search for.
        fields: further facts, JSON-ready.
        out: whether it also goes to standard output as a JSON line.
    """

    at: int
    files: tuple[str, ...]
    message: str
    fields: Mapping[str, Any]
    out: bool = True


def file_name(type_: str, at: int) -> str:
    """The file of a type on the UTC day of a time in milliseconds."""
    return f"{type_}_{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d}.log"


def parse_name(name: str) -> tuple[str, str] | None:
    """(type, day) of a log file's name, or None for any other file."""
    matched = _NAME.fullmatch(name)
    return (matched[1], matched[2]) if matched else None


def moment(at: int) -> str:
    """A time in milliseconds as ISO 8601 with a Z."""
    return f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"


class LogFiles:
    """The writer of log files and JSON lines.

    Args:
        directory: where the files go; None writes none.
        keep_days, keep_bytes: retention by age, and by size of all files together.
        out: stream for JSON lines, or None.
    """

    def __init__(
        self, directory: Path | None, *, keep_days: int, keep_bytes: int, out: BinaryIO | None
    ) -> None:
        self._directory = directory
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes
        self._out = out
        self._queue: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._next_retention = 0.0
        self.dropped = 0
        self.failure = ""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, line: Line) -> None:
        """Take a line; never waits."""
        if self._queue.qsize() >= MAX_WAITING:
            self.dropped += 1
            return
        self._queue.put(line)

    def close(self) -> None:
        """Write what is waiting and end the thread; gives up after two seconds of stuck disk."""
        self._queue.put(None)
        self._thread.join(2.0)

    def _run(self) -> None:
        running = True
        while running:
            batch = [self._queue.get()]
            # A short rest makes one write of many lines under load.
            time.sleep(0.005)
            with contextlib.suppress(queue.Empty):
                while len(batch) < MAX_WAITING:
                    batch.append(self._queue.get_nowait())
            running = None not in batch
            self._write([line for line in batch if line is not None])
            if time.monotonic() >= self._next_retention:
                self._next_retention = time.monotonic() + _RETENTION_EVERY
                self._retain()

    def _write(self, lines: list[Line]) -> None:
        texts: dict[str, list[str]] = {}
        stream: list[str] = []
        for line in lines:
            facts = json.dumps(line.fields, separators=(",", ":"), ensure_ascii=False)
            if line.out and self._out is not None:
                head = json.dumps({"time": moment(line.at), "message": line.message})
                stream.append(head[:-1] + (", " + facts[1:] if len(facts) > 2 else "}"))
            if self._directory is not None and line.files:
                text = f"{moment(line.at)} {line.message} {facts}\n"
                for type_ in line.files:
                    texts.setdefault(file_name(type_, line.at), []).append(text)
        if stream and self._out is not None:
            with contextlib.suppress(OSError, ValueError):
                self._out.write(("\n".join(stream) + "\n").encode("utf-8", "replace"))
                self._out.flush()
        if self._directory is None:
            return
        try:
            for name, parts in texts.items():
                self._append(name, "".join(parts))
            self.failure = ""
        except OSError as error:
            self.failure = f"{self._directory}: {error.strerror}"
            self.dropped += sum(len(parts) for parts in texts.values())

    def _append(self, name: str, text: str) -> None:
        assert self._directory is not None
        path = self._directory / name
        try:
            handle = path.open("ab")
        except FileNotFoundError:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            handle = path.open("ab")
        with handle:
            handle.write(text.encode("utf-8", "replace"))

    def _retain(self) -> None:
        if self._directory is None:
            return
        with contextlib.suppress(OSError):
            expired(self._directory, self._keep_days, self._keep_bytes, time.time(), delete=True)


def expired(
    directory: Path, keep_days: int, keep_bytes: int, now: float, *, delete: bool = False
) -> list[Path]:
    """Log files past their age, and the oldest ones beyond the total size; only files of ours.

    Args:
        now: seconds since 1970.
        delete: remove them too.
    """
    oldest = f"{datetime.fromtimestamp(now - keep_days * 86_400, UTC):%Y-%m-%d}"
    files = sorted(
        ((named[1], path) for path in directory.iterdir() if (named := parse_name(path.name))),
        reverse=True,
    )
    total = 0
    found = []
    for day, path in files:
        total += path.stat().st_size
        if day < oldest or total > keep_bytes:
            found.append(path)
            if delete:
                path.unlink(missing_ok=True)
    return found
