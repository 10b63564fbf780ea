from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ptslink.server.config import parse
from ptslink.server.service import Server, start_server

Serve = Callable[..., Awaitable[Server]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start servers on loopback; each is stopped when the test ends."""
    running: list[Server] = []

    async def start(journal: Any = None, **tables: dict[str, Any]) -> Server:
        content: dict[str, Any] = {
            "listen": {"addresses": ["127.0.0.1"], "port": 0},
            "journal": {"path": str(tmp_path / "journal.db")},
            "admin": {"port": 0, "socket": str(tmp_path / "admin.sock")},
            "logs": {"directory": str(tmp_path / "logs")},
        }
        for name, table in tables.items():
            content[name] = {**content.get(name, {}), **table}
        server = await start_server(parse(content), journal=journal)
        running.append(server)
        return server

    yield start
    for server in running:
        await server.stop()
