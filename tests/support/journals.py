"""Journals made as the server makes them, message by message."""

from __future__ import annotations

from ptslink.journal.entry import Clock, Transport
from ptslink.journal.filing import derive, file
from ptslink.journal.store import Store

CONTROLLER = "00112233445566778899AABB"
NOW = 1_790_000_000_000


def put(store: Store, *messages: bytes, controller: str = CONTROLLER) -> None:
    """Store messages of one controller, each with its own commit."""
    clock = Clock()
    for number, raw in enumerate(messages):
        entry = file(
            raw,
            controller=controller,
            clock=clock,
            received=NOW + number,
            transport=Transport.WEBSOCKET,
            link=1,
            settled=None,
        )
        derive(entry)
        store.write([entry], [])
