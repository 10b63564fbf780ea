"""What the server's network looks like from inside: vantage ``server``, read-only.

The evidence and its facts (a fact is left out where it could not be read):

``net.addresses``  ``addresses``: [{``address``, ``family`` ipv4|ipv6, ``prefix``, ``interface``,
    ``scope``}]; ``interfaces``: [{``name``, ``up``, ``arp``, ``mtu``}]
``net.routes``  ``default``: {``ipv4``: bool, ``ipv6``: bool}; ``interface``: of the IPv4 default
``net.route_to``  one per peer asked for: ``peer``, ``reachable``, ``interface``, ``source``,
    ``error``
``net.listeners``  ``listeners``: [{``address``, ``port``, ``family`` ipv4|ipv6|both, ``process``,
    ``pid``, ``workers`` [pid] that share it but for their common parent, ``unit``, ``queue``
    connections waiting to be accepted, ``backlog``}]
``net.sockets``  ``sockets`` on the link's ports, both sides of nginx: [{``state``, ``local``,
    ``local_port``, ``peer``, ``peer_port``, ``recv_q``, ``send_q``, ``timer`` on|keepalive|...|
    "", ``retrans`` (in flight), ``backoff``, ``bytes_retrans``, ``bytes_acked``,
    ``bytes_sent``, ``bytes_received``,
    ``unacked``, ``mss``, ``pmtu``, ``last_received_ms``}]; ``syn_recv``: number half open
``net.counters``  ``counters``: {name: value since boot}, names as nstat spells them; ``at``:
    seconds since boot. Two pieces, from before and after an attempt, give a difference.
``net.rp_filter``  ``interfaces``: {name: 0|1|2, the value in force: the higher of all and its own}
``net.firewall``  one per port and family: ``port``, ``family``, ``source`` (null: anybody),
    ``manager`` ufw|firewalld|nftables|iptables|none, and the :class:`firewall.Outcome` keys
    ``verdict`` accept|drop|reject|unknown, ``rule``, ``answer``, ``packets``, ``maybe``,
    ``maybe_packets``, ``dnat``, ``at`` {``family``, ``table``, ``chain``, ``dialect``
    iptables|nft, ``policy`` bool}: where it is decided; ``gone``? ufw|firewalld, which is switched
    on and has no rule in the kernel
``net.filter``  where a rule takes packets that come after the first: the same keys and ``way``
    answer|later|loopback, see :func:`firewall.further`
``net.bans``  ``jails``: {name: [address]}; ``rules``: addresses that drop/reject rules name
``net.conntrack``  ``count``, ``max``, ``dropped`` (table full), ``full_lines`` of the kernel log
``net.limited``  ``lines``: kernel log lines of ``[UFW LIMIT BLOCK]``; ``recent``: addresses in
    the kernel's recent list
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ptslink.doctor.admission import is_network
from ptslink.doctor.collect import firewall
from ptslink.doctor.collect.edge import Machine, Stopwatch, journal_refused
from ptslink.doctor.evidence import Evidence, Status

#: Counters that tell one silent loss from another; the rest of /proc/net/netstat is noise here.
COUNTERS = (
    "IpOutNoRoutes",
    "IcmpOutDestUnreachs",
    "TcpOutRsts",
    "TcpRetransSegs",
    "TcpAttemptFails",
    "TcpExtIPReversePathFilter",
    "TcpExtListenOverflows",
    "TcpExtListenDrops",
    "TcpExtTCPTimeouts",
    "TcpExtTCPSynRetrans",
    "TcpExtSyncookiesSent",
    "TcpExtTCPReqQFullDrop",
)

#: Units that serve the link, for where ss does not show the process.
LINK_UNITS = ("nginx.service", "ptslink.service", "ptslink.socket")
#: The service's port where its configuration may not be read.
DEFAULT_PORT = 3000


@dataclass(frozen=True, slots=True)
class Scope:
    """What of the server is looked at."""

    #: Ports the link uses; empty: those that nginx and the service listen on.
    ports: tuple[int, ...] = ()
    #: Addresses of sites as the server sees them.
    peers: tuple[str, ...] = field(default=())


# Readers: text in, typed facts out.

_SS_USERS = re.compile(r'\("(?P<name>[^"]*)",pid=(?P<pid>\d+)')
_SS_PID = re.compile(r",pid=(\d+),")
_SS_CGROUP = re.compile(r"cgroup:\S*/(?P<unit>[^/\s]+\.(?:service|socket|scope))")


def split_endpoint(text: str) -> tuple[str, int | None]:
    """``[::1]:80`` or ``10.0.0.1%eth0:80`` or ``*:80`` -> (address without zone, port)."""
    address, _, port = text.rpartition(":")
    address = address.strip("[]").partition("%")[0]
    return address, int(port) if port.isdecimal() else None


def read_listeners(text: str) -> list[dict[str, Any]]:
    """Listeners of ``ss -H -ltnpe``."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 5 or words[0] != "LISTEN":
            continue
        address, port = split_endpoint(words[3])
        if port is None:
            continue
        user = _SS_USERS.search(line)
        unit = _SS_CGROUP.search(line)
        if address == "*":
            family = "both"
        elif ":" in address:
            # Without v6only:1 a listener on [::] also takes IPv4.
            family = "both" if address == "::" and "v6only:0" in line else "ipv6"
        else:
            family = "ipv4"
        found.append(
            {
                "address": {"*": "::"}.get(address, address),
                "port": port,
                "family": family,
                "process": user["name"] if user else None,
                "pid": int(user["pid"]) if user else None,
                "workers": list(dict.fromkeys(int(pid) for pid in _SS_PID.findall(line))),
                "unit": unit["unit"] if unit else None,
                "queue": int(words[1]),
                "backlog": int(words[2]),
            }
        )
    return found


_SS_NUMBERS = {
    "backoff": "backoff",
    "unacked": "unacked",
    "bytes_retrans": "bytes_retrans",
    "bytes_acked": "bytes_acked",
    "bytes_received": "bytes_received",
    "bytes_sent": "bytes_sent",
    "mss": "mss",
    "pmtu": "pmtu",
    "lastrcv": "last_received_ms",
}


def read_sockets(text: str) -> list[dict[str, Any]]:
    """Connections of ``ss -H -tanoi``: a line each, its details on the indented line behind."""
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        if line[:1].isspace():
            if found:
                _socket_details(found[-1], line)
            continue
        words = line.split()
        if len(words) < 5 or words[0] == "LISTEN":
            found.append({"state": "LISTEN"})
            continue
        local, local_port = split_endpoint(words[3])
        peer, peer_port = split_endpoint(words[4])
        timer = re.search(r"timer:\((\w+)", line)
        found.append(
            {
                "state": words[0],
                "recv_q": int(words[1]),
                "send_q": int(words[2]),
                "local": local,
                "local_port": local_port,
                "peer": peer,
                "peer_port": peer_port,
                "timer": timer[1] if timer else "",
            }
        )
    return [socket for socket in found if socket["state"] != "LISTEN"]


def _socket_details(socket: dict[str, Any], line: str) -> None:
    for word in line.split():
        name, _, value = word.partition(":")
        if name in _SS_NUMBERS and value.isdecimal():
            socket[_SS_NUMBERS[name]] = int(value)
        elif name == "retrans":
            socket["retrans"] = int(value.partition("/")[0] or 0)


def read_addresses(text: str) -> dict[str, Any]:
    """``ip -j addr`` -> the facts of ``net.addresses``."""
    addresses, interfaces = [], []
    for link in json.loads(text):
        interfaces.append(
            {"name": link["ifname"], "up": "LOWER_UP" in link.get("flags", []),
             "arp": not {"NOARP", "BROADCAST"} <= {*link.get("flags", [])},
             "mtu": link.get("mtu")}
        )  # fmt: skip
        addresses += [
            {
                "address": one["local"],
                "family": "ipv4" if one["family"] == "inet" else "ipv6",
                "prefix": one["prefixlen"],
                "interface": link["ifname"],
                "scope": one.get("scope"),
            }
            for one in link.get("addr_info", [])
            if "local" in one
        ]
    return {"addresses": addresses, "interfaces": interfaces}


def read_default_routes(ipv4: str, ipv6: str) -> dict[str, Any]:
    """``ip -j route`` and ``ip -6 -j route`` -> the facts of ``net.routes``."""
    four = [route for route in json.loads(ipv4 or "[]") if route.get("dst") == "default"]
    six = [route for route in json.loads(ipv6 or "[]") if route.get("dst") == "default"]
    return {
        "default": {"ipv4": bool(four), "ipv6": bool(six)},
        "interface": four[0].get("dev") if four else None,
    }


def read_counters(*texts: str) -> dict[str, int]:
    """/proc/net/snmp and /proc/net/netstat -> the COUNTERS, named as nstat names them."""
    found: dict[str, int] = {}
    for text in texts:
        lines = text.splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            prefix, _, heads = names.partition(":")
            numbers = values.partition(":")[2].split()
            found.update(
                (f"{prefix}{head}", int(number))
                for head, number in zip(heads.split(), numbers, strict=False)
            )
    return {name: found[name] for name in COUNTERS if name in found}


_JAIL_LIST = re.compile(r"Jail list:\s*(?P<jails>.*)")
_BANNED = re.compile(r"Banned IP list:\s*(?P<addresses>.*)")


def read_jails(text: str) -> list[str]:
    """Names of the jails in ``fail2ban-client status``."""
    found = _JAIL_LIST.search(text)
    return [name.strip() for name in found["jails"].split(",") if name.strip()] if found else []


def read_banned(text: str) -> list[str]:
    """Addresses in ``fail2ban-client status JAIL``; a jail may ban names, too."""
    found = _BANNED.search(text)
    return [one for one in found["addresses"].split() if is_network(one)] if found else []


def read_conntrack_stat(text: str) -> dict[str, int]:
    """/proc/net/stat/nf_conntrack (hexadecimal, a line a CPU) -> sums by column."""
    head, *rows = [line.split() for line in text.splitlines() if line.strip()]
    return {
        name: sum(int(row[index], 16) for row in rows if index < len(row))
        for index, name in enumerate(head)
        if name != "entries"
    }


def read_recent(text: str) -> list[str]:
    """Sources in /proc/net/xt_recent/NAME."""
    return re.findall(r"src=(\S+)", text)


# Collectors: the thin edges.


def collect(machine: Machine, scope: Scope) -> Iterator[Evidence]:
    """Everything of this module, in the order of its docstring."""
    watch = Stopwatch()
    guarded = watch.guarded
    yield from guarded("net.addresses", lambda: _addresses(machine, watch))
    interface = None
    for piece in guarded("net.routes", lambda: _routes(machine, watch, scope)):
        interface = interface or piece.facts.get("interface")
        yield piece
    ports: Sequence[int] = scope.ports
    inside: set[int] = set()
    for piece in sockets(machine, scope, watch):
        ports = piece.facts.get("ports", ports)
        inside.update(link_ports(piece.facts.get("listeners", ()), configured_ports()))
        yield piece
    yield from guarded("net.counters", lambda: counters(machine, watch))
    yield from guarded("net.rp_filter", lambda: _rp_filter(machine, watch))
    yield from guarded(
        "net.firewall",
        lambda: _firewall(machine, watch, ports, scope.peers, interface, sorted(inside)),
    )
    yield from guarded("net.bans", lambda: _bans(machine, watch))
    yield from guarded("net.conntrack", lambda: _conntrack(machine, watch))
    yield from guarded("net.limited", lambda: _limited(machine, watch))


def sockets(machine: Machine, scope: Scope, watch: Stopwatch | None = None) -> Iterator[Evidence]:
    """``net.listeners`` and ``net.sockets`` alone."""
    watch = watch or Stopwatch()
    ports: Sequence[int] = scope.ports
    found: Sequence[dict[str, Any]] = ()
    for piece in watch.guarded("net.listeners", lambda: _listeners(machine, watch, scope)):
        ports, found = piece.facts.get("ports", ports), piece.facts.get("listeners", ())
        yield piece
    listening = [one["port"] for one in found]
    yield from watch.guarded("net.sockets", lambda: _sockets(machine, watch, ports, listening))


def link_ports(
    listeners: Iterable[dict[str, Any]], configured: Iterable[int] = ()
) -> tuple[int, ...]:
    """The ports that nginx and our service listen on beyond loopback, lowest first.

    By the process, else by the unit. ss shows neither without root: a listener nobody owns, on a
    port of *configured*, is taken for theirs.
    """
    known = frozenset(configured)
    return tuple(
        sorted(
            {
                one["port"]
                for one in listeners
                if (
                    one["process"] in ("nginx", "ptslink")
                    or one.get("unit") in LINK_UNITS
                    or (_ownerless(one) and one["port"] in known)
                )
                and not ipaddress.ip_address(one["address"]).is_loopback
            }
        )
    )


def _ownerless(one: dict[str, Any]) -> bool:
    return one["process"] is None and one.get("unit") is None


def owners_hidden(listeners: Iterable[dict[str, Any]]) -> bool:
    """Whether some listener's owner was not shown, as ss does without root."""
    return any(_ownerless(one) for one in listeners)


def configured_ports() -> tuple[int, ...]:
    """The ports nginx and the service are configured to serve the link on.

    Defaults stand in for what may not be read.
    """
    from ptslink.doctor.collect import nginx, service  # they read listeners with this module

    try:
        tables = service.configured(Stopwatch()).facts.get("config") or {}
        sites = nginx.configured(Stopwatch()).facts.get("sites") or ()
    except ModuleNotFoundError:  # a Python without the release's packages
        tables, sites = {}, ()
    fronted = [
        entry["port"]
        for site in sites
        if any(place["settings"]["proxy_pass"] for place in site["locations"])
        for entry in site["listen"]
        if entry["port"]
    ]
    return (*fronted, int((tables.get("listen") or {}).get("port", DEFAULT_PORT)))


def _addresses(machine: Machine, watch: Stopwatch) -> Iterator[Evidence]:
    output = machine.run("ip", "-j", "addr")
    if not output.ok:
        yield watch.skipped("net.addresses", output.why)
        return
    facts = read_addresses(output.text)
    shown = [
        one["address"] for one in facts["addresses"] if one["scope"] == "global"
    ]  # fmt: skip
    yield watch.piece(
        "net.addresses", Status.OK, ", ".join(shown) or "no address beyond loopback", facts
    )


def _routes(machine: Machine, watch: Stopwatch, scope: Scope) -> Iterator[Evidence]:
    four, six = machine.run("ip", "-j", "route"), machine.run("ip", "-6", "-j", "route")
    if not four.ok:
        yield watch.skipped("net.routes", four.why)
    else:
        facts = read_default_routes(four.text, six.text if six.ok else "")
        having = [family for family, there in facts["default"].items() if there]
        seen = f"default route for {' and '.join(having)}" if having else "no default route"
        yield watch.piece("net.routes", Status.OK, seen, facts)
    for peer in scope.peers:
        output = machine.run("ip", "-j", "route", "get", peer)
        if output.missing:
            yield watch.skipped("net.route_to", output.why)
        elif output.ok:
            ((route, *_),) = (json.loads(output.text),)
            facts = {"peer": peer, "reachable": True, "interface": route.get("dev"),
                     "source": route.get("prefsrc"), "error": None}  # fmt: skip
            seen = f"{peer} is reached through {route.get('dev')}"
            yield watch.piece("net.route_to", Status.OK, seen, facts)
        else:
            facts = {"peer": peer, "reachable": False, "interface": None, "source": None,
                     "error": output.why}  # fmt: skip
            yield watch.piece("net.route_to", Status.FAILED, f"{peer}: {output.why}", facts)


def _without_parents(machine: Machine, found: list[dict[str, Any]]) -> None:
    """Take those out of ``workers`` that only began the others: systemd, a master process."""
    for one in found:
        if len(one["workers"]) > 1:
            told = machine.run("ps", "-o", "ppid=", "-p", ",".join(map(str, one["workers"])))
            parents = {int(word) for word in told.text.split() if word.isdecimal()}
            one["workers"] = [pid for pid in one["workers"] if pid not in parents]


def _listeners(machine: Machine, watch: Stopwatch, scope: Scope) -> Evidence:
    output = machine.run("ss", "-H", "-ltnpe")
    if not output.ok:
        return watch.skipped("net.listeners", output.why)
    found = read_listeners(output.text)
    hidden = not machine.is_root() and owners_hidden(found)
    ports = scope.ports or link_ports(found, configured_ports() if hidden else ())
    _without_parents(machine, found)
    shown = ", ".join(
        f"{one['address']}:{one['port']} ({one['process'] or 'owner not shown'})"
        for one in found
        if one["port"] in ports
    )
    facts = {"listeners": found, "ports": list(ports)}
    if not shown and hidden:
        # Which of them are the link's cannot be told: that none is, is not known.
        seen = "whose the listeners are is shown to root only; listening are ports "
        seen += ", ".join(map(str, sorted({one["port"] for one in found})))
        return watch.piece("net.listeners", Status.UNKNOWN, seen, facts)
    return watch.piece(
        "net.listeners", Status.OK, shown or "nothing listens on the link's ports", facts
    )


def _sockets(
    machine: Machine, watch: Stopwatch, ports: Sequence[int], listening: Sequence[int]
) -> Evidence:
    output = machine.run("ss", "-H", "-tanoi")
    if not output.ok:
        return watch.skipped("net.sockets", output.why)
    sockets = [
        one
        for one in read_sockets(output.text)
        if one["state"] not in ("TIME-WAIT", "LISTEN")
        and (
            not {one["local_port"], one["peer_port"]}.isdisjoint(ports)
            # From nginx to the service: both ends are here.
            or (one["local"] == one["peer"] and one["local_port"] in listening)
        )
    ]
    half_open = sum(one["state"] == "SYN-RECV" for one in sockets)
    facts = {"sockets": sockets[:2000], "syn_recv": half_open, "total": len(sockets)}
    seen = f"{len(sockets)} connections on the link's ports, {half_open} half open"
    return watch.piece("net.sockets", Status.OK, seen, facts)


def counters(machine: Machine, watch: Stopwatch | None = None) -> Evidence:
    """``net.counters`` alone: taken before and after an attempt, two give a difference."""
    watch = watch or Stopwatch()
    texts = [machine.read(path) for path in ("/proc/net/snmp", "/proc/net/netstat")]
    found = read_counters(*(text for text in texts if text))
    if not found:
        return watch.skipped("net.counters", "/proc/net/snmp cannot be read")
    uptime = machine.read("/proc/uptime") or "0"
    facts = {"counters": found, "at": float(uptime.split()[0])}
    shown = ", ".join(f"{name} {value}" for name, value in found.items() if value)
    return watch.piece("net.counters", Status.OK, shown or "all zero", facts)


def _rp_filter(machine: Machine, watch: Stopwatch) -> Evidence:
    base = "/proc/sys/net/ipv4/conf"
    values: dict[str, int] = {}
    for name in machine.names(base) or ():
        text = machine.read(f"{base}/{name}/rp_filter")
        if text is not None and text.strip().isdecimal():
            values[name] = int(text)
    if not values:
        return watch.skipped("net.rp_filter", f"{base} cannot be read")
    everywhere = values.get("all", 0)
    in_force = {
        name: max(everywhere, value)
        for name, value in values.items()
        if name not in ("all", "default", "lo")
    }
    strict = [name for name, value in in_force.items() if value == 1]
    seen = f"strict on {', '.join(strict)}" if strict else "not strict"
    return watch.piece("net.rp_filter", Status.OK, seen, {"interfaces": in_force})


def _firewall(
    machine: Machine,
    watch: Stopwatch,
    ports: Sequence[int],
    peers: Sequence[str],
    interface: str | None,
    inside: Sequence[int] = (),
) -> Iterator[Evidence]:
    if not machine.is_root():
        yield watch.skipped("net.firewall", "the rules are shown to root only")
        return
    iptables: list[firewall.Table] = []
    for command, family in (("iptables-save", "ip"), ("ip6tables-save", "ip6")):
        output = machine.run(command, "-c")
        if output.ok:
            iptables += firewall.read_iptables(output.text, family)
    listing = machine.run("nft", "-j", "list", "ruleset")
    nft: list[firewall.Table] = []
    if listing.ok:
        try:
            nft = firewall.read_nft(listing.text)
        except ValueError as error:
            yield watch.piece("net.firewall", Status.UNKNOWN, str(error))
            return
    elif not iptables and not listing.missing:
        yield watch.skipped("net.firewall", listing.why)
        return
    tables = firewall.join(iptables, nft)
    manager = managed_by(tables)
    gone = _gone(machine, tables)
    for port in ports:
        for family in ("ipv4", "ipv6"):
            sources = [None, *(peer for peer in peers if (":" in peer) == (family == "ipv6"))]
            for source in sources:
                outcome = firewall.trace(tables, firewall.Packet(port, family, source, interface))
                facts = {"port": port, "family": family, "source": source, "manager": manager,
                         **outcome.to_facts(), "gone": gone}  # fmt: skip
                whom = f" from {source}" if source else ""
                seen = f"port {port} {family}{whom}: {outcome.verdict}"
                if outcome.rule:
                    seen += f" by {outcome.rule}"
                # Whether a closed port is wrong is for a cause to say.
                yield watch.piece("net.firewall", Status.OK, seen, facts)
                for way, met in firewall.further(tables, port, family, source, interface):
                    facts = {"port": port, "family": family, "source": source, "way": way,
                             "manager": manager, **met.to_facts()}  # fmt: skip
                    yield watch.piece("net.filter", Status.OK, f"{way}: {met.rule}", facts)
    for port in inside:
        for family in ("ipv4", "ipv6"):
            if (found := firewall.loopback(tables, port, family)) is not None:
                facts = {"port": port, "family": family, "source": None, "way": "loopback",
                         "manager": manager, **found.to_facts()}  # fmt: skip
                yield watch.piece("net.filter", Status.OK, f"loopback: {found.rule}", facts)


def _gone(machine: Machine, tables: Sequence[firewall.Table]) -> str | None:
    """The firewall that is switched on and whose rules another program has taken away."""
    enabled = re.search(
        r"^ENABLED=yes", machine.read("/etc/ufw/ufw.conf") or "", re.MULTILINE | re.IGNORECASE
    )
    chains = [name for table in tables for name in table.chains]
    if enabled and not any(name.startswith("ufw") for name in chains):
        return "ufw"
    running = machine.run("systemctl", "is-active", "firewalld.service").text.strip() == "active"
    return "firewalld" if running and all(t.name != "firewalld" for t in tables) else None


def managed_by(tables: Sequence[firewall.Table]) -> str:
    """Which program wrote the rules, by the names it gives them."""
    if any(table.name == "firewalld" for table in tables):
        return "firewalld"
    chains = {name for table in tables for name, chain in table.chains.items() if chain.rules}
    if "ufw-user-input" in {name for table in tables for name in table.chains}:
        return "ufw"
    if not chains:
        return "none"
    return "nftables" if any(table.dialect == "nft" for table in tables) else "iptables"


def _bans(machine: Machine, watch: Stopwatch) -> Evidence:
    if not machine.is_root():
        return watch.skipped("net.bans", "bans are shown to root only")
    jails: dict[str, list[str]] = {}
    status = machine.run("fail2ban-client", "status")
    for jail in read_jails(status.text) if status.ok else ():
        jails[jail] = read_banned(machine.run("fail2ban-client", "status", jail).text)
    named: list[str] = []
    listing = machine.run("nft", "-j", "list", "ruleset")
    saved = machine.run("iptables-save", "-c")
    if listing.ok:
        try:
            named += firewall.rejected_sources(firewall.read_nft(listing.text))
        except ValueError:
            named += []
    if saved.ok:
        named += firewall.rejected_sources(firewall.read_iptables(saved.text, "ip"))
    rules = [one for one in dict.fromkeys(named) if is_network(one)]
    facts = {"jails": jails, "rules": rules}
    banned = sum(len(addresses) for addresses in jails.values())
    if status.missing:
        seen = f"no fail2ban; {len(facts['rules'])} sources refused by rules"
    else:
        seen = f"{banned} addresses banned in {len(jails)} jails"
    return watch.piece("net.bans", Status.OK, seen, facts)


def _conntrack(machine: Machine, watch: Stopwatch) -> Evidence:
    base = "/proc/sys/net/netfilter/nf_conntrack_"
    count, most = machine.read(f"{base}count"), machine.read(f"{base}max")
    if count is None or most is None:
        return watch.piece("net.conntrack", Status.OK, "connection tracking is not in use", {})
    facts: dict[str, Any] = {"count": int(count), "max": int(most)}
    stat = machine.read("/proc/net/stat/nf_conntrack")
    if stat:
        facts["dropped"] = read_conntrack_stat(stat).get("drop", 0)
    kernel = machine.run("journalctl", "-k", "-b", "--no-pager", "-o", "cat", "-g", "nf_conntrack")
    if not journal_refused(kernel):
        facts["full_lines"] = kernel.text.count("table full")
    seen = f"{facts['count']} of {facts['max']} connections tracked"
    return watch.piece("net.conntrack", Status.OK, seen, facts)


def _limited(machine: Machine, watch: Stopwatch) -> Evidence:
    kernel = machine.run(
        "journalctl", "-k", "--since", "-1h", "--no-pager", "-o", "cat", "-g", "UFW LIMIT BLOCK"
    )
    names = machine.names("/proc/net/xt_recent") or []
    recent = [
        address
        for name in names
        for address in read_recent(machine.read(f"/proc/net/xt_recent/{name}") or "")
    ]
    if why := journal_refused(kernel):
        return watch.skipped("net.limited", why)
    lines = [line for line in kernel.text.splitlines()[-20:] if "UFW LIMIT BLOCK" in line]
    seen = f"{len(lines)} lines of a rate limit, {len(recent)} addresses watched"
    return watch.piece("net.limited", Status.OK, seen, {"lines": lines, "recent": recent})
