"""The log files people read, and the JSON lines for the journal of systemd.

One thread writes both, so that a slow disk or a stuck journald never holds up a controller. Files
are ``TYPE_YYYY-MM-DD.log`` (UTC days), one line an event: whatever a peer wrote passes through
`ptslink.escape.visible` here, where it leaves.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from ptslink.escape import visible

_LOG: Final = logging.getLogger(__name__)
#: Lines waiting for the disk at most; beyond, lines are dropped and counted.
MAX_WAITING: Final = 20_000
#: Lines are collected for this long (seconds) and written together: opening a file, and waking a
#: thread, cost as much as many lines.
COLLECT_SECONDS: Final = 0.25
_RETENTION_EVERY: Final = 600.0
#: Seconds that the thread waits for lines at most, so that it is seen to be alive.
TICK_SECONDS: Final = 5.0
#: Types of files that tell how links come and go; all others hold messages.
CONNECTION_TYPES: Final = frozenset(
    {"Connection", "ConnectionIssue", "Disconnection", "ShortConnection", "Server"}
)
_TYPE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_NAME: Final = re.compile(rf"({_TYPE.pattern})_(\d{{4}}-\d\d-\d\d)\.log")


@dataclass(slots=True)
class Line:
    """One event for the logs; on standard output it is a JSON line.

    Attributes:
        at: milliseconds since 1970 UTC.
        files: types of the files it goes to, such as ``("Connection", "ShortConnection")``.
        message: the sentence people search for.
        facts: further facts, a JSON object as text.
    """

    at: int
    files: tuple[str, ...]
    message: str
    facts: str = "{}"


class PacketLine(msgspec.Struct):
    """One received packet for the log of its Type; it does not go to standard output.

    Attributes:
        at: milliseconds since 1970 UTC.
        controller, type, id: as in the message; the id as its JSON bytes.
        size: bytes of its Data.
        data: its Data, or None where the configuration keeps it out of the logs.
    """

    at: int
    controller: str
    type: str
    id: bytes
    size: int
    data: bytes | None

    @property
    def file(self) -> str:
        """The type of the file it goes to: its own, if a file can be named after it."""
        return self.type if _TYPE.fullmatch(self.type) else "Other"

    def text(self, moment: str) -> str:
        """The line without its end, given the text of its time."""
        number = self.id.isdigit()
        id_ = self.id.decode("utf-8", "replace")
        quoted = f'"{id_}"' if number else to_json(id_)
        data = (
            "" if self.data is None else f',"data":{to_json(self.data.decode("utf-8", "replace"))}'
        )
        return (
            f"{moment} PTS Controller {self.controller} {self.type} "
            f'{{"id":{quoted},"bytes":{self.size}{data}}}'
        )


def _reported(what: str, error: Exception) -> str:
    """Put a fault of ours on standard error; returns it in one line."""
    _LOG.error("%s", what, exc_info=error)
    return f"{what}: {type(error).__name__}: {error}"


_encode = msgspec.json.Encoder().encode


def to_json(content: object) -> str:
    """Compact JSON text, in one line. A lone surrogate is escaped."""
    try:
        return _encode(content).decode()
    except UnicodeEncodeError:
        return json.dumps(content, separators=(",", ":"))


def file_name(type_: str, day: str) -> str:
    """The file of a type on a UTC day, ``YYYY-MM-DD``."""
    return f"{type_}_{day}.log"


def parse_name(name: str) -> tuple[str, str] | None:
    """(type, day) of a log file's name, or None for any other file."""
    matched = _NAME.fullmatch(name)
    return (matched[1], matched[2]) if matched else None


@lru_cache(maxsize=1024)  # thousands of lines fall into one second
def moment(at: int) -> str:
    """A time in milliseconds as ISO 8601 with a Z."""
    return f"{datetime.fromtimestamp(at // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"


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
        self._waiting: deque[Line | PacketLine] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._next_retention = 0.0
        self._written = 0  # bytes since the last look at the retention
        self._ticked = time.monotonic()
        #: Lines that were not written, since start.
        self.dropped = 0
        #: Why the last lines were not all written, or "".
        self.failure = ""

    @property
    def ticked(self) -> float:
        """When the thread was last seen to go on, on the monotonic clock; minus infinity when it
        has ended."""
        ended = self._thread.ident is not None and not self._thread.is_alive()
        return -math.inf if ended and not self._closing.is_set() else self._ticked

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, line: Line | PacketLine) -> None:
        """Take a line; never waits."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what is waiting and end the thread; gives up after two seconds of stuck disk."""
        self._closing.set()
        self._wake.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wake.wait(TICK_SECONDS)
            closing = self._closing.wait(COLLECT_SECONDS)
            self._wake.clear()
            waiting = self._waiting
            lines = [waiting.popleft() for _ in range(len(waiting))]
            try:
                if lines:  # else a failure would look mended
                    self._write(lines)
                self._retain()
            except Exception as error:
                # Whatever nobody foresaw: the lines to come are written all the same.
                self.failure = _reported("lines could not be written", error)
                self.dropped += len(lines)
            self._ticked = time.monotonic()

    def _write(self, lines: Iterable[Line | PacketLine]) -> None:
        texts: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        stream: list[str] = []
        failure = ""
        for line in lines:
            try:
                self._sort_in(line, texts, stream)
            except Exception as error:
                self.dropped += 1
                failure = failure or _reported("a line could not be written", error)
        if stream and self._out is not None:
            with contextlib.suppress(OSError, ValueError):
                self._out.write("".join(stream).encode("utf-8", "replace"))
                self._out.flush()
        for (type_, day), parts in texts.items():
            try:
                self._append(file_name(type_, day), "".join(parts))
            except OSError as error:
                failure = f"{self._directory}: {error.strerror}"
                self.dropped += len(parts)
        self.failure = failure

    def _sort_in(
        self,
        line: Line | PacketLine,
        texts: defaultdict[tuple[str, str], list[str]],
        stream: list[str],
    ) -> None:
        """Put the text of a line where it belongs: into `texts` by type and day, into `stream`."""
        at = moment(line.at)
        if isinstance(line, PacketLine):
            texts[line.file, at[:10]].append(visible(line.text(at)) + "\n")
            return
        facts = line.facts
        if self._out is not None:
            rest = "}" if facts == "{}" else f",{facts[1:]}"
            event = f'{{"time":"{at}","message":{to_json(line.message)}{rest}'
            stream.append(visible(event) + "\n")
        if self._directory is not None:
            text = visible(f"{at} {line.message} {facts}") + "\n"
            for type_ in line.files:
                texts[type_, at[:10]].append(text)

    def _append(self, name: str, text: str) -> None:
        assert self._directory is not None
        path = self._directory / name
        try:
            handle = path.open("ab")
        except FileNotFoundError:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            handle = path.open("ab")
        with handle:
            self._written += handle.write(text.encode("utf-8", "replace"))

    def _retain(self) -> None:
        due = time.monotonic() >= self._next_retention or self._written > self._keep_bytes // 20
        if self._directory is None or not due:
            return
        self._next_retention = time.monotonic() + _RETENTION_EVERY
        self._written = 0
        with contextlib.suppress(OSError):
            expired(self._directory, self._keep_days, self._keep_bytes, time.time(), delete=True)


def expired(
    directory: Path, keep_days: int, keep_bytes: int, now: float, *, delete: bool = False
) -> list[Path]:
    """Log files past their age, and those to give up for the total size; only files of ours.

    The logs of messages go first, the oldest day and within it the largest file: what is in them is
    in the journal too. What is known of connections goes only when that is not enough.

    Args:
        now: seconds since 1970.
        delete: remove them too.
    """
    oldest = f"{datetime.fromtimestamp(now - keep_days * 86_400, UTC):%Y-%m-%d}"
    total = 0
    found = []
    kept = []
    for path in directory.iterdir():
        named = parse_name(path.name)
        if named is None:
            continue
        type_, day = named
        if day < oldest:
            found.append(path)
            continue
        size = path.stat().st_size
        total += size
        kept.append((type_ in CONNECTION_TYPES, day, -size, path))
    for _, _, size, path in sorted(kept):
        if total <= keep_bytes:
            break
        total += size
        found.append(path)
    if delete:
        for path in found:
            path.unlink(missing_ok=True)
    return found
