"""The server as it is, for the bench: ``python -m benchmarks.server.ours PORT DIRECTORY``.

With its journal it is what ``ptslink serve`` runs. ``--without-journal`` composes it with a journal
that keeps nothing, which no configuration can ask for: what is left is the cost of the link
itself. ``--uvloop`` runs either on uvloop.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click

from ptslink.journal.entry import Entry, Evidence, Health
from ptslink.journal.writer import JournalWriter
from ptslink.server.config import Config, load
from ptslink.server.service import run, start_server

CONFIG = """\
[listen]
addresses = ["127.0.0.1"]
port = {port}

[journal]
path = "{directory}/journal.db"

[limits]
connections = 15000
connections_per_address = 15000
failures_per_minute = 100000
new_controllers_per_address = 100000

[admin]
port = 0
socket = "{directory}/admin.sock"

[logs]
directory = "{directory}/logs"
"""


class NoJournal:
    """Settles what it is given in the next turn of the loop and keeps none of it."""

    def __init__(self) -> None:
        self.health = Health()
        self.offsets: dict[str, int] = {}
        self.on_health: Callable[[Health], None] | None = None
        self._entries: list[Entry] = []

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)
        if len(self._entries) == 1:
            self._loop.call_soon(self._settle)

    def record(self, evidence: Evidence) -> None:
        pass

    def knows(self, controller: str) -> bool:  # noqa: ARG002
        return True

    async def settled(self) -> None:
        self._settle()

    async def close(self) -> None:
        self._settle()

    def _settle(self) -> None:
        entries, self._entries = self._entries, []
        for entry in entries:
            entry.stored = True
            if entry.settled is not None:
                entry.settled(entry)


async def serve_without_journal(config: Config) -> None:
    """As `ptslink.server.service.run`, on a `NoJournal`."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await start_server(
        config, journal=cast("JournalWriter", NoJournal()), out=sys.stdout.buffer
    )
    await stop.wait()
    await server.stop()


@click.command()
@click.argument("port", type=int)
@click.argument("directory", type=click.Path(path_type=Path, exists=True))
@click.option("--without-journal", is_flag=True)
@click.option("--uvloop", "on_uvloop", is_flag=True)
def main(port: int, directory: Path, without_journal: bool, on_uvloop: bool) -> None:
    """Serve on 127.0.0.1 until SIGTERM."""
    written = directory / "ptslink.toml"
    (directory / "logs").mkdir()
    written.write_text(CONFIG.format(port=port, directory=directory))
    config = load(written)
    served: Any = serve_without_journal(config) if without_journal else run(config, written)
    if on_uvloop:
        import uvloop  # type: ignore[import-not-found, unused-ignore]

        uvloop.run(served)
    else:
        asyncio.run(served)


if __name__ == "__main__":
    main()
