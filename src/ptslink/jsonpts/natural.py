"""Natural keys: what makes two packets the same fact (PTS-2 protocol 2.4).

A controller sends a packet again until it is confirmed, and an operator may replay years of
history on purpose. The packet Id, ConfigurationId, the counters and white space differ between the
copies, so the key is made of the fact's own fields. Every key is meant within one controller.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Raw

from ptslink.jsonpts.envelope import MAX_REPAIRED_BYTES, Packet
from ptslink.jsonpts.moment import local_seconds

_NONE = Raw(b"null")
_DIGEST_BYTES: Final = 16
#: Members that differ between copies of one fact: the configuration in force when it was sent,
#: and its position among the stored records.
_UNSTABLE_SUFFIXES: Final = ("Uploaded", "Total")
_UNSTABLE: Final = re.compile(
    rb'("(?:Id|ConfigurationId|[A-Za-z]*(?:Uploaded|Total))"\s*+:\s*+)'
    rb'(?:-?\d++|"[^"\\]{0,64}+")(?=\s*+[,}])'
)


@dataclass(slots=True)
class NaturalKey:
    """The identity of a fact.

    Attributes:
        local_time: the controller-local time it is filed under, as sent; "" when there is none.
        local: the same in seconds since 1970 local, or None when impossible or absent.
        digest: 16 bytes over the fields of the key.
    """

    local_time: str
    local: int | None
    digest: bytes


class _Values(msgspec.Struct, gc=False):
    DateTime: Raw = _NONE


class _Fields(msgspec.Struct, gc=False):
    """Every member that takes part in some key. Raw, so that no surprising type can fail."""

    DateTime: Raw = _NONE
    DateTimeStart: Raw = _NONE
    DateTimeEnd: Raw = _NONE
    Pump: Raw = _NONE
    Transaction: Raw = _NONE
    Volume: Raw = _NONE
    TotalVolume: Raw = _NONE
    Tank: Raw = _NONE
    StartValues: Raw = _NONE
    EndValues: Raw = _NONE
    DeviceType: Raw = _NONE
    DeviceNumber: Raw = _NONE
    State: Raw = _NONE
    Code: Raw = _NONE
    PaymentTransaction: Raw = _NONE
    PaymentTransactionDateTime: Raw = _NONE
    IsRefunded: Raw = _NONE
    Number: Raw = _NONE


_fields = msgspec.json.Decoder(_Fields)
_values = msgspec.json.Decoder(_Values)
_members = msgspec.json.Decoder(dict[str, Raw])
_any = msgspec.json.Decoder()

_Parts = tuple[list[bytes], Raw, bool]
"""Parts of a key, the member that gives its time, and whether the whole content must be added."""


def _pump_transaction(f: _Fields) -> _Parts:
    parts = [f.Pump, f.Transaction, f.DateTimeStart, f.DateTime, f.Volume, f.TotalVolume]
    return [_canonical(p) for p in parts], f.DateTime, _absent(f.Transaction, f.DateTime)


def _tank_measurement(f: _Fields) -> _Parts:
    return [_canonical(f.Tank), _canonical(f.DateTime)], f.DateTime, True


def _in_tank_delivery(f: _Fields) -> _Parts:
    start, end = _time_of(f.StartValues), _time_of(f.EndValues)
    return [_canonical(p) for p in (f.Tank, start, end)], end, _absent(f.Tank, start, end)


def _timed_content(f: _Fields) -> _Parts:
    return [_canonical(f.DateTime)], f.DateTime, True


def _alert(f: _Fields) -> _Parts:
    parts = [f.DateTime, f.DeviceType, f.DeviceNumber, f.State, f.Code]
    return [_canonical(p) for p in parts], f.DateTime, _absent(f.DateTime, f.Code)


def _payment(f: _Fields) -> _Parts:
    time = f.PaymentTransactionDateTime
    parts = [_canonical(f.PaymentTransaction), _canonical(time), _canonical(f.IsRefunded)]
    return parts, time, _absent(f.PaymentTransaction, time)


def _shift(f: _Fields) -> _Parts:
    # A shift comes again when it closes: another DateTimeEnd, another record.
    parts = [_canonical(f.Number), _canonical(f.DateTimeStart), _canonical(f.DateTimeEnd)]
    return parts, f.DateTimeStart, _absent(f.Number, f.DateTimeStart)


_KEYS: Final[dict[str, Callable[[_Fields], _Parts]]] = {
    "UploadPumpTransaction": _pump_transaction,
    "UploadTankMeasurement": _tank_measurement,
    "UploadInTankDelivery": _in_tank_delivery,
    "UploadGpsRecord": _timed_content,
    "UploadAlertRecord": _alert,
    "UploadPayment": _payment,
    "UploadShift": _shift,
}


class _PumpTransaction(msgspec.Struct, gc=False):
    DateTime: str
    Transaction: float
    DateTimeStart: str | None = None
    Pump: float | None = None
    Volume: float | None = None
    TotalVolume: float | None = None


class _TankMeasurement(msgspec.Struct, gc=False):
    """Every measured value: after a clock reset the times repeat, the values do not."""

    DateTime: str
    Tank: float | None = None
    FuelGradeId: float | None = None
    FuelGradeName: str | None = None
    Status: str | None = None
    Alarms: list[str] | None = None
    ProductHeight: float | None = None
    WaterHeight: float | None = None
    Temperature: float | None = None
    ProductVolume: float | None = None
    WaterVolume: float | None = None
    ProductUllage: float | None = None
    ProductTCVolume: float | None = None
    ProductDensity: float | None = None
    ProductMass: float | None = None
    TankFillingPercentage: float | None = None


#: The two Types that make up nearly all traffic have their members read as what they are, several
#: times as fast as the general way. Not strict: a number sent as text is that number.
_TYPED: Final[dict[str, msgspec.json.Decoder[_PumpTransaction | _TankMeasurement]]] = {
    "UploadPumpTransaction": msgspec.json.Decoder(_PumpTransaction, strict=False),
    "UploadTankMeasurement": msgspec.json.Decoder(_TankMeasurement, strict=False),
}
_encode = msgspec.json.Encoder().encode


def natural_key(packet: Packet) -> NaturalKey:
    """The natural key of an upload packet of any Type, known or not.

    Where a member without which the key would say nothing is absent, the whole content joins the
    key: then only an exact repetition is taken for a copy.
    """
    typed = _TYPED.get(packet.type)
    if typed is not None:
        try:
            fields = typed.decode(packet.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _general_key(packet)
        local = local_seconds(fields.DateTime)
        if local is not None:
            digest = _digest(packet.type, [_encode(fields)])
            return NaturalKey(fields.DateTime, local, digest)
    return _general_key(packet)


def _general_key(packet: Packet) -> NaturalKey:
    data = packet.data
    if packet.type == "UploadConfiguration" and packet.configuration:
        return NaturalKey("", None, _digest(packet.type, [_canonical_bytes(packet.configuration)]))
    try:
        fields = _fields.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Missing Data, or Data that is no object.
        parts = [b"\x00", canonical_content(data), *_beside(packet)]
        return NaturalKey("", None, _digest(packet.type, parts))
    parts, time, whole = _KEYS.get(packet.type, _timed_content)(fields)
    if whole:
        parts += [canonical_content(data), *_beside(packet)]
    local_time = _plain_text(time)
    return NaturalKey(local_time, local_seconds(local_time), _digest(packet.type, parts))


def fished_whole(raw: bytes) -> bytes:
    """What stands for a message of which only Ids and Types could be made out: all of it but what
    differs in copies, as far as that can be told in broken text."""
    if len(raw) <= MAX_REPAIRED_BYTES:
        raw = _UNSTABLE.sub(rb"\1", raw)
    return hashlib.sha256(raw.strip()).digest()


def fished_key(type_: str, whole: bytes, index: int) -> NaturalKey:
    """The natural key of a packet of which only Id and Type could be made out.

    What it says is somewhere in the message, so all of the message is in its key, and which of the
    packets it is.

    Args:
        whole: from `fished_whole`, once a message: there may be a thousand such packets in one.
    """
    return NaturalKey("", None, _digest(type_, [b"\x01%d" % index, whole]))


def unread_key(type_: str, raw: bytes) -> NaturalKey:
    """The natural key of a message of which nothing could be made out: its bytes."""
    return NaturalKey("", None, _digest(type_, [b"\x02", raw.strip()]))


def _beside(packet: Packet) -> list[bytes]:
    """What the packet says beside its Data, in canonical form; nothing if it says nothing."""
    return [canonical_content(packet.beside)] if packet.beside else []


def canonical_content(data: bytes) -> bytes:
    """The stable members of Data in a canonical form: sorted, without what differs in copies."""
    try:
        members = _members.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data.strip()
    stable = [
        name.encode() + b":" + _canonical(members[name])
        for name in sorted(members)
        if name != "ConfigurationId" and not name.endswith(_UNSTABLE_SUFFIXES)
    ]
    return b",".join(stable)


def _digest(type_: str, parts: list[bytes]) -> bytes:
    # Unit separators cannot occur in JSON text, so two lists of parts never run together.
    joined = type_.encode() + b"\x1f" + b"\x1f".join(parts)
    return hashlib.blake2b(joined, digest_size=_DIGEST_BYTES).digest()


def _absent(*values: Raw) -> bool:
    return any(bytes(value) in (b"null", b'""') for value in values)


def _time_of(values: Raw) -> Raw:
    try:
        return _values.decode(values).DateTime
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NONE


def _plain_text(value: Raw) -> str:
    raw = bytes(value)
    if raw[:1] != b'"' or b"\\" in raw:
        return ""
    return raw[1:-1].decode("utf-8", "replace")[:64]


def _canonical(value: Raw) -> bytes:
    return _canonical_bytes(bytes(value))


def _canonical_bytes(raw: bytes) -> bytes:
    """One spelling for one value: ``5``, ``5.0``, ``5.00`` and ``"5"`` are the same."""
    first = raw[:1]
    if first == b'"':
        return raw[1:-1]
    if first in (b"{", b"["):
        try:
            return msgspec.json.encode(_any.decode(raw), order="sorted")
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return raw
    if b"." in raw and b"e" not in raw and b"E" not in raw:
        raw = raw.rstrip(b"0").rstrip(b".")
    return raw
