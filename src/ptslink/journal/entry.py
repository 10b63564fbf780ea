"""What goes into the journal, and what comes of it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec

from ptslink.jsonpts.confirmation import is_upload
from ptslink.jsonpts.envelope import Packet


class Transport(enum.IntEnum):
    """How a message reached the server."""

    WEBSOCKET = 1
    HTTP = 2


class Flag(enum.IntFlag):
    """Doubts about a record, kept with it."""

    NO_TIME = 1
    IMPOSSIBLE_TIME = 2
    CLOCK_RESET = 4
    FUTURE_TIME = 8
    NO_DATA = 16
    REPAIRED = 32
    FISHED = 64


class Fact(msgspec.Struct):
    """One upload packet on its way to becoming a record.

    Attributes:
        index: its position among the packets of the message.
        type: its Type, such as ``UploadPumpTransaction``.
        digest: 16 bytes, its natural key within the controller.
        local_time: controller-local time as sent, "" when there is none.
        local: the same in seconds since 1970 local, or None.
        utc: best-effort UTC seconds, or None.
        flags: doubts, see `Flag`.
    """

    index: int
    type: str
    digest: bytes
    local_time: str = ""
    local: int | None = None
    utc: int | None = None
    flags: int = 0


class Status(msgspec.Struct):
    """An UploadStatus packet: kept as the latest of its controller, and sampled as history."""

    data: bytes
    offset_minutes: int | None = None


@dataclass(slots=True)
class Clock:
    """What is known of a controller's clock. Once entries refer to it, the journal's thread alone
    changes it, in the order the messages came.

    Attributes:
        offset_minutes: the UTCOffset it told last, or None.
        zone: the zone configured for the site, or None.
    """

    offset_minutes: int | None = None
    zone: ZoneInfo | None = None


class Entry(msgspec.Struct, eq=False):
    """One received message.

    Attributes:
        controller: id in upper case hexadecimal, "" when unknown.
        received: milliseconds since 1970 UTC.
        transport: how it came.
        link: number of the connection it came over.
        raw: every byte of the message.
        facts: the upload packets in it, status apart.
        status: the last UploadStatus in it, if any.
        notes: names of repairs and oddities.
        settled: called on the event loop once the entry is durable or has failed.
        packets: the decoded packets.
        clock: of its controller, as long as facts and status are still to be derived from the
            packets; None once they are.
        stored: the outcome, valid once settled.
    """

    controller: str
    received: int
    transport: Transport
    link: int
    raw: bytes
    facts: list[Fact] = []  # made anew for each
    status: Status | None = None
    notes: tuple[str, ...] = ()
    settled: Callable[[Entry], None] | None = None
    packets: list[Packet] = []
    clock: Clock | None = None
    stored: bool = False

    @property
    def only_status(self) -> bool:
        """Whether the latest status is all there is to keep, so that no message row is needed."""
        return (
            self.status is not None
            and not self.facts
            and all(packet.type == "UploadStatus" for packet in self.packets)
        )

    @property
    def has_others(self) -> bool:
        """Whether there are packets that become neither a record nor a status."""
        return any(packet.type and not is_upload(packet.type) for packet in self.packets)


@dataclass(slots=True)
class Evidence:
    """A structured record of something that happened: an attempt, a link's end, a state change.

    Attributes:
        kind: ``attempt``, ``link`` or ``event``.
        at: milliseconds since 1970 UTC.
        controller: id or "".
        peer: address of the caller, or "".
        code: the short stable name of what happened.
        detail: everything else, a JSON object as text.
        link: number of the link that begins with an ``attempt`` or ends with a ``link``, else 0.
    """

    kind: str
    at: int
    controller: str
    peer: str
    code: str
    detail: str
    link: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept of what is not a record.

    Attributes:
        evidence_days, evidence_rows, evidence_bytes: of evidence.
        status_days, status_bytes: of the history of UploadStatus.
    """

    evidence_days: int = 90
    evidence_rows: int = 1_000_000
    evidence_bytes: int = 500_000_000
    status_days: int = 90
    status_bytes: int = 2_000_000_000


@dataclass(slots=True)
class Health:
    """Whether the journal can keep its promise right now.

    Attributes:
        ok: the last commit (or probe) succeeded.
        reason: why not, or "".
        since: milliseconds since 1970 UTC of the first failure in a row, or None.
        replaced: what is known of another file that was found in the journal's place, or "".
        replacements: how many times one was.
        unclean: links that the process before left open on record.
        waiting: bytes of messages that wait for the disk.
        refused: messages answered with an error, since too many bytes waited for the disk.
        commits, stored, duplicates, failed: counters since start; the last three in messages,
            records and messages.
    """

    ok: bool = True
    reason: str = ""
    since: int | None = None
    replaced: str = ""
    replacements: int = 0
    unclean: int = 0
    waiting: int = 0
    refused: int = 0
    commits: int = 0
    stored: int = 0
    duplicates: int = 0
    failed: int = 0
    lost_evidence: int = 0


class Journal(Protocol):
    """What the server needs of a journal."""

    @property
    def health(self) -> Health:
        """The present state."""
        ...

    def append(self, entry: Entry) -> None:
        """Take an entry; `Entry.settled` is called later, on the event loop, exactly once."""
        ...

    def record(self, evidence: Evidence) -> None:
        """Take a record of evidence; best effort, never waits."""
        ...

    def knows(self, controller: str) -> bool:
        """Whether the controller ever had a message stored here."""
        ...
