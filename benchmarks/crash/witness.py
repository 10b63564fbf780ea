"""Simulated controllers that remember every message they saw confirmed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from benchmarks.crash.audit import Sent, packets

from ptslink.doctor.probe.target import parse_target
from ptslink.simulator.device import Device
from ptslink.simulator.head import Identity
from ptslink.simulator.run import Simulation
from ptslink.simulator.setup import Setup, new_identities

#: Seconds between two messages of a kind: a station's year in minutes, every kind in it.
PERIODS: Final = {
    "UploadStatus": 1.0,
    "UploadPumpTransaction": 0.5,
    "UploadTankMeasurement": 1.0,
    "UploadPayment": 1.5,
    "UploadAlertRecord": 3.0,
    "UploadInTankDelivery": 3.0,
    "UploadGpsRecord": 3.0,
    "UploadShift": 3.0,
    "UploadConfiguration": 30.0,
    "RequestTagsInformation": 3.0,
}

#: Messages of one kind that wait at most.
MOST_WAITING: Final = 5


class Witness(Device):
    """A controller that writes things down.

    Attributes:
        ledger: what it saw confirmed.
        saw_confirmation: called right after each.
        links: how often it was connected.
        away: seconds from the end of each link to the next.
    """

    def __init__(self, identity: Identity, ledger: list[Sent], **options: Any) -> None:
        super().__init__(identity, **options)
        self.ledger = ledger
        self.saw_confirmation: Callable[[], None] = lambda: None
        self.links = 0
        self.away: list[float] = []
        self._left: float | None = None

    def happen(self, kind: str, now: float) -> None:
        # A year in minutes is more than a busy computer may manage: what would pile up for longer
        # than the run lasts does not happen.
        if self.unconfirmed[kind] < MOST_WAITING:
            super().happen(kind, now)

    def connect(self, now: float) -> None:
        super().connect(now)
        self.links += 1
        if self._left is not None:
            self.away.append(now - self._left)

    def disconnect(self) -> None:
        super().disconnect()
        self._left = time.monotonic()

    def _confirm(self, entry: dict[str, Any], now: float) -> None:
        pending = self._matching(entry.get("Id"))
        before = self.tally.confirmed.total()
        super()._confirm(entry, now)
        if pending is not None and self.tally.confirmed.total() > before:
            self.ledger += packets(pending.message.text, self.identity.controller_id)
            self.saw_confirmation()


class Witnesses(Simulation):
    """All controllers of a run, and what they saw confirmed, in the order they saw it."""

    def __init__(
        self,
        url: str,
        controllers: int,
        seed: str,
        *,
        periods: Mapping[str, float] = PERIODS,
        reconnect_seconds: float = 0.1,
        ramp: float = 200.0,
    ) -> None:
        super().__init__(
            Setup(
                target=parse_target(url),
                identities=new_identities(controllers, seed),
                once=False,
                reconnect_seconds=reconnect_seconds,
                response_seconds=2.0,
                timeout=30.0,
                ramp=ramp,
                seed=seed,
            )
        )
        self.periods = dict(periods)
        self.ledger: list[Sent] = []
        self._act: Callable[[], None] | None = None
        self._acted = asyncio.Event()

    def _device(self, number: int, identity: Identity) -> Witness:
        witness = Witness(
            identity,
            self.ledger,
            seed=f"{self.setup.seed}/{number}",
            started=datetime.now(),  # noqa: DTZ005 - a controller's time carries no zone
            now=time.monotonic(),
            periods=self.periods,
            response_seconds=self.setup.response_seconds,
        )
        witness.saw_confirmation = self._saw_confirmation
        return witness

    async def at_next_confirmation(self, act: Callable[[], None]) -> None:
        """Do something in the very moment the next confirmation is seen, before anything else."""
        self._act, self._acted = act, asyncio.Event()
        await self._acted.wait()

    def _saw_confirmation(self) -> None:
        if self._act is not None:
            self._act()
            self._act = None
            self._acted.set()

    @property
    def connected(self) -> int:
        """How many are connected right now."""
        return sum(device.connected for device in self.devices)

    def faults(self) -> list[str]:
        """What any controller was left with at the end of the run, a line each."""
        found = []
        for result in self.results:
            if result.unconfirmed:
                found.append(f"{result.controller_id}: not confirmed {dict(result.unconfirmed)}")
            found += [
                f"{result.controller_id}: {verdict.kind} rejected: {verdict.why}"
                for verdict in result.tally.rejections
            ]
        return found

    @property
    def resent(self) -> int:
        """Messages that were under way when their connection went, or were not answered in time."""
        return sum(r.tally.resent.total() + max(r.connections - 1, 0) for r in self.results)
