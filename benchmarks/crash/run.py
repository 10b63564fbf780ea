"""One run: controllers upload, the server is killed and started again, the journal is judged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.crash.audit import Audit, Findings
from benchmarks.crash.victim import Died, Victim, free_port
from benchmarks.crash.witness import Witnesses

#: Share of the kills that come while the server still starts, before it accepts anybody.
EARLY = 0.2
#: Share of the others that come in the moment a controller sees a confirmation.
ON_CONFIRMATION = 0.5
#: Longest life of a server, in seconds from the moment it accepts connections.
LONGEST = 1.2
#: Longest part of a start that is let happen before an early kill, in seconds.
EARLY_LONGEST = 0.6
SETTLE_SECONDS = 60.0


@dataclass(slots=True)
class Outcome:
    """What a run found.

    Attributes:
        kills: SIGKILLs, early ones included.
        early: those that came while the server started.
        on_confirmation: those that came the moment a controller saw a confirmation.
        confirmed: messages that controllers saw confirmed, by kind.
        connections: handshakes accepted.
        records: records in the journal at the end.
        lost, doubled: records confirmed and not there; facts with more than one record.
        faults: everything that is wrong, a line each; empty when all promises held.
        seconds: how long it took.
    """

    kills: int = 0
    early: int = 0
    on_confirmation: int = 0
    confirmed: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    resent: int = 0
    records: int = 0
    lost: int = 0
    doubled: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


async def crash(
    directory: Path,
    *,
    kills: int,
    controllers: int,
    seed: int,
    progress: Callable[[str], object] = str,
) -> Outcome:
    """Kill the server `kills` times under `controllers` controllers, and judge its journal after
    every restart and, whole, at the end. Stops at the first fault.

    Args:
        directory: empty; holds the journal afterwards.
    """
    started = time.monotonic()
    chance = random.Random(seed)
    outcome = Outcome()
    victim = Victim(directory, free_port())
    audit = Audit(victim.journal)
    witnesses = Witnesses(f"ws://127.0.0.1:{victim.port}/ptsWebSocket", controllers, str(seed))
    await victim.start()
    simulation = asyncio.create_task(witnesses.run())
    seen = 0
    try:
        while outcome.kills < kills and not outcome.faults:
            if chance.random() < EARLY:
                await asyncio.sleep(chance.uniform(0, EARLY_LONGEST))
                outcome.early += 1
            else:
                await victim.ready()
                fresh, seen = witnesses.ledger[seen:], len(witnesses.ledger)
                _note(outcome, await asyncio.to_thread(audit.since_last, fresh))
                await asyncio.sleep(chance.uniform(0.02, LONGEST))
                if chance.random() < ON_CONFIRMATION:
                    # Were confirmations ahead of their commit, this is when it would show.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(SETTLE_SECONDS):
                            await witnesses.at_next_confirmation(victim.strike)
                    outcome.on_confirmation += 1
            progress(
                f"{outcome.kills} of {kills} kills, {len(witnesses.ledger)} messages confirmed,"
                f" {audit.records} records, {witnesses.connected} connected"
            )
            await victim.kill()
            outcome.kills += 1
            await victim.start()
        await victim.ready()
        if not outcome.faults:
            await _finish(witnesses, simulation, outcome)
    except Died as died:
        outcome.faults.append(f"the server {died}")
    finally:
        simulation.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await simulation
        status = await victim.stop()
    if status != 0:
        outcome.faults.append(f"the server ended with {status} at SIGTERM")
    judged = audit.whole(witnesses.ledger)
    _note(outcome, judged)
    outcome.lost, outcome.doubled = len(judged.lost), len(judged.doubled)
    outcome.confirmed = Counter(sent.kind for sent in witnesses.ledger)
    outcome.connections = sum(result.connections for result in witnesses.results)
    outcome.resent = witnesses.resent
    outcome.records = audit.records
    outcome.seconds = time.monotonic() - started
    return outcome


async def _finish(witnesses: Witnesses, simulation: asyncio.Task[object], outcome: Outcome) -> None:
    """Let every controller deliver what it has, and see that none is left with anything."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while witnesses.connected < len(witnesses.setup.identities):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    witnesses.stopping.set()
    await simulation
    outcome.faults += witnesses.faults()


def _note(outcome: Outcome, findings: Findings) -> None:
    for line in findings.describe():
        fault = f"after {outcome.kills} kills: {line}"
        if fault not in outcome.faults:
            outcome.faults.append(fault)
