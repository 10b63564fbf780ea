"""``ptslink simulate`` as a person types it."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from click.testing import CliRunner

from ptslink.simulator.command import simulate
from unit.simulator.station_server import station


async def cli(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ptslink.cli",
        "simulate",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_good_run_prints_the_contract_and_exits_0() -> None:
    async with station() as server:
        code, out, _ = await cli(server.url, "--controllers", "2", "--once", "--json")
    assert code == 0
    data = json.loads(out)
    assert data["ok"] is True
    assert len(data["controllers"]) == 2
    for controller in data["controllers"]:
        assert {"id", "status", "accept_ok", "sent", "confirmed", "rejected", "close", "error"} <= (
            controller.keys()
        )
        assert len(controller["id"]) == 24
        assert controller["sent"] == controller["confirmed"]


async def test_an_unconfirmed_run_exits_1_and_says_what_came() -> None:
    async with station(lambda p: {"Id": p["Id"], "Type": "Confirmation", "Message": "OK"}) as srv:
        code, out, _ = await cli(srv.url, "--once", "--timeout", "0.5")
    assert code == 1
    assert "0 of 1 controllers had everything confirmed" in out
    assert 'Type is "Confirmation"' in out


async def test_identity_credentials_and_secret_reach_the_handshake() -> None:
    async with station() as server:
        code, _, _ = await cli(
            server.url,
            *("--once", "--id", "00AB12", "--login", "station", "--password", "secret"),
            *("--secret", "unit-test-key"),
        )
    assert code == 0
    headers = dict(server.requests[0])
    assert headers["X-Pts-Id"] == "00AB12"
    assert headers["Authorization"] == "Basic c3RhdGlvbjpzZWNyZXQ="
    assert list(headers)[-2:] == ["X-DateTime", "X-Data-Signature"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://x/"], "use ws:// or wss://"),
        (["ws://x/", "--id", "XYZ"], "'XYZ' is not an id of 1 to 24 hex digits"),
        (["ws://x/", "--id", "AB", "-n", "2"], "2 controllers but 1 --id"),
        (["ws://x/", "--secret", "a" * 21], "21 characters, the controller takes at most 20"),
        (["ws://x/", "--login", "a" * 11], "11 characters, the controller takes at most 10"),
        (["ws://x/", "--login", "a"], "--login needs a password too"),
        (["ws://x/", "--login", "a", "--password", "b" * 11], "at most 10"),
        (["wss://x/", "--ca", "/no/such/file"], "/no/such/file"),
        (["ws://x/", "--kind", "Nonsense"], "UploadPumpTransaction"),
        (["ws://x/", "-n", "0"], "-n"),
    ],
)
def test_bad_arguments_exit_2_and_name_the_fault(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(simulate, arguments)
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.replace("│", " ").split())
