"""``scripts/bench restart``: restarts under 500 connected controllers, on a machine of a lab."""

from __future__ import annotations

import datetime
import shutil
import statistics
import time
from pathlib import Path

import click
from benchmarks.document import replace_block
from benchmarks.restart.attend import RELOAD, RELOADS, Attended, attend
from benchmarks.restart.machine import Failed, Machine

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "restart"
DOCUMENT = ROOT / "docs" / "durability.md"


def markdown(seen: Attended, direct: int, proxied: int, secured: int, day: str) -> str:
    """The figures as a table."""
    lines = [
        f"Run on {day}: {direct} controllers straight to port 3000, {proxied} by way of nginx"
        f" and {secured} by way of nginx and TLS, all behind one NAT address;"
        f" {seen.confirmed:,} messages confirmed, {seen.records:,} records,"
        f" faults: {'; '.join(seen.faults) or 'none'}.",
        "",
        "| What was done | Closes | Attempts | Refused | Away, middle / most |",
        "|---|---|---|---|---|",
    ]
    for event in seen.events.values():
        name = f"{event.what}, {RELOADS} times" if event.what == RELOAD else event.what
        closes = ", ".join(f"{n} with {code}" for code, n in event.endings.items()) or "none"
        away = (
            f"{statistics.median(event.away):.1f} s / {event.away[-1]:.1f} s" if event.away else ""
        )
        refused = sum(event.refused.values())
        lines.append(f"| {name} | {closes} | {event.attempts} | {refused} | {away} |")
    return "\n".join(lines)


@click.command()
@click.option("--direct", type=click.IntRange(0, 2000), default=350, show_default=True)
@click.option("--proxied", type=click.IntRange(0, 2000), default=100, show_default=True)
@click.option("--secured", type=click.IntRange(0, 2000), default=50, show_default=True)
@click.option("--lab", default="bench-restart", show_default=True, help="Name of the lab.")
@click.option("--keep", is_flag=True, help="Leave the machine up, and take one that is up.")
@click.option("--write/--no-write", default=True, help="Put the figures into docs/durability.md.")
@click.pass_context
def main(
    context: click.Context,
    direct: int,
    proxied: int,
    secured: int,
    lab: str,
    keep: bool,
    write: bool,
) -> None:
    """Restart the server under connected controllers and see what they see.

    A Debian machine is booted and provisioned by site.yml. Controllers in the lab's own network,
    behind one NAT address, upload all the while. The service is restarted, killed with SIGTERM and
    reloaded; nginx gets another configuration, and new certificates. Then their
    confirmations are compared with the journal.

    Exit status: 0 nobody refused, only 1012, everything confirmed is there; 1 not; 2 could not run.
    """
    started = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"[{time.monotonic() - started:4.0f}s] {line}")

    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    machine = Machine(lab)
    try:
        say("a Debian 12 machine, provisioned by site.yml (two minutes)")
        machine.raise_up()
        seen = attend(machine, BUILD, direct=direct, proxied=proxied, secured=secured, say=say)
    except Failed as failure:
        say(f"FAILED: {failure}")
        context.exit(2)
    finally:
        if not keep:
            machine.down()
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    table = markdown(seen, direct, proxied, secured, day)
    click.echo(table)
    problems = [*seen.faults, *seen.problems()]
    if write and not problems:
        DOCUMENT.write_text(replace_block(DOCUMENT.read_text(), "restart", table))
        click.echo(f"Figures written to {DOCUMENT.relative_to(ROOT)}")
    for problem in problems:
        click.echo(f"NOT HELD: {problem}", err=True)
    if problems:
        context.exit(1)


if __name__ == "__main__":
    main(prog_name="scripts/bench restart")
