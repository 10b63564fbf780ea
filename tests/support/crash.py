"""The crash test: SIGKILL at random moments under uploading controllers.

Every confirmed record must be in the journal after the restart, none doubled. Also runs by itself:
``PYTHONPATH=tests python -m support.crash --kills 100 --controllers 50``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from support.wire import Wire, message, request, sale


@dataclass
class Outcome:
    """What a run found.

    Attributes:
        kills: how often the server was killed.
        confirmed: natural numbers of the sales each controller saw confirmed.
        lost: confirmed and not in the journal.
        doubled: sales that are in the journal more than once.
        resent: uploads sent again because a kill swallowed their confirmation.
    """

    kills: int = 0
    confirmed: dict[str, set[int]] = field(default_factory=dict)
    lost: list[tuple[str, int]] = field(default_factory=list)
    doubled: list[tuple[str, int]] = field(default_factory=list)
    resent: int = 0

    @property
    def total(self) -> int:
        """How many sales were confirmed."""
        return sum(len(numbers) for numbers in self.confirmed.values())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Target:
    """A server process that can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.journal = directory / "journal.db"
        self.config = directory / "ptslink.toml"
        self.config.write_text(
            f'[listen]\naddresses = ["127.0.0.1"]\nport = {self.port}\n'
            f'[journal]\npath = "{self.journal}"\n'
            f'[admin]\nport = {free_port()}\nsocket = ""\n[logs]\ndirectory = ""\n'
        )
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "ptslink.cli", "serve", "--config", str(self.config)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    wire = await Wire.connect(self.port)
                    await wire.close()
                    return
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


async def controller(target: Target, id_: str, outcome: Outcome, stop: asyncio.Event) -> None:
    """Upload sales one after the other, each until it is confirmed, as a controller does."""
    confirmed = outcome.confirmed.setdefault(id_, set())
    number = 1
    first = True
    while not stop.is_set():
        with contextlib.suppress(
            OSError, asyncio.IncompleteReadError, TimeoutError, AssertionError
        ):
            wire = await Wire.connect(target.port)
            try:
                if (await wire.ask(request(X_Pts_Id=id_))).status != 101:
                    continue
                while not stop.is_set():
                    outcome.resent += not first
                    first = False
                    wire.send(message(sale(number, id_=number % 65535 + 1), PtsId=id_))
                    packet = json.loads(await wire.text())["Packets"][0]
                    if packet.get("Message") == "OK" and not packet.get("Error"):
                        confirmed.add(number)
                        number += 1
                        first = True
            finally:
                wire.writer.transport.abort()
        await asyncio.sleep(0.01)


async def crash(
    directory: Path, *, kills: int, controllers: int, seed: int, longest: float = 0.6
) -> Outcome:
    """Kill the server `kills` times under `controllers` uploading controllers."""
    chance = random.Random(seed)
    target = Target(directory)
    outcome = Outcome()
    stop = asyncio.Event()
    await target.start()
    ids = [f"A{number:023X}" for number in range(1, controllers + 1)]
    tasks = [asyncio.create_task(controller(target, id_, outcome, stop)) for id_ in ids]
    try:
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.05, longest))
            await target.kill()
            outcome.kills += 1
            await target.start()
        await asyncio.sleep(0.3)
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        await target.stop()
    stored = read_back(target.journal)
    for id_, numbers in outcome.confirmed.items():
        counts = stored.get(id_, {})
        outcome.lost += [(id_, number) for number in numbers if not counts.get(number)]
        outcome.doubled += [(id_, number) for number, count in counts.items() if count > 1]
    return outcome


def read_back(journal: Path) -> dict[str, dict[int, int]]:
    """How often each sale of each controller is in the journal."""
    with sqlite3.connect(journal) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute(
            "SELECT c.pts_id, json_extract(CAST(m.raw AS TEXT), '$.Packets[0].Data.TotalVolume')"
            " FROM records r JOIN messages m ON m.id = r.message"
            " JOIN controllers c ON c.id = r.controller"
        )
        found: dict[str, dict[int, int]] = {}
        for id_, total in rows:
            counts = found.setdefault(id_, {})
            counts[int(total) - 1000] = counts.get(int(total) - 1000, 0) + 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--controllers", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="ptslink-crash-") as directory:
        found = asyncio.run(
            crash(
                Path(directory),
                kills=arguments.kills,
                controllers=arguments.controllers,
                seed=arguments.seed,
            )
        )
    print(
        f"{found.kills} kills, {found.total} sales confirmed, {found.resent} sent again, "
        f"{len(found.lost)} lost, {len(found.doubled)} doubled"
    )
    return 1 if found.lost or found.doubled or not found.total else 0


if __name__ == "__main__":
    raise SystemExit(main())
