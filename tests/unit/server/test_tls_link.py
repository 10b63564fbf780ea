"""TLS: 1.2 and 1.3, RSA and ECDSA side by side, renewal without a restart, failures recorded."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_serve_command import write_config

from ptslink.cli import main
from ptslink.server import service
from support.ports import free_port
from support.wire import Wire, close_frame, message, request, sale, until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the keys")

KINDS = {
    "rsa": ["-newkey", "rsa:2048"],
    "ecdsa": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
}


def certificate(directory: Path, kind: str, name: str = "first") -> dict[str, str]:
    paths = {part: str(directory / f"{kind}.{part}.pem") for part in ("certificate", "key")}
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-nodes", "-days", "2", *KINDS[kind]),
            *("-subj", f"/CN={name}-{kind}", "-keyout", paths["key"], "-out", paths["certificate"]),
        ],
        check=True,
        capture_output=True,
    )
    return {f"{kind}_{part}": path for part, path in paths.items()}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("keys")
    return {**certificate(directory, "rsa"), **certificate(directory, "ecdsa")}


def client(version: ssl.TLSVersion | None = None, ciphers: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if ciphers:
        context.set_ciphers(ciphers)
    return context


async def connect(port: int, context: ssl.SSLContext) -> Wire:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    return Wire(reader, writer)


@pytest.mark.parametrize(
    ("version", "ciphers", "kind"),
    [
        (ssl.TLSVersion.TLSv1_3, "", None),
        (ssl.TLSVersion.TLSv1_2, "", None),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256", b"first-rsa"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", b"first-ecdsa"),
        (ssl.TLSVersion.TLSv1_2, "AES128-SHA", b"first-rsa"),
    ],
)
async def test_whatever_the_device_can_it_gets_its_confirmation(
    serve, pairs, version, ciphers, kind
) -> None:
    server = await serve(tls={"port": free_port(), **pairs})
    wire = await connect(server.tls_port, client(version, ciphers))
    if kind is not None:
        shown = wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert kind in shown
    assert (await wire.ask(request())).status == 101
    payload = message(sale(1, CustomData="x" * 200_000))
    wire.send(payload)
    assert b'"Message":"OK"' in await wire.text()
    await wire.close()


async def test_an_http_answer_over_tls_ends_in_good_order(serve, pairs) -> None:
    server = await serve(tls={"port": free_port(), **pairs})
    wire = await connect(server.tls_port, client())
    reply = await wire.ask(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert reply.status == 200
    assert await wire.eof() == b""


async def test_stopping_closes_tls_links_with_1012(serve, pairs) -> None:
    server = await serve(tls={"port": free_port(), **pairs})
    wire = await connect(server.tls_port, client())
    await wire.ask(request())

    async def controller() -> int:
        code, _ = await wire.until_close()
        wire.write(close_frame(code))
        return code

    closing = asyncio.create_task(controller())
    await server.stop()
    assert await closing == 1012


def attempts(tmp_path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        return connection.execute(
            "SELECT code, detail FROM evidence WHERE kind = 'attempt'"
        ).fetchall()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET /ptsWebSocket HTTP/1.1\r\nHost: x\r\n\r\n", "tls-http-request"),
        (b"hello there, this is no TLS", "tls-"),
        (b"", "tls-unfinished"),
    ],
)
async def test_a_failed_tls_handshake_leaves_a_record(serve, pairs, tmp_path, sent, code) -> None:
    server = await serve(tls={"port": free_port(), **pairs})
    wire = await Wire.connect(server.tls_port)
    wire.write(sent)
    if sent:
        answer = await wire.eof()
        if sent.startswith(b"GET"):
            assert b"This port speaks TLS" in answer
    await wire.close()
    await until(lambda: attempts(tmp_path))
    ((found, detail),) = attempts(tmp_path)
    assert found.startswith(code)
    if sent:
        assert json.loads(detail)["first_bytes"]["hex"].startswith(sent[:4].hex(" "))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
async def test_tls_handshakes_that_nobody_ends_shut_nobody_out(serve, pairs, tmp_path) -> None:
    server = await serve(tls={"port": free_port(), **pairs}, limits={"connections": 3})
    silent = [await Wire.connect(server.tls_port) for _ in range(3)]
    await until(lambda: server.app.admission.open == 3)
    link = await connect(server.tls_port, client())
    assert (await link.ask(request())).status == 101
    assert await silent[0].eof() == b""
    await until(lambda: [code for code, _ in attempts(tmp_path)].count("silent-gave-way") == 1)
    for wire in (*silent, link):
        await wire.close()
    await until(lambda: server.app.admission.open == 0)


async def test_a_client_without_a_shared_version_is_recorded_by_name(
    serve, pairs, tmp_path
) -> None:
    server = await serve(tls={"port": free_port(), **pairs})
    old = client(ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        await connect(server.tls_port, old)
    await until(lambda: attempts(tmp_path))
    assert attempts(tmp_path)[0][0] == "tls-unsupported-protocol"


async def test_sighup_takes_over_renewed_certificates_and_keeps_links(tmp_path) -> None:
    mine = {**certificate(tmp_path, "rsa", "first")}
    port, tls_port = free_port(), free_port()
    lines = "\n".join(f'{key} = "{value}"' for key, value in mine.items())
    config = write_config(tmp_path, port, f"[tls]\nport = {tls_port}\n{lines}\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ptslink.cli", "serve", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None

    async def event(code: str) -> None:
        while True:
            line = await asyncio.wait_for(process.stdout.readline(), 10)
            if json.loads(line).get("code") == code:
                return

    async def name() -> bytes:
        wire = await connect(tls_port, client())
        shown = wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        await wire.close()
        return b"second-rsa" if b"second-rsa" in shown else b"first-rsa"

    try:
        await event("started")
        link = await connect(tls_port, client())
        assert (await link.ask(request())).status == 101
        assert await name() == b"first-rsa"
        (tmp_path / "rsa.key.pem").write_text("broken")
        process.send_signal(signal.SIGHUP)
        await event("reload-refused")
        assert await name() == b"first-rsa"
        certificate(tmp_path, "rsa", "second")
        config.write_text(config.read_text() + '[controllers]\nallowed = ["0A"]\n')
        process.send_signal(signal.SIGHUP)
        await event("reloaded")
        assert await name() == b"second-rsa"
        assert b"OK" in json.dumps(await link.upload(sale(1))).encode()
        other = await Wire.connect(port)
        assert (await other.ask(request())).status == 403
        await other.close()
        await link.close()
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 15) == 0


async def test_a_wrong_certificate_is_found_by_check_config(tmp_path, pairs) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        f'[tls]\nport = 3443\nrsa_certificate = "{pairs["rsa_certificate"]}"\n'
        f'rsa_key = "{pairs["ecdsa_key"]}"\n'
    )
    result = CliRunner().invoke(main, ["check-config", "--config", str(config)])
    assert result.exit_code == 2
    assert pairs["ecdsa_key"] in result.output
    config.write_text("[tls]\nport = 3443\n")
    result = CliRunner().invoke(main, ["check-config", "--config", str(config)])
    assert "tls.port = 3443 needs a certificate" in result.output


async def test_a_reload_without_certificates_changes_nothing(serve, pairs, tmp_path) -> None:
    server = await serve(tls={"port": free_port(), **pairs})
    server.reload(write_config(tmp_path, 0))
    wire = await connect(server.tls_port, client())
    assert (await wire.ask(request())).status == 101
    await wire.close()

    def refused() -> str:
        with sqlite3.connect(tmp_path / "journal.db") as connection:
            query = "SELECT detail FROM evidence WHERE code = 'reload-refused'"
            return "".join(detail for (detail,) in connection.execute(query))

    await until(refused)
    assert "[tls] names no certificate" in refused()


async def test_a_proxy_protocol_line_before_tls_is_named(serve, pairs) -> None:
    server = await serve(tls={"port": free_port(), **pairs})
    wire = await Wire.connect(server.tls_port)
    reply = await wire.ask(b"PROXY TCP4 192.0.2.9 192.0.2.1 40000 3000\r\n\x16\x03\x01")
    assert (reply.status, reply.json["error"]) == (400, "proxy-protocol")
    await wire.eof()
    assert server.app.attempts == {"proxy-protocol": 1}


async def test_a_peer_that_takes_nothing_over_tls_loses_its_place(
    serve, pairs, monkeypatch
) -> None:
    usual = service.front_limits
    monkeypatch.setattr(
        service, "front_limits", lambda *given: replace(usual(*given), send_seconds=0.3)
    )
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    tls = {"port": listener.getsockname()[1], **pairs}
    server = await serve(tls=tls, inherited=[("", listener)], limits={"head_seconds": 0.5})
    wire = await connect(server.tls_port, client())
    wire.writer.transport.pause_reading()
    wire.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 30_000)
    await until(lambda: server.app.admission.open)
    await until(lambda: not server.app.admission.open)
    wire.writer.transport.abort()
