"""One row: inject, examine, compare the first finding, undo, and see it healthy again."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machines.faults.bench import NOBODY_LEAVING, Bench, BenchError
from machines.faults.fault import Fault, NotInjected, Step
from machines.faults.setups import SETUPS
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.evidence import Case, Evidence
from ptslink.doctor.verdict import Verdict, judge

#: The tables, outermost layer first.
TABLES = (
    "dns", "l3", "tcp", "tls", "proxy", "http_upgrade", "ws_protocol", "application", "host",
    "controller",
)  # fmt: skip
HEALTHY = Fault("healthy", ())


def tables(names: Iterable[str] = TABLES) -> tuple[list[Fault], list[NotInjected]]:
    """Every row of the named tables, and every cause that has none.

    Raises:
        ValueError: a name is no table; says which are.
    """
    faults: list[Fault] = []
    left_out: list[NotInjected] = []
    for name in names:
        if name not in TABLES:
            raise ValueError(f"no table {name!r}; accepted: {', '.join(TABLES)}")
        module = importlib.import_module(f"machines.faults.{name}")
        faults += module.FAULTS
        left_out += getattr(module, "NOT_INJECTED", ())
    return faults, left_out


def verdict_of(bench: Bench, fault: Fault) -> tuple[Verdict, float, list[dict[str, Any]]]:
    """What the doctor says of it now, after how many seconds, and its evidence."""
    started = time.monotonic()
    found = bench.examine(fault)
    evidence = [Evidence.from_json(piece) for piece in found]
    seconds = time.monotonic() - started
    return judge(Case(bench.target(fault), evidence), CAUSES, seconds), seconds, found


def run_one(bench: Bench, fault: Fault, keep: Path | None = None) -> dict[str, Any]:
    """One row: its result, ready to be written. *keep*: where its evidence is to go."""
    layer = next((cause.layer.value for cause in CAUSES if cause.id == fault.id), None)
    result: dict[str, Any] = {"id": fault.id, "variant": fault.variant, "layer": layer,
                              "twin": fault.healthy, "day": today()}  # fmt: skip
    bench.wash()
    try:
        result |= _fault(bench, fault, layer, keep)
        result |= _twin(bench, fault, keep)
    finally:
        bench.end_background()
        if trouble := _end(bench, fault.clear):
            result.setdefault("undo_error", trouble)
    return result


def _fault(bench: Bench, fault: Fault, layer: str | None, keep: Path | None) -> dict[str, Any]:
    """What the doctor says of the fault, which is undone however it ends; the setting stands."""
    standing = 0
    result: dict[str, Any] = {}
    try:
        bench.run(fault.setting)
        standing = bench.background
        bench.run(fault.inject)
        time.sleep(fault.settle)
        verdict, seconds, found = verdict_of(bench, fault)
        named = [finding.id for finding in verdict.findings]
        first = verdict.findings[0] if verdict.findings else None
        result = {
            "named": named[0] if named else None,
            "right": (not named) if fault.healthy else named[:1] == [fault.id],
            "layer_right": fault.healthy or (first is not None and first.layer.value == layer),
            "others": named[1:],
            "confidence": first.match.confidence if first else None,
            "evidence": list(first.match.evidence) if first else [],
            "seconds": round(seconds, 1),
        }
        _keep(keep, fault.name, found)
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        result |= {"named": None, "right": False, "layer_right": False, "error": str(error)}
    finally:
        if bench.background > standing:
            bench.end_background(standing)
            # What the service writes of links that end now is not to come after the wash.
            time.sleep(1)
        if trouble := _end(bench, (*fault.undo, NOBODY_LEAVING)):
            result["undo_error"] = trouble
    return result


def _end(bench: Bench, steps: Iterable[Step]) -> str:
    """Run each of *steps*, whatever becomes of the others; the first trouble, or nothing."""
    troubles = []
    for step in steps:
        try:
            bench.run([step])
        except (BenchError, OSError, subprocess.SubprocessError) as error:
            troubles.append(str(error))
    return (troubles or [""])[0]


def _twin(bench: Bench, fault: Fault, keep: Path | None) -> dict[str, Any]:
    """What the doctor says of the same system without the fault."""
    twin = fault.healthy_twin()
    try:
        bench.run(twin.inject)
        verdict, _, found = verdict_of(bench, twin)
    except (BenchError, OSError, subprocess.SubprocessError) as error:
        return {"healthy_after": False, "left_behind": [str(error)]}
    if verdict.healthy and verdict.examined:
        return {"healthy_after": True}
    _keep(keep, f"{fault.name}.after", found)
    told = [f"{finding.id}: {finding.match.evidence[:2]}" for finding in verdict.findings]
    return {"healthy_after": False, "left_behind": told or ["nothing could be examined"]}


def today() -> str:
    """The day of a result."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def _keep(folder: Path | None, name: str, found: list[dict[str, Any]]) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name.replace('/', '_')}.json").write_text(json.dumps(found, indent=1))


def prepare(bench: Bench, faults: Iterable[Fault]) -> None:
    """Put the doctor on the machine, and run the setups that the chosen rows need, once each."""
    bench.carry()
    wanted = dict.fromkeys(name for fault in faults for name in fault.needs)
    for name in wanted:
        print(f"setting up {name}", file=sys.stderr, flush=True)
        bench.run(SETUPS[name])


def good(result: dict[str, Any]) -> bool:
    """Named as it should be, and healthy once undone."""
    return bool(result["right"] and result["healthy_after"])
