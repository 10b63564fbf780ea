"""Decoding a jsonPTS message into its packets, tolerantly and without losing anything.

Only what is needed to file and answer a packet is decoded; ``Data`` stays as the bytes that were
sent, so that an unknown Type or a field of a surprising shape is recorded like any other.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ptslink.jsonpts import repair

#: Note: PtsId is absent; normal in replies to commands (PTS-2 protocol 2.1).
#: It is not noted, only left "".
#: Note: Protocol is there but is not "jsonPTS".
OTHER_PROTOCOL: Final = "other-protocol"
#: Note: a packet has no usable Id, so that it cannot be answered.
NO_ID: Final = "packet-without-id"
#: Note: a packet has no usable Type.
NO_TYPE: Final = "packet-without-type"
#: Note: the message is valid JSON but carries no Packets.
NO_PACKETS: Final = "no-packets"
#: Note: nothing could be read from the message at all.
UNREADABLE: Final = "unreadable"
#: Note: more packets than any controller sends; the surplus is kept as text only.
TOO_MANY_PACKETS: Final = "too-many-packets"

MAX_PACKETS: Final = 1000
MAX_REPAIRED_BYTES: Final = 128 * 1024
_MAX_ID_BYTES: Final = 64
_MAX_TYPE_CHARACTERS: Final = 64


_Packet = dict[str, Raw]


class _Envelope(msgspec.Struct, gc=False):
    Packets: list[_Packet] | UnsetType = UNSET
    PtsId: Raw | UnsetType = UNSET
    Protocol: Raw | UnsetType = UNSET


class _PlainPacket(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A packet with nothing odd about it: no other members."""

    Id: Raw
    Type: str
    Data: Raw


class _PlainEnvelope(msgspec.Struct, gc=False):
    """A message as controllers really send it, and nothing else."""

    Protocol: Literal["jsonPTS"]
    Packets: list[_PlainPacket]
    PtsId: str = ""


class _LooseEnvelope(msgspec.Struct, gc=False):
    Packets: Raw | UnsetType = UNSET
    PtsId: Raw | UnsetType = UNSET
    Protocol: Raw | UnsetType = UNSET


class Packet(msgspec.Struct):
    """One packet.

    Attributes:
        id: the Id as its JSON bytes, so that it can be echoed exactly as received (``7`` or
            ``"7"``); empty when there is none that can be echoed.
        type: the Type, or "" when there is none.
        data: the JSON bytes of Data; for UploadConfiguration, of Configuration; empty when
            missing or null.
        configuration: the JSON bytes of a ConfigurationId on the packet itself, or empty.
        error: whether Error is true, as in a refused command's reply.
        beside: JSON of whatever else the packet says besides what is in the members above; of a
            packet without a usable Type, all but its Id and Data.
    """

    id: bytes
    type: str
    data: bytes
    configuration: bytes = b""
    error: bool = False
    beside: bytes = b""


class Message(msgspec.Struct):
    """One message.

    Attributes:
        controller: PtsId as text, or "".
        packets: in the order they were sent.
        notes: names of repairs and oddities; empty for a clean message.
    """

    controller: str
    packets: list[Packet]
    notes: tuple[str, ...] = ()


_plain_envelope = msgspec.json.Decoder(_PlainEnvelope)
_envelope = msgspec.json.Decoder(_Envelope)
_loose_envelope = msgspec.json.Decoder(_LooseEnvelope)
_raw_list = msgspec.json.Decoder(list[Raw])
_packet = msgspec.json.Decoder(_Packet)
_text = msgspec.json.Decoder(str)


def decode(payload: bytes, code_page: str = "") -> Message:
    """Decode a message. Never raises: what cannot be read becomes a note.

    Args:
        payload: the message as received, any bytes at all.
        code_page: codec of a message that is not UTF-8, for showing it. Records are filed without
            one, so that their natural keys do not depend on a setting.
    """
    if not payload.isascii():
        try:
            payload.decode("utf-8")
        except UnicodeDecodeError:
            # A parser that skips what it does not need would not notice.
            message = _decode_utf8(repair.as_utf8(payload, code_page), len(payload))
            for packet in message.packets:
                if not packet.id.isascii():
                    packet.id = b""  # it did not come so, and cannot be echoed as it came
            return Message(message.controller, message.packets, (repair.NOT_UTF8, *message.notes))
    return _decode_utf8(payload, len(payload))


def decode_to_show(payload: bytes, code_page: str) -> Message:
    """Decode a stored message as `decode` does, with the same packets, and with the texts of one
    that is not UTF-8 decoded by the code page.

    Args:
        code_page: the codec, or "" for none.
    """
    message = decode(payload)
    if code_page and repair.NOT_UTF8 in message.notes:
        shown = decode(payload, code_page)
        # What could only be read with the code page may have other packets than were filed.
        if [packet.type for packet in shown.packets] == [packet.type for packet in message.packets]:
            return shown
    return message


def shown(payload: bytes, code_page: str) -> str:
    """A stored message as text, decoded by the code page where it is not UTF-8."""
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError:
        return payload.decode(code_page or "utf-8", "replace")


def _decode_utf8(payload: bytes, received: int) -> Message:
    """Decode what is UTF-8; `received` is how many bytes of the message came."""
    try:
        plain = _plain_envelope.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_any(payload, received)
    packets = []
    for packet in plain.Packets:
        id_, type_, data = bytes(packet.Id), packet.Type, bytes(packet.Data)
        if not (id_.isdigit() and len(id_) <= _MAX_ID_BYTES):
            id_ = _echoable(packet.Id)
        if not id_ or not 0 < len(type_) <= _MAX_TYPE_CHARACTERS or data == b"null":
            return _decode_any(payload, received)
        packets.append(Packet(id_, type_, data))
    if not 0 < len(packets) <= MAX_PACKETS:
        return _decode_any(payload, received)
    return Message(plain.PtsId, packets)


def fault(payload: bytes) -> str:
    """What is wrong with a message that is `UNREADABLE`, in words, with the place if there is one.

    Args:
        payload: the message as received.
    """
    try:
        payload.decode("utf-8")
        _loose_envelope.decode(payload)
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start})"
    except RecursionError:
        return "nested too deeply"
    except msgspec.DecodeError as error:
        return str(error)
    return "not one packet in it"


def _decode_any(payload: bytes, received: int) -> Message:
    """Decode a message of any shape, noting what is odd about it."""
    try:
        return _message(_envelope.decode(payload), [])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _second_chance(payload, received)


def _second_chance(payload: bytes, received: int) -> Message:
    """Repair what firmware is known to get wrong; failing that, fish for Id and Type."""
    if received > MAX_REPAIRED_BYTES:
        # Regular expressions over a megabyte of noise would hold up every other controller.
        repaired, notes = b"", ["too-long-to-repair"]
        payload = payload[:MAX_REPAIRED_BYTES]
    else:
        repaired, notes = repair.repair(payload)
    try:
        loose = _loose_envelope.decode(repaired)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = repair.fish(payload)
        if not found.packets:
            return Message(found.controller, [], (*notes, UNREADABLE))
        packets = [Packet(id_, type_, b"") for id_, type_ in found.packets[:MAX_PACKETS]]
        if len(found.packets) > MAX_PACKETS:
            notes.append(TOO_MANY_PACKETS)
        return Message(found.controller, packets, (*notes, repair.FISHED))
    return _message(_tightened(loose, notes), notes)


def _tightened(loose: _LooseEnvelope, notes: list[str]) -> _Envelope:
    """Read Packets of an unexpected shape: a single object, null, or a list with odd members."""
    packets: list[_Packet] | UnsetType = UNSET
    raw = bytes(loose.Packets) if isinstance(loose.Packets, Raw) else b""
    if raw[:1] == b"{":
        raw = b"[" + raw + b"]"
        notes.append("packets-not-a-list")
    if raw[:1] == b"[":
        packets = []
        for member in _raw_list.decode(raw):
            try:
                packets.append(_packet.decode(member))
            except (msgspec.DecodeError, RecursionError):
                notes.append("packet-not-an-object")
    return _Envelope(packets, loose.PtsId, loose.Protocol)


def _message(envelope: _Envelope, notes: list[str]) -> Message:
    controller = _string(envelope.PtsId, notes, "pts-id-not-text")
    if isinstance(envelope.Protocol, Raw) and bytes(envelope.Protocol) != b'"jsonPTS"':
        notes.append(OTHER_PROTOCOL)
    members = envelope.Packets
    if not members:
        notes.append(NO_PACKETS)
        return Message(controller, [], tuple(notes))
    if len(members) > MAX_PACKETS:
        notes.append(TOO_MANY_PACKETS)
        members = members[:MAX_PACKETS]
    packets = [_one(member, notes) for member in members]
    return Message(controller, packets, tuple(notes))


def _one(member: _Packet, notes: list[str]) -> Packet:
    rest = dict(member)
    id_ = rest.pop("Id", UNSET)
    type_ = _string(rest.get("Type", UNSET), notes, NO_TYPE)
    if not type_ or len(type_) > _MAX_TYPE_CHARACTERS:
        if NO_TYPE not in notes:
            notes.append(NO_TYPE)
        type_ = ""
    else:
        del rest["Type"]
    data = _present(rest.pop("Data", UNSET))
    # UploadConfiguration carries these on the packet, not in Data (PTS-2 protocol 2.2).
    if not data:
        data = _present(rest.pop("Configuration", UNSET))
    configuration = _present(rest.pop("ConfigurationId", UNSET))
    error = rest.get("Error", UNSET)
    packet = Packet(_echoable(id_), type_, data, configuration)
    packet.error = isinstance(error, Raw) and bytes(error) == b"true"
    if rest:
        packet.beside = msgspec.json.encode(rest, order="sorted")
    if not packet.id and NO_ID not in notes:
        notes.append(NO_ID)
    return packet


def _present(raw: Raw | UnsetType) -> bytes:
    if raw is UNSET:
        return b""
    value = bytes(raw)
    return b"" if value == b"null" else value


def _string(raw: Raw | UnsetType, notes: list[str], note: str) -> str:
    value = _present(raw)
    if not value:
        return ""
    if value[:1] != b'"':
        notes.append(note)
        return ""
    return _text.decode(value)


def _echoable(raw: Raw | UnsetType) -> bytes:
    """The Id's bytes if it is a number or a string of sane length, else nothing."""
    value = _present(raw)
    if not value or len(value) > _MAX_ID_BYTES or value[:1] not in b'-0123456789"':
        return b""
    return value
