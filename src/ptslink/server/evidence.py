"""Evidence: one structured record of every attempt and every link, and the lines people search.

Records go to the journal, all of them. Lines go to the log files and standard output, and there a
caller that repeats itself every second is summed up after a while: the log backs off, the
controller is never refused for it.
"""

from __future__ import annotations

import re
import time
from typing import Any, Final

from ptslink.handshake.head import Head
from ptslink.journal.entry import Entry, Evidence, Health, Journal
from ptslink.journal.logfiles import Line, LogFiles, to_json
from ptslink.journal.schema import ROW_BYTES
from ptslink.jsonpts.envelope import UNREADABLE, fault
from ptslink.server.admission import counted_as
from ptslink.server.registry import Session
from ptslink.server.seam import Caller, Ending

#: Equal lines of one caller written per minute; the rest are counted.
LINES_PER_MINUTE: Final = 12
#: Values of headers that are nobody's business, wherever a line of them begins.
_SECRETS: Final = re.compile(
    rb"((?:proxy-)?authorization[ \t]*:|x-data-signature[ \t]*:)([^\r\n]*)", re.IGNORECASE
)
_NOBODY: Final = "a caller without a controller id"
#: Callers remembered within a minute; beyond, their lines are counted together.
_MAX_CALLERS: Final = 10_000
#: Bytes of a refused message that are kept: even with every one escaped, the detail is not cut.
_SAMPLE_BYTES: Final = 1500


class EvidenceLog:
    """Writes evidence to the journal and to the logs.

    Args:
        journal, logs: where it goes.
        short_seconds: a link that lasted less also goes to ``ShortConnection``.
    """

    def __init__(self, journal: Journal, logs: LogFiles | None, *, short_seconds: float) -> None:
        self._journal = journal
        self._logs = logs
        self._short = short_seconds
        self._minute = 0
        self._said: dict[tuple[str, str], int] = {}
        self._unsaid = 0
        self._replacements = 0

    def attempt(
        self,
        peer: Caller,
        remote: str,
        head: Head | None,
        *,
        status: int,
        code: str,
        reason: str,
        controller: str = "",
        notes: tuple[str, ...] = (),
        start: bytes = b"",
        link: int = 0,
    ) -> None:
        """An attempt to connect, accepted or not.

        Args:
            remote: the caller's address, as told by a trusted proxy or the socket.
            head: the request, when it could be read.
            status: the answer, 0 when there was none.
            start: first bytes of what could not be read.
            link: number of the link that begins, 0 where none does.
        """
        at = _now()
        detail: dict[str, Any] = {"status": status, "reason": reason, "local_port": peer.local_port}
        if remote != peer.address:
            detail["proxy"] = peer.address
        if head is not None:
            detail["method"] = head.method
            detail["path"] = head.target
            detail["http"] = head.version
            detail["headers"] = head.redacted()
        if notes:
            detail["notes"] = notes
        if start:
            detail["first_bytes"] = _first_bytes(start)
        text = to_json(detail)
        self._journal.record(Evidence("attempt", at, controller, remote, code, text, link))
        # Refused callers are told apart by address: a stranger may name any controller.
        caller = (controller or remote) if status == 101 else counted_as(remote)
        if self._may_say(caller, code, at):
            facts = _facts("attempt", code, remote, controller, text)
            who = f"PTS Controller {controller}" if controller else _NOBODY
            files, message = _attempt_line(remote, who, status, code, reason, head is not None)
            self._say(Line(at, files, message, facts))

    def link(self, session: Session, ending: Ending) -> None:
        """A link that ended."""
        at = _now()
        code = ending_code(ending)
        detail = to_json(ending_detail(session, ending))
        controller = session.controller
        number = session.peer.number
        self._journal.record(Evidence("link", at, controller, session.remote, code, detail, number))
        if self._may_say(controller or session.remote, ending_label(ending), at):
            short = ending.seconds < self._short
            message = (
                f"PTS Controller {controller or '(no id)'} disconnected after "
                f"{ending.seconds:.1f} s, {ending.messages_in} messages: {describe(ending)}"
            )
            facts = _facts("link", code, session.remote, controller, detail)
            files = ("Disconnection", "ShortConnection") if short else ("Disconnection",)
            self._say(Line(at, files, message, facts))

    def refused(self, code: str, reason: str, remote: str, entry: Entry, *, most: int) -> int:
        """A message that is neither stored nor confirmed.

        Args:
            remote: the sender's address.
            most: bytes that the record of it may take; beyond, there is none.

        Returns:
            the bytes it takes, 0 when it is not kept.
        """
        say = self._may_say(remote, code, entry.received)
        if most <= 0 and not say:
            return 0
        who = f"PTS Controller {entry.controller}" if entry.controller else _NOBODY
        message = f"Refused a message of {len(entry.raw)} bytes from {remote}, {who}: {reason}."
        if UNREADABLE in entry.notes:
            message += f" It is unreadable: {fault(entry.raw)}."
        content = {
            "message": message,
            "bytes": len(entry.raw),
            "transport": entry.transport.name.lower(),
            "text": printable(entry.raw[:_SAMPLE_BYTES]),
        }
        detail = to_json(content)
        if say:
            facts = _facts("event", code, remote, entry.controller, detail)
            self._say(Line(entry.received, ("Server",), message, facts))
        size = len(detail) + ROW_BYTES
        if size > most:
            return 0
        self._journal.record(
            Evidence("event", entry.received, entry.controller, remote, code, detail)
        )
        return size

    def event(self, code: str, message: str, **detail: Any) -> None:
        """Something that happened to the server or a session; logged in full."""
        at = _now()
        controller = str(detail.pop("controller", ""))
        peer = str(detail.pop("peer", ""))
        kept = to_json({"message": message, **detail})
        self._journal.record(Evidence("event", at, controller, peer, code, kept))
        if self._may_say(controller, code, at):
            facts = _facts("event", code, peer, controller, to_json(detail))
            self._say(Line(at, ("Server",), message, facts))

    def health(self, health: Health) -> None:
        """The journal's health changed. Loud on purpose."""
        self.replaced(health)
        if health.ok:
            self.event("journal-recovered", "The journal works again; confirmations are sent.")
        else:
            self.event(
                "journal-failing",
                f"THE JOURNAL FAILS: {health.reason}. Nothing is confirmed; controllers keep and "
                "resend their records.",
                reason=health.reason,
            )

    def replaced(self, health: Health) -> None:
        """Another file was found in the journal's place, unless that was said."""
        if health.replacements != self._replacements:
            self._replacements = health.replacements
            self.event("journal-replaced", f"CONFIRMED RECORDS ARE GONE: {health.replaced}.")

    def _may_say(self, caller: str, code: str, at: int) -> bool:
        """Whether a line about this is still due, or the caller has repeated itself enough."""
        if self._logs is None:
            return False
        minute = at // 60_000
        if minute != self._minute:
            self._begin_minute(minute, at)
        key = (caller, code)
        count = self._said.get(key, 0)
        if (count >= LINES_PER_MINUTE) or (not count and len(self._said) >= _MAX_CALLERS):
            self._unsaid += 1
            return False
        self._said[key] = count + 1
        return True

    def _say(self, line: Line) -> None:
        if self._logs is not None:
            self._logs.put(line)

    def _begin_minute(self, minute: int, at: int) -> None:
        if self._unsaid:
            repeated = sorted(
                (key for key, count in self._said.items() if count >= LINES_PER_MINUTE)
            )[:20]
            message = f"{self._unsaid} repeated lines of the last minute were left out"
            fields = {
                "event": "backoff",
                "repeated": [f"{code} of {who}" for who, code in repeated],
            }
            self._say(Line(at, ("Server",), message, to_json(fields)))
        self._minute = minute
        self._said.clear()
        self._unsaid = 0


def _attempt_line(
    remote: str, who: str, status: int, code: str, reason: str, readable: bool
) -> tuple[tuple[str, ...], str]:
    """The files and the sentence of an attempt, in the words people search for."""
    verifying = f"Verifying WebSocket client {remote}: PTS Controller attempting connection, {who}"
    if status == 101:
        return ("Connection",), f"{verifying}: connection established successfully"
    if code == "rate-limited":
        message = f"Rate limiting {remote}, {who}: {reason}"
    elif readable:
        message = f"{verifying}: refused with {status} {code}: {reason}"
    else:
        message = f"Connection from {remote} brought no request: {code}: {reason}"
    return ("ConnectionIssue",), message


def _facts(event: str, code: str, peer: str, controller: str, detail: str) -> str:
    """The facts of a line: who and what, then the detail as it is also kept in the journal."""
    who = to_json({"event": event, "code": code, "peer": peer, "controller": controller})
    return who if detail == "{}" else f"{who[:-1]},{detail[1:]}"


def ending_code(ending: Ending) -> str:
    """The stable short name of how a link ended."""
    if ending.fault is not None:
        return ending.fault
    if ending.close_rcvd is None and ending.close_sent is None:
        return f"lost-{ending.transport}"
    code, _ = (ending.close_sent if ending.closed_by == "server" else None) or (
        ending.close_rcvd or ending.close_sent or (1006, "")
    )
    return f"closed-{code}-by-{ending.closed_by}"


def ending_label(ending: Ending) -> str:
    """As `ending_code`, of a small number of names: a peer may close with any of 2000 codes."""
    code = ending_code(ending)
    if code.startswith("closed-") and code not in _USUAL:
        return f"{code[:8]}xxx-{code[12:]}"
    return code


#: The closing codes of RFC 6455 section 7.4.1 and its registry, and our own.
_USUAL: Final = frozenset(
    f"closed-{code}-by-{who}"
    for code in (*range(1000, 1016), 4000)
    for who in ("peer", "server", "transport")
)


def describe(ending: Ending) -> str:
    """How a link ended, in the words people search for.

    1006 is said only when no closing frame went either way: that alone is a lost transport.
    """
    if ending.close_rcvd is None and ending.close_sent is None:
        return f"Close code 1006 (abnormal closure), transport ended by {ending.transport}"
    parts = []
    if ending.fault is not None:
        parts.append(f"{ending.fault}: {ending.error}")
    for verb, close in (("sent", ending.close_sent), ("received", ending.close_rcvd)):
        if close is not None:
            parts.append(f"close {close[0]} {verb}" + (f" ({close[1]})" if close[1] else ""))
        else:
            parts.append(f"no close {verb}")
    return ", ".join(parts) + f", closed by {ending.closed_by}"


def ending_detail(session: Session, ending: Ending) -> dict[str, Any]:
    """The record of a link, JSON-ready; times in seconds."""
    detail: dict[str, Any] = {
        "since": session.since,
        "seconds": round(ending.seconds, 3),
        "messages_in": ending.messages_in,
        "messages_out": ending.messages_out,
        "bytes_in": ending.bytes_in,
        "bytes_out": ending.bytes_out,
        "closed_by": ending.closed_by,
        "close_sent": ending.close_sent,
        "close_rcvd": ending.close_rcvd,
        "transport": ending.transport,
        "pings": ending.pings,
        "pongs": ending.pongs,
        "types": session.counts,
    }
    ended = session.opened_at + ending.seconds
    for name, moment in (("last_ping", ending.last_ping), ("last_pong", ending.last_pong)):
        if moment is not None:
            detail[f"{name}_seconds_before_end"] = round(ended - moment, 3)
    if ending.error is not None:
        detail["error"] = ending.error
        detail["fault"] = ending.fault
    if ending.first_bytes:
        detail["first_bytes"] = _first_bytes(ending.first_bytes)
    if session.noted:
        detail["notes"] = sorted(session.noted)
    return detail


def _first_bytes(start: bytes) -> dict[str, str]:
    """Up to 64 bytes of what could not be read, without the secrets that a head may begin with."""
    shown = _SECRETS.sub(lambda found: found[1] + b"*" * len(found[2]), start[:64])
    return {"hex": shown.hex(" "), "text": printable(shown)}


def printable(data: bytes) -> str:
    """Bytes as text with dots for what cannot be printed."""
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)


def _now() -> int:
    return time.time_ns() // 1_000_000
