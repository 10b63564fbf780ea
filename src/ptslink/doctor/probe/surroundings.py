"""The network around this probe: interfaces, the way out, the first hop. Standard library, Linux.

Evidence:

``route.links``  ``interfaces``: [{``name``, ``up``: switched on and with a carrier}], without lo
``route.to``  one per address: ``address``, ``source`` (own address the kernel would use, or
    null), ``errno`` null|ENETUNREACH|..., ``gateway`` (null: on the same network),
    ``interface``, ``default``: whether any default route of that family is there
``route.neighbour``  one per address, IPv4, taken after a connection was tried: ``address`` of the
    first hop (the gateway, or the target itself on the same network), ``gateway``: bool,
    ``state`` answers|silent|unknown

Read from /proc, so it works without root and without tools; elsewhere it is skipped.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ptslink.doctor.evidence import Evidence, Status
from ptslink.doctor.probe.stream import errno_name

_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_RTF_UP, _RTF_GATEWAY, _RTF_REJECT = 0x1, 0x2, 0x200
#: /proc/net/arp: the entry is complete.
_ATF_COM: Final = 0x2


@dataclass(frozen=True, slots=True)
class Route:
    """One IPv4 or IPv6 route that is up."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    gateway: str | None
    interface: str
    metric: int


def read_routes(text: str) -> list[Route]:
    """/proc/net/route: words are little-endian hexadecimal."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 8 or not int(words[3], 16) & _RTF_UP or int(words[3], 16) & _RTF_REJECT:
            continue
        destination, gateway, mask = (
            ipaddress.IPv4Address(struct.pack("<I", int(words[index], 16))) for index in (1, 2, 7)
        )
        via = str(gateway) if int(words[3], 16) & _RTF_GATEWAY else None
        network = ipaddress.IPv4Network(f"{destination}/{mask}")
        found.append(Route(network, via, words[0], int(words[6])))
    return found


def read_routes6(text: str) -> list[Route]:
    """/proc/net/ipv6_route: words are hexadecimal in network order."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10:
            continue
        flags = int(words[8], 16)
        if not flags & _RTF_UP or flags & _RTF_REJECT or words[9] == "lo":
            continue
        destination = ipaddress.IPv6Address(bytes.fromhex(words[0]))
        network = ipaddress.IPv6Network(f"{destination}/{int(words[1], 16)}", strict=False)
        gateway = ipaddress.IPv6Address(bytes.fromhex(words[4]))
        via = None if gateway.is_unspecified else str(gateway)
        found.append(Route(network, via, words[9], int(words[5], 16)))
    return found


def route_for(routes: Iterable[Route], address: str) -> Route | None:
    """The longest match, the lowest metric among equals."""
    wanted = ipaddress.ip_address(address.partition("%")[0])
    fitting = [
        route
        for route in routes
        if route.network.version == wanted.version and wanted in route.network
    ]
    return max(fitting, key=lambda route: (route.network.prefixlen, -route.metric), default=None)


def read_neighbours(text: str) -> dict[str, bool]:
    """/proc/net/arp: address -> whether it answered."""
    found = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) >= 4:
            found[words[0]] = bool(int(words[2], 16) & _ATF_COM)
    return found


def interfaces() -> list[dict[str, object]]:
    """Every interface but the loopback; raises OSError where the kernel does not tell."""
    found: list[dict[str, object]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            if name == "lo":
                continue
            request = struct.pack("16sh22x", name.encode()[:15], 0)
            (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, _SIOCGIFFLAGS, request), 16)
            up = bool(flags & _IFF_UP) and bool(flags & _IFF_RUNNING)
            found.append({"name": name, "up": up})
    return found


def source_for(address: str) -> tuple[str | None, str | None]:
    """(own address, errno) of the way to *address*; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, 9))
        except OSError as error:
            return None, errno_name(error)
        return str(sock.getsockname()[0]), None


def before(addresses: Sequence[str], vantage: str = "site") -> Iterator[Evidence]:
    """What can be told before anything is tried: links and routes."""
    try:
        found = interfaces()
    except OSError as error:
        yield Evidence("route.links", Status.SKIPPED, f"not shown here: {error}", vantage=vantage)
        return
    up = [str(one["name"]) for one in found if one["up"]]
    seen = f"up: {', '.join(up)}" if up else "no interface has a link"
    status = Status.OK if up else Status.FAILED
    yield Evidence("route.links", status, seen, {"interfaces": found}, vantage=vantage)
    routes = [*read_routes(_text("/proc/net/route")), *read_routes6(_text("/proc/net/ipv6_route"))]
    for address in addresses:
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            yield _route_to(address, routes, vantage)


def _route_to(address: str, routes: Sequence[Route], vantage: str) -> Evidence:
    source, errno = source_for(address)
    version = ipaddress.ip_address(address.partition("%")[0]).version
    route = route_for(routes, address) if errno is None else None
    default = any(one.network.prefixlen == 0 and one.network.version == version for one in routes)
    facts = {
        "address": address,
        "source": source,
        "errno": errno,
        "gateway": route.gateway if route else None,
        "interface": route.interface if route else None,
        "default": default,
    }
    if errno is not None:
        seen = f"{address}: {errno}{'' if default else ', no default route'}"
        # The second family of a name often has no way out; the connection tells if it matters.
        return Evidence("route.to", Status.UNKNOWN, seen, facts, vantage=vantage)
    via = f" via {facts['gateway']}" if facts["gateway"] else " on the same network"
    return Evidence("route.to", Status.OK, f"{address} from {source}{via}", facts, vantage=vantage)


def after(routes: Iterable[Evidence]) -> Iterator[Evidence]:
    """The first hops of *routes* (``route.to`` pieces), once something was sent to them."""
    known = read_neighbours(_text("/proc/net/arp"))
    for route in routes:
        if route.probe != "route.to" or route.status is not Status.OK:
            continue
        hop = route.facts["gateway"] or route.facts["address"]
        if ":" in hop:
            continue
        answers = known.get(hop)
        state = {True: "answers", False: "silent", None: "unknown"}[answers]
        facts = {"address": hop, "gateway": bool(route.facts["gateway"]), "state": state}
        status = Status.UNKNOWN if state == "unknown" else Status.OK
        what = "the gateway" if facts["gateway"] else "the target, on the same network,"
        told = {
            "answers": "answers on the link",
            "silent": "does not answer on the link",
            "unknown": "is not in the neighbour table",
        }[state]
        yield Evidence("route.neighbour", status, f"{what} {hop} {told}", facts,
                       vantage=route.vantage)  # fmt: skip


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
