"""Names and addresses of a lab, worked out from its name and its slot. Pure.

A slot is a small number that no two labs on this computer share. Every name the
lab gives to the kernel (bridge, veth, namespace, cgroup) carries it, so labs
stand side by side and whatever is left over can be traced to its owner.

Addresses (slot 4 as the example):

    10.77.4.0/24    the "internet" of the lab: a bridge
        .1          this computer: gateway, control node
        .2          the site router, seen from outside (its WAN address)
        .10 .11 ... the machines
    10.78.4.0/24    the site's own network, behind the router
        .1          the site router, seen from inside
        .10 - .59   the controllers' addresses
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from ptslab.errors import UsageError

DEFAULT_LAB: Final = "lab"
DEFAULT_MACHINE: Final = "server"
DEFAULT_SUITE: Final = "bookworm"
#: Debian releases a machine can run.
SUITES: Final = ("bookworm", "trixie")

SLOTS: Final = range(100)
#: Linux: IFNAMSIZ is 16 with the closing zero.
INTERFACE_NAME_MAX: Final = 15
FIRST_MACHINE: Final = 10
MACHINES_MAX: Final = 64
CONTROLLER_HOSTS: Final = range(10, 60)

#: Words `exec` understands; a machine cannot be called so.
NAMESPACES: Final = ("controller", "router")

_LAB_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,30}[a-z0-9])?")
_MACHINE_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?")


def check_lab_name(name: str) -> str:
    """Return `name`, or raise UsageError saying what a lab may be called."""
    if not _LAB_NAME.fullmatch(name):
        raise UsageError(
            f"lab name {name!r}: use 1 to 32 of a-z, 0-9, - and _, "
            "starting and ending with a letter or digit"
        )
    return name


@dataclass(frozen=True)
class MachineRequest:
    """A machine somebody asks for: `NAME` or `NAME=SUITE` on the command line."""

    name: str
    suite: str = DEFAULT_SUITE

    @classmethod
    def parse(cls, text: str) -> MachineRequest:
        """Read `NAME[=SUITE]`; raise UsageError naming what is accepted."""
        name, _, suite = text.partition("=")
        if "=" not in text:
            suite = DEFAULT_SUITE
        if not _MACHINE_NAME.fullmatch(name):
            raise UsageError(
                f"machine name {name!r}: use 1 to 32 of a-z, 0-9 and -, "
                "starting with a letter, ending with a letter or digit"
            )
        if name in NAMESPACES:
            raise UsageError(f"machine name {name!r} is taken: it means the lab's own {name}")
        if suite not in SUITES:
            raise UsageError(f"machine {name}: suite {suite!r} is not one of {', '.join(SUITES)}")
        return cls(name, suite)


def parse_machines(texts: Sequence[str]) -> tuple[MachineRequest, ...]:
    """Read every `--machine`; none means one `server` on bookworm."""
    requests = tuple(MachineRequest.parse(text) for text in texts) or (
        MachineRequest(DEFAULT_MACHINE),
    )
    names = [request.name for request in requests]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"machine {name!r} is asked for more than once")
    if len(names) > MACHINES_MAX:
        raise UsageError(f"{len(names)} machines: a lab holds at most {MACHINES_MAX}")
    return requests


@dataclass(frozen=True)
class Layout:
    """The names and addresses of the lab `lab` in slot `slot`."""

    lab: str
    slot: int

    def __post_init__(self) -> None:
        if self.slot not in SLOTS:
            raise ValueError(f"slot {self.slot} is outside {SLOTS.start} to {SLOTS.stop - 1}")

    @property
    def prefix(self) -> str:
        """Starts every kernel-visible name of this lab."""
        return f"ptslab{self.slot}"

    @property
    def bridge(self) -> str:
        return self.prefix

    @property
    def router_link(self) -> str:
        """The bridge's end of the router's WAN cable."""
        return f"{self.prefix}-wan"

    @property
    def router_namespace(self) -> str:
        return f"{self.prefix}-router"

    @property
    def controller_namespace(self) -> str:
        return f"{self.prefix}-controller"

    @property
    def nft_table(self) -> str:
        """The lab's table (family ip) in this computer's own namespace."""
        return f"ptslab_{self.lab}"

    @property
    def wan(self) -> IPv4Network:
        return IPv4Network(f"10.77.{self.slot}.0/24")

    @property
    def lan(self) -> IPv4Network:
        return IPv4Network(f"10.78.{self.slot}.0/24")

    @property
    def gateway(self) -> IPv4Address:
        return self.wan[1]

    @property
    def router_wan(self) -> IPv4Address:
        return self.wan[2]

    @property
    def router_lan(self) -> IPv4Address:
        return self.lan[1]

    @property
    def controllers(self) -> tuple[IPv4Address, ...]:
        """The addresses a simulated controller may bind in the controller namespace."""
        return tuple(self.lan[host] for host in CONTROLLER_HOSTS)

    def machine_namespace(self, index: int) -> str:
        return f"{self.prefix}-m{index}"

    def machine_link(self, index: int) -> str:
        """The bridge's end of a machine's network cable."""
        return f"{self.prefix}-m{index}"

    def machine_address(self, index: int) -> IPv4Address:
        return self.wan[FIRST_MACHINE + index]

    def machine_mac(self, index: int) -> str:
        return f"02:77:{self.slot:02x}:00:00:{FIRST_MACHINE + index:02x}"

    def machine_link_local(self, index: int) -> str:
        """What the machine's kernel makes of its MAC (EUI-64), with the way there from here."""
        return f"fe80::77:{self.slot:x}ff:fe00:{FIRST_MACHINE + index:x}%{self.bridge}"

    @property
    def bridge_mac(self) -> str:
        return f"02:77:{self.slot:02x}:00:00:01"

    def namespace(self, word: str) -> str:
        """The namespace behind `exec WORD`: controller or router."""
        return {
            "controller": self.controller_namespace,
            "router": self.router_namespace,
        }[word]


@dataclass(frozen=True)
class HostNetwork:
    """What this computer's network already holds, as far as a new lab cares."""

    interfaces: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    #: Directly attached addresses and routes, as networks.
    networks: tuple[IPv4Network, ...] = ()


def conflict(layout: Layout, host: HostNetwork) -> str | None:
    """Say in a few words what on this computer is in the way of `layout`, or None."""
    for interface in sorted(host.interfaces):
        if interface == layout.bridge or interface.startswith(layout.prefix + "-"):
            return f"interface {interface} exists"
    for namespace in sorted(host.namespaces):
        if namespace.startswith(layout.prefix + "-"):
            return f"network namespace {namespace} exists"
    for network in host.networks:
        # A wide route (a VPN's 10.0.0.0/8, the default route) gives way to the
        # lab's /24; a narrow one is somebody's real network.
        if network.prefixlen < 16:
            continue
        for ours in (layout.wan, layout.lan):
            if network.overlaps(ours):
                return f"{network} is in use and overlaps {ours}"
    return None


def allocate_slot(lab: str, taken: frozenset[int], host: HostNetwork) -> Layout:
    """Choose the first slot that no lab holds and nothing foreign is in the way of.

    Raises LabError-compatible UsageError, naming the first obstacle, if none is left.
    """
    if f"ptslab_{lab}" in host.tables:
        raise UsageError(
            f"nft table 'ip ptslab_{lab}' exists but no lab of that name does: "
            f"remove it with 'nft delete table ip ptslab_{lab}', or choose another --lab"
        )
    first: str | None = None
    for slot in SLOTS:
        if slot in taken:
            continue
        layout = Layout(lab, slot)
        obstacle = conflict(layout, host)
        if obstacle is None:
            return layout
        first = first or obstacle
    raise UsageError(
        f"no free place for a lab in 10.77.0.0/16 and 10.78.0.0/16: {first or 'all slots taken'}; "
        "take a lab down (scripts/lab down) or free those addresses"
    )
