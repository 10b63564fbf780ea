"""The link server's behaviour: what a request, a message and an ending mean.

Implements `ptslink.server.seam.Handler`. No sockets, no threads: it can be driven by a test.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from ptslink import version
from ptslink.handshake.answer import document, explain
from ptslink.handshake.head import Head, HeadError
from ptslink.handshake.judge import Verdict, asks_to_upgrade, judge
from ptslink.handshake.path import link_path
from ptslink.journal.entry import Journal
from ptslink.server.config import Config
from ptslink.server.filing import Clock
from ptslink.server.registry import Registry, Session
from ptslink.server.seam import Answer, Ending, Peer
from ptslink.server.uplink import Uplink

JSON: Final = (("Content-Type", "application/json"),)

#: Close codes (RFC 6455 section 7.4 and its registry).
SERVICE_RESTART: Final = 1012
REPLACED: Final = 4000


class App:
    """The behaviour behind every connection of the public listeners.

    Args:
        config: the configuration in force.
        journal: where messages go.
    """

    def __init__(self, config: Config, journal: Journal) -> None:
        self.config = config
        self.journal = journal
        self.registry = Registry()
        self.rules = config.rules()
        self.stopping = False
        self.started = time.time()
        self._uplink = Uplink(journal)
        self._zone = config.zone()
        self.on_empty: Callable[[], None] | None = None

    # Handler.

    def arrived(self, peer: Peer) -> Answer | None:  # noqa: ARG002
        return None

    def request(self, peer: Peer, head: Head, body: bytes) -> Answer | None:  # noqa: ARG002
        path = link_path(head.target)
        if path == "health" and head.method in ("GET", "HEAD") and not asks_to_upgrade(head):
            return self._health()
        verdict = judge(head, self.rules)
        if verdict.status != 101:
            return self._refusal(verdict)
        if self.stopping:
            return Answer(503, (*JSON, ("Retry-After", "1")), document(_STOPPING), close=True)
        peer.context = Session(
            peer,
            verdict.identity,
            time.time_ns() // 1_000_000,
            Clock(zone=self._zone),
            peer.address,
            verdict.identity.controller,
        )
        return Answer(101, verdict.headers)

    def unreadable(self, peer: Peer, error: HeadError, start: bytes) -> Answer | None:  # noqa: ARG002
        if error.code in ("closed-before-request", "silent"):
            return None
        return Answer(
            error.status,
            JSON,
            document({"error": error.code, "message": error.reason}),
            close=True,
        )

    def opened(self, peer: Peer) -> None:
        session: Session = peer.context
        self._uplink.opened(session)
        replaced = self.registry.add(session)
        if replaced is not None:
            replaced.peer.close(REPLACED, "replaced by a newer connection")

    def message(self, peer: Peer, payload: bytes) -> None:
        self._uplink.message(peer.context, payload)

    def ended(self, peer: Peer, ending: Ending) -> None:  # noqa: ARG002
        session: Session = peer.context
        self._uplink.ended(session)
        self.registry.remove(session)
        if not len(self.registry) and self.on_empty is not None:
            self.on_empty()

    def left(self, peer: Peer) -> None:
        pass

    # Stopping.

    def hold_all(self) -> None:
        """Take no more messages, so that what came can be settled and confirmed."""
        self.stopping = True
        for session in self.registry:
            session.peer.hold()

    def close_all(self) -> None:
        """Close every link with 1012, which tells a controller to come back."""
        self.stopping = True
        for session in self.registry:
            session.peer.close(SERVICE_RESTART, "the server restarts")
            session.peer.go_on()

    # Answers.

    def _refusal(self, verdict: Verdict) -> Answer:
        content = explain(verdict, self.rules, port=self.config.listen.port)
        return Answer(verdict.status, (*JSON, *verdict.headers), document(content))

    def _health(self) -> Answer:
        content = self.health()
        return Answer(200 if content["status"] == "ok" else 503, JSON, document(content))

    def health(self) -> dict[str, Any]:
        """What ``GET /health`` says."""
        journal = self.journal.health
        status = "stopping" if self.stopping else "ok" if journal.ok else "failing"
        return {
            "status": status,
            "version": version(),
            "uptime_seconds": int(time.time() - self.started),
            "controllers": len(self.registry),
            "journal": {
                "ok": journal.ok,
                "reason": journal.reason or None,
                "failing_since": journal.since,
            },
            "path": f"/{self.rules.path}",
        }


_STOPPING: Final = {
    "error": "stopping",
    "message": "The server is about to restart; connect again in a moment.",
}
