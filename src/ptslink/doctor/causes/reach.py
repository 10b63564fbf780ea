"""How far packets got, joined over the vantage points: what dns, l3 and tcp causes judge by. Pure.

``site`` is where a controller stands; ``control`` is somewhere else and serves as the second
network; ``server`` looks from inside.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ptslink.doctor.attempts import PROBE_ID_PREFIX
from ptslink.doctor.evidence import Case, Evidence, Json, Status, once

#: A refusal that takes longer than this was not sent by a host that has the packet: it is the
#: kernel's own giving up (an unanswered ARP takes seconds). Milliseconds.
AT_ONCE_MS = 500.0
#: The first retransmission of a SYN leaves after one second (RFC 6298 2.1), so a connection that
#: took longer than this lost a packet on the way. Milliseconds.
LOST_SYN_MS = 900.0


@dataclass(frozen=True, slots=True)
class Connect:
    """One attempt to connect."""

    address: str
    family: str
    port: int
    errno: str | None
    ms: float
    vantage: str
    #: The ICMP error that refused it, ``type/code``, and who sent that; "" if none was heard.
    icmp: str = ""
    refuser: str = ""

    @property
    def on_the_way(self) -> bool:
        """Whether a machine before the address dialled refused it."""
        return bool(self.refuser) and self.refuser != self.address

    @property
    def prohibited(self) -> bool:
        """Whether the refusal is a firewall's in so many words (RFC 1812 5.2.7.1, RFC 4443 3.1)."""
        return self.icmp in ("1/1", "1/5", "1/6") if ":" in self.address else self.icmp in (
            "3/9", "3/10", "3/13")  # fmt: skip

    def __str__(self) -> str:
        how = self.errno or "connected"
        how += f" (ICMP {self.icmp} from {self.refuser})" if self.refuser else ""
        return f"from {self.vantage}: {self.address} port {self.port} {how} after {self.ms:.0f} ms"


class Reach:
    """A case read for reachability; every property is worked out once."""

    def __init__(self, case: Case) -> None:
        self.case = case

    # The client's side.

    @cached_property
    def connects(self) -> list[Connect]:
        return [_connect(piece) for piece in self.case.all("tcp.connect") if "port" in piece.facts]

    @cached_property
    def site(self) -> list[Connect]:
        """Attempts a controller would make, from the site (or wherever only one place tried)."""
        own = [one for one in self.connects if one.vantage == "site"]
        return own or [one for one in self.connects if one.vantage == "control"]

    @cached_property
    def elsewhere(self) -> list[Connect]:
        """Attempts from a second network."""
        return [one for one in self.connects if one not in self.site]

    @cached_property
    def other_ports(self) -> list[Connect]:
        return [_connect(piece) for piece in self.case.all("tcp.port") if "port" in piece.facts]

    @property
    def connected(self) -> bool:
        return any(one.errno is None for one in self.site)

    @property
    def connects_elsewhere(self) -> bool:
        return any(one.errno is None for one in self.elsewhere)

    def failed(self, *errnos: str) -> Connect | None:
        """The site's first failed attempt with one of *errnos*, if no attempt succeeded."""
        if self.connected:
            return None
        return next((one for one in self.site if one.errno in errnos), None)

    def at_the_card(self, failed: Connect) -> Mapping[str, Json] | None:
        """What a failed attempt looked like at the card of the machine that made it, if it may
        look (``tcp.packets``)."""
        for piece in self.case.all("tcp.packets", failed.vantage):
            if piece.facts["address"] == failed.address:
                return piece.facts
        return None

    def never_left(self, failed: Connect) -> bool:
        """Whether its SYN was held back by the very machine that tried, others were not."""
        card = self.at_the_card(failed)
        return card is not None and bool(card["sent"]) and str(failed.port) not in card["sent"]

    def reset_from_nearer(self, failed: Connect) -> tuple[int, int] | None:
        """How many hops away its RST was made, and how many the nearest of the address's other
        ports that answered; None where the RST is as far, or nobody looked."""
        card = self.at_the_card(failed)
        if card is None or failed.errno != "ECONNREFUSED":
            return None
        resets = [one["hops"] for one in card["resets"]
                  if (one["port"], one["to"]) == (failed.port, "syn")]  # fmt: skip
        answers = list(card["answered"].values())
        if not resets or not answers:
            return None
        here, there = max(resets), min(answers)
        # Packets of one machine may come by ways that differ by a router; none comes by no router.
        near = there - here >= 2 or (here == 0 and there > 0)
        return (here, there) if near else None

    @property
    def port(self) -> int | None:
        """The port the link is tried on."""
        return self.site[0].port if self.site else None

    @cached_property
    def target_host(self) -> str | None:
        found = self.case.fact("dns.resolve", "host")
        return str(found) if found else None

    @property
    def target_is_name(self) -> bool:
        return self.case.fact("dns.resolve", "is_address") is False

    # The server's side.

    @property
    def server_seen(self) -> bool:
        return "server" in self.case.vantages()

    @cached_property
    def listeners(self) -> list[Mapping[str, Json]] | None:
        found = self.case.fact("net.listeners", "listeners")
        return list(found) if found is not None else None

    def listening(self, port: int, *, public: bool = True) -> list[Mapping[str, Json]]:
        """Listeners on *port*, those beyond loopback or all."""
        return [
            one
            for one in self.listeners or ()
            if one["port"] == port and not (public and _loopback(one["address"]))
        ]

    @property
    def link_ports(self) -> list[int]:
        return list(self.case.fact("net.listeners", "ports") or ())

    @property
    def served(self) -> list[int]:
        """The ports beyond loopback that nginx or the service listens on, lowest first."""
        ours = [
            one["port"]
            for one in self.listeners or ()
            if not _loopback(one["address"])
            and (
                one.get("process") in ("nginx", "ptslink")
                or str(one.get("unit")).startswith(("nginx.", "ptslink."))
            )
        ]
        return sorted(set(ours))

    def firewall(
        self, port: int, family: str = "ipv4", source: str | None = None
    ) -> Mapping[str, Json] | None:
        """What the server's packet filter does with a SYN; None when it was not to be read."""
        for piece in self.case.all("net.firewall"):
            facts = piece.facts
            if (facts.get("port"), facts.get("family"), facts.get("source")) == (
                port, family, source,
            ):  # fmt: skip
                return facts
        return None

    def taken(self, way: str, port: int, family: str) -> Iterator[Mapping[str, Any]]:
        """What is known of rules that take packets of *port* that come after the first, that way;
        those that surely do come first."""
        every = [piece.facts for piece in self.case.all("net.filter")]
        found = [
            facts
            for facts in every
            if (facts["way"], facts["port"], facts["family"]) == (way, port, family)
        ]
        yield from sorted(found, key=lambda facts: facts["verdict"] not in ("drop", "reject"))

    @cached_property
    def watch(self) -> Mapping[str, Json] | None:
        """What arrived while the link was tried, or None when nobody watched."""
        piece = self.case.first("net.watch")
        return piece.facts if piece is not None else None

    def syns(self, port: int) -> dict[str, int]:
        """Sources whose SYN to *port* reached the server's network card, with the number.

        Those of the second network are left out: they say nothing of the site's way.
        """
        found = _column(self.watch, "syn_in", port)
        return {peer: n for peer, n in found.items() if peer not in self._second_network(port)}

    def answers(self, port: int) -> dict[str, int]:
        """Destinations of the server's SYN-ACKs from *port*, without the second network's."""
        found = _column(self.watch, "syn_ack_out", port)
        return {peer: n for peer, n in found.items() if peer not in self._second_network(port)}

    @property
    def leads_here_from_elsewhere(self) -> bool:
        """From the second network the address dialled does lead to this server."""
        return (
            self.connects_elsewhere
            and self.port is not None
            and bool(_column(self.watch, "syn_in", self.port))
        )

    def _second_network(self, port: int) -> set[str]:
        """The addresses the second network has in the server's eyes."""
        if not self.elsewhere:
            return set()
        own = {
            str(piece.facts["source"])
            for probe in ("tcp.connect", "route.to")
            for piece in self.case.all(probe, self.elsewhere[0].vantage)
            if piece.facts.get("source")
        }
        arrived = _column(self.watch, "syn_in", port)
        if own & set(arrived) or not self.connects_elsewhere or self.connected:
            return own
        # It comes through a NAT. Whoever's connections were made is the one that connected.
        half_open = {
            one["peer"]
            for one in self.case.fact("net.sockets", "sockets") or ()
            if one["state"] == "SYN-RECV"
        }
        answered = _column(self.watch, "syn_ack_out", port)
        return own | {peer for peer in answered if peer not in half_open}

    def resets(self, port: int) -> dict[str, int]:
        """Destinations of the server's RSTs from *port*."""
        return _column(self.watch, "rst_out", port)

    def unanswered(self, port: int) -> dict[str, int]:
        """Sources whose SYN arrived and got no SYN-ACK."""
        answered = self.answers(port)
        return {source: n for source, n in self.syns(port).items() if source not in answered}

    def icmp_errors(self) -> dict[str, dict[str, int]]:
        return dict((self.watch or {}).get("icmp_out", {}))

    def grew(self, counter: str) -> int | None:
        """By how much a counter grew between the first and the last look; None after one look."""
        looks = [piece.facts["counters"] for piece in self.case.all("net.counters")]
        values = [look[counter] for look in looks if counter in look]
        return values[-1] - values[0] if len(values) > 1 else None

    def counter(self, name: str) -> int | None:
        looks = [piece.facts["counters"] for piece in self.case.all("net.counters")]
        return looks[-1].get(name) if looks else None

    @cached_property
    def server_addresses(self) -> set[str]:
        """The server's own addresses beyond loopback and link-local."""
        return {
            one["address"]
            for one in self.case.fact("net.addresses", "addresses") or ()
            if one.get("scope") == "global"
        }

    def is_server(self, address: str) -> bool:
        return address.partition("%")[0] in self.server_addresses

    @property
    def nothing_arrived(self) -> bool:
        """The server watched while the link was tried, and no attempt reached its card.

        A watch may begin late. What fails is tried for seconds on end; what connects sends one
        SYN, so the watch must cover the site's tries. A request of the probe in the server's logs
        did arrive.
        """
        if self.watch is None or self.port is None or self.syns(self.port):
            return False
        if self.connected and not self._watch_covers_site:
            return False
        # A request from the second network says nothing of the site's way.
        tries = self.case.all("http.upgrade", self.site[0].vantage)
        probes = {piece.facts.get("controller_id") for piece in tries} - {None}
        traces = [
            *(self.case.fact("nginx.access", "lines") or ()),
            *(self.case.fact("service.records", "attempts") or ()),
        ]
        return not any(one.get("controller") in probes for one in traces)

    def astray(self, failed: Connect) -> bool:
        """The server watched, and the SYN of *failed* did not reach its card. What is refused at
        once sends one SYN, which a watch that began late has missed."""
        if self.watch is None or self.syns(failed.port):
            return False
        return failed.errno == "ETIMEDOUT" or self._watch_covers_site

    @property
    def _watch_covers_site(self) -> bool:
        """Whether the server watched from the first to the last of the site's tries, by the clocks
        of both. Saved evidence that tells no times is taken to."""
        watch = self.watch or {}
        if "from" not in watch or "to" not in watch:
            return True
        windows = [piece.facts for piece in self.case.all("survey.window", self.site[0].vantage)]
        return all(watch["from"] <= one["from"] and one["to"] <= watch["to"] for one in windows)

    def unit(self, name: str) -> Mapping[str, Json] | None:
        for piece in self.case.all("host.unit"):
            if piece.facts.get("unit") == name and piece.facts.get("load") != "not-found":
                return piece.facts
        return None

    def unit_for(self, port: int) -> Mapping[str, Any] | None:
        """The unit that should listen on *port*: nginx where its configuration says so."""
        nginx, service = self.unit("nginx.service"), self.unit("ptslink.service")
        sites = self.case.fact("nginx.config", "sites") or ()
        for site in sites:
            if any(listen.get("port") == port for listen in site.get("listen") or ()):
                return nginx
        config = self.case.fact("service.config", "config") or {}
        if (config.get("listen") or {}).get("port") == port:
            return service
        if sites or config:
            return None  # both configurations are known, and neither names this port
        return next(
            (unit for unit in (nginx, service) if unit is not None and unit["active"] != "active"),
            None,
        )

    def open_elsewhere(self, failed: Connect) -> list[int]:
        """Other ports that let the same place in."""
        return [
            one.port
            for one in self.other_ports
            if one.errno is None and one.vantage == failed.vantage and one.port != failed.port
        ]

    def upgraded_elsewhere(self, failed: Connect) -> list[int]:
        """Other ports on which the link was proven to work from the same place."""
        found = [
            piece.facts.get("port")
            for piece in self.case.all("http.upgrade", failed.vantage)
            if piece.facts.get("variation") and piece.facts.get("status") == 101
        ]
        return list(dict.fromkeys(int(port) for port in found if port and port != failed.port))

    def arrived(self, port: int) -> str | None:
        """Who was seen to knock at *port*, as a line of evidence."""
        syns = self.syns(port)
        return f"server: SYN to port {port} arrived from {listed(syns)}" if syns else None

    def dnat(self, port: int) -> Mapping[str, Any] | None:
        """What is known of the filter, where it sends *port* elsewhere, for all or for one."""
        every = [piece.facts for piece in self.case.all("net.firewall")]
        sent = [facts for facts in every if facts.get("dnat") or facts.get("redirect")]
        return next((facts for facts in sent if facts["port"] == port), None)

    @property
    def server_has_unit(self) -> bool:
        """Whether systemd knows a unit of the service."""
        return any(self.unit(name) for name in ("ptslink.service", "ptslink.socket"))

    @cached_property
    def known_peers(self) -> set[str]:
        """Addresses known to be sites: asked for, or on record with a controller's id."""
        told = {piece.facts["peer"] for piece in self.case.all("net.route_to")}
        for kind in ("links", "attempts"):
            records = self.case.fact("service.records", kind) or ()
            told |= {str(one["peer"]) for one in records if one.get("peer") and _is_site(one)}
        lines = self.case.fact("nginx.access", "lines") or ()
        told |= {str(one["client"]) for one in lines if one.get("client") and _is_site(one)}
        return {peer for peer in told if not _loopback(peer)}


@once
def reach_of(case: Case) -> Reach:
    """The case read for reachability, once for all causes."""
    return Reach(case)


def _is_site(record: Mapping[str, Json]) -> bool:
    """Whether a record is a controller's, not a probe's or a stranger's."""
    controller = str(record.get("controller") or "")
    return bool(controller) and not controller.startswith(PROBE_ID_PREFIX)


def _connect(piece: Evidence) -> Connect:
    facts = piece.facts
    address = str(facts.get("address"))
    errno = facts.get("errno")
    if errno is None and piece.status is Status.FAILED:
        errno = "unknown"
    family = str(facts.get("family") or ("ipv6" if ":" in address else "ipv4"))
    icmp = facts.get("icmp") or {}
    told = f"{icmp['type']}/{icmp['code']}" if icmp else ""
    return Connect(
        address, family, int(facts["port"]), errno, piece.ms, piece.vantage,
        told, str(icmp.get("from") or ""),
    )  # fmt: skip


def _column(watch: Mapping[str, Any] | None, name: str, port: int) -> dict[str, int]:
    table = (watch or {}).get(name, {})
    return {peer: row[str(port)] for peer, row in table.items() if str(port) in row}


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def listed(items: Sequence[str] | Mapping[str, int], most: int = 4) -> str:
    """Some of *items* in a line, and how many more."""
    names = [f"{k} ({v})" for k, v in items.items()] if isinstance(items, Mapping) else list(items)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def lines(*texts: str | None) -> tuple[str, ...]:
    """Evidence lines, without those that do not apply."""
    return tuple(text for text in texts if text)


def pieces(case: Case, probe: str, vantage: str | None = None) -> Iterator[Evidence]:
    """Evidence of a probe that ran; the same as ``case.all``, for short lines."""
    return case.all(probe, vantage)
