"""The journal in SQLite: one batch of entries in one transaction.

Synchronous and single-threaded; `ptslink.journal.writer` decides when it is called and from where.
WAL with synchronous=FULL: COMMIT returns after the log is on the disk. Rows are inserted many to a
statement, which is what lets the event loop run while SQLite works: Python's sqlite3 gives the
interpreter lock up once a statement, not once a batch.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ptslink.journal import place, schema
from ptslink.journal.detail import capped
from ptslink.journal.entry import Entry, Evidence, Fact, Retention
from ptslink.journal.filing import UNREADABLE_TYPE, record_key
from ptslink.journal.logfiles import moment, to_json
from ptslink.journal.rekey import rekey
from ptslink.jsonpts.columns import COLUMNS
from ptslink.jsonpts.content import Told

#: Rows in one statement: a batch is cut into the largest of these that fit, and what is less than
#: all of them goes at once. A statement costs as much as two rows; there are few enough of them
#: that SQLite's prepared ones are found again.
_CHUNKS: Final = (128, 64, 32)

_MESSAGES: Final = "messages (id, controller, received, transport, link, notes, raw)"
_RECORDS: Final = (
    "records (id, message, packet, controller, type, local_time, utc, flags, natural_key)"
)
_HELD: Final = "UPDATE held SET rows = ?, bytes = ? WHERE name = ?"
_EVIDENCE: Final = "evidence (at, kind, controller, peer, code, detail)"

#: Types that get a name in the journal whatever else is in there, and how many others do. Anybody
#: may invent one; the rest share `OTHER_TYPE`, and are named by the message itself.
NAMED_TYPES: Final = frozenset({*COLUMNS, "UploadConfiguration", UNREADABLE_TYPE})
MAX_TYPES: Final = 500
OTHER_TYPE: Final = "Other"

Row = tuple[Any, ...]

_DAY_MS: Final = 86_400_000
#: Steps of SQLite's machine between two reports that it still works.
_STEPS: Final = 1_000_000
#: Code of a link whose end nobody saw, because the server was killed.
ENDED_UNCLEAN: Final = "ended-unclean"


@dataclass(slots=True)
class _Held:
    """How much there is of something; mirrors its row in the table `held`."""

    rows: int = 0
    bytes: int = 0

    def beyond(self, rows: int, size: int) -> bool:
        return self.rows > rows or self.bytes > size


class JournalGone(Exception):
    """The file was removed or replaced while it was open; what is written goes nowhere."""


class Store:
    """An open journal file.

    Args:
        path: the database file; created when absent, its directory is not.
        status_history_seconds: at most one status is added to the history per controller and this
            many seconds.
        retention: when evidence and history are deleted; `trim` does.
        working: called now and then while opening takes long, with what is being done.

    Attributes:
        identity: of the file, made with it.
        begun: when it was made, in milliseconds since 1970 UTC, or 0 if that is not known.
        before: identity of the journal that was at the path before, or "" if that is not known.

    Raises:
        sqlite3.Error, OSError, schema.JournalRefused: it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        *,
        status_history_seconds: int = 300,
        retention: Retention | None = None,
        working: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = path
        self._working = working
        self._retention = retention or Retention()
        self._sample_ms = status_history_seconds * 1000
        self._expect_copies = False
        self._claim = place.Claim(path)
        try:
            place.require_local(path)
            place.make_private(path)
            place.renew_log(path, lambda: working("the log that was left behind is synced"))
            self._connection = sqlite3.connect(
                path,
                isolation_level=None,
                check_same_thread=False,
                timeout=5.0,
                cached_statements=256,
            )
            try:
                self._open()
            except BaseException:
                self._connection.close()
                raise
        except BaseException:
            self._claim.release()
            raise

    def _open(self) -> None:
        execute = self._connection.execute
        (mode,) = execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise schema.JournalRefused(
                f"the file system of {self.path.parent} has no shared memory for a write-ahead log"
                f" (SQLite stays in mode {mode}); set journal.path to a directory on a disk of"
                " this machine, such as ext4 or xfs"
            )
        execute("PRAGMA synchronous = FULL")
        # Whoever is confirmed next waits while a checkpoint copies pages into the file. Four times
        # as many pages at a time spare some syncs; they bring no more messages through, and are
        # felt in the slowest of a hundred.
        execute("PRAGMA wal_autocheckpoint = 1000")
        execute("PRAGMA cache_size = -16384")
        self._connection.set_progress_handler(self._still_working, _STEPS)
        version = schema.prepare(self._connection)
        self._tells_links = schema.complete(self._connection, version)
        if self._tells_links:
            rekey(self._connection, self._working)
        self._connection.set_progress_handler(None, 0)
        (self.identity, first) = execute("SELECT identity, first FROM journal").fetchone()
        self.begun = first // 100 if first > 1 else 0
        self.before = self._claim.before
        self._claim.remember(self.identity)
        stat = self.path.stat()
        self._inode = (stat.st_dev, stat.st_ino)
        self._next_message = self._next("messages")
        floor = schema.clock_id()
        self._next_record = max(self._next("records"), floor)
        self._next_variant = max(self._next("variants"), floor)
        # Told to the file with whatever is written first: to open it needs no space on the disk.
        self._floor: int | None = self._next_record
        self._held = {
            name: _Held(rows, size)
            for name, rows, size in execute("SELECT name, rows, bytes FROM held")
        }
        self._recalled: dict[str, tuple[int, Told]] = {}
        self._controllers: dict[str, int] = {
            pts_id: id_ for id_, pts_id in execute("SELECT id, pts_id FROM controllers")
        }
        self._types: dict[str, int] = {
            name: id_ for id_, name in execute("SELECT id, name FROM types")
        }
        #: When a status of a controller last went into the history, as far as it was asked.
        self._sampled: dict[int, int | None] = {}

    def _still_working(self) -> None:
        self._working("the journal is brought up to date")

    @property
    def newest(self) -> int:
        """Id of the last message, 0 when there is none."""
        return self._next_message - 1

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
        try:
            self._connection.close()
        finally:
            self._claim.release()

    def checkpoint(self) -> None:
        """Fold the whole log into the file, durably.

        Raises:
            sqlite3.Error: it could not be, or a reader holds some of it.
        """
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("a reader keeps the log from being checkpointed")

    def end_links(self) -> int:
        """Close the links that are open on record; for a process that has none yet.

        Returns:
            How many there were: the process before was killed, or the machine lost power.

        Raises:
            sqlite3.Error: none was closed.
        """
        if not self._tells_links:
            return 0
        execute = self._connection.execute
        left = execute("SELECT number, controller, peer, since FROM links").fetchall()
        if not left:
            return 0
        now = time.time_ns() // 1_000_000
        (last,) = execute(
            "SELECT max(coalesce((SELECT at FROM evidence ORDER BY id DESC LIMIT 1), 0),"
            " coalesce((SELECT received FROM messages ORDER BY id DESC LIMIT 1), 0))"
        ).fetchone()
        ends = []
        for number, controller, peer, since in left:
            detail = {
                "since": since,
                # As long as anything was on record, at least.
                "seconds": max(last - since, 0) / 1000,
                "ended_before": moment(now),
                "error": f"The server ended unclean before {moment(now)}; nobody saw this link end",
            }
            ends.append(
                Evidence("link", now, controller, peer, ENDED_UNCLEAN, to_json(detail), number)
            )
        self.write([], ends)
        return len(ends)

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
        marks = (self._next_message, self._next_record, self._next_variant)
        held = {name: replace(amount) for name, amount in self._held.items()}
        new_controllers: list[str] = []
        new_types: list[str] = []
        sampled: dict[int, int] = {}
        execute("BEGIN IMMEDIATE")
        try:
            if self._floor is not None:
                execute("UPDATE journal SET floor = ?", (self._floor,))
            duplicates = self._write_entries(
                entries, new_controllers, new_types, sampled, look_up=look_up
            )
            if evidence:
                rows = [_evidence_row(item) for item in evidence]
                self._insert(_EVIDENCE, rows)
                self._hold("evidence", rows)
                self._keep_links(evidence)
            for name, amount in self._held.items():
                if amount != held[name]:
                    execute(_HELD, (amount.rows, amount.bytes, name))
            execute("COMMIT")
            self._require_file()
        except BaseException:
            self._next_message, self._next_record, self._next_variant = marks
            self._held = held
            for name in new_controllers:
                del self._controllers[name]
            for name in new_types:
                del self._types[name]
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        finally:
            self._recalled.clear()  # a rolled back row's number is given out again
        self._floor = None
        self._sampled.update(sampled)
        return duplicates

    def _keep_links(self, evidence: Sequence[Evidence]) -> None:
        """Have on record which links are open."""
        if not self._tells_links:
            return
        many = self._connection.executemany
        begun = [
            (item.link, item.controller, item.peer, item.at)
            for item in evidence
            if item.link and item.kind == "attempt"
        ]
        ended = [(item.link,) for item in evidence if item.link and item.kind == "link"]
        if begun:
            many("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?)", begun)
        if ended:
            many("DELETE FROM links WHERE number = ?", ended)

    def _hold(self, name: str, rows: Sequence[Row]) -> None:
        held = self._held[name]
        held.rows += len(rows)
        held.bytes += sum(len(row[-1]) for row in rows) + len(rows) * schema.ROW_BYTES

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

    @property
    def overfull(self) -> bool:
        """Whether there is more evidence or history than is to be kept; costs nothing to ask."""
        return any(
            self._held[name].beyond(rows, size) for name, _, _, _, rows, size in self._kept()
        )

    def _kept(self) -> Iterable[tuple[str, str, str, int, int, int]]:
        """What is deleted again: (table, its column of time, of text, days, rows, bytes)."""
        kept = self._retention
        yield (
            *("evidence", "at", "detail"),
            *(kept.evidence_days, kept.evidence_rows, kept.evidence_bytes),
        )
        yield (
            *("status_history", "received", "data"),
            *(kept.status_days, sys.maxsize, kept.status_bytes),
        )

    def trim(self, now: int, *, most: int = 2000) -> bool:
        """Delete evidence and history beyond their age, number or size, the oldest first.

        Args:
            now: milliseconds since 1970.
            most: rows of a table to look at, so that no entry waits long.

        Returns:
            Whether there may be more to delete.

        Raises:
            sqlite3.Error: nothing of a table was deleted.
        """
        more = False
        for table in self._kept():
            more |= self._trim(*table, now, most)
        return more

    def _trim(
        self, table: str, time: str, text: str, days: int, rows: int, size: int, now: int, most: int
    ) -> bool:
        execute = self._connection.execute
        held = replace(self._held[table])
        over = held.beyond(rows, size)
        # A little more than needed, or each row that comes would cost a commit for one that goes.
        spare = rows - rows // 100, size - size // 100
        found = execute(
            f"SELECT id, {time}, length({text}) FROM {table} ORDER BY id LIMIT ?", (most,)
        ).fetchall()
        gone = []
        for id_, at, length in found:
            if at < now - days * _DAY_MS or (over and held.beyond(*spare)):
                gone.append((id_,))
                held.rows -= 1
                held.bytes -= length + schema.ROW_BYTES
        if not gone:
            return False
        execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(f"DELETE FROM {table} WHERE id = ?", gone)
            execute(_HELD, (held.rows, held.bytes, table))
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        self._held[table] = held
        return len(gone) == most

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
        keyed: list[tuple[Entry, list[tuple[Fact, int, bytes]]]] = []
        latest: dict[int, Row] = {}
        history: list[Row] = []
        offsets: dict[int, int] = {}
        for entry in entries:
            controller = self._controllers.get(entry.controller)
            if controller is None:
                controller = self._new_controller(entry)
                new_controllers.append(entry.controller)
            keys: list[tuple[Fact, int, bytes]] = []
            for fact in entry.facts:
                type_ = self._types.get(fact.type)
                if type_ is None:
                    type_ = self._type(fact.type, new_types)
                keys.append((fact, type_, record_key(controller, type_, fact)))
            keyed.append((entry, keys))
            status = entry.status
            if status is not None:
                row = (controller, entry.received, status.data)
                latest[controller] = row
                last = sampled.get(controller) or self._last_sample(controller)
                if last is None or not 0 <= entry.received - last < self._sample_ms:
                    sampled[controller] = entry.received
                    history.append(row)
                if status.offset_minutes is not None:
                    offsets[controller] = status.offset_minutes
        # Nearly every batch is all new, and to look for copies costs as much as to insert: without
        # a look, the unique index finds them.
        known = self._known([key for _, keys in keyed for _, _, key in keys]) if look_up else {}
        messages: list[Row] = []
        records: list[Row] = []
        variants: list[Row] = []
        told: set[tuple[int, bytes]] = set()
        duplicates = 0
        for entry, keys in keyed:
            if entry.only_status:
                continue
            controller = self._controllers[entry.controller]
            message = self._next_message
            needed = not keys
            for fact, type_, key in keys:
                earlier = known.get(key)
                if earlier is None:
                    known[key] = (self._next_record, entry, fact.index)
                    records.append(
                        (
                            self._next_record,
                            message,
                            fact.index,
                            controller,
                            type_,
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
                content = self._other_content(entry, fact.index, earlier)
                if content is not None and (earlier[0], content) not in told:
                    told.add((earlier[0], content))
                    variants.append((self._next_variant, earlier[0], message, fact.index, content))
                    self._next_variant += 1
                    needed = True
            # A reply or a question beside copies is in no record.
            if needed or entry.has_others:
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
            many("INSERT INTO variants VALUES (?, ?, ?, ?, ?)", variants)
        if latest:
            many("INSERT OR REPLACE INTO status_latest VALUES (?, ?, ?)", latest.values())
        if history:
            many(
                "INSERT INTO status_history (controller, received, data) VALUES (?, ?, ?)", history
            )
            self._hold("status_history", history)
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

    def _other_content(
        self, entry: Entry, index: int, earlier: tuple[int, Entry | int, int]
    ) -> bytes | None:
        """What a packet tells, if neither the record with its key nor a variant of it told that."""
        record, where, packet = earlier
        if isinstance(where, Entry):
            before: bytes | None = where.raw
            number = -id(where)
        else:
            row = self._connection.execute(
                "SELECT raw FROM messages WHERE id = ?", (where,)
            ).fetchone()
            before, number = (row[0] if row is not None else None), where
        if before == entry.raw and packet == index:
            return None
        content = self._told("new", -id(entry), entry.raw, entry.controller).content(index)
        if before is not None:
            told = self._told("earlier", number, before, entry.controller)
            if told.content(packet) == content:
                return None
        known = self._connection.execute(
            "SELECT 1 FROM variants WHERE record = ? AND content = ?", (record, content)
        )
        return None if known.fetchone() else content

    def _told(self, role: str, number: int, raw: bytes, controller: str) -> Told:
        """What a message tells. The last one is remembered: a message of a thousand packets that
        comes again must not be decoded a thousand times."""
        recalled = self._recalled.get(role)
        if recalled is None or recalled[0] != number:
            recalled = self._recalled[role] = (number, Told(raw, controller))
        return recalled[1]

    def _last_sample(self, controller: int) -> int | None:
        if controller not in self._sampled:
            (self._sampled[controller],) = self._connection.execute(
                "SELECT max(received) FROM status_history WHERE controller = ?", (controller,)
            ).fetchone()
        return self._sampled[controller]

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

    def _type(self, name: str, new_types: list[str]) -> int:
        """The number of a Type that has none yet, or that of all the others."""
        if name not in NAMED_TYPES and len(self._types) >= MAX_TYPES:
            name = OTHER_TYPE
        if name in self._types:
            return self._types[name]
        cursor = self._connection.execute("INSERT INTO types (name) VALUES (?)", (name,))
        id_ = int(cursor.lastrowid or 0)
        self._types[name] = id_
        new_types.append(name)
        return id_


def _evidence_row(item: Evidence) -> Row:
    return (item.at, item.kind, item.controller, item.peer, item.code, capped(item.detail))


def _chunks(count: int) -> Iterable[tuple[int, int]]:
    start = 0
    while start < count:
        left = count - start
        size = next((size for size in _CHUNKS if size <= left), left)
        yield start, size
        start += size
