"""A small server of the tests' own, right by default, wrong as told. Not the product's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame

Packet = dict[str, Any]
Answer = Callable[[Packet], Packet | None]


def confirm(packet: Packet) -> Packet | None:
    """The official confirmation (PTS-2 protocol 2.3)."""
    if packet["Type"] == "RequestTagsInformation":
        tags = [{"Tag": t["Tag"], "Valid": False} for t in packet["Data"]["Tags"]]
        return {
            "Id": packet["Id"],
            "Type": "TagsInformation",
            "Message": "OK",
            "Data": {"Tags": tags},
        }
    return {"Id": packet["Id"], "Type": packet["Type"], "Message": "OK"}


@dataclass
class Station:
    """What the server saw."""

    answer: Answer = confirm
    ask: list[Packet] = field(default_factory=list)
    url: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    replies: list[dict[str, Any]] = field(default_factory=list)
    requests: list[list[tuple[str, str]]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    closes: list[tuple[int | None, str | None]] = field(default_factory=list)
    server: Server | None = None

    @property
    def packets(self) -> list[Packet]:
        return [p for m in self.messages for p in m["Packets"]]

    async def handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.requests.append(list(connection.request.headers.raw_items()))
        for number, packet in enumerate(self.ask):
            request = {"Protocol": "jsonPTS", "Packets": [{"Id": 900 + number, **packet}]}
            await connection.send(json.dumps(request))
        with contextlib.suppress(ConnectionClosed):
            async for text in connection:
                message = json.loads(text)
                if "PtsId" not in message:
                    self.replies.append(message)
                    continue
                self.messages.append(message)
                answers = [self.answer(p) for p in message["Packets"]]
                packets = [a for a in answers if a is not None]
                if packets:
                    reply = {"Protocol": "jsonPTS", "Packets": packets}
                    await connection.send(json.dumps(reply))
        self.closes.append((connection.close_code, connection.close_reason))


@contextlib.asynccontextmanager
async def station(answer: Answer = confirm, **options: Any) -> AsyncIterator[Station]:
    """A server that answers every packet by *answer* for the length of the block."""
    seen = Station(answer, options.pop("ask", []))
    async with serve(seen.handle, "127.0.0.1", 0, compression=None, **options) as server:
        seen.server = server
        port = next(iter(server.sockets)).getsockname()[1]
        seen.url = f"ws://127.0.0.1:{port}/ptsWebSocket"
        yield seen


@contextlib.asynccontextmanager
async def raw_server(
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> AsyncIterator[str]:
    """The URL of a server that runs *script* on each connection, for what no library would do."""
    running: set[asyncio.Task[Any]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await script(reader, writer)
        except ConnectionError:
            pass
        finally:
            running.discard(task)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ptsWebSocket"
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
