"""Every attempt and every link leaves a record, and the lines people search for are there."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import sqlite3
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ptslink.cli import main
from ptslink.journal.logfiles import Line, LogFiles, expired, file_name, moment
from ptslink.server.config import parse
from ptslink.server.service import start_server
from support.wire import CONTROLLER, Wire, close_frame, frame, message, request, sale, until


def evidence(tmp_path: Path, kind: str) -> list[dict[str, Any]]:
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        rows = connection.execute(
            "SELECT controller, peer, code, detail FROM evidence WHERE kind = ? ORDER BY id",
            (kind,),
        ).fetchall()
    return [
        {"controller": c, "peer": p, "code": code, **json.loads(detail)}
        for c, p, code, detail in rows
    ]


async def recorded(tmp_path: Path, kind: str, count: int = 1) -> list[dict[str, Any]]:
    await until(lambda: len(evidence(tmp_path, kind)) >= count)
    found = evidence(tmp_path, kind)
    assert len(found) == count
    return found


async def test_an_accepted_attempt_leaves_its_record_without_secrets(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port, Authorization="Basic c2VjcmV0OnNlY3JldA==")
    (record,) = await recorded(tmp_path, "attempt")
    assert record["code"] == "accepted"
    assert record["status"] == 101
    assert record["controller"] == CONTROLLER
    assert record["peer"] == "127.0.0.1"
    assert record["local_port"] == server.port
    assert record["path"] == "/ptsWebSocket"
    assert ["Authorization", "<redacted>"] in record["headers"]
    assert "c2VjcmV0" not in json.dumps(record)
    await wire.close()


async def test_each_leniency_that_was_needed_is_named(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port, Sec_WebSocket_Key="test", drop=("Connection",))
    (record,) = await recorded(tmp_path, "attempt")
    assert record["notes"] == ["connection-without-upgrade", "key-not-16-bytes"]
    await wire.close()


@pytest.mark.parametrize(
    ("sent", "code", "text"),
    [
        (b"\x16\x03\x01\x00\x05hello", "tls-on-plain-port", ".....hello"),
        (b"GET / HTTP/1.1\r\nbroken\r\n\r\n", "field-without-colon", "GET / HTTP/1.1..broken...."),
        (b"\x81\x85noise", "not-http", "..noise"),
    ],
)
async def test_a_broken_stream_leaves_its_first_bytes(serve, tmp_path, sent, code, text) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    wire.write(sent)
    await wire.eof()
    (record,) = await recorded(tmp_path, "attempt")
    assert record["code"] == code
    assert record["first_bytes"] == {"hex": sent[:64].hex(" "), "text": text}


@pytest.mark.parametrize("name", ["Authorization", "proxy-authorization", "X-Data-Signature"])
@pytest.mark.parametrize("upgraded", [False, True])
async def test_no_secret_is_in_first_bytes(serve, tmp_path, name, upgraded) -> None:
    server = await serve()
    wire = await Wire.link(server.port) if upgraded else await Wire.connect(server.port)
    wire.write(f"GET / HTTP/1.1\r\n{name}: Basic aGlkZGVu\r\nbroken\r\n\r\n".encode())
    await wire.until_close() if upgraded else await wire.eof()
    await wire.close()
    (record,) = await recorded(tmp_path, "link" if upgraded else "attempt")
    assert record["first_bytes"]["text"].startswith(f"GET / HTTP/1.1..{name}:**********")
    shown = bytes.fromhex(record["first_bytes"]["hex"])
    assert b"aGlk" not in shown
    await until(lambda: any((tmp_path / "logs").glob("*Connection*")))
    logged = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    assert "aGlk" not in logged
    assert b"aGlk".hex(" ") not in logged


async def test_a_caller_that_leaves_early_or_says_nothing_is_recorded(serve, tmp_path) -> None:
    server = await serve(limits={"head_seconds": 0.2})
    early = await Wire.connect(server.port)
    early.write(b"GET /pts")
    await early.writer.drain()
    await early.close()
    silent = await Wire.connect(server.port)
    assert await silent.eof() == b""
    slow = await Wire.connect(server.port)
    slow.write(b"GET /pts HTTP/1.1\r\n")
    assert (await slow.reply()).status == 408
    found = await recorded(tmp_path, "attempt", 3)
    assert sorted(record["code"] for record in found) == [
        "closed-before-request",
        "request-timeout",
        "silent",
    ]


async def close_politely(wire: Wire) -> None:
    wire.write(close_frame(1000, "bye"))
    await wire.eof()


async def end_stream(wire: Wire) -> None:
    await wire.close()


async def reset(wire: Wire) -> None:
    sock = wire.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.writer.transport.abort()


async def send_http(wire: Wire) -> None:
    wire.write(request())
    await wire.eof()
    await wire.close()


async def send_unmasked(wire: Wire) -> None:
    wire.write(frame(b"{}", masked=False))
    await wire.eof()
    await wire.close()


async def send_rsv1(wire: Wire) -> None:
    wire.write(frame(b"{}", rsv=4))
    await wire.eof()
    await wire.close()


@pytest.mark.parametrize(
    ("act", "code", "closed_by", "sent", "received", "transport"),
    [
        (close_politely, "closed-1000-by-peer", "peer", [1000, "bye"], [1000, "bye"], None),
        (end_stream, "lost-fin", "transport", None, None, "fin"),
        (reset, "lost-rst", "transport", None, None, "rst"),
        (
            send_http,
            "http-text-after-upgrade",
            "server",
            [1002, "invalid opcode"],
            None,
            None,
        ),
        (send_unmasked, "unmasked-frame", "server", [1002, "incorrect masking"], None, "fin"),
        (send_rsv1, "rsv1-on-frame", "server", [1002, "reserved bits must be 0"], None, "fin"),
    ],
)
async def test_each_ending_is_told_apart(
    serve, tmp_path, act, code, closed_by, sent, received, transport
) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    await wire.upload(sale(1))
    await act(wire)
    (record,) = await recorded(tmp_path, "link")
    assert record["code"] == code
    assert record["closed_by"] == closed_by
    assert record["close_sent"] == sent
    assert record["close_rcvd"] == received
    if transport is not None:
        assert record["transport"] == transport
    assert record["messages_in"] == 1
    assert record["messages_out"] == 1
    assert record["bytes_in"] > 100
    assert record["types"] == {"UploadPumpTransaction": 1}
    await wire.close()


async def test_a_controller_that_does_not_answer_pings_is_closed_with_1011(serve, tmp_path) -> None:
    server = await serve(
        keepalive={"ping_interval_seconds": 0.3, "ping_timeout_seconds": 0.3},
        limits={"close_seconds": 0.3},
    )
    wire = await Wire.link(server.port)
    opcode, payload = await wire.frame()
    assert (opcode, payload) == (9, b"ptslink")
    assert await wire.until_close() == (1011, "keepalive ping timeout")
    (record,) = await recorded(tmp_path, "link")
    assert record["code"] == "ping-timeout"
    assert record["pings"] == 1
    assert record["pongs"] == 0
    await wire.close()


async def test_a_controller_that_talks_but_does_not_answer_pings_is_alive(serve) -> None:
    server = await serve(keepalive={"ping_interval_seconds": 0.3, "ping_timeout_seconds": 0.3})
    wire = await Wire.link(server.port)
    confirmed = 0
    for number in range(12):
        wire.send(message(sale(number)))
        while (await wire.frame())[0] != 1:
            pass
        confirmed += 1
        await asyncio.sleep(0.12)
    assert confirmed == 12
    assert server.app.registry.controllers() == [CONTROLLER]
    await wire.close()


async def test_the_last_ping_and_its_pong_are_in_the_record(serve, tmp_path) -> None:
    server = await serve(keepalive={"ping_interval_seconds": 0.3})
    wire = await Wire.link(server.port)
    opcode, payload = await wire.frame()
    assert opcode == 9
    await asyncio.sleep(0.1)
    wire.write(frame(payload, 10))
    await asyncio.sleep(0.1)
    await wire.close()
    (record,) = await recorded(tmp_path, "link")
    assert (record["pings"], record["pongs"]) == (1, 1)
    ping, pong = record["last_ping_seconds_before_end"], record["last_pong_seconds_before_end"]
    assert 0.05 < pong < ping - 0.05 < 5


@pytest.mark.parametrize("ping", [0, 0.3, 30])
async def test_a_silent_link_is_closed_where_a_limit_is_set(serve, tmp_path, ping) -> None:
    """A pong is no message: a controller may be alive and have stopped to upload."""
    server = await serve(limits={"idle_seconds": 0.6}, keepalive={"ping_interval_seconds": ping})
    wire = await Wire.link(server.port)
    await asyncio.sleep(0.4)
    await wire.upload(sale(1))
    while (came := await wire.frame())[0] == 9:
        wire.write(frame(came[1], 10))
    assert came == (8, (1001).to_bytes(2, "big") + b"idle")
    await wire.close()
    (record,) = await recorded(tmp_path, "link")
    assert record["code"] == "closed-1001-by-server"
    assert record["seconds"] > 0.9


async def test_the_files_and_lines_the_guide_names(serve, tmp_path) -> None:
    server = await serve()
    refused = await Wire.connect(server.port)
    await refused.ask(request("/wrong"))
    await refused.close()
    wire = await Wire.link(server.port)
    await wire.upload(sale(1))
    await wire.close()
    directory = tmp_path / "logs"
    await until(lambda: list(directory.glob("ShortConnection_*.log")))
    text = "".join(path.read_text() for path in sorted(directory.iterdir()))
    for words in (
        "Verifying WebSocket client",
        "PTS Controller attempting connection",
        "connection established successfully",
        "Close code 1006 (abnormal closure)",
        "refused with 404 wrong-path",
    ):
        assert words in text, words
    types = {path.name.partition("_")[0] for path in directory.iterdir()}
    assert types >= {
        "Connection",
        "ConnectionIssue",
        "Disconnection",
        "ShortConnection",
        "Server",
        "UploadPumpTransaction",
    }


async def test_events_are_json_lines_on_standard_output(tmp_path) -> None:
    out = io.BytesIO()
    config = {
        "listen": {"addresses": ["127.0.0.1"], "port": 0},
        "journal": {"path": str(tmp_path / "journal.db")},
        "admin": {"port": 0, "socket": ""},
        "logs": {"directory": ""},
    }
    server = await start_server(parse(config), out=out)
    wire = await Wire.link(server.port)
    await wire.close()
    await until(lambda: not len(server.app.registry))
    await server.stop()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["event", "attempt", "link", "event"]
    assert lines[1]["code"] == "accepted"
    assert lines[1]["time"].endswith("Z")
    assert lines[2]["transport"] == "fin"


async def test_the_log_backs_off_and_the_controller_is_never_refused(serve, tmp_path) -> None:
    server = await serve(limits={"failures_per_minute": 5})
    known = await Wire.link(server.port)
    await known.upload(sale(1))
    await known.close()
    for _ in range(40):
        wire = await Wire.link(server.port)
        await wire.close()
    await until(lambda: len(evidence(tmp_path, "attempt")) == 41)
    await server.stop()  # which writes the lines that wait
    lines = [
        line
        for path in (tmp_path / "logs").glob("Connection_*.log")
        for line in path.read_text().splitlines()
    ]
    assert 0 < len(lines) <= 24  # at most two minutes' worth


async def test_strangers_that_keep_failing_are_limited_and_known_ones_are_not(
    serve, tmp_path
) -> None:
    server = await serve(limits={"failures_per_minute": 5})
    known = await Wire.link(server.port)
    await known.upload(sale(1))
    statuses = []
    for _ in range(8):
        wire = await Wire.connect(server.port)
        statuses.append((await wire.ask(request("/wrong", X_Pts_Id="0BAD"))).status)
        await wire.close()
    assert statuses == [404] * 5 + [429] * 3
    again = await Wire.link(server.port)
    assert (await again.upload(sale(2)))["Packets"][0]["Message"] == "OK"
    await until(
        lambda: any(
            "Rate limiting 127.0.0.1" in path.read_text()
            for path in (tmp_path / "logs").glob("ConnectionIssue_*.log")
        )
    )
    await again.close()
    await known.close()


async def test_too_many_links_of_strangers_from_one_address(serve) -> None:
    server = await serve(limits={"connections_per_address": 2})
    wires = [await Wire.link(server.port, X_Pts_Id=f"{n:02X}") for n in (1, 2)]
    wire = await Wire.connect(server.port)
    reply = await wire.ask(request(X_Pts_Id="03"))
    assert reply.status == 429
    assert reply.headers["retry-after"] == "60"
    assert (await wires[0].upload(sale(1)))["Packets"][0]["Message"] == "OK"
    again = await Wire.link(server.port, X_Pts_Id="01")
    for one in (*wires, wire, again):
        await one.close()


async def test_an_id_met_here_takes_as_many_links_as_a_stranger(serve) -> None:
    """Anybody may name an id and have a message stored, which makes it a known one."""
    server = await serve(limits={"connections_per_address": 2})
    wires = [await Wire.link(server.port, X_Pts_Id=f"{n:02X}") for n in (1, 2)]
    for wire in wires:
        await wire.upload(sale(1))
    await wires[0].close()
    await until(lambda: len(server.app.registry) == 1)
    third = await Wire.link(server.port, X_Pts_Id="03")
    again = await Wire.connect(server.port)
    assert (await again.ask(request(X_Pts_Id="01"))).status == 429
    for wire in (*wires, third, again):
        await wire.close()


async def test_who_guesses_at_passwords_is_limited_whatever_id_is_named(serve) -> None:
    server = await serve(
        limits={"failures_per_minute": 5}, controllers={"users": {"site": "secret"}}
    )
    right = "Basic " + base64.b64encode(b"site:secret").decode()
    known = await Wire.link(server.port, Authorization=right)
    await known.upload(sale(1))
    statuses = []
    for _ in range(7):
        wire = await Wire.connect(server.port)
        statuses.append((await wire.ask(request(Authorization="Basic c2l0ZTpndWVzcw=="))).status)
        await wire.close()
    assert statuses == [401] * 5 + [429] * 2
    again = await Wire.link(server.port, Authorization=right)
    await again.close()
    await known.close()


async def test_whoever_connects_and_says_nothing_shuts_nobody_out(serve, tmp_path) -> None:
    server = await serve(limits={"connections": 5})
    silent = [await Wire.connect(server.port) for _ in range(5)]
    half = silent[1]
    half.write(b"GET /ptsWebSocket HTTP/1.1\r\nHost: a\r\n")
    link = await Wire.link(server.port)
    assert await silent[0].eof() == b""
    another = await Wire.link(server.port, X_Pts_Id="0B")
    reply = await half.reply()
    assert (reply.status, reply.json["error"]) == (503, "gave-way")
    assert (await link.upload(sale(1)))["Packets"][0]["Message"] == "OK"
    records = await recorded(tmp_path, "attempt", 4)
    assert [one["code"] for one in records if one["status"] != 101] == [
        "silent-gave-way",
        "gave-way",
    ]
    for wire in (*silent, link, another):
        await wire.close()
    await until(lambda: server.app.admission.open == 0)
    assert server.app.admission.waiting == 0


async def test_the_limit_on_all_connections_answers_503(serve) -> None:
    server = await serve(limits={"connections": 1})
    first = await Wire.link(server.port)
    second = await Wire.connect(server.port)
    reply = await second.reply()
    assert reply.status == 503
    assert reply.json["error"] == "too-many-connections"
    await first.close()
    await second.close()
    await until(lambda: server.app.admission.open == 0)
    third = await Wire.link(server.port)
    await third.close()


async def test_behind_a_proxy_the_real_address_is_recorded(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port, X_Real_IP="198.51.100.7")
    (record,) = await recorded(tmp_path, "attempt")
    assert record["peer"] == "198.51.100.7"
    assert record["proxy"] == "127.0.0.1"
    await wire.close()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"not json", "JSON is malformed: invalid character (byte 4)"),
        (b"[1, 2]", "Expected `object`, got `array`"),
        (b"noise \xff", "not UTF-8 (byte 6)"),
        (b'{"a":' * 20_000, "nested too deeply"),
    ],
)
@pytest.mark.parametrize("over_http", [False, True])
async def test_the_line_of_an_unreadable_message_has_peer_and_reason(
    serve, tmp_path, sent, reason, over_http
) -> None:
    server = await serve(controllers={"allowed": [CONTROLLER]})
    if over_http:
        wire = await Wire.connect(server.port)
        wire.write(
            f"POST /jsonPTS HTTP/1.1\r\nHost: x\r\nX-Pts-Id: {CONTROLLER}\r\n"
            f"X-Real-IP: 198.51.100.7\r\nContent-Length: {len(sent)}\r\n\r\n".encode()
            + sent
        )
    else:
        wire = await Wire.link(server.port, X_Real_IP="198.51.100.7")
        wire.write(frame(sent, 2))
    lines: list[str] = []

    def told() -> list[str]:
        lines[:] = [
            line
            for path in (tmp_path / "logs").glob("Server_*.log")
            for line in path.read_text().splitlines()
            if "unreadable" in line
        ]
        return lines

    await until(told)
    (line,) = lines
    assert f"PTS Controller {CONTROLLER} at 198.51.100.7 sent a message with: unreadable" in line
    assert reason in line
    await wire.close()


def run(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    config = tmp_path / "c.toml"
    config.write_text(f'[logs]\ndirectory = "{tmp_path}/logs"\n')
    result = CliRunner().invoke(main, ["logs", "--config", str(config), *arguments])
    return result.exit_code, result.output


def test_logs_are_listed_counted_viewed_and_searched(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path / "logs", keep_days=36500, keep_bytes=10**9, out=None)
    logs.start()
    days = (1_772_323_200_000, 1_772_409_600_000)  # 2026-03-01, 2026-03-02
    for at in days:
        sentence = "Verifying WebSocket client 192.0.2.1: connection established successfully"
        logs.put(Line(at, ("Connection",), f"{sentence} {at}"))
        logs.put(Line(at, ("ConnectionIssue",), "refused with 404", '{"a":1}'))
    logs.close()
    listed = [line.split() for line in run(tmp_path, "list")[1].splitlines()]
    assert [(day, type_) for day, _, type_ in listed] == [
        ("2026-03-01", "Connection"),
        ("2026-03-01", "ConnectionIssue"),
        ("2026-03-02", "Connection"),
        ("2026-03-02", "ConnectionIssue"),
    ]
    code, text = run(tmp_path, "view", "connection")
    assert code == 0
    assert [line.split()[-2] for line in text.splitlines()] == [str(at) for at in days]
    assert "refused" not in text
    assert run(tmp_path, "view", "Connection", "-n", "1")[1].count("\n") == 1
    code, text = run(tmp_path, "view", "Connect")
    assert code == 1
    assert "there are: Connection, ConnectionIssue" in text
    assert run(tmp_path, "search", "REFUSED WITH")[1].count("ConnectionIssue: ") == 2
    assert run(tmp_path, "search", "nothing like it")[0] == 1
    assert "         2  connections accepted" in run(tmp_path, "summary")[1]


async def test_logs_are_followed_as_they_grow_come_and_go(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    first = directory / "Connection_2026-03-01.log"
    first.write_text("before\n")
    following = asyncio.create_task(asyncio.to_thread(run, tmp_path, "follow", "--seconds", "1.5"))
    await asyncio.sleep(0.4)
    with first.open("a") as handle:
        handle.write("one\nhalf a")
        handle.flush()
        await asyncio.sleep(0.3)
        handle.write(" line\n")
    (directory / "Server_2026-03-02.log").write_text("two\n")
    await asyncio.sleep(0.3)
    first.unlink()
    code, text = await following
    assert code == 0
    assert sorted(text.splitlines()) == [
        "Connection: half a line",
        "Connection: one",
        "Server: two",
    ]


def test_log_files_go_by_age_and_by_size(tmp_path: Path) -> None:
    now = 1_772_409_600
    for age in range(6):
        (tmp_path / file_name("Connection", moment((now - age * 86_400) * 1000)[:10])).write_bytes(
            b"x" * 100
        )
    (tmp_path / "stranger.log").write_bytes(b"x" * 1000)
    assert len(expired(tmp_path, 3, 10**6, now)) == 2
    assert len(expired(tmp_path, 30, 250, now)) == 4
    expired(tmp_path, 3, 10**6, now, delete=True)
    assert len(list(tmp_path.iterdir())) == 5
    assert (tmp_path / "stranger.log").exists()


def test_logs_of_messages_go_before_what_is_known_of_connections(tmp_path: Path) -> None:
    sizes = {"UploadTankMeasurement": 600, "UploadShift": 5, "Connection": 5, "Server": 5}
    for type_, size in sizes.items():
        (tmp_path / file_name(type_, "2026-03-02")).write_bytes(b"x" * size)
    (tmp_path / file_name("UploadShift", "2026-03-01")).write_bytes(b"x" * 5)
    (tmp_path / file_name("Connection", "2026-03-01")).write_bytes(b"x" * 5)
    now = 1_772_409_600

    def gone(keep: int) -> list[str]:
        return [path.name for path in expired(tmp_path, 30, keep, now)]

    assert gone(1000) == []
    assert gone(100) == ["UploadShift_2026-03-01.log", "UploadTankMeasurement_2026-03-02.log"]
    assert gone(10)[2:] == ["UploadShift_2026-03-02.log", "Connection_2026-03-01.log"]


def test_what_a_log_type_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for name in ("../../etc/passwd", "..", "Connection_2026-03-01.log", ""):
        code, text = run(tmp_path, "view", name)
        assert code == 1
        assert "no log of type" in text
