"""Run mutations: python -m machines.mutations, or scripts/bench mutate."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machines.faults import lab
from machines.faults.__main__ import DOCUMENT
from machines.faults.bench import Bench, BenchError
from machines.faults.runner import today
from machines.mutations.document import section, table, with_section
from machines.mutations.figures import figures
from machines.mutations.kinds import LEFT_OUT
from machines.mutations.mutation import KINDS, Mutation, generated, sample
from machines.mutations.runner import TOOLS, NotHealthyError, missed, read, run_one

BUILD = lab.ROOT / "build" / "mutations"
FIXED = Path(__file__).with_name("fixed.txt")
MACHINE = "server"

WORDS = """\
Change a healthy machine one step at a time, see by a faithful controller whether the link
still works, and ask the doctor.

Mutations that have a result already are not run again, so that a run that was ended goes on where
it was; --fresh begins anew. The lab is raised, provisioned and taken down, unless it is up: then it
is taken as it is. It is made again where a mutation cannot be undone.
"""


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(
        prog="scripts/bench mutate", description=WORDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    words.add_argument("--lab", default="mutations", help="(%(default)s)")
    words.add_argument("--seed", default="1", help="what is chosen follows from it (%(default)s)")
    words.add_argument("--count", "--sample", type=int, default=25, metavar="N",
                       help="so many of each kind, 0: all of them (%(default)s)")  # fmt: skip
    words.add_argument("--kind", action="append", default=[], choices=sorted(KINDS),
                       metavar="NAME", help="this kind only; repeatable (--list)")  # fmt: skip
    words.add_argument("--held-out", action="store_true",
                       help="the kinds that are left out otherwise, and those alone")  # fmt: skip
    words.add_argument("--only", action="append", default=[], metavar="TEXT",
                       help="mutations whose name holds TEXT, all of them; repeatable")  # fmt: skip
    words.add_argument("--results", type=Path, default=BUILD / "results.jsonl", metavar="FILE",
                       help="JSON lines (build/mutations/results.jsonl)")  # fmt: skip
    words.add_argument("--keep", type=Path, metavar="DIRECTORY",
                       help="write truth.json and evidence.json of each miss there")  # fmt: skip
    words.add_argument("--fresh", action="store_true", help="forget the results so far")
    words.add_argument("--document", action="store_true",
                       help="write the section of docs/faults.md, run nothing")  # fmt: skip
    words.add_argument("--list", action="store_true", help="name the kinds and stop")
    return words


def main() -> int:
    words = parser()
    chosen = words.parse_args()
    names = [name for name in KINDS if (name in LEFT_OUT) == chosen.held_out]
    if chosen.kind:
        # A kind of the quarter is run only by those who say that they look at it.
        if wrong := set(chosen.kind) - set(names):
            words.error(f"{', '.join(sorted(wrong))}: run with --held-out at the end, not before")
        names = chosen.kind
    if chosen.list:
        for name in KINDS:
            print(name + (" (left out)" if name in LEFT_OUT else ""))
        return 0
    if chosen.document:
        write_document(chosen.results)
        return 0
    chosen.results.parent.mkdir(parents=True, exist_ok=True)
    if chosen.fresh:
        chosen.results.unlink(missing_ok=True)
    try:
        with lab.ready(chosen.lab):
            mine = run(chosen, names)
    except (lab.LabError, BenchError) as error:
        print(f"scripts/bench mutate: {error}", file=sys.stderr)
        return 2
    print("\n".join(table(mine)), flush=True)
    return 0 if all(one.met or not one.of for one in figures(mine)) else 1


def selected(
    found: Mapping[str, Sequence[Mutation]], seed: str, count: int, only: Sequence[str]
) -> list[Mutation]:
    """The sample, and what always runs; with *only* what is named so, and nothing else."""
    every = [one for mutations in found.values() for one in mutations]
    if only:
        return [one for one in every if any(text in one.name for text in only)]
    fixed = {line for line in FIXED.read_text().splitlines() if line and line[0] != "#"}
    drawn = sample({name: [*mutations] for name, mutations in found.items()}, seed, count)
    names = {one.name for one in drawn}
    return [one for one in every if one.fixed_name in fixed and one.name not in names] + drawn


def run(chosen: argparse.Namespace, names: Sequence[str]) -> list[dict[str, Any]]:
    """Run what is selected and has no result yet; the results of all that is selected."""
    bench = ready(chosen.lab)
    mutations = selected(generated(read(bench), names), chosen.seed, chosen.count, chosen.only)
    done = {one["name"]: one for one in results_of(chosen.results)}
    waiting = [one for one in mutations if one.name not in done]
    print(f"{len(mutations)} mutations of {len(names)} kinds, seed {chosen.seed}; "
          f"{len(mutations) - len(waiting)} have a result", flush=True)  # fmt: skip
    started = time.monotonic()
    for number, mutation in enumerate(waiting, 1):
        try:
            result = run_one(bench, mutation, chosen.keep)
        except NotHealthyError as error:
            print(f"not undone, the machine is made again: {error}", flush=True)
            result = {"name": mutation.name, "kind": mutation.kind, "error": str(error)}
            lab.rebuild(chosen.lab, MACHINE)
            bench = ready(chosen.lab)
        result |= {"seed": chosen.seed, "day": today()}
        done[mutation.name] = result
        with chosen.results.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(progress(number, len(waiting), time.monotonic() - started, result), flush=True)
    return [done[one.name] for one in mutations]


def ready(name: str) -> Bench:
    """The machine with the doctor of this checkout on it."""
    bench = Bench(name, MACHINE)
    bench.carry(*TOOLS)
    return bench


def results_of(file: Path) -> list[dict[str, Any]]:
    """The results that are there."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines() if line]


def progress(number: int, of: int, seconds: float, result: Mapping[str, Any]) -> str:
    """A result as a line, and the time left if the rest takes as long."""
    left = seconds / number * (of - number) / 60
    where = f"[{number}/{of}, {left:.0f} min left]"
    if "error" in result:
        return f"{where} {result['name']}: ERROR {result['error']}"
    word = "MISS" if missed(dict(result)) else "ok"
    what = "works" if result["works"] else "broken"
    right = "exact" if result["exact"] else "party" if result["party"] else "wrong"
    named = f"{result['named']} ({right}, {result['confidence']})" if result["named"] else "healthy"
    return f"{where} {word} {result['name']}: {what}; {named} in {result['seconds']} s"


def write_document(results: Path) -> None:
    """The section of docs/faults.md, from *results*."""
    DOCUMENT.write_text(with_section(DOCUMENT.read_text(), section(results_of(results))))
    print(f"{DOCUMENT.relative_to(lab.ROOT)} is written", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        print(f"scripts/bench mutate: {error}", file=sys.stderr)
        sys.exit(2)
