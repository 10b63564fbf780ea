#!/usr/bin/python
"""firewalld brought to a list of rules in two policies of our own: ssh first, then the rest."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

from ansible.module_utils import host_firewall_rate as rate
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_firewall_guard import (
    ARGUMENTS,
    Refused,
    Rule,
    arm,
    keep,
    link_rules,
    must,
    pending,
    put_back,
    said,
    shut_to,
    ssh_found,
)

DOCUMENTATION = r"""
module: host_firewall_firewalld
short_description: Brings firewalld to a list of allowed ports without ever locking anyone out
description:
  - >-
    The port sshd really listens on (not the one its configuration names), the port this very
    connection came in on, and the address it came from are allowed before anything is denied.
  - >-
    firewalld has no comments, so what is ours is ours by place: two policies from ANY zone to the
    HOST, named after the mark, which no zone or interface has to be changed for. C(MARK-ssh) comes
    before every zone, C(MARK) after, so a zone's own denials hold for the link. No other file is
    ever written; what zones and other policies let in is kept and returned as C(strangers).
  - >-
    Policies that firewalld already runs are changed in place. It is reloaded only to learn of new
    ones, after C(firewall-cmd --check-config), and what others have put in for this boot only is
    put in again. A firewalld that does not come up is put back at once.
  - >-
    Limits of new connections are an nft table named after the mark, ahead of firewalld's own,
    with a unit that brings it back after a reboot: a limit in a rich rule counts all addresses
    together.
  - >-
    Before a change it arms a dead-man switch: a unit of the host itself that puts the former
    rules back unless it is disarmed in time, which the caller does over a new connection. Returns
    C(armed), the file whose removal disarms it, or nothing where nothing changed; and
    C(pending), that of one that an interrupted run has left, check mode or not.
  - Returns C(ipv6), whether our ports are open over IPv6 too.
options:
  mark: {type: str, required: true, description: What our policies are named after.}
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
      rate:
        type: int
        default: 0
        description: New connections a second that one address may open to it; 0 sets no limit.
      purpose: {type: str, required: true, description: Written beside the rule.}
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
  ipv6:
    type: str
    choices: [keep, needed, "no", "yes"]
    default: needed
    description: C(no) opens our ports over IPv4 alone.
  patience_seconds:
    type: int
    default: 45
    description: How long the dead-man switch waits to be disarmed.
author: ptslink authors
"""

ETC = Path("/etc/firewalld")
UNIT = "firewalld.service"
#: Placed there before the package is installed, so that installing it starts nothing.
MASK = Path("/etc/systemd/system/firewalld.service")
#: Policies below 0 come before the zones, those above 0 after them.
PRIORITIES = {"ssh": -1000, "link": 1000}
#: What a zone may let in -> the option that puts it in.
LETS_IN = {
    "services": "--add-service",
    "ports": "--add-port",
    "protocols": "--add-protocol",
    "source-ports": "--add-source-port",
    "sources": "--add-source",
    "forward-ports": "--add-forward-port",
    "rich rules": "--add-rich-rule",
}


def rich(rule: Rule, ipv6: bool) -> str:
    """A rule in firewalld's rich language, spelt as firewalld prints it."""
    port = f'port port="{rule.port}" protocol="{rule.protocol}" accept'
    if rule.source is None:
        return f"rule {port}" if ipv6 else f'rule family="ipv4" {port}'
    family = "ipv6" if ":" in rule.source else "ipv4"
    return f'rule family="{family}" source address="{rule.source}" {port}'


@dataclass(frozen=True)
class Policy:
    """One of ours: what it lets in, as rich rules -> purpose."""

    name: str
    priority: int
    rules: Mapping[str, str]

    def xml(self) -> str:
        """The file firewalld reads."""
        lines = [
            '<?xml version="1.0" encoding="utf-8"?>',
            f'<policy priority="{self.priority}" target="CONTINUE">',
            f"  <short>{self.name}</short>",
            "  <description>Written by ptslink, which rewrites it on its next run.</description>",
            '  <ingress-zone name="ANY"/>',
            '  <egress-zone name="HOST"/>',
        ]
        for text, purpose in self.rules.items():
            words = dict(re.findall(r'(\w+)="([^"]*)"', text))
            family = f" family={quoteattr(words['family'])}" if "family" in words else ""
            lines += [f"  <!-- {purpose.replace('--', '- -')} -->", f"  <rule{family}>"]
            if "address" in words:
                lines.append(f"    <source address={quoteattr(words['address'])}/>")
            lines += [
                f'    <port port="{words["port"]}" protocol="{words["protocol"]}"/>',
                "    <accept/>",
                "  </rule>",
            ]
        return "\n".join([*lines, "</policy>", ""])


def read_policy(text: str) -> tuple[int, frozenset[str]] | None:
    """(priority, rich rules) of a file; None where it holds anything a policy of ours does not."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError:
        return None
    rules = set()
    ends = []
    for child in root:
        if child.tag in ("ingress-zone", "egress-zone"):
            ends.append((child.tag, child.get("name")))
        elif child.tag == "rule":
            parts = {part.tag: part for part in child}
            port, source = parts.pop("port", None), parts.pop("source", None)
            if port is None or parts.pop("accept", None) is None or parts:
                return None
            if set(child.attrib) - {"family"} or (
                source is not None and set(source.attrib) - {"address"}
            ):
                return None
            rules.add(
                " ".join(
                    [
                        "rule",
                        *([f'family="{child.get("family")}"'] if child.get("family") else []),
                        *(
                            [f'source address="{source.get("address")}"']
                            if source is not None
                            else []
                        ),
                        f'port port="{port.get("port")}" protocol="{port.get("protocol")}" accept',
                    ]
                )
            )
        elif child.tag not in ("short", "description"):
            return None
    if (
        ends != [("ingress-zone", "ANY"), ("egress-zone", "HOST")]
        or root.get("target") != "CONTINUE"
    ):
        return None
    return int(root.get("priority", "-1")), frozenset(rules)


def parse_zones(output: str) -> dict[str, dict[str, list[str]]]:
    """`--list-all-zones` -> {zone: {key: entries}}."""
    zones: dict[str, dict[str, list[str]]] = {}
    zone: dict[str, list[str]] = {}
    key = ""
    for line in output.splitlines():
        if not line.strip():
            continue
        if not line[0].isspace():
            zone = zones.setdefault(line.split()[0], {})
        elif line.startswith("\t"):
            zone.setdefault(key, []).append(line.strip())
        else:
            key, _, rest = line.strip().partition(":")
            entries = [rest.strip()] if key == "rich rules" and rest.strip() else rest.split()
            zone[key] = entries
    return zones


def in_force(zones: Mapping[str, Mapping[str, list[str]]], default: str) -> Iterator[str]:
    """Zones that something can come in through."""
    for name, zone in zones.items():
        if name == default or zone.get("interfaces") or zone.get("sources"):
            yield name


def volatile(
    runtime: Mapping[str, Mapping[str, list[str]]], permanent: Mapping[str, Mapping[str, list[str]]]
) -> list[list[str]]:
    """Arguments that put in again what is there for this boot only: a reload forgets it."""
    return [
        [f"--zone={name}", f"{option}={entry}"]
        for name, zone in runtime.items()
        for key, option in LETS_IN.items()
        for entry in zone.get(key, [])
        if entry not in permanent.get(name, {}).get(key, [])
    ]


@dataclass
class State:
    """What firewalld has, on disk and running."""

    active: bool
    enabled: bool
    default_zone: str
    zones: dict[str, dict[str, list[str]]]
    #: Name of a policy of ours -> what its file holds.
    files: dict[str, tuple[int, frozenset[str]] | None]
    #: Name of a policy of ours -> the rich rules that are in force; None where it is not known.
    running: dict[str, frozenset[str] | None]
    others: list[str] = field(default_factory=list)

    def strangers(self) -> list[str]:
        """What others let in or deny, a line each."""
        lines = []
        for name in in_force(self.zones, self.default_zone):
            zone = self.zones[name]
            for key in LETS_IN:
                if key != "sources":
                    lines += [
                        f"zone {name}: {key.removesuffix('s')} {one}" for one in zone.get(key, [])
                    ]
            target = " ".join(zone.get("target", []))
            if target not in ("", "default", "%%REJECT%%", "DROP"):
                lines.append(f"zone {name}: target {target}")
        return lines + self.others

    def text(self) -> str:
        """For a diff a person reads."""
        lines = [
            f"status: {'active' if self.active else 'inactive'}",
            f"after a reboot: {'enabled' if self.enabled else 'disabled'}",
            *(
                f"{name}: {rule}"
                for name, held in self.files.items()
                for rule in sorted(held[1] if held else [])
            ),
            *self.strangers(),
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Plan:
    """What has to be done."""

    write: list[Policy]
    live: list[Policy]
    reload: bool
    start: bool

    def __bool__(self) -> bool:
        return bool(self.write or self.live or self.reload or self.start)

    def __str__(self) -> str:
        names = dict.fromkeys(policy.name for policy in [*self.write, *self.live])
        parts = [
            *(f"the policy {name}" for name in names),
            *(["a reload"] if self.reload else []),
            *(["a start, now or at boot"] if self.start else []),
        ]
        return ", ".join(parts)


def policies(ssh: Sequence[Rule], link: Sequence[Rule], mark: str, ipv6: bool) -> list[Policy]:
    """Ours, ssh first. Where this run comes from is let in by IPv6 whatever ``ipv6`` says."""

    def rules(wanted: Iterable[Rule]) -> dict[str, str]:
        return {rich(rule, ipv6): rule.purpose for rule in wanted}

    return [
        Policy(f"{mark}-ssh", PRIORITIES["ssh"], rules(ssh)),
        Policy(mark, PRIORITIES["link"], rules(link)),
    ]


def plan(state: State, wanted: Sequence[Policy]) -> Plan:
    """Compare what is on disk and what is in force with what is wanted."""
    return Plan(
        write=[p for p in wanted if state.files.get(p.name) != (p.priority, frozenset(p.rules))],
        live=[
            p
            for p in wanted
            if state.running.get(p.name) is not None and state.running[p.name] != frozenset(p.rules)
        ],
        reload=state.active
        and any(
            state.running.get(p.name) is None
            or (held := state.files.get(p.name)) is None
            or held[0] != p.priority
            for p in wanted
        ),
        start=not state.active or not state.enabled,
    )


def outcome(state: State, wanted: Sequence[Policy]) -> State:
    """The state the plan leads to, for check mode and the diff."""
    return State(
        active=True,
        enabled=True,
        default_zone=state.default_zone,
        zones=state.zones,
        files={p.name: (p.priority, frozenset(p.rules)) for p in wanted},
        running={p.name: frozenset(p.rules) for p in wanted},
        others=state.others,
    )


def path_of(policy: str) -> Path:
    return ETC / "policies" / f"{policy}.xml"


def read_state(names: Sequence[str]) -> State:
    """What there is; works whether firewalld runs or not, and changes nothing."""
    active = said("firewall-cmd", "--state")[0] == 0
    ask = "firewall-cmd" if active else "firewall-offline-cmd"
    running: dict[str, frozenset[str] | None] = dict.fromkeys(names)
    if active:
        known = must("firewall-cmd", "--get-policies").split()
        for name in set(names) & set(known):
            printed = must("firewall-cmd", f"--policy={name}", "--list-rich-rules")
            running[name] = frozenset(printed.splitlines())
    others = [
        f"policy {path.stem}"
        for path in sorted((ETC / "policies").glob("*.xml"))
        if path.stem not in names
    ]
    if (ETC / "direct.xml").exists():
        others.append("direct rules (/etc/firewalld/direct.xml)")
    return State(
        active=active,
        enabled=said("systemctl", "is-enabled", UNIT)[1] == "enabled",
        default_zone=must(ask, "--get-default-zone"),
        zones=parse_zones(must(ask, "--list-all-zones")),
        files={
            name: read_policy(path_of(name).read_text(encoding="utf-8"))
            for name in names
            if path_of(name).exists()
        },
        running=running,
        others=others,
    )


def way_back(state: State, again: Sequence[Sequence[str]]) -> list[str]:
    """The shell lines that put back our files, and firewalld as it was."""
    lines = keep(str(path_of(name)) for name in state.running)
    if state.active:
        lines.append("timeout 20 firewall-cmd --reload || systemctl restart firewalld.service")
        lines += [f"firewall-cmd {' '.join(map(quoted, words))}" for words in again]
    else:
        lines.append("systemctl stop firewalld.service")
    if not state.enabled:
        # Nor masked again: the mask was ours, and one left behind would keep firewalld from
        # whoever starts it by hand.
        lines.append("systemctl disable firewalld.service")
    return lines


def quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def masked() -> bool:
    return MASK.is_symlink() and str(MASK.readlink()) == "/dev/null"


def apply(todo: Plan, again: Sequence[Sequence[str]], offline: bool) -> None:
    """Write our policies, have them checked, put them in force; the caller has armed a way back.

    ``offline``: firewalld does not run, and firewall-cmd asks only one that does.
    """
    for policy in todo.write:
        path = path_of(policy.name)
        path.parent.mkdir(mode=0o750, exist_ok=True)
        partial = path.with_name(f".{path.name}.new")
        partial.write_text(policy.xml(), encoding="utf-8")
        partial.chmod(0o644)
        partial.replace(path)
    must(f"firewall-{'offline-' if offline else ''}cmd", "--check-config")
    if todo.reload:
        must("firewall-cmd", "--reload")
        for words in again:
            # A stranger's, and already gone where its owner was faster: no reason to stop.
            said("firewall-cmd", *words)
    else:
        for policy in todo.live:
            change(policy)
    if todo.start:
        if masked():
            MASK.unlink()
            must("systemctl", "daemon-reload")
        must("systemctl", "enable", UNIT)
        must("systemctl", "start", UNIT)
    must("firewall-cmd", "--state")


def change(policy: Policy) -> None:
    """Bring a policy that runs to its rules: first what is new, then what is no longer wanted."""
    option = f"--policy={policy.name}"
    now = set(must("firewall-cmd", option, "--list-rich-rules").splitlines())
    for rule in policy.rules:
        if rule not in now:
            must("firewall-cmd", option, f"--add-rich-rule={rule}")
    for rule in sorted(now - set(policy.rules)):
        must("firewall-cmd", option, f"--remove-rich-rule={rule}")


def refuse_open(state: State) -> None:
    """A default zone that lets everything in is somebody's to change; nothing of ours can deny."""
    target = " ".join(state.zones.get(state.default_zone, {}).get("target", []))
    if target == "ACCEPT":
        raise Refused(
            f"the default zone {state.default_zone} lets everything in, and it is not ours to "
            "change. Fix: firewall-cmd --set-default-zone=public, then run again"
        )


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    mark = module.params["mark"]
    # An interrupted run may have left its change unconfirmed.
    waiting = pending()
    armed = "" if module.check_mode else waiting
    installed, nft = bool(module.get_bin_path("firewall-cmd")), module.get_bin_path("nft")
    try:
        ssh, ports, run_from = ssh_found(module.params["ssh_ports"], module.params["ssh_sources"])
        link = list(link_rules(module.params["rules"]))
        limits = rate.wanted_held(rate.limits(module.params["rules"], ports), nft, mark)
        wanted = policies(ssh, link, mark, module.params["ipv6"] != "no")
        names = [policy.name for policy in wanted]
        if installed:
            state = read_state(names)
            refuse_open(state)
        elif module.check_mode:
            state = State(False, False, "public", {}, {}, dict.fromkeys(names))
        else:
            raise Refused("firewalld is not installed")
        limited = rate.read(nft, mark)
        todo = plan(state, wanted)
        after = outcome(state, wanted)
        changed = bool(todo) or limited != limits
        if changed and not module.check_mode:
            rate.check(limits, nft)
            again: list[list[str]] = []
            if state.active:
                permanent = parse_zones(must("firewall-cmd", "--permanent", "--list-all-zones"))
                again = volatile(state.zones, permanent)
            armed = arm(
                lambda: way_back(state, again) + rate.way_back(limited, nft, mark),
                module.params["patience_seconds"],
            )
            try:
                if todo:
                    apply(todo, again, offline=not state.active)
                rate.bring(limited, limits, nft, mark)
                after = read_state(names)
                left = plan(after, wanted)
                if left:
                    raise Refused(f"after the change firewalld still lacks {left}")
            except (Refused, OSError):
                # Half a change, or a firewalld that denies all it could not load.
                put_back()
                raise
    except (Refused, OSError, ValueError) as error:
        module.fail_json(msg=f"The firewall could not be brought to its rules: {error}")
    if warning := shut_to(run_from, link):
        module.warn(warning)
    module.exit_json(
        changed=changed,
        armed=armed,
        ipv6=module.params["ipv6"] != "no",
        pending=waiting,
        ssh_ports=ports,
        run_from=run_from,
        strangers=after.strangers(),
        diff={
            "before": "\n".join([state.text().rstrip(), *limited.lines, ""]),
            "after": "\n".join([after.text().rstrip(), *limits.lines, ""]),
        },
    )


if __name__ == "__main__":
    main()
