"""HTTP upload mode: POST on the same port (PTS-2 protocol 2.5)."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from ptslink.handshake import signature
from ptslink.journal.reader import open_reader, summary
from support.wire import CONTROLLER, Wire, message, request, sale

UPGRADE_ONLY = (
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Origin",
)
SECRET = "unit-test-key"


def post(body: bytes, path: str = "/jsonPTS", **headers: str) -> bytes:
    headers.setdefault("Content_Length", str(len(body)))
    headers.setdefault("Content_Type", "application/json; charset=utf-8")
    drop = tuple(name for name in UPGRADE_ONLY if name not in headers)
    return request(path, method="POST", body=body, drop=drop, **headers)


@pytest.mark.parametrize("path", ["/jsonPTS", "/ptsWebSocket", "/pts", "/JSONpts/"])
async def test_an_upload_is_answered_200_with_its_confirmation(serve, path, tmp_path) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    reply = await wire.ask(post(message(sale(7)) + b"\r\n", path))
    assert reply.status == 200
    assert reply.headers["content-length"] == str(len(reply.body))
    assert "transfer-encoding" not in reply.headers
    assert reply.body == (
        b'{"Protocol":"jsonPTS","Packets":[{"Id":7,"Type":"UploadPumpTransaction","Message":"OK"}]}'
    )
    with open_reader(tmp_path / "journal.db") as connection:
        assert summary(connection)["records"] == {"UploadPumpTransaction": 1}
    await wire.close()


async def test_connection_close_is_honoured(serve) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    reply = await wire.ask(post(message(sale(1)), Connection="close"))
    assert reply.headers["connection"] == "close"
    assert await wire.eof() == b""


async def test_several_uploads_on_one_connection_even_pipelined(serve) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    wire.write(b"".join(post(message(sale(number))) for number in range(1, 6)))
    for number in range(1, 6):
        assert (await wire.reply()).json["Packets"][0]["Id"] == number
    await wire.close()


async def test_a_client_that_ends_its_side_still_gets_its_answer(serve) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    wire.write(post(message(sale(1))))
    wire.writer.write_eof()
    assert (await wire.reply()).status == 200
    assert await wire.eof() == b""


@pytest.mark.parametrize("end", [b"", b"\r\n"])
async def test_a_signed_upload_gets_a_signed_answer(serve, end: bytes) -> None:
    server = await serve(controllers={"secret": SECRET})
    wire = await Wire.connect(server.port)
    body = message(sale(1)) + end
    reply = await wire.ask(post(body, X_Data_Signature=signature.sign(SECRET, body)))
    assert reply.status == 200
    assert reply.headers["x-data-signature"] == signature.sign(SECRET, reply.body)
    await wire.close()


@pytest.mark.parametrize(
    ("headers", "code"),
    [({}, "signature-missing"), ({"X_Data_Signature": "AAAA"}, "signature-wrong")],
)
async def test_an_upload_with_a_wrong_signature_is_not_stored(
    serve, headers, code, tmp_path: Path
) -> None:
    server = await serve(controllers={"secret": SECRET})
    wire = await Wire.connect(server.port)
    reply = await wire.ask(post(message(sale(1)), **headers))
    assert reply.status == 401
    assert reply.json["error"] == code
    with open_reader(tmp_path / "journal.db") as connection:
        assert summary(connection)["messages"] == 0
    await wire.close()


async def test_a_configuration_may_come_unsigned(serve) -> None:
    server = await serve(controllers={"secret": SECRET})
    wire = await Wire.connect(server.port)
    packet = {"Id": 5, "Type": "UploadConfiguration", "ConfigurationId": "1a", "Configuration": []}
    assert (await wire.ask(post(message(packet)))).status == 200
    await wire.close()


async def test_credentials_are_asked_for(serve) -> None:
    server = await serve(controllers={"users": {"pump": "pass"}})
    wire = await Wire.connect(server.port)
    reply = await wire.ask(post(message(sale(1))))
    assert reply.status == 401
    assert "www-authenticate" in reply.headers
    right = "Basic " + base64.b64encode(b"pump:pass").decode()
    assert (await wire.ask(post(message(sale(1)), Authorization=right))).status == 200
    await wire.close()


async def test_a_body_in_pieces_and_expect_continue(serve) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    body = message(sale(1))
    whole = post(body, Expect="100-continue")
    wire.write(whole[: -len(body)])
    assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    for at in range(0, len(body), 100):
        wire.write(body[at : at + 100])
        await wire.writer.drain()
    assert (await wire.reply()).status == 200
    await wire.close()


async def test_an_unreadable_upload_is_kept_and_answered_with_nothing_confirmed(
    serve, tmp_path
) -> None:
    server = await serve(controllers={"allowed": [CONTROLLER]})
    wire = await Wire.connect(server.port)
    for _ in range(2):
        reply = await wire.ask(post(b"not json"))
        assert reply.status == 200
        assert json.loads(reply.body)["Packets"] == []
    with open_reader(tmp_path / "journal.db") as connection:
        assert connection.execute("SELECT raw FROM messages").fetchall() == [(b"not json",)]
    await wire.close()
