"""What is measured: an engine is a command that serves on a port, ended by its own pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SERVER_SCRIPT = HERE / "node" / "server.mjs"

#: The core the server runs on; the load generator has the other.
SERVER_CORE = 0
LOAD_CORE = 1
START_SECONDS = 30.0
STOP_SECONDS = 30.0


class EngineFailed(Exception):
    """An engine did not start or did not stop; the message has the end of its output."""


@dataclass(frozen=True)
class Tools:
    """What was prepared for the engines: see `benchmarks.server.prepare`.

    Attributes:
        node_modules: holds ws and, when it could be built, better-sqlite3.
        sqlite: whether better-sqlite3 works here.
        uvloop: a directory to put on the Python path, or None where it cannot be had.
    """

    node_modules: Path
    sqlite: bool
    uvloop: Path | None


@dataclass(frozen=True)
class Engine:
    """One thing to measure.

    Attributes:
        name: as it appears in figures and goals.
        about: one line for the report.
        command: given a port and an empty directory of its own, what to run.
        environment: added to the environment.
        collects: whether SIGUSR2 makes it collect garbage, for the memory figure.
    """

    name: str
    about: str
    command: Callable[[int, Path], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)
    collects: bool = False


@dataclass
class Running:
    """An engine that serves."""

    engine: Engine
    port: int
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def memory_kib(self) -> float:
        """Its proportional share of memory (PSS), KiB, after collecting garbage where it can."""
        if self.engine.collects:
            self.process.send_signal(signal.SIGUSR2)
            time.sleep(1)
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1])
        raise EngineFailed(f"{self.engine.name}: no Pss in smaps_rollup")


@contextmanager
def serving(engine: Engine, port: int, directory: Path) -> Iterator[Running]:
    """Start the engine on its core, wait until it accepts, and stop it afterwards."""
    directory.mkdir(parents=True)
    log = directory / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *engine.command(port, directory)],
            cwd=ROOT,
            env={**os.environ, **engine.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_accepting(engine, process, port, log)
        yield Running(engine, port, process)
        if process.poll() is not None:
            raise EngineFailed(f"{engine.name} ended by itself\n{tail(log)}")
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                sys.stderr.write(f"{engine.name} had to be killed: it did not end on SIGTERM\n")


def wait_until_accepting(
    engine: Engine, process: subprocess.Popen[bytes], port: int, log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EngineFailed(f"{engine.name} ended at once\n{tail(log)}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise EngineFailed(f"{engine.name} did not listen within {START_SECONDS:.0f} s\n{tail(log)}")


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def node(name: str, about: str, tools: Tools, *options: str) -> Engine:
    def command(port: int, directory: Path) -> list[str]:
        return [
            *("node", "--expose-gc", str(SERVER_SCRIPT), "--port", str(port)),
            *("--modules", str(tools.node_modules.parent)),
            *(str(directory / "store.db") if option == "STORE" else option for option in options),
        ]

    return Engine(name, about, command, collects=True)


def ptslink(name: str, about: str, tools: Tools, *, journal: bool, uvloop: bool) -> Engine:
    def command(port: int, directory: Path) -> list[str]:
        options = [] if journal else ["--without-journal"]
        options += ["--uvloop"] if uvloop else []
        module = "benchmarks.server.ours"
        return [sys.executable, "-m", module, str(port), str(directory), *options]

    paths = [str(tools.uvloop)] if uvloop else []
    if inherited := os.environ.get("PYTHONPATH"):
        paths.append(inherited)
    extra = {"PYTHONPATH": os.pathsep.join(paths)} if paths else {}
    return Engine(name, about, command, environment=extra)


def engines(tools: Tools) -> dict[str, Engine]:
    """Every engine that can run here, by name, in the order of the report."""
    found = [
        ptslink(
            "ptslink",
            "as `ptslink serve` runs it: journal synced before each confirmation, asyncio",
            tools,
            journal=True,
            uvloop=False,
        ),
        ptslink(
            "ptslink without journal",
            "the same server with a journal that keeps nothing, asyncio",
            tools,
            journal=False,
            uvloop=False,
        ),
    ]
    if tools.uvloop is not None:
        found += [
            ptslink("ptslink uvloop", "as ptslink, uvloop", tools, journal=True, uvloop=True),
            ptslink(
                "ptslink uvloop without journal",
                "as ptslink without journal, uvloop",
                tools,
                journal=False,
                uvloop=True,
            ),
        ]
    found.append(node("node", "Node ws, confirms without storing", tools))
    if tools.sqlite:
        found += [
            node(
                "node+sqlite message",
                "Node ws, better-sqlite3 WAL FULL, a commit a message",
                tools,
                *("--store", "STORE", "--commit", "message"),
            ),
            node(
                "node+sqlite turn",
                "Node ws, better-sqlite3 WAL FULL, a commit a loop turn",
                tools,
                *("--store", "STORE", "--commit", "turn"),
            ),
        ]
    return {engine.name: engine for engine in found}
