"""Run the matrix: python -m machines.faults --lab NAME [ID ...]."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from machines.faults.bench import Bench, BenchError
from machines.faults.fault import Fault, NotInjected, Step
from machines.faults.setups import SETUPS
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.evidence import Case, Evidence
from ptslink.doctor.verdict import Verdict, judge

HERE = Path(__file__).parent
#: Files beside this one that are no tables.
MACHINERY = {"__init__", "__main__", "fault", "bench", "setups", "helpers", "document"}
HEALTHY = Fault("healthy", ())


def tables() -> tuple[list[Fault], list[NotInjected]]:
    """Every row of every table, and every cause that has none."""
    faults: list[Fault] = []
    left_out: list[NotInjected] = []
    for path in sorted(HERE.glob("*.py")):
        if path.stem in MACHINERY:
            continue
        module = importlib.import_module(f"machines.faults.{path.stem}")
        faults += getattr(module, "FAULTS", ())
        left_out += getattr(module, "NOT_INJECTED", ())
    return faults, left_out


def verdict_of(bench: Bench, fault: Fault) -> tuple[Verdict, float, list[dict[str, Any]]]:
    started = time.monotonic()
    found = bench.examine(fault)
    evidence = [Evidence.from_json(piece) for piece in found]
    seconds = time.monotonic() - started
    return judge(Case(fault.url, evidence), CAUSES, seconds), seconds, found


def run_one(bench: Bench, fault: Fault, keep: Path | None) -> dict[str, Any]:
    """One row: its result, ready to be written."""
    layer = next((cause.layer.value for cause in CAUSES if cause.id == fault.id), None)
    result: dict[str, Any] = {"id": fault.id, "variant": fault.variant, "layer": layer,
                              "twin": fault.healthy}  # fmt: skip
    bench.wash()
    try:
        bench.run(fault.inject)
        time.sleep(fault.settle)
        verdict, seconds, found = verdict_of(bench, fault)
        named = [finding.id for finding in verdict.findings]
        first = verdict.findings[0] if verdict.findings else None
        result |= {
            "named": named[0] if named else None,
            "right": (not named) if fault.healthy else named[:1] == [fault.id],
            "layer_right": fault.healthy or (first is not None and first.layer.value == layer),
            "others": named[1:],
            "confidence": first.match.confidence if first else None,
            "evidence": list(first.match.evidence) if first else [],
            "seconds": round(seconds, 1),
        }
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{fault.name}.json").write_text(json.dumps(found, indent=1))
    except (BenchError, OSError, TimeoutError) as error:
        result |= {"named": None, "right": False, "layer_right": False, "error": str(error)}
    finally:
        bench.end_background()
        for step in fault.undo:
            try:
                bench.run([step])
            except BenchError as error:
                result.setdefault("undo_error", str(error))
    after, _, found = verdict_of(bench, fault.afterwards or HEALTHY)
    result["healthy_after"] = after.healthy
    if not after.healthy:
        result["left_behind"] = [
            f"{finding.id}: {finding.match.evidence[:2]}" for finding in after.findings
        ]
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{fault.name}.after.json").write_text(json.dumps(found, indent=1))
    return result


def prepare(bench: Bench, faults: Iterable[Fault]) -> None:
    """Run the setups that the chosen rows need, once each."""
    wanted = dict.fromkeys(name for fault in faults for name in fault.needs)
    for name in wanted:
        print(f"setting up {name}", file=sys.stderr, flush=True)
        bench.run(SETUPS[name])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m machines.faults", description=__doc__)
    parser.add_argument("--lab", default="faults")
    parser.add_argument("--results", type=Path, help="append JSON lines here")
    parser.add_argument("--keep", type=Path, help="write the evidence of each row here")
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("only", nargs="*", metavar="ID", help="these rows only (id or id[variant])")
    chosen = parser.parse_args()
    faults, left_out = tables()
    if chosen.list:
        for fault in faults:
            print(fault.name)
        for one in left_out:
            print(f"{one.id}: not injected: {one.reason}")
        return 0
    if chosen.only:
        faults = [fault for fault in faults if {fault.id, fault.name} & set(chosen.only)]
    bench = Bench(chosen.lab)
    bench.carry()
    bench.run([Step("server", "true")])
    prepare(bench, faults)
    wrong = 0
    for number, fault in enumerate(faults, 1):
        result = run_one(bench, fault, chosen.keep)
        good = result["right"] and result["healthy_after"]
        wrong += not good
        what = "ok" if good else "WRONG"
        seconds = result.get("seconds", "-")
        print(f"[{number}/{len(faults)}] {fault.name}: {what}, named {result.get('named')} "
              f"in {seconds} s", flush=True)  # fmt: skip
        for key in ("error", "undo_error", "left_behind", "others"):
            if result.get(key) and (not good or key == "error"):
                print(f"      {key}: {result[key]}", flush=True)
        if chosen.results is not None:
            with chosen.results.open("a") as file:
                file.write(json.dumps(result) + "\n")
    print(f"{len(faults) - wrong} of {len(faults)} rows right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
