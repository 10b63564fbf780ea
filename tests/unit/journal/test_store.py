"""The journal file itself."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from ptslink.journal import rekey, schema
from ptslink.journal.entry import Entry, Evidence, Fact, Status, Transport
from ptslink.journal.filing import facts_of
from ptslink.journal.reader import JournalMissing, open_reader, summary
from ptslink.journal.records import read
from ptslink.journal.store import JournalGone, Store


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


def test_only_owner_and_group_may_read_it(tmp_path: Path) -> None:
    Store(tmp_path / "j.db").close()
    assert (tmp_path / "j.db").stat().st_mode & 0o777 == 0o640


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
    assert ids == list(range(1, len(kept) + 1))
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
        assert [record.id for record in read(connection)] == [1, 2, 3]


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
    Store(tmp_path / "j.db").close()
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
        connection.execute("UPDATE records SET natural_key = " + change)
        connection.execute("PRAGMA user_version = 1")


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
            "INSERT INTO records SELECT 9, message, packet, controller, type, local_time, utc,"
            " flags, CAST('other' AS BLOB) FROM records WHERE id = 1"
        )
    store = Store(path)
    assert kept(store, SALES[:1]) == 2
    store.close()
    assert counts(path)["records"] == 3


def test_keys_are_brought_up_to_date_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "j.db"
    store = Store(path)
    kept(store, SALES)
    store.close()
    aged(path, "CAST('old' || id AS BLOB)")
    made = iter(range(500))
    monkeypatch.setattr(rekey, "record_key", lambda *_: str(next(made)).encode())
    with pytest.raises(StopIteration):
        Store(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        keys = {key for (key,) in connection.execute("SELECT natural_key FROM records")}
    assert all(key.startswith(b"old") for key in keys)


def test_evidence_is_trimmed_by_age_and_number_and_records_never_are(tmp_path: Path) -> None:
    store = Store(tmp_path / "j.db")
    evidence = [Evidence("attempt", at, "AB", "x", "accepted", "{}") for at in range(100)]
    store.write([entry(1)], evidence)
    store.trim_evidence(before=40, keep_rows=1000)
    assert counts(tmp_path / "j.db")["evidence"] == 60
    store.trim_evidence(before=0, keep_rows=10)
    assert counts(tmp_path / "j.db")["evidence"] == 10
    assert counts(tmp_path / "j.db")["records"] == 1
    store.close()


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
