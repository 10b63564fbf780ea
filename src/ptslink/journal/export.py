"""Records as files: JSON lines, or CSV with a column for each member of the specification."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Any, Final

import msgspec
from msgspec import Raw

from ptslink.escape import visible
from ptslink.journal.logfiles import to_json
from ptslink.journal.records import Told, read_page
from ptslink.jsonpts.columns import COLUMNS

COMMON: Final = ("id", "controller", "type", "received", "local_time", "utc", "flags", "variants")
VARIANT: Final = ("id", "record", "controller", "type", "received")

_members = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)


class Reading:
    """Everything after a cursor, page by page, each page a read of its own.

    Attributes:
        next: the cursor behind all that was given out so far.
        journal: identity of the journal, once iteration began.

    Raises:
        CursorRefused, sqlite3.Error: on iteration.
    """

    def __init__(self, connection: sqlite3.Connection, after: int, **options: Any) -> None:
        self.next = after
        self.journal: str | None = options.pop("journal", None)
        self._connection = connection
        self._options = options

    def __iter__(self) -> Iterator[Told]:
        while True:
            page = read_page(
                self._connection, after=self.next, journal=self.journal, **self._options
            )
            self.journal = page.journal
            yield from page.records
            if page.next == self.next:
                return
            self.next = page.next


def json_lines(records: Iterable[Told]) -> Iterator[str]:
    """A line for each record: the same JSON whatever is in it, for a terminal and a file alike."""
    for record in records:
        yield visible(record.json().decode("utf-8", "replace")) + "\n"


def csv_lines(
    records: Iterable[Told], type_: str | None, *, variants: bool = False
) -> Iterator[str]:
    """The header, then a line for each record (or variant).

    With a Type the members of the specification have columns, and what else came is JSON in
    ``other``; without one, all of Data is. Numbers are written as the controller sent them. Where
    there is no Data, the last column has the message, or ``{"message_of":ID}`` where a line above
    has it.

    A text has no control characters (see `ptslink.escape`), so that a record is one line; one that
    begins like a formula begins with an apostrophe (docs/records.md).
    """
    common_columns = VARIANT if variants else COMMON
    columns = COLUMNS.get(type_ or "", ())
    last = "other" if columns else "data"
    yield _row([*common_columns, *columns, last])
    for record in records:
        common = [_plain(getattr(record, name)) for name in common_columns]
        if record.data is None:
            text = record.message
            if text is None:
                text = to_json({"message_of": record.message_of})
            yield _row([*common, *[""] * len(columns), _plain(text)])
        elif not columns:
            yield _row([*common, bytes(record.data).decode("utf-8", "replace")])
        else:
            members = _object(record.data)
            values = [_cell(members.pop(name, None)) for name in columns]
            other = msgspec.json.encode(members).decode("utf-8", "replace") if members else ""
            yield _row([*common, *values, other])


def _plain(value: object) -> object:
    if isinstance(value, list):
        return " ".join(value)
    return _harmless(value) if isinstance(value, str) else "" if value is None else value


def _object(data: Raw | None) -> dict[str, Raw]:
    if data is None:
        return {}
    try:
        return _members.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"": data}


def _cell(value: Raw | None) -> str:
    if value is None:
        return ""
    raw = bytes(value)
    if raw[:1] == b'"':
        try:
            return _harmless(_text.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # half a character, say: as it was sent, then
    return "" if raw == b"null" else raw.decode("utf-8", "replace")


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula; a controller's names are set by people."""
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text


def _row(values: Iterable[object]) -> str:
    out = StringIO()
    csv.writer(out, lineterminator="\n").writerow(
        [visible(value) if isinstance(value, str) else value for value in values]
    )
    return out.getvalue()
