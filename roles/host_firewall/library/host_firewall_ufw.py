#!/usr/bin/python
"""ufw brought to a list of rules in one go: ssh first, only marked rules removed, then deny."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils import host_firewall_rate as rate
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_firewall_guard import (
    ARGUMENTS,
    Refused,
    Rule,
    arm,
    keep,
    link_rules,
    pending,
    shut_to,
    ssh_found,
    ufw_limited,
)

DOCUMENTATION = r"""
module: host_firewall_ufw
short_description: Brings ufw to a list of allowed ports without ever locking anyone out
description:
  - >-
    The port sshd really listens on (not the one its configuration names), the port this very
    connection came in on, and the address it came from are allowed before anything is denied.
  - >-
    Every rule it writes carries a mark as its comment. Only marked rules are ever removed; other
    rules are kept and returned as C(strangers). Somebody's denial of what is to be let in is
    refused, not turned into its opposite, which is what ufw makes of it; somebody's limit of ssh
    counts as letting it in.
  - Never resets, and never denies before it has allowed.
  - >-
    Limits of new connections are an nft table named after the mark, ahead of ufw's own, with a
    unit that brings it back after a reboot.
  - >-
    Before a change it arms a dead-man switch: a unit of the host itself that puts the former
    rules back unless it is disarmed in time, which the caller does over a new connection. Returns
    C(armed), the file whose removal disarms it, or nothing where nothing changed; and
    C(pending), that of one that an interrupted run has left, check mode or not.
  - Returns C(ipv6), whether ufw guards IPv6 now.
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
      rate:
        type: int
        default: 0
        description: New connections a second that one address may open to it; 0 sets no limit.
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
  ipv6:
    type: str
    choices: [keep, needed, "no", "yes"]
    default: needed
    description: >-
      What ufw's IPV6 is to be. C(keep) leaves it as it is; C(needed) does not change somebody's
      C(IPV6=no) either, and refuses it.
  patience_seconds:
    type: int
    default: 45
    description: How long the dead-man switch waits to be disarmed.
author: ptslink authors
"""

DEFAULTS = Path("/etc/default/ufw")
USER_RULES = Path("/etc/ufw/user.rules")
#: What ufw keeps its state in: the former rules are these files, and whether it was enabled.
FILES = ("/etc/default/ufw", "/etc/ufw/ufw.conf", "/etc/ufw/user.rules", "/etc/ufw/user6.rules")


def words(rule: Rule) -> list[str]:
    """A rule as the words ufw takes, and prints in `ufw show added`."""
    if rule.source is None:
        return ["allow", f"{rule.port}/{rule.protocol}"]
    return [
        *("allow", "from", rule.source),
        *("to", "any", "port", str(rule.port), "proto", rule.protocol),
    ]


@dataclass
class State:
    """What ufw has: rules as it prints them, without the comment -> the comment."""

    active: bool
    incoming: str
    rules: dict[str, str]
    ipv6: bool
    #: Ports that ufw limits for everybody.
    limited: frozenset[int] = frozenset()

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


def parse_added(output: str) -> dict[str, str]:
    """`ufw show added` -> {rule: comment}."""
    rules = {}
    for line in output.splitlines():
        printed = shlex.split(line)
        if len(printed) < 2 or printed[0] != "ufw":
            continue
        comment = ""
        if len(printed) > 3 and printed[-2] == "comment":
            comment = printed[-1]
            printed = printed[:-2]
        rules[" ".join(printed[1:])] = comment
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

    def __str__(self) -> str:
        parts = [
            *(f"`{' '.join(words(rule))}`" for rule in [*self.first, *self.add]),
            *(f"the removal of `{text}`" for text in self.remove),
            *(["`default deny incoming`"] if self.deny else []),
            *(["`enable`"] if self.enable else []),
            *([f"another IPV6 in {DEFAULTS}"] if self.ipv6 else []),
        ]
        return ", ".join(parts)


def matched(text: str) -> str:
    """What a rule matches: to ufw, two rules that match the same are one, whatever they do."""
    _, *matches = text.split()
    return " ".join(matches[1:] if matches[0] in ("log", "log-all") else matches)


def refuse_opposites(state: State, ssh: Sequence[Rule], link: Sequence[Rule]) -> None:
    """Refused where somebody denies, or limits, just what is to be let in."""
    theirs = {matched(text): text for text in state.rules}
    for rule in [*ssh, *link]:
        text = theirs.get(matched(" ".join(words(rule))), "")
        limits = text.startswith("limit ") and rule.purpose == "controllers"
        if text.startswith(("deny ", "reject ")) or limits:
            raise Refused(
                f"ufw has somebody's `{text}`, and {rule.purpose} shall come in on port "
                f"{rule.port}. Fix: `ufw delete {text}`, or another port"
            )


def plan(
    state: State, ssh: Sequence[Rule], link: Sequence[Rule], mark: str, want_ipv6: bool
) -> Plan:
    """Compare; a stranger's rule that lets the same in is enough, and stays a stranger's.

    So is a stranger's limit of ssh.
    """

    def missing(rule: Rule) -> bool:
        if rule.port in state.limited and rule in ssh:
            return False
        comment = state.rules.get(" ".join(words(rule)))
        return comment is None or (
            comment.startswith(mark) and comment != f"{mark}: {rule.purpose}"
        )

    wanted = {" ".join(words(rule)) for rule in [*ssh, *link]}
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
    first = {" ".join(words(rule)): f"{mark}: {rule.purpose}" for rule in todo.first}
    added = {" ".join(words(rule)): f"{mark}: {rule.purpose}" for rule in todo.add}
    return State(
        active=True,
        incoming="deny" if todo.deny else state.incoming,
        rules={**first, **{k: v for k, v in kept.items() if k not in first}, **added},
        ipv6=want_ipv6,
    )


class Ufw:
    """The ufw command."""

    def __init__(self, binary: str) -> None:
        self._binary = binary

    def __call__(self, *said: str) -> str:
        done = subprocess.run(
            [self._binary, *said],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if done.returncode:
            raise Refused(f"`ufw {' '.join(said)}` said: {done.stdout.strip()}")
        return done.stdout

    def state(self) -> State:
        status = self("status", "verbose")
        configured = DEFAULTS.read_text(encoding="utf-8")
        policy = re.search(r'^DEFAULT_INPUT_POLICY="?(\w+)', configured, re.MULTILINE)
        policies = {"DROP": "deny", "REJECT": "reject", "ACCEPT": "allow"}
        return State(
            active="Status: active" in status,
            incoming=policies.get(policy.group(1), "unset") if policy else parse_incoming(status),
            rules=parse_added(self("show", "added")),
            limited=frozenset(ufw_limited(USER_RULES.read_text(encoding="utf-8"))),
            ipv6=re.search(r'^IPV6="?yes', configured, re.MULTILINE | re.IGNORECASE) is not None,
        )

    def apply(self, state: State, todo: Plan, mark: str, want_ipv6: bool) -> None:
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
            # Before every rule there is, a stranger's "deny" among them. One that is there already
            # ufw would skip, whatever its comment: that is renewed in place.
            there = " ".join(words(rule)) in state.rules
            how = [] if there else ["prepend"]
            self(*how, *words(rule), "comment", f"{mark}: {rule.purpose}")
        for rule in todo.add:
            self(*words(rule), "comment", f"{mark}: {rule.purpose}")
        for text in todo.remove:
            self("--force", "delete", *text.split())
        if todo.deny:
            self("default", "deny", "incoming")
        if todo.enable:
            self("--force", "enable")
        elif todo.ipv6:
            self("reload")


def wanted_ipv6(state: State, asked: str, run_from: str | None) -> bool:
    """Whether ufw is to guard IPv6; Refused where that would change somebody's IPV6=no unasked."""
    if asked == "keep" and run_from and ":" in run_from:
        asked = "needed"
    if asked == "needed" and not state.ipv6:
        raise Refused(
            f"{DEFAULTS} has IPV6=no, and the link, or this run, comes in by IPv6. Fix: "
            "host_firewall_ipv6: true changes it, or listeners without IPv6"
        )
    return state.ipv6 if asked == "keep" else asked != "no"


def way_back(active: bool, limits: list[str]) -> list[str]:
    """The shell lines that put the former rules back, and then the former limits."""
    return [*keep(FILES), "ufw reload" if active else "ufw --force disable", *limits]


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    mark, asked = module.params["mark"], module.params["ipv6"]
    binary, nft = module.get_bin_path("ufw"), module.get_bin_path("nft")
    # An interrupted run may have left its change unconfirmed.
    waiting = pending()
    armed = "" if module.check_mode else waiting
    try:
        ssh, ports, run_from = ssh_found(module.params["ssh_ports"], module.params["ssh_sources"])
        link = list(link_rules(module.params["rules"]))
        limits = rate.wanted_held(rate.limits(module.params["rules"], ports), nft, mark)
        if binary is None:
            if not module.check_mode:
                raise Refused("ufw is not installed")
            state = State(active=False, incoming="unset", rules={}, ipv6=asked != "no")
        else:
            state = Ufw(binary).state()
        refuse_opposites(state, ssh, link)
        ipv6 = wanted_ipv6(state, asked, run_from)
        limited = rate.read(nft, mark)
        todo = plan(state, ssh, link, mark, ipv6)
        after = outcome(state, todo, mark, ipv6)
        changed = bool(todo) or limited != limits
        if changed and binary is not None and not module.check_mode:
            ufw = Ufw(binary)
            rate.check(limits, nft)
            armed = arm(
                lambda: way_back(state.active, rate.way_back(limited, nft, mark)),
                module.params["patience_seconds"],
            )
            ufw.apply(state, todo, mark, ipv6)
            rate.bring(limited, limits, nft, mark)
            after = ufw.state()
            left = plan(after, ssh, link, mark, ipv6)
            if left:
                raise Refused(f"after the change ufw still lacks {left}")
    except (Refused, OSError, ValueError) as error:
        module.fail_json(msg=f"The firewall could not be brought to its rules: {error}")
    if warning := shut_to(run_from, link):
        module.warn(warning)
    module.exit_json(
        changed=changed,
        armed=armed,
        ipv6=after.ipv6,
        pending=waiting,
        ssh_ports=ports,
        run_from=run_from,
        strangers=[text for text, comment in after.rules.items() if not comment.startswith(mark)],
        diff={
            "before": "\n".join([state.text().rstrip(), *limited.lines, ""]),
            "after": "\n".join([after.text().rstrip(), *limits.lines, ""]),
        },
    )


if __name__ == "__main__":
    main()
