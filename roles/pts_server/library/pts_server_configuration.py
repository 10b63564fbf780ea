#!/usr/bin/python
"""The server's configuration in place, accepted by the release that reads it, secrets unseen."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.pts_server_redact import redacted

DOCUMENTATION = r"""
module: pts_server_configuration
short_description: Puts the server's configuration in place once its release accepts it
description:
  - >-
    What is new is judged by the release that will read it before it replaces anything; what has
    not changed is judged too where another release is about to read it.
  - Neither a difference, nor an error, nor the invocation shows a secret.
options:
  path: {type: path, required: true, description: The file.}
  content: {type: str, required: true, description: What it shall hold.}
  group: {type: str, required: true, description: Who may read it beside root.}
  judge:
    type: list
    elements: str
    required: true
    description: Command that accepts a configuration or says why not; the file's name is added.
  judge_anyway: {type: bool, default: false, description: Whether the release is another one.}
author: ptslink authors
"""


class Refused(Exception):
    """The release does not accept it; the message is what it says."""


def judge(command: list[str], path: Path) -> None:
    """Raises Refused with the words of the release."""
    done = subprocess.run(
        [*command, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused(done.stdout.strip())


def lay(path: Path, content: str) -> None:
    """The content in its place in one rename, at no moment for others to read."""
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def difference(name: str, before: str, after: str) -> dict[str, str]:
    """For a person to read; says that a secret changed, and neither the old nor the new."""
    shown = {
        "before_header": name,
        "after_header": name,
        "before": redacted(before),
        "after": redacted(after),
    }
    if before != after and shown["before"] == shown["after"]:
        shown["after"] += "# a hidden value changed\n"
    return shown


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True, "no_log": True},
            "group": {"type": "str", "required": True},
            "judge": {"type": "list", "elements": "str", "required": True},
            "judge_anyway": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    path, content = Path(module.params["path"]), module.params["content"]
    # no_log keeps it out of the host's journal. In what is returned it would hide the difference
    # whole, where only its secrets are to be hidden: see shown.
    module.no_log_values.discard(content)
    before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    changed = before != content
    shown: dict[str, Any] = {
        "invocation": {"module_args": {**module.params, "content": redacted(content)}},
        "diff": difference(str(path), before, content),
    }
    command = module.params["judge"]
    there = Path(command[0]).exists()
    if not there and not module.check_mode:  # in a dry run on a bare machine it is not yet there
        module.fail_json(msg=f"There is no {command[0]} to judge {path}", **shown)
    with tempfile.TemporaryDirectory(prefix="ptslink-config-") as scratch:
        fresh = Path(scratch) / path.name
        fresh.touch(mode=0o600)
        fresh.write_text(content, encoding="utf-8")
        if there and (changed or module.params["judge_anyway"]):
            try:
                judge(command, fresh)
            except Refused as refused:
                said = str(refused).replace(str(fresh), str(path))
                module.fail_json(msg=f"The release does not accept {path}: {said}", **shown)
    if changed and not module.check_mode:
        lay(path, content)
    if path.exists():
        changed = module.set_owner_if_different(str(path), "root", changed)
        changed = module.set_group_if_different(str(path), module.params["group"], changed)
        changed = module.set_mode_if_different(str(path), 0o640, changed)
    module.exit_json(changed=changed, **shown)


if __name__ == "__main__":
    main()
