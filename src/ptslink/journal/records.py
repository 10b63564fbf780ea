"""Records as a back office reads them: in the order they were committed, behind a cursor."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ptslink.journal.entry import Flag
from ptslink.journal.logfiles import moment
from ptslink.jsonpts.envelope import Message, decode

MAX_PAGE: Final = 1000

_QUERY: Final = """
SELECT r.id, c.pts_id, t.name, m.received, r.local_time, r.utc, r.flags, r.packet, m.id, m.raw,
       (SELECT count(*) FROM variants v WHERE v.record = r.id)
FROM records r
JOIN messages m ON m.id = r.message
JOIN controllers c ON c.id = r.controller
JOIN types t ON t.id = r.type
WHERE r.id > :after
  AND (:type IS NULL OR t.name = :type)
  AND (:controller IS NULL OR c.pts_id = :controller)
ORDER BY r.id LIMIT :limit
"""


@dataclass(slots=True)
class Record:
    """One fact.

    Attributes:
        id: the cursor; ids grow in the order of commits and are never used twice.
        controller, type: who told it, and what it is.
        received: ISO 8601 UTC.
        local_time: controller-local, as sent, or None.
        utc: best-effort ISO 8601 UTC, or None.
        flags: names of doubts.
        variants: how many packets came with the same natural key and other content.
        data: Data as sent, or None when there was none that can be read.
    """

    id: int
    controller: str
    type: str
    received: str
    local_time: str | None
    utc: str | None
    flags: list[str]
    variants: int
    data: msgspec.Raw | None

    def json(self) -> bytes:
        """The record as one line of JSON."""
        return msgspec.json.encode(self)


def read(
    connection: sqlite3.Connection,
    *,
    after: int = 0,
    limit: int = MAX_PAGE,
    type_: str | None = None,
    controller: str | None = None,
) -> Iterator[Record]:
    """Records with an id greater than `after`, oldest first, at most `limit`."""
    rows = connection.execute(
        _QUERY, {"after": after, "limit": limit, "type": type_, "controller": controller}
    )
    message_id, message = -1, Message("", [])
    for id_, pts_id, name, received, local, utc, flags, packet, of, raw, variants in rows:
        if of != message_id:
            message_id, message = of, decode(raw)
        yield Record(
            id=id_,
            controller=pts_id,
            type=name,
            received=moment(received),
            local_time=local,
            utc=moment(utc * 1000)[:19] + "Z" if utc is not None else None,
            flags=flag_names(flags),
            variants=variants,
            data=_data(message, packet),
        )


def flag_names(flags: int) -> list[str]:
    """The names of the flags, such as ``clock-reset``."""
    return [str(flag.name).lower().replace("_", "-") for flag in Flag if flags & flag]


def _data(message: Message, packet: int) -> msgspec.Raw | None:
    if packet >= len(message.packets) or not message.packets[packet].data:
        return None
    return msgspec.Raw(message.packets[packet].data)


def page(records: list[Record], after: int) -> dict[str, Any]:
    """The answer of the read API: the records and the cursor for the next question."""
    return {"records": records, "next": records[-1].id if records else after}
