"""The journal when the server starts: what the one before left, and how long it may take."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

from ptslink.journal import rekey
from ptslink.journal.store import Store
from ptslink.journal.writer import open_writer
from ptslink.server import service
from support.journals import put
from support.wire import CONTROLLER, Wire, sale, until


def events(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return [code for (code,) in connection.execute("SELECT code FROM evidence")]


async def test_links_of_a_server_that_was_killed_are_closed_by_the_next(
    serve, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    killed.mkdir()
    server = await serve()
    wire = await Wire.link(server.port)
    await wire.upload(sale(1))
    await until(lambda: "accepted" in events(tmp_path / "journal.db"))
    for end in ("", "-wal"):
        shutil.copy(tmp_path / f"journal.db{end}", killed)  # as SIGKILL leaves them
    await wire.close()
    await server.stop()
    await serve(journal=open_writer(killed / "journal.db"))
    await until(lambda: events(killed / "journal.db").count("ended-unclean") == 2)
    with sqlite3.connect(killed / "journal.db") as connection:
        ((controller, detail),) = connection.execute(
            "SELECT controller, detail FROM evidence WHERE code = 'ended-unclean' AND kind = 'link'"
        )
    assert controller == CONTROLLER
    assert "The server ended unclean before 20" in json.loads(detail)["error"]


async def test_as_long_as_opening_the_journal_works_systemd_waits(
    serve, tmp_path: Path, monkeypatch
) -> None:
    store = Store(tmp_path / "journal.db")
    put(store, *(b"message %d" % number for number in range(50)))
    store.close()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("INSERT INTO rekeying VALUES (0)")
    connection.close()
    monkeypatch.setattr(rekey, "PAGE", 1)
    monkeypatch.setattr(service, "TELL_SECONDS", 0)
    monkeypatch.setattr(service, "LOG_SECONDS", 0)
    told: list[str] = []
    monkeypatch.setattr(service.systemd, "notify", told.append)
    await serve()
    progress = [text for text in told if "natural keys" in text]
    assert len(progress) == 3
    assert progress[0].startswith("EXTEND_TIMEOUT_USEC=60000000\nSTATUS=Opening the journal: ")
    assert progress[0].endswith("20 of 50 records")
    log = tmp_path / "logs"
    await until(
        lambda: (
            "natural keys are made anew: 50 of 50 records"
            in "".join(file.read_text() for file in log.glob("Server_*.log"))
        )
    )
