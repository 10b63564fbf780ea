"""Basic credentials (RFC 7617), as a controller sends them without waiting for a challenge."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping


def credentials(authorization: str) -> tuple[str, str] | None:
    """Login and password of an ``Authorization`` value, or None if it is not well-formed Basic."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except ValueError:
        return None
    login, colon, password = text.partition(":")
    return (login, password) if colon else None


def permitted(users: Mapping[str, str], authorization: str | None) -> bool:
    """Whether the value names one of the users with the right password (constant-time compare)."""
    pair = credentials(authorization) if authorization else None
    if pair is None:
        return False
    expected = users.get(pair[0])
    # Compare even for an unknown login, so that timing does not tell which logins exist.
    same = hmac.compare_digest((expected or "").encode(), pair[1].encode())
    return same and expected is not None
