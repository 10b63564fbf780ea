"""Deviations in where a controller dials to, if it dials at all."""

from __future__ import annotations

from dataclasses import replace

from ptslink.doctor.probe.target import Target
from ptslink.simulator.manner import Manner
from ptslink.simulator.misbehave.deviation import Deviation, count


def _elsewhere(manner: Manner, host: str) -> Manner:
    def change(target: Target) -> Target:
        return replace(target, host=host)

    return manner.but(target=change, own_host=True)


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
    Deviation("dev-ip-vs-domain", "dials the other of its two targets", _elsewhere, "HOST"),
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
