"""Promise one: the raw message is on the disk before its confirmation leaves.

The journal doubles hold a commit back; a server that confirmed first would answer meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from ptslink.journal.entry import Entry, Evidence, Health
from ptslink.journal.store import Store
from ptslink.journal.writer import JournalWriter
from ptslink.server.uplink import MAX_WAITING
from support.wire import Wire, close_frame, message, request, sale, until


class HeldJournal:
    """A journal whose commits happen when the test says so."""

    def __init__(self) -> None:
        self.health = Health()
        self.taken: list[Entry] = []
        self.offsets: dict[str, int] = {}
        self.ticked = math.inf

    def append(self, entry: Entry) -> None:
        self.taken.append(entry)

    def record(self, evidence: Evidence) -> None:
        pass

    def knows(self, controller: str) -> bool:
        return bool(controller)

    def start(self) -> None:
        pass

    async def settled(self) -> None:
        pass

    async def close(self) -> bool:
        return True

    def commit(self, *, stored: bool = True) -> None:
        taken, self.taken = self.taken, []
        for entry in taken:
            entry.stored = stored
            assert entry.settled is not None
            entry.settled(entry)


async def nothing_comes(wire: Wire, seconds: float = 0.25) -> bool:
    try:
        await asyncio.wait_for(wire.reader.read(1), seconds)
    except TimeoutError:
        return True
    return False


async def test_no_confirmation_leaves_before_the_commit(serve) -> None:
    journal = HeldJournal()
    server = await serve(journal=journal)
    wire = await Wire.link(server.port)
    wire.send(message(sale(1)))
    assert await nothing_comes(wire)
    assert [entry.raw for entry in journal.taken] == [message(sale(1))]
    journal.commit()
    assert b'"Message":"OK"' in await wire.text()
    await wire.close()


async def test_a_stalled_disk_costs_confirmations_and_not_the_1012(serve) -> None:
    class Stalled(HeldJournal):
        async def settled(self) -> None:
            await asyncio.Event().wait()

    server = await serve(journal=Stalled(), limits={"drain_seconds": 0.6})
    busy, idle = await Wire.link(server.port), await Wire.link(server.port, X_Pts_Id="0B")
    busy.send(message(sale(1)))
    await until(lambda: len(server.app.journal.taken) == 1)
    stopping = asyncio.create_task(server.stop())
    for wire in (busy, idle):
        assert (await wire.until_close())[0] == 1012
        wire.write(close_frame(1012))
    await stopping
    await busy.close()
    await idle.close()


async def test_a_link_that_is_held_for_the_disk_is_not_taken_for_a_dead_one(serve) -> None:
    """Its pongs are not read meanwhile."""
    journal = HeldJournal()
    server = await serve(
        journal=journal, keepalive={"ping_interval_seconds": 0.2, "ping_timeout_seconds": 0.2}
    )
    wire = await Wire.link(server.port)
    for number in range(MAX_WAITING):
        wire.send(message(sale(number)))
    await until(lambda: len(journal.taken) == MAX_WAITING)
    await asyncio.sleep(1.5)
    journal.commit()
    for _ in range(MAX_WAITING):
        assert b'"Message":"OK"' in await wire.text()
    assert (await read_past_pings(wire, journal))["Packets"][0]["Message"] == "OK"
    await wire.close()


async def read_past_pings(wire: Wire, journal: HeldJournal) -> dict[str, Any]:
    wire.send(message(sale(1000)))
    await until(lambda: bool(journal.taken))
    journal.commit()
    return json.loads(await wire.text())


async def test_a_commit_that_failed_makes_the_controller_send_again(serve) -> None:
    journal = HeldJournal()
    server = await serve(journal=journal)
    wire = await Wire.link(server.port)
    wire.send(message(sale(9)))
    await asyncio.sleep(0.05)
    journal.commit(stored=False)
    assert await wire.text() == (
        b'{"Protocol":"jsonPTS","Packets":[{"Id":9,"Type":"UploadPumpTransaction",'
        b'"Error":true,"Code":500,"Message":"Not stored, please send again"}]}'
    )
    await wire.close()


class StallingStore(Store):
    """SQLite for real, on a disk that stalls."""

    let_go: threading.Event

    def write(self, entries, evidence) -> int:
        if entries:
            assert self.let_go.wait(10)
        return super().write(entries, evidence)


async def test_a_stalled_disk_delays_confirmations_and_nothing_else(serve, tmp_path: Path) -> None:
    let_go = threading.Event()

    def open_store() -> Store:
        store = StallingStore(tmp_path / "journal.db")
        store.let_go = let_go
        return store

    server = await serve(journal=JournalWriter(open_store))
    wire = await Wire.link(server.port)
    wire.send(message(sale(1)))
    assert await nothing_comes(wire)
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    other = await Wire.connect(server.port)
    assert (await other.ask(request(X_Pts_Id="01"))).status == 101
    let_go.set()
    assert b'"Message":"OK"' in await wire.text()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (1,)
    await other.close()
    await wire.close()


class FailingStore(Store):
    """SQLite for real, on a disk that is full while the test says so."""

    full: bool

    def write(self, entries, evidence) -> int:
        if FailingStore.full:
            raise sqlite3.OperationalError("database or disk is full")
        return super().write(entries, evidence)

    def probe(self) -> None:
        if FailingStore.full:
            raise sqlite3.OperationalError("database or disk is full")
        super().probe()


async def test_a_full_disk_is_answered_with_errors_shown_and_recovered_from(
    serve, tmp_path: Path
) -> None:
    FailingStore.full = False
    writer = JournalWriter(lambda: FailingStore(tmp_path / "journal.db"), retry_seconds=0.05)
    server = await serve(journal=writer)
    wire = await Wire.link(server.port)
    assert (await wire.upload(sale(1)))["Packets"][0]["Message"] == "OK"
    FailingStore.full = True
    for _ in range(3):
        assert (await wire.upload(sale(2)))["Packets"][0]["Error"] is True
    health = await Wire.connect(server.admin_port)
    reply = await health.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.status == 503
    assert reply.json["journal"]["reason"] == "database or disk is full"
    FailingStore.full = False
    await until(lambda: writer.health.ok)
    assert (await wire.upload(sale(2)))["Packets"][0]["Message"] == "OK"
    reply = await health.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.status == 200
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (2,)
    await health.close()
    await wire.close()


async def test_a_removed_database_is_noticed_and_made_anew(serve, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    writer = JournalWriter(lambda: Store(path), retry_seconds=0.05)
    server = await serve(journal=writer)
    wire = await Wire.link(server.port)
    assert (await wire.upload(sale(1)))["Packets"][0]["Message"] == "OK"
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    assert (await wire.upload(sale(2)))["Packets"][0]["Error"] is True
    await until(lambda: writer.health.ok)
    assert (await wire.upload(sale(2)))["Packets"][0]["Message"] == "OK"
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (1,)
    # It works again, and that what was confirmed is gone does not go unsaid.
    health = await Wire.connect(server.admin_port)
    reply = await health.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.json["journal"]["replaced"].startswith("a new, empty journal was begun at 20")
    reply = await health.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"ptslink_journal_replacements_total 1.0" in reply.body
    log = tmp_path / "logs"
    await until(
        lambda: (
            "CONFIRMED RECORDS ARE GONE: a new, empty journal was begun"
            in "".join(file.read_text() for file in log.glob("Server_*.log"))
        )
    )
    with sqlite3.connect(path) as connection:
        query = "SELECT count(*) FROM evidence WHERE code = 'journal-replaced'"
        await until(lambda: connection.execute(query).fetchone() == (1,))
    await health.close()
    await wire.close()


@pytest.mark.parametrize("count", [1, 100])
async def test_everything_confirmed_is_there_for_another_reader(serve, tmp_path, count) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    for number in range(count):
        wire.send(message(sale(number, id_=number + 1)))
    for number in range(count):
        assert b'"Id":%d,' % (number + 1) in await wire.text()
        with sqlite3.connect(tmp_path / "journal.db") as connection:
            (stored,) = connection.execute("SELECT count(*) FROM records").fetchone()
        assert stored > number
    await wire.close()
