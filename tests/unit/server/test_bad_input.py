"""The bad-input table: what is sent, and exactly what comes back.

Heads are answered with a status and a named error, frames with a close code, messages with their
confirmation or with silence; and after each of them the server still serves.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest

from support.wire import CONTROLLER, Wire, close_frame, frame, message, request, sale

LINE = b"GET /ptsWebSocket HTTP/1.1\r\n"
HOST = b"Host: x\r\n"
#: name -> (bytes, status, error)
HEADS: dict[str, tuple[bytes, int, str]] = {
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01", 400, "tls-on-plain-port"),
    "a masked frame first": (frame(b"{}"), 400, "not-http"),
    "zeros": (b"\x00" * 10, 400, "not-http"),
    "JSON first": (message(sale(1)), 400, "not-http"),
    "SOCKS5": (b"\x05\x01\x00", 400, "not-http"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http-version"),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400, "malformed-request-line"),
    "HTTP/3.0": (b"GET / HTTP/3.0\r\n\r\n", 505, "http-version"),
    "HTTP/1": (b"GET / HTTP/1\r\n\r\n", 400, "malformed-version"),
    "http/1.1 in lower case": (b"GET / http/1.1\r\n\r\n", 400, "malformed-version"),
    "HTPP/1.1": (b"GET / HTPP/1.1\r\n\r\n", 400, "malformed-version"),
    "two spaces": (b"GET  / HTTP/1.1\r\n\r\n", 400, "malformed-request-line"),
    "a space in the path": (b"GET /a b HTTP/1.1\r\n\r\n", 400, "malformed-request-line"),
    "a tab in the line": (b"GET\t/ HTTP/1.1\r\n\r\n", 400, "malformed-request-line"),
    "a method with a colon": (b"GE:T / HTTP/1.1\r\n\r\n", 400, "malformed-method"),
    "bytes above ASCII in the path": (b"GET /\xff HTTP/1.1\r\n\r\n", 400, "malformed-target"),
    "a control byte in the path": (b"GET /\x01 HTTP/1.1\r\n\r\n", 400, "malformed-target"),
    "no colon": (LINE + b"Host\r\n\r\n", 400, "field-without-colon"),
    "a space before the colon": (LINE + b"Host : x\r\n\r\n", 426, "upgrade-required"),
    "blanks in a forbidden name": (LINE + b"H(st : x\r\n\r\n", 400, "malformed-field-name"),
    "a length with a blank in its name": (
        b"POST /jsonPTS HTTP/1.1\r\nContent-Length: 2\r\nContent-Length : 40\r\n\r\n{}",
        400,
        "malformed-field-name",
    ),
    "an encoding with a blank in its name": (
        b"POST /jsonPTS HTTP/1.1\r\nTransfer-Encoding\t: chunked\r\n\r\n",
        400,
        "malformed-field-name",
    ),
    "PROXY protocol 1": (
        b"PROXY TCP4 192.0.2.9 192.0.2.1 40000 3000\r\n" + request(),
        400,
        "proxy-protocol",
    ),
    "PROXY protocol 1 alone": (b"PROXY UNKNOWN\r\n", 400, "proxy-protocol"),
    "PROXY protocol 2": (
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + b"\x01" * 12 + request(),
        400,
        "proxy-protocol",
    ),
    "PROXY protocol 2 alone": (b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", 400, "proxy-protocol"),
    "an empty name": (LINE + b": x\r\n\r\n", 400, "malformed-field-name"),
    "a folded header": (LINE + b"Host: x\r\n more\r\n\r\n", 400, "folded-field"),
    "a NUL in a value": (LINE + b"Host: a\x00b\r\n\r\n", 400, "malformed-field-value"),
    "a lone CR in a value": (LINE + b"Host: a\rb\r\n\r\n", 400, "malformed-field-value"),
    "a header name above ASCII": (LINE + b"H\xf6st: x\r\n\r\n", 400, "malformed-field-name"),
    "too many headers": (LINE + b"A: b\r\n" * 101 + b"\r\n", 431, "too-many-fields"),
    "a head without an end": (LINE + b"A: " + b"b" * 20_000, 431, "head-too-large"),
    "a head too large at once": (
        LINE + b"A: " + b"b" * 17_000 + b"\r\n\r\n",
        431,
        "head-too-large",
    ),
    "a line without an end": (b"GET /" + b"a" * 20_000, 414, "request-line-too-long"),
    "a line too long": (
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
        414,
        "request-line-too-long",
    ),
    "empty lines without an end": (b"\r\n" * 9000, 431, "head-too-large"),
    "a chunked body": (
        b"POST /jsonPTS HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        411,
        "chunked-body",
    ),
    "a POST without a length": (b"POST /jsonPTS HTTP/1.1\r\n\r\n", 411, "length-missing"),
    "a negative length": (
        b"POST /jsonPTS HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        400,
        "malformed-length",
    ),
    "a length that is no number": (
        b"POST /jsonPTS HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n",
        400,
        "malformed-length",
    ),
    "two lengths": (
        b"POST /jsonPTS HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        400,
        "malformed-length",
    ),
    "a body too large": (
        b"POST /jsonPTS HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n",
        413,
        "body-too-large",
    ),
    "an absurd length": (
        b"POST /jsonPTS HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        413,
        "body-too-large",
    ),
    "a wrong path": (request("/nothing"), 404, "wrong-path"),
    "a path that climbs": (request("/../ptsWebSocket"), 404, "wrong-path"),
    "a POST to a wrong path": (
        b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
        404,
        "wrong-path",
    ),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 404, "wrong-path"),
    "CONNECT": (b"CONNECT example.test:443 HTTP/1.1\r\n" + HOST + b"\r\n", 404, "wrong-path"),
    "DELETE": (request(method="DELETE"), 405, "wrong-method"),
    "a plain GET": (LINE + HOST + b"\r\n", 426, "upgrade-required"),
    "Upgrade lost on the way": (request(drop=("Upgrade",)), 426, "upgrade-header-missing"),
    "Upgrade: h2c": (request(Upgrade="h2c"), 426, "upgrade-header-missing"),
    "version 8": (request(Sec_WebSocket_Version="8"), 426, "version-unsupported"),
    "no version": (request(drop=("Sec-WebSocket-Version",)), 426, "version-missing"),
    "no key": (request(drop=("Sec-WebSocket-Key",)), 400, "key-missing"),
    "two keys": (
        request().replace(b"Origin", b"Sec-WebSocket-Key: a\r\nOrigin"),
        400,
        "key-repeated",
    ),
    "two hosts": (request().replace(b"Origin", b"Host: y\r\nOrigin"), 400, "repeated-host"),
    "a handshake with a body": (
        request(Content_Length="2", body=b"{}"),
        400,
        "handshake-with-body",
    ),
}


@pytest.mark.parametrize("name", HEADS)
async def test_a_bad_head_is_answered_by_name(serve, name: str) -> None:
    sent, status, error = HEADS[name]
    server = await serve()
    wire = await Wire.connect(server.port)
    reply = await wire.ask(sent)
    assert (reply.status, reply.json["error"]) == (status, error)
    assert reply.json["message"]
    assert reply.headers["content-type"] == "application/json"
    await wire.close()
    await still_serves(server)


#: name -> (bytes, close code, reason)
FRAMES: dict[str, tuple[bytes, int, str]] = {
    "not masked": (frame(b"{}", masked=False), 1002, "incorrect masking"),
    "RSV1": (frame(b"{}", rsv=4), 1002, "reserved bits must be 0"),
    "RSV2": (frame(b"{}", rsv=2), 1002, "reserved bits must be 0"),
    "RSV3": (frame(b"{}", rsv=1), 1002, "reserved bits must be 0"),
    "opcode 3": (frame(b"", 3), 1002, "invalid opcode"),
    "opcode 11": (frame(b"", 11), 1002, "invalid opcode"),
    "HTTP text": (request(), 1002, "invalid opcode"),
    "JSON without a frame": (message(sale(1)), 1002, "invalid opcode"),
    "a continuation of nothing": (frame(b"x", 0), 1002, "unexpected continuation frame"),
    "a message inside a message": (
        frame(b"x", 1, fin=False) + frame(b"y", 1),
        1002,
        "expected a continuation frame",
    ),
    "a ping in fragments": (frame(b"x", 9, fin=False), 1002, "fragmented control frame"),
    "a ping too long": (frame(b"x" * 126, 9), 1002, "control frame too long"),
    "text that is not UTF-8": (frame(b"\xff\xfe"), 1007, "invalid start byte at position 0"),
    "text cut within a character": (frame(b"\xd0"), 1007, "unexpected end of data at position 0"),
    "not UTF-8 in the second fragment": (
        frame(b"\xd0", 1, fin=False) + frame(b"A", 0),
        1007,
        "invalid continuation byte at position 0",
    ),
    "the beginning of a text that is not UTF-8": (
        frame(b"\xd0\xb4\xff" + b"x" * 100)[:-90],
        1007,
        "invalid start byte at position 2",
    ),
    "a close of one byte": (frame(b"\x03", 8), 1002, "close frame too short"),
    "a close with a forbidden code": (close_frame(1005), 1002, "invalid status code"),
    "a close with an unknown code": (close_frame(999), 1002, "invalid status code"),
    "a close reason that is not UTF-8": (
        frame(b"\x03\xe8\xff", 8),
        1007,
        "invalid start byte at position 0",
    ),
    "a message too large": (frame(b" " * 1_048_577), 1009, "exceeds limit of 1048576 bytes"),
    "fragments too large together": (
        frame(b" " * 1_000_000, 1, fin=False) + frame(b" " * 100_000, 0),
        1009,
        "exceeds limit of 1048576 bytes",
    ),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_a_bad_frame_closes_with_its_code(serve, name: str) -> None:
    sent, code, reason = FRAMES[name]
    server = await serve(listen={"validate_utf8": True})
    wire = await Wire.link(server.port)
    wire.write(sent)
    closed, said = await wire.until_close()
    assert closed == code
    assert reason in said
    assert await wire.eof() == b""
    await wire.close()
    await still_serves(server)


OK = {"Message": "OK"}
#: name -> (message, packets of the answer, or None for silence)
MESSAGES: dict[str, tuple[bytes, list[dict[str, object]] | None]] = {
    "nothing": (b"", None),
    "no JSON": (b"hello", None),
    "a number": (b"5", None),
    "a list": (b"[]", None),
    "an empty object": (b"{}", None),
    "no packets": (b'{"Protocol":"jsonPTS","Packets":[]}', None),
    "half a message": (message(sale(1))[:20], None),
    "a packet without Id": (b'{"Packets":[{"Type":"UploadShift"}]}', None),
    "a packet without Type": (b'{"Packets":[{"Id":1}]}', None),
    "an unknown request": (b'{"Packets":[{"Id":1,"Type":"RequestTagBalance"}]}', None),
    "the flat form": (b'{"type":"PumpTransaction","packetId":5}', None),
    "nested too deep": (b'{"Packets":' + b"[" * 5000, None),
    "cut within Data": (
        b'{"Packets":[{"Id":1,"Type":"UploadShift","Data":{"Number":',
        [{"Id": 1, "Type": "UploadShift", **OK}],
    ),
    "a trailing comma": (
        b'{"Packets":[{"Id":1,"Type":"UploadShift","Data":{"Number":1,},},],}',
        [{"Id": 1, "Type": "UploadShift", **OK}],
    ),
    "a missing comma": (
        b'{"Packets":[{"Id":1,"Type":"UploadShift","Data":{"Number":1 "UserId":1}}]}',
        [{"Id": 1, "Type": "UploadShift", **OK}],
    ),
    "bytes after the end": (
        b'{"Packets":[{"Id":1,"Type":"UploadShift","Data":{}}]}\r\n\x00\x00',
        [{"Id": 1, "Type": "UploadShift", **OK}],
    ),
    "Data of another shape": (
        b'{"Packets":[{"Id":1,"Type":"UploadPumpTransaction","Data":[1,2]}]}',
        [{"Id": 1, "Type": "UploadPumpTransaction", **OK}],
    ),
    "fields of other types": (
        b'{"Packets":[{"Id":1,"Type":"UploadPumpTransaction","Data":{"Pump":{},"Volume":"x"}}]}',
        [{"Id": 1, "Type": "UploadPumpTransaction", **OK}],
    ),
    "nulls everywhere": (
        b'{"PtsId":null,"Packets":[{"Id":1,"Type":"UploadStatus","Data":null}]}',
        [{"Id": 1, "Type": "UploadStatus", **OK}],
    ),
    "an Id beyond 64 bits": (
        b'{"Packets":[{"Id":99999999999999999999999,"Type":"UploadShift"}]}',
        [{"Id": 99999999999999999999999, "Type": "UploadShift", **OK}],
    ),
    "PtsId of another controller": (
        b'{"PtsId":"0B","Packets":[{"Id":1,"Type":"UploadShift"}]}',
        [{"Id": 1, "Type": "UploadShift", **OK}],
    ),
    "a binary message": (
        b'{"Packets":[{"Id":1,"Type":"UploadShift"}]}',
        [{"Id": 1, "Type": "UploadShift", **OK}],
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
async def test_a_bad_message_is_kept_and_never_answered_with_an_error(
    serve, tmp_path, name: str
) -> None:
    payload, packets = MESSAGES[name]
    server = await serve(controllers={"allowed": [CONTROLLER]})
    wire = await Wire.link(server.port)
    wire.write(frame(payload, 2 if name == "a binary message" else 1))
    if packets is not None:
        assert json.loads(await wire.text())["Packets"] == packets
    answer = await wire.upload(sale(77))
    assert answer["Packets"][0]["Id"] == 77  # silence before it, if silence was due
    await wire.close()
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        kept = connection.execute(
            "SELECT raw FROM messages UNION ALL SELECT data FROM status_latest"
        ).fetchall()
    assert (payload,) in kept


async def still_serves(server) -> None:
    wire = await Wire.link(server.port, X_Pts_Id="0F")
    assert (await wire.upload(sale(1)))["Packets"][0]["Message"] == "OK"
    await wire.close()


def test_the_table_has_at_least_sixty_lines() -> None:
    assert len(HEADS) + len(FRAMES) + len(MESSAGES) >= 60


async def test_a_stray_rsv1_bit_may_be_tolerated_and_is_counted(serve) -> None:
    server = await serve(listen={"tolerate_rsv1": True})
    wire = await Wire.link(server.port)
    wire.write(frame(message(sale(5)), rsv=4))
    assert json.loads(await wire.text())["Packets"][0]["Message"] == "OK"
    assert server.app.rsv1 == {"rsv1": 1}
    await wire.close()


async def test_noise_on_many_connections_at_once(serve) -> None:
    server = await serve()
    import random

    noise = random.Random(7)

    async def one() -> None:
        wire = await Wire.connect(server.port)
        wire.write(noise.randbytes(200))
        await wire.close()

    await asyncio.gather(*(one() for _ in range(50)))
    await still_serves(server)
