"""What is done to an engine, and the figure that comes of it."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.server.engines import LOAD_CORE, Engine, Running, serving
from benchmarks.server.load import Load

DURABLE = ("ptslink", "ptslink uvloop", "node+sqlite message", "node+sqlite turn")
UNSTORED = ("ptslink without journal", "ptslink uvloop without journal", "node")
HANDSHAKES = ("ptslink", "ptslink uvloop", "node")
MEMORY = ("ptslink", "ptslink uvloop", "node")
HALF_RATE = ("ptslink", "ptslink uvloop", "node+sqlite turn")
HOLD = ("ptslink",)


@dataclass(frozen=True)
class Sizes:
    """How long and how much: bounded, so that a run ends when it said it would."""

    rounds: int
    seconds: float
    warmup: float
    connections: int
    handshakes_at_once: int
    idle: int
    settle_seconds: float
    hold: int
    hold_seconds: float


FULL = Sizes(5, 5.0, 1.5, 100, 50, 2000, 4.0, 9000, 60.0)
QUICK = Sizes(1, 1.0, 0.3, 100, 50, 500, 1.0, 500, 6.0)

Note = Callable[[str, Mapping[str, Any]], None]


class Bench:
    """Runs measures, each on a fresh engine with an empty directory of its own.

    Args:
        binary: the load generator.
        directory: for journals and logs; what is in it is removed as it goes.
        sizes: how much.
        note: told each figure as it is taken: what it is, and all the load generator said.
    """

    def __init__(self, binary: Path, directory: Path, sizes: Sizes, note: Note) -> None:
        self._binary = binary
        self._directory = directory
        self._sizes = sizes
        self._note = note
        self._count = itertools.count(1)

    @contextmanager
    def _fresh(self, engine: Engine) -> Iterator[tuple[Running, Load]]:
        number = next(self._count)
        port = 3000 + number % 1000
        directory = self._directory / f"{number:04d}"
        try:
            with serving(engine, port, directory) as running:
                yield running, Load(self._binary, port, running.pid, LOAD_CORE, number)
        except BaseException:
            raise
        else:
            shutil.rmtree(directory)

    def round_trips(self, engine: Engine) -> float:
        """Confirmed messages a second, every connection in lock-step."""
        size = self._sizes
        with self._fresh(engine) as (_, load):
            end = load.run(
                "roundtrips",
                connections=size.connections,
                seconds=size.seconds,
                warmup=size.warmup,
            )
        self._note(f"confirmed/s {engine.name}", end)
        return float(end["per_second"])

    def handshakes(self, engine: Engine) -> float:
        """Handshakes a second, each answer checked, each connection then closed."""
        size = self._sizes
        with self._fresh(engine) as (_, load):
            end = load.run(
                "handshakes",
                connections=size.handshakes_at_once,
                seconds=size.seconds,
                warmup=size.warmup,
            )
        self._note(f"handshakes/s {engine.name}", end)
        return float(end["per_second"])

    def memory(self, engine: Engine) -> float:
        """KiB of the server's memory (PSS) for each of many idle connections."""
        size = self._sizes
        with self._fresh(engine) as (running, load):
            with load.idle(50):  # code and buffers that the first connections bring
                time.sleep(0.5)
            time.sleep(size.settle_seconds)
            before = running.memory_kib()
            with load.idle(size.idle):
                time.sleep(size.settle_seconds)
                after = running.memory_kib()
        each = (after - before) / size.idle
        self._note(f"KiB/connection {engine.name}", {"before_kib": before, "after_kib": after})
        return each

    def p99_at(self, engine: Engine, rate: float) -> float:
        """99th percentile of the confirmation time, ms, at a fixed rate of messages a second."""
        size = self._sizes
        with self._fresh(engine) as (_, load):
            end = load.run(
                "rate",
                connections=size.connections,
                rate=rate,
                seconds=size.seconds,
                warmup=size.warmup,
            )
        self._note(f"p99 ms at half rate {engine.name}", end)
        return float(end["confirmation_ms"]["p99"])

    def hold(self, engine: Engine) -> Mapping[str, Any]:
        """Many connections, a status each 10 s and a ping each 20 s on every one."""
        size = self._sizes
        with self._fresh(engine) as (running, load):
            end = load.run(
                "hold",
                connections=size.hold,
                period=10,
                ping_period=20,
                late=1,
                seconds=size.hold_seconds,
                warmup=0,
            )
            end = {**end, "memory_kib": running.memory_kib()}
        self._note(f"hold {size.hold} {engine.name}", end)
        return end
