"""A controller that writes names in a national code page: every sale is kept, and can be read."""

from __future__ import annotations

import asyncio
import csv
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ptslink.cli import main
from ptslink.server.config import ConfigError, parse
from support.wire import Reply, Wire, frame, message, request, sale, until

NAME = "Дизель"


def named(name: str, code_page: str, number: int = 1, **more: Any) -> bytes:
    """A sale with a fuel's name written in a code page."""
    return message(sale(number, FuelGradeName="?", **more)).replace(b"?", name.encode(code_page))


def rows(directory: Path, query: str) -> list[Any]:
    with sqlite3.connect(directory / "journal.db") as connection:
        return connection.execute(query).fetchall()


async def confirmed(wire: Wire) -> list[Any]:
    answer = json.loads(await wire.text())
    return [packet["Id"] for packet in answer["Packets"] if packet["Message"] == "OK"]


@pytest.mark.parametrize("pieces", [1, 2], ids=["one frame", "in fragments"])
async def test_a_sale_that_is_not_utf8_is_confirmed_noted_and_kept_byte_for_byte(
    serve, tmp_path, pieces: int
) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    sent = named(NAME, "cp1251", 5)
    middle = sent.index(NAME.encode("cp1251")) + 1
    wire.write(
        frame(sent) if pieces == 1 else frame(sent[:middle], fin=False) + frame(sent[middle:], 0)
    )
    assert await confirmed(wire) == [5]
    assert rows(tmp_path, "SELECT raw, notes FROM messages") == [(sent, "not-utf8")]
    await until(lambda: rows(tmp_path, "SELECT detail FROM evidence WHERE code = 'not-utf8'"))
    await wire.close()


async def test_a_status_that_is_not_utf8_is_kept_as_it_came(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    status = {"Id": 1, "Type": "UploadStatus", "Data": {"UTCOffset": 120, "Name": "?"}}
    sent = message(status).replace(b"?", NAME.encode("cp1251"))
    wire.send(sent)
    assert await confirmed(wire) == [1]
    assert rows(tmp_path, "SELECT data FROM status_latest") == [(sent,)]
    assert rows(tmp_path, "SELECT utc_offset FROM controllers") == [(120,)]
    await wire.close()


async def test_a_resend_is_no_variant_and_another_name_is_one(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    for number, name in ((1, NAME), (2, NAME), (3, "Мазут!")):
        wire.send(named(name, "cp1251", 1, CustomData="x").replace(b'"Id":1', b'"Id":%d' % number))
        assert await confirmed(wire) == [number]
    assert rows(tmp_path, "SELECT count(*) FROM records") == [(1,)]
    assert rows(tmp_path, "SELECT count(*) FROM variants") == [(1,)]
    await wire.close()


async def test_a_long_message_is_confirmed_whole(serve) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    wire.send(
        message(sale(1, FuelGradeName="?"), sale(2, CustomData="x" * 200_000), sale(3)).replace(
            b"?", NAME.encode("cp1251")
        )
    )
    assert await confirmed(wire) == [1, 2, 3]
    await wire.close()


async def records(directory: Path) -> list[dict[str, Any]]:
    wire = Wire(*await asyncio.open_unix_connection(str(directory / "admin.sock")))
    reply: Reply = await wire.ask(request("/records", drop=("Upgrade", "Connection")))
    await wire.close()
    found: list[dict[str, Any]] = reply.json["records"]
    return found


@pytest.mark.parametrize(
    ("written", "code_page", "read"),
    [
        ("cp1251", "cp1251", NAME),
        ("cp1251", "windows-1251", NAME),
        ("cp866", "cp866", NAME),
        ("cp1251", "", "\N{REPLACEMENT CHARACTER}" * len(NAME)),
        ("utf-8", "cp1251", NAME),
    ],
)
async def test_the_code_page_decodes_what_is_read_and_exported(
    serve, tmp_path, written: str, code_page: str, read: str
) -> None:
    server = await serve(controllers={"code_page": code_page})
    wire = await Wire.link(server.port)
    wire.send(named(NAME, written))
    assert await confirmed(wire) == [1]
    await wire.close()
    [record] = await records(tmp_path)
    assert record["data"]["FuelGradeName"] == read
    config = tmp_path / "ptslink.toml"
    config.write_text(
        f'[journal]\npath = "{tmp_path}/journal.db"\n[controllers]\ncode_page = "{code_page}"\n'
    )
    for form in ("jsonl", "csv"):
        done = CliRunner().invoke(
            main,
            ["export", "--config", str(config), "--format", form, "--output", str(tmp_path / form)],
        )
        assert done.exit_code == 0, done.output
    [line] = (tmp_path / "jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["data"]["FuelGradeName"] == read
    with (tmp_path / "csv").open(encoding="utf-8", newline="") as lines:
        [cells] = csv.DictReader(lines)
    assert json.loads(cells["data"])["FuelGradeName"] == read


async def test_a_message_that_cannot_be_read_is_shown_in_the_code_page(serve, tmp_path) -> None:
    server = await serve(controllers={"code_page": "cp1251"})
    wire = await Wire.link(server.port)
    wire.send(named(NAME, "cp1251").replace(b'"Volume":', b'"Volume":nan,,'))
    assert await confirmed(wire) == [1]
    await wire.close()
    [record] = await records(tmp_path)
    assert (record["data"], record["flags"]) == (None, ["no-time", "no-data", "fished"])
    assert NAME in record["message"]


@pytest.mark.parametrize("name", ["", "cp1251", "CP866", "latin-1", "gb18030", "utf-8"])
def test_code_pages_that_contain_ascii_are_accepted(name: str) -> None:
    try:
        parse({"controllers": {"code_page": name}})
    except ConfigError as error:
        pytest.fail(str(error))
