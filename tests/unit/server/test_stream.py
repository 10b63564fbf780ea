"""Accepted connections on the loop's readiness calls: what asyncio's own transports promise too."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ptslink.server import stream
from ptslink.server.stream import Acceptor, Stream
from support.wire import Wire, until


class Noted(asyncio.BufferedProtocol):
    """A protocol that writes down what it is told."""

    def __init__(self, said: Callable[[Noted, bytes], None]) -> None:
        self.said = said
        self.events: list[Any] = []
        self.buffer = bytearray(65_536)
        self.stream: Any = None

    def connection_made(self, transport: Any) -> None:
        self.stream = transport

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.said(self, bytes(self.buffer[:nbytes]))

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(type(exc).__name__)


class Listening:
    """An acceptor on loopback, and the protocols it made."""

    def __init__(self, listener: socket.socket, said: Callable[[Noted, bytes], None]) -> None:
        self.made: list[Noted] = []
        self.reported: list[dict[str, Any]] = []
        self.port = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.reported.append(context))

        def make() -> Noted:
            self.made.append(Noted(said))
            return self.made[-1]

        self.acceptor = Acceptor(loop, listener, make)


@contextlib.contextmanager
def listening(
    said: Callable[[Noted, bytes], None], listener: socket.socket | None = None
) -> Iterator[Listening]:
    listener = listener or socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    found = Listening(listener, said)
    try:
        yield found
    finally:
        found.acceptor.close()


MUCH = os.urandom(1 << 20) * 8


async def test_everything_arrives_at_a_slow_reader_before_the_close() -> None:
    def answer(protocol: Noted, _: bytes) -> None:
        for at in range(0, len(MUCH), 100_000):
            protocol.stream.write(MUCH[at : at + 100_000])
        protocol.stream.close()

    with listening(answer) as server:
        wire = await Wire.connect(server.port)
        wire.write(b"?")
        await asyncio.sleep(0.1)
        assert server.made[0].events == ["pause"]
        assert await wire.eof(20) == MUCH
        await until(lambda: server.made[0].events == ["pause", "resume", "NoneType"])


async def test_our_side_ends_after_everything_and_theirs_may_go_on() -> None:
    heard = bytearray()

    def answer(protocol: Noted, data: bytes) -> None:
        if not heard:
            protocol.stream.write(MUCH)
            protocol.stream.write_eof()
        heard.extend(data)

    with listening(answer) as server:
        wire = await Wire.connect(server.port)
        wire.write(b"?")
        assert await wire.eof(20) == MUCH
        wire.write(b"more")
        await until(lambda: heard == b"?more")
        await wire.close()
        await until(lambda: server.made[0].events[-2:] == ["eof", "NoneType"])


async def test_an_abort_loses_what_waits_and_ends_once() -> None:
    def answer(protocol: Noted, _: bytes) -> None:
        protocol.stream.write(MUCH)
        protocol.stream.close()
        protocol.stream.abort()
        protocol.stream.abort()
        protocol.stream.write(b"nothing of this")

    with listening(answer) as server:
        wire = await Wire.connect(server.port)
        wire.write(b"?")
        assert len(await wire.eof()) < len(MUCH)
        await asyncio.sleep(0.05)
        assert server.made[0].events == ["pause", "NoneType"]


async def test_nothing_is_read_while_reading_is_held() -> None:
    heard = bytearray()

    def note(protocol: Noted, data: bytes) -> None:
        heard.extend(data)
        protocol.stream.pause_reading()

    with listening(note) as server:
        wire = await Wire.connect(server.port)
        wire.write(b"one")
        await until(lambda: heard == b"one")
        wire.write(b"two")
        await asyncio.sleep(0.05)
        assert heard == b"one"
        server.made[0].stream.resume_reading()
        await until(lambda: heard == b"onetwo")
        await wire.close()


async def test_a_protocol_that_fails_loses_its_connection_alone() -> None:
    def fail(protocol: Noted, _: bytes) -> None:  # noqa: ARG001
        raise RuntimeError("a bug")

    with listening(fail) as server:
        wire, other = await Wire.connect(server.port), await Wire.connect(server.port)
        wire.write(b"?")
        assert await wire.eof() == b""
        assert [str(context["exception"]) for context in server.reported] == ["a bug"]
        assert [made.events for made in server.made] == [["RuntimeError"], []]
        await other.close()


class Scarce(socket.socket):
    """A listener in a process without descriptors to spare, the first time."""

    asked = 0

    def accept(self) -> Any:
        self.asked += 1
        if self.asked == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_without_descriptors_it_says_so_and_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "_ACCEPT_AGAIN", 0.2)
    listener = Scarce()
    with listening(lambda protocol, data: protocol.stream.write(data), listener) as server:
        wire = await Wire.connect(server.port)
        wire.write(b"patience")
        await asyncio.sleep(0.1)
        assert listener.asked == 1  # it does not spin
        assert await asyncio.wait_for(wire.reader.readexactly(8), 5) == b"patience"
        (context,) = server.reported
        assert context["message"] == "socket.accept() out of system resource"
        await wire.close()


async def test_a_stream_that_ended_leaves_nothing_to_collect() -> None:
    gone: list[bool] = []

    class Watched(Stream):
        __slots__ = ("__weakref__",)

    with pytest.MonkeyPatch.context() as patch, listening(lambda *_: None) as server:
        patch.setattr(stream, "Stream", Watched)
        gc.disable()
        try:
            wire = await Wire.connect(server.port)
            await until(lambda: server.made)
            weakref.finalize(server.made[0].stream, gone.append, True)
            await wire.close()
            await until(lambda: server.made[0].events == ["eof", "NoneType"])
            server.made.clear()
            await until(lambda: gone)
        finally:
            gc.enable()


async def test_who_is_gone_does_not_wait_in_the_wheel(serve) -> None:
    server = await serve()
    for _ in range(3):
        link = await Wire.link(server.port)
        await link.close()
        early = await Wire.connect(server.port)
        await early.close()
    await until(lambda: not server.app.admission.open)
    assert not any(server._wheel._slots.values())
