"""The controller's signatures: HMAC-SHA256, base64 (PTS-2 protocol 1.2 and 2.5)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

#: The X-DateTime line with its CRLF: the last thing the handshake signature covers.
_DATETIME_LINE = re.compile(rb"^x-datetime:[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)


def sign(secret: str, payload: bytes) -> str:
    """The base64 signature of the payload bytes, exactly as they are sent."""
    digest = hmac.digest(secret.encode("utf-8"), payload, hashlib.sha256)
    return base64.b64encode(digest).decode("ascii")


def verify(secret: str, payload: bytes, signature: str) -> bool:
    """Whether the signature is the payload's, compared in constant time."""
    return hmac.compare_digest(sign(secret, payload).encode(), signature.encode("utf-8"))


def signed_part(raw_head: bytes) -> bytes | None:
    """What a handshake signature covers: the request line up to the end of the X-DateTime line.

    None when the head has no X-DateTime line ended by CRLF.
    """
    found = _DATETIME_LINE.search(raw_head)
    return raw_head[: found.end()] if found else None
