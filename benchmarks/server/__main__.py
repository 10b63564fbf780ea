"""``scripts/bench server``: prepare, enter a network namespace of its own, measure, report."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import click
from benchmarks import namespace
from benchmarks.server import load, machine, report
from benchmarks.server import measures as m
from benchmarks.server.engines import LOAD_CORE, ROOT, SERVER_CORE, EngineFailed, Tools, engines
from benchmarks.server.goals import GOALS, judge, median
from benchmarks.server.prepare import prepare

BUILD = ROOT / "build" / "bench"
DOCUMENT = ROOT / "docs" / "performance.md"
GROUPS = ("roundtrips", "handshakes", "memory", "latency", "hold")


class Screen:
    """One line a figure, with the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        click.echo(f"[{time.monotonic() - self._started:4.0f}s] {text}")


@click.command()
@click.option("--quick", is_flag=True, help="One short round: see that everything runs. A minute.")
@click.option(
    "--rounds", type=click.IntRange(1, 50), help="How often each thing is measured; default 5."
)
@click.option(
    "--only",
    type=click.Choice(GROUPS),
    multiple=True,
    help="Only these groups of measures; may be repeated.",
)
@click.option(
    "--engine", "chosen", multiple=True, help="Only these engines; may be repeated. Default: all."
)
@click.option(
    "--write/--no-write",
    default=None,
    help="Put the figures into docs/performance.md; default for a whole run.",
)
@click.pass_context
def main(
    context: click.Context,
    quick: bool,
    rounds: int | None,
    only: tuple[str, ...],
    chosen: tuple[str, ...],
    write: bool | None,
) -> None:
    """Measure the server against what people would use instead.

    Everything runs in a network namespace of its own, on loopback, server and load generator on a
    core each; comparators are installed into build/bench. A whole run takes about fifteen minutes
    and wants the machine to itself.

    Exit status: 0 measured and every goal that was judged is met, 1 a goal is missed or a measure
    failed, 2 could not start.
    """
    screen = Screen()
    if len(os.sched_getaffinity(0)) < 2:
        raise click.UsageError("needs two cores: one for the server, one for the load generator")
    if not namespace.inside():
        load.build(BUILD)
        prepare(BUILD, screen.say)
        context.exit(namespace.enter("benchmarks.server", sys.argv[1:]))
    namespace.settle()
    os.sched_setaffinity(0, {LOAD_CORE})
    tools = prepare(BUILD, screen.say)
    sizes = m.QUICK if quick else m.FULL
    if rounds is not None:
        sizes = replace(sizes, rounds=rounds)
    groups = only or GROUPS
    try:
        taken, details = measure(screen, tools, sizes, groups, chosen)
    except (load.LoadFailed, EngineFailed) as failure:
        screen.say(f"FAILED: {failure}")
        context.exit(1)
    verdicts = [judge(goal, taken) for goal in GOALS]
    click.echo()
    for line in report.screen(taken, verdicts):
        click.echo(line)
    about = machine.describe(BUILD)
    (BUILD / "server.json").write_text(
        json.dumps({"machine": about, "rounds": taken, "details": details}, indent=1)
    )
    whole = not quick and not only and not chosen
    if write or (write is None and whole):
        block = report.markdown(taken, verdicts, details, about, versions(tools), today())
        DOCUMENT.write_text(report.replace_block(DOCUMENT.read_text(), block))
        click.echo(f"\nFigures written to {DOCUMENT.relative_to(ROOT)}")
    if any(verdict.met is False for verdict in verdicts):
        context.exit(1)


def measure(
    screen: Screen,
    tools: Tools,
    sizes: m.Sizes,
    groups: Sequence[str],
    chosen: Sequence[str],
) -> tuple[list[dict[str, float]], list[Mapping[str, Any]]]:
    """All rounds of the groups: within a round each engine is measured once, A B C, A B C."""
    available = engines(tools)
    if unknown := set(chosen) - set(available):
        raise click.UsageError(
            f"--engine {unknown.pop()}: accepted are {', '.join(map(repr, available))}"
        )

    def pick(names: Sequence[str]) -> list[Any]:
        return [available[n] for n in names if n in available and (not chosen or n in chosen)]

    details: list[Mapping[str, Any]] = []

    def note(name: str, seen: Mapping[str, Any]) -> None:
        details.append({"figure": name, **seen})
        screen.say(f"{name}\n        {brief(seen)}")

    directory = BUILD / "run"
    shutil.rmtree(directory, ignore_errors=True)
    bench = m.Bench(BUILD / "loadgen", directory, sizes, note)
    screen.say(
        f"server on core {SERVER_CORE}, load generator on core {LOAD_CORE}, {sizes.rounds} rounds"
    )
    taken: list[dict[str, float]] = []
    for number in range(sizes.rounds):
        screen.say(f"round {number + 1} of {sizes.rounds}")
        one: dict[str, float] = {}
        if "roundtrips" in groups:
            for engine in pick((*m.DURABLE, *m.UNSTORED)):
                one[f"confirmed/s {engine.name}"] = bench.round_trips(engine)
        if "handshakes" in groups:
            for engine in pick(m.HANDSHAKES):
                one[f"handshakes/s {engine.name}"] = bench.handshakes(engine)
        if "memory" in groups:
            for engine in pick(m.MEMORY):
                one[f"KiB/connection {engine.name}"] = bench.memory(engine)
        taken.append(one)
        if "latency" in groups:
            for engine in pick(m.HALF_RATE):
                highest = median(taken, f"confirmed/s {engine.name}") or bench.round_trips(engine)
                figure = f"p99 ms at half rate {engine.name}"
                one[figure] = bench.p99_at(engine, highest / 2)
    if "hold" in groups:
        for engine in pick(m.HOLD):
            end = bench.hold(engine)
            taken[-1][f"late pongs of {sizes.hold} {engine.name}"] = float(end["late_pongs"])
    return taken, details


def brief(seen: Mapping[str, Any]) -> str:
    """What one measure gave, for a line on the screen."""
    if "before_kib" in seen:
        return f"{seen['before_kib']:,.0f} -> {seen['after_kib']:,.0f} KiB"
    words = [f"{seen['per_second']:,.0f}/s"]
    timed = [seen[kind] for kind in ("confirmation_ms", "handshake_ms") if seen[kind]["count"]]
    words += [f"p99 {one['p99']:.2f} ms" for one in timed]
    if seen["pong_ms"]["count"]:
        words.append(f"pong max {seen['pong_ms']['max']:.0f} ms, {seen['late_pongs']} late")
    words.append(f"cpu {seen['server_cpu']:.2f}/{seen['client_cpu']:.2f}")
    if seen["per_second"]:
        words.append(f"{seen['server_cpu'] / seen['per_second'] * 1e6:.0f} us each")
    return "  ".join(words)


def versions(tools: Tools) -> Mapping[str, str]:
    """Of what was measured."""
    found = {name: version(name) for name in ("ptslink", "websockets", "msgspec")}
    if tools.uvloop is not None:
        (info,) = tools.uvloop.glob("uvloop-*.dist-info")
        found["uvloop"] = info.name.split("-")[1].removesuffix(".dist")
    for name in ("ws", "better-sqlite3"):
        package = tools.node_modules / name / "package.json"
        if package.exists():
            found[name] = json.loads(package.read_text())["version"]
    return found


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


if __name__ == "__main__":
    main(prog_name="scripts/bench server")
