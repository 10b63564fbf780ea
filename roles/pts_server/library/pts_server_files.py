#!/usr/bin/python
"""Small files of ours in their places, and the timer among them on: one call for all of it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: pts_server_files
short_description: Puts units and drop-ins in place, and enables and starts a timer
description:
  - >-
    Each file is root's, readable by all, and replaced in one rename. Where several belong together
    this is one round trip in place of two for each.
  - In check mode says what it would change and changes nothing. Returns C(paths), what changed.
options:
  files:
    type: list
    elements: dict
    default: []
    description: Files and what they shall hold.
    options:
      path: {type: path, required: true, description: The file.}
      content: {type: str, description: The text; without it the file shall be gone.}
  directories:
    type: list
    elements: path
    default: []
    description: Directories that shall be there, root's, readable by all, each after its parent.
  timer:
    type: str
    default: ""
    description: Name of a timer unit that shall be enabled and run, with the files as they are.
author: ptslink authors
"""

MODE = 0o644


def present(path: Path) -> str | None:
    """What a file holds; None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def lay(path: Path, content: str | None) -> None:
    """The content in its place in one rename; None removes the file."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(content)
        os.fchmod(file.fileno(), MODE)
        file.flush()
        os.fsync(file.fileno())
    Path(fresh).replace(path)


def difference(path: Path, before: str | None, after: str | None) -> dict[str, str]:
    """For a person to read."""
    return {
        "before_header": str(path),
        "after_header": str(path),
        "before": before or "",
        "after": after or "",
    }


def runs(systemctl: Sequence[str], timer: str) -> bool:
    """Whether a timer is enabled and active."""
    return all(
        subprocess.run([*systemctl, verb, "--quiet", timer], check=False).returncode == 0
        for verb in ("is-enabled", "is-active")
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str"},
                },
            },
            "directories": {"type": "list", "elements": "path", "default": []},
            "timer": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    timer = module.params["timer"]
    # Directories on the way are open to all, whatever root's own habit.
    os.umask(0o022)
    wanted = {Path(file["path"]): file["content"] for file in module.params["files"]}
    directories = list(map(Path, module.params["directories"]))
    there = {path: present(path) for path in wanted}
    paths = {path for path, content in wanted.items() if there[path] != content}
    result: dict[str, Any] = {
        "diff": [difference(path, there[path], wanted[path]) for path in sorted(paths)]
    }
    paths |= {path for path in directories if not path.is_dir()}
    try:
        if not module.check_mode:
            for path in directories:
                path.mkdir(mode=0o755, parents=True, exist_ok=True)
            for path in paths & wanted.keys():
                lay(path, wanted[path])
        modes = dict.fromkeys(directories, 0o755)
        modes |= {path: MODE for path, content in wanted.items() if content is not None}
        for path, mode in modes.items():
            if path.exists():
                changed = module.set_owner_if_different(str(path), "root", path in paths)
                changed = module.set_group_if_different(str(path), "root", changed)
                if module.set_mode_if_different(str(path), mode, changed):
                    paths.add(path)
    except OSError as error:
        module.fail_json(msg=f"{error}. Fix: see what is in its place", **result)
    changed = bool(paths)
    if timer:
        systemctl = ["systemctl"]
        if changed or not runs(systemctl, timer):
            changed = True
            if not module.check_mode:
                module.run_command([*systemctl, "daemon-reload"], check_rc=True)
                module.run_command([*systemctl, "enable", "--now", timer], check_rc=True)
                # One that ran already is to know its new times.
                module.run_command([*systemctl, "restart", timer], check_rc=True)
    module.exit_json(changed=changed, paths=sorted(map(str, paths)), **result)


if __name__ == "__main__":
    main()
