"""Bytes to and from the server over asyncio, plain and TLS, and the ways to go away."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import ssl
import struct
from collections.abc import Iterator

from ptslink.simulator.manner import Leave

#: Linux: detach a socket from its connection without telling the other side; needs CAP_NET_ADMIN.
TCP_REPAIR = 19
SO_ATTACH_FILTER = 26
#: A classic BPF program of one instruction: keep 0 bytes of what arrives, that is drop it.
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)

HANDSHAKE_RECORD, ALERT_RECORD = 22, 21
CERTIFICATE = 11


class Link:
    """A connection. Reading gives b"" at the end, as asyncio's streams do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def own_address(self) -> str:
        return str(self._writer.get_extra_info("sockname")[0])

    async def read(self) -> bytes:
        return await self._reader.read(65536)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def half_close(self) -> None:
        """End the sending side; raises ``OSError`` for TLS, which has no such thing."""
        self._writer.write_eof()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()

    def leave(self, how: Leave) -> bool:
        """Go away in the way given; True when the socket must stay open to stay silent.

        A reboot without the right to use TCP_REPAIR is left as a ghost: no FIN either.
        """
        sock: socket.socket = self._writer.get_extra_info("socket")
        if how == "fin":
            self._writer.close()
            return False
        if how == "rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
            return False
        if how == "reboot" and self._forget(sock):
            return False
        program = ctypes.create_string_buffer(DROP_ALL)
        pointer = struct.pack("HL", 1, ctypes.addressof(program))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, pointer)
        return True

    def bury(self) -> None:
        """Let a ghost's socket go, in silence where that is allowed, else by a RST."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        if not self._forget(sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()

    def _forget(self, sock: socket.socket) -> bool:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except OSError:
            return False
        self._writer.transport.abort()
        return True


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole TLS records in *data*: content type and fragment (RFC 5246 6.2.1)."""
    while len(data) >= 5:
        size = int.from_bytes(data[3:5], "big")
        if len(data) < 5 + size:
            return
        yield data[0], data[5 : 5 + size]
        data = data[5 + size :]


def largest_record(data: bytes) -> int:
    """The announced size of the largest record that begins in *data*."""
    largest = 0
    while len(data) >= 5:
        size = int.from_bytes(data[3:5], "big")
        largest, data = max(largest, size), data[5 + size :]
    return largest


def certificate_came(data: bytes) -> bool:
    """Whether a server's flight of TLS 1.2 holds its Certificate message (RFC 5246 7.4)."""
    stream = b"".join(part for kind, part in records(data) if kind == HANDSHAKE_RECORD)
    while len(stream) >= 4:
        size = int.from_bytes(stream[1:4], "big")
        if stream[0] == CERTIFICATE:
            return len(stream) >= 4 + size
        stream = stream[4 + size :]
    return False


def fatal_alert(number: int) -> bytes:
    """An alert record in clear, as a TLS 1.2 client sends it during the handshake."""
    return bytes((ALERT_RECORD, 3, 3, 0, 2, 2, number))


class AlertSent(OSError):
    """The device ended the connection by a TLS alert of its own; the text gives the number."""


class TlsLink(Link):
    """TLS over a plain link, in the open, so that every alert of the device's reaches the wire.

    asyncio's own TLS drops the connection without the alert that says why. Here what arrives can
    also be looked at before the library does, to object as a device of small means would.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        context: ssl.SSLContext,
        server_name: str | None,
        *,
        alert: int | None = None,
        record_bytes: int | None = None,
        record_alert: bool = True,
    ) -> None:
        super().__init__(reader, writer)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._alert, self._record_bytes, self._record_alert = alert, record_bytes, record_alert
        #: What came since the last record that was whole.
        self._seen = b""

    async def handshake(self) -> None:
        """Raises ``AlertSent`` when the device objects, else what TLS raises."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    await self._flush()  # the library's own alert
                raise
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            await super().write(data)

    async def _fill(self) -> None:
        data = await super().read()
        if not data:
            self._incoming.write_eof()
            return
        self._seen += data
        if self._record_bytes is not None:
            size = largest_record(self._seen)
            if size > self._record_bytes:
                if not self._record_alert:
                    raise OSError(f"a TLS record of {size} bytes is too large")
                await super().write(fatal_alert(22))
                raise AlertSent(f"sent TLS alert 22: a record of {size} bytes is too large")
        if self._alert is not None and certificate_came(self._seen):
            await super().write(fatal_alert(self._alert))
            raise AlertSent(f"sent TLS alert {self._alert} at the server's certificate")
        if self._alert is None:
            whole = sum(5 + len(part) for _, part in records(self._seen))
            self._seen = self._seen[whole:]
        self._incoming.write(data)

    async def read(self) -> bytes:
        while True:
            try:
                return self._tls.read(65536)
            except ssl.SSLWantReadError:
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    async def write(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    def half_close(self) -> None:
        raise OSError("a TLS connection cannot be half closed")

    async def close(self) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            self._tls.unwrap()
        with contextlib.suppress(OSError):
            await self._flush()
        await super().close()
