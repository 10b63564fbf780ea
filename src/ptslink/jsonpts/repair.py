"""Second-chance reading of JSON that firmware got wrong (PTS-2 protocol 2.1, quirk 11).

Seen in the field: trailing commas, bytes after the closing brace, a missing comma between members.
Strings are never touched: every repair walks over them whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

TRAILING_COMMA: Final = "trailing-comma"
MISSING_COMMA: Final = "missing-comma"
TRAILING_BYTES: Final = "trailing-bytes"
LEADING_BYTES: Final = "leading-bytes"
NOT_UTF8: Final = "not-utf8"
CONTROL_CHARACTER: Final = "control-character-in-string"
#: Note: only Id and Type could be made out.
FISHED: Final = "fished"

# Nothing here is scanned twice, whatever a stranger sends: quantifiers are possessive, and a string
# that never ends reaches to the end of the text. Otherwise 128 KB of quotes take minutes.
_STRING = rb'"(?:[^"\\]++|\\.)*+"?'
_SCALAR = rb"(?:-?\d[\d.eE+-]*+|true|false|null)"
# A comma followed by a closing bracket, or a value followed by a key without a comma.
_TRAILING = re.compile(rb"(" + _STRING + rb")|,(?=\s*+[}\]])", re.DOTALL)
# The last alternative takes what needs no mending whole, so that no search begins inside it.
_MISSING = re.compile(
    rb"(" + _STRING + rb"\s*+:)|((?:" + _STRING + rb"|" + _SCALAR + rb"|[}\]])\s*+)(?="
    rb"(?:" + _STRING + rb"\s*+:|\{))|(" + _STRING + rb"|" + _SCALAR + rb")",
    re.DOTALL,
)
_BRACKETS = re.compile(rb"(" + _STRING + rb")|[{}\[\]]", re.DOTALL)
_WHOLE_STRING = re.compile(_STRING, re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f]")

_ID = rb'"Id"\s*:\s*(-?(?:0|[1-9]\d{0,19})(?![\d.eE])|"[ !#-\[\]-~]{0,60}")'
_TYPE = rb'"Type"\s*:\s*"([A-Za-z][A-Za-z0-9_]{0,63})"'
_EITHER = re.compile(_ID + rb"|" + _TYPE)
_PTS_ID = re.compile(rb'"PtsId"\s*:\s*"([0-9A-Fa-f]{1,24})"')


@dataclass(slots=True)
class Fished:
    """What regular expressions found in a text that no parser reads."""

    controller: str = ""
    packets: list[tuple[bytes, str]] = field(default_factory=list)


def as_utf8(payload: bytes, code_page: str = "") -> bytes:
    """A text that is not UTF-8 as UTF-8: a fuel grade named in a national code page must not cost
    the sale.

    Args:
        code_page: the codec it is decoded by; without one, U+FFFD stands for what is not UTF-8.
    """
    return payload.decode(code_page or "utf-8", "replace").encode("utf-8", "replace")


def repair(payload: bytes) -> tuple[bytes, list[str]]:
    """A best effort at making the payload parse: (bytes to try, names of the repairs made)."""
    notes: list[str] = []
    text = payload
    for name, mend in _MENDS:
        mended = mend(text)
        if mended != text:
            notes.append(name)
            text = mended
    return text, notes


def fish(payload: bytes) -> Fished:
    """Find PtsId and pairs of Id and Type by their look, in any text."""
    fished = Fished()
    found = _PTS_ID.search(payload)
    if found:
        fished.controller = found[1].decode("ascii")
    id_: bytes | None = None
    type_: str | None = None
    for match in _EITHER.finditer(payload):
        if match[1] is not None:
            id_ = match[1]
        else:
            type_ = match[2].decode("ascii")
        if id_ is not None and type_ is not None:
            fished.packets.append((id_, type_))
            id_ = type_ = None
    return fished


def _end_of_object(text: bytes) -> int:
    """Index after the brace that closes the first object, or 0 if it is never closed."""
    depth = 0
    for match in _BRACKETS.finditer(text):
        if match[1] is not None:
            continue
        mark = match[0]
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
            if depth <= 0:
                return match.end()
    return 0


def _from_first_brace(text: bytes) -> bytes:
    return text[max(text.find(b"{"), 0) :]


def _to_last_brace(text: bytes) -> bytes:
    end = _end_of_object(text)
    rest = text[end:]
    return text[:end] if end and rest.strip(b"\r\n\t \x00") else text.rstrip(b"\x00")


def _without_trailing_commas(text: bytes) -> bytes:
    return _TRAILING.sub(lambda m: m[1] or b"", text)


def _with_missing_commas(text: bytes) -> bytes:
    return _MISSING.sub(lambda m: m[1] or m[3] or m[2].rstrip() + b",", text)


def _without_controls(text: bytes) -> bytes:
    return _WHOLE_STRING.sub(lambda m: _CONTROL.sub(b" ", m[0]), text)


_MENDS: Final[tuple[tuple[str, Callable[[bytes], bytes]], ...]] = (
    (LEADING_BYTES, _from_first_brace),
    (TRAILING_BYTES, _to_last_brace),
    (TRAILING_COMMA, _without_trailing_commas),
    (MISSING_COMMA, _with_missing_commas),
    (CONTROL_CHARACTER, _without_controls),
)
