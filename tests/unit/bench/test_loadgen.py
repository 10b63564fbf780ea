"""The load generator counts right answers, and refuses wrong ones: a bench that believes anything
measures nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from benchmarks.server import load
from websockets.asyncio.server import ServerConnection, serve

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

Answer = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load.build(tmp_path_factory.mktemp("loadgen"))


@asynccontextmanager
async def server(answer: Answer, seen: list[dict[str, Any]] | None = None) -> AsyncIterator[int]:
    """A server that answers each packet as told and keeps the messages it saw."""

    async def connection(socket: ServerConnection) -> None:
        async for text in socket:
            message = json.loads(text)
            if seen is not None:
                assert socket.request is not None
                seen.append(
                    {**message, "head": socket.request.headers["X-Pts-Id"], "size": len(text)}
                )
            await answer(socket, message["Packets"][0])

    async with serve(connection, "127.0.0.1", 0, compression=None) as listening:
        yield next(iter(listening.sockets)).getsockname()[1]


async def confirm(socket: ServerConnection, packet: dict[str, Any]) -> None:
    await reply(socket, Id=packet["Id"], Type=packet["Type"], Message="OK")


async def reply(socket: ServerConnection, **packet: Any) -> None:
    await socket.send(json.dumps({"Protocol": "jsonPTS", "Packets": [packet]}))


async def run(binary: Path, port: int, mode: str, **options: float) -> Any:
    target = load.Load(binary, port, server_pid=0, cpu=-1, salt=7)
    given: dict[str, float] = {"connections": 3, "sources": 0, "seconds": 0.3, "warmup": 0.0}
    return await asyncio.to_thread(target.run, mode, **{**given, **options})


async def test_each_message_is_a_true_upload_with_an_identity_of_its_own(binary: Path) -> None:
    seen: list[dict[str, Any]] = []
    async with server(confirm, seen) as port:
        end = await run(binary, port, "roundtrips")
    assert 0 < end["count"] <= len(seen)
    facts = set()
    for message in seen:
        (packet,) = message["Packets"]
        data = packet["Data"]
        assert message["PtsId"] == message["head"]
        assert len(message["PtsId"]) == 24
        assert 400 <= message["size"] <= 500
        assert packet["Type"] in ("UploadPumpTransaction", "UploadTankMeasurement")
        number = data.get("Transaction", data.get("ProductVolume"))
        facts.add((message["PtsId"], packet["Type"], data["DateTime"], number))
    assert len(facts) == len(seen)
    assert len({message["PtsId"] for message in seen}) == 3


async def test_spaces_in_a_confirmation_do_not_matter(binary: Path) -> None:
    async def spaced(socket: ServerConnection, packet: dict[str, Any]) -> None:
        await socket.send(
            json.dumps({"Packets": [{"Id": packet["Id"], "Message": "OK"}]}, indent=1)
        )

    async with server(spaced) as port:
        end = await run(binary, port, "roundtrips", connections=1)
    assert end["count"] > 0


async def other_id(socket: ServerConnection, packet: dict[str, Any]) -> None:
    await reply(socket, Id=packet["Id"] + 1, Type=packet["Type"], Message="OK")


async def longer_id(socket: ServerConnection, packet: dict[str, Any]) -> None:
    await reply(socket, Id=packet["Id"] * 10, Type=packet["Type"], Message="OK")


async def refusal(socket: ServerConnection, packet: dict[str, Any]) -> None:
    await reply(socket, Id=packet["Id"], Type=packet["Type"], Error=True, Message="Not stored")


async def twice(socket: ServerConnection, packet: dict[str, Any]) -> None:
    await confirm(socket, packet)
    await confirm(socket, packet)


async def hang_up(socket: ServerConnection, packet: dict[str, Any]) -> None:  # noqa: ARG001
    await socket.close(1011)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (other_id, "answer"),
        (longer_id, "answer"),
        (refusal, "answer"),
        (twice, "answer"),
        (hang_up, "code 1011"),
    ],
)
async def test_a_wrong_answer_fails_the_measure(binary: Path, answer: Answer, words: str) -> None:
    async with server(answer) as port:
        with pytest.raises(load.LoadFailed, match=words):
            await run(binary, port, "roundtrips", connections=1)


async def test_the_time_of_a_late_confirmation_counts_from_when_its_message_was_due(
    binary: Path,
) -> None:
    async def one_stall(socket: ServerConnection, packet: dict[str, Any]) -> None:
        if packet["Id"] == 10003:
            await asyncio.sleep(0.2)
        await confirm(socket, packet)

    async with server(one_stall) as port:
        end = await run(binary, port, "rate", connections=1, rate=100, seconds=0.6)
    # Due while the server stalled: about 20 messages, all of them late, though sent quickly after.
    assert end["confirmation_ms"]["p90"] > 50


async def test_handshakes_are_counted_and_checked(binary: Path) -> None:
    async with server(confirm) as port:
        end = await run(binary, port, "handshakes", connections=2)
    assert end["count"] > 0


async def test_a_wrong_accept_value_fails_the_measure(binary: Path) -> None:
    async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        await writer.drain()

    listening = await asyncio.start_server(wrong, "127.0.0.1", 0)
    async with listening:
        with pytest.raises(load.LoadFailed, match="handshake"):
            await run(binary, listening.sockets[0].getsockname()[1], "handshakes", connections=1)


async def test_pongs_that_do_not_come_are_counted_as_late(binary: Path) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from ptslink.handshake.accept import accept_value

        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        (key,) = [
            line.split(": ")[1]
            for line in head.splitlines()
            if line.startswith("Sec-WebSocket-Key")
        ]
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept_value(key)}\r\n\r\n".encode()
        )
        await reader.read()

    listening = await asyncio.start_server(deaf, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        end = await run(
            binary, port, "hold", connections=2, seconds=0.5, late=0.1, period=100, ping_period=0.2
        )
    assert end["late_pongs"] > 0
