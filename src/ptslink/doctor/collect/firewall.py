"""What a packet filter does with the first packet of a link: rules in, verdict out. Pure.

Two dialects are read into one model: ``iptables-save -c`` (also what ufw writes) and
``nft -j list ruleset`` (firewalld, and rules written by hand). Then a SYN is walked through the
chains the way the kernel does: base chains of a hook by priority, ``accept`` ends one base chain,
``drop`` and ``reject`` end everything.

Preflight sends this file to machines that have nothing of ours: the standard library alone.

A condition that cannot be judged from outside (a rate, a recent list) counts as not met, and the
rule is reported among the ``maybe`` rules if it would have dropped or rejected.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

_EVERYBODY = ("0.0.0.0/0", "::/0")
#: Any port that a client may come from.
_CLIENT_PORT = 50_000
_IPTABLES_TABLES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet of a connection: its first, a SYN, new to connection tracking, or a later one."""

    port: int
    family: str = "ipv4"
    #: The sender; None stands for anybody that no rule names.
    source: str | None = None
    interface: str | None = None
    #: Where it goes to; None stands for this host's own address.
    destination: str | None = None
    #: The port it comes from; None stands for one that no rule names.
    from_port: int | None = None
    #: The interface by which this host sends it; None where it arrives.
    leaves: str | None = None
    #: Whether connection tracking has seen both sides already.
    later: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its conditions (each True, False or None = cannot tell) are judged by ``fits``."""

    text: str
    conditions: tuple[Mapping[str, Any], ...]
    #: accept, drop, reject, return, jump, goto, dnat, redirect, or "" when it goes on.
    action: str
    #: The chain of jump/goto, the address of dnat, how a reject answers.
    target: str = ""
    packets: int | None = None
    #: key -> (action, target) for a verdict map; decided like an action when the key is met.
    branches: tuple[tuple[Mapping[str, Any], str, str], ...] = ()
    #: What nft deletes it by.
    handle: int | None = None


@dataclass(slots=True)
class Chain:
    """A chain; ``hook`` is None for one that is only jumped to."""

    name: str
    hook: str | None = None
    priority: int = 0
    policy: str = "accept"
    rules: list[Rule] = field(default_factory=list)
    policy_packets: int | None = None
    #: Interfaces of an ``ingress`` chain.
    devices: tuple[str, ...] = ()


@dataclass(slots=True)
class Table:
    """A table: its chains by name, and the members of its named sets."""

    #: ``ip``, ``ip6``, ``inet`` or ``netdev``.
    family: str
    name: str
    #: ``iptables`` or ``nft``.
    dialect: str
    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, list[Any]] = field(default_factory=dict)

    def sees(self, family: str) -> bool:
        return self.family in ("inet", "netdev", "ip" if family == "ipv4" else "ip6")


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is decided: ``rule`` is None for the policy of a chain."""

    table: Table
    chain: Chain
    rule: Rule | None

    def to_facts(self) -> dict[str, Any]:
        return {
            "family": self.table.family,
            "table": self.table.name,
            "chain": self.chain.name,
            "dialect": self.table.dialect,
            "policy": self.rule is None,
        }

    def __str__(self) -> str:
        said = f"policy {self.chain.policy}" if self.rule is None else self.rule.text
        return f"{self.table.family} {self.table.name} {self.chain.name}: {said}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happens to a packet, and which rule decides it."""

    #: accept, drop, reject; ``unknown`` when a rule that cannot be judged may accept first.
    verdict: str
    #: ``family table chain: rule``; empty when nothing decides (all policies accept).
    rule: str = ""
    #: tcp-reset, icmp-port-unreachable, icmp-admin-prohibited ... for a reject.
    answer: str = ""
    #: The counter of the deciding rule or policy, where it has one.
    packets: int | None = None
    #: Rules that drop or reject under a condition that cannot be judged here.
    maybe: tuple[str, ...] = ()
    #: The counter of each of them, None where it has none.
    maybe_packets: tuple[int | None, ...] = ()
    #: Where a DNAT rule sends it, ``address:port``, or empty.
    dnat: str = ""
    #: The port of this host that a rule turns it to, where that is another one.
    redirect: int | None = None
    #: What decided; None where nothing did.
    at: Place | None = None
    #: The rule that sends or turns it elsewhere.
    sent_by: Place | None = None

    def to_facts(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "rule": self.rule,
            "answer": self.answer,
            "packets": self.packets,
            "maybe": list(self.maybe),
            "maybe_packets": list(self.maybe_packets),
            "dnat": self.dnat,
            "redirect": self.redirect,
            "sent_by": str(self.sent_by or ""),
            "at": None if self.at is None else self.at.to_facts(),
        }


# Walking.


def trace(tables: Sequence[Table], packet: Packet) -> Outcome:
    """Walk *packet* through every table that sees its family."""
    walk = _Walk(packet)
    # A DNAT in prerouting decides whether the packet is for this host or only passes through.
    hooks = "output postrouting" if packet.leaves else "ingress prerouting input forward"
    for hook in hooks.split():
        if hook in ("input", "forward") and (hook == "forward") != bool(walk.dnat):
            continue
        for table, chain in _base_chains(tables, packet, hook):
            end = walk.base(table, chain)
            if end is not None:
                return end
    return walk.outcome("accept", walk.accepted_by)


def further(
    tables: Sequence[Table], port: int, family: str, peer: str | None, interface: str | None
) -> Iterator[tuple[str, Outcome]]:
    """What becomes of packets that come after the first one, where a rule takes any of them: the
    server's ``answer`` to *peer* (None: anybody), and what the peer sends ``later``."""
    answer = Packet(_CLIENT_PORT, family, None, None, peer, port, interface or "eth0", later=True)
    later = Packet(port, family, peer, interface, later=True)
    for way, packet in (("answer", answer), ("later", later)):
        if (found := _taken(tables, [packet])) is not None:
            yield way, found


def loopback(tables: Sequence[Table], port: int, family: str) -> Outcome | None:
    """What becomes of a link from nginx to the service, where a rule takes any of its packets."""
    here = "127.0.0.1" if family == "ipv4" else "::1"
    there = Packet(port, family, here, None, here, leaves="lo")
    back = replace(there, port=_CLIENT_PORT, from_port=port, later=True)
    arriving = [replace(sent, leaves=None, interface="lo") for sent in (there, back)]
    return _taken(tables, [there, arriving[0], back, arriving[1]])


def _taken(tables: Sequence[Table], packets: Iterable[Packet]) -> Outcome | None:
    met = [trace(tables, packet) for packet in packets]
    worst = next((one for one in met if one.verdict != "accept"), met[0])
    maybe = [pair for one in met for pair in zip(one.maybe, one.maybe_packets, strict=True)]
    if worst.verdict == "accept" and not maybe:
        return None
    texts, counts = tuple(text for text, _ in maybe), tuple(count for _, count in maybe)
    return replace(worst, maybe=texts, maybe_packets=counts)


def _base_chains(tables: Sequence[Table], packet: Packet, hook: str) -> list[tuple[Table, Chain]]:
    found = [
        (table, chain)
        for table in tables
        if table.sees(packet.family)
        for chain in table.chains.values()
        if chain.hook == hook and (not chain.devices or packet.interface in chain.devices)
    ]
    return sorted(found, key=lambda pair: pair[1].priority)


class _Walk:
    """One packet on its way: what was met so far."""

    #: The kernel refuses deeper jumps; a circle in captured text must not hang us.
    DEEPEST = 32

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        #: Rules that may take it, each with its counter.
        self.maybe: list[tuple[str, int | None]] = []
        self.perhaps_accepted = False
        self.dnat = ""
        self.redirect: int | None = None
        self.sent_by: Place | None = None
        self.accepted_by: Place | None = None

    def base(self, table: Table, chain: Chain) -> Outcome | None:
        """Through one base chain; an outcome if the packet dies here."""
        self.perhaps_accepted = False
        found = self.chain(table, chain, 0)
        if found is None:
            if chain.policy == "drop":
                return self._dead("drop", Place(table, chain, None), "", chain.policy_packets)
            return None
        action, rule, rule_chain, answer = found
        place = Place(table, rule_chain, rule)
        if action in ("drop", "reject"):
            return self._dead(action, place, answer, rule.packets)
        if chain.hook in ("input", "forward", "output"):
            self.accepted_by = place
        return None

    def _dead(self, verdict: str, at: Place, answer: str, packets: int | None) -> Outcome:
        if self.perhaps_accepted:
            verdict = "unknown"
        return self.outcome(verdict, at, answer, packets)

    def outcome(
        self, verdict: str, at: Place | None, answer: str = "", packets: int | None = None
    ) -> Outcome:
        """What became of it, with all that was met on the way."""
        texts, counts = tuple(text for text, _ in self.maybe), tuple(n for _, n in self.maybe)
        return Outcome(
            verdict, str(at or ""), answer, packets, texts, counts, self.dnat,
            self.redirect, at, self.sent_by,
        )  # fmt: skip

    def chain(self, table: Table, chain: Chain, depth: int) -> tuple[str, Rule, Chain, str] | None:
        """(action, rule, its chain, answer) of the first final rule; None at the end."""
        where = f"{table.family} {table.name} {chain.name}"
        for rule in chain.rules:
            fits = self._all(table, rule.conditions)
            if fits is False:
                continue
            action, target = rule.action, rule.target
            for key, branch_action, branch_target in rule.branches:
                if self._one(table, key) is True:
                    action, target = branch_action, branch_target
                    break
            if fits is None:
                if self._would_kill(table, action, target, depth):
                    self.maybe.append((f"{where}: {rule.text}", rule.packets))
                elif self._would_accept(table, action, target, depth):
                    self.perhaps_accepted = True
                continue
            if action in ("jump", "goto"):
                inner = table.chains.get(target)
                if inner is not None and depth < self.DEEPEST:
                    found = self.chain(table, inner, depth + 1)
                    if found is not None:
                        return found
                if action == "goto":
                    return None
            elif action == "return":
                return None
            elif action in ("dnat", "redirect"):
                self.sent_by = Place(table, chain, rule)
                if action == "dnat":
                    self._send_on(target)
                elif target.isdecimal():
                    self.redirect = int(target)
                    self.packet = replace(self.packet, port=self.redirect)
                return ("accept", rule, chain, "")
            elif action in ("accept", "drop", "reject"):
                return (action, rule, chain, target if action == "reject" else "")
        return None

    def _send_on(self, target: str) -> None:
        self.dnat = target or "elsewhere"
        address, _, port = target.rpartition(":")
        self.packet = replace(
            self.packet,
            destination=address or target,
            port=int(port) if port.isdecimal() and address else self.packet.port,
        )

    def _would_accept(self, table: Table, action: str, target: str, depth: int) -> bool:
        if action == "accept":
            return True
        inner = table.chains.get(target) if action in ("jump", "goto") else None
        return (
            inner is not None
            and depth < self.DEEPEST
            and any(
                self._would_accept(table, rule.action, rule.target, depth + 1)
                for rule in inner.rules
                if self._all(table, rule.conditions) is not False
            )
        )

    def _would_kill(self, table: Table, action: str, target: str, depth: int) -> bool:
        if action in ("drop", "reject"):
            return True
        inner = table.chains.get(target) if action in ("jump", "goto") else None
        if inner is None or depth >= self.DEEPEST:
            return False
        return any(
            self._would_kill(table, rule.action, rule.target, depth + 1)
            and self._all(table, rule.conditions) is not False
            for rule in inner.rules
        )

    def _all(self, table: Table, conditions: Iterable[Mapping[str, Any]]) -> bool | None:
        known: bool | None = True
        for condition in conditions:
            one = self._one(table, condition)
            if one is False:
                return False
            if one is None:
                known = None
        return known

    def _one(self, table: Table, condition: Mapping[str, Any]) -> bool | None:
        fits = self._plain(table, condition)
        return not fits if condition.get("negated") and fits is not None else fits

    def _plain(self, table: Table, condition: Mapping[str, Any]) -> bool | None:
        packet, values = self.packet, condition.get("values", ())
        match condition["on"]:
            case "protocol":
                return "tcp" in values or "all" in values or 6 in values or "6" in values
            case "family":
                return ("ipv4" if packet.family == "ipv4" else "ipv6") in values
            case "dport":
                return any(_port_in(packet.port, value) for value in self._expand(table, values))
            case "source":
                return self._source(table, values)
            case "destination":
                return self._destination(table, values)
            case "from_port":
                if packet.from_port is None:
                    return None
                return any(_port_in(packet.from_port, one) for one in self._expand(table, values))
            case "leaves":
                if packet.leaves is None:
                    return None
                return any(_interface_fits(packet.leaves, str(value)) for value in values)
            case "interface":
                if packet.leaves is not None:
                    return False
                if packet.interface is None:
                    # Not the loopback; which of the others is not known.
                    return False if set(values) <= {"lo"} else None
                return any(_interface_fits(packet.interface, str(value)) for value in values)
            case "state":
                now = "established" if packet.later else "new"
                return now in {str(value).lower() for value in values}
            case "status":
                return bool(self.dnat) if "dnat" in values else None
            case "local":
                here = packet.leaves in (None, "lo")
                return ("local" if here else "unicast") in {str(one).lower() for one in values}
            case "syn":
                return None if packet.later else True
            case "other_flags":
                return None if packet.later else False
            case "never":
                return False
        return None

    def _source(self, table: Table, values: Sequence[Any]) -> bool | None:
        members = list(self._expand(table, values))
        if self.packet.source is None:
            # Anybody at all: met only by a rule for everybody. Of our own we have several.
            everybody = any(str(member) in _EVERYBODY for member in members)
            return None if self.packet.leaves and not everybody else everybody
        address = ipaddress.ip_address(self.packet.source)
        return any(address_in(address, member) for member in members)

    def _destination(self, table: Table, values: Sequence[Any]) -> bool | None:
        if self.packet.destination is None and self.packet.leaves:
            return any(str(member) in _EVERYBODY for member in self._expand(table, values))
        if self.packet.destination is None:
            # This host's own address, whichever: never a multicast one.
            multicast = all(str(value).startswith(("224.", "239.", "ff")) for value in values)
            return False if multicast else None
        try:
            address = ipaddress.ip_address(self.packet.destination.strip("[]"))
        except ValueError:
            return None
        return any(address_in(address, member) for member in self._expand(table, values))

    def _expand(self, table: Table, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            if isinstance(value, str) and value.startswith("@"):
                yield from table.sets.get(value[1:], ())
            else:
                yield value


def address_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, member: Any) -> bool:
    """Whether *address* is *member*: an address, a prefix, or a ``low-high`` range."""
    text = str(member)
    try:
        if "-" in text:
            low, high = (ipaddress.ip_address(end) for end in text.split("-", 1))
            return low.version == address.version == high.version and int(low) <= int(
                address
            ) <= int(high)
        return address in ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False


def _port_in(port: int, value: Any) -> bool:
    text = str(value)
    for sign in ("-", ":"):
        low, found, high = text.partition(sign)
        if found:
            return (int(low or 0)) <= port <= (int(high or 65535))
    return text == str(port) or (text == "http" and port == 80) or (text == "https" and port == 443)


def _interface_fits(interface: str, pattern: str) -> bool:
    if pattern.endswith(("*", "+")):
        return interface.startswith(pattern[:-1])
    return interface == pattern


# Reading iptables-save.


def read_iptables(text: str, family: str) -> list[Table]:
    """The tables of ``iptables-save -c`` (*family* ``ip``) or ``ip6tables-save -c`` (``ip6``)."""
    tables: list[Table] = []
    for line in text.splitlines():
        if line.startswith("*"):
            tables.append(Table(family, line[1:].strip(), "iptables"))
        elif line.startswith(":") and tables:
            name, policy, *counter = line[1:].split()
            built_in = policy != "-"
            tables[-1].chains[name] = Chain(
                name,
                name.lower() if built_in else None,
                _IPTABLES_TABLES.get(tables[-1].name, 0),
                policy.lower() if built_in else "accept",
                policy_packets=_counter(counter[0]) if counter and built_in else None,
            )
        elif tables and "-A " in line:
            _iptables_rule(tables[-1], line)
    return tables


def _counter(text: str) -> int | None:
    number = text.strip("[]").partition(":")[0]
    return int(number) if number.isdecimal() else None


def _iptables_rule(table: Table, line: str) -> None:
    packets = None
    if line.startswith("["):
        counter, _, line = line.partition(" ")
        packets = _counter(counter)
    try:
        words = shlex.split(line)
    except ValueError:
        return
    chain = words[1]
    conditions: list[dict[str, Any]] = []
    action, target = "", ""
    negated = False
    position = 2

    def add(on: str, *values: Any) -> None:
        conditions.append({"on": on, "values": list(values), "negated": negated})

    while position < len(words):
        word = words[position]
        value = words[position + 1] if position + 1 < len(words) else ""
        step = 2
        match word:
            case "!":
                negated = True
                position += 1
                continue
            case "-p":
                add("protocol", value)
            case "-s":
                add("source", value)
            case "-d":
                add("destination", value)
            case "-i":
                add("interface", value)
            case "-o":
                add("leaves", value)
            case "--dport" | "--dports" | "--sport" | "--sports":
                ports = (part.replace(":", "-") for part in value.split(","))
                add("dport" if word.startswith("--d") else "from_port", *ports)
            case "--ctstate" | "--state":
                add("state", *value.lower().split(","))
            case "--dst-type":
                add("local", value)
            case "--syn":
                add("syn")
                step = 1
            case "-j" | "-g":
                action, target = _iptables_target(word, value)
            case "--reject-with":
                target = value
            case "--to-destination" | "--to-ports":
                target = value
            case "-m":
                if value not in _PLAIN_MODULES:
                    add("unknown", value)
            case "--tcp-flags":
                add(
                    "syn"
                    if _is_syn(value, "".join(words[position + 2 : position + 3]))
                    else "other_flags"
                )
                step = 3
            case "--comment" | "--log-prefix" | "--log-level":
                step = 2
            case _ if word.startswith("-"):
                # --src-type and whatever a module takes; behind -j it is the target's.
                if "-j" not in words[:position]:
                    add("unknown", word)
                step = 1
                while position + step < len(words) and not words[position + step].startswith("-"):
                    if words[position + step] == "!":
                        break
                    step += 1
        negated = False
        position += step
    if action == "reject" and not target:
        target = "icmp-port-unreachable"
    text = line.partition(f"-A {chain} ")[2] or line
    rule = Rule(text, tuple(conditions), action, target, packets)
    table.chains.setdefault(chain, Chain(chain)).rules.append(rule)


def _is_syn(mask: str, flags: str) -> bool:
    """Whether the first packet of a connection has just these of the flags in *mask*."""
    looked_at = {"SYN"} if mask == "ALL" else {"SYN"} & set(mask.split(","))
    return looked_at == (set() if flags == "NONE" else set(flags.split(",")))


#: Match modules that only carry options which are read themselves, or say nothing.
_PLAIN_MODULES = frozenset(
    {"tcp", "udp", "icmp", "icmp6", "conntrack", "state", "multiport", "addrtype", "comment"}
)


def _iptables_target(word: str, value: str) -> tuple[str, str]:
    known = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return",
             "DNAT": "dnat", "REDIRECT": "redirect"}  # fmt: skip
    if value in known:
        return known[value], ""
    if value in ("LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "SET", "TRACE", "NOTRACK"):
        return "", ""
    return ("goto" if word == "-g" else "jump"), value


# Reading nft's JSON.


def read_nft(text: str) -> list[Table]:
    """The tables of ``nft -j list ruleset``; ValueError when it is not that."""
    try:
        items = json.loads(text)["nftables"]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"not nft's JSON: {error}") from error
    tables: dict[tuple[str, str], Table] = {}
    for item in items:
        if "table" in item and "dormant" not in (item["table"].get("flags") or ()):
            table = Table(item["table"]["family"], item["table"]["name"], "nft")
            tables[table.family, table.name] = table
    maps: dict[tuple[str, str, str], Any] = {}
    for item in items:
        one = item.get("chain") or item.get("set") or item.get("map")
        if not one or (one["family"], one["table"]) not in tables:
            continue
        table = tables[one["family"], one["table"]]
        if "chain" in item:
            device = one.get("dev") or ()
            table.chains[one["name"]] = Chain(
                one["name"], one.get("hook"), int(one.get("prio", 0)), one.get("policy", "accept"),
                devices=(device,) if isinstance(device, str) else tuple(device),
            )  # fmt: skip
        else:
            table.sets[one["name"]] = [_nft_value(element) for element in one.get("elem", ())]
            maps[one["family"], one["table"], f"@{one['name']}"] = {"set": one.get("elem", ())}
    for item in items:
        rule = item.get("rule")
        if rule and (rule["family"], rule["table"]) in tables:
            table = tables[rule["family"], rule["table"]]
            table.chains[rule["chain"]].rules.append(_nft_rule(rule, maps))
    return list(tables.values())


def _nft_rule(rule: Mapping[str, Any], maps: Mapping[tuple[str, str, str], Any]) -> Rule:
    conditions: list[dict[str, Any]] = []
    branches: list[tuple[Mapping[str, Any], str, str]] = []
    action, target, packets = "", "", None
    for expression in rule.get("expr", ()):
        ((kind, value),) = expression.items()
        if kind == "match":
            conditions.append(_nft_condition(value["left"], value["right"], value.get("op", "==")))
        elif kind == "counter" and isinstance(value, dict):
            packets = value.get("packets")
        elif kind in ("accept", "drop", "return"):
            action = kind
        elif kind == "reject":
            action, target = "reject", _nft_answer(value)
        elif kind in ("jump", "goto"):
            action, target = kind, value["target"]
        elif kind == "dnat":
            action, target = "dnat", _nft_dnat(value)
        elif kind == "redirect":
            action, target = "redirect", str((value or {}).get("port", ""))
        elif kind == "vmap":
            named = maps.get((rule["family"], rule["table"], str(value.get("data"))))
            branches += _nft_branches({**value, "data": named} if named else value)
        elif kind in ("limit", "xt", "quota", "fib", "meter", "ct count") or _counts(kind, value):
            conditions.append({"on": "unknown", "values": [kind]})
    return Rule(
        _nft_text(rule), tuple(conditions), action, target, packets, tuple(branches),
        rule.get("handle"),
    )  # fmt: skip


def _counts(kind: str, value: Any) -> bool:
    """Whether a statement puts an address into a set and limits each by itself."""
    return kind == "set" and bool(value.get("stmt"))


def _nft_condition(left: Any, right: Any, operator: str) -> dict[str, Any]:
    values = _nft_values(right)
    negated = operator == "!="
    if operator not in ("==", "!=", "in"):
        return {"on": "unknown", "values": [operator]}
    return {"on": _nft_subject(left), "values": values, "negated": negated}


_META = {
    "iifname": "interface",
    "iif": "interface",
    "oifname": "leaves",
    "oif": "leaves",
    "l4proto": "protocol",
    "nfproto": "family",
}


def _nft_subject(left: Any) -> str:
    if not isinstance(left, dict):
        return "unknown"
    payload, meta, ct = left.get("payload"), left.get("meta"), left.get("ct")
    if "daddr" in (left.get("fib") or {}).get("flags", ()) and left["fib"]["result"] == "type":
        return "local"
    if payload:
        name = (payload.get("protocol"), payload.get("field"))
        if name in (("tcp", "dport"), ("th", "dport")):
            return "dport"
        if name in (("tcp", "sport"), ("th", "sport")):
            return "from_port"
        if name == ("udp", "dport") or name[0] in ("udp", "icmp", "icmpv6"):
            return "never"
        if name in (("ip", "saddr"), ("ip6", "saddr")):
            return "source"
        if name in (("ip", "daddr"), ("ip6", "daddr")):
            return "destination"
        if name in (("ip", "protocol"), ("ip6", "nexthdr")):
            return "protocol"
    if meta:
        return _META.get(meta.get("key"), "unknown")
    if ct and ct.get("key") in ("state", "status"):
        return str(ct["key"])
    return "unknown"


def _nft_values(right: Any) -> list[Any]:
    if isinstance(right, dict) and "set" in right:
        inner = right["set"]
        return [_nft_value(value) for value in (inner if isinstance(inner, list) else [inner])]
    if isinstance(right, list):
        return [_nft_value(value) for value in right]
    return [_nft_value(right)]


def _nft_value(value: Any) -> Any:
    if isinstance(value, dict):
        if "prefix" in value:
            return f"{value['prefix']['addr']}/{value['prefix']['len']}"
        if "range" in value:
            low, high = value["range"]
            return f"{low}-{high}"
        if "elem" in value:
            return _nft_value(value["elem"]["val"])
        return json.dumps(value, sort_keys=True)
    if isinstance(value, list):
        return _nft_value(value[0]) if value else ""
    return value


def _nft_branches(value: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    data = value.get("data", {})
    pairs = data.get("set", ()) if isinstance(data, dict) else ()
    for key, verdict in pairs:
        ((action, details),) = verdict.items()
        target = details.get("target", "") if isinstance(details, dict) else ""
        yield _nft_condition(value["key"], key, "=="), action, target


def _nft_answer(value: Any) -> str:
    if not isinstance(value, dict):
        return "icmp-port-unreachable"
    kind, code = value.get("type", ""), value.get("expr", "")
    if kind == "tcp reset":
        return "tcp-reset"
    return f"icmp-{code}" if code else "icmp-port-unreachable"


def _nft_dnat(value: Any) -> str:
    if not isinstance(value, dict):
        return "elsewhere"
    address, port = _nft_value(value.get("addr", "")), value.get("port")
    return f"{address}:{port}" if port is not None else str(address)


def _nft_text(rule: Mapping[str, Any]) -> str:
    """A rule in a short line: nft's JSON has no text of its own."""
    words: list[str] = []
    for expression in rule.get("expr", ()):
        ((kind, value),) = expression.items()
        if kind == "match":
            left = value["left"]
            name = "?"
            if isinstance(left, dict):
                if "payload" in left:
                    payload = left["payload"]
                    name = f"{payload.get('protocol', '@')} {payload.get('field', '')}".strip()
                elif "meta" in left:
                    name = str(left["meta"].get("key"))
                elif "ct" in left:
                    name = f"ct {left['ct'].get('key')}"
                elif "numgen" in left:
                    name = f"numgen {left['numgen'].get('mode')} mod {left['numgen'].get('mod')}"
            sign = "" if value.get("op") in ("==", "in") else f"{value.get('op')} "
            right = value["right"]
            shown = ",".join(str(one) for one in _nft_values(right)[:6])
            words.append(f"{name} {sign}{shown}")
        elif kind == "reject":
            words.append(f"reject with {_nft_answer(value)}")
        elif kind in ("jump", "goto"):
            words.append(f"{kind} {value['target']}")
        elif _counts(kind, value):
            words.append("limit")
        elif kind not in ("counter", "log"):
            words.append(kind)
    if rule.get("comment"):
        words.append(f'comment "{rule["comment"]}"')
    return " ".join(words)


def join(iptables: Sequence[Table], nft: Sequence[Table]) -> list[Table]:
    """All tables once: what iptables-nft wrote is seen by nft too, in words it cannot spell."""
    theirs = {(table.family, table.name) for table in iptables}
    return [
        *iptables,
        *(table for table in nft if (table.family, table.name) not in theirs),
    ]


def rejected_sources(tables: Iterable[Table]) -> list[str]:
    """Addresses that drop or reject rules name by source: what a ban looks like in the rules."""
    found: list[str] = []
    for table in tables:
        for chain in table.chains.values():
            for rule in chain.rules:
                if rule.action not in ("drop", "reject"):
                    continue
                for condition in rule.conditions:
                    if condition["on"] == "source" and not condition.get("negated"):
                        for value in condition["values"]:
                            text = str(value)
                            members = table.sets.get(text[1:], ()) if text[:1] == "@" else [text]
                            found += [str(member).removesuffix("/32") for member in members]
    return list(dict.fromkeys(found))
