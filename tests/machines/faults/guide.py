"""A server as a guide builds it, in ptslink's place: ``guide.py MANNER [PORT]``.

Thirty lines around the library websockets, as they stand on the port of many a station. It has
none of ptslink's records: the doctor has what any server leaves behind. Runs on the machine.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
import sys
import time
from collections import deque
from typing import Any

from websockets.asyncio.server import Request, Response, ServerConnection, serve

log = logging.getLogger("guide")
#: Who is connected, and when each one tried.
clients: dict[str, ServerConnection] = {}
tried: dict[str, deque[float]] = {}
#: Tries of one controller that this server puts up with in a minute.
PATIENCE = 3


def confirmation(packets: list[dict[str, Any]]) -> str:
    answers = [{"Id": one["Id"], "Type": one["Type"], "Message": "OK"} for one in packets]
    return json.dumps({"Protocol": "jsonPTS", "Packets": answers})


async def confirm(link: ServerConnection, message: str | bytes) -> None:
    packets = json.loads(message)["Packets"]
    uploads = [one for one in packets if one["Type"].startswith("Upload")]
    if uploads:
        await link.send(confirmation(uploads))


async def converse(link: ServerConnection) -> None:
    async for message in link:
        await confirm(link, message)


async def greet(link: ServerConnection) -> None:
    await link.send("Welcome to the fuel station server!")
    await converse(link)


async def mute(link: ServerConnection) -> None:
    async for _ in link:
        pass


async def block(link: ServerConnection) -> None:
    async for message in link:
        time.sleep(40)  # noqa: ASYNC251 - a database asked the blocking way
        await confirm(link, message)


async def depend(link: ServerConnection) -> None:
    async for message in link:
        await asyncio.open_connection("127.0.0.1", 5432)
        await confirm(link, message)


async def ask_much(link: ServerConnection) -> None:
    users = [{"Id": n, "Login": f"user{n:02}", "Password": "x" * 10, "Permissions": {
        "Configuration": False, "Control": True, "Monitoring": True, "Reports": True}}
        for n in range(1, 61)]  # fmt: skip
    packet = {"Id": 1, "Type": "SetUsersConfiguration", "Data": {"Users": users}}
    await link.send(json.dumps({"Protocol": "jsonPTS", "Packets": [packet]}))
    await converse(link)


async def first_come(link: ServerConnection) -> None:
    controller = identifier(link.request)
    if controller in clients:
        log.warning("PTS %s is already connected, closing the new connection", controller)
        await link.close(4001, "already connected")
        return
    clients[controller] = link
    try:
        await converse(link)
    finally:
        del clients[controller]


async def impatient(link: ServerConnection) -> None:
    if too_often(identifier(link.request)):
        await link.close(1013, "too many attempts, try again later")
        return
    await converse(link)


def identifier(request: Request | None) -> str:
    return request.headers.get("X-Pts-Id", "unknown") if request is not None else "unknown"


def too_often(controller: str) -> bool:
    now, times = time.monotonic(), tried.setdefault(controller, deque())
    times.append(now)
    while times[0] < now - 60:
        times.popleft()
    if len(times) > PATIENCE:
        log.warning("Rate limiting PTS %s - %d attempts in last minute", controller, len(times))
    return len(times) > PATIENCE


def refuse_often(link: ServerConnection, request: Request) -> Response | None:
    if not too_often(identifier(request)):
        return None
    return link.respond(http.HTTPStatus.TOO_MANY_REQUESTS, "Too many attempts\n")


def refuse_second(link: ServerConnection, request: Request) -> Response | None:
    if (controller := identifier(request)) not in clients:
        return None
    log.warning("PTS %s is already connected, refused", controller)
    return link.respond(http.HTTPStatus.CONFLICT, "controller already connected\n")


async def look_up(_link: ServerConnection, _request: Request) -> Response | None:
    """Ask the database whether the controller is known."""
    await asyncio.open_connection("127.0.0.1", 5432)
    return None


def name_protocol(_link: ServerConnection, _request: Request, response: Response) -> None:
    response.headers["Sec-WebSocket-Protocol"] = "pts2"


MANNERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (converse, {}),
    "greet": (greet, {}),
    "mute": (mute, {}),
    "block": (block, {}),
    "depend": (depend, {}),
    "ask-much": (ask_much, {}),
    "first-come": (first_come, {}),
    "one-each": (first_come, {"process_request": refuse_second}),
    "impatient": (impatient, {}),
    "limited": (converse, {"process_request": refuse_often}),
    "look-up": (converse, {"process_request": look_up}),
    "origins": (converse, {"origins": ["https://station.example.test"]}),
    "subprotocols": (converse, {"subprotocols": ["pts2"]}),
    "names-protocol": (converse, {"process_response": name_protocol}),
    "compressing": (converse, {"compression": "deflate"}),
}


async def main(manner: str, port: int) -> None:
    handler, options = MANNERS[manner]
    async with serve(handler, "", port, **{"compression": None, **options}):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(sys.argv[1], int((*sys.argv, "3000")[2])))
