"""What to answer to a packet (PTS-2 protocol 2.3, grade S).

A confirmation is ``{"Id":<as received>,"Type":"<same>","Message":"OK"}`` inside the envelope, in
compact JSON with Id first, since the firmware reads members in order. Built from bytes: the Id is
echoed exactly as it came, be it a number or a string.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Raw

from ptslink.jsonpts.envelope import Packet

#: The firmware's input buffer is 16 KB (PTS-2 protocol 1.3); stay well under it.
MAX_ANSWER_BYTES: Final = 15_000
#: The firmware reads at most 600 JSON tokens (PTS-2 protocol 1.3); a name and its value are two.
MAX_ANSWER_TOKENS: Final = 550
#: Tags answered in one packet, at five tokens each. No controller asks for as many; those beyond
#: get no answer, which authorises nobody.
MAX_TAGS: Final = 100
_MAX_TAG_BYTES: Final = 100

#: Code of the error confirmation when a message could not be stored. Outside the range of the
#: controller's own codes (1 to 118), so that neither side takes it for another fault.
NOT_STORED: Final = 500
NOT_STORED_TEXT: Final = "Not stored, please send again"

_PREFIX = b'{"Protocol":"jsonPTS","Packets":['
_SUFFIX = b"]}"


class _Tag(msgspec.Struct, gc=False):
    Tag: Raw = Raw(b'""')


class _TagsRequest(msgspec.Struct, gc=False):
    Tags: list[_Tag] = []


_tags_request = msgspec.json.Decoder(_TagsRequest)


def is_upload(type_: str) -> bool:
    """Whether packets of this Type are confirmed; types not known yet included (quirk 9)."""
    return type_.startswith("Upload")


def expects_answer(packet: Packet) -> bool:
    """Whether the controller waits for an answer to this packet and one can be addressed to it."""
    return bool(packet.id) and (is_upload(packet.type) or packet.type == "RequestTagsInformation")


def confirm(packet: Packet) -> bytes:
    """The packet of a positive answer."""
    if packet.type == "RequestTagsInformation":
        return _refuse_tags(packet)
    return b'{"Id":%b%b' % (packet.id, _confirmed(packet.type))


def refuse(packet: Packet, text: str = NOT_STORED_TEXT) -> bytes:
    """The packet of an error answer. It makes the controller send the message again, so it is for
    what was not stored alone (quirk 10).

    Args:
        text: why, for a person who reads the controller's log.
    """
    return b'{"Id":%b,"Type":%b,"Error":true,"Code":%d,"Message":%b}' % (
        packet.id,
        _quoted(packet.type),
        NOT_STORED,
        _quoted(text),
    )


def messages(packets: Iterable[bytes]) -> list[bytes]:
    """Wrap answer packets into as few messages as the controller can read, in order."""
    batch = list(packets)
    if len(batch) == 1:
        return [_PREFIX + batch[0] + _SUFFIX]
    return _wrap(batch)


def _wrap(packets: Iterable[bytes]) -> list[bytes]:
    wrapped: list[bytes] = []
    batch: list[bytes] = []
    size = tokens = 0
    for packet in packets:
        size += len(packet) + 1
        tokens += _tokens(packet)
        if batch and (size > MAX_ANSWER_BYTES or tokens > MAX_ANSWER_TOKENS):
            wrapped.append(_PREFIX + b",".join(batch) + _SUFFIX)
            batch, size, tokens = [], len(packet) + 1, _tokens(packet)
        batch.append(packet)
    if batch:
        wrapped.append(_PREFIX + b",".join(batch) + _SUFFIX)
    return wrapped


def _tokens(packet: bytes) -> int:
    """JSON tokens of an answer packet; a few too many where a text holds such characters."""
    return 2 * packet.count(b":") + packet.count(b"{") + packet.count(b"[")


def answers(packets: Sequence[Packet], *, stored: bool, text: str = NOT_STORED_TEXT) -> list[bytes]:
    """The messages that answer the packets of one message: one packet each, same order.

    Args:
        text: why the message is not stored, where it is not.
    """
    if stored and len(packets) == 1 and packets[0].type != "RequestTagsInformation":
        # Nearly every message is one packet; the general way below comes to the same.
        (packet,) = packets
        if not expects_answer(packet):
            return []
        return [b'%b{"Id":%b%b]}' % (_PREFIX, packet.id, _confirmed(packet.type))]
    return messages(
        [
            confirm(packet) if stored else refuse(packet, text)
            for packet in packets
            if expects_answer(packet)
        ]
    )


def _refuse_tags(packet: Packet) -> bytes:
    """Answer every requested tag with Valid false, as far as the controller can read the answer.

    Never authorise by default: a tag answered valid without AccountType or Balance would authorise
    the pump without limit (PTS-2 protocol 2.3).
    """
    try:
        tags = _tags_request.decode(packet.data).Tags if packet.data else []
    except (msgspec.DecodeError, UnicodeDecodeError):
        tags = []
    names = [name for tag in tags if len(name := bytes(tag.Tag)) <= _MAX_TAG_BYTES]
    listed = b",".join(b'{"Tag":%b,"Valid":false}' % name for name in names[:MAX_TAGS])
    return b'{"Id":%b,"Type":"TagsInformation","Message":"OK","Data":{"Tags":[%b]}}' % (
        packet.id,
        listed,
    )


@lru_cache(maxsize=256)
def _confirmed(type_: str) -> bytes:
    """What follows the Id in a positive answer."""
    return b',"Type":%b,"Message":"OK"}' % _quoted(type_)


def _quoted(text: str) -> bytes:
    return msgspec.json.encode(text)
