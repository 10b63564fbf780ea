"""Commands to connected controllers: a short list of questions, nothing that changes anything.

Replies come whenever they come, without PtsId, possibly twice and minutes late (PTS-2 protocol 2.1
and 3), so they are matched by connection and Id, and a reply nobody waits for is only counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ptslink.jsonpts.envelope import Packet
from ptslink.server.registry import Session
from ptslink.server.wheel import Wheel

#: The only requests ever sent (PTS-2 protocol, quirk 15). None moves fuel, changes a price or a
#: setting; the only one with a heavy reply among the read-only ones, a report, is not here.
ALLOWED: Final = (
    "GetConfigurationIdentifier",
    "GetControllerType",
    "GetDateTime",
    "GetFirmwareInformation",
    "GetRemoteServerConfiguration",
    "GetUniqueIdentifier",
    "GetUploadedRecordsInformation",
)
#: Ids of packets stay below 65536; ours begin here so that a log is easy to read.
_FIRST_ID: Final = 1
_LAST_ID: Final = 65_535
#: Commands to one controller that may be under way at once; its input buffer is small.
MAX_UNDER_WAY: Final = 4

Done = Callable[[dict[str, Any]], None]


class CommandRefused(Exception):
    """A command that is not sent; `status` is the HTTP status that says so."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code


@dataclass(slots=True, eq=False)
class _Waiting:
    downlink: Downlink
    key: tuple[int, int]
    type: str
    done: Done
    deadline: float

    def due(self, now: float) -> float | None:
        """The wheel's look: give up when the time is over."""
        if self.downlink.waits(self):
            if now < self.deadline:
                return self.deadline
            self.downlink.finish(
                self, {"error": "no-reply", "message": f"No reply to {self.type} in time."}
            )
        return None


class Downlink:
    """Sends commands and matches replies.

    Args:
        wheel: the shared timer.
        seconds: how long a reply may take.
        now: the loop's clock.
    """

    def __init__(self, wheel: Wheel, seconds: float, now: Callable[[], float]) -> None:
        self._wheel = wheel
        self._seconds = seconds
        self._now = now
        self._waiting: dict[tuple[int, int], _Waiting] = {}
        self._next: dict[int, int] = {}
        self.unexpected = 0

    def send(self, session: Session, type_: str, done: Done) -> int:
        """Send a command; `done` is called once, with the reply or with an error.

        Returns:
            the bytes of the message that was sent.

        Raises:
            CommandRefused: it is not on the list, too many are under way, or the link is closing.
        """
        if type_ not in ALLOWED:
            raise CommandRefused(
                403,
                "command-not-allowed",
                f"{type_[:64]!r} is not among the commands this server sends: {', '.join(ALLOWED)}",
            )
        number = session.peer.number
        if sum(1 for link, _ in self._waiting if link == number) >= MAX_UNDER_WAY:
            raise CommandRefused(
                429, "too-many-commands", f"{MAX_UNDER_WAY} commands are already under way."
            )
        id_ = self._next.get(number, _FIRST_ID)
        self._next[number] = _FIRST_ID if id_ >= _LAST_ID else id_ + 1
        content = {"Protocol": "jsonPTS", "Packets": [{"Id": id_, "Type": type_}]}
        payload = json.dumps(content, separators=(",", ":")).encode()
        if not session.peer.send(payload):
            raise CommandRefused(409, "link-closing", "The controller's link is closing.")
        waiting = _Waiting(self, (number, id_), type_, done, self._now() + self._seconds)
        self._waiting[waiting.key] = waiting
        self._wheel.add(waiting, waiting.deadline)
        return len(payload)

    def reply(self, session: Session, packet: Packet) -> bool:
        """Take a packet that is no upload; whether a command was waiting for it."""
        try:
            id_ = int(packet.id.strip(b'"'))
        except ValueError:
            id_ = 0
        waiting = self._waiting.get((session.peer.number, id_))
        if waiting is None:
            self.unexpected += 1
            return False
        content: dict[str, Any] = {"type": packet.type, "error": packet.error}
        if packet.data:
            try:
                content["data"] = json.loads(packet.data)
                json.dumps(content["data"], allow_nan=False)
            except (ValueError, RecursionError) as error:
                # JSON that one reader takes is too deep, too long a number or infinite for another.
                content["data"] = None
                content["message"] = f"The reply's Data cannot be read: {error}"
        self.finish(waiting, content)
        return True

    def ended(self, session: Session) -> None:
        """A link is gone: nobody will reply on it."""
        number = session.peer.number
        self._next.pop(number, None)
        for waiting in [item for item in self._waiting.values() if item.key[0] == number]:
            self.finish(waiting, {"error": "link-lost", "message": "The link ended meanwhile."})

    def waits(self, waiting: _Waiting) -> bool:
        """Whether the command still waits."""
        return self._waiting.get(waiting.key) is waiting

    def finish(self, waiting: _Waiting, outcome: dict[str, Any]) -> None:
        """Report the outcome to whoever asked."""
        del self._waiting[waiting.key]
        waiting.done(outcome)
