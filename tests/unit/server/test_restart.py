"""A restart refuses nobody and closes with 1012 alone; the watchdog is fed from the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

from test_serve_command import write_config

from ptslink.server import systemd
from ptslink.server.config import parse
from ptslink.server.service import start_server
from ptslink.server.systemd import inherited_sockets, watchdog_seconds
from ptslink.server.vitals import Vitals
from support.wire import Wire, close_frame, request, sale, until


async def start(config: Path, listener: socket.socket) -> asyncio.subprocess.Process:
    """Start a server the way systemd does: the socket as descriptor 3, its own pid announced."""
    script = 'exec 3<&"$FD"; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"'
    descriptor = listener.fileno()
    return await asyncio.create_subprocess_exec(
        *("bash", "-c", script, "bash", sys.executable),
        *("-m", "ptslink.cli", "serve", "--config", str(config)),
        env={**os.environ, "FD": str(descriptor)},
        pass_fds=[descriptor],
        stdout=asyncio.subprocess.DEVNULL,
    )


async def test_a_restart_refuses_nobody_and_closes_with_1012_alone(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        port = listener.getsockname()[1]
        config = write_config(tmp_path, port)
        closes: list[int] = []
        refused = 0

        async def controller(number: int) -> None:
            nonlocal refused
            for round_ in range(2):
                try:
                    wire = await Wire.connect(port)
                except OSError:
                    refused += 1
                    return
                wire.write(request(X_Pts_Id=f"A{number:023X}"))
                reply = await asyncio.wait_for(wire.reply(), 20)
                assert reply.status == 101
                answer = await wire.upload(sale(round_ * 100 + number))
                assert answer["Packets"][0]["Message"] == "OK"
                linked[round_] += 1
                if round_ == 0:
                    code, _ = await asyncio.wait_for(wire.until_close(), 20)
                    closes.append(code)
                    wire.write(close_frame(code))
                await wire.close()

        linked = [0, 0]
        process = await start(config, listener)
        tasks = [asyncio.create_task(controller(number)) for number in range(40)]
        await until(lambda: linked[0] == 40, 20)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        # Between the two processes controllers connect, and wait.
        process = await start(config, listener)
        await asyncio.gather(*tasks)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert refused == 0
    assert closes == [1012] * 40
    assert linked == [40, 40]


async def test_the_watchdog_is_fed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(2)
        os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        try:
            watchdog = systemd.Watchdog(
                asyncio.get_running_loop(), 0.15, Vitals({"wheel": time.monotonic}), print
            )
            watchdog.start()
            await asyncio.sleep(0.2)
            states = received(channel)
            time.sleep(0.3)  # noqa: ASYNC251 - a loop that hangs
            missed = received(channel)
            watchdog.stop()
        finally:
            del os.environ["NOTIFY_SOCKET"]
    assert len(states) >= 3
    assert set(states) == {"WATCHDOG=1"}
    assert missed == []


def received(channel: socket.socket) -> list[str]:
    states = []
    channel.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            states.append(channel.recv(100).decode())
    return states


async def test_stopping_does_not_wait_for_ever_for_a_controller_that_is_gone(tmp_path) -> None:
    content = {
        "listen": {"addresses": ["127.0.0.1"], "port": 0},
        "journal": {"path": str(tmp_path / "journal.db")},
        "limits": {"drain_seconds": 0.5, "close_seconds": 60},
        "admin": {"port": 0, "socket": ""},
        "logs": {"directory": ""},
    }
    server = await start_server(parse(content))
    wire = await Wire.link(server.port)  # which answers no close
    began = time.monotonic()
    await server.stop()
    assert 0.4 < time.monotonic() - began < 5
    assert await wire.until_close() == (1012, "the server restarts")
    await wire.close()


def test_variables_meant_for_another_process_are_left_alone() -> None:
    other = {"LISTEN_PID": "1", "LISTEN_FDS": "3", "WATCHDOG_PID": "1", "WATCHDOG_USEC": "1000000"}
    assert inherited_sockets(dict(other)) == []
    assert watchdog_seconds(dict(other)) is None
    assert watchdog_seconds({"WATCHDOG_USEC": "3000000"}) == 3.0


async def test_a_link_that_comes_amid_the_stop_is_not_let_go_twice(serve) -> None:
    server = await serve()
    first = await Wire.link(server.port)
    server.app.hold_all()
    second = await Wire.link(server.port, X_Pts_Id="AB")
    server.app.close_all()
    assert [session.peer._holds for session in server.app.registry] == [0, 0]
    for wire in (first, second):
        assert (await wire.until_close())[0] == 1012
        wire.write(close_frame(1012))
        await wire.close()
