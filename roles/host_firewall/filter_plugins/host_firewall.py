"""Rules from variables, and judging the networks a person wrote down."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any


def not_networks(sources: Iterable[object]) -> list[str]:
    """Those of ``sources`` that are neither an address nor a network, as text."""
    wrong = []
    for source in sources:
        try:
            ipaddress.ip_network(str(source), strict=False)
        except ValueError:
            wrong.append(str(source))
    return wrong


def link_rules(ports: Iterable[int], sources: Iterable[str]) -> list[dict[str, Any]]:
    """A rule for each port controllers come in on, each port once, in ascending order."""
    return [
        {"port": port, "protocol": "tcp", "sources": list(sources), "purpose": "controllers"}
        for port in sorted({int(port) for port in ports})
    ]


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., list[Any]]]:
        return {
            "host_firewall_link_rules": link_rules,
            "host_firewall_not_networks": not_networks,
        }
