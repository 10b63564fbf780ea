"""The routers on the way to a port that gives no answer, told by their ICMP errors. Linux, no root.

Evidence ``route.trace``: ``address``, ``port``, ``hops`` [{``ttl``, ``from``: who answered or null,
``icmp``: its ``type/code`` or null}], ``ended`` answered|refused|silent: how the last of them did.

A connection to the port itself is tried with a small TTL, so what is told holds for just the
packets a controller sends. Firewalls often answer nothing: a silent hop proves nothing, and the
last one that spoke is only the last one known to be passed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from ptslink.doctor.evidence import Evidence, Status
from ptslink.doctor.probe.stream import Address, connect, refusal

#: So many hops are asked at once; after as many silent ones it is over.
TOGETHER: Final = 5
MOST_HOPS: Final = 20
#: Below the second after which a SYN is sent again (RFC 6298 2.1): one packet a hop.
HOP_SECONDS: Final = 0.9
#: ICMP "time exceeded" and ICMPv6's (RFC 792, RFC 4443 3.3).
_EXCEEDED: Final = ((11, 0), (3, 0))


def trace(address: Address, vantage: str = "site") -> Evidence:
    """Ask the routers on the way to *address*, in at most four seconds."""
    facts: dict[str, Any] = {"address": address.host, "port": address.sockaddr[1]}
    if sys.platform != "linux":
        return Evidence("route.trace", Status.SKIPPED, "only on Linux", facts, vantage=vantage)
    hops = list(_hops(address))
    last = next((hop for hop in reversed(hops) if hop["from"]), None)
    ended = hops[-1]["end"]
    facts |= {"hops": [{k: hop[k] for k in ("ttl", "from", "icmp")} for hop in hops],
              "ended": ended}  # fmt: skip
    way = ", ".join(str(hop["from"] or "?") for hop in hops[: last["ttl"] if last else 1])
    seen = f"to port {facts['port']}: {way}"
    if ended == "silent":
        seen += "; nothing answers behind that" if last else "; no router on the way answers"
    elif ended == "refused" and last:
        seen += f"; it sends ICMP {last['icmp']}"
    return Evidence("route.trace", Status.OK, seen, facts, vantage=vantage)


def _hops(address: Address) -> Iterator[dict[str, Any]]:
    """Hop by hop until one that is no router on the way answers, or a whole row is silent."""
    with ThreadPoolExecutor(TOGETHER) as pool:
        for first in range(1, MOST_HOPS, TOGETHER):
            row = list(pool.map(lambda ttl: _hop(address, ttl), range(first, first + TOGETHER)))
            for hop in row:
                yield hop
                if hop["end"] in ("answered", "refused"):
                    return
            if not any(hop["from"] for hop in row):
                return


def _hop(address: Address, ttl: int) -> dict[str, Any]:
    hop: dict[str, Any] = {"ttl": ttl, "from": None, "icmp": None, "end": "silent"}
    try:
        connect(address, HOP_SECONDS, ttl).close()
    except OSError as error:
        told = refusal(error)
    else:
        return hop | {"from": address.host, "end": "answered"}
    if icmp := told.get("icmp"):
        passed = (icmp["type"], icmp["code"]) == _EXCEEDED[":" in address.host]
        return hop | {"from": icmp["from"], "icmp": f"{icmp['type']}/{icmp['code']}",
                      "end": "silent" if passed else "refused"}  # fmt: skip
    if told["errno"] == "ECONNREFUSED":
        return hop | {"from": address.host, "end": "answered"}
    return hop
