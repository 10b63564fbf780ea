"""The quirk checklist of the PTS-2 protocol reference, section 6: a test per line, in its order."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ptslink.handshake.head import parse_head
from ptslink.handshake.judge import Rules, judge
from ptslink.server.config import ConfigError, parse
from ptslink.server.downlink import ALLOWED
from support.wire import CONTROLLER, Wire, close_frame, frame, message, request, sale, until


async def silent(wire: Wire, seconds: float = 0.2) -> bool:
    try:
        await asyncio.wait_for(wire.reader.read(1), seconds)
    except TimeoutError:
        return True
    return False


def stored(tmp_path: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        return connection.execute(query).fetchall()


async def test_01_nothing_unsolicited_not_even_on_connect(serve) -> None:
    wire = await Wire.link((await serve()).port)
    assert await silent(wire)
    await wire.close()


async def test_02_a_message_that_comes_with_the_request_is_heard(serve) -> None:
    wire = await Wire.connect((await serve()).port)
    await wire.ask(request() + frame(message(sale(1))) + frame(message(sale(2))))
    assert [json.loads(await wire.text())["Packets"][0]["Id"] for _ in range(2)] == [1, 2]
    await wire.close()


async def test_03_any_origin_no_unoffered_subprotocol_no_compression(serve) -> None:
    wire = await Wire.connect((await serve()).port)
    reply = await wire.ask(
        request(Origin="https://evil.example", Sec_WebSocket_Extensions="permessage-deflate")
    )
    assert reply.status == 101
    assert reply.headers.keys() == {"upgrade", "connection", "sec-websocket-accept"}
    await wire.close()


async def test_04_a_path_on_the_operators_side_is_tolerated_or_named(serve, tmp_path) -> None:
    server = await serve(listen={"path": "Api/WebSocket"})
    for path in ("/api/websocket", "//API/WebSocket/", "/Api/WebSocket"):
        await (await Wire.link(server.port, path)).close()
    wire = await Wire.connect(server.port)
    reply = await wire.ask(request("/api/websockets"))
    assert (reply.status, reply.json["expected"]["path"]) == (404, "/Api/WebSocket")
    await wire.close()
    wrong = "SELECT detail FROM evidence WHERE code = 'wrong-path'"
    await until(lambda: stored(tmp_path, wrong))
    assert json.loads(stored(tmp_path, wrong)[0][0])["path"] == "/api/websockets"


async def test_05_the_handshakes_id_is_believed_and_a_body_without_one_is_fine(
    serve, tmp_path
) -> None:
    server = await serve()
    wire = await Wire.link(server.port, X_Pts_Id="aabb")
    wire.send(message(sale(1)))  # names another controller
    assert b"OK" in await wire.text()
    wire.send(b'{"Packets":[{"Id":5,"Type":"UploadShift","Data":{"Number":1}}]}')
    assert b"OK" in await wire.text()
    rows = stored(tmp_path, "SELECT pts_id FROM controllers")
    assert rows == [("AABB",)]
    noted = "SELECT controller FROM evidence WHERE code = 'pts-id-differs-from-handshake'"
    await until(lambda: stored(tmp_path, noted))
    assert stored(tmp_path, noted) == [("AABB",)]
    await wire.close()


async def test_05b_without_a_header_the_first_message_names_the_controller(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port, drop=("X-Pts-Id",))
    assert server.app.registry.controllers() == []
    await wire.upload(sale(1))
    assert server.app.registry.controllers() == [CONTROLLER]
    assert stored(tmp_path, "SELECT pts_id FROM controllers") == [(CONTROLLER,)]
    await wire.close()
    await until(lambda: server.app.registry.controllers() == [])


@pytest.mark.parametrize("year", ["25", "2025"])
def test_06_firmware_years_and_configuration_ids(year: str) -> None:
    raw = request(
        X_Pts_Firmware_Version_DateTime=f"{year}-01-06T23:59:14",
        X_Pts_Configuration_Identifier="0699C8C2",
    )
    identity = judge(parse_head(raw), Rules(path="ptsWebSocket")).identity
    assert (identity.firmware, identity.configuration) == ("2025-01-06T23:59:14", "699c8c2")


async def test_07_the_late_close_of_the_old_connection_spares_the_new_one(serve) -> None:
    server = await serve()
    old, new = await Wire.link(server.port), await Wire.link(server.port)
    assert (await old.until_close())[0] == 4000
    old.write(close_frame(4000))
    await old.eof()
    await until(lambda: len(server.app.registry) == 1)
    session = server.app.registry.get(CONTROLLER)
    assert session is not None
    assert (await new.upload(sale(1)))["Packets"][0]["Message"] == "OK"
    await new.close()


async def test_08_fast_reconnecting_is_never_refused(serve) -> None:
    server = await serve(limits={"failures_per_minute": 3, "connections_per_address": 1})
    wire = await Wire.link(server.port)
    await wire.upload(sale(1))
    for _ in range(30):
        again = await Wire.link(server.port)
        wire.writer.transport.abort()
        wire = again
    assert (await wire.upload(sale(2)))["Packets"][0]["Message"] == "OK"
    await wire.close()


async def test_09_each_packet_is_confirmed_in_compact_json_in_one_text_frame(serve) -> None:
    wire = await Wire.link((await serve()).port)
    wire.send(message(sale(1, id_="1"), sale(1, id_=2), {"Id": 3, "Type": "UploadNovelty"}))
    opcode, payload = await wire.frame()
    assert opcode == 1
    assert payload == (
        b'{"Protocol":"jsonPTS","Packets":['
        b'{"Id":"1","Type":"UploadPumpTransaction","Message":"OK"},'
        b'{"Id":2,"Type":"UploadPumpTransaction","Message":"OK"},'
        b'{"Id":3,"Type":"UploadNovelty","Message":"OK"}]}'
    )
    await wire.close()


@pytest.mark.parametrize("data", ["[]", "5", '"x"', "{", '{"Pump":"one"}'])
async def test_10_no_error_for_what_cannot_be_understood(serve, data: str) -> None:
    wire = await Wire.link((await serve()).port)
    wire.send(b'{"Packets":[{"Id":1,"Type":"UploadPumpTransaction","Data":%b}]}' % data.encode())
    assert json.loads(await wire.text())["Packets"][0]["Message"] == "OK"
    await wire.close()


@pytest.mark.parametrize(
    "packet",
    [
        '{"Id":"7","Type":"UploadStatus","Data":{"PtsStartupSeconds":5,"PowerDownDetected":false}}',
        '{"Id":7,"Type":"UploadStatus","Data":{"StartupSeconds":5,"PtsPowerDownDetected":null}}',
        '{"Id":7,"Type":"UploadStatus","Data":null}',
        '{"Id":7,"Type":"UploadStatus"}',
        '{"Id":7,"Type":"UploadStatus","Data":{},"Unknown":[1,2]}',
        '{"Id":7,"Type":"UploadStatus","Data":{"Pumps":{},},}',
    ],
)
async def test_11_tolerance(serve, packet: str) -> None:
    wire = await Wire.link((await serve()).port)
    payload = f'{{"Protocol":"jsonPTS","Packets":[{packet}]}}\r\n'.encode()
    half = len(payload) // 2
    wire.write(frame(payload[:half], 1, fin=False) + frame(payload[half:], 0))
    assert json.loads(await wire.text())["Packets"][0]["Message"] == "OK"
    await wire.close()


async def test_11b_a_mebibyte_is_accepted(serve) -> None:
    wire = await Wire.link((await serve()).port)
    payload = message(sale(1, CustomData="x" * (1_048_576 - len(message(sale(1, CustomData=""))))))
    assert len(payload) == 1_048_576
    wire.send(payload)
    assert b"OK" in await wire.text()
    await wire.close()


async def test_12_status_each_second_is_not_a_row_each_second(serve, tmp_path) -> None:
    wire = await Wire.link((await serve()).port)
    for second in range(30):
        await wire.upload({"Id": second + 1, "Type": "UploadStatus", "Data": {"N": second}})
    assert stored(tmp_path, "SELECT data FROM status_latest") == [(b'{"N":29}',)]
    assert stored(tmp_path, "SELECT count(*) FROM status_history") == [(1,)]
    assert stored(tmp_path, "SELECT count(*) FROM messages") == [(0,)]
    await wire.close()


async def test_13_local_times_are_kept_as_text_with_utc_and_flags(serve, tmp_path) -> None:
    wire = await Wire.link((await serve(controllers={"time_zone": "Europe/Kyiv"})).port)
    await wire.upload(sale(1), sale(2, DateTime="2000-01-01T00:00:02"), sale(3, DateTime="soon"))
    rows = stored(tmp_path, "SELECT local_time, utc, flags FROM records")
    assert rows == [
        ("2026-03-01T10:01:00", 1_772_352_060, 0),
        ("2000-01-01T00:00:02", 946_677_602, 4),
        ("soon", None, 2),
    ]
    await wire.close()


async def test_14_every_tag_is_invalid_by_default(serve) -> None:
    wire = await Wire.link((await serve()).port)
    packet = {"Id": 3, "Type": "RequestTagsInformation", "Data": {"Tags": [{"Tag": "A"}]}}
    assert (await wire.upload(packet))["Packets"] == [
        {
            "Id": 3,
            "Type": "TagsInformation",
            "Message": "OK",
            "Data": {"Tags": [{"Tag": "A", "Valid": False}]},
        }
    ]
    await wire.close()


def test_15_only_questions_may_be_asked_and_time_is_given() -> None:
    assert set(ALLOWED) == {
        "GetDateTime",
        "GetFirmwareInformation",
        "GetControllerType",
        "GetUniqueIdentifier",
        "GetRemoteServerConfiguration",
        "GetUploadedRecordsInformation",
        "GetConfigurationIdentifier",
    }
    assert parse({}).admin.command_seconds >= 15


async def test_16_no_secret_and_no_personal_data_in_the_logs(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(
        server.port, Authorization="Basic cGxhbnRlZA==", X_Data_Signature="planted-signature"
    )
    tags = [{"Type": "TagsList", "Data": {"Tags": [{"Tag": "D00D", "Name": "Planted Person"}]}}]
    packet = {"Id": 1, "Type": "UploadConfiguration", "Configuration": tags}
    await wire.upload({**packet, "ConfigurationId": "1a"})
    await wire.close()
    await until(lambda: list((tmp_path / "logs").glob("Disconnection_*.log")))
    text = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    text += str(stored(tmp_path, "SELECT detail FROM evidence"))
    assert "UploadConfiguration" in text
    for planted in ("cGxhbnRlZA", "planted-signature", "Planted Person", "D00D"):
        assert planted not in text


@pytest.mark.parametrize(
    "table",
    [
        {"users": {"elevenchars": "x"}},
        {"users": {"x": "elevenchars"}},
        {"secret": "x" * 21},
    ],
)
def test_17_what_cannot_be_typed_into_a_controller_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parse({"controllers": table})
    with pytest.raises(ConfigError):
        parse({"listen": {"path": "x" * 41}})


def test_18_a_plain_port_is_offered_beside_tls() -> None:
    # TLS 1.2 itself: test_tls_link.py.
    config = parse({"tls": {"port": 3443, "rsa_key": "/k", "rsa_certificate": "/c"}})
    assert config.listen.port == 3000


async def test_19_the_signature_is_checked_over_the_raw_head(serve) -> None:
    from ptslink.handshake.signature import sign

    server = await serve(controllers={"secret": "unit-test-key"})
    head = request(X_DateTime="2026-01-02T03:04:06")[:-2]
    odd = head.replace(b"Origin: ", b"ORIGIN:    ")
    for raw in (head, odd):
        signature = sign("unit-test-key", raw).encode()
        wire = await Wire.connect(server.port)
        reply = await wire.ask(raw + b"X-Data-Signature: " + signature + b"\r\n\r\n")
        assert reply.status == 101
        await wire.close()
