"""Who may take how much: connections in all, and what strangers may take per address.

A known controller (one with a message in the journal, or on the allow-list) is never refused for
reconnecting fast. Behind one address there may be a whole station, so only requests of strangers
are counted against it.

A connection is nobody's until it has brought a request, so those that wait for one are never a
reason to refuse another: where there are too many, the one that has waited longest gives way.
Whoever holds connections open in silence thus shuts out nobody but itself. A tenth of
all places is for known controllers alone: strangers get no more links than the rest.

Addresses of IPv6 are counted by their first 64 bits: one customer of a provider has all of those.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from ptslink.handshake.head import Head
from ptslink.server.seam import Arrival

#: Addresses whose failures are remembered within a minute.
_MAX_ADDRESSES: Final = 50_000
#: Connections asked to give way before a newcomer is refused.
_TRIED_AT_MOST: Final = 100
#: Connections without a byte, from one address, after which it is named.
SILENT_TIMES: Final = 60


@lru_cache(maxsize=4096)
def counted_as(address: str) -> str:
    """What an address is counted as: itself, or of IPv6 its /64."""
    if ":" not in address:
        return address
    try:
        found = IPv6Address(address)
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> 64 << 64)}/64"


class Admission:
    """Counts connections and failures.

    Args:
        connections: in all.
        per_address: open links of strangers per address; connections without a link, too.
        failures: refused or unfinished attempts per address and minute.
        proxies: networks, besides loopback, whose X-Real-IP is believed.
    """

    def __init__(
        self,
        *,
        connections: int,
        per_address: int,
        failures: int,
        proxies: tuple[IPv4Network | IPv6Network, ...] = (),
    ) -> None:
        self._limit = connections
        self._reserve = connections // 10
        self._per_address = per_address
        self._failure_limit = failures
        self._proxies = proxies
        self._trusted: dict[str, bool] = {}
        self.open = 0
        #: Connections without a link, in the order they came, all and by address.
        self._waiting: dict[int, Arrival] = {}
        self._waiting_at: dict[str, dict[int, Arrival]] = {}
        self._links: dict[str, int] = {}
        self._linked = 0
        self._failed: dict[str, int] = {}
        self._silent: dict[str, int] = {}
        self._minute = 0

    def arrive(self, peer: Arrival) -> str | None:
        """Count a connection in; why there is no room for it, or None. `leave` must follow either
        way."""
        self.open += 1
        refusal = None
        if self.open > self._limit and not _make_room(self._waiting):
            refusal = f"{self._limit} connections are open, which is the limit."
        elif peer.address and not self._is_proxy(peer.address):
            # A proxy's connections are many callers'; it has read their requests already.
            others = self._waiting_at.setdefault(counted_as(peer.address), {})
            if len(others) >= self._per_address and not _make_room(others):
                refusal = f"{self._per_address} requests of this address are being answered."
            others[peer.number] = peer
        self._waiting[peer.number] = peer
        return refusal

    def leave(self, peer: Arrival) -> None:
        """Count a connection out."""
        self.open -= 1
        self._found(peer)

    def _found(self, peer: Arrival) -> None:
        """The connection waits no longer: it is a link, or gone."""
        self._waiting.pop(peer.number, None)
        address = counted_as(peer.address)
        others = self._waiting_at.get(address)
        if others is not None:
            others.pop(peer.number, None)
            if not others:
                del self._waiting_at[address]

    @property
    def waiting(self) -> int:
        """Connections without a link."""
        return len(self._waiting)

    def crowded(self) -> str | None:
        """Why a stranger gets no link, where only the places of known controllers are left; else
        None."""
        if not self._reserve or self._linked < self._limit - self._reserve:
            return None
        return (
            f"{self._linked} links are open; of {self._limit} places the last {self._reserve} are "
            "for known controllers."
        )

    def silent(self, address: str) -> int:
        """Count a connection that ended without a byte; how many there were from the address."""
        address = counted_as(address)
        count = self._silent.get(address, 0) + 1
        if count > 1 or len(self._silent) < _MAX_ADDRESSES:
            self._silent[address] = count
        return count

    def link(self, peer: Arrival, address: str) -> None:
        """The connection became a link: count it in for the caller's address."""
        self._found(peer)
        self._linked += 1
        address = counted_as(address)
        self._links[address] = self._links.get(address, 0) + 1

    def unlink(self, address: str) -> None:
        """Count an open link of an address out."""
        self._linked -= 1
        address = counted_as(address)
        left = self._links.get(address, 0) - 1
        if left > 0:
            self._links[address] = left
        else:
            self._links.pop(address, None)

    def fail(self, address: str, now: float) -> None:
        """Count a refused or unfinished attempt; `now` in seconds."""
        self._turn(now)
        address = counted_as(address)
        if address in self._failed or len(self._failed) < _MAX_ADDRESSES:
            self._failed[address] = self._failed.get(address, 0) + 1

    def too_much(
        self, address: str, now: float, *, failures: bool = True, links: bool = True
    ) -> str | None:
        """Why a caller from the address is turned away, or None.

        Args:
            failures: whether failed attempts of the address count against the caller.
            links: whether open links of the address do.
        """
        self._turn(now)
        address = counted_as(address)
        if failures and self._failed.get(address, 0) >= self._failure_limit:
            return f"more than {self._failure_limit} failed attempts within a minute"
        if links and self._links.get(address, 0) >= self._per_address:
            return f"{self._per_address} connections are open from this address"
        return None

    def remote(self, peer: str, head: Head) -> str:
        """The caller's address: X-Real-IP if a trusted proxy wrote it, else the socket's."""
        told = head.get("x-real-ip")
        if told is None or not self._is_proxy(peer):
            return peer
        try:
            return str(ip_address(told))
        except ValueError:
            return peer

    def _is_proxy(self, peer: str) -> bool:
        known = self._trusted.get(peer)
        if known is None:
            try:
                address = ip_address(peer)
            except ValueError:
                return True  # a Unix socket has no address; only this machine can open it
            known = address.is_loopback or any(address in network for network in self._proxies)
            if len(self._trusted) < _MAX_ADDRESSES:
                self._trusted[peer] = known
        return known

    def _turn(self, now: float) -> None:
        minute = int(now // 60)
        if minute != self._minute:
            self._minute = minute
            self._failed.clear()


def _make_room(waiting: dict[int, Arrival]) -> bool:
    """Let the one that has waited longest give way; False if all have a request under way."""
    for number, peer in list(itertools.islice(waiting.items(), _TRIED_AT_MOST)):
        del waiting[number]
        if peer.give_way():
            return True
        waiting[number] = peer  # it is being answered: let it be the last to be asked again
    return False
