"""The network of a lab as data: commands and rule sets, nothing is run here. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from ptslab.layout import Layout

Command = tuple[str, ...]

#: Every lab's addresses: a lab never reaches another lab.
ALL_LABS = (IPv4Network("10.77.0.0/16"), IPv4Network("10.78.0.0/16"))


#: One segment a packet on every cable. Without it the kernel passes bundles of up to
#: 64 KB about, and a rule on packet length would see sizes no wire ever carries.
TRUE_PACKETS: Command = ("gso_max_segs", "1")


def build_network(layout: Layout) -> list[Command]:
    """Commands that make bridge, router and controller namespace, in order."""
    bridge, router, controller = (
        layout.bridge,
        layout.router_namespace,
        layout.controller_namespace,
    )
    in_router: Command = ("ip", "-n", router)
    in_controller: Command = ("ip", "-n", controller)
    wan_bits, lan_bits = layout.wan.prefixlen, layout.lan.prefixlen
    return [
        # The "internet" of the lab.
        ("ip", "link", "add", bridge, "address", layout.bridge_mac, "type", "bridge"),
        ("ip", "address", "add", f"{layout.gateway}/{wan_bits}", "dev", bridge),
        ("ip", "link", "set", bridge, "up", *TRUE_PACKETS),
        # The site router: one leg on the bridge, one in the site.
        ("ip", "netns", "add", router),
        ("ip", "netns", "add", controller),
        ("ip", "link", "add", layout.router_link, "type", "veth",
         "peer", "name", "wan", "netns", router),
        ("ip", "link", "set", layout.router_link, "master", bridge, "up", *TRUE_PACKETS),
        (*in_router, "link", "add", "lan", "type", "veth",
         "peer", "name", "eth0", "netns", controller),
        (*in_router, "address", "add", f"{layout.router_wan}/{wan_bits}", "dev", "wan"),
        (*in_router, "address", "add", f"{layout.router_lan}/{lan_bits}", "dev", "lan"),
        (*in_router, "link", "set", "lo", "up"),
        (*in_router, "link", "set", "wan", "up", *TRUE_PACKETS),
        (*in_router, "link", "set", "lan", "up", *TRUE_PACKETS),
        (*in_router, "route", "add", "default", "via", str(layout.gateway)),
        ("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1"),
        # The site: every controller address on one interface.
        (*in_controller, "link", "set", "lo", "up"),
        (*in_controller, "link", "set", "eth0", "up", *TRUE_PACKETS),
        *(
            (*in_controller, "address", "add", f"{address}/{lan_bits}", "dev", "eth0")
            for address in layout.controllers
        ),
        (*in_controller, "route", "add", "default", "via", str(layout.router_lan)),
        ("ip", "netns", "exec", controller, "sysctl", "-qw", "net.ipv4.ip_forward=0"),
    ]  # fmt: skip


def host_rules(layout: Layout) -> str:
    """The lab's nft table in this computer's own namespace: way out, and cutting it.

    Members of the set `cut` are refused everything beyond this computer and the
    lab; members of `cut_silent` get no answer at all.
    """
    elsewhere = ", ".join(str(network) for network in ALL_LABS)
    return f"""\
table ip {layout.nft_table} {{
    set cut {{ type ipv4_addr; }}
    set cut_silent {{ type ipv4_addr; }}
    chain forward {{
        type filter hook forward priority filter - 5; policy accept;
        # Within the lab: seen here only where bridged packets are filtered (br_netfilter).
        iifname "{layout.bridge}" oifname "{layout.bridge}" accept
        ip saddr @cut_silent drop
        ip daddr @cut_silent drop
        ip saddr @cut reject with icmp admin-prohibited
        ip daddr @cut reject with icmp admin-prohibited
        iifname "{layout.bridge}" ip daddr {{ {elsewhere} }} reject with icmp net-prohibited
        iifname "{layout.bridge}" accept
        oifname "{layout.bridge}" ct state established,related accept
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {layout.wan} oifname != "{layout.bridge}" masquerade
    }}
}}
"""


def router_rules(layout: Layout) -> str:
    """The site router's own rules: NAT like a site's DSL or LTE router does it.

    The chain `faults` is empty: a place for tests to add drop, reject or MTU rules.
    """
    return f"""\
table ip site {{
    chain faults {{
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        jump faults
        ct state invalid drop
        ct state established,related accept
        iifname "lan" oifname "wan" accept
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {layout.lan} oifname "wan" masquerade
    }}
}}
"""


def machine_cable(layout: Layout, index: int) -> list[Command]:
    """Commands that give machine `index` a fresh namespace with eth0 on the bridge.

    A machine gets a new namespace at every boot, as a computer starts with an
    empty firewall; addresses are the business of the machine itself.
    """
    namespace, link = layout.machine_namespace(index), layout.machine_link(index)
    return [
        ("ip", "netns", "add", namespace),
        ("ip", "link", "add", link, "type", "veth",
         "peer", "name", "eth0", "address", layout.machine_mac(index), "netns", namespace),
        ("ip", "link", "set", link, "master", layout.bridge, "up", *TRUE_PACKETS),
        ("ip", "-n", namespace, "link", "set", "eth0", *TRUE_PACKETS),
        # A new namespace inherits this computer's forwarding switch; a bare server has it off.
        ("ip", "netns", "exec", namespace, "sysctl", "-qw", "net.ipv4.ip_forward=0"),
    ]  # fmt: skip


def cut(layout: Layout, addresses: Iterable[IPv4Address], *, silent: bool) -> list[Command]:
    """Commands that leave `addresses` nothing but this computer and the lab."""
    chosen = "{ " + ", ".join(str(address) for address in addresses) + " }"
    name = "cut_silent" if silent else "cut"
    return [("nft", "add", "element", "ip", layout.nft_table, name, chosen)]


def restore(layout: Layout) -> list[Command]:
    """Commands that take every address out of the sets of `cut`."""
    return [
        ("nft", "flush", "set", "ip", layout.nft_table, "cut"),
        ("nft", "flush", "set", "ip", layout.nft_table, "cut_silent"),
    ]
