"""Bringing the natural keys of an older journal up to date.

A fact that comes again is recognised by its key. Keys made by another version's rules would let
every replayed record in a second time, so they are made anew from the messages as received.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from ptslink.journal import schema
from ptslink.journal.filing import facts_of, record_key

#: Records read at a time.
_PAGE: Final = 1000


def rekey(connection: sqlite3.Connection, version: int) -> None:
    """Give every record the key it would get today, and the file today's version; all or nothing.

    A fact that an older version took for two keeps both records: they were handed out.

    Raises:
        sqlite3.Error: nothing was changed.
    """
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    try:
        schema.upgrade(connection, version)
        last = 0
        while rows := execute(
            "SELECT r.id, r.packet, r.controller, r.type, m.id, m.raw, r.natural_key"
            " FROM records r JOIN messages m ON m.id = r.message"
            " WHERE r.id > ? ORDER BY r.id LIMIT ?",
            (last, _PAGE),
        ).fetchall():
            read, facts = None, {}
            for record, packet, controller, type_, message, raw, before in rows:
                if message != read:
                    read, facts = message, {fact.index: fact for fact in facts_of(raw)}
                if packet in facts:
                    key = record_key(controller, type_, facts[packet])
                    if key == before:
                        continue
                    execute(
                        "UPDATE OR IGNORE records SET natural_key = ? WHERE id = ?", (key, record)
                    )
            last = rows[-1][0]
        execute(f"PRAGMA user_version = {schema.VERSION}")
        execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            execute("ROLLBACK")
        raise
