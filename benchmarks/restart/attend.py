"""What is done to the server while controllers are connected, and what they saw of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.crash.audit import Audit
from benchmarks.restart.machine import JOURNAL, Crowd, Machine, together

#: What is done, and the command that does it.
RESTART: Final = "systemctl restart ptslink"
SIGTERM: Final = "systemctl kill --kill-whom=main --signal=SIGTERM ptslink"
RELOAD: Final = "systemctl reload ptslink"
RELOADS: Final = 3


@dataclass(slots=True)
class Seen:
    """What the controllers saw of one event.

    Attributes:
        command: what was done.
        controllers: how many were connected before.
        attempts: dials while it lasted; one a controller when each is back at its first.
        refused: attempts that did not become a link, by what was seen.
        endings: links that ended, by close code received or how they broke.
        away: seconds from the end of each link to the controller's next one, ascending; the
            controller's own pause included.
        same_process: whether the server's process is the one from before.
    """

    command: str
    controllers: int
    attempts: int
    refused: Mapping[str, int]
    endings: Mapping[str, int]
    away: list[float]
    same_process: bool


@dataclass(slots=True)
class Attended:
    """A whole run.

    Attributes:
        events: by command.
        faults: what controllers were left with at the end, and what is wrong with the journal.
        confirmed: messages that controllers saw confirmed.
        records: records in the journal.
    """

    events: dict[str, Seen] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    confirmed: int = 0
    records: int = 0

    def problems(self) -> Iterator[str]:
        """Each promise that an event broke, a line each."""
        for command, seen in self.events.items():
            stays = command == RELOAD
            if seen.refused:
                yield f"{command}: refused: {dict(seen.refused)}"
            expected = {} if stays else {"1012": seen.controllers}
            if seen.endings != expected:
                yield f"{command}: links ended with {dict(seen.endings)}, not {expected}"
            if seen.attempts != sum(expected.values()):
                yield f"{command}: {seen.attempts} attempts by {seen.controllers} controllers"
            if seen.same_process != stays:
                yield f"{command}: the process {'is' if seen.same_process else 'is not'} the same"


def attend(
    machine: Machine,
    directory: Path,
    *,
    direct: int,
    proxied: int,
    say: Callable[[str], None],
) -> Attended:
    """Connect controllers, restart, kill and reload the server under them, judge the journal.

    Args:
        directory: for what the controllers saw, and a copy of the journal.
        direct: controllers straight to the server's port.
        proxied: controllers by way of nginx.
    """
    whole = Attended()
    seed = f"restart-{time.time():.0f}"
    with ExitStack() as stack:
        crowds = [
            stack.enter_context(
                machine.controllers(url, count, directory / f"ledger-{at}", seed=f"{seed}-{at}")
            )
            for at, (url, count) in enumerate(
                (
                    (f"ws://{machine.address}:3000/ptsWebSocket", direct),
                    (f"ws://{machine.address}/ptsWebSocket", proxied),
                )
            )
            if count
        ]
        for crowd in crowds:
            crowd.gather()
        say(f"{direct} controllers connected directly, {proxied} by way of nginx")
        for command in (RESTART, SIGTERM):
            whole.events[command] = _event(machine, crowds, command, leave=True)
            say(_words(whole.events[command]))
        reloads = "; ".join([RELOAD] * RELOADS)
        whole.events[RELOAD] = _event(machine, crowds, reloads, leave=False)
        say(_words(whole.events[RELOAD]))
        for crowd in crowds:
            last = crowd.ask("stop")
            whole.faults += last["faults"]
            others = {code: n for code, n in last["endings"].items() if code != "1000"}
            if others or last["refused"]:
                whole.faults.append(f"at the end: {others} {last['refused']}")
        confirmed = [sent for crowd in crowds for sent in crowd.confirmed()]
    whole.confirmed = len(confirmed)
    machine.do("systemctl stop ptslink.socket ptslink.service")
    machine.fetch(JOURNAL, directory / "journal.db")
    machine.do("systemctl start ptslink.socket ptslink.service")
    audit = Audit(directory / "journal.db")
    whole.faults += audit.whole(confirmed).describe()
    whole.records = audit.records
    say(f"{whole.confirmed} messages confirmed, {whole.records} records in the journal")
    return whole


def _event(machine: Machine, crowds: list[Crowd], command: str, *, leave: bool) -> Seen:
    before = _process(machine)
    for crowd in crowds:
        crowd.ask("report")
    machine.do(command)
    if leave:
        reports = [crowd.back(crowd.count) for crowd in crowds]
    else:
        time.sleep(2)
        reports = [crowd.ask("report") for crowd in crowds]
    seen: dict[str, Any] = together(reports)
    return Seen(
        command,
        sum(crowd.count for crowd in crowds),
        seen["attempts"],
        seen["refused"],
        seen["endings"],
        seen["away"],
        _process(machine) == before,
    )


def _process(machine: Machine) -> str:
    return machine.do("systemctl show --property MainPID --value ptslink")


def _words(seen: Seen) -> str:
    away = ""
    if seen.away:
        middle, most = statistics.median(seen.away), seen.away[-1]
        away = f", away {middle:.1f} s in the middle, {most:.1f} s at most"
    closes = ", ".join(f"{code} {n}" for code, n in seen.endings.items()) or "none"
    return (
        f"{seen.command}: {seen.controllers} connected, closes: {closes}; "
        f"{seen.attempts} attempts, {sum(seen.refused.values())} refused{away}"
    )
