"""Deviations in where a controller dials to, if it dials at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ptslink.doctor.probe.target import Target, is_address
from ptslink.simulator.manner import Manner
from ptslink.simulator.misbehave.deviation import Deviation, count

#: A documentation address (RFC 5737): no host has it.
NOBODY = "192.0.2.1"
OTHER_NAME = "pts.example.test"


def _elsewhere(manner: Manner, host: str) -> Manner:
    def change(target: Target) -> Target:
        return replace(target, host=host)

    return manner.but(target=change, own_host=True)


def _two_targets(manner: Manner, other: str) -> Manner:
    """Both an address and a name are set, and it prefers *other* to the one it came by."""

    def settings(target: Target) -> dict[str, Any]:
        address = next((host for host in (other, target.host) if _is_ipv4(host)), NOBODY)
        name = next((host for host in (other, target.host) if not is_address(host)), OTHER_NAME)
        return {"IpAddress": [int(part) for part in address.split(".")], "DomainName": name[:30]}

    return manner.but(remote=settings, moves_to=other)


def _is_ipv4(host: str) -> bool:
    return is_address(host) and ":" not in host


def _port(manner: Manner, value: str) -> Manner:
    port = count(value, 1, 65535)

    def change(target: Target) -> Target:
        return replace(target, port=port)

    return manner.but(target=change)


def _scheme(manner: Manner, scheme: str) -> Manner:
    def change(target: Target) -> Target:
        return replace(target, scheme=scheme)

    return manner.but(target=change)


DEVIATIONS = (
    Deviation(
        "dns-name-typo",
        "dials a name that does not exist",
        _elsewhere,
        "NAME",
        "no-such-name.invalid",
    ),
    Deviation("l3-wrong-server-ip", "dials an address that is not the server", _elsewhere, "IP"),
    Deviation(
        "dev-ip-vs-domain",
        "uploads a configuration with an address and a name, then dials the other one",
        _two_targets,
        "HOST",
        NOBODY,
    ),
    Deviation("tcp-wrong-port", "dials a port nobody listens on", _port, "PORT", "81"),
    Deviation(
        "tls-plain-client-to-tls-port",
        "speaks ws:// to the port of wss://",
        lambda manner, _: _scheme(manner, "ws"),
    ),
    Deviation(
        "tls-client-to-plain-port",
        "speaks wss:// to the port of ws://",
        lambda manner, _: _scheme(manner, "wss"),
    ),
    Deviation(
        "dev-ws-disabled",
        "has UseWebsocketsCommunication off and never dials",
        lambda manner, _: manner.but(dials=False),
    ),
    Deviation(
        "l3-device-offline",
        "is switched off and never dials",
        lambda manner, _: manner.but(dials=False),
    ),
)
