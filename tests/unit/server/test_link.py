"""The link from the outside: real sockets, real SQLite."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from ptslink.handshake.accept import accept_value
from ptslink.journal.reader import open_reader, summary
from support.wire import CONTROLLER, Wire, close_frame, frame, message, request, sale, until


async def test_a_controller_is_accepted_with_the_right_hash(serve) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    reply = await wire.ask(request())
    assert reply.status == 101
    assert reply.headers["sec-websocket-accept"] == accept_value("AAECAwQFBgcICQoLDA0ODw==")
    assert "sec-websocket-protocol" not in reply.headers
    assert "sec-websocket-extensions" not in reply.headers
    await wire.close()


async def test_an_upload_is_stored_and_confirmed_with_its_own_id_and_type(
    serve, tmp_path: Path
) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    payload = message(sale(7))
    wire.send(payload)
    assert await wire.text() == (
        b'{"Protocol":"jsonPTS","Packets":[{"Id":7,"Type":"UploadPumpTransaction","Message":"OK"}]}'
    )
    with open_reader(tmp_path / "journal.db") as connection:
        assert connection.execute("SELECT raw FROM messages").fetchall() == [(payload,)]
        found = summary(connection)
    assert found["messages"] == 1
    assert found["records"] == {"UploadPumpTransaction": 1}
    assert found["controllers"] == [CONTROLLER]
    await wire.close()


@pytest.mark.parametrize("id_", [7, "7", 65535, 2147483647, "0007"])
async def test_the_id_is_echoed_exactly_as_received(serve, id_) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    answer = await wire.upload(sale(1, id_=id_))
    assert answer["Packets"][0]["Id"] == id_
    assert type(answer["Packets"][0]["Id"]) is type(id_)
    await wire.close()


async def test_a_message_in_the_same_segment_as_the_request_is_not_lost(serve) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    reply = await wire.ask(request() + frame(message(sale(1))))
    assert reply.status == 101
    assert json.loads(await wire.text())["Packets"][0]["Message"] == "OK"
    await wire.close()


async def test_a_large_configuration_in_fragments_is_stored_whole(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    packet = {
        "Id": 5,
        "Type": "UploadConfiguration",
        "ConfigurationId": "1a2b3c4d",
        "Configuration": [{"Type": "Parameter", "Data": {"Value": "x" * 90}}] * 300,
    }
    payload = message(packet)
    assert len(payload) > 30_000
    parts = [payload[i : i + 1000] for i in range(0, len(payload), 1000)]
    for at, part in enumerate(parts):
        wire.write(frame(part, 1 if at == 0 else 0, fin=at == len(parts) - 1))
        if at == 3:
            wire.write(frame(b"between", 9))
    assert await wire.frame() == (10, b"between")
    assert json.loads(await wire.text())["Packets"] == [
        {"Id": 5, "Type": "UploadConfiguration", "Message": "OK"}
    ]
    with open_reader(tmp_path / "journal.db") as connection:
        assert connection.execute("SELECT raw FROM messages").fetchall() == [(payload,)]
    await wire.close()


async def test_every_packet_of_a_message_is_confirmed(serve) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    status = {"Id": 3, "Type": "UploadStatus", "Data": {"DateTime": "2026-03-01T10:01:00"}}
    answer = await wire.upload(sale(1), sale(2), status, {"Id": 4, "Type": "UploadSomethingNew"})
    assert [(p["Id"], p["Type"], p["Message"]) for p in answer["Packets"]] == [
        (1, "UploadPumpTransaction", "OK"),
        (2, "UploadPumpTransaction", "OK"),
        (3, "UploadStatus", "OK"),
        (4, "UploadSomethingNew", "OK"),
    ]
    await wire.close()


async def test_nothing_is_sent_to_a_controller_that_says_nothing(serve) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wire.reader.read(1), 0.3)
    await wire.close()


async def test_a_ping_is_answered(serve) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    wire.write(frame(b"are you there", 9))
    assert await wire.frame() == (10, b"are you there")
    await wire.close()


async def test_a_replayed_history_is_confirmed_and_not_doubled(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    for round_ in range(3):
        for number in range(5):
            # A resend has another packet Id, and the counters have moved on.
            packet = sale(number, id_=100 * round_ + number + 1, PumpTransactionsTotal=round_)
            answer = await wire.upload(packet)
            assert answer["Packets"][0]["Message"] == "OK"
    with open_reader(tmp_path / "journal.db") as connection:
        assert summary(connection)["records"] == {"UploadPumpTransaction": 5}
    await wire.close()


async def test_a_wrong_path_is_404_and_names_the_expected_one(serve) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    reply = await wire.ask(request("/ptsWebSockets"))
    assert reply.status == 404
    assert reply.json["error"] == "wrong-path"
    assert reply.json["expected"]["path"] == "/ptsWebSocket"
    await wire.close()


async def test_a_plain_get_is_426_and_the_same_connection_may_then_upgrade(serve) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    reply = await wire.ask(b"GET /ptsWebSocket HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.status == 426
    assert reply.headers["upgrade"] == "websocket"
    assert reply.headers["connection"] == "Upgrade"
    assert reply.headers["sec-websocket-version"] == "13"
    assert reply.json["controller_settings"]["request_uri_without_starting_slash"] == "ptsWebSocket"
    assert (await wire.ask(request())).status == 101
    await wire.close()


async def test_health_says_ok_and_no_more_to_whoever_can_reach_the_link(serve) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    reply = await wire.ask(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.status == 200
    assert reply.json == {"status": "ok"}
    await wire.close()


async def test_stopping_closes_every_controller_with_1012(serve) -> None:
    server = await serve()
    wires = [await Wire.link(server.port, X_Pts_Id=f"{n:024X}") for n in range(3)]

    async def controller(wire: Wire) -> tuple[int, str]:
        closed = await wire.until_close()
        wire.write(close_frame(closed[0]))
        assert await wire.eof() == b""
        return closed

    closes = asyncio.gather(*(controller(wire) for wire in wires))
    await server.stop()
    assert [code for code, _ in await closes] == [1012] * 3
    with pytest.raises(OSError, match="Connect call failed"):
        await Wire.connect(server.port)


async def test_a_newer_connection_replaces_and_outlives_the_older(serve) -> None:
    server = await serve()
    old = await Wire.link(server.port)
    new = await Wire.link(server.port)
    code, reason = await old.until_close()
    assert (code, reason) == (4000, "replaced by a newer connection")
    assert server.app.registry.controllers() == [CONTROLLER]
    old.write(close_frame(4000))
    await old.eof()
    assert server.app.registry.controllers() == [CONTROLLER]
    assert (await new.upload(sale(1)))["Packets"][0]["Message"] == "OK"
    await new.close()


async def test_the_summary_works_beside_the_running_server(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    await wire.upload(sale(1))
    with open_reader(tmp_path / "journal.db") as connection:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM messages")
        assert summary(connection)["messages"] == 1
    await wire.upload(sale(2))
    await wire.close()


async def test_a_handshake_on_its_way_in_while_stopping_gets_101_then_1012(serve) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    await until(lambda: server.app.admission.open == 1)
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0.01)
    assert (await wire.ask(request())).status == 101
    code, _ = await wire.until_close()
    assert code == 1012
    wire.write(close_frame(code))
    await stopping
    await wire.close()
