"""What a probe is aimed at: a ``ws://`` or ``wss://`` URL, taken apart."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORTS = {"ws": 80, "wss": 443}


class TargetError(ValueError):
    """The URL cannot be probed; the text names the part, its value and what is accepted."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server as a controller is told about it: scheme, host, port and URI."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def tls(self) -> bool:
        return self.scheme == "wss"

    @property
    def authority(self) -> str:
        """``host:port``, as a controller writes it in ``Host`` (the port is always there)."""
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def bracketed(host: str) -> str:
    """An IPv6 literal in brackets, anything else as it is (RFC 3986 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def is_address(host: str) -> bool:
    """Whether *host* is an IP literal, so that there is no name to resolve or to send as SNI."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def parse_target(url: str) -> Target:
    """Take *url* apart.

    Raises:
        TargetError: not a ws/wss URL with a host, or a port that is no port.
    """
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        shown = parts.scheme or url
        raise TargetError(
            f"URL {url!r}: scheme {shown!r} is not accepted; use ws:// or wss://, "
            "for example ws://192.0.2.1:3000/ptsWebSocket"
        )
    if not parts.hostname:
        raise TargetError(f"URL {url!r}: no host; use for example ws://192.0.2.1:3000/ptsWebSocket")
    if parts.username is not None:
        raise TargetError(
            f"URL {parts.scheme}://...@{parts.hostname}: a login does not belong in the URL, "
            "where it is logged; give it by the option for it"
        )
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise TargetError(f"URL {url!r}: the port must be a number from 1 to 65535")
    if any(ord(c) <= 0x20 or ord(c) == 0x7F for c in url):
        raise TargetError(f"URL {url!r}: spaces and control characters are not accepted")
    path = parts.path or "/"
    if parts.query:
        path += "?" + parts.query
    return Target(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme], path)
