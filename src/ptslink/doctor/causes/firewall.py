"""Causes in packet filters: the server's own, those before it, and the site's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

from ptslink.doctor.admission import is_port
from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.l3 import packet_loss
from ptslink.doctor.causes.reach import AT_ONCE_MS, Connect, Reach, lines, listed, reach_of
from ptslink.doctor.commands import Commands
from ptslink.doctor.evidence import Case, Json, Status


def _filtered(reach: Reach) -> tuple[Connect | None, Mapping[str, Any]] | None:
    """The failed attempt and what the server's filter does with it, if it is to blame."""
    failed = reach.failed("ETIMEDOUT", "ECONNREFUSED", "EHOSTUNREACH")
    if failed is not None:
        if reach.astray(failed):
            return None
        if reach.dnat(failed.port):
            return None  # the rules speak of another port or machine then
        facts = _refusing(reach, failed)
        return None if facts is None else (failed, facts)
    if reach.site or not reach.link_ports:
        return None
    return _closed_to_all(reach)


def _refusing(reach: Reach, failed: Connect) -> Mapping[str, Any] | None:
    """What is known of the filter, where it refuses everybody or one of those who knocked."""
    for source in (None, *reach.syns(failed.port)):
        facts = reach.firewall(failed.port, failed.family, source)
        if facts is not None and facts["verdict"] in ("drop", "reject"):
            return facts
    return None


def _closed_to_all(reach: Reach) -> tuple[None, Mapping[str, Any]] | None:
    """Server only: every port of the link is closed to everybody, and nobody is connected."""
    verdicts = [
        facts
        for port in reach.link_ports
        if reach.listening(port) and (facts := reach.firewall(port)) is not None
    ]
    if not verdicts or any(facts["verdict"] not in ("drop", "reject") for facts in verdicts):
        return None
    sockets = reach.case.fact("net.sockets", "sockets") or ()
    if any(one["state"] == "ESTAB" and one["local"] != one["peer"] for one in sockets
           if not str(one["peer"]).startswith("127.")):  # fmt: skip
        return None
    return None, verdicts[0]


def _rule_lines(reach: Reach, failed: Connect | None, facts: Mapping[str, Any]) -> tuple[str, ...]:
    source = f" from {facts['source']}" if facts.get("source") else ""
    count = facts.get("packets")
    return lines(
        str(failed) if failed is not None else None,
        f"server: a SYN to port {facts['port']}{source} meets: {facts['rule']}"
        + (f" ({count} packets so far)" if count else ""),
        reach.arrived(int(facts["port"])),
        f"server: {facts['gone']} is switched on, and none of its rules is in the kernel: another "
        "program has flushed them"
        if facts.get("gone")
        else None,
    )


def _owner(facts: Mapping[str, Any]) -> str:
    """Whose tool changes the rule that decides: the table it stands in tells, not what else is
    installed."""
    at = facts.get("at")
    if not at:
        return str(facts.get("manager"))
    if at["table"] == "firewalld":
        return "firewalld"
    if at["dialect"] == "iptables" and facts.get("manager") == "ufw" and (
        at["policy"] or str(at["chain"]).startswith("ufw")
    ):  # fmt: skip
        return "ufw"
    return str(at["dialect"])


def _allow(facts: Mapping[str, Any]) -> Fix:
    port, owner = int(facts["port"]), _owner(facts)
    summary = f"Let TCP port {port} in"
    expect = f"The rules accept a SYN to port {port} and the connection is made."
    if owner in _LET_IN and _at_the_end(facts):
        variables: dict[str, Json] = {"nginx_proxy_listeners": [{"port": port}]}
        return Fix(
            f"{summary}, by provisioning so that it stays.", expect, Auto.YES,
            _LET_IN[owner](str(port)), variables if port != 3000 else {},
        )  # fmt: skip
    at, match = facts.get("at"), ("tcp", "dport", str(port), "accept")
    if owner in _SHOWN:
        return Fix(
            f"{summary}: take the rule named above away, it stands before those that let ports in.",
            expect, Auto.ASK, _SHOWN[owner],
        )  # fmt: skip
    commands: Commands = ()
    if at and owner == "nft":
        commands = (("nft", "insert", "rule", at["family"], at["table"], at["chain"], *match),)
    elif at:
        program = "ip6tables" if at["family"] == "ip6" else "iptables"
        rule = ("-p", "tcp", "--dport", str(port), "-j", "ACCEPT")
        commands = ((program, "-t", at["table"], "-I", at["chain"], *rule),)
    return Fix(
        f"{summary} before the rule named above, which no firewall program manages; then do the "
        "same where that rule is written, so that it stays.",
        expect,
        Auto.ASK,
        commands,
    )


def _at_the_end(facts: Mapping[str, Any]) -> bool:
    """Whether a port that is let in is let in before what refuses it now."""
    at = facts.get("at")
    return (
        not at
        or bool(at["policy"])
        or str(at["chain"]).startswith(("ufw-reject", "ufw-skip-to-policy", "filter_INPUT"))
        or re.fullmatch(r"filter_IN_[a-zA-Z0-9]+", str(at["chain"])) is not None
    )


#: Who wrote the rules -> how its own rules are shown, to find one that refuses.
_SHOWN: Mapping[str, Commands] = {
    "ufw": (
        ("ufw", "status", "numbered"),
        ("ufw", "delete", "NUMBER"),
    ),
    "firewalld": (("firewall-cmd", "--list-all-zones"), ("firewall-cmd", "--get-active-policies")),
}

#: Who wrote the rules -> how that program is told to let a TCP port in.
_LET_IN: Mapping[str, Callable[[str], Commands]] = {
    "ufw": lambda port: (("ufw", "allow", f"{port}/tcp"),),
    "firewalld": lambda port: (
        ("firewall-cmd", "--permanent", f"--add-port={port}/tcp"),
        ("firewall-cmd", "--reload"),
    ),
}


def _is_ban(facts: Mapping[str, Any]) -> bool:
    text = str(facts.get("rule", ""))
    return bool(facts.get("source")) and any(word in text for word in ("f2b", "addr-set", "@ban"))


def _drop(case: Case) -> Match | None:
    reach = reach_of(case)
    found = _filtered(reach)
    if found is None:
        return _drops_some(case, reach)
    if found[1]["verdict"] != "drop" or _is_ban(found[1]):
        return None
    failed, facts = found
    if failed is not None and failed.errno != "ETIMEDOUT":
        return None
    if failed is not None and not _meant(reach, failed.port):
        return None  # nobody serves that port: it is the wrong one, whatever the filter does
    return Match(
        CERTAIN if reach.watch is not None and failed is not None else STRONG,
        _rule_lines(reach, failed, facts),
        ruled_out=("fw-upstream-drop", "fw-site-egress-block", "l3-no-return-route",
                           "l3-asymmetric-stateful-fw",
                   "l3-rp-filter-asymmetric", "tcp-service-down", "nat-forward-missing-or-hairpin"),
        fix=_allow(facts),
    )  # fmt: skip


def _drops_some(case: Case, reach: Reach) -> Match | None:
    """A rule that takes one SYN and lets the next one in: to the site it looks like a bad line."""
    lost = packet_loss(case)
    if lost is None or not reach.site:
        return None
    first = reach.site[0]
    facts = reach.firewall(first.port, first.family) or {}
    syns, answers = sum(reach.syns(first.port).values()), sum(reach.answers(first.port).values())
    if syns and answers >= syns:
        return None  # what reached the card was answered: it was lost before
    for rule, count in zip_longest(facts.get("maybe") or (), facts.get("maybe_packets") or ()):
        # Rules may have been read before the site tried; what the card saw is newer.
        if (count == 0 and not syns) or _is_limit(rule):
            continue
        if not (_by_chance(rule) or (_names_port(rule, first.port) and (count or syns))):
            continue
        return Match(
            CERTAIN if count or syns else STRONG,
            (
                *lost.evidence,
                *lines(
                    f"server: some SYN to port {first.port} meet: {rule}"
                    + (f" ({count} packets so far)" if count else ""),
                    f"server: {syns} SYN arrived at its card, {answers} SYN-ACK left"
                    if syns
                    else None,
                ),
            ),
            ruled_out=("l3-packet-loss", "fw-upstream-drop", "l3-mtu-blackhole"),
            fix=Fix(
                f"Take that rule away, or except TCP port {first.port} from it; find out who put "
                "it there.",
                "Ten connections in a row each take no longer than the way there and back.",
                Auto.ASK,
                commands=(("nft", "-a", "list", "ruleset"), ("iptables-save", "-c")),
            ),
        )
    return None


def _by_chance(rule: str) -> bool:
    """Whether a rule takes packets by chance or by count (iptables' statistic, nft's numgen)."""
    return any(word in rule for word in ("statistic", "numgen"))


def _names_port(rule: str, port: int) -> bool:
    return re.search(rf"dports? (?:\S*,)?{port}\b", rule) is not None


def _of_port(rule: str, port: int) -> bool:
    """Whether a rule names *port*, at either end."""
    return re.search(rf"[sd]ports? (?:\S*,)?{port}\b", rule) is not None


def _meant(reach: Reach, port: int) -> bool:
    """Whether *port* is one that the server serves or is configured to serve."""
    return bool(reach.listening(port, public=False)) or reach.unit_for(port) is not None


def _firewalld(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("EHOSTUNREACH")
    if failed is None:
        found = _filtered(reach)
        if found is None or found[1]["verdict"] != "reject" or found[0] is not None:
            return None
        if "prohibited" not in str(found[1]["answer"]):
            return None
        return Match(LIKELY, _rule_lines(reach, None, found[1]), fix=_allow(found[1]))
    if failed.ms > AT_ONCE_MS or failed.on_the_way:
        return None
    facts = _refusing(reach, failed)
    errors = reach.icmp_errors()
    rejects = facts is not None and facts["verdict"] == "reject"
    if reach.server_seen and not rejects and not errors:
        return None
    said = [f"server: sent ICMP {codes} to {peer}" for peer, codes in errors.items()]
    return Match(
        CERTAIN if rejects else STRONG if failed.prohibited else LIKELY,
        (
            *(_rule_lines(reach, failed, facts) if rejects and facts else (str(failed),)),
            "this error at once is an ICMP message 'prohibited' of a firewall; an unanswered ARP "
            "gives the same error after seconds",
            *said[:2],
        ),
        ruled_out=("l3-device-wrong-gateway", "l3-wrong-server-ip", "tcp-service-down",
                   "fw-upstream-drop"),
        fix=_allow(facts) if rejects and facts else None,
    )  # fmt: skip


def _reject(case: Case) -> Match | None:
    reach = reach_of(case)
    found = _filtered(reach)
    if found is None or found[1]["verdict"] != "reject" or _is_ban(found[1]):
        return None
    failed, facts = found
    if failed is not None and failed.errno != "ECONNREFUSED":
        return None
    if failed is not None and not reach.listening(failed.port):
        return None
    if failed is None and "prohibited" in str(facts["answer"]):
        return None
    return Match(
        CERTAIN,
        (
            *_rule_lines(reach, failed, facts),
            f"server: the port is served; the rule answers with {facts['answer']}, which looks "
            "like a closed port",
        ),
        ruled_out=("tcp-service-down", "tcp-bind-loopback", "tcp-wrong-port", "fw-fail2ban-ban"),
        fix=_allow(facts),
    )


def _output(case: Case) -> Match | None:
    """Rules that take packets of a connection whose first one was let in."""
    reach = reach_of(case)
    for failed, way, port, family in _stuck(reach):
        for facts in reach.taken(way, port, family):
            surely = facts["verdict"] in ("drop", "reject")
            rules = [(facts["rule"], facts["packets"])] if surely else []
            if not surely:
                pairs = zip(facts["maybe"], facts["maybe_packets"], strict=True)
                rules = [(rule, n) for rule, n in pairs if not _is_limit(rule)
                         and (n or (n is None and _of_port(rule, port)))]  # fmt: skip
            if not rules:
                continue
            return Match(
                CERTAIN if surely else STRONG,
                lines(
                    failed,
                    f"server: {_TAKEN[way].format(port)} {'meets' if surely else 'may meet'}: "
                    f"{rules[0][0]}" + (f" ({rules[0][1]} packets so far)" if rules[0][1] else ""),
                ),
                ruled_out=("fw-upstream-drop", "fw-site-egress-block", "l3-no-return-route",
                           "l3-asymmetric-stateful-fw",
                           "l3-packet-loss", "l3-mtu-blackhole", "tcp-service-down",
                           "tcp-half-open-ghost", "app-event-loop-blocked", "px-upstream-timeout",
                           "px-upstream-refused", "px-connect-failed"),
                fix=_look_at(facts),
            )  # fmt: skip
    return None


#: What a rule takes, by the way that :func:`ptslink.doctor.collect.firewall.further` walks.
_TAKEN = {
    "answer": "the answer from port {}",
    "later": "a packet to port {} of a connection that was let in",
    "loopback": "the connection from nginx to the service on port {}",
}


def _stuck(reach: Reach) -> Iterator[tuple[str, str, int, str]]:
    """What got no answer, the way it may be stuck on, the port and the family."""

    def family(address: Json) -> str:
        return "ipv6" if ":" in str(address) else "ipv4"

    way_in = reach.site[0].address if reach.site else ""
    for piece in reach.case.all("link.local"):
        facts = piece.facts
        if piece.status is Status.FAILED and facts.get("hop") == "service" and facts.get("errno"):
            seen = f"{piece.probe} from {piece.vantage}: {piece.seen}"
            yield seen, "loopback", facts["port"], family(facts.get("address"))
    silent = reach.failed("ETIMEDOUT", "EHOSTUNREACH")
    if silent is not None and not reach.astray(silent):
        yield str(silent), "answer", silent.port, silent.family
    for piece in reach.case.evidence:
        facts = piece.facts
        if piece.status is not Status.FAILED or facts.get("ended") not in ("rst", "timeout"):
            continue
        for way in ("later", "answer") if is_port(facts.get("port")) else ():
            seen = f"{piece.probe} from {piece.vantage}: {piece.seen}"
            yield seen, way, facts["port"], family(facts.get("address") or way_in)


def _look_at(facts: Mapping[str, Any]) -> Fix:
    """The chain of the rule that decides, shown by the tool that wrote it."""
    at = facts.get("at")
    commands: Commands = (("nft", "-a", "list", "ruleset"), ("iptables-save", "-c"))
    if at and at["dialect"] == "nft":
        commands = (("nft", "-a", "list", "chain", at["family"], at["table"], at["chain"]),)
    elif at:
        program = "ip6tables" if at["family"] == "ip6" else "iptables"
        commands = ((program, "-t", at["table"], "-nvL", at["chain"], "--line-numbers"),)
    return Fix(
        f"Take that rule away, or except TCP port {facts['port']} from it; find out who put it "
        "there, so that it does not come back.",
        "Its counter stays where it is while the link is tried.",
        Auto.ASK,
        commands,
    )


def _limit(case: Case) -> Match | None:
    reach = reach_of(case)
    port = reach.port
    ports = [port] if port is not None else reach.link_ports
    refused = [
        attempt
        for piece in case.all("tcp.again")
        for attempt in piece.facts.get("attempts", ())
        if attempt.get("errno") in ("ECONNREFUSED", "ETIMEDOUT")
    ]
    again = [attempt for piece in case.all("tcp.again") for attempt in piece.facts["attempts"]]
    for one in ports:
        facts = reach.firewall(one)
        counts = zip_longest(
            (facts or {}).get("maybe") or (), (facts or {}).get("maybe_packets") or ()
        )
        # Our own is sized for whole sites: one that has dropped nothing is no cause.
        maybe = [
            rule
            for rule, count in counts
            if rule and _is_limit(rule) and not (_OURS in rule and count == 0)
        ]
        logged = [line for line in case.fact("net.limited", "lines") or () if f"DPT={one} " in line]
        failed = reach.failed("ECONNREFUSED", "ETIMEDOUT")
        if maybe and (failed is not None or refused or logged):
            return Match(
                STRONG,
                lines(
                    str(failed) if failed is not None else None,
                    f"of {len(again)} connections in a row {len(refused)} were refused"
                    if refused
                    else None,
                    f"server: {maybe[0]}",
                    f"server: {len(logged)} lines of the limit in the kernel log" if logged
                    else None,
                ),
                ruled_out=("tcp-service-down", "fw-reject-other", "fw-fail2ban-ban",
                           "l3-packet-loss"),
                fix=_without_limit(maybe[0], one),
            )  # fmt: skip
    return None


#: How the comments of host_firewall's own rules begin.
_OURS = "ptslink: "


def _without_limit(rule: str, port: int) -> Fix:
    if _OURS in rule:
        return Fix(
            "Raise host_firewall_link_rate (or the rate of the rule for that port) to what the "
            "site really needs, or take it out, and run the playbook again: more controllers "
            "stand behind this address than it was meant for.",
            "The counters of `nft list table inet ptslink` stay where they are.",
            Auto.ASK,
            commands=(("nft", "list", "table", "inet", "ptslink"),),
        )
    return Fix(
        f"Allow port {port} without a limit: a controller that lost its link must be "
        "let in every time; the service limits strangers by itself.",
        "The seventh attempt within 30 s is accepted like the first.",
        Auto.YES,
        commands=_unlimited(str(port)),
    )


def _unlimited(port: str) -> Commands:
    return (("ufw", "delete", "limit", f"{port}/tcp"), ("ufw", "allow", f"{port}/tcp"))


def _is_limit(rule: str) -> bool:
    return any(word in rule for word in ("ufw-user-limit", "recent", "hitcount", "limit"))


def _docker(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("ETIMEDOUT", "ECONNREFUSED", "EHOSTUNREACH")
    asked = case.all("http.upgrade")
    tries = [one for one in asked if one.status is Status.FAILED and not one.facts.get("variation")]
    refused = next(iter(tries), None)
    ports = [failed.port] if failed is not None else [] if reach.site else reach.served
    if refused is not None and failed is None and is_port(refused.facts.get("port")):
        ports = [refused.facts["port"]]
    facts = next((found for port in ports if (found := reach.dnat(port))), None)
    if facts is None:
        return None
    where = facts["dnat"] or f"port {facts['redirect']} of this host"
    rule = f"server: by this rule: {facts['sent_by']}" if facts.get("sent_by") else None
    if failed is None:
        if not facts["dnat"] and refused is None:
            return None  # a port that another one serves too
        holder = next((one["process"] for one in reach.listening(facts["port"])), None)
        return Match(
            CERTAIN if refused is not None else STRONG,
            lines(
                f"{refused.probe} from {refused.vantage}: {refused.seen}" if refused else None,
                f"server: what comes to port {facts['port']} from outside is sent on to "
                f"{where} before anything here sees it",
                rule,
                f"server: {holder} listens on port {facts['port']} in vain" if holder else None,
            ),
        )
    return Match(
        STRONG,
        lines(
            str(failed),
            f"server: port {failed.port} is sent on to {where} before the input rules "
            "are asked, so they have no say",
            rule,
            f"server: in FORWARD it meets: {facts['rule']} ({facts['verdict']})"
            if facts["rule"]
            else None,
        ),
        ruled_out=("fw-ufw-drop", "tcp-service-down", "fw-upstream-drop", "tcp-wrong-port"),
    )


def _banned(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("ECONNREFUSED", "ETIMEDOUT")
    jails = case.fact("net.bans", "jails") or {}
    by_jail = {address: jail for jail, addresses in jails.items() for address in addresses}
    rules = case.fact("net.bans", "rules") or ()
    if failed is None:
        if reach.site:
            return None
        known = sorted(set(by_jail) & reach.known_peers)
        if not known:
            return None
        return Match(
            LIKELY,
            lines(*(f"server: the site {one} is banned by jail {by_jail[one]}" for one in known)),
            fix=_unban(known[0], by_jail[known[0]]),
        )
    if reach.listeners is not None and not reach.listening(failed.port):
        return None
    general = reach.firewall(failed.port, failed.family)
    if general is not None and general["verdict"] in ("drop", "reject"):
        return None  # closed to everybody
    turned_away = set(reach.unanswered(failed.port)) | reach.known_peers
    hit = sorted(turned_away & (set(by_jail) | {rule for rule in rules if _named(case, rule)}))
    if hit:
        jail = by_jail.get(hit[0])
        return Match(
            CERTAIN,
            lines(
                str(failed),
                reach.arrived(failed.port),
                f"server: {hit[0]} is banned" + (f" by jail {jail}" if jail else " by a rule set"),
                f"server: port {failed.port} is served and open to everybody else",
                "another network connects at the same time" if reach.connects_elsewhere else None,
            ),
            ruled_out=("tcp-service-down", "tcp-bind-loopback", "fw-reject-other",
                       "fw-upstream-drop", "fw-site-egress-block", "fw-ufw-drop"),
            fix=_unban(hit[0], jail),
        )  # fmt: skip
    if by_jail and reach.watch is None and not turned_away:
        return Match(
            LIKELY,
            lines(
                str(failed),
                f"server: the port is served and open; banned are {listed(sorted(by_jail))}",
                "another network connects at the same time" if reach.connects_elsewhere else None,
            ),
            ruled_out=("tcp-service-down",),
        )
    return None


def _named(case: Case, source: str) -> bool:
    """Whether the rule that names *source* is a ban's, not a person's."""
    for piece in case.all("net.firewall"):
        if piece.facts.get("source") == source:
            return any(word in str(piece.facts["rule"]) for word in ("f2b", "addr-set"))
    return False


def _unban(address: str, jail: str | None) -> Fix:
    which = ("set", jail, "unbanip", address) if jail else ("unban", address)
    return Fix(
        f"Lift the ban of {address} and put the site's address on the ignore list; then mend what "
        "made it fail so often (the first error before the ban).",
        "The site connects at once, and the jail's list no longer holds its address.",
        Auto.YES,
        commands=(
            ("fail2ban-client", *which),
            ("fail2ban-client", "set", jail or "JAIL", "addignoreip", address),
        ),
    )


# Before the server.


def _served_and_open(reach: Reach, failed: Connect) -> bool:
    facts = reach.firewall(failed.port, failed.family)
    return bool(reach.listening(failed.port)) and (
        facts is None or facts["verdict"] in ("accept", "unknown")
    )


def _upstream_drop(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("ETIMEDOUT", "ECONNREFUSED")
    if failed is None or reach.never_left(failed):
        return None
    if failed.errno == "ECONNREFUSED":
        return _upstream_reset(reach, failed)
    if not reach.nothing_arrived or reach.connects_elsewhere:
        return None
    if not reach.is_server(failed.address) or not _served_and_open(reach, failed):
        return None
    both = any(one.errno == "ETIMEDOUT" for one in reach.elsewhere)
    others = _others_arriving(reach, failed)
    return Match(
        STRONG if both else LIKELY,
        lines(
            str(failed),
            next((str(one) for one in reach.elsewhere), None),
            f"server: watched for {reach.watch['seconds']:g} s, no SYN to port {failed.port} "
            "reached its network card"
            if reach.watch
            else None,
            f"server: other ports are reached ({listed(others)})" if others else None,
            f"server: port {failed.port} is served and its own firewall lets it in",
            _left(reach, failed),
        ),
        ruled_out=("fw-ufw-drop", "tcp-service-down", "l3-no-return-route",
                   "l3-rp-filter-asymmetric", *(("fw-site-egress-block",) if both else ())),
    )  # fmt: skip


def _upstream_reset(reach: Reach, failed: Connect) -> Match | None:
    """A RST that was made on the way, neither in the site's own network nor by the server."""
    nearer = reach.reset_from_nearer(failed)
    if nearer is None or nearer[0] == 0 or reach.connects_elsewhere or reach.syns(failed.port):
        return None
    if reach.server_seen and not _served_and_open(reach, failed):
        return None
    return Match(
        LIKELY, lines(str(failed), _nearer(failed, nearer)), ruled_out=("tcp-service-down",)
    )


def _nearer(failed: Connect, hops: tuple[int, int]) -> str:
    here, there = hops
    where = "on this very network" if here == 0 else f"{here} hops away"
    return (
        f"{failed.vantage}: the RST was made {where}, other ports of that address answer from "
        f"{there} hops away (TTL)"
    )


def _left(reach: Reach, failed: Connect) -> str | None:
    """That the SYN did go out and nothing at all came back, where that was to be seen."""
    card = reach.at_the_card(failed)
    sent = card["sent"].get(str(failed.port)) if card else None
    if not card or not sent or any(one["port"] == failed.port for one in card["icmp"]):
        return None
    return f"{failed.vantage}: {sent} SYN left the network card; neither RST nor ICMP came back"


def _others_arriving(reach: Reach, failed: Connect) -> list[str]:
    table = (reach.watch or {}).get("syn_in", {})
    ports = {port for row in table.values() for port in row if port != str(failed.port)}
    return sorted(ports | {str(port) for port in reach.open_elsewhere(failed)}, key=int)


def _egress(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("ETIMEDOUT", "ECONNREFUSED", "EHOSTUNREACH")
    if failed is None:
        return None
    gateway = next(
        (
            route.facts.get("gateway")
            for route in case.all("route.to", failed.vantage)
            if route.facts.get("address") == failed.address
        ),
        None,
    )
    if failed.prohibited and failed.refuser == gateway:
        return Match(
            STRONG,
            lines(
                str(failed),
                f"{failed.vantage}: {gateway} is this network's own gateway; the message says "
                "that its firewall prohibits it",
            ),
            ruled_out=("fw-firewalld-reject", "fw-reject-other", "fw-upstream-drop",
                       "l3-device-wrong-gateway", "l3-wrong-server-ip"),
        )  # fmt: skip
    if failed.errno == "ETIMEDOUT" and reach.never_left(failed):
        return Match(
            STRONG,
            lines(
                str(failed),
                f"{failed.vantage}: no SYN to port {failed.port} left this machine's network card, "
                "those to other ports did: its own packet filter holds it back",
            ),
            ruled_out=("fw-ufw-drop", "fw-upstream-drop", "tcp-service-down"),
        )
    nearer = reach.reset_from_nearer(failed)
    if (
        nearer is not None
        and not reach.syns(failed.port)
        and (nearer[0] == 0 or reach.connects_elsewhere)
    ):
        return Match(
            STRONG,
            lines(
                str(failed),
                _nearer(failed, nearer),
                next((str(one) for one in reach.elsewhere if one.errno is None), None),
            ),
            ruled_out=("tcp-service-down", "tcp-wrong-port", "fw-reject-other",
                       "fw-upstream-drop"),
        )  # fmt: skip
    others = reach.open_elsewhere(failed)
    if reach.connects_elsewhere and (others or reach.nothing_arrived):
        if reach.server_seen and not reach.nothing_arrived and reach.watch is not None:
            return None
        if not others and not _site_reaches_server(reach, failed):
            return None
        if not reach.server_seen and failed.errno != "ETIMEDOUT":
            return None
        return Match(
            STRONG if reach.nothing_arrived else LIKELY,
            lines(
                str(failed),
                next((str(one) for one in reach.elsewhere if one.errno is None), None),
                f"site: other ports of the same server answer ({listed([str(p) for p in others])})"
                if others
                else None,
                f"server: no SYN of the site to port {failed.port} arrived"
                if reach.nothing_arrived
                else None,
                _left(reach, failed) if failed.errno == "ETIMEDOUT" else None,
                f"site: the upgrade itself is answered with 101 on port {listed(proven)}"
                if (proven := [str(port) for port in reach.upgraded_elsewhere(failed)])
                else None,
            ),
            ruled_out=("fw-ufw-drop", "fw-upstream-drop", "tcp-service-down"),
        )
    return None


def _site_reaches_server(reach: Reach, failed: Connect) -> bool:
    """Whether packets of the same site reach the server on another port."""
    return bool(_others_arriving(reach, failed))


CAUSES: tuple[Cause, ...] = (
    Cause(
        "fw-ufw-drop",
        Layer.TCP,
        "The server's own firewall drops the link's port",
        Fix("Let the link's port in.", "A SYN is accepted.", Auto.YES, _LET_IN["ufw"]("PORT")),
        _drop,
    ),
    Cause(
        "fw-firewalld-reject",
        Layer.TCP,
        "A firewall rule of the server rejects the link's port as prohibited",
        Fix(
            "Let the link's port in, in the zone of the interface it comes by.",
            "A SYN is accepted; `firewall-cmd --list-all` shows the port.",
            Auto.YES,
            commands=_LET_IN["firewalld"]("PORT"),
        ),
        _firewalld,
    ),
    Cause(
        "fw-reject-other",
        Layer.TCP,
        "A firewall rule rejects the link's port as if nothing listened there",
        Fix("Let the link's port in.", "A SYN is accepted.", Auto.YES, _LET_IN["ufw"]("PORT")),
        _reject,
    ),
    Cause(
        "fw-answers-taken",
        Layer.TCP,
        "A firewall rule of the server takes packets of connections that it let in",
        Fix(
            "Take that rule away, or except the link's port from it.",
            "Its counter stays where it is while the link is tried.",
            Auto.ASK,
        ),
        _output,
        aftermath=("px-upstream-timeout", "px-upstream-refused", "px-connect-failed"),
    ),
    Cause(
        "fw-ufw-limit-lockout",
        Layer.TCP,
        "A rate limit of the firewall locks out whoever reconnects often",
        Fix(
            "Allow the port without a limit.",
            "The seventh attempt is accepted too.",
            Auto.YES,
            commands=_unlimited("PORT"),
        ),
        _limit,
        aftermath=("fw-reject-other", "dev-reconnect-storm"),
    ),
    Cause(
        "fw-docker-path",
        Layer.TCP,
        "A NAT rule sends the port elsewhere (a container, another port), past who listens there",
        Fix(
            "Publish the container's port on 127.0.0.1 only and let nginx face the controllers; "
            "rules for published ports belong into the chain DOCKER-USER.",
            "The port's listener is nginx, and no NAT rule names the port.",
            Auto.ASK,
            commands=(("nft", "list", "ruleset"), ("iptables-save", "-t", "nat")),
        ),
        _docker,
        aftermath=("tls-plain-client-to-tls-port", "px-default-server", "px-location-404"),
    ),
    Cause(
        "fw-upstream-drop",
        Layer.TCP,
        "Something before the server drops the port: a cloud firewall, a router, the provider",
        Fix(
            "Open the port in the cloud's or the router's firewall; nothing on the server will "
            "help.",
            "A SYN to the port reaches the server's network card.",
            Auto.NO,
        ),
        _upstream_drop,
    ),
    Cause(
        "fw-site-egress-block",
        Layer.TCP,
        "The site's own network does not let this port out",
        Fix(
            "Ask whoever runs the site's network to let the port out, or let the server listen on "
            "one that passes (443 or 80).",
            "The same port answers from the site as it does from elsewhere.",
            Auto.NO,
            ansible={"nginx_proxy_listeners": [{"port": 80}]},
        ),
        _egress,
        aftermath=("fw-upstream-drop",),
    ),
    Cause(
        "fw-fail2ban-ban",
        Layer.TCP,
        "The site's address is banned on the server",
        _unban("ADDRESS", None),
        _banned,
        aftermath=("fw-reject-other",),
    ),
)
