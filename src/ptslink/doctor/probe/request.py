"""The bytes of a request: a controller's Upgrade, header for header, and a plain GET.

Order and spelling are those of the official handshake example (PTS-2 protocol 1.1): Host,
Authorization, Origin, Upgrade, Connection, Sec-WebSocket-Key, X-Pts-Id,
X-Pts-Firmware-Version-DateTime, X-Pts-Configuration-Identifier, Sec-WebSocket-Version.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

Header = tuple[str, str]

#: Controller ids that begin with these sixteen zeros are reserved for probes. A real id is a
#: chip's serial number and never begins so; a server may tell by it that no station is calling.
PROBE_ID_PREFIX = "0" * 16

PROBE_FIRMWARE = "26-01-01T00:00:00"
PROBE_CONFIGURATION = "0"


def new_probe_id() -> str:
    """A reserved controller id: the prefix and eight random hex digits.

    They differ from call to call, because a server rightly replaces an older connection of the
    same id, and two probes at once must not cut each other off.
    """
    return PROBE_ID_PREFIX + secrets.token_hex(4).upper()


def read_controller_id(text: str) -> str:
    """*text* where it is a controller's id, else ``ValueError``."""
    if not (0 < len(text) <= 24 and all(c in "0123456789abcdefABCDEF" for c in text)):
        raise ValueError(f"{text!r} is not an id of 1 to 24 hex digits")
    return text


def read_credentials(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """``user:password`` out of the environment variable *name*, else ``ValueError``.

    A command line is seen by everybody on the machine and kept in histories.
    """
    credentials = environment.get(name, "")
    if ":" not in credentials:
        raise ValueError(f"--basic-env {name}: the environment variable must hold user:password")
    return credentials


def new_key() -> str:
    """A ``Sec-WebSocket-Key``: 16 random bytes, base64 (RFC 6455 4.1)."""
    return base64.b64encode(secrets.token_bytes(16)).decode("ascii")


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request head before it becomes bytes; every part may be bent by a deviation."""

    method: str
    path: str
    headers: tuple[Header, ...]
    version: str = "HTTP/1.1"
    line_end: str = "\r\n"
    body: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """The bytes that go on the wire, the empty line and the body included."""
        lines = [f"{self.method} {self.path} {self.version}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        text = self.line_end.join([*lines, "", ""])
        return text.encode("utf-8", "surrogateescape") + self.body

    def without(self, *names: str) -> RequestHead:
        """The same head without the headers *names* (any case)."""
        dropped = {name.lower() for name in names}
        kept = tuple(h for h in self.headers if h[0].lower() not in dropped)
        return replace(self, headers=kept)

    def with_value(self, name: str, value: str) -> RequestHead:
        """The same head with *value* in header *name*, in its old place or else at the end."""
        changed = [(n, value if n.lower() == name.lower() else v) for n, v in self.headers]
        if all(n.lower() != name.lower() for n, _ in self.headers):
            changed.append((name, value))
        return replace(self, headers=tuple(changed))


def basic(credentials: str) -> str:
    """The value of ``Authorization`` for ``user:password`` (RFC 7617)."""
    return "Basic " + base64.b64encode(credentials.encode("utf-8")).decode("ascii")


def upgrade_head(
    *,
    authority: str,
    path: str,
    key: str,
    origin: str | None,
    controller_id: str | None,
    firmware: str | None = PROBE_FIRMWARE,
    configuration: str | None = PROBE_CONFIGURATION,
    credentials: str | None = None,
) -> RequestHead:
    """A controller's Upgrade request; a part given as ``None`` is left out."""
    parts: Iterable[tuple[str, str | None]] = (
        ("Host", authority),
        ("Authorization", basic(credentials) if credentials is not None else None),
        ("Origin", origin),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("X-Pts-Id", controller_id),
        ("X-Pts-Firmware-Version-DateTime", firmware),
        ("X-Pts-Configuration-Identifier", configuration),
        ("Sec-WebSocket-Version", "13"),
    )
    headers = tuple((name, value) for name, value in parts if value is not None)
    return RequestHead("GET", path, headers)


def plain_get_head(authority: str, path: str) -> RequestHead:
    """A GET without Upgrade, as a browser or a monitoring system would send it."""
    return RequestHead(
        "GET",
        path,
        (("Host", authority), ("User-Agent", "ptslink-probe"), ("Connection", "close")),
    )
