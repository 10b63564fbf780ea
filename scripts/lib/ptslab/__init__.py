"""Throw-away Debian machines behind a site router, for trying and testing ptslink.

The one implementation of test machines. `scripts/lab` is its command line; Python
code uses the names below:

    from ptslab import MachineRequest, up, down, describe
    lab = up("demo", [MachineRequest("server", "bookworm")])
    describe(lab)["ssh_config"]
    down("demo")

Needs root and Linux; standard library only. docs/lab.md has the picture.
"""

from ptslab.errors import LabError, UsageError
from ptslab.inventory import inventory
from ptslab.lab import describe, down, enter_command, require, up
from ptslab.layout import MachineRequest
from ptslab.state import Lab, Machine, labs

__all__ = [
    "Lab",
    "LabError",
    "Machine",
    "MachineRequest",
    "UsageError",
    "describe",
    "down",
    "enter_command",
    "inventory",
    "labs",
    "require",
    "up",
]
