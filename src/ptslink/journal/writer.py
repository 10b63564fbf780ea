"""Group commit: entries of one turn of the event loop, and all that came while the last commit was
under way, share one commit in a thread of its own.

A disk that stalls therefore delays confirmations, and nothing else: pings, handshakes and health
go on. An entry is settled only after its commit returned; that order is promise number one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec

from ptslink.journal.entry import Entry, Evidence, Health, Retention
from ptslink.journal.filing import derive, file_unreadable
from ptslink.journal.logfiles import moment
from ptslink.journal.schema import JournalRefused
from ptslink.journal.store import JournalGone, Store

#: Entries in one transaction at most, so that a long queue is answered in steps.
MAX_BATCH: Final = 2000
#: Evidence alone may wait this long (seconds) for company before it costs a commit.
EVIDENCE_WAIT: Final = 0.1
#: Evidence kept in memory while the journal is failing.
MAX_EVIDENCE: Final = 10_000
#: Seconds between attempts to get a failing journal back.
RETRY_SECONDS: Final = 1.0
#: Seconds that the thread waits for work at most, so that it is seen to be alive.
TICK_SECONDS: Final = 5.0

#: Seconds between looks at the retention of evidence.
TRIM_SECONDS: Final = 60.0

#: Bytes that may wait for the disk: of messages, and again of evidence.
WAITING_BYTES: Final = 64_000_000

#: Seconds for the thread to end when the journal is closed; a disk that stalls takes longer.
CLOSE_SECONDS: Final = 10.0

#: Pause after a failure of the thread itself.
STUMBLE_SECONDS: Final = 0.05

#: Errors of the journal; any other is one entry's, and the others of its batch must not suffer.
_JOURNAL_ERRORS: Final = (
    sqlite3.OperationalError,
    sqlite3.InternalError,
    JournalGone,
    JournalRefused,
    OSError,
    MemoryError,
)
#: Counted for each piece of evidence besides its text.
_EVIDENCE_BYTES: Final = 500


def _is_of_journal(error: Exception) -> bool:
    # A database that is corrupt raises DatabaseError itself; those of its other subclasses are
    # about values.
    return isinstance(error, _JOURNAL_ERRORS) or type(error) is sqlite3.DatabaseError


def _is_io_error(error: Exception) -> bool:
    """Whether a read, a write or a sync failed, after which the page cache may hold what the disk
    does not. The primary code is in the low byte (https://sqlite.org/rescode.html)."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR
    return isinstance(error, OSError) and error.errno == errno.EIO


_Batch = tuple[list[Entry], list[Evidence]]


class JournalWriter:
    """The journal as the server sees it. Implements `ptslink.journal.entry.Journal`.

    Args:
        open_store: opens the store; called again after a failure, in the writer's thread.
        retry_seconds: time between attempts to get a failing journal back.
        waiting_bytes: of messages that may wait for the disk; beyond, entries are settled as not
            stored until half of it is through.

    Raises:
        whatever `open_store` raises the first time.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        retry_seconds: float = RETRY_SECONDS,
        waiting_bytes: int = WAITING_BYTES,
    ) -> None:
        self._open_store = open_store
        self._most = waiting_bytes
        self._full = False
        self._refused: list[Entry] = []
        self._refusals = 0
        #: Called on the event loop whenever `Health.ok` changes.
        self.on_health: Callable[[Health], None] | None = None
        self._retry = retry_seconds
        self._next_trim = 0.0
        self._health = Health()
        self._identity, self._newest = "", 0
        self._must_checkpoint = False
        self._store: Store | None = self._opened()
        with contextlib.suppress(sqlite3.Error):
            # To begin needs no space on the disk; the next start tries again.
            self._health.unclean = self._store.end_links()
        self._known = set(self._store.controllers())
        #: UTCOffset in minutes by controller, as the file had it when it was opened.
        self.offsets: dict[str, int] = self._store.offsets()
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._entries: list[Entry] = []
        self._evidence: list[Evidence] = []
        self._evidence_waits = False
        # Bytes of evidence ever taken, counted on the loop, and done with, counted in the thread.
        self._evidence_in = self._evidence_out = 0
        self._surplus = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        # Not one that the end of the process waits for: what is not settled was not confirmed.
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._ending = False
        self._failed_at = 0.0
        self._ticked = time.monotonic()
        self._unsettled = self._unsettled_bytes = 0
        self._full_since: int | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def health(self) -> Health:
        if self._lost():
            self._health.ok = False
            self._health.reason = "the journal's thread has ended; restart the server"
            self._health.since = self._health.since or int(time.time() * 1000)
        seen = replace(
            self._health,
            waiting=self._unsettled_bytes,
            refused=self._refusals,
            lost_evidence=self._health.lost_evidence + self._surplus,
        )
        if self._full and seen.ok:
            seen.ok, seen.reason, seen.since = False, self._stalled(), self._full_since
        return seen

    def _stalled(self) -> str:
        return (
            f"the disk takes too long: {self._unsettled_bytes:,} bytes of messages wait for it"
            f" (journal.waiting_megabytes allows {self._most // 1_000_000})"
        )

    @property
    def ticked(self) -> float:
        """When the thread was last seen to go on, on the monotonic clock; minus infinity when it
        has ended."""
        return -math.inf if self._lost() else self._ticked

    def _lost(self) -> bool:
        """Whether the thread is gone although nobody told it to end."""
        return self._loop is not None and not self._ending and not self._thread.is_alive()

    @property
    def unsettled(self) -> int:
        """Entries taken and not yet settled."""
        return self._unsettled

    def knows(self, controller: str) -> bool:
        return controller in self._known

    def start(self) -> None:
        """Start the thread; must be called from the event loop that will append."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def settled(self) -> None:
        """Return once every entry taken so far is settled."""
        while self._unsettled:
            self._waiter = self._waiter or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiter)

    async def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Commit and settle all that was appended, then close the file.

        Returns:
            Whether that was done within so many seconds. What was not settled by then is not
            confirmed to anybody; the thread ends with the process.
        """
        self._end()
        if self._loop is not None:
            await asyncio.to_thread(self._thread.join, seconds)
        return not self._thread.is_alive()

    def abandon(self, timeout: float = CLOSE_SECONDS) -> None:
        """As `close`, for whoever cannot await, started or not; waits for so many seconds.

        May be called any number of times, also before or after `close`.
        """
        self._end()
        if self._loop is not None:
            self._thread.join(timeout)

    def _end(self) -> None:
        if self._ending:
            return
        self._flush()
        self._ending = True
        if self._loop is not None:
            self._queue.put(None)
        elif self._store is not None:
            self._store.close()

    def append(self, entry: Entry) -> None:
        assert self._loop is not None, "start() comes first"
        size = len(entry.raw)
        if self._full or (self._unsettled and self._unsettled_bytes + size > self._most):
            self._refuse(entry)
            return
        self._unsettled += 1
        self._unsettled_bytes += size
        self._entries.append(entry)
        if len(self._entries) == 1:
            self._loop.call_soon(self._flush)

    def _refuse(self, entry: Entry) -> None:
        """The disk does not keep up: tell whoever sent it to send it again."""
        assert self._loop is not None
        self._refusals += 1
        self._refused.append(entry)
        if len(self._refused) == 1:
            self._loop.call_soon(self._settle_refused)
        if not self._full:
            self._full, self._full_since = True, int(time.time() * 1000)
            self._changed(self.health)

    def _settle_refused(self) -> None:
        entries, self._refused = self._refused, []
        for entry in entries:
            if entry.settled is not None:
                self._tell_owner(entry)

    def record(self, evidence: Evidence) -> None:
        size = len(evidence.detail) + _EVIDENCE_BYTES
        if self._evidence_in - self._evidence_out + size > self._most:
            self._surplus += 1
            return
        self._evidence_in += size
        self._evidence.append(evidence)
        if not self._evidence_waits:
            assert self._loop is not None, "start() comes first"
            # To wake the thread for each costs more than the record of a handshake does.
            self._evidence_waits = True
            self._loop.call_later(EVIDENCE_WAIT, self._flush_evidence)

    def _flush_evidence(self) -> None:
        self._evidence_waits = False
        self._flush()

    def _flush(self) -> None:
        if self._entries and self._lost():
            entries, self._entries = self._entries, []
            self._settle(entries, [False] * len(entries))
        if self._entries or self._evidence:
            self._queue.put((self._entries, self._evidence))
            self._entries, self._evidence = [], []

    # In the thread.

    def _run(self) -> None:
        entries: list[Entry] = []
        evidence: list[Evidence] = []
        running = True
        while running:
            self._ticked = time.monotonic()
            try:
                running = self._gather(entries, evidence)
                self._work(entries, evidence)
            except Exception as error:
                # Nothing here may end the thread: nobody would be confirmed any more, in silence.
                self._stumble(error, entries)
        if self._store is not None:
            with contextlib.suppress(sqlite3.Error):
                self._store.close()

    def _work(self, entries: list[Entry], evidence: list[Evidence]) -> None:
        """Commit and settle all of it; leaves the lists empty, but for evidence of a failure."""
        rounds = 1 + len(evidence) // 1000
        while entries:
            self._ticked = time.monotonic()
            batch = entries[:MAX_BATCH]
            for entry in batch:
                self._complete(entry)
            stored = self._commit(batch, evidence)
            del entries[:MAX_BATCH]
            self._tell(self._settle, batch, stored)
        if evidence:
            self._commit([], evidence)
        if not self._health.ok:
            self._try_again()
        for _ in range(rounds):
            self._trim()

    def _stumble(self, error: Exception, entries: list[Entry]) -> None:
        """Something failed that should not be able to: what was under way is not stored."""
        time.sleep(STUMBLE_SECONDS)  # not as fast as it can, should it go on so
        batch = entries[:]
        entries.clear()
        self._fail(error)
        self._health.failed += len(batch)
        self._tell(self._settle, batch, [False] * len(batch))
        self._tell(self._report, "the journal stumbled", error)

    def _gather(self, entries: list[Entry], evidence: list[Evidence]) -> bool:
        """Wait for work and take all there is. False when it is time to end."""
        while True:
            ok = self._health.ok
            try:
                if entries or (evidence and ok):
                    item = self._queue.get_nowait()
                else:
                    item = self._queue.get(timeout=TICK_SECONDS if ok else self._retry)
            except queue.Empty:
                return True
            if item is None:
                return False
            entries += item[0]
            evidence += item[1]
            if not entries and not ok:
                return True  # evidence that keeps coming must not put off the next attempt

    def _complete(self, entry: Entry) -> None:
        try:
            derive(entry)
        except Exception as error:
            # Whatever trips over it: the bytes are money, and the others must not suffer.
            file_unreadable(entry)
            self._tell(self._report, "a message could not be taken apart", error)

    def _commit(self, entries: list[Entry], evidence: list[Evidence]) -> list[bool]:
        """Commit a batch; returns whether each entry is durable. Empties the evidence if it is."""
        stored = [False] * len(entries)
        try:
            store = self._usable_store()
            try:
                duplicates = store.write(entries, evidence)
                stored = [True] * len(entries)
            except Exception as error:
                if _is_of_journal(error):
                    raise
                duplicates = self._one_by_one(store, entries, stored, error)
                self._evidence_one_by_one(store, evidence)
        except Exception as error:
            stored = [False] * len(entries)
            self._fail(error)
            surplus = len(evidence) - MAX_EVIDENCE
            if surplus > 0:
                self._health.lost_evidence += surplus
                self._done_with(evidence, surplus)
        else:
            self._newest = store.newest
            self._done_with(evidence, len(evidence))
            self._succeed()
            self._health.commits += 1
            self._health.duplicates += duplicates
        count = sum(stored)
        self._health.stored += count
        self._health.failed += len(entries) - count
        return stored

    def _done_with(self, evidence: list[Evidence], count: int) -> None:
        """Take the oldest evidence off the list."""
        self._evidence_out += sum(len(item.detail) + _EVIDENCE_BYTES for item in evidence[:count])
        del evidence[:count]

    def _one_by_one(
        self, store: Store, entries: list[Entry], stored: list[bool], cause: Exception
    ) -> int:
        """Write each entry alone, since one of them cannot be. Returns how many were copies.

        Raises:
            Exception: none could be written; it is not an entry's fault, then.
        """
        duplicates = 0
        for at, entry in enumerate(entries):
            for attempt in (entry, _bare(entry)):
                if attempt is None:
                    continue
                try:
                    duplicates += store.write([attempt], [])
                except Exception as error:
                    if _is_of_journal(error):
                        raise
                    self._tell(self._report, "a message could not be stored", error)
                else:
                    stored[at] = True
                    break
        if entries and not any(stored):
            raise cause
        return duplicates

    def _evidence_one_by_one(self, store: Store, evidence: list[Evidence]) -> None:
        for item in evidence:
            try:
                store.write([], [item])
            except Exception as error:
                if _is_of_journal(error):
                    raise
                self._health.lost_evidence += 1

    def _usable_store(self) -> Store:
        if self._store is None:
            wait = self._failed_at + self._retry - time.monotonic()
            if 0 < wait <= self._retry and self._health.reason:
                raise JournalGone(self._health.reason)
            self._store = self._opened()
        return self._store

    def _opened(self) -> Store:
        """Open the store, and tell whether it is the one that was open before.

        Raises:
            whatever `open_store` raises; sqlite3.Error: the log cannot be checkpointed.
        """
        store = self._open_store()
        try:
            if self._must_checkpoint:
                store.checkpoint()
        except BaseException:
            store.close()
            raise
        self._must_checkpoint = False
        before, newest = self._identity or store.before, self._newest
        if before and before != store.identity:
            begun = f" was begun at {moment(store.begun)}" if store.begun else " is there now"
            kind = "new, empty journal" if not store.newest else "other journal"
            self._replaced(f"a {kind}{begun}; the one before was removed or replaced")
        elif store.newest < newest:
            self._replaced("an older copy of the journal was put in its place")
        self._identity, self._newest = store.identity, store.newest
        return store

    def _replaced(self, what: str) -> None:
        self._health.replacements += 1
        now = moment(time.time_ns() // 1_000_000)
        self._health.replaced = (
            f"{what} (seen at {now}). What was confirmed before is not in it"
            + (
                f": {self._health.stored} messages since the server was started"
                if self._health.stored
                else ""
            )
        )

    def _try_again(self) -> None:
        try:
            self._usable_store().probe()
        except Exception as error:
            self._fail(error)
        else:
            self._succeed()

    def _trim(self) -> None:
        """Delete what is not to be kept any longer: some, after each batch that brought more."""
        due = time.monotonic() >= self._next_trim
        if self._store is None or not (due or self._store.overfull):
            return
        try:
            more = self._store.trim(int(time.time() * 1000))
        except Exception as error:
            self._fail(error)
            return
        if due and not more:
            self._next_trim = time.monotonic() + TRIM_SECONDS

    def _fail(self, error: Exception) -> None:
        self._must_checkpoint |= _is_io_error(error)
        if self._store is not None:
            self._failed_at = time.monotonic()
            with contextlib.suppress(sqlite3.Error):
                self._store.close()
            self._store = None
        elif str(error) != self._health.reason:
            self._failed_at = time.monotonic()
        first = self._health.ok
        self._health.ok = False
        self._health.reason = str(error) or type(error).__name__
        if first:
            self._health.since = int(time.time() * 1000)
            self._tell(self._changed, replace(self._health))

    def _succeed(self) -> None:
        if not self._health.ok:
            self._health.ok, self._health.reason, self._health.since = True, "", None
            self._tell(self._changed, replace(self._health))

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        # A closed loop has nobody left to be told.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    # On the event loop again.

    def _settle(self, batch: list[Entry], stored: list[bool]) -> None:
        self._unsettled -= len(batch)
        self._unsettled_bytes -= sum(len(entry.raw) for entry in batch)
        if self._full and self._unsettled_bytes <= self._most // 2:
            self._full = False
            if self._health.ok:
                self._changed(self.health)
        for entry, outcome in zip(batch, stored, strict=True):
            entry.stored = outcome
            if outcome and entry.controller:
                self._known.add(entry.controller)
            if entry.settled is not None:
                self._tell_owner(entry)
        if not self._unsettled and self._waiter is not None:
            self._waiter.set_result(None)
            self._waiter = None

    def _tell_owner(self, entry: Entry) -> None:
        """Settle one entry; a fault in its owner must not cost the others their confirmation."""
        assert entry.settled is not None
        try:
            entry.settled(entry)
        except Exception as error:
            self._report("an entry's owner failed when it was settled", error)

    def _report(self, what: str, error: Exception) -> None:
        assert self._loop is not None
        self._loop.call_exception_handler({"message": what, "exception": error})

    def _changed(self, health: Health) -> None:
        """Tell of a change, as it was: it may have changed back meanwhile."""
        if self.on_health is not None:
            self.on_health(health)


def _bare(entry: Entry) -> Entry | None:
    """The entry with nothing but its bytes, for when anything else about it cannot be stored."""
    bare = msgspec.structs.replace(entry, status=None, notes=(), packets=[], clock=None)
    try:
        file_unreadable(bare)
    except Exception:
        return None
    return bare


def open_writer(
    path: Path,
    *,
    status_history_seconds: int = 300,
    retention: Retention | None = None,
    waiting_bytes: int = WAITING_BYTES,
    working: Callable[[str], None] = lambda _: None,
) -> JournalWriter:
    """A writer over the journal file at the path.

    Args:
        waiting_bytes: see `JournalWriter`.
        working: called now and then while opening takes long, with what is being done.

    Raises:
        sqlite3.Error, OSError, JournalRefused: it cannot be opened.
    """

    def open_store() -> Store:
        return Store(
            path,
            status_history_seconds=status_history_seconds,
            retention=retention,
            working=working,
        )

    return JournalWriter(open_store, waiting_bytes=waiting_bytes)
