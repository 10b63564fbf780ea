"""The load generator (loadgen.c), built and run. It measures; this only asks and reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SOURCE = Path(__file__).with_name("loadgen.c")


class LoadFailed(Exception):
    """The load generator saw something that is not a right answer; the message quotes it."""


def build(directory: Path) -> Path:
    """Compile loadgen.c if its binary is missing or older; returns the binary."""
    binary = directory / "loadgen"
    if not binary.exists() or binary.stat().st_mtime < SOURCE.stat().st_mtime:
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", binary, SOURCE],
            check=True,
        )
    return binary


@dataclass(frozen=True)
class Load:
    """Where loads go: a server's port and process, seen from one core.

    Attributes:
        binary: the compiled load generator.
        port: of the server on 127.0.0.1.
        server_pid: whose processor time is reported.
        cpu: the core the load generator stays on, -1 for any.
        salt: keeps the controller ids of one run apart from those of another.
    """

    binary: Path
    port: int
    server_pid: int
    cpu: int
    salt: int

    def command(self, mode: str, **options: float) -> list[str]:
        arguments = {
            "port": self.port,
            "server_pid": self.server_pid,
            "cpu": self.cpu,
            "salt": self.salt,
            **options,
        }
        pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in arguments.items()]
        return [str(self.binary), mode, *(word for pair in pairs for word in pair)]

    def run(
        self, mode: str, *, seconds: float, warmup: float, **options: float
    ) -> Mapping[str, Any]:
        """Run one load to its end and return what it measured.

        Raises:
            LoadFailed: an answer was wrong or missing, or the load did not end in time.
        """
        try:
            done = subprocess.run(
                self.command(mode, seconds=seconds, warmup=warmup, **options),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds + warmup + 150,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            raise LoadFailed(f"{mode}: no end after {expired.timeout:.0f} s") from expired
        return result(mode, done.stdout, done.stderr)

    @contextmanager
    def idle(self, connections: int) -> Iterator[None]:
        """Hold that many open connections that say nothing but pongs."""
        with subprocess.Popen(
            self.command("idle", connections=connections, seconds=600, warmup=0),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            first = process.stdout.readline()
            try:
                if '"event":"open"' not in first:
                    raise LoadFailed(f"idle: {first or pipe_text(process.stderr)}")
                yield
            finally:
                rest, errors = process.communicate(input="", timeout=30)
            result("idle", rest, errors)


def pipe_text(pipe: IO[str] | None) -> str:
    return pipe.read() if pipe is not None else ""


def result(mode: str, output: str, errors: str) -> Mapping[str, Any]:
    """The last line of the load generator, checked."""
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    if not lines or lines[-1].get("event") != "end":
        raise LoadFailed(f"{mode}: {errors.strip() or output.strip() or 'no result'}")
    end: Mapping[str, Any] = lines[-1]
    if any(end["errors"].values()):
        counts = ", ".join(f"{count} {kind}" for kind, count in end["errors"].items() if count)
        raise LoadFailed(f"{mode}: {counts}; the first: {end['first_error']}")
    return end
