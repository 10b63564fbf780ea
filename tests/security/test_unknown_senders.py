"""A client that is no known controller cannot fill the journal, and nothing it sends is confirmed
unless it is kept for good."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from ptslink.server.admission import counted_as
from ptslink.server.intake import KEPT_BYTES_PER_ADDRESS
from support.wire import CONTROLLER, Wire, frame, message, request, sale, until

NAMELESS = {"drop": ("X-Pts-Id",)}
UNREADABLE = b"hello, is anybody there?"
FOREIGN = b'{"jsonrpc":"2.0","method":"hello"}'
REPLY = b'{"Protocol":"jsonPTS","Packets":[{"Id":1,"Type":"DateTime","Data":{}}]}'


def nameless(*packets: dict[str, Any]) -> bytes:
    return json.dumps({"Protocol": "jsonPTS", "Packets": packets}, separators=(",", ":")).encode()


def rows(directory: Path, query: str) -> list[Any]:
    with sqlite3.connect(directory / "journal.db") as connection:
        return connection.execute(query).fetchall()


def journaled(directory: Path) -> int:
    """Rows in every table of which nothing is ever deleted, and the latest status."""
    tables = ("controllers", "messages", "records", "variants", "status_latest")
    return sum(rows(directory, f"SELECT count(*) FROM {table}")[0][0] for table in tables)


def refusals(directory: Path, code: str) -> list[tuple[str, dict[str, Any]]]:
    found = rows(directory, f"SELECT peer, detail FROM evidence WHERE code = '{code}' ORDER BY id")
    return [(peer, json.loads(detail)) for peer, detail in found]


async def test_an_upload_that_names_no_controller_is_refused_and_kept_as_evidence(
    serve, tmp_path
) -> None:
    server = await serve()
    wire = await Wire.link(server.port, **NAMELESS)
    status = {"Id": 2, "Type": "UploadStatus", "Data": {"BatteryVoltage": 1}}
    wire.send(nameless(sale(1), status))
    for answer, type_ in zip(
        json.loads(await wire.text())["Packets"],
        ("UploadPumpTransaction", "UploadStatus"),
        strict=True,
    ):
        assert (answer["Type"], answer["Error"], answer["Code"]) == (type_, True, 500)
        assert "PtsId" in answer["Message"]
    await until(lambda: refusals(tmp_path, "no-controller-id"))
    ((peer, detail),) = refusals(tmp_path, "no-controller-id")
    assert peer == "127.0.0.1"
    assert "UploadPumpTransaction" in detail["text"]
    assert detail["bytes"] == len(nameless(sale(1), status))
    assert journaled(tmp_path) == 0
    await wire.close()


@pytest.mark.parametrize("payload", [UNREADABLE, FOREIGN, REPLY], ids=["text", "json", "reply"])
@pytest.mark.parametrize("named", [True, False], ids=["with an id", "without one"])
async def test_what_is_no_upload_of_a_known_controller_is_no_record(
    serve, tmp_path, payload: bytes, named: bool
) -> None:
    server = await serve()
    wire = await Wire.link(server.port, **({} if named else NAMELESS))
    wire.send(payload)
    code = "not-jsonpts" if named else "no-controller-id"
    await until(lambda: refusals(tmp_path, code))
    ((peer, detail),) = refusals(tmp_path, code)
    assert peer == "127.0.0.1"
    assert f"{len(payload)} bytes from 127.0.0.1" in detail["message"]
    assert ("JSON is malformed" in detail["message"]) is (payload is UNREADABLE)
    assert journaled(tmp_path) == 0
    assert not server.app.journal.knows(CONTROLLER)
    await wire.close()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [(nameless(sale(1)), 200, b'"Error":true'), (UNREADABLE, 400, b'"no-controller-id"')],
)
async def test_a_posted_upload_without_a_controller_is_refused_as_well(
    serve, tmp_path, body: bytes, status: int, said: bytes
) -> None:
    server = await serve()
    wire = await Wire.connect(server.port)
    post = request(
        "/jsonPTS",
        method="POST",
        drop=("X-Pts-Id", "Upgrade", "Connection"),
        body=body,
        Content_Length=str(len(body)),
    )
    reply = await wire.ask(post)
    assert (reply.status, said in reply.body) == (status, True)
    await until(lambda: refusals(tmp_path, "no-controller-id"))
    assert journaled(tmp_path) == 0
    await wire.close()


@pytest.mark.parametrize("payload", [UNREADABLE, FOREIGN, REPLY], ids=["text", "json", "reply"])
async def test_what_a_known_controller_sends_is_kept_whatever_it_is(
    serve, tmp_path, payload: bytes
) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    await wire.upload(sale(1))
    wire.send(payload)
    await wire.upload(sale(2))
    assert (payload,) in rows(tmp_path, "SELECT raw FROM messages")
    await wire.close()


async def test_a_controller_on_the_allow_list_is_known_before_its_first_upload(serve) -> None:
    server = await serve(
        controllers={"allowed": [CONTROLLER]}, limits={"new_controllers_per_address": 0}
    )
    wire = await Wire.link(server.port)
    assert (await wire.upload(sale(1)))["Packets"][0]["Message"] == "OK"
    await wire.close()


async def test_an_address_brings_so_many_new_controllers_a_day_and_known_ones_as_before(
    serve, tmp_path
) -> None:
    server = await serve(limits={"new_controllers_per_address": 2})
    links = [await Wire.link(server.port, X_Pts_Id=id_) for id_ in ("0A", "0B", "0C")]
    first, second, third = links
    assert (await first.upload(sale(1)))["Packets"][0]["Message"] == "OK"
    assert (await second.upload(sale(2)))["Packets"][0]["Message"] == "OK"
    refused = (await third.upload(sale(3)))["Packets"][0]
    assert (refused["Error"], refused["Code"]) == (True, 500)
    assert "new_controllers_per_address" in refused["Message"]
    assert (await first.upload(sale(4)))["Packets"][0]["Message"] == "OK"
    assert rows(tmp_path, "SELECT pts_id FROM controllers") == [("0A",), ("0B",)]
    assert rows(tmp_path, "SELECT count(*) FROM messages") == [(3,)]
    for wire in links:
        await wire.close()


async def test_an_id_in_the_message_alone_counts_like_one_in_the_handshake(serve, tmp_path) -> None:
    server = await serve(limits={"new_controllers_per_address": 2})
    wire = await Wire.connect(server.port)
    answers = []
    for number in range(4):
        body = message(sale(number), PtsId=f"0{number}")
        post = request("/jsonPTS", method="POST", drop=("X-Pts-Id", "Upgrade", "Connection"),
                       body=body, Content_Length=str(len(body)))  # fmt: skip
        answers.append((await wire.ask(post)).json["Packets"][0]["Message"])
    assert answers[:2] == ["OK", "OK"]
    assert "OK" not in answers[2:]
    assert rows(tmp_path, "SELECT count(*) FROM controllers") == [(2,)]
    await wire.close()


async def test_a_flood_costs_a_bounded_amount_and_health_names_who_sends_it(
    serve, tmp_path
) -> None:
    server = await serve()
    wire = await Wire.link(server.port, **NAMELESS)
    text = b"x" * 2000
    count = 2 * KEPT_BYTES_PER_ADDRESS // len(text)
    wire.write(frame(text) * count)
    await until(lambda: server.app.health()["refused_messages"]["messages"] == count)
    told = server.app.health()["refused_messages"]
    (caller,) = told["addresses"]
    assert (caller["address"], caller["messages"]) == ("127.0.0.1", count)
    assert caller["bytes"] == count * len(text)
    assert caller["reason"] == "no-controller-id"
    assert server.app.health()["status"] == "ok"
    named = await Wire.link(server.port)
    await named.upload(sale(1))  # evidence that came before it is committed with it
    kept = rows(
        tmp_path,
        "SELECT coalesce(sum(length(detail)), 0), count(*) FROM evidence"
        " WHERE code = 'no-controller-id'",
    )
    assert 0 < kept[0][0] <= KEPT_BYTES_PER_ADDRESS
    assert kept[0][1] < count
    assert rows(tmp_path, "SELECT pts_id FROM controllers") == [(CONTROLLER,)]
    assert rows(tmp_path, "SELECT count(*) FROM messages") == [(1,)]
    await wire.close()
    await named.close()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("198.51.100.7", "198.51.100.8", False),
        ("2001:db8:0:1::7", "2001:db8:0:1:ffff::9", True),
        ("2001:db8:0:1::7", "2001:db8:0:2::7", False),
        ("::ffff:198.51.100.7", "198.51.100.7", True),
        ("", "", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_ipv6_addresses_count_by_their_64(one: str, other: str, same: bool) -> None:
    assert (counted_as(one) == counted_as(other)) is same
