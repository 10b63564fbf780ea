#!/usr/bin/python
"""nginx reloaded, and seen to have taken its configuration: a reload that fails says nothing."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: nginx_proxy_reload
short_description: Reloads nginx and makes sure that it took its configuration
description:
  - >-
    A reload is a signal. Where nginx cannot open a port, though C(nginx -t) passed, it goes on
    with what it had and says so in its log alone - and does not start at the next boot. So this
    waits for workers that were not there before, or for the reason in the log.
  - Where nginx does not run nothing is done; whoever starts it has it read its files.
options:
  unit: {type: str, default: nginx.service, description: The unit.}
  seconds: {type: int, default: 60, description: How long nginx may take.}
author: ptslink authors
"""

PROC = Path("/proc")


def workers(main: int) -> set[int]:
    """Worker processes of nginx's main process that take connections."""
    found = set()
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            title = (process / "cmdline").read_bytes().decode(errors="replace")
        except (OSError, ValueError, IndexError):
            continue
        if parent == main and "worker process" in title and "shutting down" not in title:
            found.add(int(process.name))
    return found


def logs(main: int) -> dict[Path, int]:
    """Files that the main process has open and writes to -> their size."""
    found = {}
    for descriptor in (PROC / str(main) / "fd").iterdir():
        try:
            path = descriptor.readlink()
            if path.is_file():
                found[path] = path.stat().st_size
        except OSError:
            continue
    return found


def complaints(before: Mapping[Path, int]) -> list[str]:
    """What nginx has written since of why it did not take its configuration, each once."""
    found: list[str] = []
    for path, size in before.items():
        try:
            with path.open("rb") as log:
                log.seek(size)
                lines = log.read(1 << 20).decode(errors="replace").splitlines()
        except OSError:
            continue
        found += [line.partition("[emerg] ")[2] for line in lines if "[emerg]" in line]
    plain = [line.partition(": ")[2] or line for line in found]
    return list(dict.fromkeys(plain))


def gave_up(why: Sequence[str]) -> bool:
    """Whether nginx tries no more: a port it tries five times, half a second apart."""
    if any("still could not bind" in line for line in why):
        return True
    return bool(why) and not any("bind()" in line for line in why)


def main_process(unit: str) -> int:
    """The unit's main process; 0 where it does not run."""
    shown = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", unit],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return int(shown.strip() or 0)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "default": "nginx.service"},
            "seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    unit = module.params["unit"]
    if module.check_mode:
        module.exit_json(changed=True)
    process = main_process(unit)
    if not process:
        module.exit_json(changed=False)
    before, sizes = workers(process), logs(process)
    status, said, erred = module.run_command(["systemctl", "reload", unit])
    if status:
        module.fail_json(msg=f"`systemctl reload {unit}` said: {(erred or said).strip()}")
    until = time.monotonic() + module.params["seconds"]
    why: list[str] = []
    while not workers(process) - before and not gave_up(why) and time.monotonic() <= until:
        time.sleep(0.05)
        why = complaints(sizes)
    if workers(process) - before:
        module.exit_json(changed=True)
    why = why or [f"no new worker within {module.params['seconds']} s"]
    module.fail_json(
        msg="nginx did not take its configuration, and would not start at the next boot: "
        f"{'; '.join(why)}. Fix: free that port on the host (ss -anp shows who has it), or take "
        "controllers on another (nginx_proxy_listeners)"
    )


if __name__ == "__main__":
    main()
