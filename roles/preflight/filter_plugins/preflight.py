"""What preflight concludes from names and listeners, as sentences a person can act on."""

from __future__ import annotations

import difflib
import functools
import re
import time
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

#: How alike a name without a known prefix must be to a known one to be called a slip of the pen.
SLIP = 0.93
#: The oldest Python the server runs on, as pyproject.toml has it (a test compares them).
PYTHON_LEAST = (3, 11)

#: File systems that forget, those of other machines, and containers that are made from images.
FORGETTING = ("tmpfs", "ramfs")
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p")
IMAGES = ("docker", "podman", "oci")


# A run asks for every host, and twice: the specifications are read once a process, by libyaml
# where it is there (0.3 s a host without).
@functools.cache
def known_variables(roles_directory: str) -> dict[str, list[str]]:
    """Role name -> the variables its argument_specs declare, over all entry points."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    known: dict[str, list[str]] = {}
    for specs in sorted(Path(roles_directory).glob("*/meta/argument_specs.yml")):
        text = specs.read_text(encoding="utf-8")
        entry_points = yaml.load(text, Loader=loader)["argument_specs"]
        known[specs.parents[1].name] = sorted(
            {name for entry in entry_points.values() for name in entry.get("options") or {}}
        )
    return known


def project_version(pyproject: str) -> str:
    """The version of the checkout whose pyproject.toml this is."""
    described = tomllib.loads(Path(pyproject).read_text(encoding="utf-8"))
    return str(described["project"]["version"])


def numbers(version: str) -> tuple[int, ...]:
    """A version as something to compare: its leading numbers."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def unknown_variables(
    names: Iterable[str],
    known: Mapping[str, Iterable[str]],
    other_names: Mapping[str, Mapping[str, Any]],
    version: str,
) -> list[str]:
    """One sentence for each of ``names`` that looks like a role's variable and is none.

    Args:
        other_names: what people may call a variable -> ``to``, its name here. One that was ours has
            ``until``: from that version on it is a name like any other that nobody knows.
        version: of these playbooks.
    """
    every = sorted(name for role in known.values() for name in role)
    complaints = []
    for name in sorted(set(names) - set(every)):
        other = other_names.get(name, {})
        until = other.get("until")
        if other and (until is None or numbers(version) < numbers(until)):
            complaints.append(
                f"{name} is {'called' if until is None else 'now called'} {other['to']}: "
                "rename it where you set it"
            )
            continue
        role = next((role for role in known if name.startswith(f"{role}_")), None)
        # A name cut short says more about what was meant than one that looks alike.
        near = [one for one in every if role and one.startswith(f"{name}_")]
        near += difflib.get_close_matches(name, every, n=1, cutoff=0.6 if role else SLIP)
        if role and near:
            complaints.append(f"{name} is not a variable of {role}: did you mean {near[0]}?")
        elif role:
            complaints.append(
                f"{name} is not a variable of {role}: remove it, or see roles/{role}/README.md"
            )
        elif near:
            complaints.append(f"{name} is a letter or two away from {near[0]}: did you mean that?")
    return complaints


def strangers(
    listeners: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]]
) -> list[str]:
    """One sentence for each wanted port that a unit other than the expected ones listens on.

    ``listeners`` is what preflight_probe returns, ``wanted`` is ``preflight_ports``.
    """
    complaints = []
    for listener in listeners:
        port, processes = listener["port"], listener["processes"]
        for claim in wanted:
            if port not in claim["ports"]:
                continue
            if any(process["unit"] in claim["units"] for process in processes):
                continue
            names = [
                f"{process['command']} (pid {process['pid']}, {process['unit'] or 'no unit'})"
                for process in processes
            ]
            complaints.append(
                f"port {port} ({claim['variable']}) is taken by "
                + (", ".join(names) or "a process that cannot be named")
            )
    return list(dict.fromkeys(complaints))


def shared(wanted: Iterable[Mapping[str, Any]]) -> list[str]:
    """One sentence for each port that two variables want."""
    claims = [(int(port), claim["variable"]) for claim in wanted for port in claim["ports"]]
    complaints = []
    for number, (port, variable) in enumerate(claims):
        for other, another in claims[:number]:
            if port == other and variable != another:
                complaints.append(f"port {port} is wanted by {another} and by {variable}")
    return complaints


def python_complaint(path: str, seen: str) -> str:
    """What is wrong with the Python the server is to run with, or nothing.

    Args:
        path: where it is; empty where none is asked for.
        seen: its version as in "3.11", empty where there is none. One that has its version in its
            name is brought by a package of that name.
    """
    least = ".".join(map(str, PYTHON_LEAST))
    if not path or (not seen and re.search(r"python3\.\d+$", path)):
        return ""
    if not seen:
        return f"There is no {path} that runs"
    if numbers(seen) < PYTHON_LEAST:
        return f"{path} is Python {seen}, and {least} or newer is needed"
    return ""


def root_complaint(said: str, host: str, user: str) -> str:
    """Why nothing can be done as root, and the fix.

    Args:
        said: by sudo, or by Ansible in its place.
        user: who is logged in.
    """
    if "must have a tty" in said:
        return (
            f"sudo on {host} wants a terminal (requiretty), which {user} has only where Ansible "
            "sends no module by way of it. Fix: run again with ANSIBLE_PIPELINING=false before "
            f"ansible-playbook, or let sudoers on {host} say Defaults:{user} !requiretty "
            "(visudo -f /etc/sudoers.d/ptslink)."
        )
    return (
        f"Cannot work as root on {host} (logged in as {user}): {said.strip()}. Fix: log in as root "
        "(-u root), or as a user who may use sudo and give its password with --ask-become-pass."
    )


#: What a machine that has nothing of the server yet needs of a run.
FIRST = ("pts_server", "nginx_proxy")
#: Tags of what changes a host.
CHANGING = {*FIRST, "ptslink_bundle", "tls_certificate", "host_firewall", "provision"}


def limited_complaint(run: Iterable[str], skip: Iterable[str]) -> str:
    """Why a first run cannot be limited to these tags, or nothing where it is not.

    Args:
        run: tags that were asked for, ``all`` where none were.
        skip: tags to be left out.
    """
    wanted, left_out = set(run), set(skip)

    def runs(tags: set[str]) -> bool:
        return bool(wanted & {*tags, "all", "tagged"}) and not left_out & {*tags, "tagged", "all"}

    if not any(runs({tag, "provision"}) for tag in CHANGING):
        return ""
    missing = [role for role in FIRST if not runs({role, "provision"})]
    return f"the run leaves out {' and '.join(missing)}" if missing else ""


def closed_complaint(closed: Iterable[Mapping[str, str]], user: str) -> str:
    """What keeps the service's user from what it needs, or nothing.

    Args:
        closed: as preflight_probe has it.
    """
    ways = list(closed)
    if not ways:
        return ""
    seen = ", ".join(f"{one['path']} ({one['mode']} {one['owner']})" for one in ways)
    opened = " ".join(one["path"] for one in ways)
    return (
        f"The service's user {user} cannot enter {seen}. Fix: chmod o+x {opened} (its content "
        "stays closed to others), or choose another pts_server_prefix"
    )


def journal_complaint(journal_on: Mapping[str, str]) -> str:
    """What is wrong with the file system of the journal, or nothing.

    Args:
        journal_on: as preflight_probe has it. An overlay is refused where what it writes to is
            known to be forgotten: memory, or a container that is made anew from its image.
    """
    kind, container = journal_on.get("type", ""), journal_on.get("container", "")
    why = ""
    if kind in REMOTE:
        why = "a disk of another machine, where no sync can be relied on"
    elif kind in FORGETTING or (kind == "overlay" and journal_on.get("upper") in FORGETTING):
        why = "which is memory: a reboot would forget every record"
    elif kind == "overlay" and container in IMAGES:
        why = f"the container's own layer: {container} forgets it with the container"
    if not why:
        return ""
    return (
        f"The journal would be on {kind} ({journal_on['point']}), {why}. Fix: mount a disk of this "
        "machine (in a container: a volume) at /var/lib/ptslink, or name a directory on one: "
        "pts_server_settings: {journal: {path: ...}}"
    )


def machine_complaint(machine: str, kernel: str) -> str:
    """What is wrong with programs that are not for the machine the kernel is for, or nothing.

    Args:
        machine: what the system's Python was built for, as in "arm-linux-gnueabihf"; empty where
            it does not say.
        kernel: the kernel's machine, as in "aarch64".
    """
    if not machine or machine.partition("-")[0] == kernel:
        return ""
    return f"has the programs of another architecture ({machine}) under its {kernel} kernel"


def clock_complaint(epoch: float, limit: int) -> str:
    """What is wrong with a clock that said ``epoch`` (seconds since 1970 UTC) a moment ago.

    Nothing where it is within ``limit`` seconds of this computer's.
    """
    skew = round(epoch - time.time())
    if abs(skew) <= limit:
        return ""
    return f"{abs(skew)} seconds {'ahead of' if skew > 0 else 'behind'} this machine's"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {
            "preflight_clock_complaint": clock_complaint,
            "preflight_closed_complaint": closed_complaint,
            "preflight_journal_complaint": journal_complaint,
            "preflight_machine_complaint": machine_complaint,
            "preflight_known_variables": known_variables,
            "preflight_limited_complaint": limited_complaint,
            "preflight_project_version": project_version,
            "preflight_python_complaint": python_complaint,
            "preflight_root_complaint": root_complaint,
            "preflight_shared": shared,
            "preflight_strangers": strangers,
            "preflight_unknown_variables": unknown_variables,
        }
