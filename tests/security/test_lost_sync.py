"""A sync that fails: what is confirmed afterwards is on the disk, though not all before it is."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ptslink.journal.entry import Clock, Entry, Transport
from ptslink.journal.filing import file
from ptslink.journal.store import Store
from ptslink.journal.writer import JournalWriter

COMPILER = shutil.which("cc") or shutil.which("gcc")
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def failing_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes the syncs of a process fail; see lost_sync.c."""
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("lost-sync") / "lost_sync.so"
    source = Path(__file__).with_name("lost_sync.c")
    command = [COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.mark.parametrize(("failures", "ends"), [(2, "goes on"), (2, "is killed"), (3, "is killed")])
def test_what_is_confirmed_after_a_failed_sync_outlasts_a_power_cut(
    tmp_path: Path, failing_disk: Path, failures: int, ends: str
) -> None:
    directory, disk = tmp_path / "seen", tmp_path / "disk"
    directory.mkdir()
    disk.mkdir()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(failing_disk),
        "LOST_SYNC_DIRECTORY": str(directory),
        "LOST_SYNC_DISK": str(disk),
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
    }
    confirmed: list[str] = []
    # Killed right after the sync failed, the process starts anew: SQLite reads the log again.
    for numbers in (["1-3!"], ["4-6"]) if ends == "is killed" else (["1-3!", "4-6"],):
        for attempt in range(failures, -1, -1):
            done = subprocess.run(
                [sys.executable, __file__, str(directory), str(failures), *numbers],
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            # It does not start on a disk that fails; systemd starts it again.
            if done.returncode == 0 or not attempt:
                break
        assert done.returncode == 0, done.stderr
        confirmed += done.stdout.split()
    assert {"1", "4", "6"} <= set(confirmed)
    assert "3" not in confirmed, "the sync did not fail"
    # The power cut: what the disk has is all there is.
    with sqlite3.connect(disk / "j.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        raws = [bytes(raw) for (raw,) in connection.execute("SELECT raw FROM messages")]
    connection.close()
    assert {f"sale {number}".encode() for number in confirmed} <= set(raws)


async def sell(directory: Path, failures: int, spans: list[str]) -> None:
    """Sell the numbers of each span, where its end has a mark the last one with failing syncs."""
    writer = JournalWriter(lambda: Store(directory / "j.db"), retry_seconds=0.01)
    writer.start()
    for span in spans:
        first, last = span.rstrip("!").split("-")
        for number in range(int(first), int(last) + 1):
            fails = span.endswith("!") and number == int(last)
            if fails:
                (directory / "fail").write_text(f"{failures}\n")
            while not await stored(writer, number):
                if fails:
                    break
                await asyncio.sleep(0.01)
            else:
                sys.stdout.write(f"{number}\n")
    sys.stdout.flush()
    os._exit(0)  # nothing is closed, as when the process is killed


async def stored(writer: JournalWriter, number: int) -> bool:
    entries: list[Entry] = []
    entry = file(
        f"sale {number}".encode(),
        controller="AB",
        clock=Clock(),
        received=1,
        transport=Transport.WEBSOCKET,
        link=1,
        settled=entries.append,
    )
    writer.append(entry)
    await writer.settled()
    return entry.stored


if __name__ == "__main__":
    asyncio.run(sell(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
