"""``scripts/bench crash``: SIGKILL under load, then the journal is judged."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import sys
import time
from pathlib import Path

import click
from benchmarks import namespace
from benchmarks.crash.run import Outcome, crash
from benchmarks.document import replace_block
from benchmarks.server.machine import file_system

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "crash"
DOCUMENT = ROOT / "docs" / "durability.md"
WHOLE = 100


def markdown(outcome: Outcome, controllers: int, seed: int, disk: str, day: str) -> str:
    """The figures of a run as a table."""
    confirmed = ", ".join(f"{kind} {count:,}" for kind, count in sorted(outcome.confirmed.items()))
    rows = (
        ("run on", f"{day}, seed {seed}, journal on {disk}"),
        ("controllers", f"{controllers}, {outcome.connections:,} handshakes"),
        (
            "SIGKILLs",
            f"{outcome.kills}: {outcome.early} while the server still started,"
            f" {outcome.on_confirmation} the moment a confirmation was seen, others at any moment",
        ),
        ("messages confirmed", f"{outcome.confirmed.total():,}"),
        ("by kind", confirmed),
        ("records in the journal", f"{outcome.records:,}"),
        ("confirmed and lost", str(outcome.lost)),
        ("facts with two records", str(outcome.doubled)),
        ("faults", "; ".join(outcome.faults[:5]) or "none"),
        ("took", f"{outcome.seconds:.0f} s"),
    )
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


@click.command()
@click.option("--kills", type=click.IntRange(1, 10_000), default=WHOLE, show_default=True)
@click.option("--controllers", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--seed", type=int, help="Moments, ids and data follow from it; new for each run.")
@click.option(
    "--write/--no-write",
    default=None,
    help="Put the figures into docs/durability.md; default for a whole run.",
)
@click.pass_context
def main(
    context: click.Context, kills: int, controllers: int, seed: int | None, write: bool | None
) -> None:
    """Kill the server again and again while controllers upload, and judge its journal.

    `ptslink serve` runs as a process of its own with its journal on the disk under build/. Every
    kind of message is uploaded. At random moments, some of them while it starts, the server gets
    SIGKILL and is started again; controllers connect again and resend until they are confirmed.
    After every restart, and over the whole journal at the end: each record that a controller saw
    confirmed is there, no fact has two records, and the file is sound.

    Exit status: 0 all of it held, 1 not (the journal stays in build/crash), 2 bad arguments.
    """
    if seed is None:
        seed = int(time.time())
    if not namespace.inside():
        # The seed is passed on so that it is printed once and can be given again.
        options = [*sys.argv[1:], "--seed", str(seed)]
        context.exit(namespace.enter("benchmarks.crash", options))
    namespace.settle()
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    started = time.monotonic()
    shown = 0.0

    def progress(line: str) -> None:
        nonlocal shown
        if time.monotonic() - shown >= 5:
            shown = time.monotonic()
            click.echo(f"[{shown - started:4.0f}s] {line}")

    click.echo(f"{kills} kills under {controllers} controllers, seed {seed}")
    outcome = asyncio.run(
        crash(BUILD, kills=kills, controllers=controllers, seed=seed, progress=progress)
    )
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    table = markdown(outcome, controllers, seed, file_system(BUILD), day)
    click.echo(table)
    if write or (write is None and kills >= WHOLE and not outcome.faults):
        DOCUMENT.write_text(replace_block(DOCUMENT.read_text(), "crash", table))
        click.echo(f"Figures written to {DOCUMENT.relative_to(ROOT)}")
    if outcome.faults:
        click.echo(f"NOT HELD; the journal is {BUILD / 'journal.db'}", err=True)
        context.exit(1)
    shutil.rmtree(BUILD, ignore_errors=True)


if __name__ == "__main__":
    main(prog_name="scripts/bench crash")
