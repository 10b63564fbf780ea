"""Judging a confirmation the way a strict controller would (PTS-2 protocol 2.3).

Right is: the same ``Id`` in the same JSON type, the confirmation's ``Type``, ``Message`` "OK", no
``Error``. How forgiving real firmware is, is not known; what a server ought to send is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ptslink.simulator.packets import CONFIRMATION_TYPE, TAGS


@dataclass(frozen=True, slots=True)
class Verdict:
    """``why`` is ``None`` for a right confirmation, else what is wrong with it."""

    kind: str
    packet_id: int | str
    why: str | None = None
    came: str = ""


def shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def same_id(got: Any, sent: int | str) -> bool:
    """The same id in the same JSON type: ``7`` is not ``"7"``, ``7.0`` or ``true``."""
    return type(got) is type(sent) and bool(got == sent)


def is_confirmation(packet: Any) -> bool:
    """Whether *packet* answers something, as opposed to asking for something."""
    return isinstance(packet, dict) and not packet.keys().isdisjoint(("Message", "Error", "Code"))


def judge(packet: dict[str, Any], kind: str, packet_id: int | str, tags: list[str]) -> Verdict:
    """Judge the answer *packet* to our message of *kind* with *packet_id*."""

    def wrong(why: str) -> Verdict:
        came = shorten(json.dumps(packet, ensure_ascii=False, separators=(",", ":")))
        return Verdict(kind, packet_id, why, came)

    got = packet.get("Id")
    if not same_id(got, packet_id):
        return wrong(f"Id is {json.dumps(got)}, sent as {json.dumps(packet_id)}")
    if packet.get("Error"):
        code, message = packet.get("Code"), packet.get("Message")
        return wrong(f"an error: Code {code}, Message {message}")
    expected = CONFIRMATION_TYPE[kind]
    if packet.get("Type") != expected:
        return wrong(f"Type is {json.dumps(packet.get('Type'))}, must be {expected!r}")
    if packet.get("Message") != "OK":
        return wrong(f"Message is {json.dumps(packet.get('Message'))}, must be 'OK'")
    if kind == TAGS:
        data = packet.get("Data")
        listed = data.get("Tags") if isinstance(data, dict) else None
        answered = {
            entry.get("Tag"): entry.get("Valid")
            for entry in (listed if isinstance(listed, list) else [])
            if isinstance(entry, dict)
        }
        missing = [tag for tag in tags if not isinstance(answered.get(tag), bool)]
        if missing:
            return wrong(f"no Valid for the tags {missing}")
    return Verdict(kind, packet_id)
