"""Whether what a dry run said it would change is what the run after it changed.

    parity.py CHANGED_TASKS [EXCEPTIONS]

CHANGED_TASKS is what tests/support/callback/changed_tasks.py wrote; of it, the last dry run of
site.yml and the first run after it are compared, task by task and host by host. EXCEPTIONS is a
YAML file whose ``parity_exceptions`` are the tasks that cannot be known beforehand: ``task``,
``told_by`` (``check`` or ``run``, the only one of the two that has it) and ``why``. One that is no
longer needed is an error too.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

PLAYBOOK = "site.yml"


@dataclass
class Run:
    """One run of a playbook: whether it was dry, and (host, task) of what changed."""

    playbook: str
    check: bool
    changed: Counter[tuple[str, str]] = field(default_factory=Counter)


def runs(lines: Iterable[str]) -> list[Run]:
    """The runs a file of changed tasks tells of, in order."""
    found: list[Run] = []
    for line in lines:
        told = json.loads(line)
        if "playbook" in told:
            found.append(Run(told["playbook"], told["check"]))
        else:
            found[-1].changed[told["host"], told["task"]] += 1
    return found


def pair(told: Sequence[Run]) -> tuple[Run, Run]:
    """The last dry run and the first run after it.

    Raises:
        ValueError: there are no two such runs.
    """
    ours = [run for run in told if run.playbook == PLAYBOOK]
    for number in range(len(ours) - 2, -1, -1):
        if ours[number].check and not ours[number + 1].check:
            return ours[number], ours[number + 1]
    raise ValueError(f"no dry run of {PLAYBOOK} followed by a run")


def problems(check: Run, run: Run, exceptions: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the two say differently beyond the exceptions, and exceptions that are none."""
    found = []
    excepted = {(entry["told_by"], entry["task"]) for entry in exceptions}
    needed = set()
    for side, more in (
        ("check", check.changed - run.changed),
        ("run", run.changed - check.changed),
    ):
        other = {"check": "the run did not change it", "run": "the dry run did not say so"}[side]
        for host, task in sorted(more):
            if (side, task) in excepted:
                needed.add((side, task))
            else:
                found.append(f"{host}: {task}: changed according to the {side} only ({other})")
    found += [
        f"{task}: the exception for the {side} is not needed any more"
        for side, task in sorted(excepted - needed)
    ]
    return found


def table(path: Path) -> list[dict[str, str]]:
    """The exceptions of a file."""
    found: list[dict[str, str]] = yaml.safe_load(path.read_text(encoding="utf-8"))[
        "parity_exceptions"
    ]
    return found


def main(told: str, exceptions: str | None = None) -> int:
    check, run = pair(runs(Path(told).read_text(encoding="utf-8").splitlines()))
    found = problems(check, run, table(Path(exceptions)) if exceptions else [])
    print("\n".join(found) or f"{run.changed.total()} changes, as the dry run said")
    return 1 if found or not run.changed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
