"""Fixtures for tests that talk to a whole server in this process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ptslink.server.config import parse
from ptslink.server.service import Server, start_server

#: Memory instead of a disk: hundreds of servers start here, and each fsync of a shared disk waits.
_MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ptslink-test-", dir=parent) as directory:
        yield Path(directory)


Serve = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start servers on loopback; each is stopped when the test ends."""
    running: list[Server] = []

    async def start(journal: Any = None, inherited: Any = None, **tables: dict[str, Any]) -> Server:
        content: dict[str, Any] = {
            "listen": {"addresses": ["127.0.0.1"], "port": 0},
            "journal": {"path": str(tmp_path / "journal.db")},
            "admin": {"port": 0, "socket": str(tmp_path / "admin.sock")},
            "logs": {"directory": str(tmp_path / "logs")},
        }
        for name, table in tables.items():
            content[name] = {**content.get(name, {}), **table}
        server = await start_server(parse(content), journal=journal, inherited=inherited)
        running.append(server)
        return server

    yield start
    for server in running:
        await server.stop()
