"""Where a run's time went, from the output of Ansible's own profile_tasks. No I/O."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.+?)\] \**$")
# The time a task took stands above the next one's name, in brackets.
_TOOK = re.compile(r"\((?P<h>\d+):(?P<m>\d+):(?P<s>[\d.]+)\)\s+\d+:\d+:[\d.]+ \*+$")


def tasks(lines: Iterable[str]) -> list[tuple[str, float]]:
    """(task, seconds) in the order of the run; the last task's time is not told."""
    found: list[tuple[str, float]] = []
    current: str | None = None
    for line in lines:
        if match := _TASK.match(line.rstrip()):
            current = match["name"]
        elif (match := _TOOK.search(line.rstrip())) and current is not None:
            # Printed when the next task starts, with the time of the one before.
            found.append((current, 0.0))
            seconds = int(match["h"]) * 3600 + int(match["m"]) * 60 + float(match["s"])
            if len(found) > 1:
                found[-2] = (found[-2][0], seconds)
    return found


def slowest(taken: Iterable[tuple[str, float]], count: int) -> list[tuple[str, float]]:
    return sorted(taken, key=lambda task: -task[1])[:count]


def by_role(taken: Iterable[tuple[str, float]]) -> list[tuple[str, float, int]]:
    """(role, seconds, tasks), the largest first; tasks of a playbook count as ``playbook``."""
    sums: dict[str, list[float]] = defaultdict(list)
    for name, seconds in taken:
        role, found, _ = name.partition(" : ")
        sums[role if found else "playbook"].append(seconds)
    return sorted(
        ((role, sum(values), len(values)) for role, values in sums.items()),
        key=lambda entry: -entry[1],
    )
