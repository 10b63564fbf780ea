"""Where a journal may be: on a disk of this machine, for one process alone, for nobody to read."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ptslink.journal import place, store
from ptslink.journal.entry import Entry, Evidence, Transport
from ptslink.journal.mount import mount_of
from ptslink.journal.schema import JournalRefused
from ptslink.journal.store import Store

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /srv rw shared:9 - nfs4 server:/srv rw,vers=4.2
31 30 8:2 / /srv/local\\040disk rw - xfs /dev/sdb rw
32 22 0:26 / /mnt rw - cifs //server/share rw
33 22 8:3 / /mnt rw - btrfs /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib/ptslink", "ext4"),
        ("/srvother", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/x/y", "nfs4"),
        ("/srv/local disk/x", "xfs"),
        ("/mnt/x", "btrfs"),
    ],
)
def test_the_file_system_of_a_directory_is_the_one_mounted_nearest(directory, kind) -> None:
    assert mount_of(Path(directory), MOUNTS)["type"] == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs"])
def test_a_journal_on_a_disk_of_another_machine_is_refused(tmp_path, monkeypatch, kind) -> None:
    monkeypatch.setattr(place, "mount_of", lambda *_: {"type": kind})
    with pytest.raises(JournalRefused, match=f"is on {kind}, a disk of another machine"):
        Store(tmp_path / "j.db")
    assert not (tmp_path / "j.db").exists()


def test_a_journal_that_gets_no_write_ahead_log_is_refused(tmp_path: Path, monkeypatch) -> None:
    # SQLite does the same where there is no shared memory: the mode stays what it was.
    connect = sqlite3.connect
    monkeypatch.setattr(store.sqlite3, "connect", lambda *_, **__: connect(":memory:"))
    with pytest.raises(JournalRefused, match="stays in mode memory"):
        Store(tmp_path / "j.db")


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    command = [
        sys.executable,
        "-c",
        "import sys; from pathlib import Path; from ptslink.journal.store import Store\n"
        "store = Store(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()",
        str(path),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"open\n"
        with pytest.raises(JournalRefused, match="another process writes this journal"):
            Store(path)
        first.kill()
    second = Store(path)
    with pytest.raises(JournalRefused):
        Store(path)
    second.close()
    Store(path).close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_else_may_read_any_file_of_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "j.db"
    before = os.umask(umask)
    try:
        for _ in range(2):
            opened = Store(path)
            opened.write([Entry("AB", 1, Transport.WEBSOCKET, 1, b"x")], [])
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
            assert set(modes) == {"j.db", "j.db-wal", "j.db-shm", "j.db.lock"}
            assert set(modes.values()) == {0o640}
            # What an older release left, and what SQLite made after it.
            for name in modes:
                (tmp_path / name).chmod(0o644)
            opened.close()
    finally:
        os.umask(before)


def test_links_that_a_killed_process_left_open_are_closed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    opened = Store(path)
    begun = [
        Evidence("attempt", 1000 * n, "AB", f"192.0.2.{n}", "accepted", "{}", n) for n in (1, 2, 3)
    ]
    opened.write([], begun)
    opened.write([], [Evidence("link", 9000, "AB", "192.0.2.2", "closed-1000-by-peer", "{}", 2)])
    opened.close()
    for left in (2, 0):
        opened = Store(path)
        assert opened.end_links() == left
        opened.close()
    with sqlite3.connect(path) as connection:
        ended = connection.execute(
            "SELECT peer, json_extract(detail, '$.since'), json_extract(detail, '$.seconds')"
            " FROM evidence WHERE code = 'ended-unclean' ORDER BY id"
        ).fetchall()
    assert ended == [("192.0.2.1", 1000, 8.0), ("192.0.2.3", 3000, 6.0)]


def test_a_kind_of_evidence_that_is_rare_is_found_by_an_index(tmp_path: Path) -> None:
    Store(tmp_path / "j.db").close()
    with sqlite3.connect(tmp_path / "j.db") as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT at, kind, controller, peer, code, detail FROM evidence"
            " WHERE kind = ? AND at >= ? ORDER BY at DESC LIMIT ?",
            ("event", 0, 1000),
        ).fetchall()
    assert "INDEX evidence_kind" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
