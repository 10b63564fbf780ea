"""Records as a back office reads them: in the order they were committed, behind a cursor."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ptslink.journal.entry import Flag
from ptslink.journal.logfiles import moment
from ptslink.journal.store import OTHER_TYPE
from ptslink.jsonpts.envelope import Message, decode_to_show, shown

MAX_PAGE: Final = 1000
#: Bytes of a page at most, as JSON; only a record that has more by itself gets a larger one.
PAGE_BYTES: Final = 8 * 1024 * 1024
#: Rows looked at for one page at most, so that a filter which nothing passes ends soon.
MAX_LOOKED_AT: Final = 100_000
#: Name of the flag of a record of which something could not be converted. It is not stored: it
#: tells of what this release could not read.
NOT_CONVERTED: Final = "not-converted"

# Within JSON, control characters stand between two members or are escaped: a blank says the same.
_IN_ONE_LINE: Final = bytes.maketrans(b"\t\r\n", b"   ")

_CONDITIONS: Final = """
 AND (:type IS NULL OR r.type IN (SELECT id FROM types WHERE name IN (:type, :other)))
 AND (:controller IS NULL
      OR r.controller = (SELECT id FROM controllers WHERE pts_id = :controller))
"""
# Without the message itself, which would be read again for each of its packets.
_RECORDS: Final = f"""
SELECT r.id, c.pts_id, t.name, m.received, r.packet, r.message,
       (SELECT count(*) FROM variants v WHERE v.record = r.id), r.local_time, r.utc, r.flags
FROM records r
LEFT JOIN messages m ON m.id = r.message
LEFT JOIN controllers c ON c.id = r.controller
LEFT JOIN types t ON t.id = r.type
WHERE r.id > :after AND r.id <= :last {_CONDITIONS}
ORDER BY r.id LIMIT :limit
"""
_VARIANTS: Final = f"""
SELECT v.id, c.pts_id, t.name, m.received, v.packet, v.message, v.record
FROM variants v
CROSS JOIN records r ON r.id = v.record
LEFT JOIN messages m ON m.id = v.message
LEFT JOIN controllers c ON c.id = r.controller
LEFT JOIN types t ON t.id = r.type
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
        data: Data as sent, in one line; None when there was none that can be read.
        message: where data is None, the whole message as text, unless it is on the page already.
        message_of: id of the one on the same page that has this one's message.
    """

    id: int
    controller: str
    type: str
    received: str
    data: msgspec.Raw | None
    message: str | None
    message_of: int | None = None

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

    def json(self) -> bytes:
        """It as JSON."""
        return msgspec.json.encode(self)


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
    page_bytes: int = PAGE_BYTES,
) -> Page:
    """Records (or variants) with an id greater than `after`, oldest first, at most `limit`.

    A record that cannot be converted is given as far as it can, with the flag `NOT_CONVERTED`:
    one that nobody could read would keep back all those after it.

    Args:
        journal: identity of the journal the cursor is from, if known.
        code_page: codec of messages that are not UTF-8; without one, U+FFFD stands for each part
            of them that is not.
        page_bytes: size of the page as JSON at most, unless its only record is larger.

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
    # What stands around the records of a page.
    size = len(Page([], 2**62, identity).json())
    found: list[Any] = []
    messages = _Messages(connection, code_page)
    passed, whole = after, True
    for count, row in enumerate(rows, 1):
        item = messages.told(row, variants)
        if type_ is None or item.type == type_:
            size += len(item.json()) + 1
            if found and size > page_bytes:
                whole = False
                break
            messages.given(row, item)
            found.append(item)
        passed, whole = row[0], count < limit
    return Page(found, last if whole else passed, identity)


class _Messages:
    """Makes records and variants of rows, and has each message on a page once."""

    def __init__(self, connection: sqlite3.Connection, code_page: str) -> None:
        self._connection = connection
        self._code_page = code_page
        self._number = -1
        self._raw: bytes | None = None
        self._message = Message("", [])
        self._carriers: dict[int, int] = {}

    def told(self, row: Any, variant: bool) -> Record | Variant:
        """What a row says, as far as it can be converted."""
        convert = _variant if variant else _record
        try:
            return convert(row, self._told(row))
        except Exception:
            # Whatever trips over one row must not keep the others from their readers.
            return convert(row, self._bare(row), NOT_CONVERTED)

    def given(self, row: Any, item: Record | Variant) -> None:
        """The item is on the page, and its message with it."""
        if item.message is not None:
            self._carriers[row[5]] = item.id

    def _told(self, row: Any) -> dict[str, Any]:
        id_, pts_id, name, received, packet, of = row[:6]
        self._read(of)
        found = self._message.packets[packet] if packet < len(self._message.packets) else None
        data = found.data if found is not None else b""
        if name == OTHER_TYPE and found is not None:
            name = found.type
        return {
            **{"id": id_, "controller": pts_id, "type": name, "received": moment(received)},
            "data": msgspec.Raw(data.translate(_IN_ONE_LINE)) if data else None,
            **({"message": None} if data else self._text(of)),
        }

    def _bare(self, row: Any) -> dict[str, Any]:
        id_, pts_id, name, _, _, of = row[:6]
        named = {"id": id_, "controller": pts_id or "", "type": name or "", "received": ""}
        return {**named, "data": None, **self._text(of)}

    def _read(self, number: int) -> None:
        if number != self._number:
            row = self._connection.execute(
                "SELECT raw FROM messages WHERE id = ?", (number,)
            ).fetchone()
            self._number, self._raw = number, row[0] if row is not None else None
            self._message = (
                decode_to_show(self._raw, self._code_page)
                if self._raw is not None
                else Message("", [])
            )

    def _text(self, number: int) -> dict[str, Any]:
        carrier = self._carriers.get(number)
        if carrier is not None:
            return {"message": None, "message_of": carrier}
        return {"message": shown(self._raw or b"", self._code_page)}


def _record(row: Any, told: dict[str, Any], *doubts: str) -> Record:
    variants, local, utc, flags = row[6:]
    text = _utc(utc)
    if text is None and utc is not None:
        doubts = (NOT_CONVERTED,)
    return Record(
        **told,
        local_time=local,
        utc=text,
        flags=[*flag_names(flags), *doubts],
        variants=variants,
    )


def _utc(seconds: int | None) -> str | None:
    """ISO 8601; None also for what is before the year 1 or after 9999."""
    try:
        return moment(seconds * 1000)[:19] + "Z" if seconds is not None else None
    except (ValueError, OverflowError, OSError):
        return None


def _variant(row: Any, told: dict[str, Any], *_: str) -> Variant:
    return Variant(**told, record=row[6])


def read(connection: sqlite3.Connection, **options: Any) -> list[Record]:
    """The records of one `read_page`."""
    return [item for item in read_page(connection, **options).records if isinstance(item, Record)]


def flag_names(flags: int) -> list[str]:
    """The names of the flags, such as ``clock-reset``."""
    return [str(flag.name).lower().replace("_", "-") for flag in Flag if flags & flag]
