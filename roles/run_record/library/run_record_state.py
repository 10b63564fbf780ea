#!/usr/bin/python
"""What a good run left on the host: kept, and put back exactly."""

from __future__ import annotations

import base64
import contextlib
import difflib
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.pts_server_redact import redacted
from ansible.module_utils.run_record_files import Records
from ansible.module_utils.run_record_paths import (
    lay,
    limits_found,
    look,
    lowerings,
    read,
    rewrite,
)

DOCUMENTATION = r"""
module: run_record_state
short_description: Keeps the state a good run left, and puts it back; keeps what a run did
description:
  - >-
    A record holds named files and links (content, owner, mode; or that there is none) and notes
    of the caller. It is written whole, readable by root alone.
  - >-
    Putting one back changes only what differs, and first keeps what it is about to replace, as a
    record of its own that is never taken for a good one.
  - >-
    Of files that are not ours (C(limits)) numbers alone are kept. Putting back lowers what runs
    raised, and leaves all else as it is, a number higher than any that was asked for included.
  - >-
    C(run) is an account of the run, kept as C(run-*.json) with what only the host knows: versions,
    and how the files differ from those of the last good run. It is never put back.
options:
  state:
    type: str
    choices: [kept, put_back, told]
    required: true
    description: What will be true afterwards; C(told) keeps the account of the run alone.
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
  limits:
    type: dict
    default: {}
    description: Files of others, and for directives in them the number that is asked for now.
  run: {type: dict, description: The account of this run.}
  run_name: {type: str, default: "", description: The name of its record.}
author: ptslink authors
"""


class Missing(Exception):
    """There is no record to put back; the message says which was looked for."""


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


def shown(
    changes: Iterable[str],
    there: Mapping[str, Any],
    wanted: Mapping[str, Any],
    sides: tuple[str, str] = ("replaced", "put back"),
) -> str:
    """The lines of what is replaced (-) and what takes its place (+), no context, no secrets."""
    lines: list[str] = []
    for path in changes:
        lines += difflib.unified_diff(
            redacted(text(there.get(path))).splitlines(),
            redacted(text(wanted[path])).splitlines(),
            f"{sides[0]} {path}",
            f"{sides[1]} {path}",
            n=0,
            lineterm="",
        )
    return "\n".join(lines)


def usable(record: Mapping[str, Any], release_link: Path) -> bool:
    """Whether the release a record was made with is still there."""
    link = record["paths"].get(str(release_link))
    return bool(link and "link" in link and (release_link.parent / link["link"]).is_dir())


@dataclass(frozen=True)
class Way:
    """The way back to a record: what is there now, and what has to change."""

    name: str
    record: dict[str, Any]
    there: dict[str, Any]
    changes: list[str]
    #: Path of a file of others -> its text with the numbers of the record.
    lowerings: dict[str, str]

    def difference(self) -> str:
        """For a person, without secrets."""
        parts = [shown(self.changes, self.there, self.record["paths"])]
        for path, text in self.lowerings.items():
            before, after = read(path).splitlines(), text.splitlines()
            parts.append(
                "\n".join(
                    difflib.unified_diff(
                        before, after, f"replaced {path}", f"put back {path}", n=0, lineterm=""
                    )
                )
            )
        return "\n".join(part for part in parts if part)


def choose(
    records: Records, which: str, release_link: Path, limits: Mapping[str, Any] | None = None
) -> Way:
    """The way back to the record that is to be put back."""
    names = records.names("good")
    known = [limits or {}, *(records.read(name).get("limits", {}) for name in names)]
    for name in reversed(names):
        record = records.read(name)
        if not usable(record, release_link):
            continue
        there = {path: look(Path(path)) for path in record["paths"]}
        way = Way(
            name,
            record,
            there,
            differences(there, record["paths"]),
            lowerings(known, record.get("limits", {})),
        )
        if which == "last" or way.changes or way.lowerings:
            return way
    raise Missing(
        "no good run before this one is on record"
        if which == "last"
        else "every good run on record is like what is there now"
    )


def system() -> dict[str, str]:
    """What only the host knows of versions."""
    said = {"host_python": platform.python_version(), "kernel": platform.release()}
    with contextlib.suppress(OSError):
        said["os"] = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    # An empty part or a dot would mean the working directory.
    path = [part for part in os.environ.get("PATH", "").split(":") if part.startswith("/")]
    path.append("/usr/sbin")
    with contextlib.suppress(OSError):
        done = subprocess.run(
            ["nginx", "-v"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, "PATH": ":".join(path)},
        )
        said["nginx"] = done.stdout.strip().rpartition("/")[2]
    return said


def tell(records: Records, parameters: Mapping[str, Any], since: str) -> dict[str, Any]:
    """Keep the account of this run; it, and why it could not be kept if so.

    Args:
        since: how the files differ from those of the good run before this one.
    """
    run = dict(parameters["run"])
    link = Path(parameters["release_link"])
    run["versions"] = {
        "ptslink": link.readlink().name if link.is_symlink() else "",
        **run["versions"],
        **system(),
    }
    if since:
        run["since_last_good"] = since
    if run["outcome"] == "taken_back":
        # The host is as it was before its first run: it has no records either.
        return {"run": run}
    try:
        records.write("run", run, parameters["keep"], parameters["run_name"])
    except OSError as why:
        return {"run": run, "unkept": str(why)}
    return {"run": run}


def keep_good(records: Records, parameters: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Keep what this run left, unless the newest record is the same; the result of the module."""
    fresh = {
        "paths": {path: look(Path(path)) for path in parameters["paths"]},
        "limits": limits_found(parameters["limits"]),
        "notes": parameters["notes"],
    }
    newest = records.names("good")[-1:]
    last = records.read(newest[0]) if newest else {"paths": {}}
    result: dict[str, Any] = {"changed": last != fresh, "record": (newest or [None])[0]}
    if check_mode:
        return result
    if result["changed"]:
        result["record"] = records.write("good", fresh, parameters["keep"])
        # From now on there is something to go back to.
        (records.directory / "before.json").unlink(missing_ok=True)
    if parameters["run"]:
        before = {path: last["paths"].get(path) for path in fresh["paths"]}
        changes = differences(before, fresh["paths"])
        result |= tell(
            records, parameters, shown(changes, before, fresh["paths"], ("good run before", "now"))
        )
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["kept", "put_back", "told"], "required": True},
            "directory": {"type": "path", "required": True},
            "paths": {"type": "list", "elements": "path", "default": []},
            "notes": {"type": "dict", "default": {}},
            "keep": {"type": "int", "default": 10},
            "which": {"type": "str", "choices": ["last", "previous"], "default": "last"},
            "release_link": {"type": "path", "required": True},
            "limits": {"type": "dict", "default": {}},
            "run": {"type": "dict"},
            "run_name": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    records = Records(Path(parameters["directory"]))
    if parameters["state"] == "kept":
        module.exit_json(**keep_good(records, parameters, module.check_mode))
    if parameters["state"] == "told":
        module.exit_json(
            changed=False, **({} if module.check_mode else tell(records, parameters, ""))
        )

    found = limits_found(parameters["limits"])
    try:
        way = choose(records, parameters["which"], Path(parameters["release_link"]), found)
    except Missing as missing:
        module.exit_json(changed=False, found=False, reason=str(missing))
    difference = way.difference()
    if (way.changes or way.lowerings) and not module.check_mode:
        records.write(
            "replaced", {"paths": way.there, "limits": found, "notes": {}}, parameters["keep"]
        )
        for path in way.changes:
            lay(Path(path), way.record["paths"][path])
        for path, content in way.lowerings.items():
            rewrite(path, content)
    module.exit_json(
        changed=bool(way.changes or way.lowerings),
        found=True,
        record=way.name,
        notes=way.record["notes"],
        changes=[*way.changes, *way.lowerings],
        difference=difference,
    )


if __name__ == "__main__":
    main()
