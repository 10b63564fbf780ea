"""On the host: who holds the locks of apt and dpkg, and whether its packages are in order."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path

#: What apt locks to install (apt-get(8), dpkg(1)), and what it locks to fetch package lists.
LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
#: Where dpkg notes, in files named by numbers, what it has done and not yet recorded.
UPDATES = "/var/lib/dpkg/updates"
#: struct flock of fcntl(2) on the machines that are provisioned, which have 64 bits.
_FLOCK = "hhqqi4x"
_INTERPRETER = re.compile(r"(python|perl|sh|bash|dash)[\d.]*$")
_UNIT = re.compile(r"([^/\n]+\.(?:service|scope))(?:/|$)", re.MULTILINE)
_REMOVED = re.compile(r"^Remv (\S+)", re.MULTILINE)
#: How often a lock is looked at while it is waited for, in seconds.
_LOOK = 0.5


class Held(Exception):
    """Somebody else is at work; the message says who, and at what."""


def lock_holder(path: str) -> int | None:
    """Process that holds a lock on a file (F_GETLK of fcntl(2)), None where none does.

    Returns:
        Its number; 0 or less where the kernel does not say.
    """
    try:
        with Path(path).open("rb") as file:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
    except FileNotFoundError:
        return None
    return None if kind == fcntl.F_UNLCK else int(pid)


def program(arguments: str, name: str) -> str:
    """What a person calls a process.

    Args:
        arguments: text of /proc/PID/cmdline.
        name: text of /proc/PID/comm, for a process without arguments.
    """
    words = [word for word in arguments.split("\0") if word]
    if len(words) > 1 and _INTERPRETER.search(words[0]):
        words = [word for word in words[1:] if not word.startswith("-")] or words
    return Path(words[0]).name if words else name.strip()


def process(pid: int, proc: Path = Path("/proc")) -> str:
    """A process as words: its program, number and systemd unit."""

    def text(name: str) -> str:
        try:
            return (proc / str(pid) / name).read_text(encoding="utf-8", errors="replace")
        except OSError:  # it ended meanwhile
            return ""

    called = program(text("cmdline"), text("comm")) if pid > 0 else ""
    if not called:
        return "a process that cannot be named"
    units = _UNIT.findall(text("cgroup"))
    return f"{called} (pid {pid}{f', {units[-1]}' if units else ''})"


def holders(locks: Iterable[str] = LOCKS) -> str:
    """Who holds which of these files, as words; nothing where they are free."""
    held: dict[int, list[str]] = {}
    for path in locks:
        pid = lock_holder(path)
        if pid is not None:
            held.setdefault(pid, []).append(path)
    return "; ".join(f"{process(pid)} holds {' and '.join(paths)}" for pid, paths in held.items())


def wait(seconds: float, locks: Iterable[str] = LOCKS) -> None:
    """Wait until the locks are free.

    Raises:
        Held: they are not within that time.
    """
    end = time.monotonic() + seconds
    paths = list(locks)
    while said := holders(paths):
        if time.monotonic() >= end:
            raise Held(said)
        time.sleep(_LOOK)


def interrupted(updates: str = UPDATES) -> bool:
    """Whether dpkg ended before it had recorded what it did; apt installs nothing then."""
    try:
        return any(path.name.isdigit() for path in Path(updates).iterdir())
    except FileNotFoundError:
        return False


def unfinished(listed: str) -> list[str]:
    """Packages that dpkg began with and did not end.

    Args:
        listed: a line a package, as ``half-configured ok NAME``: its Status-Status, Status-Eflag
            and name (dpkg-query(1)).
    """
    begun = {"half-installed", "unpacked", "half-configured"}
    lines = [line.split() for line in listed.splitlines()]
    return [f"{line[2]} ({line[0]})" for line in lines if len(line) == 3 and line[0] in begun]


def broken(complaint: str) -> str:
    """What ``apt-get check`` complains of, with the fix; nothing where it does not."""
    return complaint and (
        f"The packages of this host are not in order: {complaint}. Fix: apt-get --fix-broken "
        "install (apt-get check says whether they are)"
    )


def disorder(listed: str, check: Callable[[], str], updates: str = UPDATES) -> str:
    """Why apt would install nothing on this host whatever it was asked for, and the fix.

    Args:
        listed: see unfinished.
        check: says what ``apt-get check`` complains of. Asked where something is unfinished.
    """
    if interrupted(updates):
        return f"dpkg was interrupted on this host ({updates}). Fix: dpkg --configure -a"
    begun = unfinished(listed)
    if not begun:
        return ""
    return broken(check()) or (
        f"dpkg was interrupted on this host: {', '.join(begun[:5])}. Fix: dpkg --configure -a (and "
        "apt-get install --reinstall NAME for one that is half-installed)"
    )


def removal(plan: str, wanted: Iterable[str]) -> str:
    """Which packages would go for others to come, and the fix; nothing where none would.

    Args:
        plan: what ``apt-get --simulate install`` says.
    """
    gone = list(dict.fromkeys(_REMOVED.findall(plan)))
    if not gone:
        return ""
    rules = {"iptables-persistent", "netfilter-persistent"} & set(gone)
    return (
        f"To install {', '.join(wanted)}, apt would remove {', '.join(gone)} from this host; "
        "nothing is removed unasked. Fix: "
        + (
            "the firewall rules of /etc/iptables/rules.v4 and rules.v6 would not come back after a "
            "boot any more. Keep them and set host_firewall_backend: firewalld; or bring them into "
            "/etc/ufw/before.rules, and then "
            if rules
            else ""
        )
        + f"apt-get remove {' '.join(gone)}, if nobody needs them, and run again"
    )
