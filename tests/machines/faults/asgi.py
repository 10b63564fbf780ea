"""The same server for uvicorn. Runs on the machine, with Debian's packages alone."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        plain = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 404, "headers": plain})
        await send({"type": "http.response.body", "body": b"Not Found"})
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        packets = json.loads(event.get("text") or event["bytes"])["Packets"]
        answers = [{"Id": one["Id"], "Type": one["Type"], "Message": "OK"} for one in packets]
        text = json.dumps({"Protocol": "jsonPTS", "Packets": answers})
        await send({"type": "websocket.send", "text": text})
