"""Controllers against servers that are right and wrong: what gets confirmed, what is reported."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from ptslink.doctor.probe.target import parse_target
from ptslink.simulator import session
from ptslink.simulator.device import ONCE_KINDS
from ptslink.simulator.packets import KINDS
from ptslink.simulator.result import SimulationResult, render
from ptslink.simulator.run import Simulation, simulate
from ptslink.simulator.setup import Setup, new_identities
from support.ports import free_port
from unit.simulator.station_server import Packet, confirm, raw_server, station


def setup(url: str, controllers: int = 1, **options: Any) -> Setup:
    options.setdefault("timeout", 2.0)
    return Setup(parse_target(url), new_identities(controllers, "test"), ramp=1000, **options)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (the condition lies in a server that knows no events)
        await asyncio.sleep(0.01)


async def test_once_uploads_four_kinds_and_has_each_confirmed() -> None:
    async with station() as server:
        result = await simulate(setup(server.url))
    assert result.ok, render(result)
    shown = result.as_json()["controllers"][0]
    assert shown["sent"] == dict.fromkeys(ONCE_KINDS, 1)
    assert shown["confirmed"] == dict.fromkeys(ONCE_KINDS, 1)
    assert shown["rejected"] == {}
    assert shown["close"] == {"sent": 1000, "received": 1000, "reason": "", "clean": True}
    assert (shown["status"], shown["accept_ok"], shown["error"]) == (101, True, None)
    assert server.closes == [(1000, "")]


async def test_every_kind_can_be_uploaded_and_confirmed() -> None:
    async with station() as server:
        result = await simulate(setup(server.url, kinds=KINDS))
    assert result.ok, render(result)
    assert sorted(p["Type"] for p in server.packets) == sorted(KINDS)


async def test_many_controllers_in_one_process_are_each_one_of_their_own() -> None:
    async with station() as server:
        result = await simulate(setup(server.url, controllers=60))
    assert result.ok, render(result)
    assert len({m["PtsId"] for m in server.messages}) == 60
    assert len(result.controllers) == 60


def changed(**changes: Any):  # type: ignore[no-untyped-def]
    def answer(packet: Packet) -> Packet | None:
        right = confirm(packet)
        assert right is not None
        bent = {**right, **changes}
        return {k: v for k, v in bent.items() if v is not ...}

    return answer


def id_as_text(packet: Packet) -> Packet | None:
    return {**packet, "Id": str(packet["Id"]), "Message": "OK"}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (changed(Type="Confirmation"), "Type is \"Confirmation\", must be 'UploadShift'"),
        (changed(Type=...), "Type is null"),
        (changed(Message="ok"), 'Message is "ok"'),
        (changed(Message=..., Error=False), "Message is null"),
        (changed(Error=True, Code=6, Message="no"), "an error: Code 6, Message no"),
        (changed(Id=0), "Id answers nothing that was sent"),
        (id_as_text, 'Id is "'),
    ],
)
async def test_a_wrong_confirmation_is_rejected_with_what_came(answer: Any, why: str) -> None:
    async with station(answer) as server:
        result = await simulate(setup(server.url, kinds=("UploadShift",), timeout=0.5))
    assert not result.ok
    tally = result.controllers[0].tally
    assert tally.confirmed.total() == 0
    assert why in str(tally.rejections[0].why)
    assert tally.rejections[0].came
    assert why[:12] in render(result)


async def test_a_tag_without_an_answer_is_rejected() -> None:
    async with station(changed(Type="TagsInformation", Data={"Tags": []})) as server:
        result = await simulate(setup(server.url, kinds=("RequestTagsInformation",), timeout=0.5))
    assert "no Valid for the tags" in str(result.controllers[0].tally.rejections[0].why)


async def test_a_foreign_welcome_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CLOSE_SECONDS", 0.05)

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer)
        writer.write(b"\x81\x07Welcome")
        await reader.read()

    async with raw_server(welcome) as url:
        result = await simulate(setup(url, timeout=0.3))
    assert not result.ok
    assert result.controllers[0].tally.rejections[0].came == "Welcome"


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    from ptslink.handshake.accept import accept_value

    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = head.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept_value(key)}\r\n\r\n".encode()
    )


async def test_an_unconfirmed_record_is_sent_again_word_for_word_until_it_is_confirmed() -> None:
    seen: list[Packet] = []

    def third_time(packet: Packet) -> Packet | None:
        seen.append(packet)
        return confirm(packet) if len(seen) == 3 else None

    async with station(third_time) as server:
        options = {"kinds": ("UploadPumpTransaction",), "response_seconds": 0.05}
        result = await simulate(setup(server.url, **options))
    assert result.ok
    assert seen[0] == seen[1] == seen[2]
    tally = result.controllers[0].tally
    assert (tally.sent.total(), tally.resent.total(), tally.confirmed.total()) == (1, 2, 1)


async def test_a_lost_connection_is_tried_again_and_the_record_sent_again() -> None:
    seen: list[Packet] = []

    def second_time(packet: Packet) -> Packet | None:
        if packet["Type"] != "UploadPumpTransaction":
            return confirm(packet)
        seen.append(packet)
        return confirm(packet) if len(seen) > 1 else None

    async with station(second_time) as server:
        simulation = Simulation(
            setup(server.url, once=False, status_period=0.05, reconnect_seconds=0.05)
        )
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            running = group.create_task(simulation.run())
            await until(lambda: bool(server.messages))
            simulation.devices[0].happen("UploadPumpTransaction", 0)
            await until(lambda: bool(seen))
            assert server.server is not None
            for connection in list(server.server.connections):
                connection.transport.abort()
            await until(lambda: len(seen) > 1)
            simulation.stopping.set()
        result = running.result()
    assert result.ok, render(result)
    controller = result.controllers[0]
    assert controller.connections == 2
    assert controller.errors == 1
    first, second = seen
    assert first["Id"] != second["Id"]
    assert first["Data"]["Transaction"] == second["Data"]["Transaction"]


async def test_without_once_it_works_until_its_duration_and_closes_in_order() -> None:
    async with station() as server:
        options = {"once": False, "status_period": 0.05, "duration": 0.4}
        result = await simulate(setup(server.url, controllers=3, **options))
    assert result.ok, render(result)
    assert all(c.tally.confirmed["UploadStatus"] >= 3 for c in result.controllers)
    assert server.closes == [(1000, "")] * 3


async def test_requests_of_the_server_are_answered_by_id_and_without_an_id_of_ours() -> None:
    ask = [{"Type": "GetDateTime"}, {"Type": "GetNothing"}, {"Type": "PumpAuthorize"}]
    async with station(ask=ask) as server:
        result = await simulate(setup(server.url))
    assert result.ok, render(result)
    packets = {m["Packets"][0]["Id"]: m["Packets"][0] for m in server.replies}
    assert packets[900]["Type"] == "DateTime"
    assert len(packets[900]["Data"]["DateTime"]) == 19
    assert (packets[901]["Error"], packets[901]["Code"]) == (True, 1)
    assert (packets[902]["Error"], packets[902]["Code"]) == (True, 6)
    assert all("PtsId" not in m for m in server.replies)


async def test_it_pings_and_reconnects_when_no_pong_comes() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer)
        await reader.read()

    async with raw_server(deaf) as url:
        result = await simulate(setup(url, ping_period=0.1))
    assert result.controllers[0].error == "no pong within 0.1 s"


async def test_pongs_keep_it_connected() -> None:
    async with station() as server:
        options = {"once": False, "ping_period": 0.05, "status_period": 1, "duration": 0.5}
        result = await simulate(setup(server.url, **options))
    assert result.ok, render(result)
    assert result.controllers[0].connections == 1


def answering(text: str) -> Any:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text.encode())
        await writer.drain()

    return script


async def closes_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    del writer


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def stays_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    del writer


async def drops_after_101(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await upgrade(reader, writer)
    await reader.read(10)
    writer.write_eof()
    await reader.read()


async def closes_4000(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await upgrade(reader, writer)
    writer.write(b"\x88\x0a\x0f\xa0replaced")
    await reader.read()


async def sets_rsv1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await upgrade(reader, writer)
    writer.write(b"\xc1\x02{}")
    await reader.read()


@pytest.mark.parametrize(
    ("script", "status", "error"),
    [
        (answering("HTTP/1.1 404 Not Found\r\n\r\n<h1>404"), 404, "HTTP 404 Not Found"),
        (answering("HTTP/1.1 200 OK\r\n\r\nhello"), 200, "HTTP 200 OK"),
        (
            answering("HTTP/1.1 101 X\r\nSec-WebSocket-Accept: x\r\n\r\n"),
            101,
            "Sec-WebSocket-Accept is x",
        ),
        (answering("SSH-2.0-OpenSSH\r\n"), None, "not an HTTP response"),
        (answering("HTTP/1.1 101 Sw"), None, "ended the connection after 15 bytes"),
        (closes_at_once, None, "ended the connection without a word"),
        (resets, None, "ECONNRESET"),
        (stays_silent, None, "no answer within 0.3 s"),
        (drops_after_101, 101, "ended the connection without a close frame"),
        (closes_4000, 101, "the server closed with 4000 replaced"),
        (sets_rsv1, 101, "the server broke the protocol: reserved bits must be 0"),
    ],
)
async def test_a_broken_server_is_named(
    monkeypatch: pytest.MonkeyPatch, script: Any, status: int | None, error: str
) -> None:
    monkeypatch.setattr(session, "CLOSE_SECONDS", 0.1)
    async with raw_server(script) as url:
        result = await simulate(setup(url, timeout=0.3))
    assert not result.ok
    controller = result.controllers[0]
    assert controller.status == status
    assert error in str(controller.error)


async def test_a_refused_connection_is_named() -> None:
    result = await simulate(setup(f"ws://127.0.0.1:{free_port()}/x"))
    assert "ECONNREFUSED" in str(result.controllers[0].error)


def test_nothing_simulated_is_not_a_success() -> None:
    assert not SimulationResult("ws://x/", "0", ()).ok


async def test_the_result_is_plain_json() -> None:
    async with station() as server:
        result = await simulate(setup(server.url))
    assert json.loads(json.dumps(result.as_json()))["ok"] is True
