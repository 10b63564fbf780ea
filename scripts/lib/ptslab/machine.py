"""One machine: its overlay, its identity, starting and ending it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from ptslab import host, rootfs, state
from ptslab.errors import LabError
from ptslab.state import Lab, Machine, Running

_SUPERVISOR = Path(__file__).resolve().parent.parent / "ptslab-supervisor"

#: systemd-nspawn's exit status when the machine asked for a reboot (--keep-unit).
REBOOT = 133


def prepare(lab: Lab, machine: Machine, *, authorized_key: str) -> None:
    """Make the machine's own layer and give it name, keys, address and resolver."""
    for directory in (lab.upper(machine), _work(lab, machine), lab.root(machine)):
        directory.mkdir(parents=True, exist_ok=True)
    # Before the overlay is mounted: hard links do not cross into it afterwards.
    rootfs.lend_debs(machine.suite, lab.upper(machine) / "var/cache/apt/archives")
    mount(lab, machine)
    root = lab.root(machine)
    layout = lab.layout

    _write(root / "etc/machine-id", uuid.uuid4().hex + "\n", mode=0o444)
    _write(root / "etc/hostname", machine.name + "\n")
    _write(root / "etc/hosts", _hosts(lab, machine))
    _write(root / "etc/resolv.conf", resolver())
    _write(
        root / "etc/systemd/network/10-eth0.network",
        "[Match]\nName=eth0\n\n[Network]\n"
        f"Address={lab.address(machine)}/{layout.wan.prefixlen}\nGateway={layout.gateway}\n"
        "IPv6AcceptRA=no\n",
    )
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    enabled = wants / "systemd-networkd.service"
    if not enabled.is_symlink():
        enabled.symlink_to("/lib/systemd/system/systemd-networkd.service")

    _write(root / "etc/default/locale", "LANG=C.UTF-8\n")

    for kind in ("ed25519", "ecdsa", "rsa"):
        key = root / f"etc/ssh/ssh_host_{kind}_key"
        _generate_key(key, kind, comment=f"root@{machine.name}")
    home = root / "root"
    (home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    _write(home / ".ssh/authorized_keys", authorized_key, mode=0o600)


def host_keys(lab: Lab, machine: Machine) -> list[str]:
    """Public host keys of the machine, `TYPE BASE64` each."""
    public = sorted((lab.root(machine) / "etc/ssh").glob("ssh_host_*_key.pub"))
    return [" ".join(path.read_text().split()[:2]) for path in public]


def mount(lab: Lab, machine: Machine) -> None:
    """Mount the machine's overlay unless it is mounted already."""
    root = lab.root(machine)
    if root in host.mounts_under(root):
        return
    upper, work = lab.upper(machine), _work(lab, machine)
    options = f"lowerdir={':'.join(machine.layers)},upperdir={upper},workdir={work}"
    try:
        host.run(("mount", "-t", "overlay", "-o", options,
                  lab.layout.machine_link(machine.index), str(root)))  # fmt: skip
    except LabError as error:
        raise LabError(
            f"cannot mount an overlay in {state.HOME}: it must not lie on an overlay itself, as it "
            f"does in most containers; mount a disk there ({error})"
        ) from error


def start(lab: Lab, machine: Machine) -> None:
    """Start the machine's supervisor, which boots it. Returns at once."""
    log = lab.machine_directory(machine) / "supervisor.log"
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            (sys.executable, "-I", str(_SUPERVISOR), lab.name, machine.name),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env=host.environment(),
        )
    # It is on record before it does anything; if we end before the word, so does it.
    process = host.Process.of(supervisor.pid)
    if process is not None:
        lab.save_running(machine, Running(process, None, 0, "booting", None, ()))
    assert supervisor.stdin is not None
    with supervisor.stdin, contextlib.suppress(BrokenPipeError):
        supervisor.stdin.write(b"go\n")


def stop(lab: Lab, machine: Machine, *, grace: float) -> None:
    """End the machine: an orderly power-off within `grace` seconds, else the plug.

    0 pulls the plug at once. Afterwards no process of it is left, whatever was
    killed before; its file system stays as it is.
    """
    running = lab.running(machine)
    if running is None:
        return
    if not running.supervisor.alive():
        _end_machine(running, grace=grace)
    else:
        # The supervisor must not boot it again: it is told first.
        running.supervisor.signal(signal.SIGTERM)
        _end_machine(running, grace=grace)
        if not running.supervisor.wait(3.0):
            running.supervisor.signal(signal.SIGKILL)
            running.supervisor.wait(2.0)
            # It may have started one more boot between our look and its end.
            again = lab.running(machine)
            if again is not None:
                _end_machine(again, grace=0.0)
    # By name, not from the record read above: the supervisor may have made them since.
    own = lab.layout.machine_namespace(machine.index)
    for group in {*map(Path, running.cgroups), *(root / own for root in host.cgroup_roots())}:
        host.kill_all(host.cgroup_members(group), grace=0.0)
        host.remove_cgroup(group)


def _end_machine(running: Running, *, grace: float) -> None:
    nspawn = running.nspawn
    if nspawn is None:
        return
    leader_pid = running.leader()
    leader = host.Process.of(leader_pid) if leader_pid else None
    if grace > 0 and leader is not None:
        leader.signal(signal.SIGRTMIN + 4)  # systemd: power off
        if nspawn.wait(grace):
            return
    if leader is not None:
        leader.signal(signal.SIGKILL)  # the kernel ends everything in the machine with it
    if not nspawn.wait(3.0):
        nspawn.signal(signal.SIGKILL)
        nspawn.wait(2.0)


def wait_for_ssh(lab: Lab, machine: Machine, *, seconds: float, boots: int = 1) -> float:
    """Wait until a command runs over ssh in boot number `boots` or later; return the seconds.

    Raises LabError with the end of the console when the machine ends or time is up.
    """
    began = time.monotonic()
    command = ("ssh", "-F", str(lab.ssh_config), "-o", "ConnectTimeout=2", machine.name, "true")
    said = ""
    while (waited := time.monotonic() - began) < seconds:
        running = lab.running(machine)
        if running is not None and not running.supervisor.alive():
            raise LabError(
                f"machine {machine.name} ended while booting "
                f"(systemd-nspawn exit {running.exit_status})\n{console_tail(lab, machine)}"
            )
        if running is not None and running.boots >= boots and running.phase == "running":
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                env=host.environment(),
            )
            if done.returncode == 0:
                return time.monotonic() - began
            said = " ".join(done.stderr.split())
        time.sleep(0.1)
    raise LabError(
        f"machine {machine.name}: no ssh within {waited:.0f} s ({said or 'it did not boot'})\n"
        f"{console_tail(lab, machine)}"
    )


def console_tail(lab: Lab, machine: Machine, lines: int = 15) -> str:
    """The last lines of console and supervisor, indented, for an error message."""
    text = []
    for path in (lab.console(machine), lab.machine_directory(machine) / "supervisor.log"):
        try:
            found = path.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            found = []
        if found:
            text.append(f"  last lines of {path}:")
            text.extend(f"    {line}" for line in found)
    return "\n".join(text)


def resolver() -> str:
    """The resolver settings for a machine: this computer's own.

    A stub on a loopback address is no use to a machine, so the servers behind
    systemd-resolved are taken where it runs.
    """
    for path in (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        wanted = [
            line
            for line in lines
            if line.startswith(("nameserver", "search", "options")) and " 127." not in line
        ]
        if any(line.startswith("nameserver") for line in wanted):
            return "\n".join(wanted) + "\n"
    return "# this computer has no resolver a machine could reach\n"


def _hosts(lab: Lab, machine: Machine) -> str:
    lines = ["127.0.0.1 localhost", f"127.0.1.1 {machine.name}", "::1 localhost ip6-localhost"]
    lines += [
        f"{lab.address(other)} {other.name}" for other in lab.machines if other.name != machine.name
    ]
    return "\n".join(lines) + "\n"


def _work(lab: Lab, machine: Machine) -> Path:
    return lab.machine_directory(machine) / "work"


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, 0, 0)


def _generate_key(path: Path, kind: str, *, comment: str) -> None:
    path.unlink(missing_ok=True)
    # RSA is for old clients only; 2048 bits keep a boot quick.
    bits = ("-b", "2048") if kind == "rsa" else ()
    host.run(("ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-C", comment, "-f", str(path)))


def remove_files(lab: Lab, machine: Machine) -> None:
    """Keep the packages it fetched, then unmount and delete the machine's layer."""
    rootfs.collect_debs(machine.suite, lab.upper(machine) / "var/cache/apt/archives")
    host.unmount_under(lab.machine_directory(machine))
    # The kernel leaves overlay's work/work without permissions; root may delete it all the same.
    shutil.rmtree(lab.machine_directory(machine), ignore_errors=False)
