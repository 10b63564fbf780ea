"""The machine's firewall: ufw's rules, rules in force, tables and chains of other managers."""

from __future__ import annotations

from collections.abc import Iterator

from machines.faults.fault import Step, server
from machines.mutations.mutation import (
    DIRECT,
    PLAIN,
    Mutation,
    Party,
    Truth,
    Way,
    give_back,
    keep,
    kind,
)
from machines.mutations.system import System, allowed_ports, rules

_UFW = ("/etc/ufw", "/etc/default/ufw")
_RELOADED = server("ufw reload >/dev/null")
_UNDO_UFW = (server(give_back(*_UFW)), _RELOADED)


def _way(port: int) -> Way | None:
    """How a mutation of *port* is reached; None where the link has no way there."""
    return {80: PLAIN, 3000: DIRECT}.get(port)


def _ways(system: System) -> Iterator[tuple[int, Way]]:
    for port in allowed_ports(system.user_rules):
        if way := _way(port):
            yield port, way


def _by_ufw(kind_: str, what: str, lines: str, way: Way, *things: str) -> Mutation:
    return Mutation(kind_, what, Truth((Party.FIREWALL,), things, what),
                    (server(f"{keep(*_UFW)} && {lines}"),), _UNDO_UFW, way)  # fmt: skip


@kind("ufw-removed")
def ufw_removed(system: System) -> Iterator[Mutation]:
    """Each rule of ufw's is taken out: of both families, or limited to another site."""
    for port, way in _ways(system):
        for what in (f"allow {port}/tcp", f"allow {port}/tcp, another site alone"):
            line = f"ufw delete allow {port}/tcp"
            if "another" in what:
                line += f" && ufw allow proto tcp from 192.0.2.0/24 to any port {port}"
            yield _by_ufw("ufw-removed", what, line, way, f"{port}/tcp", f"port {port}",
                          f"dport {port}")  # fmt: skip


@kind("ufw-shadowed")
def ufw_shadowed(system: System) -> Iterator[Mutation]:
    """A rule of ufw's stands before the one that allows the link."""
    network = system.address.rpartition(".")[0] + ".0/24"
    for port, way in _ways(system):
        for verb in ("deny", "reject", "limit"):
            for source in ("any", system.site, network, "192.0.2.0/24"):
                for to in (f"any port {port}", "any", f"{system.address} port {port}"):
                    what = f"{verb} from {source} to {to}"
                    line = f"ufw insert 1 {verb} proto tcp from {source} to {to}"
                    yield _by_ufw("ufw-shadowed", f"{port}: {what}", line, way, f"{port}/tcp",
                                  f"dport {port}", f"port {port}", f"ufw delete {verb}",
                                  f"saddr {source}", f"from {source}")  # fmt: skip


@kind("ufw-policy")
def ufw_policy(system: System) -> Iterator[Mutation]:
    """ufw's own settings: policies, its files, whether it manages what is in force."""
    lines = {
        "default deny outgoing": "ufw default deny outgoing",
        "default reject outgoing": "ufw default reject outgoing",
        "default allow incoming": "ufw default allow incoming",
        "logging off": "ufw logging off",
        "no loopback": "sed -i '/-i lo -j ACCEPT/d' /etc/ufw/before.rules && ufw reload",
        "no established": "sed -i '/RELATED,ESTABLISHED/d' /etc/ufw/before.rules && ufw reload",
        "drop in before.rules":
            "sed -i '/^COMMIT/i -I ufw-before-input 1 -p tcp --dport 80 -j DROP' "
            "/etc/ufw/before.rules && ufw reload",
        "drop of answers in before.rules":
            "sed -i '/^COMMIT/i -I ufw-before-output 1 -p tcp --sport 80 -j DROP' "
            "/etc/ufw/before.rules && ufw reload",
        "user.rules emptied": "sed -i '/-A ufw-user-input.*--dport 80 /d' /etc/ufw/user.rules && "
            "ufw reload",
    }  # fmt: skip
    del system
    for what, line in lines.items():
        yield _by_ufw("ufw-policy", what, line, PLAIN, "ufw", "before.rules", "user.rules")


@kind("rule-removed")
def rule_removed(system: System) -> Iterator[Mutation]:
    """Each rule in force is taken out of the kernel, while its manager believes it is there."""
    for rule in rules(system.ruleset):
        if rule.family != "ip" or "output" in rule.chain or "forward" in rule.chain:
            continue
        where = f"{rule.family} {rule.table} {rule.chain}"
        yield Mutation(
            "rule-removed", f"{where}: {_plain(rule.text)}",
            Truth((Party.FIREWALL,), (rule.chain, _plain(rule.text)),
                  f"{where} lacks {_plain(rule.text)!r}"),
            (server(f"nft delete rule {where} handle {rule.handle}"),), (_RELOADED,),
        )  # fmt: skip


def _plain(text: str) -> str:
    """A rule without its counter."""
    words = text.split()
    if "counter" in words:
        at = words.index("counter")
        del words[at : at + 5]
    return " ".join(words)


_VERDICTS = ("drop", "reject with tcp reset", "reject with icmp type admin-prohibited",
             "reject with icmp type port-unreachable")  # fmt: skip


def _arriving(port: int, system: System) -> Iterator[str]:
    yield f"tcp dport {port}"
    yield f"ip saddr {system.site} tcp dport {port}"
    yield f"iifname {system.interface} tcp dport {port} ct state new"
    yield f"tcp dport {port} ct state established"
    yield f"tcp dport {port} meta length > 100"
    yield f"ip saddr 192.0.2.1 tcp dport {port}"


def _leaving(port: int, system: System) -> Iterator[str]:
    yield f"tcp sport {port}"
    yield f"ip daddr {system.site}"
    yield f"tcp sport {port} tcp flags syn,ack / syn,ack"
    yield f"tcp sport {port} meta length > 100"
    yield "oifname lo tcp dport 3000"


@kind("nft-table")
def nft_table(system: System) -> Iterator[Mutation]:
    """A table of another manager drops or rejects, before or after the managed one."""
    for port, way in _ways(system):
        for hook, matches in (("prerouting", _arriving), ("input", _arriving),
                              ("output", _leaving)):  # fmt: skip
            for priority in (-300, -10, 10):
                for match in matches(port, system):
                    for verdict in _VERDICTS:
                        # The kernel knows no reject before routing in this family.
                        if hook == "prerouting" and verdict != "drop":
                            continue
                        # ct is not known yet before its own priority.
                        if priority == -300 and "ct state" in match:
                            continue
                        yield _in_a_table(port, way, hook, priority, f"{match} {verdict}")


def _in_a_table(port: int, way: Way, hook: str, priority: int, rule: str) -> Mutation:
    told = f"{hook} {priority}: {rule}"
    return Mutation(
        "nft-table", f"{port}: {told}",
        Truth((Party.FIREWALL,), ("ip office",), f"ip office {told}"),
        (server(f"nft 'add table ip office; add chain ip office {hook} {{ type filter hook {hook} "
                f"priority {priority}; }}; add rule ip office {hook} {rule}'"),),
        (server("nft delete table ip office"),), way,
    )  # fmt: skip


@kind("nft-policy")
def nft_policy(system: System) -> Iterator[Mutation]:
    """A table of another manager has a policy of its own and does not know the link."""
    for port, way in _ways(system):
        for hook in ("input", "output"):
            for rule in ("tcp dport 22 accept", "ct state established,related accept",
                         f"tcp dport {port} accept", "iifname lo accept"):  # fmt: skip
                if hook == "output" and "iifname" in rule:
                    continue
                told = f"{hook} policy drop, {rule}"
                yield Mutation(
                    "nft-policy", f"{port}: {told}",
                    Truth((Party.FIREWALL,), ("inet office",), f"inet office {told}"),
                    (server(f"nft 'add table inet office; add chain inet office {hook} {{ type "
                            f"filter hook {hook} priority 5; policy drop; }}; add rule inet office "
                            f"{hook} {rule}'"),),
                    (server("nft delete table inet office"),), way,
                )  # fmt: skip


@kind("nat-rule")
def nat_rule(system: System) -> Iterator[Mutation]:
    """Packets for the link are taken to another port or address before anybody hears them."""
    targets = ["redirect to :9", "redirect to :22", "redirect to :443", "redirect to :9180",
               f"dnat to {system.site}", "dnat to 192.0.2.1"]  # fmt: skip
    for port, way in _ways(system):
        for target in targets:
            for match in (f"tcp dport {port}", f"ip saddr {system.site} tcp dport {port}",
                          f"iifname {system.interface} tcp dport {port}"):  # fmt: skip
                yield Mutation(
                    "nat-rule", f"{match} {target}",
                    Truth((Party.FIREWALL,), ("ip office", target), f"ip office {match} {target}"),
                    (server("nft 'add table ip office; add chain ip office pre { type nat hook "
                            f"prerouting priority dstnat; }}; add rule ip office pre {match} "
                            f"{target}'"),),
                    (server("nft delete table ip office"),), way,
                )  # fmt: skip


def _iptables(verb: str, table: str, chain: str, rule: str, program: str) -> Step:
    where = f"1 {rule}" if verb == "-I" else rule
    return server(f"{program} -t {table} {verb} {chain} {where}")


@kind("iptables-rule")
def iptables_rule(system: System) -> Iterator[Mutation]:
    """A rule outside any manager, in the chains of the kernel or of the manager."""
    chains = (("filter", "INPUT"), ("filter", "ufw-before-input"), ("filter", "ufw-user-input"),
              ("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("mangle", "INPUT"))  # fmt: skip
    for port, way in _ways(system):
        for table, chain in chains:
            for match in (f"-p tcp --dport {port}", f"-s {system.site} -p tcp --dport {port}",
                          f"-p tcp --dport {port} -m length --length 100:1500",
                          f"-s 192.0.2.1 -p tcp --dport {port}"):  # fmt: skip
                for target in ("DROP", "REJECT", "REJECT --reject-with tcp-reset"):
                    if table != "filter" and target != "DROP":
                        continue
                    rule = f"{match} -j {target}"
                    yield Mutation(
                        "iptables-rule", f"{table} {chain} {rule}",
                        Truth((Party.FIREWALL,), (f"{table} {chain}", f"-D {chain}",
                                                  f"chain {chain}", f"{chain}"),
                              f"iptables -t {table} -I {chain} {rule}"),
                        (_iptables("-I", table, chain, rule, "iptables"),),
                        (_iptables("-D", table, chain, rule, "iptables"),), way,
                    )  # fmt: skip
