"""The cursor file of ``ptslink export``: how far a back office is, and what is under way to it.

What is exported and how far that goes are two files, and the process may end between any two steps.
So the cursor file is the one that decides: the output is written whole under another name, then the
cursor file says in one rename both that it is done and what is still to be given its name.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

PARTIAL: Final = ".part"


class CursorFault(Exception):
    """The cursor file cannot be used; the text says why and what to do."""


class Cursor(msgspec.Struct, omit_defaults=True):
    """How far an export is.

    Attributes:
        cursor: id of the last one that was exported or looked at.
        journal: identity of the journal it is of, or None as long as that was not known.
        what: what is exported: the table and the filter. Another choice needs a cursor of its own.
        output: a complete output that is still to be given its name, or "".
    """

    cursor: int = 0
    journal: str | None = None
    what: str | None = None
    output: str = ""


def read_cursor(path: Path) -> Cursor:
    """The cursor in the file; a fresh one when there is none.

    Raises:
        CursorFault: it holds something else.
        OSError: it cannot be read.
    """
    try:
        text = path.read_bytes().strip()
    except FileNotFoundError:
        return Cursor()
    try:
        # A bare number is what older versions left.
        if text.isdigit():
            return Cursor(int(text))
        return msgspec.json.decode(text, type=Cursor)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        raise CursorFault(f"{path} does not hold a cursor: {text[:40]!r}") from error


def write_cursor(path: Path, cursor: Cursor) -> None:
    """Put the cursor into the file, durably: the old one or the new one is there, never neither.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(path.name + PARTIAL)
    with fresh.open("wb") as handle:
        handle.write(msgspec.json.encode(cursor) + b"\n")
        handle.flush()
        os.fsync(handle.fileno())
    fresh.replace(path)
    sync_directory(path.parent)


def publish(output: Path) -> bool:
    """Give a complete output its name. Returns whether that was still to be done.

    Raises:
        CursorFault: there is another file of that name.
        OSError: it cannot be renamed.
    """
    partial = output.with_name(output.name + PARTIAL)
    if not partial.exists():
        return False
    if output.exists():
        raise CursorFault(
            f"{output} is still there; take it away and run again, what comes after it waits in"
            f" {partial}"
        )
    partial.replace(output)
    sync_directory(output.parent)
    return True


def sync_directory(directory: Path) -> None:
    """Make renames within a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else exports with this cursor file meanwhile.

    Raises:
        CursorFault: somebody does.
        OSError: the lock file cannot be made.
    """
    with path.with_name(path.name + ".lock").open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CursorFault(f"another export with {path} is under way") from error
        yield
