"""From a received message to what is filed of it: pure, given the time and the controller.

In two steps, because they run in two threads. `file` decodes a message, as far as is needed to
answer it, on the event loop; `derive` finds the facts in it, with their natural keys and times, in
the journal's own thread just before they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from ptslink.handshake.identity import controller_id
from ptslink.journal.entry import Clock, Entry, Fact, Flag, Status, Transport
from ptslink.jsonpts import moment, repair
from ptslink.jsonpts.confirmation import is_upload
from ptslink.jsonpts.envelope import Packet, decode
from ptslink.jsonpts.natural import fished_key, fished_whole, natural_key, unread_key

#: Type under which a message is filed that nothing could be made of.
UNREADABLE_TYPE: Final = "Unreadable"
#: Note: the body names another controller than the handshake; the handshake is believed.
OTHER_CONTROLLER: Final = "pts-id-differs-from-handshake"

_WIDE_TYPE: Final = 0xFFFF

_FLAGS: Final = {
    moment.IMPOSSIBLE: Flag.IMPOSSIBLE_TIME,
    moment.CLOCK_RESET: Flag.CLOCK_RESET,
    moment.FUTURE: Flag.FUTURE_TIME,
}


class _StatusFields(msgspec.Struct, gc=False):
    UTCOffset: int | str | float | None = None


_status_fields = msgspec.json.Decoder(_StatusFields)


def file(
    payload: bytes,
    *,
    controller: str,
    clock: Clock,
    received: int,
    transport: Transport,
    link: int,
    settled: Callable[[Entry], None] | None,
) -> Entry:
    """Decode a message and make the entry that keeps it; `derive` completes it.

    Args:
        payload: the message as received.
        controller: id from the handshake, "" when it gave none; then the body's is used.
        clock: of this controller.
        received: milliseconds since 1970 UTC.
        settled: see `Entry.settled`.
    """
    message = decode(payload)
    notes = message.notes
    named = message.controller
    if named != controller:
        named = controller_id(named) or ""
        if named and controller and named != controller:
            notes = (*notes, OTHER_CONTROLLER)
    return Entry(
        controller or named,
        received,
        transport,
        link,
        payload,
        notes=notes,
        settled=settled,
        packets=message.packets,
        clock=clock,
    )


def derive(entry: Entry) -> None:
    """Find the facts and the status in an entry from `file`; one that is complete stays as it is.

    The controller's clock is updated by an UploadStatus, for the facts after it.
    """
    clock, entry.clock = entry.clock, None
    if clock is None:
        return
    doubts = _doubts(entry.notes) if entry.notes else 0
    # The test for 0 first: the operators of an enumeration cost as much as a key does.
    fished = fished_whole(entry.raw) if doubts and doubts & Flag.FISHED else b""
    now = entry.received // 1000
    for index, packet in enumerate(entry.packets):
        if packet.type == "UploadStatus":
            _status(entry, packet, clock, mended=bool(doubts))
        elif is_upload(packet.type):
            if fished:
                digest = fished_key(packet.type, fished, index).digest
                flags = doubts | Flag.NO_DATA | Flag.NO_TIME
                entry.facts.append(Fact(index, packet.type, digest, flags=flags))
            else:
                entry.facts.append(_fact(index, packet, clock, now, doubts))
        elif not packet.type:
            # Nobody knows what it is: kept like a fact, so that no copy of its message hides it.
            unnamed = msgspec.structs.replace(packet, type=UNREADABLE_TYPE)
            entry.facts.append(_fact(index, unnamed, clock, now, doubts))
    if not entry.packets:
        file_unreadable(entry, doubts)


def _status(entry: Entry, packet: Packet, clock: Clock, *, mended: bool) -> None:
    offset = _offset(packet.data) if packet.data else None
    if offset is not None:
        clock.offset_minutes = offset
    # A status that could not be read is one a second, too: the latest of them is kept, as it came,
    # and so is one of which Data has other bytes than came.
    entry.status = Status(entry.raw if mended or not packet.data else packet.data, offset)


def facts_of(raw: bytes) -> list[Fact]:
    """The facts in a message, as far as its bytes alone tell: their times in UTC are not known."""
    entry = file(
        raw,
        controller="",
        clock=Clock(),
        received=0,
        transport=Transport.WEBSOCKET,
        link=0,
        settled=None,
    )
    derive(entry)
    return entry.facts


def record_key(controller: int, type_: int, fact: Fact) -> bytes:
    """What is unique about a record, given the journal's numbers of its controller and Type."""
    seconds = fact.local if fact.local is not None and fact.local > 0 else 0
    return (
        seconds.to_bytes(5, "big")
        + controller.to_bytes(4, "big")
        + (type_.to_bytes(2, "big") if type_ < _WIDE_TYPE else _wide(type_))
        + fact.digest
    )


def _wide(type_: int) -> bytes:
    """A number that two bytes do not hold; only a journal of an older version has such Types."""
    return _WIDE_TYPE.to_bytes(2, "big") + type_.to_bytes(8, "big")


def file_unreadable(entry: Entry, doubts: int = 0) -> None:
    """File a message by its bytes alone: once, however often it is sent again."""
    key = unread_key(UNREADABLE_TYPE, entry.raw)
    entry.facts = [Fact(0, UNREADABLE_TYPE, key.digest, flags=doubts | Flag.NO_TIME)]


def _fact(index: int, packet: Packet, clock: Clock, now: int, doubts: int) -> Fact:
    key = natural_key(packet)
    flags = doubts
    utc = None
    if not packet.data:
        flags |= Flag.NO_DATA
    if not key.local_time:
        flags |= Flag.NO_TIME
    else:
        for name in moment.flags(key.local, now=now):
            flags |= _FLAGS[name]
        if key.local is not None:
            utc = moment.to_utc(key.local, offset_minutes=clock.offset_minutes, zone=clock.zone)
    return Fact(index, packet.type, key.digest, key.local_time, key.local, utc, flags)


def _doubts(notes: Iterable[str]) -> int:
    if repair.FISHED in notes:
        return Flag.FISHED
    return Flag.REPAIRED if any(note in _REPAIRS for note in notes) else 0


_REPAIRS: Final = frozenset(
    {
        repair.TRAILING_COMMA,
        repair.MISSING_COMMA,
        repair.TRAILING_BYTES,
        repair.LEADING_BYTES,
        repair.NOT_UTF8,
        repair.CONTROL_CHARACTER,
    }
)


def _offset(data: bytes) -> int | None:
    """UTCOffset in minutes; sent as a number, and in one official example as a string."""
    try:
        sent = _status_fields.decode(data).UTCOffset
        offset = int(sent) if sent is not None else None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, OverflowError):
        return None
    return offset if offset is not None and -1440 <= offset <= 1440 else None
