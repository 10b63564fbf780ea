"""Run the matrix: python -m machines.faults [--lab NAME] [ID ...], or scripts/bench faults."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machines.faults import healthy, lab
from machines.faults.bench import Bench, BenchError
from machines.faults.document import document
from machines.faults.fault import Fault
from machines.faults.runner import TABLES, good, prepare, run_one, tables
from machines.mutations.document import section_of, with_section

BUILD = lab.ROOT / "build" / "faults"
DOCUMENT = lab.ROOT / "docs" / "faults.md"

WORDS = """\
Inject every cause of a lost link for real, and see that the doctor names it; then look at 20
healthy systems, and see that it stays silent.

Without ID and --layer everything is run and docs/faults.md is written. The lab is raised,
provisioned and taken down, unless it is up: then it is taken as it is.
"""


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(
        prog="scripts/bench faults", description=WORDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    words.add_argument("--lab", default="faults", help="(%(default)s)")
    words.add_argument("--layer", action="append", choices=[*TABLES, "healthy"], default=[],
                       metavar="NAME", help="this table only, or the systems that are healthy; "
                       f"repeatable; one of {', '.join([*TABLES, 'healthy'])}")  # fmt: skip
    words.add_argument("--results", type=Path, default=BUILD / "results.jsonl", metavar="FILE",
                       help="append JSON lines there (build/faults/results.jsonl)")  # fmt: skip
    words.add_argument("--keep", type=Path, metavar="DIRECTORY",
                       help="write the evidence of each row there")  # fmt: skip
    words.add_argument("--document", action="store_true",
                       help="write docs/faults.md from the results, run nothing")  # fmt: skip
    words.add_argument("--list", action="store_true", help="name the rows and stop")
    words.add_argument("only", nargs="*", metavar="ID", help="these rows only: id or id[variant]")
    return words


def main() -> int:
    words = parser()
    chosen = words.parse_args()
    faults, left_out = tables()
    if chosen.list:
        for fault in faults:
            print(fault.name)
        for one in left_out:
            print(f"{one.id}: not injected: {one.reason}")
        return 0
    if chosen.document:
        write_document(chosen.results)
        return 0
    if unknown := set(chosen.only) - {name for fault in faults for name in (fault.id, fault.name)}:
        words.error(f"no row {', '.join(sorted(unknown))}; --list names them")
    whole = not chosen.only and not chosen.layer
    if chosen.layer:
        faults, _ = tables(name for name in chosen.layer if name != "healthy")
    if chosen.only:
        faults = [fault for fault in faults if {fault.id, fault.name} & set(chosen.only)]
    chosen.results.parent.mkdir(parents=True, exist_ok=True)
    if whole:
        chosen.results.write_text("")
    wrong = 0
    try:
        with lab.ready(chosen.lab):
            if faults:
                wrong += run_rows(chosen.lab, faults, chosen.results, chosen.keep)
            if whole or "healthy" in chosen.layer:
                wrong += run_healthy(chosen.lab, chosen.results, chosen.keep)
    except (lab.LabError, BenchError) as error:
        print(f"scripts/bench faults: {error}", file=sys.stderr)
        return 2
    if whole:
        write_document(chosen.results)
    return 1 if wrong else 0


def run_rows(name: str, faults: list[Fault], results: Path, keep: Path | None) -> int:
    """Run *faults* one after the other; how many did not end as they should."""
    wrong, started = 0, time.monotonic()
    # Those on the machine of most rows first.
    faults = sorted(faults, key=lambda fault: fault.machine != "server")
    bench, machine = None, ""
    for number, fault in enumerate(faults, 1):
        if bench is None or fault.machine != machine:
            machine = fault.machine
            bench = bench_of(name, machine)
            prepare(bench, [one for one in faults if one.machine == machine])
        result = run_one(bench, fault, keep)
        wrong += not good(result)
        where = f"[{number}/{len(faults)} {time.monotonic() - started:.0f} s]"
        print(f"{where} {told(fault.name, result, good(result))}", flush=True)
        with results.open("a") as file:
            file.write(json.dumps(result) + "\n")
    print(f"{len(faults) - wrong} of {len(faults)} rows right", flush=True)
    return wrong


def bench_of(name: str, machine: str) -> Bench:
    """The machine that a row names."""
    if machine in healthy.MACHINES:
        return healthy.ready(name, healthy.MACHINES[machine], _say)
    return Bench(name, machine)


def _say(text: str) -> None:
    print(text, flush=True)


def run_healthy(name: str, results: Path, keep: Path | None) -> int:
    """Look at the healthy systems; in how many of them something was found."""
    wrong, started = 0, time.monotonic()
    for number, result in enumerate(healthy.run_all(name, _say, keep), 1):
        wrong += not result["right"]
        where = f"[{number}/{len(healthy.HEALTHY)} {time.monotonic() - started:.0f} s]"
        print(f"{where} {told(result['variant'], result, result['right'])}", flush=True)
        with results.open("a") as file:
            file.write(json.dumps(result) + "\n")
    return wrong


def told(name: str, result: Mapping[str, Any], right: bool) -> str:
    """A result as a line, with what a person has to know where it is wrong."""
    named = result.get("named") or "nothing"
    lines = [f"{name}: {'ok' if right else 'WRONG'}, named {named} in {result.get('seconds')} s"]
    keys = ("error", "undo_error", "left_behind", "others", "found")
    lines += [f"      {key}: {result[key]}" for key in keys if result.get(key) and not right]
    return "\n".join(lines)


def write_document(results: Path) -> None:
    """docs/faults.md from *results*."""
    found = [json.loads(line) for line in results.read_text().splitlines() if line]
    mutations = section_of(DOCUMENT.read_text()) if DOCUMENT.exists() else ""
    DOCUMENT.write_text(with_section(document(found, tables()[1]), mutations))
    print(f"{DOCUMENT.relative_to(lab.ROOT)} is written", flush=True)


if __name__ == "__main__":
    sys.exit(main())
