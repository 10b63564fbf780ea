"""Text from outside, made safe for a log line, a terminal or a table. Pure.

Whatever a peer chose (a close reason, a header, a packet Type, a name in evidence) passes through
here where it leaves: neither a second line nor a command to a terminal can come of it.
"""

from __future__ import annotations

import re
from typing import Final

#: C0, DEL and C1 (ECMA-48); the line and paragraph separators; the marks, embeddings, overrides and
#: isolates that reorder what is shown (Unicode Standard Annex #9, section 2); lone surrogates,
#: which no encoder takes.
_UNSEEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str, *, keep: str = "") -> str:
    r"""The text with every character that is not seen but acted upon as ``\uXXXX``.

    That form is JSON's own, so a JSON text in one line stays the same JSON. A backslash that was
    there before is left alone.

    Args:
        keep: characters the sink needs as they are, such as ``"\n"`` between lines of a report.
    """
    # All of the above are unprintable; to ask is far cheaper than to search.
    if text.isprintable():
        return text
    return _UNSEEN.sub(
        lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text
    )
