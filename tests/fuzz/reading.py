"""What must hold of every journal: all of it can be read, whatever is in it."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptslink.journal.export import Reading, csv_lines, json_lines
from ptslink.journal.reader import open_reader, summary
from ptslink.journal.records import read_page

#: As deep as a text of the fuzzer's can be, which is deeper than Python reads by itself.
_DEPTH = 20_000


def read_back(path: Path, *, page_bytes: int, limit: int = 1000) -> list[dict[str, Any]]:
    """Read all of a journal in every way there is. Returns its records as ``/records`` has them.

    Args:
        page_bytes, limit: of one page.

    Raises:
        AssertionError: a record is missing, comes twice, or cannot be read by others.
    """
    with open_reader(path) as connection, _deep():
        records: list[dict[str, Any]] = []
        for table in ("records", "variants"):
            ids = [id_ for (id_,) in connection.execute(f"SELECT id FROM {table} ORDER BY id")]
            variants = table == "variants"
            found = [*_pages(connection, page_bytes, limit, variants)]
            assert [item["id"] for item in found] == ids, "not every record, once"
            _lines(connection, ids, variants)
            for type_ in (None, "UploadPumpTransaction"):
                _table(connection, type_, variants)
            records = records if variants else found
        json.loads(json.dumps(summary(connection)))
        return records


def _pages(
    connection: sqlite3.Connection, page_bytes: int, limit: int, variants: bool
) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        page = read_page(
            connection, after=after, limit=limit, variants=variants, page_bytes=page_bytes
        )
        text = page.json()
        read = json.loads(text.decode("utf-8"))
        found = read["records"]
        assert len(text) <= page_bytes or len(found) <= 1, "a page beyond its budget"
        texts = {item["id"] for item in found if item["message"] is not None}
        for item in found:
            told = [item[name] is not None for name in ("data", "message", "message_of")]
            assert sum(told) == 1, "what it says is nowhere, or twice"
            assert item["message_of"] is None or item["message_of"] in texts
        yield from found
        if read["next"] == after:
            return
        after = read["next"]


def _lines(connection: sqlite3.Connection, ids: list[int], variants: bool) -> None:
    text = "".join(json_lines(Reading(connection, 0, variants=variants)))
    lines = text.encode("utf-8").split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line)["id"] for line in lines] == ids


def _table(connection: sqlite3.Connection, type_: str | None, variants: bool) -> None:
    expected = [*Reading(connection, 0, variants=variants, type_=type_)]
    reading = Reading(connection, 0, variants=variants, type_=type_)
    text = "".join(csv_lines(reading, type_, variants=variants))
    csv.field_size_limit(1 << 30)
    header, *rows = csv.reader(io.StringIO(text.encode("utf-8").decode(), newline=""), strict=True)
    assert [int(row[0]) for row in rows] == [item.id for item in expected]
    assert all(len(row) == len(header) for row in rows)


@contextmanager
def _deep() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(_DEPTH)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
