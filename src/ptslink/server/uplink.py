"""Messages of one controller on their way in: decode, journal, then confirm. In that order.

What must not become a record is answered with an error, and not confirmed.
"""

from __future__ import annotations

import time
from typing import Final

from ptslink.journal.entry import Entry, Journal, Transport
from ptslink.journal.filing import file
from ptslink.jsonpts.confirmation import answers
from ptslink.server.intake import Intake
from ptslink.server.registry import Session
from ptslink.server.seam import HOLD_JOURNAL

#: Messages and bytes of one link that may await their commit before reading pauses.
MAX_WAITING: Final = 64
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
_WEBSOCKET: Final = Transport.WEBSOCKET


class Uplink:
    """Takes messages from sessions to the journal and confirmations back.

    Args:
        journal: where messages become durable.
        intake: which of them do.
    """

    def __init__(self, journal: Journal, intake: Intake) -> None:
        self._journal = journal
        self._intake = intake
        self._sessions: dict[int, Session] = {}

    def opened(self, session: Session) -> None:
        """A session begins."""
        self._sessions[session.peer.number] = session

    def ended(self, session: Session) -> None:
        """A session is over; what it sent is still committed, but nobody is left to confirm to."""
        self._sessions.pop(session.peer.number, None)

    def message(self, session: Session, payload: bytes) -> tuple[Entry, bool]:
        """File a message; its confirmation leaves when the journal has it on disk.

        Returns:
            what was read of it, and whether it was taken; if not, it is answered already.
        """
        entry = file(
            payload,
            controller=session.controller,
            clock=session.clock,
            received=time.time_ns() // 1_000_000,
            transport=_WEBSOCKET,
            link=session.peer.number,
            settled=self._settled,
        )
        refusal = self._intake.refusal(entry, session.remote)
        if refusal is not None:
            for answer in answers(entry.packets, stored=False, text=refusal.text):
                session.peer.send(answer)
            return entry, False
        session.waiting += 1
        session.waiting_bytes += len(payload)
        if not session.held and (
            session.waiting >= MAX_WAITING or session.waiting_bytes >= MAX_WAITING_BYTES
        ):
            session.held = True
            session.peer.hold(HOLD_JOURNAL)
        self._journal.append(entry)
        return entry, True

    def _settled(self, entry: Entry) -> None:
        session = self._sessions.get(entry.link)
        if session is None:
            return
        session.waiting -= 1
        session.waiting_bytes -= len(entry.raw)
        for answer in answers(entry.packets, stored=entry.stored):
            session.peer.send(answer)
        if session.held and session.waiting < MAX_WAITING // 2:
            session.held = False
            session.peer.go_on(HOLD_JOURNAL)
