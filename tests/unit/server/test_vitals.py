"""What runs beside the event loop: its end and its silence are told, and end the feeding."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from pathlib import Path

import pytest

from ptslink.journal.logfiles import Line, LogFiles
from ptslink.server import systemd
from ptslink.server.vitals import Vitals
from support.wire import Wire, until

ASK = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    states: list[str] = []
    monkeypatch.setattr(systemd, "notify", states.append)
    return states


@pytest.mark.parametrize(
    ("age", "feeds", "told"),
    [
        (0, True, ""),
        (29, True, ""),
        (45, True, "the logs are silent for 45 seconds;"),
        (299, True, "the logs are silent for 299 seconds;"),
        (301, False, "the logs are silent for 301 seconds;"),
        (math.inf, False, "the logs have ended;"),
    ],
)
async def test_the_watchdog_looks_at_every_part(fed, age: float, feeds: bool, told: str) -> None:
    parts = {"timers": time.monotonic, "logs": lambda: time.monotonic() - age}
    said: list[str] = []
    watchdog = systemd.Watchdog(asyncio.get_running_loop(), 30, Vitals(parts), said.append)
    for _ in range(2):  # a silence is told once
        watchdog.start()
        watchdog.stop()
    assert fed == ["WATCHDOG=1"] * 2 * feeds
    assert len(said) == bool(told)
    assert told in "".join(said)
    age = 0
    watchdog.start()
    watchdog.stop()
    assert said[1:] == ["Of the server's parts the logs go on."] * bool(told)


class Ended(BaseException):
    """Ends a thread whatever it guards against."""


def ends(*_: object) -> None:
    raise Ended


@pytest.mark.parametrize(
    ("part", "place", "status"),
    [
        ("journal", "ptslink.journal.writer.JournalWriter._gather", 503),
        ("logs", "ptslink.journal.logfiles.LogFiles._write", 200),
    ],
)
async def test_health_names_the_part_that_has_ended(
    serve, monkeypatch, part: str, place: str, status: int
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    server = await serve()
    monkeypatch.setattr(place, ends)
    server.app.evidence.event("test", "Something for both threads to do.")
    await until(lambda: server.app.vitals.silent() == [part])
    wire = await Wire.connect(server.admin_port)
    reply = await wire.ask(ASK)
    assert (reply.status, reply.json["silent"]) == (status, [part])
    assert reply.json["logs"]["ok"] is (part != "logs")
    metrics = (await wire.ask(ASK.replace(b"health", b"metrics"))).body.decode()
    assert f'ptslink_silent_seconds{{part="{part}"}} +Inf' in metrics
    await wire.close()


async def test_threads_with_nothing_to_do_tick(serve, monkeypatch) -> None:
    for module in ("writer", "logfiles"):
        monkeypatch.setattr(f"ptslink.journal.{module}.TICK_SECONDS", 0.01)
    server = await serve()
    begun = time.monotonic()
    await until(lambda: max(server.app.vitals.ages().values()) < time.monotonic() - begun)


def test_the_thread_of_the_logs_outlives_whatever_fails(tmp_path: Path, monkeypatch) -> None:
    logs = LogFiles(tmp_path, keep_days=1, keep_bytes=10**6, out=None)
    now = time.time_ns() // 1_000_000
    with monkeypatch.context() as patch:
        patch.setattr(logs, "_append", lambda *_: 1 / 0)
        logs.put(Line(now, ("Connection",), "lost"))
        logs.start()
        deadline = time.monotonic() + 30
        while not logs.dropped and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (logs.dropped, logs.failure) == (
        1,
        "lines could not be written: ZeroDivisionError: division by zero",
    )
    logs.put(Line(now, ("Connection",), "kept"))
    logs.close()
    (connections,) = tmp_path.glob("Connection_*.log")
    assert "kept" in connections.read_text()
    assert logs.failure == ""
