"""Records as files: JSON lines, or CSV with a column for each member of the specification."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterable, Iterator
from io import StringIO
from typing import Final

import msgspec
from msgspec import Raw

from ptslink.journal.records import MAX_PAGE, Record, read
from ptslink.jsonpts.columns import COLUMNS

COMMON: Final = ("id", "controller", "type", "received", "local_time", "utc", "flags", "variants")

_members = msgspec.json.Decoder(dict[str, Raw])
_text = msgspec.json.Decoder(str)


def all_records(
    connection: sqlite3.Connection, *, after: int, type_: str | None, controller: str | None
) -> Iterator[Record]:
    """Every record after the cursor, page by page, each page a read of its own."""
    while True:
        page = list(
            read(connection, after=after, limit=MAX_PAGE, type_=type_, controller=controller)
        )
        if not page:
            return
        yield from page
        after = page[-1].id


def json_lines(records: Iterable[Record]) -> Iterator[tuple[int, str]]:
    """(cursor, line) for each record."""
    for record in records:
        yield record.id, record.json().decode() + "\n"


def csv_lines(records: Iterable[Record], type_: str | None) -> Iterator[tuple[int, str]]:
    """(cursor, line), the header first with cursor 0.

    With a Type the members of the specification have columns, and what else came is JSON in
    ``other``; without one, all of Data is. Numbers are written as the controller sent them.
    """
    columns = COLUMNS.get(type_ or "", ())
    last = "other" if columns else "data"
    yield 0, _row([*COMMON, *columns, last])
    for record in records:
        common = [
            record.id,
            record.controller,
            record.type,
            record.received,
            record.local_time or "",
            record.utc or "",
            " ".join(record.flags),
            record.variants,
        ]
        if not columns:
            data = bytes(record.data).decode("utf-8", "replace") if record.data else ""
            yield record.id, _row([*common, data])
            continue
        members = _object(record.data)
        values = [_cell(members.pop(name, None)) for name in columns]
        other = msgspec.json.encode(members).decode() if members else ""
        yield record.id, _row([*common, *values, other])


def _object(data: Raw | None) -> dict[str, Raw]:
    if data is None:
        return {}
    try:
        return _members.decode(data)
    except msgspec.DecodeError:
        return {"": data}


def _cell(value: Raw | None) -> str:
    if value is None:
        return ""
    raw = bytes(value)
    if raw[:1] == b'"':
        text = _text.decode(raw)
        # A spreadsheet takes such a text for a formula; a controller's names are set by people.
        return "'" + text if text[:1] in ("=", "+", "-", "@") else text
    return "" if raw == b"null" else raw.decode("utf-8", "replace")


def _row(values: Iterable[object]) -> str:
    out = StringIO()
    csv.writer(out, lineterminator="\n").writerow(values)
    return out.getvalue()
