"""A network namespace of one's own: loads cannot reach, or fill the tables of, anything else.

Entered by running the caller again under unshare(1). The namespaces of network and processes end
with their first process, and everything started in them ends with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_INSIDE = "PTSLINK_BENCH_INSIDE"

#: Enough ports and backlog for a storm of handshakes, on loopback alone.
SETTINGS: Mapping[str, str] = {
    "net/ipv4/ip_local_port_range": "10000 65000",
    "net/core/somaxconn": "8192",
    "net/ipv4/tcp_max_syn_backlog": "8192",
    "net/ipv4/tcp_tw_reuse": "1",
    "net/ipv4/tcp_max_tw_buckets": "400000",
}


def inside() -> bool:
    """Whether this process was started by `enter`."""
    return _INSIDE in os.environ


def enter(module: str, arguments: Sequence[str]) -> int:
    """Run ``python -m module arguments`` in namespaces of its own; returns its exit status."""
    command = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    done = subprocess.run(
        [*command, sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, _INSIDE: "1"},
        check=False,
    )
    return done.returncode


def settle() -> None:
    """Bring loopback up and apply `SETTINGS`."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, value in SETTINGS.items():
        Path("/proc/sys", name).write_text(value)
