#!/usr/bin/python
"""Whether what lies on the disk is what runs: an interrupted run may have left the two apart."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.pts_server_units import blocks

DOCUMENTATION = r"""
module: pts_server_in_force
short_description: Says which running units are older than the files they were started from
description:
  - >-
    A run killed between a changed file and the restart it asks for leaves a unit running what is
    no longer there, and the next run finds every file as it should be. This compares the start of
    a unit with the last change of its files (ctime: a replaced file and a switched link count), so
    it needs nothing an interrupted run would have had to write.
  - >-
    A unit that does not run, or is between two tries to start it, is not stale; starting it reads
    its files.
  - >-
    A start in the future means that the clock was set back since; such a unit counts as stale,
    because nothing can be said of it.
  - >-
    One that ends again and again is between two starts at one moment and active at another. So it
    counts as running only once it has run for a minute, or has never been started anew by systemd.
  - >-
    Changes nothing. Returns C(stale), unit name to the reason, for stale units only; C(running),
    the names of those that run and will after a reboot; C(idle), of those that neither run nor
    try to; and C(restless), unit name to a sentence, of those that end again and again.
options:
  units:
    type: list
    elements: dict
    required: true
    description: Units and what they read when they start.
    options:
      unit: {type: str, required: true, description: Full name, with its suffix.}
      files: {type: list, elements: path, required: true, description: Files and links.}
  watch_seconds:
    type: float
    default: 0
    description: How long units are watched; those that systemd starts anew meanwhile are restless.
author: ptslink authors
"""

PROPERTIES = (
    "Id",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "ExecMainStartTimestamp",
    "InactiveExitTimestamp",
    "NRestarts",
    "Result",
)
#: One that has run for so many seconds since systemd started it anew is taken for running.
SETTLED = 60


def moment(text: str) -> float | None:
    """Seconds since 1970 of ``Sun 2026-11-22 21:26:36.029262 UTC``; None of an empty one."""
    words = text.split()
    if len(words) < 3:
        return None
    return datetime.fromisoformat(f"{words[1]} {words[2]}+00:00").timestamp()


def changed_at(files: Iterable[str]) -> dict[str, float]:
    """File -> when it last changed, of those there are; of a link, the link itself."""
    found = {}
    for path in files:
        try:
            found[path] = Path(path).lstat().st_ctime
        except FileNotFoundError:
            continue
    return found


def reason(shown: Mapping[str, str], files: Mapping[str, float], now: float) -> str | None:
    """Why a unit is stale, or None where it runs what is there."""
    if shown.get("ActiveState") not in ("active", "activating", "reloading"):
        return None
    if shown.get("NeedDaemonReload") == "yes":
        return "systemd has not read its definition anew"
    if shown["ActiveState"] == "activating":
        # It has not come up yet, or dies and is tried again: the next try reads what is there.
        return None
    started = moment(shown.get("ExecMainStartTimestamp", "")) or moment(
        shown.get("InactiveExitTimestamp", "")
    )
    if started is None:
        return None
    if started > now:
        return "it started in the future: the clock was set back"
    newer = [path for path, changed in files.items() if changed > started]
    return f"{', '.join(newer)} changed after it started" if newer else None


def is_idle(shown: Mapping[str, str]) -> bool:
    """Whether a unit neither runs nor is about to, failed or tries again; or is not there."""
    return shown.get("ActiveState", "inactive") == "inactive"


def restless(shown: Mapping[str, str], now: float) -> str:
    """A sentence where a unit ends again and again, or nothing."""
    restarts = int(shown.get("NRestarts") or 0)
    started = moment(shown.get("ExecMainStartTimestamp", ""))
    if not restarts or is_idle(shown):
        return ""
    if shown.get("ActiveState") == "active" and started and now - started > SETTLED:
        return ""
    return f"systemd has started it {restarts} times since it was asked to"


def kept_ending(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """A sentence where a unit ended while it was watched, or nothing."""
    ends = int(after.get("NRestarts") or 0) - int(before.get("NRestarts") or 0)
    if ends <= 0 and after.get("ActiveState") == "active":
        return ""
    return (
        f"it ended while it was watched (systemd: {after.get('Result', '')}) and was started "
        f"{after.get('NRestarts')} times"
    )


def runs(shown: Mapping[str, str]) -> bool:
    """Whether a unit runs, now and after a reboot."""
    return shown.get("ActiveState") == "active" and shown.get("UnitFileState") == "enabled"


def asked(
    module: AnsibleModule, command: list[str], units: Iterable[str]
) -> dict[str, dict[str, str]]:
    """What systemd has of each unit."""
    done = subprocess.run([*command, *units], capture_output=True, text=True, check=False)
    if done.returncode:
        module.fail_json(msg=f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return blocks(done.stdout)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "unit": {"type": "str", "required": True},
                    "files": {"type": "list", "elements": "path", "required": True},
                },
            },
            "watch_seconds": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    units = {unit["unit"]: unit["files"] for unit in module.params["units"]}
    command = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}"]
    shown = asked(module, command, units)
    now = time.time()
    never_still = {unit: restless(shown.get(unit, {}), now) for unit in units}
    if watch := module.params["watch_seconds"]:
        time.sleep(watch)
        later = asked(module, command, units)
        never_still = {unit: kept_ending(shown[unit], later[unit]) for unit in units}
        shown = later
    never_still = {unit: why for unit, why in never_still.items() if why}
    stale: dict[str, Any] = {}
    for unit, files in units.items():
        why = reason(shown.get(unit, {}), changed_at(files), time.time())
        if why:
            stale[unit] = why
    running = [unit for unit in units if runs(shown.get(unit, {})) and unit not in never_still]
    idle = [unit for unit in units if is_idle(shown.get(unit, {}))]
    module.exit_json(changed=False, stale=stale, running=running, idle=idle, restless=never_still)


if __name__ == "__main__":
    main()
