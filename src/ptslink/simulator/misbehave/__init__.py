"""Deviations from the faithful controller, one module a layer, one table for all.

Ids are those of the catalogue of causes where it has one; the last three and
``ws-http-after-upgrade`` are quirks seen in the field that it does not list.
"""

from __future__ import annotations

from collections.abc import Iterable

from ptslink.simulator.manner import FAITHFUL, Manner
from ptslink.simulator.misbehave import conduct, dialling, framing, handshake, tls
from ptslink.simulator.misbehave.deviation import Deviation, DeviationError

#: id -> deviation.
TABLE: dict[str, Deviation] = {
    deviation.id: deviation
    for module in (dialling, tls, handshake, framing, conduct)
    for deviation in module.DEVIATIONS
}

#: A controller has the network of the machine it is simulated on, and must not change that.
_OF_ITS_SITE = "it is a fault of the machine it runs on"

#: Causes that a faithful controller brings to light when the server or the network has them.
FAITHFUL_SHOWS: dict[str, str] = {
    "tls-server-min-too-high": "the faithful controller speaks TLS 1.2 and no newer",
    "tls-mtls-required": "the faithful controller has no client certificate",
    "tls-cert-expired": "give --ca, so that the controller verifies",
    "tls-name-mismatch": "give --ca, so that the controller verifies",
    "hs-bad-accept": "the faithful controller verifies the accept hash",
    "dev-site-shared-nat": "give --controllers N",
    "px-limit-conn": "give --controllers N",
    "px-access-denied": "the faithful controller sends no User-Agent",
    "app-rate-lockout": "use dev-reconnect-storm",
    "fw-ufw-limit-lockout": "use dev-reconnect-storm",
    "fw-fail2ban-ban": "use dev-reconnect-storm",
    "app-late-cleanup": "use app-ghost-blocks",
    "dns-resolver-unreachable": f"{_OF_ITS_SITE}: drop UDP port 53 there",
    "dns-stale-or-wrong-ip": f"{_OF_ITS_SITE}: let the name there point to another address",
    "l3-device-no-default-route": f"{_OF_ITS_SITE}: take the default route of its machine away",
    "l3-device-wrong-gateway": f"{_OF_ITS_SITE}: let the default route lead to a dead address",
}


def bend(wanted: Iterable[str], manner: Manner = FAITHFUL) -> Manner:
    """*manner* with every ``ID`` or ``ID=VALUE`` of *wanted* applied, in order.

    Raises:
        DeviationError: an id that is none, or a value it does not take.
    """
    for text in wanted:
        name, equals, value = text.partition("=")
        deviation = TABLE.get(name)
        if deviation is None:
            why = FAITHFUL_SHOWS.get(name)
            if why is not None:
                raise DeviationError(f"{name} needs no misbehaviour: {why}")
            raise DeviationError(f"no deviation is called {name!r}; see --misbehave list")
        manner = deviation.apply(manner, value if equals else None)
    return manner


def listing() -> str:
    """Every id with one line about it, and the value it takes, within 80 columns."""
    lines = []
    for deviation in TABLE.values():
        lines.append(f"{deviation.id}\n    {deviation.summary}")
        if deviation.value:
            usual = f" (usually {deviation.default})" if deviation.default else ""
            lines.append(f"    ={deviation.value}{usual}")
    return "\n".join(lines) + "\n"


__all__ = ["FAITHFUL_SHOWS", "TABLE", "Deviation", "DeviationError", "bend", "listing"]
