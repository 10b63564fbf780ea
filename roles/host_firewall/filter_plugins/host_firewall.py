"""Rules from variables, and judging the networks a person wrote down."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

#: A site of 50 controllers behind one router: after an outage all of them come back every second.
RATE_AT_LEAST = 50
RATE_AT_MOST = 100000


def not_networks(sources: Iterable[object]) -> list[str]:
    """Those of ``sources`` that are neither an address nor a network, as text."""
    wrong = []
    for source in sources:
        try:
            ipaddress.ip_network(str(source), strict=False)
        except ValueError:
            wrong.append(str(source))
    return wrong


def by_port(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """A mapping by port; its keys are numbers in a file and text on the command line."""
    return {str(port): value for port, value in mapping.items()}


def link_rules(
    ports: Iterable[int],
    sources: Iterable[str],
    port_sources: Mapping[Any, Iterable[str]] | None = None,
    rate: int = 0,
) -> list[dict[str, Any]]:
    """A rule for each port controllers come in on, each port once, in ascending order."""
    own = by_port(port_sources or {})
    return [
        {
            "port": port,
            "protocol": "tcp",
            "sources": list(own.get(str(port), sources)),
            "rate": int(rate),
            "purpose": "controllers",
        }
        for port in sorted({int(port) for port in ports})
    ]


def link_heard(
    ports: Iterable[int],
    sources: Iterable[str],
    port_sources: Mapping[Any, Iterable[str]],
    families: Mapping[Any, Iterable[str]],
) -> list[dict[str, Any]]:
    """Each port controllers come in on, once, with who may use it and what is heard on it."""
    heard = by_port(families)
    return [
        {
            "port": rule["port"],
            "sources": rule["sources"],
            "families": list(heard.get(str(rule["port"]), ("ipv4", "ipv6"))),
        }
        for rule in link_rules(ports, sources, port_sources)
    ]


def family(source: str) -> str:
    return f"ipv{ipaddress.ip_network(source, strict=False).version}"


def source_faults(
    ports: Iterable[int],
    sources: Iterable[str],
    port_sources: Mapping[Any, Any],
    families: Mapping[Any, Iterable[str]],
    ipv6: bool,
) -> list[str]:
    """What is wrong with the networks of ports, a sentence each; they are networks already."""
    known = sorted({int(port) for port in ports})
    own = by_port(port_sources)
    unlisted = {port: value for port, value in own.items() if not isinstance(value, (list, tuple))}
    if unlisted:
        return [
            f"host_firewall_link_port_sources gives port {port} {value!r}. "
            f"Fix: a list of networks, as {{{port}: [10.0.0.0/8]}}"
            for port, value in unlisted.items()
        ]
    faults = [
        f"host_firewall_link_port_sources names port {port}, which controllers do not come in on. "
        f"Fix: one of {', '.join(map(str, known))}; other ports belong in host_firewall_rules"
        for port in own
        if port not in map(str, known)
    ]
    heard = by_port(families)
    for port in known:
        networks = [str(source) for source in own.get(str(port), sources)]
        hears = set(heard.get(str(port), ("ipv4", "ipv6"))) - (set() if ipv6 else {"ipv6"})
        if networks and not hears & set(map(family, networks)):
            alone = " and ".join(sorted(hears)) or "nothing"
            faults.append(
                f"port {port} hears {alone} alone, and is to be open to {', '.join(networks)} "
                "only, so nobody would get in. Fix: networks of that kind in "
                "host_firewall_link_port_sources, or a listener of the other kind"
            )
    return faults


def rule_faults(
    rules: Iterable[Mapping[str, Any]], link_ports: Iterable[int], ssh_ports: Iterable[int]
) -> list[str]:
    """What is wrong with further rules beside the link and ssh, a sentence each."""
    link, ssh = {int(port) for port in link_ports}, {int(port) for port in ssh_ports}
    faults = []
    for rule in rules:
        port, tcp = int(rule["port"]), rule.get("protocol", "tcp") == "tcp"
        if tcp and port in link:
            faults.append(
                f"host_firewall_rules names port {port}, which controllers come in on: the rule "
                "for them stands beside it, so it would restrict nothing. Fix: say who may use it "
                f"in host_firewall_link_port_sources, as {{{port}: [10.0.0.0/8]}}"
            )
        if tcp and port in ssh and int(rule.get("rate", 0)):
            faults.append(
                f"host_firewall_rules limits port {port}, which host_firewall_ssh_ports gives to "
                "ssh: the next run may need many connections. Fix: take its rate out"
            )
    return faults


def not_rates(link_rate: int, rules: Iterable[Mapping[str, Any]]) -> list[str]:
    """Rates that cannot be meant, a sentence each."""
    faults = []
    if int(link_rate) and not RATE_AT_LEAST <= int(link_rate) <= RATE_AT_MOST:
        faults.append(
            f"host_firewall_link_rate is {link_rate}. Fix: 0 for no limit, or from {RATE_AT_LEAST} "
            "(a site of so many controllers behind one router, which all come back every second, "
            f"would lock itself out) to {RATE_AT_MOST}"
        )
    return faults + [
        f"host_firewall_rules gives port {rule['port']} the rate {rule['rate']}. Fix: 0 for no "
        f"limit, or from 1 to {RATE_AT_MOST}"
        for rule in rules
        if not 0 <= int(rule.get("rate", 0)) <= RATE_AT_MOST
    ]


def limited(rules: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any rule has a rate; a record of an older run has none."""
    return any(int(rule.get("rate", 0)) for rule in rules)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "host_firewall_limited": limited,
            "host_firewall_link_heard": link_heard,
            "host_firewall_link_rules": link_rules,
            "host_firewall_not_networks": not_networks,
            "host_firewall_not_rates": not_rates,
            "host_firewall_rule_faults": rule_faults,
            "host_firewall_source_faults": source_faults,
        }
