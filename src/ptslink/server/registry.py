"""The controllers that are connected right now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ptslink.handshake.identity import Identity
from ptslink.journal.entry import Clock
from ptslink.server.seam import Peer


@dataclass(slots=True, eq=False)
class Session:
    """What belongs to one open link.

    Attributes:
        peer: the connection.
        identity: who it said it was.
        since: milliseconds since 1970 UTC.
        clock: what is known of the controller's clock.
        remote: address of the controller, which behind a proxy is not the peer's.
        controller: id from the handshake, or from the first message that named one; "" before.
        opened_at: loop time.
        waiting: messages not yet settled.
        waiting_bytes: their bytes.
        held: whether reading is paused for them.
        counts: packets by Type.
        noted: names of oddities seen in messages.
        status_logged: when an UploadStatus last left a log line, milliseconds since 1970 UTC.
    """

    peer: Peer
    identity: Identity
    since: int
    clock: Clock
    remote: str
    controller: str
    opened_at: float
    waiting: int = 0
    waiting_bytes: int = 0
    held: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    noted: set[str] = field(default_factory=set)
    status_logged: int = 0


class Registry:
    """Live sessions by controller id.

    A newcomer replaces an older link of the same id. The late close of the replaced one must not
    remove the newcomer, so removal compares the session itself, not the id.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Session] = {}
        self._all: dict[int, Session] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def links(self) -> int:
        """Links of controllers: all but those of probes."""
        return sum(not session.identity.probe for session in self._all.values())

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._all.values()))

    def add(self, session: Session) -> Session | None:
        """Add a session; returns the one it replaces, which is the caller's to close.

        A probe is no controller: it replaces nobody and is not found by its id.
        """
        self._all[session.peer.number] = session
        if not session.controller or session.identity.probe:
            return None
        replaced = self._by_id.get(session.controller)
        self._by_id[session.controller] = session
        return replaced

    def remove(self, session: Session) -> None:
        """Forget a session that ended."""
        self._all.pop(session.peer.number, None)
        if self._by_id.get(session.controller) is session:
            del self._by_id[session.controller]

    def get(self, controller: str) -> Session | None:
        """The live session of a controller."""
        return self._by_id.get(controller)

    def controllers(self) -> list[str]:
        """Ids of the connected controllers, sorted."""
        return sorted(self._by_id)
