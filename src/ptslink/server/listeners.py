"""Making listening sockets, with errors that say what to do."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ptslink.server.config import Config

#: Connections that may wait to be accepted: what ptslink.socket asks for too, since asyncio calls
#: listen(2) again on the socket it is handed. The kernel takes no more than net.core.somaxconn.
BACKLOG: Final = 4096


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


@dataclass(slots=True)
class Listeners:
    """Every listening socket of a server, by what is spoken on it."""

    link: list[socket.socket] = field(default_factory=list)
    tls: list[socket.socket] = field(default_factory=list)
    admin: list[socket.socket] = field(default_factory=list)
    unix: socket.socket | None = None

    def ports(self) -> tuple[int, int, int]:
        """The TCP ports of link, TLS and admin; 0 where there is none."""
        link, tls, admin = (
            int(sockets[0].getsockname()[1]) if sockets else 0
            for sockets in (self.link, self.tls, self.admin)
        )
        return link, tls, admin

    def close(self) -> None:
        """Close them all."""
        for item in (*self.link, *self.tls, *self.admin):
            item.close()
        if self.unix is not None:
            self.unix.close()


def obtain(config: Config, inherited: Sequence[tuple[str, socket.socket]]) -> Listeners:
    """Take the sockets systemd handed over, by their ports, and make those that are missing.

    A handed-over socket with neither the TLS nor the admin port is the link's.

    Raises:
        ListenError: a socket cannot be had; those made are closed.
    """
    found = Listeners()
    for _, item in inherited:
        if item.family == socket.AF_UNIX:
            found.unix = item
        elif config.tls.port and item.getsockname()[1] == config.tls.port:
            found.tls.append(item)
        elif config.admin.port and item.getsockname()[1] == config.admin.port:
            found.admin.append(item)
        else:
            found.link.append(item)
    try:
        found.link = found.link or listen_all(config.listen.addresses, config.listen.port)
        if config.tls.port and not found.tls:
            found.tls = listen_all(config.listen.addresses, config.tls.port)
        found.admin = found.admin or [listen(config.admin.address, config.admin.port)]
        if found.unix is None and config.admin.socket is not None:
            found.unix = listen_unix(config.admin.socket)
    except ListenError:
        found.close()
        raise
    return found


def listen_unix(path: Path) -> socket.socket:
    """A listening Unix socket for the owner and the group; one left behind is replaced.

    Raises:
        ListenError: it cannot be made, or another process listens on it.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o750, exist_ok=True)
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise ListenError(f"another process listens on {path}")
            path.unlink()
        before = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(16)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from error
    except ListenError:
        listener.close()
        raise
    return listener


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
