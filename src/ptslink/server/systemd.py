"""Talking to systemd: readiness, watchdog, sockets handed over (sd_notify(3), sd_listen_fds(3))."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final

from ptslink.server.vitals import HUNG_SECONDS, Vitals

#: Seconds between looks where no watchdog asks for more.
LOOK_SECONDS: Final = 10.0
_FIRST_FD: Final = 3


def notify(state: str, environment: MutableMapping[str, str] = os.environ) -> bool:
    """Send a state such as ``READY=1``; False when not started by systemd or nobody listens."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            channel.send(state.encode())
    except OSError:
        return False
    return True


def watchdog_seconds(environment: MutableMapping[str, str] = os.environ) -> float | None:
    """How often the watchdog wants to hear of us, or None when there is none."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(microseconds) / 1e6


def inherited_sockets(
    environment: MutableMapping[str, str] = os.environ,
) -> list[tuple[str, socket.socket]]:
    """Listening sockets handed over: (name, socket), names from ``FileDescriptorName=``.

    The variables are removed so that no child takes the descriptors for its own.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for at in range(int(count)):
        listener = socket.socket(fileno=_FIRST_FD + at)
        listener.setblocking(False)
        os.set_inheritable(listener.fileno(), False)
        found.append((names[at] if at < len(names) else "", listener))
    return found


def monotonic_microseconds() -> int:
    """The monotonic clock as systemd counts it."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


class Watchdog:
    """Feeds systemd's watchdog from the event loop: a loop that hangs stops feeding it, and so does
    a part of the server that has ended or hangs. Each silence is told once, with a watchdog or not.

    Args:
        seconds: the watchdog's patience, or None when there is none.
        vitals: the parts that are looked at.
        tell: called with a sentence when a part falls silent, or ticks again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float | None,
        vitals: Vitals,
        tell: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._every = LOOK_SECONDS if seconds is None else seconds / 3
        self._vitals = vitals
        self._tell = tell
        self._silent: list[str] = []
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look and feed now and from now on."""
        self._handle = self._loop.call_later(self._every, self.start)
        hung = self._vitals.silent(HUNG_SECONDS)
        if not hung:
            notify("WATCHDOG=1")
        before, self._silent = self._silent, self._vitals.silent()
        ages = self._vitals.ages()
        for part in self._silent:
            if part not in before:
                age = ages[part]
                how = "have ended" if age == math.inf else f"are silent for {age:.0f} seconds"
                self._tell(
                    f"Of the server's parts the {part} {how}; after {HUNG_SECONDS:g} seconds "
                    "systemd's watchdog starts the server anew."
                )
        for part in before:
            if part not in self._silent:
                self._tell(f"Of the server's parts the {part} go on.")

    def stop(self) -> None:
        """Feed no more."""
        if self._handle is not None:
            self._handle.cancel()
