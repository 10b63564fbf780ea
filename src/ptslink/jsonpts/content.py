"""All that a packet tells, to compare two copies of it: nothing that differs may be overlooked.

A natural key may take two packets for one fact; whether they say the same is decided here, by every
byte but those that are no part of a fact (PTS-2 protocol 2.4): the packet's Id, ConfigurationId,
the pairs of `...Uploaded` and `...Total` counters, order and white space. A message that is not the
JSON it should be is compared byte by byte.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from ptslink.jsonpts.envelope import MAX_PACKETS

_DIGEST_BYTES: Final = 16
#: An escape that may stand for the same character as a byte that is not UTF-8.
_ESCAPED_SURROGATE: Final = "\\ud"


class _Object(list[tuple[str, Any]]):
    """The members of a JSON object in their order, members that occur twice included."""


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


def _no_number(text: str) -> Any:
    raise ValueError(text)  # NaN and Infinity are no JSON


_decoder = json.JSONDecoder(
    object_pairs_hook=_Object,
    parse_float=_Number,
    parse_int=_Number,
    parse_constant=_no_number,
)


class Told:
    """What the packets of one message tell.

    Args:
        raw: the message as received.
        controller: whose it is; its own PtsId tells nothing.
    """

    def __init__(self, raw: bytes, controller: str) -> None:
        # Hashed once: the message may be long, and its packets many.
        self._whole = _hash(raw.strip())
        try:
            self._packets, self._envelope = _taken_apart(raw, controller)
        except (ValueError, RecursionError):
            self._packets, self._envelope = None, b""

    def content(self, index: int) -> bytes:
        """16 bytes that are the same for two packets exactly if they tell the same."""
        if self._packets is None or index >= len(self._packets):
            return self._whole
        try:
            told = _written(_packet(self._packets[index]))
        except RecursionError:
            return self._whole
        return _hash(self._envelope + told)


def _taken_apart(raw: bytes, controller: str) -> tuple[list[_Object] | None, bytes]:
    """The packets, and the digest of what stands beside them; no packets if it is not that clear.

    Raises:
        ValueError, RecursionError: it is not JSON, or too deep.
    """
    try:
        text = raw.strip().decode("utf-8")
    except UnicodeDecodeError:
        # Each byte that is not UTF-8 becomes a surrogate of its own: none is taken for another.
        text = raw.strip().decode("utf-8", "surrogateescape")
        if _ESCAPED_SURROGATE in text.lower():
            return None, b""
    message = _decoder.decode(text)
    if not isinstance(message, _Object):
        return None, b""
    packets = _last(message, "Packets")
    if (
        not isinstance(packets, list)
        or isinstance(packets, _Object)
        or len(packets) > MAX_PACKETS
        or not all(isinstance(packet, _Object) for packet in packets)
    ):
        return None, b""
    silent = {"Packets"}
    if _last(message, "Protocol") == "jsonPTS":
        silent.add("Protocol")
    named = _last(message, "PtsId")
    if isinstance(named, str) and named.upper() == controller:
        silent.add("PtsId")
    return packets, _hash(_written(_without_last(message, silent)))


def _packet(packet: _Object) -> _Object:
    if _last(packet, "Type") == "UploadConfiguration":
        return _without_last(packet, {"Id"})
    data = _last(packet, "Data")
    if not isinstance(data, _Object):
        return _without_last(packet, {"Id", "ConfigurationId"})
    told = _without_last(packet, {"Id", "ConfigurationId", "Data"})
    names = {name for name, _ in data}
    # One of a pair alone may be anything, in a Type that is not known yet.
    kinds = {name.removesuffix("Total") for name in names if name.endswith("Total")} & {
        name.removesuffix("Uploaded") for name in names if name.endswith("Uploaded")
    }
    silent = {"ConfigurationId"}
    silent |= {kind + suffix for kind in kinds for suffix in ("Total", "Uploaded")}
    told.append(("Data", _without_last(data, silent)))
    return told


def _last(members: list[tuple[str, Any]], name: str) -> Any:
    """The value of a member: of two with one name the last, as all readers here take it."""
    for found, value in reversed(members):
        if found == name:
            return value
    return None


def _without_last(members: _Object, names: set[str]) -> _Object:
    """The members without the last one of each of the names."""
    left = set(names)
    kept = _Object()
    for member in reversed(members):
        if member[0] in left:
            left.remove(member[0])
        else:
            kept.append(member)
    kept.reverse()
    return kept


def _written(value: Any) -> bytes:
    return repr(_canonical(value)).encode("utf-8", "surrogatepass")


def _canonical(value: Any) -> Any:
    """The same for two values exactly if they are the same, members in any order."""
    if isinstance(value, _Object):
        members = [(name, _canonical(member)) for name, member in value]
        # Sorted by name alone, and stably: of two members with one name, the order tells.
        return ("o", sorted(members, key=_name))
    if isinstance(value, list):
        return [_canonical(member) for member in value]
    if isinstance(value, _Number):
        text = str(value)
        if "." in text and "e" not in text and "E" not in text:
            text = text.rstrip("0").rstrip(".")
        return ("n", text)
    return value


def _name(member: tuple[str, Any]) -> str:
    return member[0]


def _hash(told: bytes) -> bytes:
    return hashlib.blake2b(told, digest_size=_DIGEST_BYTES).digest()
