"""What is told of a unit that does not run as it should. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ptslink.doctor.causes.reach import listed
from ptslink.doctor.evidence import Json

#: Where systemd's own packages and ours never put a drop-in of their own accord.
_MOST = 6


def state_lines(unit: Mapping[str, Json]) -> Iterator[str]:
    """Its state, its last words where it failed, and what drop-ins set."""
    how = f"server: {unit['unit']} is {unit['active']} ({unit['sub']}), result {unit['result']}"
    if unit.get("load") not in (None, "loaded"):
        how += f", {unit['load']}"
    if unit.get("exit_status"):
        how += f", exit status {unit['exit_status']}"
    if unit.get("restarts"):
        how += f", restarted {unit['restarts']} times"
    yield how
    said = unit.get("last_lines") or ()
    if said and (unit["result"] != "success" or unit["active"] != "inactive"):
        yield f"its last words: {said[-1]}"
    if lines := unit.get("set"):
        yield from (f"{path} sets {line}" for path, line in lines[:_MOST])
    elif paths := unit.get("drop_ins"):
        yield f"drop-ins: {listed([str(path) for path in paths])}"
