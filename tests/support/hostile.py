"""Texts a peer may choose to be taken for more than text, and what must not be left of them."""

from __future__ import annotations

import unicodedata

#: Each is acted upon by something that shows lines: a terminal, a reader of lines, a spreadsheet.
HOSTILE = {
    "clears the screen": "\x1b[2J\x1b[HHealthy: nothing found",
    "a line of its own": "bye\n2026-03-01T10:00:00.000Z connection established successfully {}",
    "returns and overwrites": "\r\x08\x7f\x00",
    "C1": "\x9b2J\x85\x9d0;title\x9c",
    "other ends of lines": "a\u2028b\u2029c\x0bd\x0ce\x1cf",
    "another order": "\u202egnp\u202c\u2066x\u2069\u200f\u061c",
    "no character at all": "\ud800",
}
#: Those that a controller can send: as UTF-8, and in JSON.
SENDABLE = {name: text for name, text in HOSTILE.items() if "\ud800" not in text}
_REORDER = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def acted_upon(text: str, keep: str = "\n") -> list[str]:
    """The characters of the text that are not shown but acted upon, without those of `keep`."""
    return [
        char
        for char in sorted(set(text))
        if char not in keep
        and (
            unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs")
            or unicodedata.bidirectional(char) in _REORDER
            or char in "\u200e\u200f\u061c"
        )
    ]
