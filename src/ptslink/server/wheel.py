"""One timer for all connections.

A timer of its own for every connection costs more memory than the connection's state. Here each
connection sits in the slot of the tick it is next due at; a connection that was busy meanwhile is
not moved, it just says when it wants to be looked at again.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

#: Seconds between ticks: the resolution of every time limit.
TICK: Final = 0.25


class Due(Protocol):
    """Something that wants to be looked at."""

    def due(self, now: float) -> float | None:
        """Act on time passed; the loop time to be looked at next, or None for never."""
        ...


class Wheel:
    """The shared timer wheel.

    Args:
        loop: the event loop it ticks on.
        tick: seconds between ticks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float = TICK) -> None:
        self._loop = loop
        self._tick = tick
        self._slots: dict[int, set[Due]] = {}
        self._done = int(loop.time() / tick)
        self._handle: asyncio.TimerHandle | None = None
        self._expected = 0.0
        #: When it ticked last, on the monotonic clock.
        self.ticked = time.monotonic()
        #: How late the latest tick was, and the latest of all, in seconds: the loop's delay.
        self.lag = 0.0
        self.lag_max = 0.0

    def start(self) -> None:
        """Begin ticking."""
        self._expected = self._loop.time() + self._tick
        self._handle = self._loop.call_later(self._tick, self._run)

    def stop(self) -> None:
        """Stop ticking; what is in the slots is forgotten."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._slots.clear()

    def add(self, item: Due, when: float) -> int:
        """Have the item looked at in the first tick at or after the loop time `when`.

        Returns:
            the number of its slot, for `remove`.
        """
        slot = max(int(when / self._tick) + 1, self._done + 1)
        self._slots.setdefault(slot, set()).add(item)
        return slot

    def remove(self, item: Due, slot: int) -> None:
        """Take the item out of its slot, unless the slot's time has come. Whoever is gone should
        not wait here: a thousand short connections a second would fill the memory."""
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting.discard(item)

    def _run(self) -> None:
        now = self._loop.time()
        self.lag = max(now - self._expected, 0.0)
        self.lag_max = max(self.lag, self.lag_max)
        current = int(now / self._tick)
        while self._done < current:
            self._done += 1
            for item in self._slots.pop(self._done, ()):
                try:
                    again = item.due(now)
                except Exception as error:
                    # The others have limits too, and nobody else would keep them.
                    self._loop.call_exception_handler(
                        {"message": "a time limit could not be acted on", "exception": error}
                    )
                    continue
                if again is not None:
                    self.add(item, again)
        self.ticked = time.monotonic()
        self._expected = self._loop.time() + self._tick
        self._handle = self._loop.call_later(self._tick, self._run)
