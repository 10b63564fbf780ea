#!/usr/bin/python
"""Whether the service can work in its sandbox on this host, found out before it has to."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: pts_server_sandbox
short_description: Tries the sandbox of a unit, as its user, on what the service needs
description:
  - >-
    Runs the release's Python once by C(systemd-run) with the unit's settings (user, namespaces,
    mounts, system calls, address families), and has it load the server, write and sync a file in
    the journal's directory, and open a socket of each family the server has.
  - >-
    Where that fails, it is tried again without one setting after the other, and the one at fault is
    named. Containers and hardened kernels forbid some of them, and a service that only finds out
    when it is started is a station without a server.
  - Changes nothing but that systemd makes the service's directories; in check mode nothing at all.
options:
  unit: {type: str, required: true, description: The text of the unit.}
  python: {type: path, required: true, description: The release's Python.}
  journal: {type: path, required: true, description: The journal.}
  ipv6: {type: bool, default: true, description: Whether the server listens on IPv6.}
author: ptslink authors
"""

#: What of a unit's [Service] does not say what it may do, or would disturb the one that runs.
NOT_TRIED = (
    "Type", "NotifyAccess", "Exec", "Restart", "Watchdog", "Timeout", "KillMode", "LogRateLimit",
    "RuntimeDirectory", "Environment", "OOMScoreAdjust", "TasksMax",
)  # fmt: skip
#: What is never left out to find the one at fault: who the service is, and where it may write.
KEPT = ("User", "Group", "StateDirectory", "LogsDirectory", "UMask")
#: Exit statuses of systemd (systemd.exec(5)) for what it could not set up, by name.
STEPS = {
    203: "EXEC", 216: "GROUP", 217: "USER", 218: "CAPABILITIES", 219: "CGROUP", 226: "NAMESPACE",
    227: "NO_NEW_PRIVILEGES", 228: "SECCOMP", 232: "ADDRESS_FAMILIES", 237: "KEYRING",
    238: "STATE_DIRECTORY", 240: "LOGS_DIRECTORY",
}  # fmt: skip
#: What the service does, a step a line that can fail. Says the step and why.
PROGRAM = """
import os, socket, sys, tempfile
step = "load the server"
try:
    import ptslink.server.command
    step = f"write to {sys.argv[1]}"
    descriptor, name = tempfile.mkstemp(prefix=".sandbox-", dir=sys.argv[1])
    os.write(descriptor, b"x")
    os.fsync(descriptor)
    os.close(descriptor)
    os.unlink(name)
    for family in sys.argv[2:]:
        step = f"open a socket of {family}"
        socket.socket(getattr(socket, family)).close()
except Exception as why:
    sys.exit(f"cannot {step}: {why}")
"""


def settings(unit: str) -> list[str]:
    """The settings of a unit's [Service] that are tried, as ``Name=value``, in their order."""
    found, section = [], ""
    for line in unit.splitlines():
        if line.startswith("["):
            section = line.strip()
        elif section == "[Service]" and "=" in line and not line.startswith(("#", ";", *NOT_TRIED)):
            found.append(line.strip())
    return found


def at_fault(tried: Sequence[str], works: Callable[[Sequence[str]], bool]) -> list[str]:
    """The settings without which it works; none where it works without none of them either.

    Args:
        works: tries settings.
    """
    names = dict.fromkeys(one.partition("=")[0] for one in tried)
    loose = [name for name in names if name not in KEPT]

    def without(*left_out: str) -> list[str]:
        return [one for one in tried if one.partition("=")[0] not in left_out]

    if not works(without(*loose)):
        return []
    for name in loose:
        if works(without(name)):
            return [one for one in tried if one.partition("=")[0] == name]
    # Several forbid it: those that do when each is alone with what it works with.
    return [
        one
        for one in tried
        if one.partition("=")[0] in loose and not works([*without(*loose), one])
    ]


def reason(status: int, said: str) -> str:
    """Why a try failed, in words."""
    words = said.strip().splitlines()
    if words and words[-1].startswith("cannot "):
        return words[-1]
    if status in STEPS:
        return f"systemd cannot set it up ({status}/{STEPS[status]})"
    return words[-1] if words else f"it ended with status {status}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "python": {"type": "path", "required": True},
            "journal": {"type": "path", "required": True},
            "ipv6": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False)
    directory = str(Path(module.params["journal"]).parent)
    families = ["AF_INET", "AF_UNIX", *(["AF_INET6"] if module.params["ipv6"] else [])]

    def attempt(properties: Sequence[str]) -> tuple[int, str]:
        done = subprocess.run(
            [
                *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"),
                *(f"--property={one}" for one in properties),
                *(module.params["python"], "-I", "-c", PROGRAM),
                *(directory, *families),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        return done.returncode, done.stdout

    tried = settings(module.params["unit"])
    status, said = attempt(tried)
    if not status:
        module.exit_json(changed=False)
    faulty = at_fault(tried, lambda properties: attempt(properties)[0] == 0)
    why = reason(status, said)
    if faulty:
        module.fail_json(
            msg=f"The service could not work in its sandbox here: {why}. At fault: "
            f"{', '.join(faulty)}. Fix: let the host (a container: its runtime) allow that, keep "
            "what the service needs where it is let (pts_server_prefix, journal.path), or set "
            "pts_server_sandbox to reduced, which does without namespaces and mounts of its own "
            "(roles/pts_server/README.md states what that exposes)"
        )
    status, said = attempt([one for one in tried if one.startswith(KEPT)])
    why = reason(status, said) if status else why
    user = next((one.partition("=")[2] for one in tried if one.startswith("User=")), "root")
    module.fail_json(
        msg=f"The service could not work here, with or without its sandbox: {why}. Fix: give the "
        f"user {user} what it needs (ls -ld {directory} and the directories above it)"
    )


if __name__ == "__main__":
    main()
