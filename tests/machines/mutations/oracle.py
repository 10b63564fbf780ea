"""Whether a link works: a faithful controller says so, from the site's own network."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from machines.faults.bench import Bench
from machines.faults.fault import controller
from machines.mutations.mutation import Mutation, Way

#: The controller's own bounds: it waits so long for an answer, seconds.
TIMEOUT = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the controller."""

    works: bool
    #: What it says of itself where it does not.
    why: str = ""


def asked(bench: Bench, way: Way, quiet: float = 0.0) -> Outcome:
    """Whether a controller gets in, has its uploads confirmed and leaves in good order; with
    *quiet* whether it also stays, saying nothing for so many seconds."""
    first = _simulated(bench, f"{way.url} --once --timeout {TIMEOUT} {way.controller}")
    if not first.works or not quiet:
        return first
    silent = f"--status-period 3600 --ping-period 3600 --duration {quiet:g} --timeout {TIMEOUT}"
    return _simulated(bench, f"{way.url} {silent} {way.controller}")


def _simulated(bench: Bench, words: str) -> Outcome:
    done = bench.output(controller(f"{{simulate}} {words} --json"))
    try:
        (told,) = json.loads(done.stdout)["controllers"]
    except (ValueError, KeyError):
        return Outcome(False, (done.stderr or done.stdout).strip()[-300:])
    return judged(told)


def judged(told: dict[str, Any]) -> Outcome:
    """What a controller's own account comes to: it is cut where it needed a second connection."""
    if told["ok"] and told["connections"] == 1 and not told["errors"]:
        return Outcome(True)
    why = told["first_error"] or told["error"] or f"status {told['status']}"
    if told["connections"] > 1:
        why = f"{told['connections']} connections: {why}"
    if told["unconfirmed"] or told["rejected"]:
        why += f"; unconfirmed {told['unconfirmed']}, rejected {told['rejected']}"
    return Outcome(False, str(why))


def of(bench: Bench, mutation: Mutation) -> Outcome:
    """Whether the link works with *mutation* in force; of a device, whether that device gets in."""
    if mutation.device:
        words = shlex.join(mutation.device)
        done = bench.output(controller(f"{{python}} {{mutations}}/device.py --once {words}"))
        return Outcome(done.returncode == 0, (done.stdout + done.stderr).strip()[-300:])
    return asked(bench, mutation.way, mutation.quiet)
