"""Controllers that take part in a restart: ``python -m benchmarks.restart.controllers URL ...``.

Runs in the controllers' network of a lab. Reads one word a line from standard input and answers
each with one line of JSON:

    report   what happened since the last report: attempts, endings, returns; and who is connected
    stop     deliver what waits, close in order, and say what was left over

What was seen confirmed goes to the file LEDGER at the end, for `benchmarks.crash.audit`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import click
from benchmarks.crash.witness import Witness, Witnesses

from ptslink.simulator.device import Device
from ptslink.simulator.result import ControllerResult

#: Seconds between two messages of a kind; some hundred messages a second from 500 controllers.
PERIODS: Final = {
    "UploadStatus": 10.0,
    "UploadPumpTransaction": 5.0,
    "UploadTankMeasurement": 15.0,
    "UploadPayment": 15.0,
    "UploadAlertRecord": 60.0,
    "UploadInTankDelivery": 60.0,
    "RequestTagsInformation": 30.0,
}


@dataclasses.dataclass
class Attendance:
    """What happened since the last report.

    Attributes:
        refused: attempts that did not become a link, by what the controller saw.
        endings: links that ended, by the close code received, or by how they broke.
        away: seconds from the end of a link to the controller's next one.
        attempts: how often a controller dialled after its link ended.
    """

    refused: Counter[str] = dataclasses.field(default_factory=Counter)
    endings: Counter[str] = dataclasses.field(default_factory=Counter)
    away: list[float] = dataclasses.field(default_factory=list)
    attempts: int = 0


class Attending(Witnesses):
    """Witnesses that also write down how each connection came and went."""

    attendance = Attendance()

    async def _connection(
        self, device: Device, result: ControllerResult, rng: random.Random
    ) -> None:
        assert isinstance(device, Witness)
        links, errors = device.links, result.errors
        attendance = self.attendance
        attendance.attempts += 1
        await super()._connection(device, result, rng)
        failed = result.error if result.errors > errors else None
        if device.links == links:
            self.attendance.refused[str(failed)] += 1
            return
        ending = result.ending
        code = None if ending is None else ending.received
        self.attendance.endings[str(code) if code is not None else str(failed)] += 1

    def report(self) -> dict[str, Any]:
        """The attendance since the last report."""
        seen, self.attendance = self.attendance, Attendance()
        for device in self.devices:
            assert isinstance(device, Witness)
            seen.away += device.away
            device.away = []
        return {
            "connected": self.connected,
            "attempts": seen.attempts,
            "refused": seen.refused,
            "endings": seen.endings,
            "away": sorted(round(seconds, 3) for seconds in seen.away),
            "confirmed": len(self.ledger),
        }


async def attend(simulation: Attending, ledger: Path) -> bool:
    """Answer words from standard input until ``stop``, or its end."""
    loop = asyncio.get_running_loop()
    words = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    run = asyncio.create_task(simulation.run())
    while (word := (await words.readline()).strip()) == b"report":
        say(simulation.report())
    simulation.stopping.set()
    await run
    with ledger.open("w") as file:
        for sent in simulation.ledger:
            file.write(json.dumps(dataclasses.astuple(sent)) + "\n")
    faults = simulation.faults()
    say({**simulation.report(), "faults": faults})
    return word == b"stop" and not faults


def say(content: dict[str, Any]) -> None:
    print(json.dumps(content, separators=(",", ":")), flush=True)


@click.command()
@click.argument("url")
@click.argument("ledger", type=click.Path(path_type=Path))
@click.option("--controllers", type=click.IntRange(1), default=500)
@click.option("--reconnect", default=0.2, help="Seconds before a lost connection is tried again.")
@click.option("--ramp", default=200.0, help="Controllers switched on in a second.")
@click.option("--seed", default=lambda: str(int(time.time())))
def main(
    url: str, ledger: Path, controllers: int, reconnect: float, ramp: float, seed: str
) -> None:
    """Be controllers that dial into URL and attend a restart."""
    simulation = Attending(
        url, controllers, seed, periods=PERIODS, reconnect_seconds=reconnect, ramp=ramp
    )
    sys.exit(0 if asyncio.run(attend(simulation, ledger)) else 1)


if __name__ == "__main__":
    main()
