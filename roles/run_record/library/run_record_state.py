#!/usr/bin/python
"""What a good run left on the host: kept, and put back exactly."""

from __future__ import annotations

import base64
import difflib
import grp
import json
import os
import pwd
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.pts_server_redact import redacted

DOCUMENTATION = r"""
module: run_record_state
short_description: Keeps the state a good run left, and puts it back
description:
  - >-
    A record holds named files and links (content, owner, mode; or that there is none) and notes
    of the caller. It is written whole, readable by root alone.
  - >-
    Putting one back changes only what differs, and first keeps what it is about to replace, as a
    record of its own that is never taken for a good one.
options:
  state:
    type: str
    choices: [kept, put_back]
    required: true
    description: What will be true afterwards.
  directory: {type: path, required: true, description: Where records are.}
  paths:
    type: list
    elements: path
    default: []
    description: Files and links to keep.
  notes: {type: dict, default: {}, description: Kept with them and returned with them.}
  keep: {type: int, default: 10, description: How many records stay.}
  which:
    type: str
    choices: [last, previous]
    default: last
    description: >-
      C(last) is the newest good record; C(previous) the newest that differs from what is there.
  release_link:
    type: path
    required: true
    description: A record whose target of this link is gone cannot be put back and is passed over.
author: ptslink authors
"""


class Missing(Exception):
    """There is no record to put back; the message says which was looked for."""


def look(path: Path) -> dict[str, Any] | None:
    """A file or link as a record holds it; None where there is none."""
    if path.is_symlink():
        return {"link": str(path.readlink())}
    if not path.exists():
        return None
    status = path.stat()
    return {
        "content": base64.b64encode(path.read_bytes()).decode(),
        "mode": status.st_mode & 0o7777,
        "owner": pwd.getpwuid(status.st_uid).pw_name,
        "group": grp.getgrgid(status.st_gid).gr_name,
    }


def lay(path: Path, wanted: Mapping[str, Any] | None) -> None:
    """Make a path what a record says, in one rename."""
    if wanted is None:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_name(f".{path.name}.put-back")
    fresh.unlink(missing_ok=True)
    if "link" in wanted:
        fresh.symlink_to(wanted["link"])
    else:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64decode(wanted["content"]))
            os.fchown(
                file.fileno(),
                pwd.getpwnam(wanted["owner"]).pw_uid,
                grp.getgrnam(wanted["group"]).gr_gid,
            )
            os.fchmod(file.fileno(), wanted["mode"])
            file.flush()
            os.fsync(file.fileno())
    fresh.replace(path)


def text(wanted: Mapping[str, Any] | None) -> str:
    """What a person reads in a difference."""
    if wanted is None:
        return ""
    if "link" in wanted:
        return f"-> {wanted['link']}\n"
    return base64.b64decode(wanted["content"]).decode(errors="replace")


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Paths whose state is not the wanted one."""
    return [path for path, state in wanted.items() if there.get(path) != state]


def shown(changes: Iterable[str], there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The lines of what is replaced (-) and what is put back (+), without context or secrets."""
    lines: list[str] = []
    for path in changes:
        lines += difflib.unified_diff(
            redacted(text(there.get(path))).splitlines(),
            redacted(text(wanted[path])).splitlines(),
            f"replaced {path}",
            f"put back {path}",
            n=0,
            lineterm="",
        )
    return "\n".join(lines)


class Records:
    """Record files in a directory, oldest first by their names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self, kind: str) -> list[str]:
        return sorted(path.name for path in self.directory.glob(f"{kind}-*.json"))

    def read(self, name: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.directory / name).read_text(encoding="utf-8"))
        return record

    def write(self, kind: str, record: Mapping[str, Any], keep: int) -> str:
        """Keep a record and forget the oldest of its kind beyond ``keep``."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time.time()))
        name = f"{kind}-{stamp}-{time.time_ns() % 10**9:09}.json"
        partial = self.directory / f".{name}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.directory / name)
        for old in self.names(kind)[:-keep]:
            (self.directory / old).unlink()
        return name


def usable(record: Mapping[str, Any], release_link: Path) -> bool:
    """Whether the release a record was made with is still there."""
    link = record["paths"].get(str(release_link))
    return bool(link and "link" in link and (release_link.parent / link["link"]).is_dir())


def choose(
    records: Records, which: str, release_link: Path
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(name, record, what is there now) of the record to put back."""
    for name in reversed(records.names("good")):
        record = records.read(name)
        if not usable(record, release_link):
            continue
        there = {path: look(Path(path)) for path in record["paths"]}
        if which == "last" or differences(there, record["paths"]):
            return name, record, there
    raise Missing(
        "no good run before this one is on record"
        if which == "last"
        else "every good run on record is like what is there now"
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["kept", "put_back"], "required": True},
            "directory": {"type": "path", "required": True},
            "paths": {"type": "list", "elements": "path", "default": []},
            "notes": {"type": "dict", "default": {}},
            "keep": {"type": "int", "default": 10},
            "which": {"type": "str", "choices": ["last", "previous"], "default": "last"},
            "release_link": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    records = Records(Path(parameters["directory"]))
    if parameters["state"] == "kept":
        fresh = {
            "paths": {path: look(Path(path)) for path in parameters["paths"]},
            "notes": parameters["notes"],
        }
        newest = records.names("good")[-1:]
        if newest and records.read(newest[0]) == fresh:
            module.exit_json(changed=False, record=newest[0])
        if module.check_mode:
            module.exit_json(changed=True, record=None)
        module.exit_json(changed=True, record=records.write("good", fresh, parameters["keep"]))

    try:
        name, record, there = choose(records, parameters["which"], Path(parameters["release_link"]))
    except Missing as missing:
        module.exit_json(changed=False, found=False, reason=str(missing))
    changes = differences(there, record["paths"])
    if changes and not module.check_mode:
        records.write("replaced", {"paths": there, "notes": {}}, parameters["keep"])
        for path in changes:
            lay(Path(path), record["paths"][path])
    module.exit_json(
        changed=bool(changes),
        found=True,
        record=name,
        notes=record["notes"],
        changes=changes,
        difference=shown(changes, there, record["paths"]),
    )


if __name__ == "__main__":
    main()
