"""The journal file itself."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptslink.journal import records, rekey, schema
from ptslink.journal.entry import Entry, Evidence, Fact, Retention, Status, Transport
from ptslink.journal.filing import facts_of, record_key
from ptslink.journal.reader import JournalMissing, open_reader, summary
from ptslink.journal.records import CursorRefused, read, read_page
from ptslink.journal.store import MAX_TYPES, JournalGone, Store


def entry(number: int, controller: str = "AB", **more: object) -> Entry:
    raw = b'{"Packets":[{"Id":1,"Type":"UploadX","Data":{"N":%d}}]}' % number
    fact = Fact(0, "UploadX", number.to_bytes(16, "big"), "2026-03-01T10:00:00", 1_772_359_200)
    made = Entry(controller, 1_772_359_200_000 + number, Transport.WEBSOCKET, 1, raw, [fact])
    for name, value in more.items():
        setattr(made, name, value)
    return made


def counts(path: Path) -> dict[str, int]:
    with sqlite3.connect(path) as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("messages", "records", "variants", "status_history", "evidence")
        }


def test_wal_and_full_synchronous_are_in_force(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    execute = store._connection.execute
    assert execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


@pytest.mark.parametrize("size", [1, 2, 7, 128, 129, 300])
def test_a_batch_of_any_size_is_stored_and_its_copy_is_not(tmp_path: Path, size: int) -> None:
    store = Store(tmp_path / "j.db")
    batch = [entry(number) for number in range(size)]
    assert store.write(batch, []) == 0
    assert store.write(batch, []) == size
    store.close()
    assert counts(tmp_path / "j.db")["records"] == size
    assert counts(tmp_path / "j.db")["messages"] == size


def test_new_ones_and_copies_in_any_order_are_kept_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    kept: set[int] = set()
    for start in (0, 3, 4, 20, 21, 8, 0, 30):
        numbers = set(range(start, start + 5))
        copies = store.write([entry(number) for number in sorted(numbers)], [])
        assert copies == len(numbers & kept)
        kept |= numbers
    with open_reader(tmp_path / "j.db") as connection:
        ids = [record.id for record in read(connection, after=0, limit=100)]
    store.close()
    # Without gaps: what was tried and taken back leaves no trace.
    assert ids == list(range(ids[0], ids[0] + len(kept)))
    assert counts(tmp_path / "j.db")["messages"] == len(kept)


def test_copies_within_one_batch_are_one_record(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    assert store.write([entry(1), entry(1), entry(2)], []) == 1
    assert counts(tmp_path / "j.db")["records"] == 2
    store.close()


def test_the_same_fact_of_two_controllers_is_two_records(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    store.write([entry(1, "AB"), entry(1, "CD")], [])
    assert counts(tmp_path / "j.db")["records"] == 2
    store.close()


def test_copies_are_recognised_after_a_restart_and_ids_go_on(tmp_path: Path) -> None:
    for round_ in range(3):
        store = Store(tmp_path / "j.db")
        store.write([entry(number) for number in range(round_ + 1)], [])
        store.close()
    with open_reader(tmp_path / "j.db") as connection:
        ids = [record.id for record in read(connection)]
    assert len(ids) == 3
    assert ids == sorted(set(ids))


def test_a_failed_batch_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    bad = entry(2, raw="\ud800")
    with pytest.raises(UnicodeEncodeError):
        store.write([entry(1, "NEW"), bad], [])
    assert counts(tmp_path / "j.db") == dict.fromkeys(counts(tmp_path / "j.db"), 0)
    store.write([entry(1, "NEW")], [])
    assert counts(tmp_path / "j.db")["records"] == 1
    with open_reader(tmp_path / "j.db") as connection:
        assert summary(connection)["controllers"] == ["NEW"]
    store.close()


def test_status_is_replaced_and_sampled_by_time(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db", status_history_seconds=60)
    for second in range(0, 180, 10):
        made = entry(0, facts=[], received=second * 1000, status=Status(b"{}", 120))
        store.write([made], [])
    assert counts(tmp_path / "j.db")["status_history"] == 3
    assert counts(tmp_path / "j.db")["messages"] == 0
    assert store.offsets() == {"AB": 120}
    store.close()


def test_a_removed_or_replaced_file_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    (tmp_path / "j.db").rename(tmp_path / "moved.db")
    with pytest.raises(JournalGone):
        store.write([entry(1)], [])
    shutil.copy(tmp_path / "moved.db", tmp_path / "j.db")
    with pytest.raises(JournalGone, match="replaced"):
        store.write([entry(1)], [])
    store.close()


def test_a_strangers_database_is_not_touched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "j.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(schema.ForeignDatabase, match="another program"):
        Store(tmp_path / "j.db")
    Store(tmp_path / "newer.db").close()
    with sqlite3.connect(tmp_path / "newer.db") as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(schema.ForeignDatabase, match="version"):
        Store(tmp_path / "newer.db")


SALES = [
    b'{"Protocol":"jsonPTS","Packets":[%b]}'
    % b",".join(
        b'{"Id":1,"Type":"%b","Data":{"DateTime":"2026-03-01T10:01:00","Transaction":%d}}'
        % (type_, number)
        for type_ in (b"UploadPumpTransaction", b"UploadNovelty")
    )
    for number in range(700)
] + [b"no JSON at all"]


def kept(store: Store, messages: list[bytes]) -> int:
    entries = [Entry("AB", 1, Transport.WEBSOCKET, 1, raw, facts_of(raw)) for raw in messages]
    return store.write(entries, [])


def aged(path: Path, change: str) -> None:
    """Make the file what an older version would have left."""
    with sqlite3.connect(path) as connection:
        connection.executescript(
            f"UPDATE records SET natural_key = {change};"
            "DROP TABLE held; DROP TABLE journal; DROP INDEX status_history_controller;"
            "DROP INDEX variants_content; ALTER TABLE variants DROP COLUMN content;"
            "PRAGMA user_version = 2"
        )


def test_a_journal_with_older_keys_still_knows_a_replayed_history(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    store = Store(path)
    kept(store, SALES)
    store.close()
    before = counts(path)
    assert before["records"] == 2 * 700 + 1
    aged(path, "CAST('old' || id AS BLOB)")
    store = Store(path)
    assert kept(store, SALES) == before["records"]
    store.close()
    assert counts(path) == before
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)


def test_what_an_older_version_took_for_two_facts_stays_two_records(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    store = Store(path)
    kept(store, SALES[:1])
    store.close()
    aged(path, "CAST('old' || id AS BLOB)")
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO records SELECT id + 9, message, packet, controller, type, local_time, utc,"
            " flags, CAST('other' AS BLOB) FROM records ORDER BY id LIMIT 1"
        )
    store = Store(path)
    assert kept(store, SALES[:1]) == 2
    store.close()
    assert counts(path)["records"] == 3


def test_new_keys_are_made_in_steps_that_are_not_done_again(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "j.db"
    store = Store(path)
    kept(store, SALES)
    store.close()
    aged(path, "CAST('old' || id AS BLOB)")
    monkeypatch.setattr(rekey, "PAGE", 10)
    keyed: list[int] = []

    def killed_at(most: int) -> Callable[..., bytes]:
        def key(*of: Any) -> bytes:
            keyed.append(1)
            if len(keyed) > most:
                raise KeyboardInterrupt
            return record_key(*of)

        return key

    for most in (450, 650):
        monkeypatch.setattr(rekey, "record_key", killed_at(most))
        with pytest.raises(KeyboardInterrupt):
            Store(path)
        with sqlite3.connect(path) as connection:
            # A release that knows other keys must not write between them.
            assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
            query = "SELECT count(*) FROM records WHERE substr(natural_key, 1, 3) <> 'old'"
            (done,) = connection.execute(query.replace("'old'", "CAST('old' AS BLOB)")).fetchone()
        keyed[:] = [1] * done  # the steps that were finished
        assert done == most // 200 * 200
    monkeypatch.setattr(rekey, "record_key", record_key)
    told: list[str] = []
    store = Store(path, working=told.append)
    assert kept(store, SALES) == 2 * 700 + 1
    store.close()
    assert told[-1].endswith("801 of 801 records")
    told.clear()
    Store(path, working=told.append).close()
    assert not any("keys" in text for text in told)


def evidence(count: int, *, start: int = 0, detail: str = "{}") -> list[Evidence]:
    return [
        Evidence("attempt", at, "AB", "x", "accepted", detail) for at in range(start, start + count)
    ]


DAY = 86_400_000


def test_evidence_is_trimmed_by_age_and_number_and_records_never_are(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db", retention=Retention(evidence_days=1, evidence_rows=50))
    store.write([entry(1)], evidence(100))
    store.trim(DAY + 20)
    assert counts(tmp_path / "j.db")["evidence"] == 50
    store.trim(DAY + 90)
    assert counts(tmp_path / "j.db")["evidence"] == 10
    assert counts(tmp_path / "j.db")["records"] == 1
    store.close()


def test_evidence_is_trimmed_as_fast_as_it_comes_and_by_size(tmp_path: Path) -> None:
    retention = Retention(evidence_rows=20_000, evidence_bytes=1_000_000)
    store = Store(tmp_path / "j.db", retention=retention)
    for minute in range(20):
        store.write([], evidence(2000, detail='{"x":"' + "y" * 900 * (minute % 2) + '"}'))
        while store.overfull:
            store.trim(0)
    with sqlite3.connect(tmp_path / "j.db") as connection:
        rows, size = connection.execute(
            "SELECT count(*), sum(length(detail) + 100) FROM evidence"
        ).fetchone()
        assert connection.execute("SELECT rows, bytes FROM held").fetchone() == (rows, size)
    assert 0 < size <= 1_000_000
    store.close()
    # The amounts are known again without counting.
    store = Store(tmp_path / "j.db", retention=Retention(evidence_rows=10))
    assert store.overfull
    store.close()


def test_a_long_detail_is_cut_and_stays_json(tmp_path: Path) -> None:
    headers = [[f"X-{number}", "y" * 300] for number in range(60)]
    long = json.dumps({"status": 429, "reason": "too many", "headers": headers})
    store = Store(tmp_path / "j.db")
    store.write([], evidence(1, detail=long) + evidence(1, detail=json.dumps({"x" * 9000: 1})))
    store.close()
    with sqlite3.connect(tmp_path / "j.db") as connection:
        found = [text for (text,) in connection.execute("SELECT detail FROM evidence")]
    assert all(len(text) <= 4096 for text in found)
    assert json.loads(found[0])["reason"] == "too many"
    assert json.loads(found[0])["cut"] == len(long)


def test_the_history_of_status_is_trimmed_by_age_and_size(tmp_path: Path) -> None:
    retention = Retention(status_days=1, status_bytes=20_000)
    store = Store(tmp_path / "j.db", status_history_seconds=1, retention=retention)
    for second in range(0, 100, 2):
        status = Status(b"x" * 900, None)
        store.write([entry(0, facts=[], received=second * 1000, status=status)], [])
    assert store.overfull
    store.trim(0)
    assert not store.overfull
    assert 15 <= counts(tmp_path / "j.db")["status_history"] <= 20
    store.trim(DAY + 95_000)
    assert counts(tmp_path / "j.db")["status_history"] == 2
    store.close()


def test_a_sample_of_status_is_remembered_over_a_restart(tmp_path: Path) -> None:
    for second in range(0, 90, 30):
        store = Store(tmp_path / "j.db", status_history_seconds=60)
        store.write([entry(0, facts=[], received=second * 1000, status=Status(b"{}", 1))], [])
        store.close()
    assert counts(tmp_path / "j.db")["status_history"] == 2


def test_invented_types_share_a_name_and_hide_nobodys_records(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    names = [f"UploadX{number}" for number in range(700)]
    packets = b",".join(b'{"Id":1,"Type":"%b","Data":{"A":1}}' % n.encode() for n in names)
    kept(store, [b'{"Packets":[' + packets + b"]}"])
    kept(store, SALES[:1])
    assert kept(store, [b'{"Packets":[' + packets + b"]}"]) == 700
    with open_reader(tmp_path / "j.db") as connection:
        (types,) = connection.execute("SELECT count(*) FROM types").fetchone()
        found = read(connection)
        last = read(connection, type_=names[-1])
    store.close()
    assert types <= MAX_TYPES + 2
    assert [record.type for record in found] == [*names, "UploadPumpTransaction", "UploadNovelty"]
    assert [record.id for record in last] == [found[699].id]


def test_a_journal_that_was_flooded_with_types_before_takes_new_ones(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    with sqlite3.connect(tmp_path / "j.db") as connection:
        connection.executemany(
            "INSERT INTO types (name) VALUES (?)", ((f"UploadX{n}",) for n in range(66_000))
        )
    store.close()
    store = Store(tmp_path / "j.db")
    kept(store, SALES[:2])
    assert kept(store, SALES[:2]) == 4
    store.close()


def test_ids_go_on_when_the_file_is_new_or_from_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    store = Store(path)
    store.write([entry(1)], [])
    store.close()
    shutil.copy(path, tmp_path / "backup.db")
    store = Store(path)
    store.write([entry(number) for number in range(2, 5)], [])
    with open_reader(path) as connection:
        page = read_page(connection)
    store.close()
    assert len(page.records) == 4
    # From a backup, then a new file: what comes is behind the cursor, and nothing else is.
    for replacement in (tmp_path / "backup.db", None):
        path.unlink()
        if replacement is not None:
            shutil.copy(replacement, path)
        store = Store(path)
        store.write([entry(9)], [])
        with open_reader(path) as connection:
            went_on = read_page(connection, after=page.next, journal=page.journal)
        store.close()
        (record,) = went_on.records
        assert record.id > page.next
        assert (went_on.journal == page.journal) == (replacement is not None)


def test_a_cursor_of_another_journal_is_refused_not_answered_with_silence(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    store.write([entry(1)], [])
    store.close()
    with open_reader(tmp_path / "j.db") as connection:
        newest = read_page(connection).next
        assert read_page(connection, after=newest).next == newest
        with pytest.raises(CursorRefused, match="greater than any") as refused:
            read_page(connection, after=newest + 1)
        assert refused.value.code == "cursor-ahead"
        with pytest.raises(CursorRefused, match="is of journal feed") as refused:
            read_page(connection, after=newest, journal="feed")
        assert refused.value.code == "other-journal"


def test_the_cursor_passes_what_the_filter_left_out(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(records, "MAX_LOOKED_AT", 10)
    store = Store(tmp_path / "j.db")
    store.write([entry(number) for number in range(25)], [])
    kept(store, SALES[:1])
    cursor, pages, found = 0, 0, []
    with open_reader(tmp_path / "j.db") as connection:
        while True:
            page = read_page(connection, after=cursor, type_="UploadNovelty", limit=5)
            found += page.records
            if page.next == cursor:
                break
            cursor, pages = page.next, pages + 1
    store.close()
    assert (pages, len(found)) == (3, 1)


def test_variants_are_read_behind_a_cursor_and_found_by_an_index(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    sale = b'{"Packets":[{"Id":1,"Type":"UploadPumpTransaction","Data":{"DateTime":' + (
        b'"2026-03-01T10:01:00","Transaction":1,"Amount":%d}}]}'
    )
    for amount in (1, 2, 2, 3, 1, 2):
        kept(store, [sale % amount])
    with open_reader(tmp_path / "j.db") as connection:
        (record,) = read(connection)
        page = read_page(connection, variants=True)
        rest = read_page(connection, variants=True, after=page.records[0].id)
        plan = str(
            connection.execute(
                "EXPLAIN QUERY PLAN SELECT count(*) FROM variants WHERE record = 1"
            ).fetchall()
        )
    store.close()
    assert record.variants == 2
    assert [json.loads(bytes(item.data))["Amount"] for item in page.records] == [2, 3]
    assert {item.record for item in page.records} == {record.id}
    assert len(rest.records) == 1
    assert "INDEX" in plan


def test_probing_leaves_nothing_behind(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    store.probe()
    assert counts(tmp_path / "j.db")["evidence"] == 0
    store.close()


def test_reading_where_nothing_is_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalMissing), open_reader(tmp_path / "none.db"):
        pass


def fill(store: Store) -> int:
    """Write until it fails; how many entries were stored."""
    number = 0
    try:
        while True:
            store.write([entry(number, raw=b"x" * 20_000)], [])
            number += 1
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
    return number


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs mkfs.ext4")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    image, mount = tmp_path / "disk", tmp_path / "mnt"
    mount.mkdir()
    with image.open("wb") as handle:
        handle.truncate(8_000_000)
    # Blocks of a page's size, as every real disk has: with smaller ones the kernel itself kills a
    # process that touches SQLite's shared-memory file on a full disk.
    subprocess.run(
        ["mkfs.ext4", "-q", "-b4096", "-m0", "-O", "^has_journal", str(image)], check=True
    )
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(mount)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a loop device here")
    try:
        store = Store(mount / "j.db")
        stored = fill(store)
        assert stored > 10
        with pytest.raises(sqlite3.OperationalError):
            store.write([entry(stored, raw=b"x" * 20_000)], [])
        store.close()
        with sqlite3.connect(f"file:{mount}/j.db?mode=ro", uri=True) as connection:
            (kept,) = connection.execute("SELECT count(*) FROM records").fetchone()
        connection.close()
        assert kept == stored
    finally:
        subprocess.run(["umount", str(mount)], check=True)
