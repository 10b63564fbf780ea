"""Whether what runs beside the event loop still runs: the timer wheel and the threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

#: Seconds without a tick after which a part is called silent. A part with nothing to do ticks each
#: `TICK_SECONDS`.
SILENT_SECONDS: Final = 30.0
#: Seconds without a tick after which the process shall be started anew. A thread that waits for a
#: disk is silent too: that ends by itself, and the links stay meanwhile.
HUNG_SECONDS: Final = 300.0

#: Names of the parts.
TIMERS: Final = "timers"
JOURNAL: Final = "journal"
LOGS: Final = "logs"


class Vitals:
    """The parts that must not end or hang unseen.

    Args:
        ticked: by the name of a part, when it ticked last on the monotonic clock; minus infinity
            for one that has ended.
    """

    def __init__(self, ticked: Mapping[str, Callable[[], float]]) -> None:
        self._ticked = ticked

    def ages(self) -> dict[str, float]:
        """Seconds since each part ticked."""
        now = time.monotonic()
        return {name: max(now - ticked(), 0.0) for name, ticked in self._ticked.items()}

    def silent(self, seconds: float = SILENT_SECONDS) -> list[str]:
        """The parts that have not ticked for so many seconds."""
        return [name for name, age in self.ages().items() if age > seconds]
