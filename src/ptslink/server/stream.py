"""TCP connections straight on the event loop's readiness calls.

asyncio's own server makes a task, a future and half a dozen loop turns for every connection it
accepts, which is most of the time of a handshake. Here a connection is served in the turn it came
in. To a protocol a `Stream` is an asyncio transport, as far as `ptslink.server.front` uses one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Any, Final

#: Connections accepted before others get their turn.
_ACCEPT_AT_ONCE: Final = 64
#: Seconds until the next try where the system has no descriptor or memory for a connection.
_ACCEPT_AGAIN: Final = 1.0
_SCARCE: Final = (EMFILE, ENFILE, ENOBUFS, ENOMEM)
#: Bytes waiting to be sent at which the protocol is told to pause, and to go on.
_HIGH: Final = 65_536
_LOW: Final = 16_384


class Acceptor:
    """Accepts the connections of one listening socket.

    Args:
        loop: an event loop with readiness calls.
        listener: listening and non-blocking; closed by `close`.
        make: makes the protocol of a connection.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        make: Callable[[], asyncio.BufferedProtocol],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._make = make
        self._open = True
        # What is accepted inherits it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Accept no more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                accepted, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SCARCE:
                    raise
                # The same words as asyncio's: they are what people search for.
                self._loop.call_exception_handler(
                    {"message": "socket.accept() out of system resource", "exception": error}
                )
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_ACCEPT_AGAIN, self._go_on)
                return
            Stream(self._loop, accepted, peer, self._make())

    def _go_on(self) -> None:
        if self._open:
            self._loop.add_reader(self._listener, self._accept)


class Stream:
    """One accepted connection: a transport for a buffered protocol."""

    __slots__ = (
        "_closing",
        "_ended",
        "_loop",
        "_number",
        "_paused",
        "_peer",
        "_protocol",
        "_socket",
        "_waiting",
        "_write_paused",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        accepted: socket.socket,
        peer: Any,
        protocol: asyncio.BufferedProtocol,
    ) -> None:
        self._loop = loop
        self._socket = accepted
        # The loop is given the number: of a socket it first makes a text, which asks the kernel.
        self._number = accepted.fileno()
        self._peer = peer
        self._protocol = protocol
        self._closing = self._ended = self._paused = self._write_paused = False
        self._waiting: bytearray | None = None
        accepted.setblocking(False)
        loop.add_reader(self._number, self._readable)
        try:
            protocol.connection_made(self)  # type: ignore[arg-type]
        except Exception as error:
            self._fail(error, "a connection could not be begun")

    # What a protocol calls.

    def get_extra_info(self, name: str) -> Any:
        """``peername`` and ``socket``."""
        return {"peername": self._peer, "socket": self._socket}.get(name)

    def is_closing(self) -> bool:
        """Whether the connection is closed or on its way there."""
        return self._closing

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""
        if not self._paused and not self._closing:
            self._paused = True
            self._loop.remove_reader(self._number)

    def resume_reading(self) -> None:
        """Read again."""
        if self._paused and not self._closing:
            self._paused = False
            self._loop.add_reader(self._number, self._readable)

    def write(self, data: bytes) -> None:
        """Send the bytes, now as far as the kernel takes them, the rest when it can."""
        if self._closing:
            return
        if self._waiting is None:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._lose(error)
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._waiting = bytearray()
            self._loop.add_writer(self._number, self._writable)
        self._waiting += data
        if len(self._waiting) > _HIGH and not self._write_paused:
            self._write_paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """TCP has a half-close."""
        return True

    def write_eof(self) -> None:
        """End our side once everything is sent."""
        if not self._ended and not self._closing:
            self._ended = True
            if self._waiting is None:
                self._shut_down()

    def close(self) -> None:
        """Close the connection once everything is sent."""
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._number)
            if self._waiting is None:
                self._loop.call_soon(self._finish, None)

    def abort(self) -> None:
        """Close the connection now; what is not sent is lost."""
        self._lose(None)

    # What the loop calls.

    def _readable(self) -> None:
        protocol = self._protocol
        try:
            count = self._socket.recv_into(protocol.get_buffer(-1))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        try:
            if count:
                protocol.buffer_updated(count)
            elif protocol.eof_received():
                self._loop.remove_reader(self._number)
            elif self._waiting is None and not self._closing:
                self._closing = True
                self._loop.remove_reader(self._number)
                self._finish(None)
            else:
                self.close()
        except Exception as error:
            self._fail(error, "a connection's protocol failed")

    def _writable(self) -> None:
        waiting = self._waiting
        assert waiting is not None
        try:
            del waiting[: self._socket.send(waiting)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        if self._write_paused and len(waiting) <= _LOW:
            self._write_paused = False
            self._protocol.resume_writing()
        if waiting or self._waiting is None:
            return
        self._waiting = None
        self._loop.remove_writer(self._number)
        if self._closing:
            self._finish(None)
        elif self._ended:
            self._shut_down()

    def _shut_down(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lose(error)

    def _fail(self, error: Exception, what: str) -> None:
        self._loop.call_exception_handler(
            {"message": what, "exception": error, "protocol": self._protocol}
        )
        self._lose(error)

    def _lose(self, error: Exception | None) -> None:
        """The connection is gone, or shall be; the protocol is told in a later turn."""
        if self._socket.fileno() < 0:
            return
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._loop.remove_writer(self._number)
        elif self._closing:
            return  # its end is on its way already
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._number)
        self._loop.call_soon(self._finish, error)

    def _finish(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._socket.close()
            del self._protocol  # which holds this stream: the collector need not look for them
