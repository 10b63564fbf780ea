"""Routes, neighbours, addresses and settings of the machine; the path to it; the site's network."""

from __future__ import annotations

from collections.abc import Iterator

from machines.faults.fault import (
    ROUTER_CLEAN,
    Step,
    cable,
    controller,
    router,
    router_rule,
    server,
)
from machines.mutations.mutation import DIRECT, PLAIN, Mutation, Party, Truth, Way, kind
from machines.mutations.system import System

_DEAD = "02:00:00:00:00:99"


def _mutation(
    kind_: str, what: str, party: Party, apply: Step, undo: Step, *things: str, way: Way = PLAIN
) -> Mutation:
    return Mutation(kind_, what, Truth((party,), things, what), (apply,), (undo,), way)


@kind("machine-route")
def machine_route(system: System) -> Iterator[Mutation]:
    """Each route of the machine is gone or leads nowhere; others lead the site's packets away."""
    site, network = system.site, system.address.rpartition(".")[0] + ".0/24"
    for line in system.routes.splitlines():
        words = line.split(" proto ")[0] if " src " not in line else line
        yield _mutation(
            "machine-route",
            f"without {words}",
            Party.MACHINE,
            server(f"ip route del {words}"),
            server(f"ip route replace {line}"),
            words.split()[0],
            "route",
        )
    for target in (f"{site}/32", f"{site}/31", "0.0.0.0/1", "10.0.0.0/8", network):
        for type_ in ("unreachable", "prohibit", "blackhole"):
            yield _mutation(
                "machine-route",
                f"{type_} {target}",
                Party.MACHINE,
                server(f"ip route add {type_} {target} metric 0"),
                server(f"ip route del {type_} {target} metric 0"),
                target,
                type_,
            )
    for type_ in ("unreachable", "prohibit", "blackhole"):
        for selector in (
            f"to {site}",
            "sport 80",
            "ipproto tcp sport 80",
            "iif eth0",
            f"from {system.address}",
        ):
            yield _mutation(
                "machine-route",
                f"rule {selector} {type_}",
                Party.MACHINE,
                server(f"ip rule add pref 100 {selector} {type_}"),
                server("ip rule del pref 100"),
                "ip rule",
                type_,
                selector,
            )
    for target in (f"{site}/32", "0.0.0.0/1"):
        gateway = network.replace("0/24", "250")
        yield _mutation(
            "machine-route",
            f"{target} via a dead gateway",
            Party.MACHINE,
            server(f"ip route add {target} via {gateway}"),
            server(f"ip route del {target} via {gateway}"),
            target,
            gateway,
        )


@kind("machine-neighbour")
def machine_neighbour(system: System) -> Iterator[Mutation]:
    """A neighbour has a wrong hardware address for good, or may not be asked for it."""
    site, dev = system.site, system.interface
    yield _mutation(
        "machine-neighbour",
        f"{site} has a wrong hardware address",
        Party.MACHINE,
        server(f"ip neigh replace {site} lladdr {_DEAD} dev {dev} nud permanent"),
        server(f"ip neigh del {site} dev {dev}"),
        _DEAD,
        "neighbour",
    )
    yield _mutation(
        "machine-neighbour",
        "no ARP",
        Party.MACHINE,
        server(f"ip link set {dev} arp off"),
        server(f"ip link set {dev} arp on"),
        "arp",
        "NOARP",
    )
    yield _mutation(
        "machine-neighbour",
        f"the site has a wrong hardware address of {dev}",
        Party.PATH,
        router(f"ip neigh replace {{server}} lladdr {_DEAD} dev wan nud permanent"),
        router("ip neigh del {server} dev wan"),
        "neighbour",
        _DEAD,
    )


@kind("machine-address")
def machine_address(system: System) -> Iterator[Mutation]:
    """The machine's address is gone, is another, or has another prefix; the link is down."""
    own, dev = system.address, system.interface
    back = f"ip addr replace {own}/24 dev {dev}; ip link set {dev} up; " + "; ".join(
        f"ip route replace {line}" for line in reversed(system.routes.splitlines())
    )
    other = own.rpartition(".")[0] + ".99"
    for what, line, thing in (
        ("gone", f"ip addr del {own}/24 dev {dev}", own),
        ("another", f"ip addr del {own}/24 dev {dev}; ip addr add {other}/24 dev {dev}", own),
        ("prefix 32", f"ip addr del {own}/24 dev {dev}; ip addr add {own}/32 dev {dev}", own),
        ("down", f"ip link set {dev} down", dev),
        ("mtu 68", f"ip link set {dev} mtu 68", "mtu"),
        ("mtu 300", f"ip link set {dev} mtu 300", "mtu"),
        ("multicast off", f"ip link set {dev} multicast off", dev),
    ):
        undo = f"ip addr flush dev {dev} scope global; ip link set {dev} mtu 1500; {back}"
        yield _mutation(
            "machine-address", what, Party.MACHINE, server(line), server(undo), thing, dev
        )
    yield _mutation(
        "machine-address",
        "loopback down",
        Party.MACHINE,
        server("ip link set lo down"),
        server("ip link set lo up"),
        "lo ",
        "loopback",
    )


_SYSCTLS = (
    ("net.ipv4.ip_local_port_range", "65000 65001"),
    ("net.ipv4.ip_local_port_range", "1024 1030"),
    ("net.ipv4.conf.all.rp_filter", "1"),
    ("net.ipv4.conf.eth0.rp_filter", "1"),
    ("net.ipv4.icmp_echo_ignore_all", "1"),
    ("net.ipv4.tcp_window_scaling", "0"),
    ("net.ipv4.tcp_timestamps", "0"),
    ("net.ipv4.tcp_sack", "0"),
    ("net.core.somaxconn", "1"),
    ("net.ipv4.tcp_max_syn_backlog", "1"),
    ("net.ipv4.tcp_syncookies", "0"),
    ("net.ipv4.tcp_keepalive_time", "2"),
    ("net.ipv4.tcp_retries2", "1"),
    ("net.ipv4.conf.eth0.accept_local", "1"),
    ("net.ipv4.conf.all.arp_ignore", "8"),
    ("net.ipv4.conf.all.route_localnet", "1"),
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.tcp_rmem", "256 256 256"),
    ("net.ipv4.tcp_wmem", "256 256 256"),
    ("net.ipv6.conf.all.disable_ipv6", "1"),
    ("net.ipv6.bindv6only", "1"),
    ("net.ipv4.ip_default_ttl", "1"),
    ("net.ipv4.tcp_min_snd_mss", "48"),
    ("net.ipv4.tcp_base_mss", "48"),
    ("net.ipv4.tcp_fin_timeout", "1"),
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ip_nonlocal_bind", "1"),
)


@kind("machine-sysctl")
def machine_sysctl(system: System) -> Iterator[Mutation]:
    """A setting of the kernel's network has another value, in the machine's namespace alone."""
    del system
    for name, value in _SYSCTLS:
        path = f"/proc/sys/{name.replace('.', '/')}"
        yield _mutation(
            "machine-sysctl",
            f"{name} = {value}",
            Party.MACHINE,
            cable(f"cat {path} > {{work}}/sysctl && echo {value} > {path}"),
            cable(f"cat {{work}}/sysctl > {path}"),
            name,
            name.rpartition(".")[2],
        )


@kind("path-rule")
def path_rule(system: System) -> Iterator[Mutation]:
    """Something on the way drops or rejects, by port, direction, state, size or chance."""
    del system
    out, back = "iifname lan oifname wan", "iifname wan oifname lan"
    for port, way in ((80, PLAIN), (3000, DIRECT)):
        for match in (
            f"{out} tcp dport {port}",
            f"{out}",
            f"{back}",
            f"{back} tcp sport {port}",
            f"{out} tcp dport {port} ct state established",
            f"{back} tcp flags syn,ack / syn,ack",
            f"{out} tcp dport {port} meta length > 100",
            f"{back} tcp sport {port} meta length > 150",
            f"{out} tcp dport {port} numgen random mod 2 < 1",
            f"{back} tcp sport {port} numgen random mod 2 < 1",
            f"{out} tcp dport {port} ct packets > 6",
        ):
            for verdict in (
                "drop",
                "reject with tcp reset",
                "reject with icmp type admin-prohibited",
                "reject with icmp type host-unreachable",
            ):
                if "reset" in verdict and "tcp" not in match:
                    continue
                parties = (Party.PATH, Party.SITE)
                what = f"{port}: {match} {verdict}"
                yield Mutation(
                    "path-rule",
                    what,
                    Truth(parties, (f"port {port}", f"TCP {port}", "10.77", "router"), what),
                    (router_rule(f"{match} {verdict}"),),
                    (ROUTER_CLEAN,),
                    way,
                    chance="random" in match,
                )


@kind("site-network")
def site_network(system: System) -> Iterator[Mutation]:
    """The site's own network: link, address, gateway, neighbours, routes."""
    del system
    back = (
        "ip link set eth0 up mtu 1500; ip route flush table main; ip neigh flush dev eth0; "
        "ip route replace 10.78.{slot}.0/24 dev eth0 src {site}; "
        "ip route replace default via {lan}"
    )
    for what, line in (
        ("link down", "ip link set eth0 down"),
        ("no default route", "ip route del default"),
        ("dead gateway", "ip route replace default via 10.78.{slot}.250"),
        (
            "gateway's hardware address wrong",
            f"ip neigh replace {{lan}} lladdr {_DEAD} dev eth0 nud permanent",
        ),
        ("server unreachable", "ip route add unreachable {server}"),
        ("server prohibited", "ip route add prohibit {server}"),
        ("server blackholed", "ip route add blackhole {server}"),
        ("server on the wrong interface", "ip route add {server} dev lo"),
        ("server thought to be a neighbour", "ip route add {server} dev eth0"),
        ("mtu 68", "ip link set eth0 mtu 68"),
    ):
        yield _mutation(
            "site-network",
            what,
            Party.SITE,
            controller(line),
            controller(back),
            "gateway",
            "route",
            "link",
            "address",
            "mtu",
        )
