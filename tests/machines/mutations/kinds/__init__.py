"""The kinds of mutations: importing this package registers them."""

from machines.mutations.kinds import (
    certificates,
    device,
    files,
    firewall,
    listeners,
    network,
    nginx,
    service,
    units,
)
from machines.mutations.mutation import KINDS, quarter

#: The kinds that are left out while the doctor is worked on.
LEFT_OUT = quarter(KINDS)

__all__ = [
    "LEFT_OUT",
    "certificates",
    "device",
    "files",
    "firewall",
    "listeners",
    "network",
    "nginx",
    "service",
    "units",
]
