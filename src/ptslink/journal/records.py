"""Records as a back office reads them: in the order they were committed, behind a cursor."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ptslink.journal.entry import Flag
from ptslink.journal.logfiles import moment
from ptslink.journal.store import OTHER_TYPE
from ptslink.jsonpts.envelope import Message, decode_to_show, shown

MAX_PAGE: Final = 1000
#: Rows looked at for one page at most, so that a filter which nothing passes ends soon.
MAX_LOOKED_AT: Final = 100_000

_CONDITIONS: Final = """
 AND (:type IS NULL OR r.type IN (SELECT id FROM types WHERE name IN (:type, :other)))
 AND (:controller IS NULL
      OR r.controller = (SELECT id FROM controllers WHERE pts_id = :controller))
"""
_RECORDS: Final = f"""
SELECT r.id, c.pts_id, t.name, m.received, r.packet, m.id, m.raw,
       (SELECT count(*) FROM variants v WHERE v.record = r.id), r.local_time, r.utc, r.flags
FROM records r
JOIN messages m ON m.id = r.message
JOIN controllers c ON c.id = r.controller
JOIN types t ON t.id = r.type
WHERE r.id > :after AND r.id <= :last {_CONDITIONS}
ORDER BY r.id LIMIT :limit
"""
_VARIANTS: Final = f"""
SELECT v.id, c.pts_id, t.name, m.received, v.packet, m.id, m.raw, v.record
FROM variants v
CROSS JOIN records r ON r.id = v.record
JOIN messages m ON m.id = v.message
JOIN controllers c ON c.id = r.controller
JOIN types t ON t.id = r.type
WHERE v.id > :after AND v.id <= :last {_CONDITIONS}
ORDER BY v.id LIMIT :limit
"""


class CursorRefused(Exception):
    """The cursor is not one of this journal: to go on behind it might leave records out.

    Attributes:
        code: ``cursor-ahead`` or ``other-journal``.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True, kw_only=True)
class Told:
    """One packet as it was told.

    Attributes:
        id: the cursor; ids grow in the order of commits and are never used twice.
        controller, type: who told it, and what it is.
        received: ISO 8601 UTC.
        data: Data as sent, or None when there was none that can be read.
        message: where data is None, the whole message as text.
    """

    id: int
    controller: str
    type: str
    received: str
    data: msgspec.Raw | None
    message: str | None

    def json(self) -> bytes:
        """It as one line of JSON."""
        return msgspec.json.encode(self)


@dataclass(slots=True, kw_only=True)
class Record(Told):
    """One fact.

    Attributes:
        local_time: controller-local, as sent, or None.
        utc: best-effort ISO 8601 UTC, or None.
        flags: names of doubts.
        variants: how many packets came with the same natural key and other content.
    """

    local_time: str | None
    utc: str | None
    flags: list[str]
    variants: int


@dataclass(slots=True, kw_only=True)
class Variant(Told):
    """A packet with the natural key of a record and other content.

    Attributes:
        record: id of that record.
    """

    record: int


@dataclass(slots=True)
class Page:
    """An answer of the read API.

    Attributes:
        records: in order.
        next: the cursor for the next question. Beyond the last record where nothing more passed
            the filter; the same as before only when there was nothing more to look at.
        journal: the identity of the file.
    """

    records: list[Record] | list[Variant]
    next: int
    journal: str


def read_page(
    connection: sqlite3.Connection,
    *,
    after: int = 0,
    limit: int = MAX_PAGE,
    type_: str | None = None,
    controller: str | None = None,
    variants: bool = False,
    journal: str | None = None,
    code_page: str = "",
) -> Page:
    """Records (or variants) with an id greater than `after`, oldest first, at most `limit`.

    Args:
        journal: identity of the journal the cursor is from, if known.
        code_page: codec of messages that are not UTF-8; without one, U+FFFD stands for each part
            of them that is not.

    Raises:
        CursorRefused: see there.
        sqlite3.Error: the file cannot be read.
    """
    table = "variants" if variants else "records"
    identity, first, newest = connection.execute(
        f"SELECT identity, first, max(floor, (SELECT coalesce(max(id), 0) FROM {table}))"
        " FROM journal"
    ).fetchone()
    if journal is not None and journal != identity and after >= first:
        raise CursorRefused(
            "other-journal",
            f"The cursor {after} is of journal {journal}; this one is {identity}. If it took the"
            " other's place on this machine, its clock went back meanwhile; begin anew with"
            " after=0 and without journal, and expect records again that you have.",
        )
    if after > newest:
        raise CursorRefused(
            "cursor-ahead",
            f"The cursor {after} is greater than any id given out by journal {identity}, which is"
            f" at {newest}: it is of another machine, or this one's clock went back. Find out"
            " which, then begin anew with after=0, and expect records again that you have.",
        )
    (last,) = connection.execute(
        f"SELECT max(id) FROM (SELECT id FROM {table} WHERE id > ? ORDER BY id LIMIT ?)",
        (after, MAX_LOOKED_AT),
    ).fetchone()
    if last is None:
        return Page([], after, identity)
    rows = connection.execute(
        _VARIANTS if variants else _RECORDS,
        {
            **{"after": after, "last": last, "limit": limit},
            **{"type": type_, "other": OTHER_TYPE, "controller": controller},
        },
    )
    found: list[Any] = []
    count = 0
    for row, told in _told(rows, code_page):
        count += 1
        after = row[0]
        if type_ is None or told["type"] == type_:
            found.append(_variant(row, told) if variants else _record(row, told))
    return Page(found, after if count == limit else last, identity)


def _told(rows: sqlite3.Cursor, code_page: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    message_id, message = -1, Message("", [])
    for row in rows:
        id_, pts_id, name, received, packet, of, raw = row[:7]
        if of != message_id:
            message_id, message = of, decode_to_show(raw, code_page)
        found = message.packets[packet] if packet < len(message.packets) else None
        data = found.data if found is not None else b""
        if name == OTHER_TYPE and found is not None:
            name = found.type
        yield (
            row,
            {
                "id": id_,
                "controller": pts_id,
                "type": name,
                "received": moment(received),
                "data": msgspec.Raw(data) if data else None,
                "message": None if data else shown(raw, code_page),
            },
        )


def _record(row: Any, told: dict[str, Any]) -> Record:
    variants, local, utc, flags = row[7:]
    return Record(
        **told,
        local_time=local,
        utc=moment(utc * 1000)[:19] + "Z" if utc is not None else None,
        flags=flag_names(flags),
        variants=variants,
    )


def _variant(row: Any, told: dict[str, Any]) -> Variant:
    return Variant(**told, record=row[7])


def read(connection: sqlite3.Connection, **options: Any) -> list[Record]:
    """The records of one `read_page`."""
    return [item for item in read_page(connection, **options).records if isinstance(item, Record)]


def flag_names(flags: int) -> list[str]:
    """The names of the flags, such as ``clock-reset``."""
    return [str(flag.name).lower().replace("_", "-") for flag in Flag if flags & flag]
