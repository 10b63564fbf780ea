"""What is done to a server while controllers are connected, and what they saw of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.crash.audit import Audit
from benchmarks.restart.machine import JOURNAL, Crowd, Machine, together

#: What is done, as people know it.
RESTART: Final = "systemctl restart ptslink"
SIGTERM: Final = "systemctl kill --kill-whom=main --signal=SIGTERM ptslink"
RELOAD: Final = "systemctl reload ptslink"
RELOADS: Final = 3
CONFIGURE: Final = "site.yml with another configuration of nginx"
RENEW: Final = "site.yml with new certificates"

#: Processes that may be replaced: their end is the end of links, save for the workers of nginx.
SERVER, PROXY, WORKERS = "ptslink", "nginx", "the workers of nginx"


@dataclass(slots=True)
class Seen:
    """What the controllers of one machine saw of one event.

    Attributes:
        what: what was done.
        replaces: processes it is to replace; with the server's, every link ends, with 1012.
        controllers: how many were connected before.
        attempts: dials while it lasted; one a controller when each is back at its first.
        refused: attempts that did not become a link, by what was seen.
        endings: links that ended, by close code received or how they broke.
        away: seconds from the end of each link to the controller's next one, ascending; the
            controller's own pause included.
        replaced: processes that are not the ones from before.
    """

    what: str
    replaces: Sequence[str]
    controllers: int
    attempts: int
    refused: Mapping[str, int]
    endings: Mapping[str, int]
    away: list[float]
    replaced: Sequence[str]

    def problems(self) -> Iterator[str]:
        """Each promise that was broken, a line each."""
        expected = {"1012": self.controllers} if SERVER in self.replaces else {}
        if self.refused:
            yield f"{self.what}: refused: {dict(self.refused)}"
        if self.endings != expected:
            yield f"{self.what}: links ended with {dict(self.endings)}, not {expected}"
        if self.attempts != sum(expected.values()):
            yield f"{self.what}: {self.attempts} attempts by {self.controllers} controllers"
        if self.replaced != self.replaces:
            yield f"{self.what}: replaced {list(self.replaced)}, not {list(self.replaces)}"

    def words(self) -> str:
        """One line for a person."""
        away = ""
        if self.away:
            middle, most = statistics.median(self.away), self.away[-1]
            away = f", away {middle:.1f} s in the middle, {most:.1f} s at most"
        closes = ", ".join(f"{code} {n}" for code, n in self.endings.items()) or "none"
        return (
            f"{self.what}: {self.controllers} connected, closes: {closes}; "
            f"{self.attempts} attempts, {sum(self.refused.values())} refused{away}"
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """A machine, and the controllers connected to it.

    Attributes:
        replaces: processes that what is done next is to replace.
    """

    machine: Machine
    crowds: Sequence[Crowd]
    replaces: Sequence[str]

    def processes(self) -> dict[str, str]:
        """The number of each process; of the workers, of the youngest."""
        proxy = self.machine.process(PROXY)
        return {
            SERVER: self.machine.process(SERVER),
            PROXY: proxy,
            WORKERS: self.machine.do(f"pgrep --newest --parent {proxy}"),
        }


@dataclass(slots=True)
class Attended:
    """A whole run on one machine.

    Attributes:
        events: by what was done.
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
        for seen in self.events.values():
            yield from seen.problems()


def connect(
    stack: ExitStack,
    machine: Machine,
    directory: Path,
    *,
    direct: int,
    proxied: int,
    secured: int = 0,
) -> list[Crowd]:
    """Connect controllers, and wait until all are.

    Args:
        directory: for what the controllers saw.
        direct: controllers straight to the server's port.
        proxied: controllers by way of nginx.
        secured: controllers by way of nginx and TLS.
    """
    address = machine.address
    ways = {
        f"ws://{address}:3000/ptsWebSocket": direct,
        f"ws://{address}/ptsWebSocket": proxied,
        f"wss://{address}/ptsWebSocket": secured,
    }
    seed = f"{machine.name}-{time.time():.0f}"
    crowds = [
        stack.enter_context(
            machine.controllers(url, count, directory / f"{machine.name}-{at}", seed=f"{seed}-{at}")
        )
        for at, (url, count) in enumerate(ways.items())
        if count
    ]
    for crowd in crowds:
        crowd.gather()
    return crowds


def attend(
    machine: Machine,
    directory: Path,
    *,
    direct: int,
    proxied: int,
    secured: int,
    say: Callable[[str], None],
) -> Attended:
    """Connect controllers, do under them what an operator does, judge the journal."""
    whole = Attended()
    further = {"tls_certificate_names": [machine.address, f"at{time.time():.0f}.example.test"]}
    deeds: list[tuple[str, Sequence[str], Callable[[], object]]] = [
        (RESTART, [SERVER], lambda: machine.do(RESTART)),
        (SIGTERM, [SERVER], lambda: machine.do(SIGTERM)),
        (RELOAD, [], lambda: machine.do("; ".join([RELOAD] * RELOADS))),
        (
            CONFIGURE,
            [WORKERS],
            lambda: machine.provision("--tags=nginx_proxy", nginx_proxy_idle_timeout_seconds=301),
        ),
        (RENEW, [WORKERS], lambda: machine.provision("--tags=tls_certificate", **further)),
    ]
    with ExitStack() as stack:
        crowds = connect(stack, machine, directory, direct=direct, proxied=proxied, secured=secured)
        say(f"{direct} controllers connected directly, {proxied + secured} by way of nginx")
        for what, replaces, do in deeds:
            [seen] = witness(what, [Watched(machine, crowds, replaces)], do)
            whole.events[what] = seen
            say(seen.words())
        judge(machine, crowds, directory, whole)
    say(f"{whole.confirmed} messages confirmed, {whole.records} records in the journal")
    return whole


def witness(what: str, watched: Sequence[Watched], do: Callable[[], object]) -> list[Seen]:
    """Do something, and see what it was to the controllers of each machine."""
    before = [each.processes() for each in watched]
    for each in watched:
        for crowd in each.crowds:
            crowd.ask("report")
    do()
    if not any(SERVER in each.replaces for each in watched):
        time.sleep(2)  # what was cut off would be noticed by then
    found = []
    for each, processes in zip(watched, before, strict=True):
        reports = [
            crowd.back(crowd.count) if SERVER in each.replaces else crowd.ask("report")
            for crowd in each.crowds
        ]
        seen: dict[str, Any] = together(reports)
        now = each.processes()
        found.append(
            Seen(
                what,
                each.replaces,
                sum(crowd.count for crowd in each.crowds),
                seen["attempts"],
                seen["refused"],
                seen["endings"],
                seen["away"],
                [name for name in now if now[name] != processes[name]],
            )
        )
    return found


def judge(machine: Machine, crowds: Sequence[Crowd], directory: Path, whole: Attended) -> None:
    """Send the controllers home, and compare what they saw confirmed with the journal."""
    for crowd in crowds:
        last = crowd.ask("stop")
        whole.faults += last["faults"]
        others = {code: n for code, n in last["endings"].items() if code != "1000"}
        if others or last["refused"]:
            whole.faults.append(f"at the end: {others} {last['refused']}")
    confirmed = [sent for crowd in crowds for sent in crowd.confirmed()]
    whole.confirmed = len(confirmed)
    copy = directory / f"{machine.name}.db"
    machine.do("systemctl stop ptslink.socket ptslink.service")
    machine.fetch(JOURNAL, copy)
    machine.do("systemctl start ptslink.socket ptslink.service")
    audit = Audit(copy)
    whole.faults += audit.whole(confirmed).describe()
    whole.records = audit.records
