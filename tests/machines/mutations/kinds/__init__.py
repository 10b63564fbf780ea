"""The kinds of mutations: importing this package registers them."""

from machines.mutations.kinds import firewall, nginx, service, units

__all__ = ["firewall", "nginx", "service", "units"]
