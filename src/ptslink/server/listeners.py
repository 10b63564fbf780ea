"""Making listening sockets, with errors that say what to do."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final

BACKLOG: Final = 1024


class ListenError(Exception):
    """A socket cannot be had; the text names address, port and what to do."""


def listen(address: str, port: int) -> socket.socket:
    """A listening TCP socket. An IPv6 one takes IPv6 alone, so that it can stand beside IPv4.

    Raises:
        ListenError: the address cannot be had.
    """
    version = ipaddress.ip_address(address).version
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ListenError(_explain(address, port, error)) from error
    return listener


def listen_all(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Listen on every address. A machine without IPv6 does without ``::`` if there is IPv4.

    With port 0 the first socket's port is used for all.

    Raises:
        ListenError: an address cannot be had; sockets already made are closed.
    """
    made: list[socket.socket] = []
    try:
        for address in addresses:
            try:
                listener = listen(address, port)
            except ListenError as error:
                cause = error.__cause__
                unavailable = isinstance(cause, OSError) and cause.errno in (
                    errno.EAFNOSUPPORT,
                    errno.EADDRNOTAVAIL,
                )
                if address == "::" and unavailable and len(addresses) > 1:
                    continue
                raise
            made.append(listener)
            port = port or listener.getsockname()[1]
    except ListenError:
        for listener in made:
            listener.close()
        raise
    return made


def _explain(address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {address} is already in use; "
            f"see who has it with: ss -ltnp 'sport = :{port}'"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges; use one from 1024 up, or socket activation"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is not an address of this machine"
    return f"cannot listen on {address} port {port}: {error.strerror}"
