#!/usr/bin/python
"""One look at a host: who listens where, room on its disks, its clock. Changes nothing."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import subprocess
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ptslink.journal.mount import mount_of

DOCUMENTATION = r"""
module: preflight_probe
short_description: Looks at what could keep a provisioning run from ending well
description:
  - Reads C(/proc) and asks the file systems once; changes nothing.
  - Who holds a port is complete only for root.
  - >-
    Returns C(listeners) (each listening socket on one of the ports with the processes and
    systemd units that hold it), C(free_mb) (directory to free MiB), C(epoch) (the host's
    clock, seconds since 1970 UTC), C(ipv6) (whether the kernel speaks it), C(pythons)
    (path to version as in 3.11; empty where none runs), C(machines) (path to what that
    interpreter was built for, as in arm-linux-gnueabihf: dpkg's architecture, whatever the
    kernel's is; empty where it does not say) and C(installed) (whether C(release) is there).
options:
  ports: {type: list, elements: int, default: [], description: TCP ports to look for listeners on.}
  directories:
    type: list
    elements: path
    default: []
    description: Directories, or their nearest existing parents, to measure free space of.
  pythons:
    type: list
    elements: path
    default: []
    description: Interpreters to ask for their version.
  release: {type: path, default: /nowhere, description: What is there once the server is installed.}
  user:
    type: str
    default: ""
    description: The service's user; who may be nobody in particular before the first run.
  ways:
    type: list
    elements: path
    default: []
    description: Places that the user has to get to; what is there of them already is tried.
  places:
    type: list
    elements: path
    default: []
    description: Directories that systemd makes for the service, which may not be symbolic links.
  journal: {type: path, description: The service's journal.}
author: ptslink authors
"""

PROC = Path("/proc")
LISTEN = "0A"
#: The kernel's user without rights.
NOBODY = 65534


def listening_inodes(table: str, ports: Collection[int]) -> dict[str, int]:
    """Text of /proc/net/tcp or tcp6 -> {socket inode: port} of listening sockets on ``ports``."""
    found = {}
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) < 10 or columns[3] != LISTEN:
            continue
        port = int(columns[1].rpartition(":")[2], 16)
        if port in ports:
            found[columns[9]] = port
    return found


def unit_of(cgroup: str) -> str:
    """The systemd unit named by the text of /proc/PID/cgroup, or an empty string."""
    for line in cgroup.splitlines():
        for part in reversed(line.rpartition(":")[2].split("/")):
            if part.endswith((".service", ".socket", ".scope")):
                return part
    return ""


def read(path: Path) -> str:
    """A small file's text, or nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def holders(inodes: Iterable[str]) -> dict[str, list[tuple[int, str, str]]]:
    """{socket inode: [(pid, command, unit), ...]} of the processes that hold one of ``inodes``."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, set[tuple[int, str, str]]] = {}
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        try:
            descriptors = list((process / "fd").iterdir())
        except OSError:  # it ended meanwhile, or is another user's
            continue
        for descriptor in descriptors:
            try:
                inode = wanted.get(str(descriptor.readlink()))
            except OSError:
                continue
            if inode:
                found.setdefault(inode, set()).add(
                    (
                        int(process.name),
                        read(process / "comm").strip(),
                        unit_of(read(process / "cgroup")),
                    )
                )
    return {inode: sorted(processes) for inode, processes in found.items()}


def socket_units(shown: str) -> dict[int, str]:
    """Port -> socket units that listen on it, of the text of `systemctl show`."""
    found: dict[int, list[str]] = {}
    for block in shown.split("\n\n"):
        properties = [line.partition("=") for line in block.splitlines()]
        unit = "".join(value for name, _, value in properties if name == "Id")
        for name, _, value in properties:
            port = re.search(r":(\d+) \(Stream\)$", value) if name == "Listen" else None
            if port and unit not in found.setdefault(int(port[1]), []):
                found[int(port[1])].append(unit)
    return {port: " and ".join(sorted(units)) for port, units in found.items()}


def output(*command: str) -> str:
    """What a command that only asks something says; nothing where it fails or is not there."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def listeners(ports: Collection[int]) -> list[dict[str, Any]]:
    """One entry a listening socket on ``ports``: its port and who holds it."""
    inodes: dict[str, int] = {}
    for table in ("tcp", "tcp6"):
        inodes.update(listening_inodes(read(PROC / "net" / table), ports))
    held = holders(inodes) if inodes else {}
    # A socket unit's listener is held by process 1, alone until its service starts: the
    # control group of process 1 says nothing of whose it is.
    units: dict[int, str] = {}
    if any(pid == 1 for processes in held.values() for pid, _, _ in processes):
        ask = ["systemctl", "show", "*.socket", "--state=listening,running"]
        units = socket_units(output(*ask, "--property=Id", "--property=Listen"))
    return [
        {
            "port": port,
            "processes": [
                {
                    "pid": pid,
                    "command": command,
                    "unit": units.get(port, unit) if pid == 1 else unit,
                }
                for pid, command, unit in held.get(inode, [])
            ],
        }
        for inode, port in sorted(inodes.items(), key=lambda item: (item[1], item[0]))
    ]


def free_mb(directory: str) -> int:
    """MiB an unprivileged writer may still use where ``directory`` is, or would be."""
    existing = Path(directory)
    while not existing.is_dir():
        existing = existing.parent
    room = os.statvfs(existing)
    return room.f_bavail * room.f_frsize // (1024 * 1024)


def on_the_way(ways: Iterable[str]) -> list[str]:
    """The directories there are on the way to places, from the root on, each once."""
    there = {
        str(parent) for way in ways for parent in (Path(way), *Path(way).parents) if parent.is_dir()
    }
    return sorted(there)


def closed(ways: Iterable[str], user: str) -> list[dict[str, str]]:
    """Directories on the way to ``ways`` that a user cannot enter; nobody's, where there is none.

    Asked of the kernel as that user, so that groups and access lists count.
    """
    try:
        entry = pwd.getpwnam(user)
        who = {"user": entry.pw_uid, "group": entry.pw_gid}
    except KeyError:
        who = {"user": NOBODY, "group": NOBODY}
    directories = on_the_way(ways)
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", 'for d; do [ -x "$d" ] || echo "$d"; done', "sh", *directories],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            extra_groups=[],
            **who,
        )
    except OSError:  # not root: nothing can be said for another
        return []
    found: list[dict[str, str]] = []
    for path in done.stdout.splitlines():
        # What is below one that is closed is closed with it.
        if not any(Path(path).is_relative_to(one["path"]) for one in found):
            status = Path(path).stat()
            owner = f"{name_of(status.st_uid, pwd.getpwuid)}:{name_of(status.st_gid, grp.getgrgid)}"
            mode = stat.filemode(status.st_mode)
            found.append({"path": path, "mode": mode, "owner": owner})
    return found


def name_of(number: int, find: Callable[[int], Any]) -> str:
    """The name of a user or group, or its number where it has none."""
    try:
        return str(find(number)[0])
    except KeyError:
        return str(number)


def journal_on(journal: str | None) -> dict[str, str]:
    """The file system of the journal; of an overlay also ``upper``, the type of what it writes to.

    ``container`` is what systemd calls the container there is around, if any.
    """
    if not journal:
        return {}
    mounts = read(PROC / "self" / "mountinfo")
    directory = Path(journal).parent
    while not directory.is_dir():
        directory = directory.parent
    found = mount_of(directory.resolve(), mounts)
    upper = re.search(r"(?:^|,)upperdir=([^,]+)", found.pop("options"))
    if found["type"] == "overlay" and upper and Path(upper[1]).is_dir():
        found["upper"] = mount_of(Path(upper[1]).resolve(), mounts)["type"]
    return {**found, "container": read(Path("/run/systemd/container")).strip()}


def interpreter(path: str) -> tuple[str, str]:
    """Version of a Python and what it was built for; empty where it does not run or say."""
    ask = (
        "import sys; print('%d.%d' % sys.version_info[:2], "
        "getattr(sys.implementation, '_multiarch', ''))"
    )
    version, _, machine = output(path, "-c", ask).strip().partition(" ")
    return version, machine


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "directories": {"type": "list", "elements": "path", "default": []},
            "pythons": {"type": "list", "elements": "path", "default": []},
            "release": {"type": "path", "default": "/nowhere"},
            "user": {"type": "str", "default": ""},
            "ways": {"type": "list", "elements": "path", "default": []},
            "places": {"type": "list", "elements": "path", "default": []},
            "journal": {"type": "path"},
        },
        supports_check_mode=True,
    )
    interpreters = {path: interpreter(path) for path in module.params["pythons"]}
    module.exit_json(
        changed=False,
        listeners=listeners(set(module.params["ports"])),
        free_mb={directory: free_mb(directory) for directory in module.params["directories"]},
        epoch=time.time(),
        installed=Path(module.params["release"]).exists(),
        ipv6=(PROC / "net" / "if_inet6").exists(),
        closed=closed(module.params["ways"], module.params["user"]),
        links={
            path: str(Path(path).resolve())
            for path in module.params["places"]
            if Path(path).is_symlink()
        },
        journal_on=journal_on(module.params["journal"]),
        pythons={path: version for path, (version, _) in interpreters.items()},
        machines={path: machine for path, (_, machine) in interpreters.items()},
    )


if __name__ == "__main__":
    main()
