"""What was confirmed can be read back, whatever it was and whichever release wrote it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.reading import read_back
from tests.fuzz.targets import reading
from tests.security.hard import HARD, message, sale, status

from ptslink.journal.records import PAGE_BYTES
from ptslink.journal.store import Store
from support.journals import put

RELEASES = sorted(Path(__file__).with_name("releases").glob("*.sql"))


@pytest.mark.parametrize("name", list(HARD))
def test_a_message_that_is_hard_to_read_keeps_nobody_from_reading(
    tmp_path: Path, name: str
) -> None:
    store = Store(tmp_path / "j.db")
    put(store, message(status(120)), HARD[name], message(sale(99)))
    store.close()
    records = read_back(tmp_path / "j.db", page_bytes=PAGE_BYTES)
    assert records[-1]["data"]["Transaction"] == 99


@pytest.mark.parametrize(
    ("offset", "time"), [(120, "0001-01-01T00:00:00"), (-1, "9999-12-31T23:59:59")]
)
def test_a_time_that_has_no_year_in_utc_has_no_utc(tmp_path: Path, offset: int, time: str) -> None:
    store = Store(tmp_path / "j.db")
    put(store, message(status(offset)), message(sale(1, time=time.encode())))
    store.close()
    (record,) = read_back(tmp_path / "j.db", page_bytes=PAGE_BYTES)
    assert (record["local_time"], record["utc"]) == (time, None)


@pytest.mark.parametrize("limit", [1000, 1])
def test_a_message_is_on_a_page_once_however_many_packets_were_fished_from_it(
    tmp_path: Path, limit: int
) -> None:
    store = Store(tmp_path / "j.db")
    put(store, message(*[sale(number, b',"Volume":nan') for number in range(20)]))
    store.close()
    first, *others = read_back(tmp_path / "j.db", page_bytes=100_000, limit=limit)
    assert first["message"].count("UploadPumpTransaction") == 20
    assert len(others) == 19
    alone = limit == 1
    assert {item["message_of"] for item in others} == ({None} if alone else {first["id"]})


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
@pytest.mark.parametrize("opened", [False, True], ids=["read-only", "opened by the server"])
def test_the_journal_of_an_earlier_release_is_read(
    tmp_path: Path, release: Path, opened: bool
) -> None:
    path = tmp_path / "j.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(release.read_text())
        ids = [id_ for (id_,) in connection.execute("SELECT id FROM records ORDER BY id")]
    connection.close()
    if opened:
        Store(path).close()
    records = read_back(path, page_bytes=PAGE_BYTES)
    assert [record["id"] for record in records] == ids
    by_time = {record["local_time"]: record for record in records}
    for time in ("0001-01-01T00:00:00", "9999-12-31T23:59:59"):
        assert by_time[time]["utc"] is None
        assert "not-converted" in by_time[time]["flags"]
        assert by_time[time]["data"]["DateTime"] == time


PIECES = st.sampled_from(
    [*HARD.values(), *(bytes([b]) for b in b'\xfe{}[],:"\\\r\n\0'), rb"\ud800", b"-720", b"1e999"]
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES | st.binary(max_size=30), max_size=10).map(b"".join))
def test_anything_that_is_confirmed_can_be_read(data: bytes) -> None:
    reading(data)
