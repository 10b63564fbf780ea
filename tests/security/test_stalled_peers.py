"""Peers that take nothing, or never end: each costs one buffer and a bounded time, and keeps no
known controller out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ptslink.server import service, stream
from ptslink.server.seam import FrontLimits
from support.wire import CONTROLLER, Wire, close_frame, frame, message, request, sale, until

ASK = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
POST = f"POST /jsonPTS HTTP/1.1\r\nX-Pts-Id: {CONTROLLER}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
#: Answers to these are more than the kernel takes here, and less than what stops the reading.
SOME = ASK * 200
#: Answers to these stop it.
MUCH = ASK * 1000
PING = frame(b"x" * 120, 9)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that no configuration sets, made short."""
    usual = service.front_limits

    def limits(*given: Any) -> FrontLimits:
        return replace(usual(*given), send_seconds=0.3, linger_seconds=0.1, answer_seconds=0.3)

    monkeypatch.setattr(service, "front_limits", limits)


def listening() -> socket.socket:
    """A listener whose connections have little room in the kernel."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    listener.setblocking(False)
    return listener


SHORT: dict[str, Any] = {
    "limits": {"head_seconds": 0.1, "close_seconds": 0.1},
    "keepalive": {"ping_interval_seconds": 0},
}


@contextlib.asynccontextmanager
async def deaf(port: int, sent: bytes, *, ends: bool = False) -> AsyncIterator[None]:
    """A peer that sends, perhaps ends its side, and reads not one byte."""
    loop = asyncio.get_running_loop()
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        peer.setblocking(False)
        await loop.sock_connect(peer, ("127.0.0.1", port))
        sending = asyncio.create_task(loop.sock_sendall(peer, sent))
        await asyncio.wait([sending], timeout=0.2)
        if ends:
            await sending
            peer.shutdown(socket.SHUT_WR)
        try:
            yield
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await sending


#: What a deaf peer sends, and whether it ends its side then.
DEAF: dict[str, tuple[bytes, bool]] = {
    "asks, and waits": (SOME, False),
    "asks without end": (MUCH, False),
    "asks, and begins to ask": (SOME + b"GET /", False),
    "asks for the last time": (MUCH + b"GET /health HTTP/1.0\r\n\r\n", False),
    "asks, and sends what is no HTTP": (SOME + b"\x00", False),
    "asks, and ends": (SOME, True),
    "has a link, and waits": (request() + PING * 2000, False),
    "has a link, and ends": (request() + PING * 200, True),
    "has a link, and closes it": (request() + PING * 200 + close_frame(), False),
    "has a link, and breaks it": (request() + PING * 200 + b"\xff\xff", False),
}


@pytest.mark.parametrize("name", DEAF)
@pytest.mark.usefixtures("hurried")
async def test_a_peer_that_reads_nothing_loses_its_place(serve, name: str) -> None:
    sent, ends = DEAF[name]
    server = await serve(inherited=[("", listening())], **SHORT)
    async with deaf(server.port, sent, ends=ends):
        await until(lambda: not server.app.admission.open)
        assert not len(server.app.registry)


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes wait in a connection after each write."""
    seen: list[int] = []
    write = stream.Stream.write

    def watched(self: stream.Stream, data: bytes) -> None:
        write(self, data)
        seen.append(len(self._waiting or b""))

    monkeypatch.setattr(stream.Stream, "write", watched)
    return seen


async def test_requests_are_not_answered_while_the_answers_are_not_taken(serve, queued) -> None:
    server = await serve(inherited=[("", listening())])
    async with deaf(server.port, MUCH * 3):
        await until(lambda: max(queued, default=0) > stream._HIGH)
    assert max(queued) < stream._HIGH + 1024
    await until(lambda: not server.app.admission.open)


async def test_they_are_answered_once_the_answers_are_taken(serve) -> None:
    server = await serve(inherited=[("", listening())])
    wire = await Wire.connect(server.port)
    wire.write(MUCH * 3 + b"GET /health HTTP/1.0\r\n\r\n")
    assert (await wire.eof()).count(b"HTTP/1.1 200 OK") == 3001
    await wire.close()


@pytest.mark.usefixtures("hurried")
async def test_an_answer_that_does_not_come_is_given_up(serve, monkeypatch) -> None:
    server = await serve()
    known(server)
    monkeypatch.setattr(server.app.journal, "append", lambda _: None)
    wire = await Wire.connect(server.port)
    reply = await wire.ask(POST)
    assert (reply.status, reply.json["error"]) == (500, "internal-error")
    assert await wire.eof() == b""
    await until(lambda: not server.app.admission.open)
    assert server.app.attempts["internal-error"] == 1


@pytest.mark.usefixtures("hurried")
async def test_a_last_answer_that_nobody_takes_is_given_up(serve, monkeypatch) -> None:
    """The peer ended its side while its upload waited for the disk."""
    server = await serve(inherited=[("", listening())])
    taken: list[Any] = []
    known(server)
    monkeypatch.setattr(server.app.journal, "append", taken.append)
    async with deaf(server.port, SOME + POST, ends=True):
        await until(lambda: taken)
        taken[0].stored = True
        taken[0].settled(taken[0])
        await until(lambda: not server.app.admission.open)


def known(server: service.Server) -> None:
    """The journal has a message of the controller from an earlier run."""
    server.app.journal._known.add(CONTROLLER)


async def test_peers_that_read_nothing_give_way_at_once(serve) -> None:
    server = await serve(inherited=[("", listening())], limits={"connections": 4})
    known(server)
    async with contextlib.AsyncExitStack() as peers:
        for sent in (MUCH, MUCH + b"GET /health HTTP/1.0\r\n\r\n", SOME + b"\x00", SOME) * 2:
            await peers.enter_async_context(deaf(server.port, sent))
        wire = await Wire.link(server.port)
        assert (await wire.upload(sale(1)))["Packets"][0]["Message"] == "OK"
        await wire.close()


async def test_a_tenth_of_the_places_is_for_known_controllers(serve) -> None:
    server = await serve(limits={"connections": 20})
    known(server)
    links = [await Wire.link(server.port, X_Pts_Id=f"A{number:02}") for number in range(18)]
    stranger = await Wire.connect(server.port)
    reply = await stranger.ask(request(X_Pts_Id="BEEF"))
    assert (reply.status, reply.json["error"]) == (503, "too-many-connections")
    assert "the last 2 are for known controllers" in reply.json["message"]
    await stranger.close()
    # One that has a link may take its own place again.
    again = await Wire.link(server.port, X_Pts_Id="A00")
    wire = await Wire.link(server.port)
    wire.send(message(sale(1)))
    assert b'"Message":"OK"' in await wire.text()
    for link in (*links, again, wire):
        await link.close()


async def test_a_limit_that_cannot_be_acted_on_ends_the_connection(serve, monkeypatch) -> None:
    server = await serve(limits={"head_seconds": 0.1})

    def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(server.app, "unreadable", broken)
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, it: reported.append(it["message"]))
    wire = await Wire.connect(server.port)
    wire.write(b"GET /")
    with contextlib.suppress(ConnectionResetError):
        assert await wire.eof() == b""
    assert reported == ["a connection's time limit could not be acted on"]
    await until(lambda: not server.app.admission.open)
