#!/usr/bin/python
"""ufw brought to a list of rules in one go: ssh first, only marked rules removed, then deny."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_firewall_ufw
short_description: Brings ufw to a list of allowed ports without ever locking anyone out
description:
  - >-
    The port sshd really listens on (not the one its configuration names), the port this very
    connection came in on, and the address it came from are allowed before anything is denied.
  - >-
    Every rule it writes carries a mark as its comment. Only marked rules are ever removed; other
    rules are kept and returned as C(strangers).
  - Never resets, and never denies before it has allowed.
  - >-
    Before a change it arms a dead-man switch: a timer of the host itself that puts the former
    rules back unless it is stopped in time, which the caller does over a new connection. Returns
    C(armed), the name of that timer, or nothing where nothing changed.
options:
  mark: {type: str, required: true, description: What the comment of our rules begins with.}
  rules:
    type: list
    elements: dict
    required: true
    description: What shall be let in.
    options:
      port: {type: int, required: true, description: Port.}
      protocol: {type: str, choices: [tcp, udp], default: tcp, description: Protocol.}
      sources:
        type: list
        elements: str
        default: []
        description: Networks it is open to; none means all.
      purpose: {type: str, required: true, description: The rest of the comment.}
  ssh_ports:
    type: list
    elements: int
    default: []
    description: Further ports of sshd, beside those found.
  ssh_sources:
    type: list
    elements: str
    default: []
    description: Networks ssh is open to; none means all.
  ipv6: {type: bool, default: true, description: Whether ufw guards IPv6 too.}
  patience_seconds:
    type: int
    default: 45
    description: How long the dead-man switch waits to be disarmed.
author: ptslink authors
"""

PROC = Path("/proc")
DEFAULTS = Path("/etc/default/ufw")
LISTEN = "0A"
#: What ufw keeps its state in: the former rules are these files, and whether it was enabled.
FILES = ("/etc/default/ufw", "/etc/ufw/ufw.conf", "/etc/ufw/user.rules", "/etc/ufw/user6.rules")
KEPT = Path("/var/lib/ptslink-firewall")
TIMER = "ptslink-firewall-deadman"
SSH_UNITS = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")


class Refused(Exception):
    """The firewall was not touched, or could not be brought to the wanted state."""


@dataclass(frozen=True)
class Rule:
    """One thing let in: a port, from one network or from anywhere."""

    port: int
    protocol: str
    source: str | None
    purpose: str = field(compare=False)

    def words(self) -> list[str]:
        """As the words ufw takes, and prints in `ufw show added`."""
        if self.source is None:
            return ["allow", f"{self.port}/{self.protocol}"]
        return [
            *("allow", "from", self.source),
            *("to", "any", "port", str(self.port), "proto", self.protocol),
        ]


@dataclass
class State:
    """What ufw has: rules as it prints them, without the comment -> the comment."""

    active: bool
    incoming: str
    rules: dict[str, str]
    ipv6: bool

    def text(self) -> str:
        """For a diff a person reads."""
        lines = [
            f"status: {'active' if self.active else 'inactive'}",
            f"incoming: {self.incoming}",
            f"ipv6: {'yes' if self.ipv6 else 'no'}",
            *(
                f"{rule}{f'  # {comment}' if comment else ''}"
                for rule, comment in self.rules.items()
            ),
        ]
        return "\n".join(lines) + "\n"


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


def parse_added(output: str) -> dict[str, str]:
    """`ufw show added` -> {rule: comment}."""
    rules = {}
    for line in output.splitlines():
        words = shlex.split(line)
        if len(words) < 2 or words[0] != "ufw":
            continue
        comment = ""
        if len(words) > 3 and words[-2] == "comment":
            comment = words[-1]
            words = words[:-2]
        rules[" ".join(words[1:])] = comment
    return rules


def parse_incoming(output: str) -> str:
    """The incoming policy `ufw status verbose` prints, or "unset"."""
    found = re.search(r"^Default: (\w+) \(incoming\)", output, re.MULTILINE)
    return found.group(1) if found else "unset"


@dataclass(frozen=True)
class Plan:
    """What has to be done, in the order that never locks out."""

    first: list[Rule]
    add: list[Rule]
    remove: list[str]
    deny: bool
    enable: bool
    ipv6: bool

    def __bool__(self) -> bool:
        return bool(self.first or self.add or self.remove or self.deny or self.enable or self.ipv6)


def plan(
    state: State, ssh: Sequence[Rule], link: Sequence[Rule], mark: str, want_ipv6: bool
) -> Plan:
    """Compare; a stranger's rule that lets the same in is enough, and stays a stranger's."""

    def missing(rule: Rule) -> bool:
        comment = state.rules.get(" ".join(rule.words()))
        return comment is None or (
            comment.startswith(mark) and comment != f"{mark}: {rule.purpose}"
        )

    wanted = {" ".join(rule.words()) for rule in [*ssh, *link]}
    return Plan(
        first=[rule for rule in ssh if missing(rule)],
        add=[rule for rule in link if missing(rule)],
        remove=[
            text
            for text, comment in state.rules.items()
            if comment.startswith(mark) and text not in wanted
        ],
        deny=state.incoming not in ("deny", "reject"),
        enable=not state.active,
        ipv6=state.ipv6 != want_ipv6,
    )


def outcome(state: State, todo: Plan, mark: str, want_ipv6: bool) -> State:
    """The state the plan leads to, for check mode and the diff."""
    kept = {text: comment for text, comment in state.rules.items() if text not in todo.remove}
    first = {" ".join(rule.words()): f"{mark}: {rule.purpose}" for rule in todo.first}
    added = {" ".join(rule.words()): f"{mark}: {rule.purpose}" for rule in todo.add}
    return State(
        active=True,
        incoming="deny" if todo.deny else state.incoming,
        rules={**first, **{k: v for k, v in kept.items() if k not in first}, **added},
        ipv6=want_ipv6,
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


class Ufw:
    """The ufw command."""

    def __init__(self, binary: str) -> None:
        self._binary = binary

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            [self._binary, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if done.returncode:
            raise Refused(f"`ufw {' '.join(words)}` said: {done.stdout.strip()}")
        return done.stdout

    def state(self) -> State:
        status = self("status", "verbose")
        configured = DEFAULTS.read_text(encoding="utf-8")
        policy = re.search(r'^DEFAULT_INPUT_POLICY="?(\w+)', configured, re.MULTILINE)
        words = {"DROP": "deny", "REJECT": "reject", "ACCEPT": "allow"}
        return State(
            active="Status: active" in status,
            incoming=words.get(policy.group(1), "unset") if policy else parse_incoming(status),
            rules=parse_added(self("show", "added")),
            ipv6=re.search(r'^IPV6="?yes', configured, re.MULTILINE | re.IGNORECASE) is not None,
        )

    def apply(self, todo: Plan, mark: str, want_ipv6: bool) -> None:
        """Allow ssh, allow the rest, close what is ours and no longer wanted, deny, enable."""
        if todo.ipv6:
            text = DEFAULTS.read_text(encoding="utf-8")
            line = f"IPV6={'yes' if want_ipv6 else 'no'}"
            fresh, found = re.subn(r"^IPV6=.*$", line, text, flags=re.MULTILINE)
            partial = DEFAULTS.with_name(".ufw.new")
            partial.write_text(fresh if found else f"{text}{line}\n", encoding="utf-8")
            partial.chmod(0o644)
            partial.replace(DEFAULTS)
        for rule in reversed(todo.first):
            # Before every rule there is, a stranger's "deny" among them.
            self("prepend", *rule.words(), "comment", f"{mark}: {rule.purpose}")
        for rule in todo.add:
            self(*rule.words(), "comment", f"{mark}: {rule.purpose}")
        for text in todo.remove:
            self("--force", "delete", *text.split())
        if todo.deny:
            self("default", "deny", "incoming")
        if todo.enable:
            self("--force", "enable")
        elif todo.ipv6:
            self("reload")


def restore_script(kept: Path, active: bool) -> str:
    """What puts the former rules back, without help from anyone: plain shell, no network."""
    lines = ["#!/bin/sh", "# Puts back the firewall rules from before a change nobody confirmed."]
    lines += [f"cp -p {shlex.quote(str(kept / Path(name).name))} {name}" for name in FILES]
    lines.append("ufw reload" if active else "ufw --force disable")
    lines.append("logger -t ptslink-firewall 'change not confirmed: the former rules are back'")
    return "\n".join(lines) + "\n"


def arm(active: bool, patience: int) -> str:
    """Keep the former rules and start the timer that puts them back; its name."""
    disarm()
    KEPT.mkdir(mode=0o700, exist_ok=True)
    for name in FILES:
        if Path(name).exists():
            shutil.copy2(name, KEPT / Path(name).name)
    script = KEPT / "restore"
    script.write_text(restore_script(KEPT, active), encoding="utf-8")
    os.sync()
    done = subprocess.run(
        [
            *("systemd-run", f"--unit={TIMER}", f"--on-active={patience}s", "--collect"),
            *("--timer-property=AccuracySec=100ms", "/bin/sh", str(script)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused(f"the dead-man switch could not be armed: {done.stdout.strip()}")
    return f"{TIMER}.timer"


def disarm() -> None:
    """Stop a switch an earlier, interrupted run has left; its rules have been confirmed or not."""
    subprocess.run(
        ["systemctl", "stop", f"{TIMER}.timer"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "mark": {"type": "str", "required": True},
            "rules": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "port": {"type": "int", "required": True},
                    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
                    "sources": {"type": "list", "elements": "str", "default": []},
                    "purpose": {"type": "str", "required": True},
                },
            },
            "ssh_ports": {"type": "list", "elements": "int", "default": []},
            "ssh_sources": {"type": "list", "elements": "str", "default": []},
            "ipv6": {"type": "bool", "default": True},
            "patience_seconds": {"type": "int", "default": 45},
        },
        supports_check_mode=True,
    )
    mark, ipv6 = module.params["mark"], module.params["ipv6"]
    connection = this_connection()
    ports = sshd_ports() | set(module.params["ssh_ports"])
    if connection:
        ports.add(connection[1])
    if not ports:
        module.fail_json(
            msg="No port of sshd could be found on this host, so nothing was denied and nothing "
            "changed. Fix: name it in host_firewall_ssh_ports."
        )
    ssh = list(
        ssh_rules(ports, module.params["ssh_sources"], connection[0] if connection else None)
    )
    link = list(link_rules(module.params["rules"]))
    binary = module.get_bin_path("ufw")
    armed = ""
    try:
        if binary is None:
            if not module.check_mode:
                raise Refused("ufw is not installed")
            state = State(active=False, incoming="unset", rules={}, ipv6=ipv6)
        else:
            state = Ufw(binary).state()
        todo = plan(state, ssh, link, mark, ipv6)
        after = outcome(state, todo, mark, ipv6)
        if todo and binary is not None and not module.check_mode:
            ufw = Ufw(binary)
            armed = arm(state.active, module.params["patience_seconds"])
            ufw.apply(todo, mark, ipv6)
            after = ufw.state()
            left = plan(after, ssh, link, mark, ipv6)
            if left:
                raise Refused(f"after the change ufw still lacks: {left}")
    except (Refused, OSError, ValueError) as error:
        module.fail_json(msg=f"The firewall could not be brought to its rules: {error}")
    module.exit_json(
        changed=bool(todo),
        armed=armed,
        ssh_ports=sorted(ports),
        run_from=connection[0] if connection else None,
        strangers=[text for text, comment in after.rules.items() if not comment.startswith(mark)],
        diff={"before": state.text(), "after": after.text()},
    )


if __name__ == "__main__":
    main()
