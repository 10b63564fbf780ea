"""The admin surface: health, readiness, metrics, records behind a cursor, commands."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import socket
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from ptslink.cli import main
from ptslink.server.downlink import ALLOWED
from ptslink.server.listeners import BACKLOG
from ptslink.server.service import Server
from support.wire import CONTROLLER, PATIENCE, Reply, Wire, frame, message, request, sale, until


async def get(port: int, path: str) -> Reply:
    wire = await Wire.connect(port)
    reply = await wire.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await wire.close()
    return reply


async def ask_unix(path: Path, request: bytes) -> Reply:
    wire = Wire(*await asyncio.open_unix_connection(str(path)))
    reply = await wire.ask(request)
    await wire.close()
    return reply


async def read(server: Server, target: str) -> Reply:
    socket = server.app.config.admin.socket
    return await ask_unix(socket, f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


async def post_unix(path: Path, target: str, content: Any) -> Reply:
    body = json.dumps(content).encode()
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return await ask_unix(path, head.encode() + body)


async def test_health_ready_and_the_routes(serve) -> None:
    server = await serve()
    health = (await get(server.admin_port, "/health")).json
    assert (health["status"], health["journal"]["ok"], health["silent"]) == ("ok", True, [])
    assert (await get(server.admin_port, "/ready")).json == {"ready": True}
    missing = await get(server.admin_port, "/nothing")
    assert missing.status == 404
    assert "GET /metrics" in missing.json["routes"]


async def test_whoever_asks_for_the_health_costs_no_look_into_files(serve, monkeypatch) -> None:
    server = await serve()

    def searched(_: str) -> str:
        raise AssertionError("searches the installed packages")

    monkeypatch.setattr("importlib.metadata.version", searched)
    for port in (server.port, server.admin_port):
        assert (await get(port, "/health")).status == 200


async def test_metrics_count_what_happened(serve) -> None:
    server = await serve()
    wire = await Wire.link(server.port, Sec_WebSocket_Key="test")
    await wire.upload(sale(1))
    await wire.upload(sale(1))
    text = (await get(server.admin_port, "/metrics")).body.decode()
    for line in (
        'ptslink_attempts_total{verdict="accepted"} 1.0',
        'ptslink_leniencies_total{name="key-not-16-bytes"} 1.0',
        'ptslink_packets_total{type="UploadPumpTransaction"} 2.0',
        "ptslink_links 1.0",
        "ptslink_journal_ok 1.0",
        "ptslink_journal_stored_total 2.0",
        "ptslink_journal_duplicates_total 1.0",
    ):
        assert line in text, line
    await wire.close()


async def test_a_reader_that_fails_is_answered_and_found_in_the_log(
    serve, tmp_path, monkeypatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("year 0 is out of range")

    monkeypatch.setattr("ptslink.server.admin.read_page", broken)
    server = await serve()
    for table in ("records", "variants"):
        reply = await read(server, f"/{table}")
        assert reply.status == 500
        assert reply.json["error"] == "internal-error"
        await until(lambda id_=reply.json["id"]: id_ in logged(tmp_path))


async def test_stopping_does_not_wait_for_a_reader_for_ever(serve, monkeypatch) -> None:
    let_go, begun = threading.Event(), threading.Event()

    def stalled(*_: Any, **__: Any) -> None:
        begun.set()
        let_go.wait(PATIENCE)

    monkeypatch.setattr("ptslink.server.admin.read_page", stalled)
    server = await serve()
    wire = Wire(*await asyncio.open_unix_connection(str(server.app.config.admin.socket)))
    wire.write(b"GET /records HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(begun.is_set)
    assert await server.admin.close(0.01) is False
    let_go.set()
    await wire.close()


def logged(directory: Path) -> str:
    """What is in the log file of the server."""
    return "".join(path.read_text() for path in (directory / "logs").glob("Server_*.log"))


async def test_records_are_read_behind_a_cursor_each_once(serve) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    for number in range(5):
        await wire.upload(sale(number), sale(number))
    cursor, seen = 0, []
    while True:
        page = (await read(server, f"/records?after={cursor}&limit=2")).json
        if not page["records"]:
            assert page["next"] == cursor
            break
        seen += page["records"]
        cursor = page["next"]
    assert [record["data"]["Transaction"] for record in seen] == [1, 2, 3, 4, 5]
    assert {record["controller"] for record in seen} == {CONTROLLER}
    assert seen[0]["type"] == "UploadPumpTransaction"
    assert seen[0]["local_time"] == "2026-03-01T10:01:00"
    assert seen[0]["utc"] is None
    await wire.close()


async def test_times_are_kept_as_sent_with_best_effort_utc_and_doubts(serve) -> None:
    server = await serve(controllers={"time_zone": "Europe/Kyiv"})
    wire = await Wire.link(server.port)
    await wire.upload(sale(1))
    status = {"Id": 9, "Type": "UploadStatus", "Data": {"UTCOffset": "-120"}}
    await wire.upload(status)
    await wire.upload(
        sale(2), sale(3, DateTime="2000-01-01T00:00:02"), sale(4, DateTime="2026-02-30T00:00:00")
    )
    await wire.upload({"Id": 5, "Type": "UploadAlertRecord"})
    records = (await read(server, "/records")).json["records"]
    assert [(r["local_time"], r["utc"], r["flags"]) for r in records] == [
        ("2026-03-01T10:01:00", "2026-03-01T08:01:00Z", []),
        ("2026-03-01T10:01:00", "2026-03-01T12:01:00Z", []),
        ("2000-01-01T00:00:02", "2000-01-01T02:00:02Z", ["clock-reset"]),
        ("2026-02-30T00:00:00", None, ["impossible-time"]),
        (None, None, ["no-time", "no-data"]),
    ]
    await wire.close()


@pytest.mark.parametrize("target", ["/records", "/variants?after=0"])
async def test_records_are_not_for_every_user_of_the_machine(serve, target: str) -> None:
    server = await serve()
    reply = await get(server.admin_port, target)
    assert (reply.status, reply.json["error"]) == (403, "not-here")
    assert f"--unix-socket {server.app.config.admin.socket}" in reply.json["message"]


@pytest.mark.parametrize(
    "query", ["after=x", "after=-1", "limit=100000", "controller=zz", "aftr=1", "after=٣"]
)
async def test_bad_parameters_are_named(serve, query: str) -> None:
    server = await serve()
    reply = await read(server, f"/records?{quote(query, safe='=')}")
    assert reply.status == 400
    assert query.partition("=")[0] in reply.json["message"]


async def test_status_is_kept_as_latest_and_sampled(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    for number in range(10):
        data = {"DateTime": f"2026-03-01T10:00:{number:02d}", "UTCOffset": 120}
        answer = await wire.upload({"Id": number + 1, "Type": "UploadStatus", "Data": data})
        assert answer["Packets"][0] == {"Id": number + 1, "Type": "UploadStatus", "Message": "OK"}
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        (latest,) = connection.execute("SELECT data FROM status_latest").fetchone()
        assert json.loads(latest)["DateTime"] == "2026-03-01T10:00:09"
        assert connection.execute("SELECT count(*) FROM status_history").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
        assert connection.execute("SELECT utc_offset FROM controllers").fetchone() == (120,)
    await wire.close()


async def test_another_content_under_the_same_key_is_kept_as_a_variant(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    await wire.upload(sale(1))
    await wire.upload(sale(1, Amount=99))
    await wire.upload(sale(1))
    (record,) = (await read(server, "/records")).json["records"]
    assert record["variants"] == 1
    assert record["data"]["Amount"] == 15.75
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (2,)
    await wire.close()


async def test_variants_have_a_cursor_of_their_own(serve) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    for amount in (1, 2, 3, 2):
        await wire.upload(sale(1, Amount=amount))
    (record,) = (await read(server, "/records")).json["records"]
    page = (await read(server, "/variants?limit=1")).json
    rest = (await read(server, f"/variants?after={page['next']}")).json
    found = page["records"] + rest["records"]
    assert [(item["record"], item["data"]["Amount"]) for item in found] == [
        (record["id"], 2),
        (record["id"], 3),
    ]
    await wire.close()


async def test_a_cursor_that_would_leave_records_out_is_an_error(serve) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    await wire.upload(sale(1))
    page = (await read(server, "/records")).json
    cursor, journal = page["next"], page["journal"]
    assert (await read(server, f"/records?after={cursor}&journal={journal}")).json == {
        "records": [],
        "next": cursor,
        "journal": journal,
    }
    for query, error in (
        (f"after={cursor + 10**9}", "cursor-ahead"),
        (f"after={cursor}&journal=feed", "other-journal"),
    ):
        reply = await read(server, f"/records?{query}")
        assert (reply.status, reply.json["error"]) == (409, error)
        assert "begin" in reply.json["message"]
    await wire.close()


async def test_a_cursor_outlives_a_journal_that_was_lost(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    for number in range(5):
        await wire.upload(sale(number))
    page = (await read(server, "/records")).json
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    await wire.upload(sale(7))
    await until(lambda: server.app.journal.health.ok)
    assert (await wire.upload(sale(7)))["Packets"][0]["Message"] == "OK"
    later = await read(server, f"/records?after={page['next']}&journal={page['journal']}")
    assert [record["data"]["Transaction"] for record in later.json["records"]] == [8]
    await wire.close()


async def test_log_lines_that_are_missing_are_counted_in_sight(serve) -> None:
    server = await serve()
    server.app._logs.dropped = 7
    assert (await get(server.admin_port, "/health")).json["logs"]["dropped"] == 7
    text = (await get(server.admin_port, "/metrics")).body.decode()
    assert "ptslink_log_lines_dropped_total 7.0" in text
    assert "ptslink_logs_ok 1.0" in text


async def asked(wire: Wire) -> dict[str, Any]:
    content = json.loads(await wire.text())
    assert content["Protocol"] == "jsonPTS"
    (packet,) = content["Packets"]
    assert packet["Id"] < 65536
    return packet


def reply_to(packet: dict[str, Any], type_: str, data: Any) -> bytes:
    # Real controllers leave PtsId out of replies.
    content = {
        "Protocol": "jsonPTS",
        "Packets": [{"Id": packet["Id"], "Type": type_, "Data": data}],
    }
    return json.dumps(content).encode()


def events(tmp_path: Path, code: str) -> list[dict[str, Any]]:
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        query = "SELECT detail FROM evidence WHERE kind = 'event' AND code = ?"
        return [json.loads(detail) for (detail,) in connection.execute(query, (code,))]


async def test_a_question_is_answered_by_the_controller(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    target = f"/controllers/{CONTROLLER}/command"
    asking = asyncio.create_task(
        post_unix(tmp_path / "admin.sock", target, {"Type": "GetDateTime"})
    )
    packet = await asked(wire)
    assert packet["Type"] == "GetDateTime"
    await until(lambda: events(tmp_path, "command-sent"))
    (event,) = events(tmp_path, "command-sent")
    assert event["type"] == "GetDateTime"
    # The whole message, as the one who looks for a frame that breaks links wants to know.
    assert event["bytes"] == len(
        b'{"Protocol":"jsonPTS","Packets":[{"Id":1,"Type":"GetDateTime"}]}'
    )
    await wire.upload(sale(1))
    wire.send(reply_to(packet, "DateTime", {"DateTime": "2026-03-01T10:00:00"}))
    reply = await asking
    assert reply.status == 200
    assert reply.json == {
        "type": "DateTime",
        "error": False,
        "data": {"DateTime": "2026-03-01T10:00:00"},
    }
    # Late and duplicate replies are tolerated and counted.
    wire.send(reply_to(packet, "DateTime", {}))
    wire.send(reply_to({"Id": 999}, "DateTime", {}))
    await until(lambda: server.app.downlink.unexpected == 2)
    assert (await wire.upload(sale(2)))["Packets"][0]["Message"] == "OK"
    await wire.close()


async def test_replies_are_matched_by_id_whatever_their_order(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    target = f"/controllers/{CONTROLLER.lower()}/command"
    tasks = {
        type_: asyncio.create_task(post_unix(tmp_path / "admin.sock", target, {"Type": type_}))
        for type_ in ("GetDateTime", "GetControllerType")
    }
    packets = [await asked(wire), await asked(wire)]
    for packet in reversed(packets):
        wire.send(reply_to(packet, packet["Type"].removeprefix("Get"), {"of": packet["Type"]}))
    for type_, task in tasks.items():
        assert (await task).json["data"] == {"of": type_}
    await wire.close()


@pytest.mark.parametrize(
    "type_",
    [
        "PumpAuthorize",
        "SetFuelGradesPrices",
        "SetRemoteServerConfiguration",
        "Restart",
        "",
        "x" * 99,
    ],
)
async def test_nothing_that_moves_fuel_or_changes_anything_is_sent(serve, tmp_path, type_) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    reply = await post_unix(
        tmp_path / "admin.sock", f"/controllers/{CONTROLLER}/command", {"Type": type_}
    )
    assert reply.status == 403
    assert reply.json["error"] == "command-not-allowed"
    wire.write(frame(b"x", 9))
    assert (await wire.frame())[0] == 10  # nothing came before the pong
    await wire.close()


def test_the_allow_list_of_commands_only_asks() -> None:
    assert all(type_.startswith("Get") for type_ in ALLOWED)


async def test_commands_are_not_taken_over_tcp_nor_on_the_link_port(serve) -> None:
    server = await serve()
    link = await Wire.link(server.port)
    target = f"/controllers/{CONTROLLER}/command"
    body = b'{"Type":"GetDateTime"}'
    asking = (
        f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    for port, status in ((server.admin_port, 403), (server.port, 404)):
        wire = await Wire.connect(port)
        assert (await wire.ask(asking)).status == status
        await wire.close()
    await link.close()


@pytest.mark.parametrize("content", [{}, {"Type": 5}, [], {"Type": "GetDateTime", "Data": {}}])
async def test_a_malformed_command_is_400(serve, tmp_path, content) -> None:
    await serve()
    reply = await post_unix(tmp_path / "admin.sock", f"/controllers/{CONTROLLER}/command", content)
    assert reply.status == 400


async def test_no_reply_and_no_controller(serve, tmp_path) -> None:
    server = await serve(admin={"command_seconds": 1})
    path = tmp_path / "admin.sock"
    target = f"/controllers/{CONTROLLER}/command"
    assert (await post_unix(path, target, {"Type": "GetDateTime"})).status == 404
    wire = await Wire.link(server.port)
    asking = asyncio.create_task(post_unix(path, target, {"Type": "GetDateTime"}))
    await asked(wire)
    await wire.close()
    assert (await asking).json["error"] == "link-lost"
    wire = await Wire.link(server.port)
    assert (await post_unix(path, target, {"Type": "GetDateTime"})).json["error"] == "no-reply"
    await wire.close()


async def test_the_admin_socket_is_for_owner_and_group(serve, tmp_path) -> None:
    await serve()
    assert (tmp_path / "admin.sock").stat().st_mode & 0o777 == 0o660


def config_file(tmp_path: Path) -> Path:
    config = tmp_path / "c.toml"
    config.write_text(
        f'[journal]\npath = "{tmp_path}/journal.db"\n[admin]\nsocket = "{tmp_path}/admin.sock"\n'
    )
    return config


def cli(tmp_path: Path, name: str, *arguments: str) -> tuple[int, str]:
    command = [name, "--config", str(config_file(tmp_path)), *arguments]
    result = CliRunner().invoke(main, command)
    return result.exit_code, result.output


async def test_ask_prints_the_reply(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    asking = asyncio.create_task(asyncio.to_thread(cli, tmp_path, "ask", CONTROLLER, "GetDateTime"))
    wire.send(reply_to(await asked(wire), "DateTime", {"UTCOffset": 120}))
    code, text = await asking
    assert code == 0
    assert json.loads(text)["data"] == {"UTCOffset": 120}
    await wire.close()
    await until(lambda: not len(server.app.registry))
    code, text = await asyncio.to_thread(cli, tmp_path, "ask", CONTROLLER, "GetDateTime")
    assert code == 1
    assert "not connected" in text


async def test_export_gives_every_record_once(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    cursor = tmp_path / "cursor"
    seen = []
    for round_ in range(3):
        for number in range(round_ * 3, round_ * 3 + 3):
            await wire.upload(sale(number))
        code, text = await asyncio.to_thread(cli, tmp_path, "export", "--cursor-file", str(cursor))
        assert code == 0
        seen += [json.loads(line)["data"]["Transaction"] for line in text.splitlines()]
    assert seen == list(range(1, 10))
    code, text = await asyncio.to_thread(cli, tmp_path, "export", "--cursor-file", str(cursor))
    assert (code, text) == (0, "")
    await wire.close()


async def test_export_to_csv_has_the_columns_of_the_specification(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    await wire.upload(sale(1, Volume=23100.0, FuelGradeName="=1+1", Novelty={"a": 1}))
    await wire.upload({"Id": 2, "Type": "UploadShift", "Data": {"Number": 3}})
    out = tmp_path / "sales.csv"
    code, _ = await asyncio.to_thread(
        cli,
        tmp_path,
        "export",
        *("--format", "csv", "--type", "UploadPumpTransaction", "--output", str(out)),
    )
    assert code == 0
    (row,) = csv.DictReader(io.StringIO(out.read_text()))
    assert row["controller"] == CONTROLLER
    assert row["Volume"] == "23100.0"
    assert row["FuelGradeName"] == "'=1+1"
    assert json.loads(row["other"])["Novelty"] == {"a": 1}
    code, text = await asyncio.to_thread(cli, tmp_path, "export", "--format", "csv")
    assert code == 0
    assert len(list(csv.DictReader(io.StringIO(text)))) == 2
    await wire.close()


SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text())
UNIT = Path(__file__).parents[3] / "roles/pts_server/templates/ptslink.socket.j2"


def queue_length(listener: socket.socket) -> int:
    """How many connections may wait (tcp_info: tcpi_sacked of a listening socket)."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    return int.from_bytes(info[28:32], sys.byteorder)


def test_the_unit_asks_for_the_queue_that_the_server_keeps() -> None:
    assert f"\nBacklog={BACKLOG}\n" in UNIT.read_text()


async def test_handed_over_sockets_are_used(serve) -> None:
    handed = socket.socket()
    handed.bind(("127.0.0.1", 0))
    handed.listen(4096)
    handed.setblocking(False)
    port = handed.getsockname()[1]
    # Connections made before the server runs wait in the socket; none is refused.
    early = await Wire.connect(port)
    early.send(b"")
    early = await Wire.connect(port)
    server = await serve(listen={"port": 1}, inherited=[("ptslink.socket", handed)])
    assert server.port == port
    assert queue_length(handed) == min(4096, SOMAXCONN)
    assert (await early.ask(request())).status == 101
    early.send(message(sale(1)))
    assert b"OK" in await early.text()
    await early.close()
