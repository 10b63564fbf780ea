"""The process: readiness, signals, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from ptslink.cli import main
from ptslink.server.config import load
from ptslink.server.service import start_server
from support.ports import free_port
from support.wire import Wire, close_frame, request, sale


def write_config(tmp_path: Path, port: int, extra: str = "") -> Path:
    config = tmp_path / "ptslink.toml"
    config.write_text(
        f"""
[listen]
addresses = ["127.0.0.1"]
port = {port}
[journal]
path = "{tmp_path}/journal.db"
[admin]
port = {free_port()}
socket = "{tmp_path}/admin.sock"
[logs]
directory = "{tmp_path}/logs"
{extra}"""
    )
    return config


async def test_serve_tells_systemd_closes_with_1012_and_exits_0(tmp_path: Path) -> None:
    port = free_port()
    config = write_config(tmp_path, port)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.setblocking(False)
        loop = asyncio.get_running_loop()

        async def state() -> str:
            return (await asyncio.wait_for(loop.sock_recv(channel, 200), 10)).decode()

        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "ptslink.cli", "serve", "--config", str(config)),
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            assert (await state()).splitlines()[0] == "READY=1"
            wire = await Wire.link(port)
            assert (await wire.upload(sale(1)))["Packets"][0]["Message"] == "OK"
            process.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in await state():
                pass
            assert (await wire.until_close())[0] == 1012
            wire.write(close_frame(1012))
            assert await wire.eof() == b""
            assert await asyncio.wait_for(process.wait(), 10) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    shown = CliRunner().invoke(main, ["journal", "summary", "--config", str(config), "--json"])
    assert json.loads(shown.output)["records"] == {"UploadPumpTransaction": 1}


async def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        config = write_config(tmp_path, port)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "ptslink.cli", "serve", "--config", str(config)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 1
    assert error.decode().startswith(f"Error: port {port} on 127.0.0.1 is already in use")
    assert error.count(b"\n") == 1


async def test_a_reload_takes_over_who_may_come_and_nothing_that_needs_a_restart(
    serve, tmp_path: Path
) -> None:
    server = await serve()
    config = write_config(tmp_path, 0, '[controllers]\nallowed = ["0A"]\n')
    text = config.read_text()
    config.write_text(
        text.replace("[listen]", '[listen]\npath = "other"\nhandshake_profile = "strict"')
    )
    server.reload(config)
    wire = await Wire.connect(server.port)
    assert (await wire.ask(request("/other", X_Pts_Id="0A"))).status == 404
    assert (await wire.ask(request(X_Pts_Id="0B"))).status == 403
    assert (await wire.ask(request(X_Pts_Id="0A", Sec_WebSocket_Key="test"))).status == 101
    await wire.close()


async def test_a_start_that_fails_late_ends_the_process(tmp_path: Path) -> None:
    """The journal's thread is under way by then."""
    config = write_config(tmp_path, free_port())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
        wrong.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="not available"):
            await start_server(load(config), inherited=[("", wrong)])
    assert not [thread for thread in threading.enumerate() if thread.name == "journal"]


def test_check_config_names_key_value_and_accepted_form(tmp_path: Path) -> None:
    config = tmp_path / "ptslink.toml"
    config.write_text('[listen]\nport = 70000\nprot = 1\npath = "/pts"\n[limit]\n')
    result = CliRunner().invoke(main, ["check-config", "--config", str(config)])
    assert result.exit_code == 2
    lines = result.output.splitlines()
    assert (
        f"{config}: listen.port = 70000 is not accepted; "
        "it must be a whole number from 0 to 65535" in lines
    )
    assert any("unknown key listen.prot; accepted in [listen]: addresses, port" in x for x in lines)
    assert any("listen.path = '/pts' is not accepted" in x for x in lines)
    assert any("unknown table [limit]; accepted: [listen]" in x for x in lines)


def test_check_config_accepts_an_empty_file(tmp_path: Path) -> None:
    config = tmp_path / "ptslink.toml"
    config.write_text("")
    result = CliRunner().invoke(main, ["check-config", "--config", str(config)])
    assert result.exit_code == 0
    assert "port 3000, path /ptsWebSocket" in result.output


def test_secrets_are_not_repeated_in_errors(tmp_path: Path) -> None:
    config = tmp_path / "ptslink.toml"
    config.write_text('[controllers]\nsecret = "a secret of more than twenty characters"\n')
    result = CliRunner().invoke(main, ["check-config", "--config", str(config)])
    assert result.exit_code == 2
    assert "a secret" not in result.output
    assert "at most 20 ASCII characters" in result.output


def test_summary_without_a_journal_says_so(tmp_path: Path) -> None:
    config = write_config(tmp_path, 3000)
    result = CliRunner().invoke(main, ["journal", "summary", "--config", str(config)])
    assert result.exit_code == 1
    assert "does not exist; has the server run" in result.output
