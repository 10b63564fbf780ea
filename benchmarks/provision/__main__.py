"""``scripts/bench provision``: what site.yml costs beside a bare script, and beside itself."""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Sequence

import click
from benchmarks.provision import goals, profile, runs
from benchmarks.server import report
from benchmarks.server.goals import Round, Verdict, judge, median
from benchmarks.server.machine import describe

DOCUMENT = runs.ROOT / "docs" / "performance-provisioning.md"
FLEET = 8
BEGIN = "<!-- figures: written by scripts/bench provision, do not edit by hand -->"


def say(text: str, started: float) -> None:
    click.echo(f"[{time.monotonic() - started:4.0f}s] {text}")


def slow_lines(name: str, timed: runs.Timed, count: int) -> list[str]:
    """Where a run's time went, in 80 columns."""
    taken = profile.tasks(timed.output.splitlines())
    lines = [f"{name}: {timed.seconds:.1f} s, {len(taken)} tasks; the slowest, and by role"]
    lines += [f"  {seconds:6.2f} s  {task[:68]}" for task, seconds in profile.slowest(taken, count)]
    lines += [
        f"  {seconds:6.2f} s  {role} ({tasks} tasks)"
        for role, seconds, tasks in profile.by_role(taken)
    ]
    return lines


@click.command()
@click.option(
    "--quick", is_flag=True, help="One round, two machines for eight: see that everything runs."
)
@click.option("--rounds", type=click.IntRange(1, 20), help="How often; default 3, quick 1.")
@click.option("--profile", "profiled", is_flag=True, help="Show where the time of a run goes.")
@click.option(
    "--write/--no-write",
    default=None,
    help="Put the figures into docs/performance-provisioning.md; default for a whole run.",
)
def main(quick: bool, rounds: int | None, profiled: bool, write: bool | None) -> None:
    """Measure provisioning: one machine, the same again, eight at once.

    Machines are raised fresh by scripts/lab for each figure. site.yml and both comparators find
    Debian's packages in the machine's archive directory and the server's wheels on this computer,
    so that none waits for a mirror.

    Exit status: 0 measured and every goal that was judged is met, 1 a goal is missed or a run
    failed, 2 could not start.
    """
    started = time.monotonic()
    load = os.getloadavg()[0]
    if load > 0.5:
        say(f"note: this computer is not idle (load {load:.1f}); figures will be too high", started)
    fleet = 2 if quick else FLEET
    taken: list[Round] = []
    shown: list[str] = []
    try:
        say("a run nobody times: fills caches, shows what the bare script is to do", started)
        with runs.machines(1) as lab:
            first = runs.site(profile=profiled)
            if profiled:
                shown += slow_lines("site.yml on a bare machine", first, 12)
                shown += slow_lines("again", runs.site(profile=True), 12)
            wanted = runs.outcome(lab, "m1")
        taken += [
            one_round(number, fleet, wanted, started)
            for number in range(1, (rounds or (1 if quick else 3)) + 1)
        ]
        if not quick:
            taken[0] = {**taken[0], goals.TEST: runs.quick_test().seconds}
    except runs.RunFailed as failure:
        say(f"FAILED: {failure}", started)
        sys.exit(1)
    verdicts = [judge(goal, taken) for goal in goals.GOALS]
    click.echo()
    for line in [*report.screen(taken, verdicts), *shown]:
        click.echo(line)
    if write if write is not None else not quick:
        DOCUMENT.write_text(
            replaced(DOCUMENT.read_text(encoding="utf-8"), taken, verdicts), encoding="utf-8"
        )
        say(f"written to {DOCUMENT.relative_to(runs.ROOT)}", started)
    if any(verdict.met is False for verdict in verdicts):
        sys.exit(1)


def one_round(number: int, fleet: int, wanted: runs.Outcome, started: float) -> Round:
    figures: dict[str, float] = {}

    def note(name: str, timed: runs.Timed) -> None:
        figures[name] = timed.seconds
        say(f"round {number}: {name:<32} {timed.seconds:6.1f}", started)

    with runs.machines(1) as lab:
        note(goals.BARE, runs.bare(lab, "m1", wanted))
    with runs.machines(1) as lab:
        note(goals.STOCK, runs.stock(lab, "m1", wanted))
        note(goals.STOCK_AGAIN, unchanged(runs.stock(lab, "m1", wanted)))
    with runs.machines(1):
        note(goals.SITE, runs.site())
        note(goals.AGAIN, unchanged(runs.site()))
    with runs.machines(fleet):
        note(goals.FLEET if fleet == FLEET else f"site.yml, {fleet} machines, s", runs.site())
    return figures


def unchanged(again: runs.Timed) -> runs.Timed:
    """A second run; RunFailed if it changed anything."""
    if again.changed():
        raise runs.RunFailed(f"the second run changed something:\n{again.output[-3000:]}")
    return again


def replaced(document: str, taken: Sequence[Round], verdicts: Sequence[Verdict]) -> str:
    """The document with the figures between its markers exchanged."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(report.END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT} has no markers for the figures")
    machine = {
        name: value
        for name, value in describe(runs.ROOT / "build").items()
        if name not in ("Node", "journal on")
    }
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return before + markdown(taken, verdicts, machine, day) + after


def markdown(
    taken: Sequence[Round], verdicts: Sequence[Verdict], machine: dict[str, str], day: str
) -> str:
    lines = [BEGIN, "", f"Measured on {day}.", "", "| Machine | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in machine.items()]
    lines += ["", "| What: against what | Goal | Seen | ours | comparator | |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [
        f"| {verdict.goal.what} | {verdict.goal.accepted()} | **{report.amount(verdict.value)}** "
        f"| {report.amount(verdict.ours)} | {report.amount(verdict.theirs)} "
        f"| {report.verdict_word(verdict)} |"
        for verdict in verdicts
    ]
    lines += ["", "| Figure | Median | Lowest to highest |", "|---|---|---|"]
    lines += [
        f"| {name} | {report.amount(median(taken, name))} | {report.spread(taken, name)} |"
        for name in report.figure_names(taken)
    ]
    return "\n".join([*lines, "", report.END])


if __name__ == "__main__":
    main()
