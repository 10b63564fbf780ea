"""The journal in SQLite: one batch of entries in one transaction.

Synchronous and single-threaded; `ptslink.journal.writer` decides when it is called and from where.
WAL with synchronous=FULL: COMMIT returns after the log is on the disk. Rows are inserted many to a
statement, which is what lets the event loop run while SQLite works: Python's sqlite3 gives the
interpreter lock up once a statement, not once a batch.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from ptslink.journal import schema
from ptslink.journal.entry import Entry, Evidence, Fact
from ptslink.journal.filing import record_key
from ptslink.journal.rekey import rekey
from ptslink.jsonpts.envelope import Packet, decode
from ptslink.jsonpts.natural import canonical_content

#: Statement sizes: a batch is cut into the largest that fit. Few sizes, so that SQLite's prepared
#: statements are found again.
_CHUNKS: Final = (128, 64, 32, 16, 8, 4, 2, 1)

_MESSAGES: Final = "messages (id, controller, received, transport, link, notes, raw)"
_RECORDS: Final = (
    "records (id, message, packet, controller, type, local_time, utc, flags, natural_key)"
)
_EVIDENCE: Final = "evidence (at, kind, controller, peer, code, detail)"

Row = tuple[Any, ...]


class JournalGone(Exception):
    """The file was removed or replaced while it was open; what is written goes nowhere."""


class Store:
    """An open journal file.

    Args:
        path: the database file; created when absent, its directory is not.
        status_history_seconds: at most one status is added to the history per controller and this
            many seconds.

    Raises:
        sqlite3.Error, OSError, schema.ForeignDatabase: it cannot be opened.
    """

    def __init__(self, path: Path, *, status_history_seconds: int = 300) -> None:
        self.path = path
        self._sample_ms = status_history_seconds * 1000
        self._expect_copies = False
        self._connection = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=5.0
        )
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise

    def _open(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        # A checkpoint copies pages into the file and costs two syncs; the default of 1,000 pages
        # comes round several times a second under load.
        execute("PRAGMA wal_autocheckpoint = 4000")
        execute("PRAGMA cache_size = -16384")
        if schema.prepare(self._connection) < schema.VERSION:
            rekey(self._connection)
        os.chmod(self.path, 0o640)  # noqa: PTH101 - the journal holds names and tag numbers
        stat = self.path.stat()
        self._inode = (stat.st_dev, stat.st_ino)
        self._next_message = self._next("messages")
        self._next_record = self._next("records")
        self._recalled: tuple[int, Sequence[Packet]] | None = None
        self._controllers: dict[str, int] = {
            pts_id: id_ for id_, pts_id in execute("SELECT id, pts_id FROM controllers")
        }
        self._types: dict[str, int] = {
            name: id_ for id_, name in execute("SELECT id, name FROM types")
        }
        self._sampled: dict[int, int] = dict(
            execute("SELECT controller, max(received) FROM status_history GROUP BY controller")
        )

    def _next(self, table: str) -> int:
        (highest,) = self._connection.execute(f"SELECT max(id) FROM {table}").fetchone()
        return (highest or 0) + 1

    def controllers(self) -> list[str]:
        """Ids of every controller that ever had a message stored."""
        return list(self._controllers)

    def offsets(self) -> dict[str, int]:
        """The UTCOffset in minutes each controller told last, as far as any did."""
        return dict(
            self._connection.execute(
                "SELECT pts_id, utc_offset FROM controllers WHERE utc_offset IS NOT NULL"
            )
        )

    def close(self) -> None:
        """Close the file; SQLite folds the log into it if it can."""
        self._connection.close()

    def write(self, entries: Sequence[Entry], evidence: Sequence[Evidence]) -> int:
        """Make the entries and the evidence durable, all or none. Returns how many were copies.

        Raises:
            sqlite3.Error: nothing of it was kept (disk full, I/O error, file locked for long).
            JournalGone: the file is no longer at its path.
        """
        if not self._expect_copies:
            try:
                return self._write(entries, evidence, look_up=False)
            except sqlite3.IntegrityError:
                # There are copies among them: once more, and look each key up.
                self._expect_copies = True
        duplicates = self._write(entries, evidence, look_up=True)
        # Copies come in rows: a replay, or a controller that missed its confirmations.
        self._expect_copies = duplicates > 0
        return duplicates

    def _write(
        self, entries: Sequence[Entry], evidence: Sequence[Evidence], *, look_up: bool
    ) -> int:
        self._require_file()
        execute = self._connection.execute
        marks = (self._next_message, self._next_record)
        new_controllers: list[str] = []
        new_types: list[str] = []
        sampled: dict[int, int] = {}
        execute("BEGIN IMMEDIATE")
        try:
            duplicates = self._write_entries(
                entries, new_controllers, new_types, sampled, look_up=look_up
            )
            if evidence:
                self._insert(_EVIDENCE, [_evidence_row(item) for item in evidence])
            execute("COMMIT")
            self._require_file()
        except BaseException:
            self._next_message, self._next_record = marks
            for name in new_controllers:
                del self._controllers[name]
            for name in new_types:
                del self._types[name]
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        finally:
            self._recalled = None  # a rolled back row's number is given out again
        self._sampled.update(sampled)
        return duplicates

    def probe(self) -> None:
        """See whether the file can be written, without leaving anything in it.

        Raises:
            sqlite3.Error, JournalGone: it cannot.
        """
        self._require_file()
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            # Enough to need a page of the log, so that a full disk shows.
            execute("UPDATE controllers SET utc_offset = utc_offset WHERE id = 1")
            execute(
                "INSERT INTO evidence (at, kind, controller, peer, code, detail)"
                " VALUES (0, 'event', '', '', 'probe', zeroblob(65536))"
            )
            execute("DELETE FROM evidence WHERE id = last_insert_rowid()")
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def trim_evidence(self, before: int, keep_rows: int, *, most: int = 5000) -> int:
        """Delete evidence older than `before` (milliseconds) and all but the newest rows.

        At most `most` rows at a time, so that no entry waits long. Returns the rows deleted.
        """
        cursor = self._connection.execute(
            "DELETE FROM evidence WHERE id IN (SELECT id FROM evidence"
            " WHERE at < ?1 OR id <= (SELECT max(id) FROM evidence) - ?2 ORDER BY id LIMIT ?3)",
            (before, keep_rows, most),
        )
        return cursor.rowcount

    def _require_file(self) -> None:
        try:
            stat = os.stat(self.path)  # noqa: PTH116 - twice a commit; Path.stat is slower
        except OSError as error:
            raise JournalGone(f"{self.path}: {error.strerror}") from error
        if (stat.st_dev, stat.st_ino) != self._inode:
            raise JournalGone(f"{self.path} was replaced by another file")

    def _write_entries(
        self,
        entries: Sequence[Entry],
        new_controllers: list[str],
        new_types: list[str],
        sampled: dict[int, int],
        *,
        look_up: bool,
    ) -> int:
        keyed: list[tuple[Entry, list[tuple[Fact, bytes]]]] = []
        latest: dict[int, Row] = {}
        history: list[Row] = []
        offsets: dict[int, int] = {}
        for entry in entries:
            controller = self._controllers.get(entry.controller)
            if controller is None:
                controller = self._new_controller(entry)
                new_controllers.append(entry.controller)
            keys = []
            for fact in entry.facts:
                type_ = self._types.get(fact.type)
                if type_ is None:
                    type_ = self._new_type(fact.type)
                    new_types.append(fact.type)
                keys.append((fact, record_key(controller, type_, fact)))
            keyed.append((entry, keys))
            status = entry.status
            if status is not None:
                row = (controller, entry.received, status.data)
                latest[controller] = row
                last = sampled.get(controller, self._sampled.get(controller))
                if last is None or not 0 <= entry.received - last < self._sample_ms:
                    sampled[controller] = entry.received
                    history.append(row)
                if status.offset_minutes is not None:
                    offsets[controller] = status.offset_minutes
        # Nearly every batch is all new, and to look for copies costs as much as to insert: without
        # a look, the unique index finds them.
        known = self._known([key for _, keys in keyed for _, key in keys]) if look_up else {}
        messages: list[Row] = []
        records: list[Row] = []
        variants: list[Row] = []
        duplicates = 0
        for entry, keys in keyed:
            if entry.only_status:
                continue
            controller = self._controllers[entry.controller]
            message = self._next_message
            needed = not keys
            for fact, key in keys:
                earlier = known.get(key)
                if earlier is None:
                    known[key] = (self._next_record, entry, fact.index)
                    records.append(
                        (
                            self._next_record,
                            message,
                            fact.index,
                            controller,
                            self._types[fact.type],
                            fact.local_time or None,
                            fact.utc,
                            fact.flags,
                            key,
                        )
                    )
                    self._next_record += 1
                    needed = True
                    continue
                duplicates += 1
                if self._differs(entry, fact.index, earlier):
                    variants.append((earlier[0], message, fact.index))
                    needed = True
            if needed:
                notes = ",".join(entry.notes) or None
                messages.append(
                    (
                        message,
                        controller,
                        entry.received,
                        int(entry.transport),
                        entry.link,
                        notes,
                        entry.raw,
                    )
                )
                self._next_message += 1
        self._insert(_MESSAGES, messages)
        self._insert(_RECORDS, records)
        many = self._connection.executemany
        if variants:
            many("INSERT INTO variants (record, message, packet) VALUES (?, ?, ?)", variants)
        if latest:
            many("INSERT OR REPLACE INTO status_latest VALUES (?, ?, ?)", latest.values())
        if history:
            many(
                "INSERT INTO status_history (controller, received, data) VALUES (?, ?, ?)", history
            )
        if offsets:
            many(
                "UPDATE controllers SET utc_offset = ?1 WHERE id = ?2 AND utc_offset IS NOT ?1",
                [(offset, controller) for controller, offset in offsets.items()],
            )
        return duplicates

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, tuple[int, Entry | int, int]]:
        """Which keys are on record: key -> (record, its message's row, its packet)."""
        known: dict[bytes, tuple[int, Entry | int, int]] = {}
        for start, size in _chunks(len(keys)):
            marks = ",".join("?" * size)
            rows = self._connection.execute(
                "SELECT natural_key, id, message, packet FROM records"
                f" WHERE natural_key IN ({marks})",
                keys[start : start + size],
            )
            for key, record, message, packet in rows:
                known[key] = (record, message, packet)
        return known

    def _differs(self, entry: Entry, index: int, earlier: tuple[int, Entry | int, int]) -> bool:
        """Whether a packet's content is another than that of the record with its key."""
        _, where, packet = earlier
        if isinstance(where, Entry):
            before: Sequence[Packet] | None = _packets(where)
        else:
            before = self._packets_on_record(where)
        if before is None:
            return True
        return content_of(_packets(entry), index) != content_of(before, packet)

    def _packets_on_record(self, message: int) -> Sequence[Packet] | None:
        """The packets of a stored message, or None if it is gone.

        The last one is remembered: a message of a thousand packets that comes again must not be
        fetched and decoded a thousand times.
        """
        if self._recalled is None or self._recalled[0] != message:
            row = self._connection.execute("SELECT raw FROM messages WHERE id = ?", (message,))
            found = row.fetchone()
            if found is None:
                return None
            self._recalled = (message, decode(found[0]).packets)
        return self._recalled[1]

    def _insert(self, table: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        marks = "(" + ",".join("?" * len(rows[0])) + ")"
        for start, size in _chunks(len(rows)):
            self._connection.execute(
                f"INSERT INTO {table} VALUES " + ",".join([marks] * size),
                [value for row in rows[start : start + size] for value in row],
            )

    def _new_controller(self, entry: Entry) -> int:
        cursor = self._connection.execute(
            "INSERT INTO controllers (pts_id, first_seen) VALUES (?, ?)",
            (entry.controller, entry.received),
        )
        id_ = int(cursor.lastrowid or 0)
        self._controllers[entry.controller] = id_
        return id_

    def _new_type(self, name: str) -> int:
        cursor = self._connection.execute("INSERT INTO types (name) VALUES (?)", (name,))
        id_ = int(cursor.lastrowid or 0)
        self._types[name] = id_
        return id_


def content_of(packets: Sequence[Packet], index: int) -> bytes:
    """The stable content of one of a message's packets in canonical form, to compare two copies."""
    return canonical_content(packets[index].data) if index < len(packets) else b""


def _packets(entry: Entry) -> Sequence[Packet]:
    return entry.packets or decode(entry.raw).packets


def _evidence_row(item: Evidence) -> Row:
    return (item.at, item.kind, item.controller, item.peer, item.code, item.detail)


def _chunks(count: int) -> Iterable[tuple[int, int]]:
    start = 0
    while start < count:
        size = next(size for size in _CHUNKS if size <= count - start)
        yield start, size
        start += size
