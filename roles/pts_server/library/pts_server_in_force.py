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
    Changes nothing. Returns C(stale), unit name to the reason, for stale units only; C(running),
    the names of those that run and will after a reboot; and C(idle), of those that neither run nor
    try to.
options:
  units:
    type: list
    elements: dict
    required: true
    description: Units and what they read when they start.
    options:
      unit: {type: str, required: true, description: Full name, with its suffix.}
      files: {type: list, elements: path, required: true, description: Files and links.}
author: ptslink authors
"""

PROPERTIES = (
    "Id",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "ExecMainStartTimestamp",
    "InactiveExitTimestamp",
)


def moment(text: str) -> float | None:
    """Seconds since 1970 of ``Sun 2026-11-22 21:26:36.029262 UTC``; None of an empty one."""
    words = text.split()
    if len(words) < 3:
        return None
    return datetime.fromisoformat(f"{words[1]} {words[2]}+00:00").timestamp()


def blocks(shown: str) -> dict[str, dict[str, str]]:
    """What ``systemctl show`` prints of several units, by unit."""
    found = {}
    for block in shown.strip().split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        if "Id" in values:
            found[values["Id"]] = values
    return found


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


def runs(shown: Mapping[str, str]) -> bool:
    """Whether a unit runs, now and after a reboot."""
    return shown.get("ActiveState") == "active" and shown.get("UnitFileState") == "enabled"


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
        },
        supports_check_mode=True,
    )
    units = {unit["unit"]: unit["files"] for unit in module.params["units"]}
    command = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(PROPERTIES)}"]
    done = subprocess.run([*command, *units], capture_output=True, text=True, check=False)
    if done.returncode:
        module.fail_json(msg=f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    shown = blocks(done.stdout)
    stale: dict[str, Any] = {}
    for unit, files in units.items():
        why = reason(shown.get(unit, {}), changed_at(files), time.time())
        if why:
            stale[unit] = why
    running = [unit for unit in units if runs(shown.get(unit, {}))]
    idle = [unit for unit in units if is_idle(shown.get(unit, {}))]
    module.exit_json(changed=False, stale=stale, running=running, idle=idle)


if __name__ == "__main__":
    main()
