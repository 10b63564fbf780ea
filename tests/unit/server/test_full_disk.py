"""A disk that is really full: errors that make controllers send again, then on without a restart.

The server runs in a process of its own: with root, on a small tmpfs in a mount namespace; anywhere,
under a limit on the size of its files, which SQLite meets as a write that fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ptslink.journal.store import Store
from ptslink.journal.writer import JournalWriter
from ptslink.server.config import parse
from ptslink.server.service import start_server
from support.wire import Wire, sale, until

TESTS = Path(__file__).parents[2]
SIZE = 3_000_000
IN_NAMESPACE = ["unshare", "--mount", "--propagation", "private"]


def can_mount() -> bool:
    """Whether a tmpfs can be mounted here in a namespace of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    command = [*IN_NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("kind", ["tmpfs", "file size"])
def test_a_disk_that_is_really_full_is_answered_with_errors_and_recovered_from(
    tmp_path: Path, kind: str
) -> None:
    if kind == "tmpfs" and not can_mount():
        pytest.skip("cannot mount here; the limit on file sizes stands in")
    inside = IN_NAMESPACE if kind == "tmpfs" else []
    done = subprocess.run(
        [*inside, sys.executable, __file__, kind, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["confirmed"] > 5
    assert said["refused"] >= 3
    assert said["records"] == said["confirmed"]
    assert said["reason"]


async def fill_and_make_room(directory: Path, make_room: Callable[[], None]) -> None:
    """Sell until nothing is confirmed, make room, and sell on; says what came of it."""
    content = {
        "listen": {"addresses": ["127.0.0.1"], "port": 0},
        "journal": {"path": str(directory / "journal.db")},
        "admin": {"port": 0, "socket": ""},
        "logs": {"directory": ""},
    }
    writer = JournalWriter(lambda: Store(directory / "journal.db"), retry_seconds=0.05)
    server = await start_server(parse(content), journal=writer)
    wire = await Wire.link(server.port)
    number = confirmed = refused = 0
    while refused < 3:
        answer = await wire.upload(sale(number, CustomData="x" * 20_000))
        if answer["Packets"][0].get("Message") == "OK":
            number, confirmed = number + 1, confirmed + 1
        else:
            refused += 1
    await until(lambda: not writer.health.ok)
    reason = writer.health.reason
    health = await Wire.connect(server.port)
    asking = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    assert (await health.ask(asking)).status == 503
    make_room()
    await until(lambda: writer.health.ok)
    for _ in range(3):
        answer = await wire.upload(sale(number, CustomData="x" * 20_000))
        assert answer["Packets"][0].get("Message") == "OK", answer
        number, confirmed = number + 1, confirmed + 1
    assert (await health.ask(asking)).status == 200
    await health.close()
    await wire.close()
    await server.stop()
    with sqlite3.connect(directory / "journal.db") as connection:
        (records,) = connection.execute("SELECT count(*) FROM records").fetchone()
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    counts = {"confirmed": confirmed, "refused": refused, "records": records}
    sys.stdout.write(json.dumps({**counts, "reason": reason}) + "\n")


def on_a_small_disk(directory: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(directory)]
    subprocess.run(command, check=True)
    ballast = directory / "ballast"
    ballast.write_bytes(bytes(SIZE // 2))
    asyncio.run(fill_and_make_room(directory, ballast.unlink))


def with_small_files(directory: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, hard))

    def make_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    asyncio.run(fill_and_make_room(directory, make_room))


if __name__ == "__main__":
    {"tmpfs": on_a_small_disk, "file size": with_small_files}[sys.argv[1]](Path(sys.argv[2]))
