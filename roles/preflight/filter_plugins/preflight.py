"""What preflight concludes from names and listeners, as sentences a person can act on."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

#: How alike a name without a known prefix must be to a known one to be called a slip of the pen.
SLIP = 0.93


def known_variables(roles_directory: str) -> dict[str, list[str]]:
    """Role name -> the variables its argument_specs declare, over all entry points."""
    known: dict[str, list[str]] = {}
    for specs in sorted(Path(roles_directory).glob("*/meta/argument_specs.yml")):
        entry_points = yaml.safe_load(specs.read_text(encoding="utf-8"))["argument_specs"]
        known[specs.parents[1].name] = sorted(
            {name for entry in entry_points.values() for name in entry.get("options") or {}}
        )
    return known


def unknown_variables(
    names: Iterable[str],
    known: Mapping[str, Iterable[str]],
    renamed: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """One sentence for each of ``names`` that looks like a role's variable and is none."""
    every = sorted(name for role in known.values() for name in role)
    complaints = []
    for name in sorted(set(names) - set(every)):
        if name in renamed:
            complaints.append(
                f"{name} is now called {renamed[name]['to']}: rename it where you set it"
            )
            continue
        role = next((role for role in known if name.startswith(f"{role}_")), None)
        # A name cut short says more about what was meant than one that looks alike.
        near = [one for one in every if role and one.startswith(f"{name}_")]
        near += difflib.get_close_matches(name, every, n=1, cutoff=0.6 if role else SLIP)
        if role and near:
            complaints.append(f"{name} is not a variable of {role}: did you mean {near[0]}?")
        elif role:
            complaints.append(
                f"{name} is not a variable of {role}: remove it, or see roles/{role}/README.md"
            )
        elif near:
            complaints.append(f"{name} is a letter or two away from {near[0]}: did you mean that?")
    return complaints


def strangers(
    listeners: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]]
) -> list[str]:
    """One sentence for each wanted port that a unit other than the expected ones listens on.

    ``listeners`` is what preflight_probe returns, ``wanted`` is ``preflight_ports``.
    """
    complaints = []
    for listener in listeners:
        port, processes = listener["port"], listener["processes"]
        for claim in wanted:
            if port not in claim["ports"]:
                continue
            # A socket unit's listener is held by process 1 until its service starts.
            by_socket_unit = any(process["pid"] == 1 for process in processes) and any(
                unit.endswith(".socket") for unit in claim["units"]
            )
            if by_socket_unit or any(process["unit"] in claim["units"] for process in processes):
                continue
            names = [
                f"{process['command']} (pid {process['pid']}, {process['unit'] or 'no unit'})"
                for process in processes
            ]
            complaints.append(
                f"port {port} ({claim['variable']}) is taken by "
                + (", ".join(names) or "a process that cannot be named")
            )
    return list(dict.fromkeys(complaints))


def clock_complaint(epoch: float, limit: int) -> str:
    """What is wrong with a clock that said ``epoch`` (seconds since 1970 UTC) a moment ago.

    Nothing where it is within ``limit`` seconds of this computer's.
    """
    skew = round(epoch - time.time())
    if abs(skew) <= limit:
        return ""
    return f"{abs(skew)} seconds {'ahead of' if skew > 0 else 'behind'} this machine's"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {
            "preflight_clock_complaint": clock_complaint,
            "preflight_known_variables": known_variables,
            "preflight_strangers": strangers,
            "preflight_unknown_variables": unknown_variables,
        }
