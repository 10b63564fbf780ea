#!/usr/bin/python
"""The machine as it was before its first run: kept, and made so again where that run fails."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils import host_firewall_guard as guard
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.pts_server_units import blocks
from ansible.module_utils.run_record_files import Records
from ansible.module_utils.run_record_paths import lay, limits_found, look, lowerings, rewrite

DOCUMENTATION = r"""
module: run_record_first
short_description: Keeps what a machine was before its first run, and makes it so again
description:
  - >-
    A run on a machine that has no good run on record is a first run. Where it fails there is no
    good state to go back to, so the machine is made what it was - files, links, units, the user and
    the firewall. Packages stay, and so does what they brought, but no unit of them runs that did
    not run before.
  - >-
    Nothing that was there before is removed. A journal that controllers' messages have come into
    meanwhile stays, with its user - they were confirmed.
  - >-
    What is kept is one file, C(before.json). A run that was killed leaves it, and the next one
    goes on with it.
  - >-
    In check mode changes nothing. Returns C(first), whether no good run is on record; C(installed),
    whether there is a release; C(units) and C(ports), what runs and who listens. Of C(taken_back)
    also C(done) and C(left), sentences for a person.
options:
  state:
    type: str
    choices: [looked_at, kept, taken_back]
    default: looked_at
    description: What will be true afterwards.
  directory: {type: path, default: /var/lib/ptslink-provision, description: Where records are.}
  release_link: {type: path, required: true, description: The link to the current release.}
  paths: {type: list, elements: path, default: [], description: Files and links that runs write.}
  trees:
    type: list
    elements: path
    default: []
    description: Directories and files that are a run's own where they were not there before.
  units: {type: list, elements: str, default: [], description: Units that runs start or enable.}
  limits: {type: dict, default: {}, description: As of run_record_state.}
  user: {type: str, default: "", description: The user that runs make.}
  journal: {type: path, description: The service's journal.}
  seen:
    type: dict
    default: {}
    description: What this module returned before packages were installed.
author: ptslink authors
"""

FILE = "before.json"
PROC_NET = Path("/proc/net")
LISTEN = "0A"
#: How long a port that was listened on before may take to be so again, in seconds.
PATIENCE = 15
#: Tables of the journal that have what was confirmed to a controller.
CONFIRMED = ("messages", "records", "variants", "status_latest")
JOURNALD = "/etc/systemd/journald.conf.d/"


def systemctl(*words: str) -> str:
    """What systemctl says; of one that fails too, for the unit may not be there."""
    return guard.said("systemctl", *words, within=600)[1]


def units_now(units: Iterable[str]) -> dict[str, dict[str, str]]:
    """What systemd has of each unit."""
    asked = list(units)
    if not asked:
        return {}
    return blocks(systemctl("show", "--property=Id,LoadState,ActiveState,UnitFileState", *asked))


def ports_in(table: str) -> set[int]:
    """Text of /proc/net/tcp or tcp6 -> ports that are listened on."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTEN}


def ports_now() -> list[int]:
    """TCP ports that are listened on."""
    found: set[int] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            found |= ports_in((PROC_NET / table).read_text())
    return sorted(found)


def entries(tree: Path) -> list[str] | None:
    """What is in a directory, two levels deep; None where there is none, nothing of a file."""
    if not os.path.lexists(tree):
        return None
    if not tree.is_dir():
        return []
    found = []
    for path in tree.iterdir():
        found.append(path.name)
        if path.is_dir() and not path.is_symlink():
            found += [f"{path.name}/{inner.name}" for inner in path.iterdir()]
    return sorted(found)


def missing_parents(paths: Iterable[str]) -> list[str]:
    """Directories on the way to paths that are not there, the deepest first."""
    missing = {
        str(parent) for path in paths for parent in Path(path).parents if not parent.exists()
    }
    return sorted(missing, key=len, reverse=True)


def is_known(name: str, find: Any) -> bool:
    """Whether there is a user (``pwd.getpwnam``) or group (``grp.getgrnam``) of that name."""
    try:
        find(name)
    except KeyError:
        return False
    return True


def state_now(asked: Mapping[str, Any]) -> dict[str, Any]:
    """All that is kept of a machine, but for its units and listeners."""
    return {
        "paths": {path: look(Path(path)) for path in asked["paths"]},
        "limits": limits_found(asked["limits"]),
        "trees": {tree: entries(Path(tree)) for tree in asked["trees"]},
        "parents": missing_parents([*asked["paths"], *asked["trees"]]),
        "user": is_known(asked["user"], pwd.getpwnam),
    }


def has_confirmed(journal: Path) -> bool:
    """Whether messages that may have been confirmed are in a journal; so if it cannot be read."""
    if not journal.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as database:
            there = {
                name for (name,) in database.execute("SELECT name FROM sqlite_master").fetchall()
            }
            return any(
                database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
                for table in CONFIRMED
                if table in there
            )
    except sqlite3.Error:
        return True


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clear(tree: Path, before: list[str] | None) -> list[Path]:
    """Remove what has come into a directory since; what was removed."""
    now = entries(tree)
    if now is None:
        return []
    gone = [tree] if before is None else [tree / name for name in now if name not in before]
    for path in gone:
        if os.path.lexists(path):  # what was in one that is gone already is gone too
            remove(path)
    return gone


def units_back(
    before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, str]]:
    """(verb of systemctl, unit) that take back what was started and enabled since."""
    for unit, is_now in now.items():
        was = before.get(unit)
        if was is None or is_now["LoadState"] == "not-found":
            continue
        if is_now["ActiveState"] != "inactive" and was["ActiveState"] in ("inactive", "failed"):
            yield "stop", unit
            yield "reset-failed", unit
        if is_now["UnitFileState"] == "enabled" and was["UnitFileState"] != "enabled":
            yield "disable", unit


def running_again(
    before: Mapping[str, Mapping[str, str]],
    now: Mapping[str, Mapping[str, str]],
    changed: Iterable[str],
) -> Iterator[tuple[str, str]]:
    """(verb, unit) that bring what ran before to its files of before."""
    paths = list(changed)
    nginx = any("/nginx/" in path or path.endswith("/tls/live") for path in paths)
    for unit, was in before.items():
        if was["ActiveState"] != "active":
            continue
        if now.get(unit, {}).get("ActiveState") != "active":
            yield "start", unit
        elif unit == "nginx.service" and nginx:
            yield "reload", unit
        elif unit.startswith("ptslink.") and any("ptslink" in path for path in paths):
            yield "restart", unit


def take_back(
    before: Mapping[str, Any], asked: Mapping[str, Any]
) -> tuple[list[str], list[str], list[str]]:
    """Make the machine what it was; sentences of what was done, what stays, what failed."""
    done: list[str] = []
    left: list[str] = []
    faults: list[str] = []
    seen = before["units"]
    if (guard.KEPT / "restore").exists() and before.get("trees", {}).get(str(guard.KEPT)) is None:
        guard.put_back()
        done.append("the firewall has its former rules")
    stopped = [*units_back(seen, units_now(seen))]
    for verb, unit in stopped:
        systemctl(verb, unit)
    for verb, word in (("stop", "stopped"), ("disable", "not started by a reboot")):
        units = [unit for said, unit in stopped if said == verb]
        done += [f"{word}: {', '.join(units)}"] if units else []

    changed = [path for path, was in before.get("paths", {}).items() if look(Path(path)) != was]
    for path in changed:
        lay(Path(path), before["paths"][path])
    asked_now = limits_found(asked["limits"])
    limits = before.get("limits", {})
    for path, text in lowerings([asked_now, limits], limits).items():
        rewrite(path, text)
        changed.append(path)
    keeps = asked["journal"] and has_confirmed(Path(asked["journal"]))
    for tree, was in before.get("trees", {}).items():
        if keeps and Path(asked["journal"]).is_relative_to(tree):
            if was is None:
                left.append(
                    f"{tree} stays, with its user: controllers' messages that came meanwhile were "
                    "confirmed and are in it"
                )
            continue
        changed += map(str, clear(Path(tree), was))
    for parent in before.get("parents", []):
        with contextlib.suppress(OSError):  # somebody else has something in it
            Path(parent).rmdir()
    if changed:
        done.append(f"as before: {', '.join(sorted(changed))}")
    if before.get("user") is False and not keeps and is_known(asked["user"], pwd.getpwnam):
        ended = guard.said("userdel", asked["user"])
        if is_known(asked["user"], grp.getgrnam):
            guard.said("groupdel", asked["user"])
        if ended[0]:
            faults.append(f"`userdel {asked['user']}` said: {ended[1]}")
        else:
            done.append(f"no user {asked['user']}")

    systemctl("daemon-reload")
    if any(path.startswith(JOURNALD) for path in changed):
        systemctl("restart", "systemd-journald.service")
    for verb, unit in running_again(seen, units_now(seen), changed):
        status, words = guard.said("systemctl", verb, unit)
        if status:
            faults.append(f"`systemctl {verb} {unit}` said: {words}")
    faults += quiet_ports(before["ports"])
    return done, left, faults


def quiet_ports(before: Iterable[int]) -> list[str]:
    """A sentence where ports that were listened on before are not, after a while."""
    until = time.monotonic() + PATIENCE
    while missing := sorted(set(before) - set(ports_now())):
        if time.monotonic() > until:
            return [f"nobody listens on port {', '.join(map(str, missing))} any more"]
        time.sleep(0.2)
    return []


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["looked_at", "kept", "taken_back"],
                "default": "looked_at",
            },
            "directory": {"type": "path", "default": "/var/lib/ptslink-provision"},
            "release_link": {"type": "path", "required": True},
            "paths": {"type": "list", "elements": "path", "default": []},
            "trees": {"type": "list", "elements": "path", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "limits": {"type": "dict", "default": {}},
            "user": {"type": "str", "default": ""},
            "journal": {"type": "path"},
            "seen": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    asked = module.params
    directory = Path(asked["directory"])
    records = Records(directory)
    result: dict[str, Any] = {
        "changed": False,
        "first": not records.names("good"),
        "installed": Path(asked["release_link"]).exists(),
    }
    if asked["state"] == "looked_at" or module.check_mode:
        if result["first"]:
            result |= {"units": units_now(asked["units"]), "ports": ports_now()}
            result["records"] = directory.exists()
        module.exit_json(**result)
    seen = {key: asked["seen"][key] for key in ("units", "ports", "records")}
    if asked["state"] == "kept":
        if not (directory / FILE).exists():
            records.write("before", {**state_now(asked), **seen}, 1, FILE)
        module.exit_json(**result)

    before = records.read(FILE) if (directory / FILE).exists() else seen
    try:
        done, left, faults = take_back(before, asked)
    except (OSError, KeyError) as why:
        done, left, faults = [], [], [str(why)]
    if faults:
        module.fail_json(
            msg=f"Not all is as it was before this run: {'; '.join(faults)}", done=done, left=left
        )
    if before["records"]:
        (directory / FILE).unlink(missing_ok=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)
    module.exit_json(**{**result, "changed": bool(done), "done": done, "left": left})


if __name__ == "__main__":
    main()
