"""The journal's tables, and which version of them a file has."""

from __future__ import annotations

import secrets
import sqlite3
import time
from typing import Final

#: Written to PRAGMA user_version; a file with a higher one is refused. Raised whenever a fact gets
#: another natural key than before: `ptslink.journal.rekey` then brings older files up to date.
VERSION: Final = 3
#: Written to PRAGMA application_id ("PTSL"), so that a stranger's database is not touched.
APPLICATION_ID: Final = 0x5054534C

_TABLES: Final = """
CREATE TABLE controllers (
    id INTEGER PRIMARY KEY,
    pts_id TEXT NOT NULL UNIQUE,
    first_seen INTEGER NOT NULL,
    utc_offset INTEGER
);
CREATE TABLE types (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- One row a message that brought something new; raw is exactly what was received.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    controller INTEGER NOT NULL,
    received INTEGER NOT NULL,
    transport INTEGER NOT NULL,
    link INTEGER NOT NULL,
    notes TEXT,
    raw BLOB NOT NULL
);
-- One row a fact. natural_key is local time, controller, type and digest, in that order, so that
-- the new keys of all controllers land side by side in the index instead of all over it.
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    packet INTEGER NOT NULL,
    controller INTEGER NOT NULL,
    type INTEGER NOT NULL,
    local_time TEXT,
    utc INTEGER,
    flags INTEGER NOT NULL,
    natural_key BLOB NOT NULL
);
CREATE UNIQUE INDEX records_natural_key ON records (natural_key);
-- A packet with the natural key of a record but other content: kept, never dropped in silence.
CREATE TABLE variants (
    id INTEGER PRIMARY KEY,
    record INTEGER NOT NULL,
    message INTEGER NOT NULL,
    packet INTEGER NOT NULL,
    content BLOB NOT NULL DEFAULT x''
);
CREATE TABLE status_latest (
    controller INTEGER PRIMARY KEY,
    received INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE status_history (
    id INTEGER PRIMARY KEY,
    controller INTEGER NOT NULL,
    received INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE evidence (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    controller TEXT NOT NULL,
    peer TEXT NOT NULL,
    code TEXT NOT NULL,
    detail TEXT NOT NULL
);
"""

#: What a file of version 2 lacks.
_SINCE_3: Final = """
CREATE UNIQUE INDEX variants_content ON variants (record, content);
CREATE INDEX status_history_controller ON status_history (controller, received);
-- How much there is of what is deleted again one day, so that nobody has to count.
CREATE TABLE held (name TEXT PRIMARY KEY, rows INTEGER NOT NULL, bytes INTEGER NOT NULL);
-- One row. Records have ids from first on, and since the file was last opened, from floor on.
CREATE TABLE journal (identity TEXT NOT NULL, first INTEGER NOT NULL, floor INTEGER NOT NULL);
"""

#: What a file of this version may lack, since it was added without a new version: releases before
#: it go on with the file all the same.
_ADDED: Final = """
CREATE INDEX IF NOT EXISTS evidence_kind ON evidence (kind, at);
-- Links that are open. Those of a process that was killed are closed by the next one.
CREATE TABLE IF NOT EXISTS links (
    number INTEGER PRIMARY KEY,
    controller TEXT NOT NULL,
    peer TEXT NOT NULL,
    since INTEGER NOT NULL
);
-- No row, or one while keys are made anew: the id up to which they are.
CREATE TABLE IF NOT EXISTS rekeying (done INTEGER NOT NULL);
"""
_ADDED_NAMES: Final = ("evidence_kind", "links", "rekeying")

#: Counted for each row of evidence and history besides its text.
ROW_BYTES: Final = 100

_COUNT: Final = f"""
INSERT INTO held SELECT 'evidence', count(*),
    coalesce(sum(length(detail) + {ROW_BYTES}), 0) FROM evidence;
INSERT INTO held SELECT 'status_history', count(*),
    coalesce(sum(length(data) + {ROW_BYTES}), 0) FROM status_history;
"""


class JournalRefused(Exception):
    """The journal must not be used here, as it is; the text says why and what to do."""


class ForeignDatabase(JournalRefused):
    """The file is not a journal of ours, or one of a newer version."""


def clock_id() -> int:
    """The least id a record may get now: the time, in hundred-thousandths of a second.

    A journal that is opened gives ids from here on. They are greater than all that were ever given
    out on this machine, be the file new or come from a backup, as long as its clock goes forward
    and there were fewer than 100,000 records a second. Fifteen digits, which a spreadsheet keeps.
    """
    return time.time_ns() // 10_000


def prepare(connection: sqlite3.Connection) -> int:
    """Create the tables in an empty file, or check that the file is a journal. Returns its version.

    Raises:
        ForeignDatabase: the file belongs to something else or to a newer ptslink.
        sqlite3.Error: the file cannot be read or written.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_TABLES} {_SINCE_3} {_ADDED} {_COUNT} {_named(clock_id())}"
            f"PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {VERSION}; COMMIT;"
        )
        return VERSION
    if application_id != APPLICATION_ID:
        raise ForeignDatabase("the file is a database of another program")
    if version > VERSION:
        raise ForeignDatabase(f"the file has version {version}; this ptslink knows up to {VERSION}")
    return int(version)


def complete(connection: sqlite3.Connection, version: int) -> bool:
    """Give a file of this version or an older one all the tables of today, at once or not at all.

    Returns:
        Whether it has them: a disk may be too full for it. Of an older version, it always has.

    Raises:
        sqlite3.Error: nothing was changed.
    """
    execute = connection.execute
    names = ",".join("?" * len(_ADDED_NAMES))
    (found,) = execute(
        f"SELECT count(*) FROM sqlite_schema WHERE name IN ({names})", _ADDED_NAMES
    ).fetchone()
    if version == VERSION and found == len(_ADDED_NAMES):
        return True
    execute("BEGIN IMMEDIATE")
    try:
        if version < VERSION:
            _upgrade(connection)
        for statement in _ADDED.split(";"):
            execute(statement)
        if version < VERSION:
            # From here on, older releases refuse it: their keys and those of today do not mix.
            execute("DELETE FROM rekeying")
            execute("INSERT INTO rekeying VALUES (0)")
            execute(f"PRAGMA user_version = {VERSION}")
        execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            execute("ROLLBACK")
        if version == VERSION and getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            return False
        raise
    return True


def _upgrade(connection: sqlite3.Connection) -> None:
    """Give a file of version 2 or older the tables of version 3."""
    execute = connection.execute
    execute("ALTER TABLE variants ADD COLUMN content BLOB NOT NULL DEFAULT x''")
    # None of them was compared with the others: they are told apart as they are.
    execute("UPDATE variants SET content = CAST('variant ' || id AS BLOB)")
    for statement in f"{_SINCE_3}{_COUNT}{_named(1)}".split(";"):
        execute(statement)


def _named(first: int) -> str:
    return f"INSERT INTO journal VALUES ('{secrets.token_hex(8)}', {first}, {first});"
