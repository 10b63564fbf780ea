"""The crash test itself: a short run holds, and the auditor sees what it is there to see."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from benchmarks.crash.audit import Audit, Sent, packets
from benchmarks.crash.run import crash

from ptslink.journal import schema

CONTROLLER = "00112233445566778899AABB"
SALE = {
    "DateTimeStart": "2026-03-01T10:00:00",
    "DateTime": "2026-03-01T10:01:00",
    "Pump": 1,
    "Transaction": 7,
    "Volume": 10.5,
    "TotalVolume": 1000.5,
    "ConfigurationId": "1a2b",
    "PumpTransactionsTotal": 3,
}


def message(**data: object) -> bytes:
    packet = {"Id": 1, "Type": "UploadPumpTransaction", "Data": {**SALE, **data}}
    return json.dumps({"Packets": [packet]}).encode()


def confirmed(**data: object) -> list[Sent]:
    return packets(message(**data), CONTROLLER)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with one sale, written without our own writer."""
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as connection:
        schema.prepare(connection)
        connection.execute("INSERT INTO controllers VALUES (1, ?, 0, NULL)", (CONTROLLER,))
        connection.execute("INSERT INTO types VALUES (1, 'UploadPumpTransaction')")
    keep(path, 1, message())
    return path


def keep(path: Path, number: int, raw: bytes) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO messages VALUES (?, 1, 0, 1, 1, NULL, ?)", (number, raw))
        connection.execute(
            "INSERT INTO records VALUES (?1, ?1, 0, 1, 1, NULL, NULL, 0, ?2)",
            (number, bytes([number])),
        )


def test_a_confirmed_record_that_is_there_is_no_fault(journal: Path) -> None:
    assert Audit(journal).whole(confirmed()).clean


def test_a_copy_with_other_counters_is_the_same_record(journal: Path) -> None:
    assert Audit(journal).whole(confirmed(ConfigurationId="3c", PumpTransactionsTotal=9)).clean


def test_a_confirmed_record_that_is_not_there_is_lost(journal: Path) -> None:
    found = Audit(journal).whole(confirmed(Transaction=8))
    assert [sent.kind for sent in found.lost] == ["UploadPumpTransaction"]


def test_a_confirmed_record_whose_content_was_changed_is_lost(journal: Path) -> None:
    assert Audit(journal).whole(confirmed(Amount=15.75)).lost


def test_a_fact_with_two_records_is_doubled(journal: Path) -> None:
    keep(journal, 2, message(PumpTransactionsTotal=4))
    assert len(Audit(journal).whole([]).doubled) == 1


def test_what_came_since_the_last_look_is_seen(journal: Path) -> None:
    audit = Audit(journal)
    assert audit.since_last(confirmed()).clean
    keep(journal, 2, message(Transaction=8))
    assert audit.since_last(confirmed(Transaction=8)).clean
    keep(journal, 3, message(Transaction=8, PumpTransactionsTotal=5))
    assert audit.since_last([]).doubled


def test_a_record_without_its_message_is_damage(journal: Path) -> None:
    with sqlite3.connect(journal) as connection:
        connection.execute("DELETE FROM messages")
    assert Audit(journal).whole([]).damage == ["record 1 has no message"]


async def test_what_was_confirmed_survives_five_kills(tmp_path: Path) -> None:
    found = await crash(tmp_path, kills=5, controllers=10, seed=3)
    assert found.faults == []
    assert found.kills == 5
    assert found.on_confirmation > 0
    assert found.confirmed["UploadPumpTransaction"] > 10
    assert found.records > 50
