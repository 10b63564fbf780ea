"""The handshake bytes of a controller, byte for byte (PTS-2 protocol 1.1 and 1.2)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from ptslink.doctor.probe.request import RequestHead, upgrade_head

#: What the controller's own web page lets an operator enter (PTS-2 protocol 1.1, 1.2 and 6.17).
LIMITS = {"login": 10, "password": 10, "secret": 20, "uri": 40, "domain": 30}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The "Server user" chosen in the controller, sent as Basic."""

    login: str
    password: str


@dataclass(frozen=True, slots=True)
class Identity:
    """What a controller says of itself in every handshake."""

    controller_id: str
    #: As real units send it: a two-digit year, no zone.
    firmware: str = "25-01-06T23:59:14"
    #: Up to eight lower-case hex digits, leading zeros dropped.
    configuration_id: str = "699c8c2"
    credentials: Credentials | None = None
    #: Signs the head when set; at most 20 characters.
    secret: str | None = None


def check_limit(name: str, value: str, *, exempt: bool = False) -> str | None:
    """What is wrong with an entry of the controller's own settings, or ``None``."""
    limit = LIMITS[name]
    if not value.isascii() or not value.isprintable():
        return f"{name}: only printable ASCII can be entered in the controller"
    if len(value) > limit and not exempt:
        return f"{name}: {len(value)} characters, the controller takes at most {limit}"
    return None


def weak_key(rng: random.Random) -> str:
    """A key like the official example's: four little-endian 32-bit words, each below 256."""
    words = [rng.randrange(256) for _ in range(4)]
    return base64.b64encode(struct.pack("<4I", *words)).decode("ascii")


def random_key(rng: random.Random) -> str:
    """A key of 16 random bytes."""
    return base64.b64encode(rng.randbytes(16)).decode("ascii")


def signature(secret: str, signed: bytes) -> str:
    """``X-Data-Signature``: Base64 of HMAC-SHA256 over *signed* (PTS-2 protocol 1.2)."""
    digest = hmac.new(secret.encode("utf-8"), signed, hashlib.sha256).digest()
    return base64.b64encode(digest).decode("ascii")


def signed_head(head: RequestHead, secret: str, local_time: datetime) -> RequestHead:
    """*head* with ``X-DateTime`` and, last, the signature over everything up to its CRLF."""
    stamped = head.with_value("X-DateTime", local_time.isoformat(timespec="seconds"))
    covered = stamped.encode()[: -len(head.line_end)]
    return stamped.with_value("X-Data-Signature", signature(secret, covered))


def handshake_head(
    identity: Identity,
    *,
    authority: str,
    path: str,
    own_address: str,
    key: str,
    local_time: datetime,
    bends: Iterable[Callable[[RequestHead], RequestHead]] = (),
) -> RequestHead:
    """The Upgrade request of a controller at *own_address*; *local_time* is its own clock's.

    ``bends`` change the head before it is signed: a firmware signs what it sends.
    """
    credentials = identity.credentials
    head = upgrade_head(
        authority=authority,
        path=path,
        key=key,
        origin=f"http://[{own_address}]" if ":" in own_address else f"http://{own_address}",
        controller_id=identity.controller_id,
        firmware=identity.firmware,
        configuration=identity.configuration_id,
        credentials=f"{credentials.login}:{credentials.password}" if credentials else None,
    )
    for bend in bends:
        head = bend(head)
    return signed_head(head, identity.secret, local_time) if identity.secret else head
