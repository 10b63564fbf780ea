"""How long a verdict takes over logs as full as the collectors read them.

``python -m benchmarks.doctor [--against SRC]``: with *SRC*, the ``src`` directory of another
checkout, both are measured in turn in one run, each in a process of its own. Needs no root.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: What the collectors keep of each log (``collect/nginx.py``), and of the service's records.
LINES, RECORDS = 2000, 1000
NOW = 1_795_000_000.0
CONTROLLERS = 40


def full_case() -> Any:
    """A server whose nginx answers 40 controllers with 502, after links that ended as they do."""
    from ptslink.doctor.evidence import Case, Evidence, Status

    def seen(probe: str, **facts: Any) -> Evidence:
        return Evidence(probe, Status.OK, probe, facts, 1.0, "server")

    request = "GET /ptsWebSocket HTTP/1.1"
    lines, events, tries, links = [], [], [], []
    for n in range(LINES):
        at, who = NOW - (LINES - n) * 0.7, f"{n % CONTROLLERS:024X}".replace("0", "A", 18)
        client = f"198.51.100.{n % CONTROLLERS}"
        bad = n % 2 == 0 or n > LINES - 2 * CONTROLLERS
        lines.append({
            "time": at, "client": client, "controller": who, "status": 502 if bad else 101,
            "by": "nginx" if bad else "backend", "method": "GET", "path": "/ptsWebSocket",
            "version": "1.1", "port": 80, "upgrade": "websocket", "request": request,
            "request_seconds": 0.0 if bad else 20.0, "serial": n,
        })  # fmt: skip
        events.append({
            "time": float(int(at)), "kind": "connect-refused" if bad else "upgraded-timeout",
            "level": "error", "client": client, "request": request, "connection": n,
            "text": "connect() failed (111: Connection refused)", "port": 80,
            "upstream": "http://127.0.0.1:3000/ptsWebSocket",
        })  # fmt: skip
        if not bad:
            record = {"controller": who, "peer": client}
            tries.append({**record, "at": at - 20.0, "code": "accepted", "status": 101,
                          "method": "GET", "path": "/ptsWebSocket", "http": "1.1",
                          "headers": [["Host", "h"]], "proxy": True})  # fmt: skip
            links.append({**record, "at": at, "code": "ping-timeout", "seconds": 20.0,
                          "closed_by": "server", "close_sent": [1011, "keepalive ping timeout"],
                          "transport": "fin", "messages_in": 3})  # fmt: skip
    return Case("ws://192.0.2.7/ptsWebSocket", (
        seen("nginx.access", file=["access.log"], lines=lines),
        seen("nginx.error", file=["error.log"], hidden=False, events=events),
        seen("service.records", attempts=tries[-RECORDS:], links=links[-RECORDS:], events=[],
             now=NOW, journal="journal.db"),
    ))  # fmt: skip


def measure() -> float:
    """Seconds of one verdict over a full case."""
    from ptslink.doctor.causes import CAUSES
    from ptslink.doctor.verdict import judge

    case = full_case()
    began = time.perf_counter()
    verdict = judge(case, CAUSES)
    seconds = time.perf_counter() - began
    if not verdict.findings:
        raise SystemExit("nothing was found: this case measures nothing")
    return seconds


def main() -> int:
    """Measure, and print a line for each checkout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, metavar="SRC", help="src of another checkout")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(measure())
        return 0
    here = Path(__file__).resolve().parents[1]
    seconds: dict[Path, list[float]] = {}
    for _ in range(options.rounds):
        for source in filter(None, (here / "src", options.against)):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.doctor", "--one"], cwd=here, check=True,
                env={**os.environ, "PYTHONPATH": str(source)}, capture_output=True, text=True,
            )  # fmt: skip
            seconds.setdefault(source, []).append(float(done.stdout))
    for source, took in seconds.items():
        print(f"{source}: {min(took):.2f} s a verdict ({LINES} lines, {LINES} events)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
