"""The Sec-WebSocket-Accept value (RFC 6455 section 4.2.2, step 5.4)."""

from __future__ import annotations

import base64
import hashlib

#: The constant RFC 6455 section 1.3 appends to every key.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_value(key: str) -> str:
    """The accept value for a ``Sec-WebSocket-Key``, taken as the text it was sent as.

    The key is not decoded: a key that is not 16 bytes of base64 has an accept value too, which is
    what lets a lenient server answer it.
    """
    digest = hashlib.sha1(key.encode("latin-1") + GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")
