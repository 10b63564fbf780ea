"""Bringing the natural keys of an older journal up to date.

A fact that comes again is recognised by its key. Keys made by another version's rules would let
every replayed record in a second time, so they are made anew from the messages as received.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from ptslink.journal.filing import facts_of, record_key

#: Records read at a time.
PAGE: Final = 1000
#: Pages in one transaction: what a process that is killed has to do again.
_STEP: Final = 20


def rekey(connection: sqlite3.Connection, working: Callable[[str], None]) -> None:
    """Give every record the key it would get today, if the file says that there are others.

    In steps, each of which the next call need not repeat. A fact that an older version took for
    two keeps both records: they were handed out.

    Args:
        working: called after each step with how far it is.

    Raises:
        sqlite3.Error: what was done before stays done.
    """
    execute = connection.execute
    row = execute("SELECT done FROM rekeying").fetchone()
    if row is None:
        return
    last = row[0]
    (left,) = execute("SELECT count(*) FROM records WHERE id > ?", (last,)).fetchone()
    made = 0
    while last is not None:
        execute("BEGIN IMMEDIATE")
        try:
            for _ in range(_STEP):
                count, last = _page(connection, last)
                made += count
                if last is None:
                    execute("DELETE FROM rekeying")
                    break
            else:
                execute("UPDATE rekeying SET done = ?", (last,))
            execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                execute("ROLLBACK")
            raise
        working(f"natural keys are made anew: {made:,} of {left:,} records")


def _page(connection: sqlite3.Connection, after: int) -> tuple[int, int | None]:
    """Rekey a page of records: (how many there were, id of the last or None without any)."""
    rows = connection.execute(
        "SELECT r.id, r.packet, r.controller, r.type, m.id, m.raw, r.natural_key"
        " FROM records r JOIN messages m ON m.id = r.message"
        " WHERE r.id > ? ORDER BY r.id LIMIT ?",
        (after, PAGE),
    ).fetchall()
    read, facts = None, {}
    for record, packet, controller, type_, message, raw, before in rows:
        if message != read:
            read, facts = message, {fact.index: fact for fact in facts_of(raw)}
        if packet in facts:
            key = record_key(controller, type_, facts[packet])
            if key != before:
                connection.execute(
                    "UPDATE OR IGNORE records SET natural_key = ? WHERE id = ?", (key, record)
                )
    return len(rows), rows[-1][0] if rows else None
