"""Listeners of the link: taken by another process, on every address and family, in every manner."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from machines.faults.bench import CARRIED, REMOTE_PYTHON
from machines.faults.fault import server
from machines.mutations.mutation import (
    AGAIN,
    DIRECT,
    PLAIN,
    SECURE,
    Mutation,
    Party,
    Truth,
    kind,
)
from machines.mutations.system import System, allowed_ports

#: What the other process does with who connects; see :mod:`machines.mutations.squatter`.
MANNERS = ("http", "upgrade", "banner", "silent", "closes", "resets", "bound")
_NAME = "shop-backend"


@kind("listener-taken")
def taken(system: System) -> Iterator[Mutation]:
    """Another process has the port before its owner is started again."""
    ways = {
        80: (PLAIN, "nginx.service"),
        3000: (DIRECT, "ptslink.socket"),
        443: (SECURE, "nginx.service"),
    }
    for port in allowed_ports(system.user_rules):
        way, unit = ways[port]
        stop = (
            f"systemctl stop {unit} ptslink.service" if port == 3000 else f"systemctl stop {unit}"
        )
        for address in ("0.0.0.0", "::", system.address, "127.0.0.1"):
            for manner in MANNERS:
                line = shlex.join(
                    (
                        "systemd-run",
                        "-q",
                        "--collect",
                        "--unit",
                        _NAME,
                        REMOTE_PYTHON,
                        f"{CARRIED}/squatter.py",
                        address,
                        str(port),
                        manner,
                    )
                )
                ready = (
                    f"for n in $(seq 30); do systemctl is-active -q {_NAME} && break; "
                    "sleep 0.1; done"
                )
                yield Mutation(
                    "listener-taken",
                    f"{address} port {port}, {manner}",
                    Truth(
                        (Party.PROCESS,),
                        (_NAME, "squatter"),
                        f"{_NAME}.service has {address} port {port} and {manner}",
                    ),
                    (
                        server(f"{stop}; {line} && {ready}; sleep 0.3"),
                        server(AGAIN[unit].line, may_fail=True),
                    ),
                    (
                        server(f"systemctl stop {_NAME}", may_fail=True),
                        server(AGAIN[unit].line, may_fail=True),
                    ),
                    way,
                )


@kind("upstream-taken")
def upstream_taken(system: System) -> Iterator[Mutation]:
    """Another process answers nginx on the loopback address alone, in place of the service."""
    del system
    for manner in MANNERS:
        yield Mutation(
            "upstream-taken",
            f"127.0.0.1 port 3000, {manner}",
            Truth(
                (Party.PROCESS,), (_NAME, "squatter"), f"{_NAME}.service answers nginx: {manner}"
            ),
            (
                server(
                    "systemctl stop ptslink.socket ptslink.service; systemd-run -q --collect "
                    f"--unit {_NAME} {REMOTE_PYTHON} {CARRIED}/squatter.py 127.0.0.1 3000 {manner} "
                    "&& sleep 0.5"
                ),
            ),
            (
                server(f"systemctl stop {_NAME}", may_fail=True),
                server(AGAIN["ptslink.socket"].line, may_fail=True),
            ),
            PLAIN,
        )
