"""What strangers name takes nothing from what controllers name: types, closing codes, replies."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ptslink.server.admission import SILENT_TIMES
from ptslink.server.ask_command import put_question
from support.wire import CONTROLLER, Wire, close_frame, message, sale, until


async def test_invented_types_do_not_push_the_known_ones_aside(serve, tmp_path: Path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    for first in range(1, 301, 100):
        await wire.upload(
            *({"Id": n, "Type": f"UploadInvented{n}"} for n in range(first, first + 100))
        )
    await wire.upload(sale(1), {"Id": 2, "Type": "UploadConfiguration"})
    counted = server.app.packets
    assert (counted["UploadPumpTransaction"], counted["UploadConfiguration"]) == (1, 1)
    assert counted["Other"] == 300 - 64
    assert len(counted) == 64 + 3
    await wire.close()
    await until(lambda: list((tmp_path / "logs").glob("UploadPumpTransaction_*.log")))


async def test_closing_codes_do_not_grow_the_metrics(serve) -> None:
    server = await serve()
    codes = (1000, 1001, 3000, 3999, 4000, 4001, 4999)
    for code in codes:
        wire = await Wire.link(server.port)
        wire.write(close_frame(code))
        assert (await wire.until_close())[0] == code
        await wire.close()
    await until(lambda: sum(server.app.endings.values()) == len(codes))
    assert server.app.endings == {
        "closed-1000-by-peer": 1,
        "closed-1001-by-peer": 1,
        "closed-3xxx-by-peer": 2,
        "closed-4000-by-peer": 1,
        "closed-4xxx-by-peer": 2,
    }


@pytest.mark.parametrize(
    "data",
    ["[" * 50_000 + "]" * 50_000, "9" * 5000, "1e999", '"\\ud800"', "[1e400, {}]", '"\\u0000"'],
    ids=lambda data: data[:8],
)
async def test_a_reply_of_any_json_is_an_answer(serve, tmp_path: Path, data: str) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    asking = asyncio.create_task(
        asyncio.to_thread(put_question, tmp_path / "admin.sock", CONTROLLER, "GetDateTime", 30)
    )
    packet = json.loads(await wire.text())["Packets"][0]
    reply = message({"Id": packet["Id"], "Type": "DateTime", "Data": "?"})
    wire.send(reply.replace(b'"?"', data.encode()))
    status, content = await asking
    assert (status, content["type"]) == (200, "DateTime")
    # And the link goes on.
    assert (await wire.upload(sale(1)))["Packets"][0]["Message"] == "OK"
    await wire.close()


async def test_who_connects_without_a_byte_is_named_once(serve, tmp_path: Path) -> None:
    server = await serve()

    def named() -> list[str]:
        texts = [path.read_text() for path in (tmp_path / "logs").glob("Server_*.log")]
        return [line for line in "".join(texts).splitlines() if "silent-caller" in line]

    for _ in range(SILENT_TIMES + 5):
        wire = await Wire.connect(server.port)
        await wire.close()
    await until(lambda: server.app.attempts.get("closed-before-request") == SILENT_TIMES + 5)
    await until(named)
    (line,) = named()
    assert "127.0.0.1 connected 60 times and sent not one byte" in line


async def test_who_says_a_little_is_not_taken_for_silent(serve) -> None:
    server = await serve()
    for sent in (b"G", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"):
        wire = await Wire.connect(server.port)
        wire.write(sent)
        await wire.close()
    await until(lambda: server.app.attempts.get("closed-before-request") == 2)
    assert server.app.admission._silent == {}
