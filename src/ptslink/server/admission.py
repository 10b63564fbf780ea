"""Who may take how much: connections in all, and what strangers may take per address.

A known controller (one with a message in the journal, or on the allow-list) is never refused for
reconnecting fast. Behind one address there may be a whole station, so only requests of strangers
are counted against it.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from ptslink.handshake.head import Head

#: Addresses whose failures are remembered within a minute.
_MAX_ADDRESSES: Final = 50_000


class Admission:
    """Counts connections and failures.

    Args:
        connections: in all.
        per_address: open links of strangers per address.
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
        self._per_address = per_address
        self._failure_limit = failures
        self._proxies = proxies
        self._trusted: dict[str, bool] = {}
        self.open = 0
        self._links: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._minute = 0

    def arrive(self) -> bool:
        """Count a connection in; False when there are too many. `leave` must follow either way."""
        self.open += 1
        return self.open <= self._limit

    def leave(self) -> None:
        """Count a connection out."""
        self.open -= 1

    def link(self, address: str) -> None:
        """Count an open link of an address in."""
        self._links[address] = self._links.get(address, 0) + 1

    def unlink(self, address: str) -> None:
        """Count an open link of an address out."""
        left = self._links.get(address, 0) - 1
        if left > 0:
            self._links[address] = left
        else:
            self._links.pop(address, None)

    def fail(self, address: str, now: float) -> None:
        """Count a refused or unfinished attempt; `now` in seconds."""
        self._turn(now)
        if address in self._failed or len(self._failed) < _MAX_ADDRESSES:
            self._failed[address] = self._failed.get(address, 0) + 1

    def too_much(self, address: str, now: float) -> str | None:
        """Why a stranger from the address is turned away, or None."""
        self._turn(now)
        if self._failed.get(address, 0) >= self._failure_limit:
            return f"more than {self._failure_limit} failed attempts within a minute"
        if self._links.get(address, 0) >= self._per_address:
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
