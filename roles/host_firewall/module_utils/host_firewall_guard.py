"""What every firewall backend must get right: who must stay able to get in, and a way back.

The port sshd really listens on, the port and address of this very connection, and the dead-man
switch: a unit of the host itself that puts the former rules back unless it is disarmed in time.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROC = Path("/proc")
LISTEN = "0A"
KEPT = Path("/var/lib/ptslink-firewall")
SWITCH = "ptslink-firewall-deadman.service"
#: There until the change is confirmed or undone; only one of the two can take it away.
ARMED = KEPT / "armed"
#: There while the former rules are being put back.
GOING_OFF = KEPT / "going-off"
SSH_UNITS = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")

#: What every backend's module takes; DOCUMENTATION of each says what it means.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "mark": {"type": "str", "required": True},
    "rules": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "port": {"type": "int", "required": True},
            "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
            "sources": {"type": "list", "elements": "str", "default": []},
            "rate": {"type": "int", "default": 0},
            "purpose": {"type": "str", "required": True},
        },
    },
    "ssh_ports": {"type": "list", "elements": "int", "default": []},
    "ssh_sources": {"type": "list", "elements": "str", "default": []},
    "ipv6": {"type": "str", "choices": ["keep", "needed", "no", "yes"], "default": "needed"},
    "patience_seconds": {"type": "int", "default": 45},
}


class Refused(Exception):
    """The firewall was not touched, or could not be brought to the wanted state."""


@dataclass(frozen=True)
class Rule:
    """One thing let in: a port, from one network or from anywhere."""

    port: int
    protocol: str
    source: str | None
    purpose: str = field(compare=False)


def said(*command: str, given: str = "", within: int = 60) -> tuple[int, str]:
    """Exit status and words of a command that reads ``given``; it always ends, in seconds."""
    try:
        done = subprocess.run(
            command,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=within,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return 124, f"no answer within {within} s"
    return done.returncode, done.stdout.strip()


def must(*command: str) -> str:
    """The words of a command that ends well; else Refused with them."""
    status, words = said(*command)
    if status:
        raise Refused(f"`{' '.join(command)}` said: {words}")
    return words


def network(source: str) -> str:
    """A source as ufw prints it: networks in their canonical form, single hosts bare."""
    parsed = ipaddress.ip_network(source, strict=False)
    return str(parsed.network_address) if parsed.num_addresses == 1 else str(parsed)


def ssh_rules(ports: Iterable[int], sources: Sequence[str], run_from: str | None) -> Iterator[Rule]:
    """What keeps ssh open: its ports, and where this run comes from whatever the sources say."""
    for port in sorted(set(ports)):
        if not sources:
            yield Rule(port, "tcp", None, "ssh")
            continue
        for source in sources:
            yield Rule(port, "tcp", network(source), "ssh")
        if run_from and not any(
            ipaddress.ip_address(run_from) in ipaddress.ip_network(source, strict=False)
            for source in sources
        ):
            yield Rule(port, "tcp", run_from, "ssh from where it was provisioned")


def link_rules(rules: Iterable[Mapping[str, Any]]) -> Iterator[Rule]:
    """The other ports, one rule a network."""
    for rule in rules:
        for source in rule["sources"] or [None]:
            yield Rule(
                rule["port"],
                rule["protocol"],
                network(source) if source else None,
                rule["purpose"],
            )


def ufw_limited(rules: str) -> set[int]:
    """Ports that ufw limits for everybody, of the text of its user.rules."""
    found = re.findall(
        r"^### tuple ### limit\S* (?:tcp|any) (\S+) 0\.0\.0\.0/0 any 0\.0\.0\.0/0 .*\bin\b",
        rules,
        re.MULTILINE,
    )
    spans = [part.partition(":") for ports in found for part in ports.split(",")]
    return {
        port
        for low, _, high in spans
        if low.isdecimal()
        for port in range(int(low), int(high or low) + 1)
    }


def shut_to(run_from: str | None, rules: Iterable[Rule]) -> str:
    """A warning where ports of the link are shut to where this run comes from, or nothing."""
    let_in: dict[int, bool] = {}
    for rule in rules if run_from else ():
        if rule.purpose == "controllers":
            fits = rule.source is None or ipaddress.ip_address(run_from) in ipaddress.ip_network(
                rule.source
            )
            let_in[rule.port] = let_in.get(rule.port, False) or fits
    shut = [str(port) for port, fits in let_in.items() if not fits]
    if not shut:
        return ""
    return (
        f"port {', '.join(shut)} is shut to {run_from}, where this run comes from: the link cannot "
        "be proven from there. Fix: add it to host_firewall_link_sources, or to the port's "
        "networks in host_firewall_link_port_sources"
    )


def unit_of(pid: str) -> str:
    """The systemd unit a process belongs to, or an empty string."""
    try:
        cgroup = (PROC / pid / "cgroup").read_text()
    except OSError:
        return ""
    return cgroup.strip().rpartition("/")[2]


def sshd_ports() -> set[int]:
    """Ports the ssh service, or systemd on its behalf, listens on beyond loopback."""
    sockets: dict[str, int] = {}
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            address, _, port = columns[1].rpartition(":")
            loopback = address in ("0100007F", "00000000000000000000000001000000")
            if columns[3] == LISTEN and not loopback:
                sockets[f"socket:[{columns[9]}]"] = int(port, 16)
    ports = set()
    for process in PROC.iterdir():
        if not process.name.isdigit():
            continue
        try:
            name = (process / "comm").read_text().strip()
            if name != "sshd" or unit_of(process.name) not in SSH_UNITS:
                continue
            for descriptor in (process / "fd").iterdir():
                port = sockets.get(str(descriptor.readlink()))
                if port:
                    ports.add(port)
        except OSError:
            continue
    for unit in ("ssh.socket", "sshd.socket"):
        listening = subprocess.run(
            ["systemctl", "show", "--property=ActiveState,Listen", unit],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if "ActiveState=active" in listening:
            ports.update(int(port) for port in re.findall(r":(\d+) \(Stream\)", listening))
            ports.update(int(port) for port in re.findall(r"Listen=(\d+) \(Stream\)", listening))
    return ports


def this_connection() -> tuple[str, int] | None:
    """(address this run comes from, port it came in on), as the host sees them; None without ssh.

    sudo drops SSH_CONNECTION, so the processes above this one are asked too.
    """
    pid = str(os.getpid())
    while pid not in ("0", "1"):
        try:
            environment = (PROC / pid / "environ").read_bytes().split(b"\0")
            status = (PROC / pid / "status").read_text()
        except OSError:
            return None
        for entry in environment:
            if entry.startswith(b"SSH_CONNECTION="):
                words = entry.partition(b"=")[2].decode().split()
                if len(words) == 4:
                    return words[0].partition("%")[0], int(words[3])
        parent = re.search(r"^PPid:\s+(\d+)", status, re.MULTILINE)
        if parent is None:
            return None
        pid = parent.group(1)
    return None


def ssh_found(
    named: Iterable[int], sources: Sequence[str]
) -> tuple[list[Rule], list[int], str | None]:
    """(rules that keep ssh open, its ports, where this run comes from).

    Raises Refused where no port of sshd can be found: then nothing may be denied.
    """
    connection = this_connection()
    ports = sshd_ports() | set(named)
    if connection:
        ports.add(connection[1])
    if not ports:
        raise Refused(
            "No port of sshd could be found on this host, so nothing was denied and nothing "
            "changed. Fix: name it in host_firewall_ssh_ports."
        )
    run_from = connection[0] if connection else None
    return list(ssh_rules(ports, sources, run_from)), sorted(ports), run_from


def keep(files: Iterable[str]) -> list[str]:
    """Copies the former files aside; the shell lines that put them back, or remove new ones."""
    KEPT.mkdir(mode=0o700, exist_ok=True)
    lines = []
    for name in files:
        copy = KEPT / Path(name).name
        if Path(name).exists():
            shutil.copy2(name, copy)
            lines.append(f"cp -p {shlex.quote(str(copy))} {shlex.quote(name)}")
        else:
            copy.unlink(missing_ok=True)
            lines.append(f"rm -f {shlex.quote(name)}")
    return lines


def restore_script(lines: Iterable[str]) -> str:
    """What puts the former rules back, without help from anyone: plain shell, no network."""
    return "\n".join(
        [
            "#!/bin/sh",
            "# Puts back the firewall rules from before a change nobody confirmed.",
            *lines,
            "logger -t ptslink-firewall 'change not confirmed: the former rules are back'",
            "",
        ]
    )


def pending() -> str:
    """The file that an earlier run's switch waits on, or an empty string where none waits.

    One that is going off is waited for, up to a minute: its rules are neither the new nor the old.
    """
    if said("systemctl", "is-active", "--quiet", SWITCH)[0]:
        return ""
    ends = time.monotonic() + 60
    while GOING_OFF.exists() and time.monotonic() < ends:
        time.sleep(0.2)
    return str(ARMED) if ARMED.exists() else ""


def switch(patience: int) -> str:
    """What the shell of the switch does.

    It sleeps by itself: systemd starts a timer's `OnActiveSec` anew at each `daemon-reload`, and
    forgets an `OnBootSec` that comes due during one.
    """
    restore = shlex.quote(str(KEPT / "restore"))
    armed, going_off = shlex.quote(str(ARMED)), shlex.quote(str(GOING_OFF))
    return (
        f"sleep {patience}; mv {armed} {going_off} 2>/dev/null || exit 0; "
        f"/bin/sh {restore}; rm -f {going_off}"
    )


def arm(way_back: Callable[[], list[str]], patience: int) -> str:
    """Start the switch that puts the former rules back after ``patience`` seconds.

    Returns the file that disarms it when it is removed. ``way_back`` keeps what there is and gives
    the shell lines that restore it. It is not asked where an interrupted run has left a switch
    armed: what is there now was never confirmed, so that run's way back is still the right one.
    """
    KEPT.mkdir(mode=0o700, exist_ok=True)
    if not pending():
        (KEPT / "restore").write_text(restore_script(way_back()), encoding="utf-8")
    disarm()
    GOING_OFF.unlink(missing_ok=True)
    ARMED.touch(mode=0o600)
    os.sync()
    must("systemd-run", f"--unit={SWITCH}", "--collect", "/bin/sh", "-c", switch(patience))
    return str(ARMED)


def put_back() -> None:
    """What the switch would do, at once: the change failed half way and nobody needs to wait."""
    subprocess.run(
        ["/bin/sh", str(KEPT / "restore")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    disarm()


def disarm() -> None:
    """Stop the switch."""
    ARMED.unlink(missing_ok=True)
    said("systemctl", "stop", SWITCH)
