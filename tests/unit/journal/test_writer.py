"""Group commit: one batch, one fate each, and nobody forgotten."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ptslink.journal.entry import Clock, Entry, Evidence, Fact, Health, Retention, Transport
from ptslink.journal.filing import file
from ptslink.journal.store import Store
from ptslink.journal.writer import JournalWriter
from ptslink.jsonpts.envelope import Packet
from ptslink.jsonpts.natural import NaturalKey, natural_key


def entry(number: int, settled: list[Entry], raw: Any = b"x") -> Entry:
    fact = Fact(0, "UploadX", number.to_bytes(16, "big"))
    return Entry("AB", 1, Transport.WEBSOCKET, 1, raw, [fact], settled=settled.append)


async def test_entries_of_one_turn_share_a_commit_and_keep_their_order(tmp_path: Path) -> None:
    writer = JournalWriter(lambda: Store(tmp_path / "j.db"))
    writer.start()
    settled: list[Entry] = []
    entries = [entry(number, settled) for number in range(100)]
    for item in entries:
        writer.append(item)
    await writer.settled()
    assert settled == entries
    assert all(item.stored for item in settled)
    assert writer.health.commits == 1
    await writer.close()


async def test_an_entry_that_cannot_be_stored_does_not_drag_the_others_down(tmp_path) -> None:
    writer = JournalWriter(lambda: Store(tmp_path / "j.db"))
    writer.start()
    settled: list[Entry] = []
    writer.append(entry(1, settled))
    writer.append(entry(2, settled, raw="\ud800"))
    writer.append(entry(3, settled))
    await writer.settled()
    assert [item.stored for item in settled] == [True, False, True]
    assert writer.health.ok
    await writer.close()


async def test_an_owner_that_fails_does_not_cost_the_others_their_confirmation(tmp_path) -> None:
    writer = JournalWriter(lambda: Store(tmp_path / "j.db"))
    writer.start()
    settled: list[Entry] = []
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    def fail(_: Entry) -> None:
        raise RuntimeError("a bug")

    broken = entry(1, settled)
    broken.settled = fail
    for item in (broken, entry(2, settled), entry(3, settled)):
        writer.append(item)
    await writer.settled()
    assert len(settled) == 2
    assert str(faults[0]["exception"]) == "a bug"
    await writer.close()


async def test_closing_settles_what_was_appended(tmp_path: Path) -> None:
    writer = JournalWriter(lambda: Store(tmp_path / "j.db"))
    writer.start()
    settled: list[Entry] = []
    for number in range(5000):
        writer.append(entry(number, settled))
    await writer.close()
    await asyncio.sleep(0)
    assert len(settled) == 5000
    with sqlite3.connect(tmp_path / "j.db") as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (5000,)


async def test_a_message_that_cannot_be_taken_apart_is_kept_as_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(packet: Packet) -> NaturalKey:
        if packet.type == "UploadX":
            raise RuntimeError("a fault of ours")
        return natural_key(packet)

    monkeypatch.setattr("ptslink.journal.filing.natural_key", broken)
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(str(context["exception"]))
    )
    writer = JournalWriter(lambda: Store(tmp_path / "j.db"))
    writer.start()
    settled: list[Entry] = []
    payloads = [
        b'{"Packets":[{"Id":1,"Type":"UploadX","Data":{}}]}',
        b'{"Packets":[{"Id":2,"Type":"UploadY","Data":{}}]}',
    ]
    for payload in payloads:
        writer.append(
            file(
                payload,
                controller="AB",
                clock=Clock(),
                received=1,
                transport=Transport.WEBSOCKET,
                link=1,
                settled=settled.append,
            )
        )
    await writer.settled()
    await writer.close()
    assert [item.stored for item in settled] == [True, True]
    assert reported == ["a fault of ours"]
    with sqlite3.connect(tmp_path / "j.db") as connection:
        kept = connection.execute("SELECT raw FROM messages ORDER BY id").fetchall()
        types = connection.execute("SELECT name FROM types ORDER BY id").fetchall()
    assert kept == [(payload,) for payload in payloads]
    assert types == [("Unreadable",), ("UploadY",)]


async def test_evidence_waits_out_a_failure_in_memory(tmp_path: Path) -> None:
    class Failing(Store):
        broken = True

        def write(self, entries, evidence) -> int:
            if Failing.broken:
                raise sqlite3.OperationalError("disk I/O error")
            return super().write(entries, evidence)

        def probe(self) -> None:
            if Failing.broken:
                raise sqlite3.OperationalError("disk I/O error")

    writer = JournalWriter(lambda: Failing(tmp_path / "j.db"), retry_seconds=0.02)
    changes: list[bool] = []
    writer.on_health = lambda health: changes.append(health.ok)
    writer.start()
    writer.record(Evidence("event", int(time.time() * 1000), "", "", "kept", "{}"))
    async with asyncio.timeout(5):
        while not changes:  # noqa: ASYNC110 - nothing to be told by
            await asyncio.sleep(0.01)
    assert writer.health.reason == "disk I/O error"
    assert writer.health.since is not None
    Failing.broken = False
    async with asyncio.timeout(5):
        while changes != [False, True]:  # noqa: ASYNC110 - nothing to be told by
            await asyncio.sleep(0.01)
    # Written as soon as the journal works again, not when something else happens.
    await asyncio.sleep(0.3)
    with sqlite3.connect(tmp_path / "j.db") as connection:
        assert connection.execute("SELECT code FROM evidence").fetchall() == [("kept",)]
    await writer.close()


def breaking(tmp_path: Path, broken: type[Exception]) -> tuple[JournalWriter, type[Any]]:
    """A writer whose store raises at every entry while `broken_now`."""

    class Broken(Store):
        broken_now = True

        def write(self, entries, evidence) -> int:
            if entries and Broken.broken_now:
                raise broken("by the test")
            return super().write(entries, evidence)

    return JournalWriter(lambda: Broken(tmp_path / "j.db"), retry_seconds=0.02), Broken


@pytest.mark.parametrize("broken", [MemoryError, RuntimeError, KeyError, AssertionError])
async def test_no_error_ends_the_thread_in_silence(tmp_path: Path, broken) -> None:
    writer, store = breaking(tmp_path, broken)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    changes: list[bool] = []
    writer.on_health = lambda health: changes.append(health.ok)
    writer.start()
    settled: list[Entry] = []
    writer.append(entry(1, settled))
    await writer.settled()
    await asyncio.sleep(0.01)
    assert [item.stored for item in settled] == [False]
    assert changes[0] is False
    store.broken_now = False
    writer.append(entry(2, settled))
    async with asyncio.timeout(5):
        while not settled[-1].stored:
            writer.append(entry(2, settled))
            await asyncio.sleep(0.05)
    await writer.close()
    assert writer.health.ok


async def test_a_fault_of_the_thread_itself_settles_what_it_had(tmp_path, monkeypatch) -> None:
    writer = JournalWriter(lambda: Store(tmp_path / "j.db"), retry_seconds=0.02)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    commit = writer._commit

    def broken(*_: Any) -> list[bool]:
        raise MemoryError

    monkeypatch.setattr(writer, "_commit", broken)
    writer.start()
    settled: list[Entry] = []
    writer.append(entry(1, settled))
    await writer.settled()
    assert [item.stored for item in settled] == [False]
    monkeypatch.setattr(writer, "_commit", commit)
    async with asyncio.timeout(5):
        while not writer.health.ok:  # noqa: ASYNC110 - nothing to be told by
            await asyncio.sleep(0.01)
    writer.append(entry(1, settled))
    await writer.settled()
    assert settled[-1].stored
    await writer.close()


async def test_a_thread_that_is_gone_shows_and_confirms_nothing(tmp_path, monkeypatch) -> None:
    writer = JournalWriter(lambda: Store(tmp_path / "j.db"))
    monkeypatch.setattr(writer, "_gather", lambda *_: False)
    writer.start()
    writer._thread.join(5)
    settled: list[Entry] = []
    writer.append(entry(1, settled))
    await writer.settled()
    assert [item.stored for item in settled] == [False]
    assert not writer.health.ok
    assert "thread has ended" in writer.health.reason
    await writer.close()


async def test_one_bad_entry_costs_no_evidence_and_keeps_its_bytes(tmp_path: Path) -> None:
    class Picky(Store):
        def write(self, entries, evidence) -> int:
            if any(fact.type == "UploadBad" for item in entries for fact in item.facts):
                raise OverflowError
            return super().write(entries, evidence)

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    writer = JournalWriter(lambda: Picky(tmp_path / "j.db"))
    writer.start()
    settled: list[Entry] = []
    bad = entry(1, settled, raw=b"the bad one")
    bad.facts[0].type = "UploadBad"
    writer.append(bad)
    writer.append(entry(2, settled))
    for code in ("one", "\ud800", "two"):
        writer.record(Evidence("event", int(time.time() * 1000), "", "", code, "{}"))
    await writer.settled()
    await writer.close()
    assert [item.stored for item in settled] == [True, True]
    assert writer.health.lost_evidence == 1
    with sqlite3.connect(tmp_path / "j.db") as connection:
        codes = connection.execute("SELECT code FROM evidence ORDER BY id").fetchall()
        raws = connection.execute("SELECT raw FROM messages ORDER BY id").fetchall()
    assert codes == [("one",), ("two",)]
    assert (b"the bad one",) in raws


async def test_a_corrupt_database_is_the_journals_fault_and_no_entrys(tmp_path: Path) -> None:
    writer, store = breaking(tmp_path, sqlite3.DatabaseError)
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    changes: list[Health] = []
    writer.on_health = changes.append
    writer.start()
    settled: list[Entry] = []
    for number in range(5):
        writer.append(entry(number, settled))
    await writer.settled()
    assert [item.stored for item in settled] == [False] * 5
    assert (changes[0].ok, changes[0].reason) == (False, "by the test")
    assert reported == [], "entries were tried one by one"
    store.broken_now = False
    await writer.close()


@pytest.mark.parametrize("begun_anew", [True, False])
async def test_another_file_in_the_journals_place_is_not_called_well(
    tmp_path: Path, begun_anew: bool
) -> None:
    path = tmp_path / "j.db"
    Store(path).close()
    shutil.copy(path, tmp_path / "backup.db")
    writer = JournalWriter(lambda: Store(path), retry_seconds=0.02)
    changes: list[Health] = []
    writer.on_health = changes.append
    writer.start()
    settled: list[Entry] = []
    writer.append(entry(1, settled))
    await writer.settled()
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    if not begun_anew:
        shutil.copy(tmp_path / "backup.db", path)
    writer.append(entry(2, settled))
    await writer.settled()
    async with asyncio.timeout(5):
        while not (changes and changes[-1].ok):  # noqa: ASYNC110 - nothing to be told by
            await asyncio.sleep(0.01)
    await writer.close()
    what = "a new, empty journal was begun at 20" if begun_anew else "an older copy of the journal"
    assert changes[-1].replaced.startswith(what)
    assert changes[-1].replaced.endswith("1 messages since the server was started")
    assert (changes[0].replacements, changes[-1].replacements) == (0, 1)


async def test_a_journal_that_was_taken_away_while_nobody_served_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    for taken_away, replacements in ((False, 0), (False, 0), (True, 1), (False, 0)):
        if taken_away:
            path.unlink()
        writer = JournalWriter(lambda: Store(path))
        assert writer.health.replacements == replacements
        await writer.close()


class Stalling(Store):
    """A disk that takes its time."""

    let_go: threading.Event

    def write(self, entries, evidence) -> int:
        assert Stalling.let_go.wait(30)
        return super().write(entries, evidence)


async def test_what_waits_for_a_stalled_disk_is_limited_in_bytes(tmp_path: Path) -> None:
    Stalling.let_go = threading.Event()
    writer = JournalWriter(lambda: Stalling(tmp_path / "j.db"), waiting_bytes=10_000)
    changes: list[Health] = []
    writer.on_health = changes.append
    writer.start()
    settled: list[Entry] = []
    for number in range(30):
        writer.append(entry(number, settled, raw=b"x" * 1000))
        writer.record(Evidence("event", 1, "", "", "x", "y" * 1000))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # Whoever sent what is beyond the limit is told to send it again, at once.
    assert [item.stored for item in settled] == [False] * 20
    health = writer.health
    assert (health.ok, health.waiting, health.refused) == (False, 10_000, 20)
    assert "10,000 bytes of messages wait" in health.reason
    assert health.lost_evidence == 24
    Stalling.let_go.set()
    await writer.settled()
    assert [item.stored for item in settled[20:]] == [True] * 10
    assert [change.ok for change in changes] == [False, True]
    writer.append(entry(40, settled))
    await writer.settled()
    assert settled[-1].stored
    await writer.close()


async def test_a_message_larger_than_the_limit_is_taken_when_nothing_waits(tmp_path: Path) -> None:
    writer = JournalWriter(lambda: Store(tmp_path / "j.db"), waiting_bytes=10)
    writer.start()
    settled: list[Entry] = []
    writer.append(entry(1, settled, raw=b"x" * 1000))
    await writer.settled()
    assert settled[0].stored
    await writer.close()


async def test_closing_does_not_wait_for_a_stalled_disk_for_ever(tmp_path: Path) -> None:
    Stalling.let_go = threading.Event()
    writer = JournalWriter(lambda: Stalling(tmp_path / "j.db"))
    writer.start()
    settled: list[Entry] = []
    writer.append(entry(1, settled))
    assert await writer.close(0.01) is False
    assert settled == []
    Stalling.let_go.set()
    assert await writer.close() is True


@pytest.mark.parametrize("started", [True, False])
async def test_a_writer_may_be_abandoned_at_any_time_and_more_than_once(
    tmp_path: Path, started: bool
) -> None:
    writer = JournalWriter(lambda: Store(tmp_path / "j.db"))
    settled: list[Entry] = []
    if started:
        writer.start()
        writer.append(entry(1, settled))
    writer.abandon()
    writer.abandon()
    await writer.close()
    assert not writer._thread.is_alive()
    with sqlite3.connect(tmp_path / "j.db") as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (int(started),)


async def test_evidence_is_kept_within_its_limits_while_it_comes(tmp_path: Path) -> None:
    retention = Retention(evidence_rows=1000)
    writer = JournalWriter(lambda: Store(tmp_path / "j.db", retention=retention))
    writer.start()
    for _ in range(20):
        for number in range(1500):
            writer.record(Evidence("attempt", int(time.time() * 1000), "", "", str(number), "{}"))
        writer._flush()
    await writer.close()
    with sqlite3.connect(tmp_path / "j.db") as connection:
        (rows,) = connection.execute("SELECT count(*) FROM evidence").fetchone()
    assert rows <= 3000
