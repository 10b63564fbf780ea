"""Raising a lab, taking it down, and what can be done to it in between."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

from ptslab import disk, host, machine, plan, rootfs, snapshot, state
from ptslab.errors import LabError, UsageError
from ptslab.layout import DEFAULT_LAB, Layout, MachineRequest, allocate_slot, check_lab_name
from ptslab.state import Lab, Machine
from ptslab.supervisor import remove_cable

#: How long a machine may take until ssh answers. It takes about two seconds;
#: a busy computer booting eight at once takes longer.
BOOT_SECONDS: Final = 90.0
#: How long a machine may take to power off before the plug is pulled.
POWER_OFF_SECONDS: Final = 8.0
#: And before a snapshot, where what it has not written yet would be missing.
SNAPSHOT_SECONDS: Final = 90.0

_GLOBAL_LOCK: Final = Path("/run/ptslink-lab.lock")
_IP_FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")


def up(
    name: str,
    requests: Sequence[MachineRequest],
    *,
    mirror: bool = True,
    begin_from: str | None = None,
    of: Sequence[Path] = (),
    started: float | None = None,
) -> Lab:
    """Raise lab `name` with the machines asked for; return it when ssh answers on each.

    New machines begin from the snapshot `begin_from` that was taken of the files `of`; LabError
    if there is none. A lab that is up keeps its machines: those missing are added, those switched
    off are started. What an interrupted `up` or `down` left behind is cleared
    first. If anything fails, what this call made is taken down again.
    """
    started = time.monotonic() if started is None else started
    check_lab_name(name)
    host.require_root("scripts/lab up")
    host.require_tools()
    with _ending_signals_raise(), _lab_lock(name):
        lab = state.load(name)
        if lab is not None and not _whole(lab):
            host.say(f"lab {name}: clearing what an interrupted run left", started=started)
            _remove(lab, started=started, grace=0.0)
            lab = None
        suites = list(dict.fromkeys(request.suite for request in requests))
        images = make_images(suites, started=started)
        layers: dict[str, tuple[str, ...]] = dict.fromkeys(suites, ())
        if begin_from is not None:
            for suite in suites:
                found = snapshot.require(snapshot.path(begin_from, suite, of))
                layers[suite] = snapshot.lower_layers(found)
        made = {suite: Machine("", suite, 0, str(images[suite]), layers[suite]) for suite in suites}
        if lab is None:
            return _raise_new(name, requests, made, mirror=mirror, started=started)
        return _extend(lab, requests, made, mirror=mirror, started=started)


def make_images(suites: Sequence[str], *, started: float, refresh: bool = False) -> dict[str, Path]:
    """The root file system of each suite, made if need be; images nothing uses any more go.

    `refresh` makes them anew, which no lab may be standing on at the time.
    """
    used = {Path(m.image) for found in state.labs() for m in found.machines}
    if refresh:
        wanted = {rootfs.image_path(suite, rootfs.architecture()) for suite in suites}
        standing = [found.name for found in state.labs()
                    if wanted & {Path(m.image) for m in found.machines}]  # fmt: skip
        if standing:
            raise LabError(f"lab {', '.join(standing)} stands on the image: take it down first")
    images = {
        suite: rootfs.ensure_image(suite, started=started, refresh=refresh)
        for suite in dict.fromkeys(suites)
    }
    with host.locked(_GLOBAL_LOCK):
        for removed in rootfs.prune({*used, *images.values()}):
            host.say(f"removed {removed}: no lab uses it", started=started)
    return images


def _raise_new(
    name: str,
    requests: Sequence[MachineRequest],
    made: Mapping[str, Machine],
    *,
    mirror: bool,
    started: float,
) -> Lab:
    lab = _claim_slot(name, requests, made)
    host.say(f"lab {name}: slot {lab.slot}, {lab.layout.wan}", started=started)
    try:
        _make_network(lab)
        for chain in host.closed_forward_chains() if mirror else ():
            host.say(
                f"note: nft chain '{chain}' drops what it was not told to forward: machines reach "
                f"the package mirror only if it accepts {lab.layout.bridge}",
                started=started,
            )
        if not mirror:
            _cut(lab, [m.name for m in lab.machines], silent=False)
        _boot(lab, lab.machines, started=started)
        lab = _in_phase(lab, "up", lab.machines)
    except BaseException as error:
        host.say(f"lab {name}: failed; taking down what was made", started=started)
        try:
            _remove(lab, started=started, grace=0.0)
        except LabError as second:
            error.add_note(f"and taking it down failed as well: {second}")
        raise
    return lab


def _extend(
    lab: Lab,
    requests: Sequence[MachineRequest],
    made: Mapping[str, Machine],
    *,
    mirror: bool,
    started: float,
) -> Lab:
    present = {m.name: m for m in lab.machines}
    for request in requests:
        known = present.get(request.name)
        if known is not None and known.suite != request.suite:
            raise UsageError(
                f"machine {request.name} of lab {lab.name} runs {known.suite}, not "
                f"{request.suite}: take the lab down first"
            )
    before = lab.machines
    free = iter(sorted(set(range(len(present) + len(requests))) - {m.index for m in before}))
    added = tuple(
        replace(made[request.suite], name=request.name, index=next(free))
        for request in requests
        if request.name not in present
    )
    off = tuple(m for m in before if not _is_running(lab, m))
    if added:
        # Written before anything is made, so that `down` finds it whatever happens.
        lab = _in_phase(lab, "up", (*before, *added))
    try:
        if not mirror and added:
            _cut(lab, [m.name for m in added], silent=False)
        _boot(lab, added, started=started)
    except BaseException:
        for new in added:
            _remove_machine(lab, new, grace=0.0)
        _in_phase(lab, "up", before)
        raise
    if off:
        for m in off:
            machine.start(lab, m)
        _wait(lab, off, started=started)
    if not added and not off:
        host.say(f"lab {lab.name}: already up", started=started)
    return lab


def down(name: str, *, started: float | None = None) -> bool:
    """Take lab `name` down and remove every trace of it; False when there is none."""
    started = time.monotonic() if started is None else started
    check_lab_name(name)
    host.require_root("scripts/lab down")
    if not (state.HOME / "labs" / name).exists():
        return False
    with _lab_lock(name):
        lab = state.load(name)
        if lab is None:
            # An `up` that died before it wrote its state made nothing but this directory.
            host.remove_tree(state.HOME / "labs" / name)
            _leave_host_as_found()
            return False
        _remove(lab, started=started, grace=POWER_OFF_SECONDS)
    return True


def require(name: str) -> Lab:
    """The lab `name`, which must be up."""
    check_lab_name(name)
    host.require_root("scripts/lab")
    lab = state.load(name)
    if lab is None or not _whole(lab):
        other = [found.name for found in state.labs() if _whole(found)]
        hint = f" (up: {', '.join(other)})" if other else ""
        which = "" if name == DEFAULT_LAB else f" --lab {name}"
        raise LabError(f"no lab {name!r} is up{hint}: raise it with 'scripts/lab up{which}'")
    return lab


# -- one machine ----------------------------------------------------------------------------


def stop_machine(lab: Lab, name: str, *, hard: bool) -> None:
    """Switch a machine off: in order, or by pulling the plug. Its disk stays."""
    machine.stop(lab, lab.machine(name), grace=0.0 if hard else POWER_OFF_SECONDS)


def start_machine(lab: Lab, name: str, *, started: float) -> None:
    """Switch a machine on again and wait for ssh."""
    m = lab.machine(name)
    if _is_running(lab, m):
        raise LabError(f"machine {name} is running already")
    machine.start(lab, m)
    _wait(lab, (m,), started=started)


def reboot_machine(lab: Lab, name: str, *, started: float) -> None:
    """Reboot a machine from inside and wait until ssh answers in the new boot."""
    m = lab.machine(name)
    running = lab.running(m)
    leader = running.leader() if running is not None else None
    process = host.Process.of(leader) if leader else None
    if running is None or process is None:
        raise LabError(f"machine {name} is not running")
    process.signal(signal.SIGRTMIN + 5)  # systemd: reboot
    _wait(lab, (m,), started=started, boots=running.boots + 1)


def take_snapshot(
    lab: Lab, name: str, snapshot_name: str, *, of: Sequence[Path], started: float
) -> Path:
    """Keep what a machine is now as a snapshot, which other machines can begin from.

    The machine is switched off for it in order, and is up again afterwards. Where there is such a
    snapshot of the same files it is left as it is, and so is the machine.
    """
    m = lab.machine(name)
    target = snapshot.path(snapshot_name, m.suite, of)
    if target.is_dir():
        host.say(f"snapshot {target.name}: there already", started=started)
        return target
    machine.stop(lab, m, grace=SNAPSHOT_SECONDS)
    changed = snapshot.take(lab, m, target)
    lab = _in_phase(lab, lab.phase, tuple(changed if one == m else one for one in lab.machines))
    host.say(f"snapshot {target.name}: taken of {name}", started=started)
    for removed in snapshot.prune(
        target, [layer for one in state.labs() for m in one.machines for layer in m.snapshots]
    ):
        host.say(f"removed {removed}: nothing stands on it", started=started)
    machine.start(lab, changed)
    _wait(lab, (changed,), started=started)
    return target


def cut_mirror(lab: Lab, names: Sequence[str], *, silent: bool) -> None:
    """Leave the machines nothing but this computer and the lab; all of them if none is named."""
    _cut(lab, names or [m.name for m in lab.machines], silent=silent)


def restore_mirror(lab: Lab) -> None:
    """Undo every `cut_mirror` of the lab."""
    for command in plan.restore(lab.layout):
        host.run(command)


def add_disk(lab: Lab, name: str, path: str, megabytes: int) -> None:
    """Mount a new disk of `megabytes` at `path` of a running machine."""
    disk.add(lab, lab.machine(name), path, megabytes)


def enter_command(lab: Lab, where: str, command: Sequence[str]) -> tuple[str, ...]:
    """The command that runs `command` in the controllers' or router's namespace, or a machine.

    Into a machine it goes past ssh and firewall: the way in after a lock-out.
    """
    if where in ("controller", "router"):
        return ("ip", "netns", "exec", lab.layout.namespace(where), *command)
    running = lab.running(lab.machine(where))
    leader = running.leader() if running is not None else None
    if leader is None:
        raise LabError(f"machine {where} is not running")
    return ("nsenter", "--target", str(leader), "--mount", "--uts", "--ipc", "--net", "--pid",
            "--cgroup", "--root", "--wd=/", "--", *command)  # fmt: skip


# -- what it is like ----------------------------------------------------------------------------


def describe(lab: Lab) -> dict[str, Any]:
    """The lab as plain data: what `up --json` and `status --json` print."""
    layout = lab.layout
    machines = {}
    for m in lab.machines:
        running = lab.running(m)
        alive = _is_running(lab, m)
        machines[m.name] = {
            "suite": m.suite,
            "address": str(lab.address(m)),
            "running": alive,
            "boots": running.boots if running is not None else 0,
            "pid": running.leader() if running is not None and alive else None,
            "namespace": layout.machine_namespace(m.index),
            "root": str(lab.root(m)),
            "console": str(lab.console(m)),
        }
    return {
        "lab": lab.name,
        "slot": lab.slot,
        "phase": "broken" if lab.phase == "up" and not _whole(lab) else lab.phase,
        "ssh_config": str(lab.ssh_config),
        "ssh_key": str(lab.ssh_key),
        "known_hosts": str(lab.known_hosts),
        "bridge": layout.bridge,
        "gateway": str(layout.gateway),
        "network": str(layout.wan),
        "nft_table": layout.nft_table,
        "router": {
            "namespace": layout.router_namespace,
            "wan_address": str(layout.router_wan),
            "lan_address": str(layout.router_lan),
            "nft_table": "site",
        },
        "controller": {
            "namespace": layout.controller_namespace,
            "network": str(layout.lan),
            "addresses": [str(address) for address in layout.controllers],
        },
        "machines": machines,
    }


def _whole(lab: Lab) -> bool:
    """Whether the lab was raised to the end, in this boot, and its network still stands."""
    layout = lab.layout
    there = set(host.namespaces())
    return (
        lab.phase == "up"
        and lab.boot == host.boot_id()
        and Path("/sys/class/net", layout.bridge).exists()
        and {layout.router_namespace, layout.controller_namespace} <= there
    )


def _is_running(lab: Lab, m: Machine) -> bool:
    running = lab.running(m)
    return running is not None and running.supervisor.alive() and running.phase != "failed"


# -- the parts of up ----------------------------------------------------------------------------


def _claim_slot(name: str, requests: Sequence[MachineRequest], made: Mapping[str, Machine]) -> Lab:
    """Write the state of a new lab in a slot of its own: from here on `down` knows it."""
    with host.locked(_GLOBAL_LOCK):
        others = state.labs()
        layout = allocate_slot(name, frozenset(lab.slot for lab in others), host.look_at_network())
        lab = Lab(
            name,
            layout.slot,
            "starting",
            host.boot_id(),
            tuple(
                replace(made[request.suite], name=request.name, index=index)
                for index, request in enumerate(requests)
            ),
        )
        if not others:
            _note_host_as_found()
        lab.save()
    return lab


def _in_phase(lab: Lab, phase: str, machines: tuple[Machine, ...]) -> Lab:
    changed = replace(lab, phase=phase, machines=machines)
    changed.save()
    return changed


def _make_network(lab: Lab) -> None:
    layout = lab.layout
    if _IP_FORWARD.read_text().strip() != "1":
        _IP_FORWARD.write_text("1\n")
    for command in plan.build_network(layout):
        host.run(command)
    host.run(("nft", "-f", "-"), stdin=plan.host_rules(layout))
    in_router = ("ip", "netns", "exec", layout.router_namespace)
    host.run((*in_router, "nft", "-f", "-"), stdin=plan.router_rules(layout))


def _boot(lab: Lab, machines: Sequence[Machine], *, started: float) -> None:
    if not machines:
        return
    if not lab.ssh_key.exists():
        host.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"ptslab-{lab.name}",
                  "-f", str(lab.ssh_key)))  # fmt: skip
        lab.control_sockets.mkdir(mode=0o700, exist_ok=True)
    authorized = lab.ssh_key.with_suffix(".pub").read_text()
    for m in machines:
        machine.prepare(lab, m, authorized_key=authorized)
    _write_ssh_files(lab)
    for m in machines:
        machine.start(lab, m)
    _wait(lab, machines, started=started)
    for m in machines:
        _require_way_from_site(lab, m)


def _wait(lab: Lab, machines: Sequence[Machine], *, started: float, boots: int = 1) -> None:
    for m in machines:
        machine.wait_for_ssh(lab, m, seconds=BOOT_SECONDS, boots=boots)
        host.say(f"machine {m.name}: {m.suite}, {lab.address(m)}, ssh answers", started=started)


_CONNECT: Final = "import socket, sys; socket.create_connection((sys.argv[1], 22), 5).close()"


def _require_way_from_site(lab: Lab, m: Machine) -> None:
    """A controller reaches the machine through router and bridge, or the lab is no good.

    What prevents it is a firewall of this computer that filters bridged packets
    (br_netfilter) and forwards nothing it was not told about.
    """
    probe = (sys.executable, "-I", "-c", _CONNECT, str(lab.address(m)))
    inside = ("ip", "netns", "exec", lab.layout.controller_namespace, *probe)
    if host.run_quietly(inside):
        return
    if host.run_quietly(probe):  # the machine itself answers, so it is the way
        raise LabError(
            f"ssh of {m.name} answers here but not in the controllers' namespace: this computer's "
            f"firewall drops packets on {lab.layout.bridge}; accept what comes from and goes to it"
        )


def _write_ssh_files(lab: Lab) -> None:
    """ssh_config and known_hosts of every machine; the host keys are ours, so checked strictly."""
    known, config = [], []
    for m in lab.machines:
        if not lab.root(m).is_dir():
            continue
        known += [f"{m.name},{lab.address(m)} {key}\n" for key in machine.host_keys(lab, m)]
        config.append(
            f"Host {m.name} {lab.address(m)}\n"
            f"    HostName {lab.address(m)}\n"
            "    Port 22\n"
            "    User root\n"
        )
    config.append(
        "Host *\n"
        f"    IdentityFile {lab.ssh_key}\n"
        "    IdentitiesOnly yes\n"
        f"    UserKnownHostsFile {lab.known_hosts}\n"
        "    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n"
        "    PasswordAuthentication no\n"
        "    KbdInteractiveAuthentication no\n"
        "    ConnectTimeout 10\n"
        "    ServerAliveInterval 5\n"
        "    ServerAliveCountMax 6\n"
        "    LogLevel ERROR\n"
    )
    lab.known_hosts.write_text("".join(known))
    lab.ssh_config.write_text("".join(config))


def _cut(lab: Lab, names: Sequence[str], *, silent: bool) -> None:
    addresses = [lab.address(lab.machine(name)) for name in names]
    for command in plan.cut(lab.layout, addresses, silent=silent):
        host.run(command)


# -- the parts of down --------------------------------------------------------------------------


def _remove(lab: Lab, *, started: float, grace: float) -> None:
    """Remove everything the lab may have made. Nothing it needs is kept in memory only."""
    lab = _in_phase(lab, "stopping", lab.machines)
    layout = lab.layout
    _close_shared_ssh(lab)
    # Asked all together, then waited for one by one.
    if grace > 0:
        for m in lab.machines:
            _ask_to_power_off(lab, m)
    for m in lab.machines:
        _remove_machine(lab, m, grace=grace)
    for namespace in (layout.controller_namespace, layout.router_namespace):
        _empty_namespace(namespace)
        host.run_quietly(("ip", "netns", "delete", namespace))
    host.run_quietly(("ip", "link", "delete", layout.router_link))
    host.run_quietly(("ip", "link", "delete", layout.bridge))
    host.run_quietly(("nft", "delete", "table", "ip", layout.nft_table))
    left = _traces(layout)
    if left:
        raise LabError(f"lab {lab.name}: could not remove {', '.join(left)}; run down again")
    host.unmount_under(lab.directory)
    host.remove_tree(lab.directory)
    _leave_host_as_found()
    host.say(f"lab {lab.name}: down, nothing left", started=started)


def _ask_to_power_off(lab: Lab, m: Machine) -> None:
    running = lab.running(m)
    if running is None:
        return
    running.supervisor.signal(signal.SIGTERM)
    leader = running.leader()
    process = host.Process.of(leader) if leader else None
    if process is not None:
        process.signal(signal.SIGRTMIN + 4)


def _remove_machine(lab: Lab, m: Machine, *, grace: float) -> None:
    machine.stop(lab, m, grace=grace)
    _empty_namespace(lab.layout.machine_namespace(m.index))
    remove_cable(lab, m)
    name = lab.layout.machine_namespace(m.index)
    propagate = Path("/run/systemd/nspawn/propagate") / name
    with contextlib.suppress(OSError):
        propagate.rmdir()
    if lab.machine_directory(m).exists():
        machine.remove_files(lab, m)


def _empty_namespace(namespace: str) -> None:
    """End what still runs in a namespace of ours, found by membership."""
    if namespace not in host.namespaces():
        return
    with contextlib.suppress(LabError):
        pids = host.run(("ip", "netns", "pids", namespace)).split()
        found = (host.Process.of(int(pid)) for pid in pids)
        host.kill_all([process for process in found if process is not None], grace=1.0)


def _close_shared_ssh(lab: Lab) -> None:
    """End the ssh connections Ansible left open for its next task."""
    if lab.control_sockets.is_dir():
        for socket in lab.control_sockets.iterdir():
            host.run_quietly(("ssh", "-F", str(lab.ssh_config), "-o", f"ControlPath={socket}",
                              "-O", "exit", "any"))  # fmt: skip


def _traces(layout: Layout) -> list[str]:
    """What of the lab the kernel still holds."""
    network = host.look_at_network()
    return [
        *(f"interface {i}" for i in sorted(network.interfaces)
          if i == layout.bridge or i.startswith(layout.prefix + "-")),
        *(f"namespace {n}" for n in sorted(network.namespaces)
          if n.startswith(layout.prefix + "-")),
        *(f"nft table {t}" for t in sorted(network.tables) if t == layout.nft_table),
    ]  # fmt: skip


# -- this computer ------------------------------------------------------------------------------


def _note_host_as_found() -> None:
    """Before the first lab: remember what labs change on this computer."""
    state.HOME.mkdir(parents=True, exist_ok=True, mode=0o700)
    state.write_json(
        state.HOME / "host.json",
        {
            "ip_forward": _IP_FORWARD.read_text().strip(),
            "netns_mounted": bool(host.mounts_under(host.NETNS_DIRECTORY)),
            "netns_directory": host.NETNS_DIRECTORY.exists(),
        },
    )


def _leave_host_as_found() -> None:
    """After the last lab: put that back, and remove the empty state directory."""
    with host.locked(_GLOBAL_LOCK):
        labs = state.HOME / "labs"
        if labs.is_dir() and any(labs.iterdir()):
            return
        noted = state.HOME / "host.json"
        if noted.exists():
            found = json.loads(noted.read_text())
            if _IP_FORWARD.read_text().strip() != found["ip_forward"]:
                _IP_FORWARD.write_text(found["ip_forward"] + "\n")
            if host.NETNS_DIRECTORY.is_dir() and not host.namespaces():
                if not found["netns_mounted"]:
                    host.run_quietly(("umount", str(host.NETNS_DIRECTORY)))
                if not found["netns_directory"]:
                    with contextlib.suppress(OSError):
                        host.NETNS_DIRECTORY.rmdir()
        shutil.rmtree(state.HOME, ignore_errors=True)
        _GLOBAL_LOCK.unlink(missing_ok=True)


@contextlib.contextmanager
def _lab_lock(name: str) -> Iterator[None]:
    """One `up` or `down` of a lab at a time. Lives in /run, gone with the next boot."""
    path = Path("/run") / f"ptslink-lab-{name}.lock"
    with host.locked(path):
        try:
            yield
        finally:
            if not (state.HOME / "labs" / name).exists():
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _ending_signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP undo a half-made lab as Ctrl-C does."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise LabError(f"ended by {signal.Signals(number).name}")

    former = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
