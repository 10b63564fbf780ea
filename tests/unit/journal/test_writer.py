"""Group commit: one batch, one fate each, and nobody forgotten."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from ptslink.journal.entry import Clock, Entry, Evidence, Fact, Transport
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
