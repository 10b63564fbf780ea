"""``scripts/try``: a machine, the product's own site.yml, controllers, and the proof on one screen.

Each step is a command a person could type; what they print goes to ``build/try/``, the screen gets
one line a step. The first step that fails ends the trial with its cause.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jinja2

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "try"
LAB = ROOT / "scripts" / "lab"
PTSLINK = Path(sys.executable).parent / "ptslink"
MACHINE = "server"
PATH = "ptsWebSocket"
DIRECT_PORT = 3000
# Sent every second by many a controller: the journal keeps the latest and samples, not each.
SNAPSHOT = "UploadStatus"
PROXIED = 3
DIRECT = 1

TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.+?)\] \*")
PLAY = re.compile(r"^PLAY \[(?P<name>.+?)\] \*")
RECAP = re.compile(r"^(?P<host>\S+)\s+: (?P<counts>ok=.*)$")


class StepFailed(Exception):
    """A step of the trial did not hold; the message is the cause, for a person."""


@dataclass(frozen=True)
class Hop:
    """One way from the controllers' network to the server, as the probe saw it."""

    name: str
    url: str
    status: int | None
    accept_ok: bool
    cause: str | None

    @property
    def ok(self) -> bool:
        return self.status == 101 and self.accept_ok and self.cause is None


@dataclass(frozen=True)
class Proof:
    """What the trial saw, ready to be shown."""

    hops: Sequence[Hop]
    confirmed: Mapping[str, int]
    sent: Mapping[str, int]
    #: Records in the journal before and after, by packet type.
    before: Mapping[str, int]
    after: Mapping[str, int]
    address: str
    seconds: float

    def problems(self) -> list[str]:
        """Each thing that keeps this from being a proof, as a sentence."""
        found = [
            f"{hop.name}: {hop.cause or f'HTTP status {hop.status}'}"
            for hop in self.hops
            if not hop.ok
        ]
        found += [
            f"{kind}: {count} sent, {self.confirmed.get(kind, 0)} confirmed"
            for kind, count in self.sent.items()
            if self.confirmed.get(kind, 0) != count
        ]
        found += [
            f"{kind}: {count} confirmed, {self.added(kind)} added to the journal"
            for kind, count in self.confirmed.items()
            if self.added(kind) < count and kind != SNAPSHOT
        ]
        if self.confirmed.get(SNAPSHOT) and not self.after.get(SNAPSHOT):
            found.append(f"{SNAPSHOT}: confirmed, but the journal keeps none")
        if not sum(self.confirmed.values()):
            found.append("no message was confirmed")
        return found

    def added(self, kind: str) -> int:
        return self.after.get(kind, 0) - self.before.get(kind, 0)

    def lines(self) -> Iterator[str]:
        """The proof in at most 80 columns."""
        yield "Proof"
        for hop in self.hops:
            accept = "Sec-WebSocket-Accept right" if hop.accept_ok else "Sec-WebSocket-Accept WRONG"
            yield f"  {hop.name:<34} HTTP {hop.status}  {accept}"
        for kind, count in sorted(self.sent.items()):
            confirmed = f"{count} sent, {self.confirmed.get(kind, 0)} confirmed"
            kept = "latest kept" if kind == SNAPSHOT else f"{self.added(kind)} more in the journal"
            yield f"  {kind:<34} {confirmed}, {kept}"
        yield ""
        yield from settings(self.address)


def settings(address: str) -> list[str]:
    """What to type into a controller, in the words site.yml ends with."""
    here = jinja2.FileSystemLoader(ROOT / "templates")
    templates = jinja2.Environment(loader=here, trim_blocks=True, undefined=jinja2.StrictUndefined)
    return (
        templates.get_template("controller-settings.txt.j2")
        .render(
            settings_address=address,
            settings_uri=PATH,
            settings_listeners=[{"port": 80}],
            settings_direct_port=DIRECT_PORT,
            settings_login=False,
            settings_secret=False,
        )
        .splitlines()
    )


def total(summaries: Sequence[Mapping[str, Any]], key: str) -> dict[str, int]:
    """Counts by packet type under ``key`` of every controller of every simulator summary."""
    counts: dict[str, int] = {}
    for summary in summaries:
        for controller in summary["controllers"]:
            for kind, count in controller[key].items():
                counts[kind] = counts.get(kind, 0) + count
    return counts


def simulator_cause(summary: Mapping[str, Any]) -> str | None:
    """Why a simulator run did not end well, or None where it did."""
    if summary["ok"]:
        return None
    for controller in summary["controllers"]:
        if controller["error"]:
            return f"controller {controller['id']}: {controller['error']}"
        if controller["rejected"]:
            return f"controller {controller['id']}: rejected answers {controller['rejected']}"
    return "the simulator reports a failure it does not explain"


class Screen:
    """One line a step, with the seconds since the start; a moving line on a terminal."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._moving = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._next_quiet_note = 0.0

    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        self._erase()
        print(f"[{self.elapsed():3.0f}s] {text}", flush=True)

    def now(self, text: str) -> None:
        """What is going on: overwritten on a terminal, every ten seconds elsewhere."""
        if self._moving:
            self._erase()
            print(f"[{self.elapsed():3.0f}s]   {text}"[:79], end="", flush=True)
        elif time.monotonic() >= self._next_quiet_note:
            print(f"[{self.elapsed():3.0f}s]   {text}", flush=True)
            self._next_quiet_note = time.monotonic() + 10

    def _erase(self) -> None:
        if self._moving:
            print("\r\x1b[K", end="")


def run_json(command: Sequence[str | Path], log: str, accept: Sequence[int] = (0,)) -> Any:
    """Run a command that prints JSON; its errors go to a log that a failure shows the end of."""
    errors = LOGS / f"{log}.log"
    with errors.open("w") as kept:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=kept,
            text=True,
            check=False,
        )
    if done.returncode in accept:
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(done.stdout)
    raise StepFailed(
        f"`{' '.join(map(str, command))}` ended with {done.returncode}\n"
        + tail(done.stdout.splitlines() + errors.read_text().splitlines())
    )


def tail(lines: Sequence[str], count: int = 25) -> str:
    """The last lines of an output, indented."""
    return "\n".join(f"    {line}" for line in lines[-count:])


def provision(screen: Screen) -> None:
    """The very run a user does, its tasks named on the screen as they go by."""
    log = LOGS / "site.log"
    command: list[str | Path] = [
        Path(sys.executable).parent / "ansible-playbook",
        "-i",
        ROOT / "inventory" / "lab",
        ROOT / "site.yml",
    ]
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
    lines: list[str] = []
    with (
        log.open("w") as kept,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as run,
    ):
        assert run.stdout is not None
        for line in run.stdout:
            kept.write(line)
            lines.append(line.rstrip())
            if play := PLAY.match(line):
                screen.say(f"site.yml: {play['name']}")
            elif task := TASK.match(line):
                screen.now(task["name"])
            elif recap := RECAP.match(line):
                screen.say(f"site.yml: {recap['host']} {' '.join(recap['counts'].split())}")
    if run.returncode != 0:
        raise StepFailed(f"site.yml failed (whole output: {log})\n{tail(lines, 40)}")


def journal_summary() -> Mapping[str, Any]:
    command = "/opt/ptslink/current/bin/ptslink journal summary --json"
    summary: Mapping[str, Any] = run_json(
        [LAB, "ssh", MACHINE, "--", *command.split(), "--config", "/etc/ptslink/ptslink.toml"],
        "journal",
    )
    return summary


def on_site(*command: str | Path) -> list[str | Path]:
    """The command as it runs in the controllers' own network, behind the site router."""
    return [LAB, "exec", "controller", "--", *command]


def probe_hop(name: str, url: str) -> Hop:
    seen = run_json(on_site(PTSLINK, "probe", url, "--json"), "probe", accept=(0, 1))
    return Hop(name, url, seen["status"], bool(seen["accept_ok"]), seen["cause"])


def simulate(url: str, count: int, seed: int) -> Mapping[str, Any]:
    summary: Mapping[str, Any] = run_json(
        on_site(
            *(PTSLINK, "simulate", url, "--controllers", str(count)),
            *("--seed", str(seed), "--once", "--json"),
        ),
        "simulate",
        accept=(0, 1),
    )
    if (cause := simulator_cause(summary)) is not None:
        raise StepFailed(f"controllers at {url}: {cause}")
    return summary


def prove(screen: Screen) -> Proof:
    [lab] = run_json([LAB, "status", "--lab", os.environ["PTSLINK_LAB"], "--json"], "status")
    address: str = lab["machines"][MACHINE]["address"]
    proxied = f"ws://{address}/{PATH}"
    direct = f"ws://{address}:{DIRECT_PORT}/{PATH}"
    screen.say(f"{PROXIED} controllers through nginx, {DIRECT} straight to port {DIRECT_PORT}")
    hops = [
        probe_hop("site -> router -> nginx :80", proxied),
        probe_hop(f"site -> router -> server :{DIRECT_PORT}", direct),
    ]
    before = journal_summary()
    seed = int(time.time())
    summaries = [simulate(proxied, PROXIED, seed), simulate(direct, DIRECT, seed + 1)]
    after = journal_summary()
    return Proof(
        hops=hops,
        confirmed=total(summaries, "confirmed"),
        sent=total(summaries, "sent"),
        before=before["records"],
        after=after["records"],
        address=address,
        seconds=screen.elapsed(),
    )


@click.command()
@click.option(
    "--started", default=0.0, help="Seconds already spent when this was called.", metavar="SECONDS"
)
def main(started: float) -> None:
    """Boot, provision, connect, prove. Called by scripts/try, which prepares the computer."""
    LOGS.mkdir(parents=True, exist_ok=True)
    screen = Screen(time.monotonic() - started)
    try:
        screen.say("a bare Debian 12 machine: the one that is up, or a new one")
        if subprocess.run([LAB, "up"], cwd=ROOT, check=False).returncode != 0:
            screen.say("FAILED: the machine did not come up (see above)")
            sys.exit(1)
        provision(screen)
        proof = prove(screen)
    except StepFailed as failure:
        screen.say(f"FAILED: {failure}")
        print("\nThe machine is left as it is: scripts/lab ssh --lab try server", flush=True)
        sys.exit(1)
    print()
    for line in proof.lines():
        print(line)
    if problems := proof.problems():
        print("\nNOT PROVEN")
        for problem in problems:
            print(f"  {problem}")
        sys.exit(1)
    print(f"\nProven in {proof.seconds:.0f} s. The machine stays up:")
    print("  scripts/lab ssh --lab try server    look around")
    print("  scripts/try --down                  remove every trace")


if __name__ == "__main__":
    main()
