"""What the figures were measured on, so that a reader can judge them."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path


def first_value(path: str, key: str) -> str:
    """The value of the first ``key : value`` line of a /proc file."""
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"


def file_system(directory: Path) -> str:
    done = subprocess.run(
        ["stat", "--file-system", "--format=%T", directory],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def sync_ms(directory: Path, times: int = 200) -> float:
    """Median milliseconds of appending 512 bytes to a file there and fdatasync."""
    path = directory / "sync-probe"
    taken: list[float] = []
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(times):
            started = time.perf_counter()
            os.write(handle, b"x" * 512)
            os.fdatasync(handle)
            taken.append(time.perf_counter() - started)
    finally:
        os.close(handle)
        path.unlink()
    return statistics.median(taken) * 1000


def output_of(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not installed"
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"


def describe(journals: Path) -> Mapping[str, str]:
    """The machine, in words."""
    memory = int(first_value("/proc/meminfo", "MemTotal").split()[0]) / 1024**2
    return {
        "processor": f"{first_value('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores"
        f" at {float(first_value('/proc/cpuinfo', 'cpu MHz')):.0f} MHz",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release().split("-")[0],
        "journal on": f"{file_system(journals)}, fdatasync of 512 bytes {sync_ms(journals):.2f} ms",
        "Python": platform.python_version(),
        "Node": output_of("node", "--version").lstrip("v"),
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }
