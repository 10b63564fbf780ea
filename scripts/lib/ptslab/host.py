"""This computer: running commands, locks, processes, mounts, cgroups. The thin edge."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from ptslab.errors import LabError, UsageError
from ptslab.layout import HostNetwork

#: Command -> Debian package that brings it.
TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "sysctl": "procps",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
}

#: What children see: nothing of the caller's virtual environment, language or proxies by surprise.
_KEPT = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment() -> dict[str, str]:
    """The environment of every command run here."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": "/root", **kept}


def say(text: str, *, started: float) -> None:
    """Print a line of progress on stderr, with the seconds since `started`."""
    print(f"[{time.monotonic() - started:6.1f} s] {text}", file=sys.stderr, flush=True)


def require_root(what: str) -> None:
    if os.geteuid() != 0:
        raise UsageError(f"{what} needs root: run it again with sudo")


def missing_packages() -> list[str]:
    """Debian packages to install before a lab can be made, sorted."""
    return sorted(
        {package for tool, package in TOOLS.items() if shutil.which(tool, path=PATH) is None}
    )


def require_tools() -> None:
    packages = missing_packages()
    if packages:
        raise UsageError(
            f"missing Debian packages: {' '.join(packages)}; "
            "install them with 'scripts/lab prepare'"
        )


def run(command: Sequence[str], *, stdin: str | None = None) -> str:
    """Run `command`, return its output; raise LabError with what it said when it fails."""
    done = subprocess.run(
        list(command),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise LabError(f"{' '.join(command[:6])}: exit {done.returncode}: {said}")
    return done.stdout


def run_quietly(command: Sequence[str], *, stdin: str | None = None) -> bool:
    """Run `command`; say whether it succeeded. For undoing what may not be there."""
    try:
        run(command, stdin=stdin)
    except LabError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` alone. Released by the kernel if this process dies.

    Whoever holds it may delete the file as its last act: those waiting then start
    over with a new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                current = path.stat().st_ino
            except FileNotFoundError:
                continue
            if current != os.fstat(lock.fileno()).st_ino:
                continue
            yield
            return


# -- network as it is ---------------------------------------------------------------------


def look_at_network() -> HostNetwork:
    """Read interfaces, namespaces, nft tables and attached networks of this computer."""
    links = json.loads(run(("ip", "-j", "address")) or "[]")
    routes = json.loads(run(("ip", "-j", "-4", "route", "show", "table", "all")) or "[]")
    networks = [
        IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False)
        for link in links
        for address in link.get("addr_info", ())
        if address.get("family") == "inet"
    ]
    for route in routes:
        destination = route.get("dst", "default")
        if destination != "default" and route.get("type", "unicast") in ("unicast", "local"):
            networks.append(IPv4Network(destination, strict=False))
    tables = json.loads(run(("nft", "-j", "list", "tables")) or "{}").get("nftables", ())
    return HostNetwork(
        interfaces=frozenset(link["ifname"] for link in links if "ifname" in link),
        namespaces=frozenset(namespaces()),
        tables=frozenset(
            item["table"]["name"]
            for item in tables
            if "table" in item and item["table"]["family"] == "ip"
        ),
        networks=tuple(networks),
    )


def closed_forward_chains() -> list[str]:
    """Foreign nft chains that forward nothing they were not told about.

    One chain's accept does not overrule another's drop, so such a chain keeps
    machines from the package mirror whatever the lab's own table says.
    """
    listed = json.loads(run(("nft", "-j", "list", "chains")) or "{}").get("nftables", ())
    chains = [item["chain"] for item in listed if "chain" in item]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward"
        and chain.get("policy") == "drop"
        and chain["family"] in ("ip", "inet")
        and not chain["table"].startswith("ptslab_")
    ]


NETNS_DIRECTORY = Path("/run/netns")


def namespaces() -> list[str]:
    if not NETNS_DIRECTORY.is_dir():
        return []
    return sorted(entry.name for entry in NETNS_DIRECTORY.iterdir())


# -- processes ----------------------------------------------------------------------------


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    #: Clock ticks after boot, field 22 of /proc/PID/stat.
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process `pid`, or None if there is none (a zombie counts as none)."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        if fields[0] in ("Z", "X"):
            return None
        return cls(pid, int(fields[19]), boot_id())

    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def signal(self, number: int) -> bool:
        """Send a signal to this very process; False if it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.alive():  # checked after opening: the handle cannot change its mind
                return False
            signal.pidfd_send_signal(handle, number)
        except OSError:
            return False
        finally:
            os.close(handle)
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until the process is gone; False if it outlives `seconds`."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return True
        try:
            if not self.alive():
                return True
            readable, _, _ = select.select([handle], [], [], seconds)
            return bool(readable)
        finally:
            os.close(handle)


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill_all(processes: Sequence[Process], *, grace: float) -> None:
    """Ask every process to end, give them `grace` seconds together, then end them."""
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + grace
    for process in processes:
        if not process.wait(max(0.0, deadline - time.monotonic())):
            process.signal(signal.SIGKILL)
            process.wait(2.0)


# -- mounts -------------------------------------------------------------------------------


def mounts_under(directory: Path) -> list[Path]:
    """Mount points at or below `directory`, the deepest first."""
    base = str(directory)
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == base or point.startswith(base + "/"):
            found.append(Path(point))
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def unmount_under(directory: Path) -> None:
    """Unmount everything at or below `directory`; raise LabError if something holds on."""
    for point in mounts_under(directory):
        for attempt in range(20):
            if run_quietly(("umount", str(point))):
                break
            if attempt == 19:
                run(("umount", str(point)))
            time.sleep(0.1)


def remove_tree(directory: Path) -> None:
    """Delete `directory` and what is in it, never through a mount."""
    if mounts_under(directory):
        raise LabError(f"{directory} still has mounts below it: not removing")
    shutil.rmtree(directory, ignore_errors=False) if directory.exists() else None


# -- cgroups ------------------------------------------------------------------------------


def cgroup_roots() -> list[Path]:
    """Where a machine's own control group is made, on a computer not run by systemd.

    systemd-nspawn starts a machine's tree right below the group it is started in.
    Two machines in one group would share that tree, and one machine's systemd
    would then see and end the other's services: so each machine gets its own.
    """
    base = Path("/sys/fs/cgroup")
    if (base / "cgroup.procs").exists():  # one unified tree
        return [base]
    return [
        base / name for name in ("systemd", "unified") if (base / name / "cgroup.procs").exists()
    ]


def systemd_runs_this_computer() -> bool:
    return Path("/run/systemd/system").is_dir()


def cgroup_members(group: Path) -> list[Process]:
    """Every process in `group` or below it."""
    found: dict[int, Process] = {}
    for procs in group.rglob("cgroup.procs") if group.is_dir() else ():
        with contextlib.suppress(OSError):
            for word in procs.read_text().split():
                process = Process.of(int(word))
                if process is not None and process.pid > 1:
                    found[process.pid] = process
    return list(found.values())


def remove_cgroup(group: Path) -> None:
    """Remove `group` and the groups below it; they must be empty of processes."""
    if not group.is_dir():
        return
    below = sorted(
        (path for path in group.rglob("*") if path.is_dir()),
        key=lambda path: len(path.parts),
        reverse=True,
    )
    for path in (*below, group):
        for _ in range(20):
            try:
                path.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:  # the last process is still on its way out
                time.sleep(0.05)
