"""The server that is killed: ``ptslink serve``, a process of its own, its journal on disk."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from pathlib import Path

CONFIG = """\
[listen]
addresses = ["127.0.0.1"]
port = {port}

[journal]
path = "{directory}/journal.db"

[limits]
new_controllers_per_address = 500

[admin]
port = 0
socket = ""

[logs]
directory = "{directory}/logs"
"""
READY_SECONDS = 30.0


class Died(Exception):
    """The server ended although nobody killed it; the text says how."""


def free_port() -> int:
    """A TCP port on loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Victim:
    """A server that can be killed and started again, always on the same port and journal."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self.journal = directory / "journal.db"
        self._config = directory / "ptslink.toml"
        self._errors = directory / "errors.log"
        (directory / "logs").mkdir()
        self._config.write_text(CONFIG.format(port=port, directory=directory))
        self._process: asyncio.subprocess.Process | None = None
        self._struck = False

    async def start(self) -> None:
        """Start it; returns at once."""
        self._struck = False
        with self._errors.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "ptslink.cli", "serve", "--config", str(self._config)),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
            )

    async def ready(self) -> None:
        """Return once it answers. To accept is not enough: the socket listens before the journal
        is open, so that whoever dials in early waits instead of being refused.

        Raises:
            Died: it ended by itself, or did not get there in time.
        """
        assert self._process is not None
        for _ in range(int(READY_SECONDS / 0.02)):
            if self._process.returncode is not None:
                raise Died(f"ended with {self._process.returncode}\n{self._errors.read_text()}")
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = await reader.read(12)
                writer.close()
                if answer == b"HTTP/1.1 200":
                    return
            await asyncio.sleep(0.02)
        raise Died(f"not ready within {READY_SECONDS:g} s\n{self._errors.read_text()}")

    def strike(self) -> None:
        """SIGKILL, now: no handler runs, nothing is flushed by us."""
        assert self._process is not None
        if self._process.returncode is None and not self._struck:
            # Once only: a second signal would reap the process behind asyncio's back.
            self._struck = True
            self._process.send_signal(signal.SIGKILL)

    async def kill(self) -> None:
        """Strike, unless that was done, and return once it is dead.

        Raises:
            Died: it ended by itself.
        """
        self.strike()
        assert self._process is not None
        status = await self._process.wait()
        if status != -signal.SIGKILL:
            raise Died(f"ended with {status}\n{self._errors.read_text()}")

    async def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.terminate()
        return await self._process.wait()
