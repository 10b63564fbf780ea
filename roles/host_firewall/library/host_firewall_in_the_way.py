#!/usr/bin/python
"""What on a host would keep a packet from the link or from ssh, whoever put it there."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.host_firewall_guard import (
    ARGUMENTS,
    said,
    this_connection,
    ufw_limited,
)

from ptslink.doctor.collect import firewall
from ptslink.doctor.collect.firewall import Chain, Outcome, Packet, Place, Rule, Table

DOCUMENTATION = r"""
module: host_firewall_in_the_way
short_description: What would keep a packet from the link's ports or from ssh
description:
  - >-
    Walks the first packet of a connection through every table of nft and iptables, as they will be
    once the firewall to manage lets our ports in. Changes nothing, and is run by C(preflight_look)
    alone, which sends the walk of C(ptslink doctor) along.
  - Returns C(complaints), a sentence each, with table, chain, rule and what mends it.
options:
  backend: {type: str, choices: [auto, ufw, firewalld], required: true, description: To manage.}
  family_backend: {type: str, required: true, description: C(auto), where no firewall is on.}
  ports:
    type: list
    elements: dict
    required: true
    description: Ports of the link.
    options:
      port: {type: int, required: true, description: Port.}
      sources: {type: list, elements: str, default: [], description: Networks; none means all.}
      families:
        type: list
        elements: str
        default: [ipv4, ipv6]
        description: What is heard on it.
  ipv6:
    type: str
    choices: [keep, needed, "no", "yes"]
    default: needed
    description: What is to become of ufw's IPV6, as of C(host_firewall_ufw).
author: ptslink authors
"""

#: What nftables.service reads.
NFT_FILES = ("/etc/nftables.conf", "/etc/sysconfig/nftables.conf")
#: What rules of iptables come from at a boot, by family -> how those now in force get there.
IPTABLES_FILES = {
    family: {
        f"/etc/iptables/rules.{version}": "netfilter-persistent save",
        "/etc/sysconfig/iptables": "service iptables save",
    }
    for family, version in (("ip", "v4"), ("ip6", "v6"))
}
UFW_DEFAULTS = "/etc/default/ufw"


class Host:
    """What is asked of the host; each command ends."""

    def read(self, path: str) -> str:
        """A file's text, or nothing where it cannot be read."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def run(self, *command: str) -> str:
        """What a command says, or nothing where it fails or is not there."""
        try:
            status, words = said(*command)
        except OSError:
            return ""
        return words if status == 0 else ""

    def enabled(self, unit: str) -> bool:
        """Whether a unit is started by a boot."""
        return any(Path("/etc/systemd/system").glob(f"*.wants/{unit}"))


def tables(host: Host) -> list[Table]:
    """Every table there is; those of the older iptables too, where its modules are loaded."""
    found: list[Table] = []
    for family, name in (("ip", "iptables"), ("ip6", "ip6tables")):
        found += firewall.read_iptables(host.run(f"{name}-save", "-c"), family)
        # Asking would load the modules.
        if host.read(f"/proc/net/{family}_tables_names").strip():
            older = firewall.read_iptables(host.run(f"{name}-legacy-save", "-c"), family)
            found += [table for table in older if table not in found]
    listing = host.run("nft", "-j", "list", "ruleset")
    return firewall.join(found, firewall.read_nft(listing)) if listing else found


def loaded(there: Iterable[Table]) -> str:
    """Which of the firewalls that can be managed has its rules in force, or nothing."""
    for table in there:
        if table.name == "firewalld" or "INPUT_ZONES" in table.chains:
            return "firewalld"
        if "ufw-before-input" in table.chains:
            return "ufw"
    return ""


def lets_in(port: int, source: str | None) -> Rule:
    """A rule of ours, as it will be."""
    conditions: list[dict[str, Any]] = [
        {"on": "protocol", "values": ["tcp"]},
        {"on": "dport", "values": [port]},
    ]
    if source is not None:
        conditions.append({"on": "source", "values": [source]})
    return Rule("ours", tuple(conditions), "accept")


def jump(chain: str) -> Rule:
    return Rule(f"-j {chain}", (), "jump", chain)


def with_ufw(
    there: list[Table], ours: Sequence[Rule], ssh: Sequence[Rule], host: Host
) -> list[Table]:
    """The tables once ufw is on with our rules; its own files say what it will load."""
    for family, prefix, number in (("ip", "ufw", ""), ("ip6", "ufw6", "6")):
        own = [table for table in there if (table.family, table.name) == (family, "filter")]
        table = own[0] if own else Table(family, "filter", "iptables")
        if not own:
            there.append(table)
        if f"{prefix}-before-input" not in table.chains:
            text = "\n".join(
                host.read(f"/etc/ufw/{part}{number}.rules") for part in ("before", "user", "after")
            )
            for loaded in firewall.read_iptables(text, family):
                if loaded.name != "filter":
                    there.append(loaded)
                    continue
                for name, chain in loaded.chains.items():
                    table.chains.setdefault(name, replace(chain, rules=[])).rules.extend(
                        chain.rules
                    )
            steps = [f"{prefix}-{part}-input" for part in ("before", "after")]
            for name in (*steps, f"{prefix}-user-input"):
                table.chains.setdefault(name, Chain(name))
            table.chains[steps[0]].rules.append(jump(f"{prefix}-user-input"))
            entry = table.chains.setdefault("INPUT", Chain("INPUT", "input"))
            entry.policy = "drop"
            entry.rules += map(jump, steps)
        user = table.chains.setdefault(f"{prefix}-user-input", Chain(f"{prefix}-user-input"))
        user.rules[:0] = ssh
        user.rules += ours
    return there


def with_firewalld(there: list[Table], ours: Sequence[Rule], ssh: Sequence[Rule]) -> list[Table]:
    """The tables once firewalld has our policies: ssh ahead of the zones, the link after them."""
    kept = []
    for table in there:
        if table.name == "firewalld":
            first = table.chains.get("filter_INPUT_POLICIES_pre")
            last = table.chains.get("filter_INPUT_POLICIES_post")
            if first is None or last is None:
                continue  # an older one, whose chains have other names: the role knows its zones
            first.rules[:0] = ssh
            last.rules += ours
        elif "INPUT_ZONES" in table.chains:
            continue  # firewalld by way of iptables
        kept.append(table)
    return kept


def interface_out(host: Host, family: str) -> str | None:
    """The interface of the default route, by which controllers come in."""
    if family == "ipv4":
        found = [
            (int(words[6]), words[0])
            for words in map(str.split, host.read("/proc/net/route").splitlines()[1:])
            if words[1] == words[7] == "0" * 8
        ]
    else:
        found = [
            (int(words[5], 16), words[-1])
            for words in map(str.split, host.read("/proc/net/ipv6_route").splitlines())
            if words[0] == "0" * 32 and words[1] == "00" and words[-1] != "lo"
        ]
    return min(found)[1] if found else None


def addresses(shown: str, interface: str | None, family: str) -> list[str | None]:
    """Global addresses of an interface, of `ip -j addr`; an unknown one where it has none."""
    kind = "inet" if family == "ipv4" else "inet6"
    found: list[str | None] = [
        one["local"]
        for link in json.loads(shown or "[]")
        for one in link.get("addr_info", ())
        if link.get("ifname") == interface and one["family"] == kind and one["scope"] == "global"
    ]
    return found or [None]


def shut(there: Sequence[Table], packets: Iterable[Packet], port: int) -> Outcome | None:
    """What keeps all of some packets from the socket on ``port``; None where one gets there."""
    blocked = None
    for packet in packets:
        outcome = firewall.trace(there, packet)
        elsewhere = outcome.dnat not in ("", f"{packet.destination}:{port}")
        turned = outcome.redirect not in (None, port)
        if outcome.verdict not in ("drop", "reject") and not elsewhere and not turned:
            return None
        blocked = blocked or outcome
    return blocked


def decider(outcome: Outcome) -> Place | None:
    """What is to be taken out of the way: one that is sent elsewhere dies of that first of all."""
    sent = outcome.dnat or outcome.redirect is not None
    return (outcome.sent_by if sent else None) or outcome.at


def all_shut(there: Sequence[Table], packets: Sequence[Packet], port: int) -> Iterator[Outcome]:
    """Everything that does so, each as if those before were out of the way."""
    taken: list[tuple[Place, int, str]] = []
    while (outcome := shut(there, packets, port)) is not None:
        place = decider(outcome)
        if place is None:
            break
        yield outcome
        chain, rule = place.chain, place.rule
        number = -1 if rule is None else next(n for n, one in enumerate(chain.rules) if one is rule)
        taken.append((place, number, chain.policy))
        if rule is None:
            chain.policy = "accept"
        else:
            del chain.rules[number]
    for place, number, policy in reversed(taken):
        place.chain.policy = policy
        if place.rule is not None:
            place.chain.rules.insert(number, place.rule)


def _sample(network: str) -> str:
    """An address of a network."""
    parsed = ipaddress.ip_network(network, strict=False)
    return str(parsed[min(1, parsed.num_addresses - 1)])


def _kind(network: str) -> str:
    return f"ipv{ipaddress.ip_network(network, strict=False).version}"


def findings(
    there: Sequence[Table], ports: Sequence[Mapping[str, Any]], host: Host
) -> Iterator[tuple[int, str, Outcome]]:
    """(port, family, what is in the way) for each port of the link that nobody would reach."""
    shown = host.run("ip", "-j", "addr")
    for family in ("ipv4", "ipv6"):
        interface = interface_out(host, family)
        own = addresses(shown, interface, family)
        for wanted in ports:
            networks = [one for one in wanted["sources"] if _kind(one) == family]
            if family not in wanted["families"] or (wanted["sources"] and not networks):
                continue
            sources = [_sample(network) for network in networks] or [None]
            packets = [
                Packet(wanted["port"], family, source, interface, address)
                for source in sources
                for address in own
            ]
            for outcome in all_shut(there, packets, wanted["port"]):
                yield wanted["port"], family, outcome


def _ports(ports: Sequence[int]) -> str:
    return ", ".join(map(str, ports))


def iptables(table: Table) -> str:
    """The command for a table."""
    command = "iptables" if table.family == "ip" else "ip6tables"
    return command if table.name == "filter" else f"{command} -t {table.name}"


def removal(place: Place) -> str:
    """The command that removes a rule."""
    table, chain, rule = place.table, place.chain, place.rule
    if table.dialect == "iptables":
        return f"{iptables(table)} -D {chain.name} {rule.text if rule else ''}"
    handle = rule.handle if rule else "?"
    return f"nft delete rule {table.family} {table.name} {chain.name} handle {handle}"


def mending(place: Place, ports: Sequence[int], backend: str) -> str:
    """The command that takes a rule out of the way."""
    table, chain, rule = place.table, place.chain, place.rule
    if table.dialect == "iptables":
        if chain.name.startswith("ufw"):
            if "-user-" not in chain.name:
                return "take it out of /etc/ufw/before.rules or before6.rules, and then ufw reload"
            simple = re.fullmatch(
                r"-p tcp (?:-m tcp )?--dport (\d+) -j (DROP|REJECT)\b.*", rule.text if rule else ""
            )
            if simple:
                word = "deny" if simple[2] == "DROP" else "reject"
                return (
                    f"ufw delete {word} {simple[1]}/tcp (as `ufw show added` has it), or another "
                    "port: somebody's denial is not turned into its opposite"
                )
            return "ufw status numbered, and then ufw delete NUMBER"
        if rule is None:
            return f"{iptables(table)} -P {chain.name} ACCEPT"
        return f"{removal(place)} ({backend} denies what is not let in)"
    if table.name == "firewalld":
        return "firewall-cmd --list-all-zones and --list-all-policies show whose it is: take it out"
    if chain.hook is not None:
        return (
            f"nft insert rule {table.family} {table.name} {chain.name} "
            f"tcp dport {{ {_ports(ports)} }} accept"
        )
    return removal(place)


def at_boot(place: Place, host: Host) -> str:
    """Where the rules would come from again after a boot, or nothing."""
    if place.chain.name.startswith("ufw") or place.table.name == "firewalld":
        return ""
    sources = (
        IPTABLES_FILES[place.table.family]
        if place.table.dialect == "iptables"
        else dict.fromkeys(NFT_FILES, "edit it")
    )
    files = [f"{path} ({how})" for path, how in sources.items() if host.read(path).strip()]
    return f"; the same in {' and '.join(files)}, for the next boot" if files else ""


def told(
    found: Sequence[tuple[int, str, Outcome]], backend: str, host: Host, flushed: str = ""
) -> Iterator[str]:
    """What is said of each place that is in the way, with all the ports it is in the way of.

    Args:
        flushed: what nftables.service does, whose mending takes care of nft's tables too.
    """
    places: dict[str, list[tuple[int, str, Outcome]]] = {}
    for one in found:
        # ufw writes a rule of one line for both families.
        key = str(decider(one[2])).replace("ip6 filter ufw6-", "ip filter ufw-")
        places.setdefault(key, []).append(one)
    for of_place in places.values():
        outcome = of_place[0][2]
        ports = sorted({port for port, _, _ in of_place})
        families = " and ".join(sorted({f"IPv{family[-1]}" for _, family, _ in of_place}))
        away = outcome.dnat or (f"port {outcome.redirect} of this host" if outcome.redirect else "")
        place = decider(outcome)
        if place is None:
            continue
        said_of = "a policy" if place.rule is None else "a rule"
        where = f"(table {place.table.family} {place.table.name}, chain {place.chain.name}: "
        where += f"`{place.rule.text if place.rule else f'policy {place.chain.policy}'}`)"
        if away:
            firewalld = place.table.name == "firewalld"
            out = mending(place, ports, backend) if firewalld else removal(place)
            yield (
                f"{said_of} sends port {_ports(ports)} ({families}) to {away} {where}, so that "
                "controllers would not reach the server. Fix: end what publishes that port (a "
                f"container, a forward), or {out}{at_boot(place, host)}; or give the link another "
                "port (nginx_proxy_listeners, pts_server_port)."
            )
            continue
        fix = f"Fix: {mending(place, ports, backend)}{at_boot(place, host)}."
        if flushed and place.table.dialect == "nft" and place.table.name != "firewalld":
            fix = "Fix: that of nftables.service, below."
        does = "rejects" if outcome.verdict == "reject" else "drops"
        yield (
            f"{said_of} {does} what comes to port {_ports(ports)} by {families} {where}, whatever "
            f"{backend} lets in. {fix}"
        )


def flushing(host: Host, ports: Sequence[int], backend: str) -> str:
    """A complaint where nftables.service takes everybody's rules away each time it starts."""
    if not host.enabled("nftables.service"):
        return ""
    for path in NFT_FILES:
        if re.search(r"^\s*flush\s+ruleset\b", host.read(path), re.MULTILINE):
            return (
                f"nftables.service is enabled, and {path} has `flush ruleset`: each start of it "
                f"takes the rules of {backend} away. Fix: let {backend} be the firewall "
                "(systemctl disable --now nftables.service; what else its rules let in belongs in "
                f"host_firewall_rules), or keep both: in {path} write `table inet filter` and "
                "`delete table inet filter` in place of `flush ruleset`, for each table of its "
                f"own, and let TCP {_ports(ports)} in."
            )
    return ""


def ipv6_complaint(text: str, ipv6: str) -> str:
    """What is wrong with IPV6 in ufw's defaults, which are somebody's, or nothing."""
    if ipv6 != "needed" or not re.search(r'^IPV6="?no', text, re.MULTILINE | re.IGNORECASE):
        return ""
    return (
        f"ufw is to let nothing in by IPv6 (IPV6=no in {UFW_DEFAULTS}), and the link, or this run, "
        "comes in by IPv6. Fix: host_firewall_ipv6: true changes it to IPV6=yes; or keep it, with "
        'nginx_proxy_ipv6: false and pts_server_listen_addresses: ["0.0.0.0"], and come by IPv4.'
    )


def complaints(
    there: list[Table],
    backend: str,
    ports: Sequence[Mapping[str, Any]],
    ipv6: str,
    connection: tuple[str, int] | None,
    host: Host,
) -> list[str]:
    """Everything that is in the way, a sentence each.

    Args:
        there: the tables as they are; they are altered.
        ports: of the link, with ``sources`` and ``families``.
        connection: the address this run comes from and the port it came in on.
    """
    if ipv6 == "keep" and connection and ":" in connection[0]:
        ipv6 = "needed"  # ufw would cut off the run itself
    heard = [
        {**one, "families": [f for f in one["families"] if ipv6 != "no" or f != "ipv6"]}
        for one in ports
    ]
    ours = [lets_in(one["port"], source) for one in heard for source in one["sources"] or [None]]
    ssh = [lets_in(connection[1], None)] if connection else []
    if backend == "ufw":
        there = with_ufw(there, ours, ssh, host)
    else:
        there = with_firewalld(there, ours, ssh)
    found = list(findings(there, heard, host))
    if connection:
        source, port = connection
        family = "ipv6" if ":" in source else "ipv4"
        route = json.loads(host.run("ip", "-j", "route", "get", source) or "[]")
        interface = route[0].get("dev") if route else None
        ssh_packets = [Packet(port, family, source, interface)]
        found += [(port, family, outcome) for outcome in all_shut(there, ssh_packets, port)]
    numbers = [one["port"] for one in ports]
    says = [flushing(host, numbers, backend)]
    if backend == "ufw":
        says += [
            f"ufw limits port {port} to 6 connections in 30 seconds from one address, which shuts "
            f"out a site of several controllers. Fix: ufw delete limit {port}/tcp (as `ufw show "
            "added` has it); host_firewall_link_rate limits without shutting a site out."
            for port in sorted(ufw_limited(host.read("/etc/ufw/user.rules")) & set(numbers))
        ]
        says.append(ipv6_complaint(host.read(UFW_DEFAULTS), ipv6))
    return [*told(found, backend, host, says[0]), *filter(None, says)]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "backend": {"type": "str", "choices": ["auto", "ufw", "firewalld"], "required": True},
            "family_backend": {"type": "str", "required": True},
            "ports": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "port": {"type": "int", "required": True},
                    "sources": {"type": "list", "elements": "str", "default": []},
                    "families": {
                        "type": "list",
                        "elements": "str",
                        "default": ["ipv4", "ipv6"],
                    },
                },
            },
            "ipv6": ARGUMENTS["ipv6"],
        },
        supports_check_mode=True,
    )
    asked = module.params
    host = Host()
    try:
        there = tables(host)
        backend = asked["backend"]
        if backend == "auto":
            backend = loaded(there) or asked["family_backend"]
        found = complaints(there, backend, asked["ports"], asked["ipv6"], this_connection(), host)
    except ValueError as error:
        module.fail_json(msg=f"The rules of the packet filter cannot be read: {error}")
    module.exit_json(changed=False, complaints=found)


if __name__ == "__main__":
    main()
