"""The edge: the clock, and one coroutine a controller."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from ptslink.doctor.probe.target import Target
from ptslink.simulator.device import Device, default_periods
from ptslink.simulator.head import Identity
from ptslink.simulator.link import Link
from ptslink.simulator.manner import Manner
from ptslink.simulator.packets import CONFIGURATION
from ptslink.simulator.result import ControllerResult, SimulationResult, progress_line
from ptslink.simulator.session import LinkFailed, Session
from ptslink.simulator.setup import Setup

PROGRESS_SECONDS = 5.0


def controller_tls(ca: Path | None, manner: Manner) -> ssl.SSLContext:
    """TLS as a controller has it: 1.2, certificates not verified unless *ca* is given.

    Raises:
        OSError: *ca* cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(str(ca))
        context.check_hostname = manner.sni
    for change in manner.tls:
        change(context)
    return context


class Simulation:
    """All controllers of one run."""

    def __init__(self, setup: Setup, progress: Callable[[str], None] | None = None) -> None:
        """Raises ``OSError`` when the CA file cannot be read."""
        self.setup = setup
        self.progress = progress
        self.stopping = asyncio.Event()
        self.results: list[ControllerResult] = []
        self.devices: list[Device] = []
        self._ghosts: list[Link] = []
        self._target: Target = setup.target
        for change in setup.manner.target:
            self._target = change(self._target)
        self._tls = controller_tls(setup.ca, setup.manner) if self._target.tls else None

    async def run(self) -> SimulationResult:
        """Simulate until everything is done, the duration is over, or ``stopping`` is set."""
        identities = self.setup.identities
        for change in self.setup.manner.identities:
            identities = change(identities)
        allow_descriptors(len(identities) + 64)
        try:
            async with asyncio.TaskGroup() as group:
                aside = [group.create_task(self._tell())]
                if self.setup.duration is not None and not self.setup.once:
                    aside.append(group.create_task(self._stop_after(self.setup.duration)))
                controllers = [
                    group.create_task(self._controller(number, identity))
                    for number, identity in enumerate(identities)
                ]
                await asyncio.wait(controllers)
                for task in aside:
                    task.cancel()
        finally:
            for ghost in self._ghosts:
                ghost.bury()
        return SimulationResult(self._target.url, self.setup.seed, tuple(self.results))

    async def _stop_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.stopping.set()

    async def _tell(self) -> None:
        while self.progress is not None:
            await asyncio.sleep(PROGRESS_SECONDS)
            connected = sum(device.connected for device in self.devices)
            self.progress(progress_line(self.results, connected))

    def _device(self, number: int, identity: Identity) -> Device:
        setup = self.setup
        return Device(
            identity,
            seed=f"{setup.seed}/{number}",
            started=setup.manner.clock or datetime.now(),  # noqa: DTZ005  (no zone, as it is)
            now=time.monotonic(),
            periods=None if setup.once else default_periods(setup.status_period),
            once=setup.kinds if setup.once else (),
            response_seconds=setup.response_seconds,
            text_ids=setup.manner.text_ids,
            remote=setup.manner.remote(self._target) if setup.manner.remote else None,
        )

    async def _controller(self, number: int, identity: Identity) -> None:
        setup, manner = self.setup, self.setup.manner
        await asyncio.sleep(number / setup.ramp)
        device = self._device(number, identity)
        result = ControllerResult(identity.controller_id, device.tally)
        self.devices.append(device)
        self.results.append(result)
        rng = random.Random(f"{setup.seed}/{number}/keys")
        pause = setup.reconnect_seconds
        if manner.reconnect_seconds is not None:
            pause = manner.reconnect_seconds
        if manner.moves_to is not None and not setup.once:
            device.happen(CONFIGURATION, time.monotonic())
        while True:
            if manner.dials:
                await self._connection(device, result, rng)
            else:
                result.error = "never dials"
            result.unconfirmed = device.unconfirmed
            if setup.once:
                return
            if not (manner.dials and manner.reconnects):
                await self.stopping.wait()
            if self.stopping.is_set():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self.stopping.wait()
                    return
            if manner.reboots:
                device.reboot(time.monotonic())

    async def _connection(
        self, device: Device, result: ControllerResult, rng: random.Random
    ) -> None:
        manner, target = self.setup.manner, self._target
        if manner.moves_to is not None and device.tally.confirmed[CONFIGURATION]:
            # --address stands for the host that was asked for, not for another.
            target, manner = replace(target, host=manner.moves_to), manner.but(own_host=True)
        session = Session(
            self.setup,
            target,
            manner,
            device,
            result,
            rng,
            self.stopping,
            self._tls,
            self._ghosts,
        )
        try:
            await session.run()
            result.error = None
        except LinkFailed as failed:
            result.fail(str(failed))


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit on open files to *wanted*, as far as the hard one lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))


def new_seed() -> str:
    """A seed no other run has."""
    return os.urandom(6).hex()


async def simulate(setup: Setup, progress: Callable[[str], None] | None = None) -> SimulationResult:
    """Run *setup* to its end; raises ``OSError`` when the CA file cannot be read."""
    return await Simulation(setup, progress).run()
