"""The 24 mistakes of an earlier server, one line each (PTS-2 protocol reference, section 4.3).

Most are proved not to recur by a test elsewhere: the table says which. The rest are here.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ptslink.cli import SUBCOMMANDS, main
from ptslink.jsonpts.columns import COLUMNS
from ptslink.server import settings
from ptslink.server.config import TABLES
from support.wire import CONTROLLER, Wire, close_frame, message, request, sale, until

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "tests" / "unit"

#: Number of the mistake -> where it is proved that it does not recur.
PROVED: dict[int, tuple[str, ...]] = {
    1: ("server/test_link.py::test_an_upload_is_stored_and_confirmed_with_its_own_id_and_type",),
    2: ("jsonpts/test_decoding.py::test_a_confirmation_begins_with_the_id_and_is_compact",),
    3: ("server/test_mistakes.py::test_03_field_names_are_those_of_the_specification",),
    4: ("server/test_quirks.py::test_01_nothing_unsolicited_not_even_on_connect",),
    5: (
        "server/test_evidence_records.py::test_each_ending_is_told_apart",
        "server/test_bad_input.py::test_a_bad_frame_closes_with_its_code",
    ),
    6: (
        "server/test_quirks.py::test_08_fast_reconnecting_is_never_refused",
        "server/test_mistakes.py::test_06_a_site_behind_one_address_comes_back_after_a_restart",
    ),
    7: ("server/test_quirks.py::test_02_a_message_that_comes_with_the_request_is_heard",),
    8: ("server/test_quirks.py::test_07_the_late_close_of_the_old_connection_spares_the_new_one",),
    9: ("server/test_mistakes.py::test_09_one_end_is_one_line_and_one_record",),
    10: ("server/test_quirks.py::test_03_any_origin_no_unoffered_subprotocol_no_compression",),
    11: ("server/test_mistakes.py::test_11_the_reason_of_a_close_is_text_in_the_log",),
    12: ("server/test_mistakes.py::test_12_every_setting_is_used",),
    13: ("server/test_quirks.py::test_16_no_secret_and_no_personal_data_in_the_logs",),
    14: (
        "server/test_admin_surface.py::test_commands_are_not_taken_over_tcp_nor_on_the_link_port",
        "server/test_mistakes.py::test_14_no_answer_opens_the_server_to_other_origins",
    ),
    15: ("server/test_admin_surface.py::test_replies_are_matched_by_id_whatever_their_order",),
    16: (
        "server/test_confirmation_order.py"
        "::test_a_stalled_disk_delays_confirmations_and_nothing_else",
        "server/test_evidence_records.py::test_log_files_go_by_age_and_by_size",
        "server/test_quirks.py::test_12_status_each_second_is_not_a_row_each_second",
    ),
    17: ("server/test_evidence_records.py::test_what_a_log_type_may_be_named",),
    18: ("server/test_evidence_records.py::test_logs_are_listed_counted_viewed_and_searched",),
    19: ("server/test_mistakes.py::test_19_nothing_in_a_message_can_imitate_a_log_line",),
    20: (
        "server/test_mistakes.py::test_20_a_fault_at_a_request_is_answered_500_and_recorded_once",
        "server/test_mistakes.py::test_20_a_fault_at_a_message_ends_that_link_alone",
    ),
    21: (
        "server/test_mistakes.py::test_21_a_request_for_a_tags_balance_is_not_answered",
        "jsonpts/test_decoding.py::test_no_tag_is_ever_authorised_by_default",
    ),
    22: ("server/test_confirmation_order.py::test_no_confirmation_leaves_before_the_commit",),
    23: ("server/test_mistakes.py::test_23_the_start_says_port_and_path_and_the_licence_is_there",),
    24: ("server/test_mistakes.py::test_24_every_command_can_be_run",),
}


@pytest.mark.parametrize("number", range(1, 25))
def test_every_mistake_has_its_proof(number: int) -> None:
    for place in PROVED[number]:
        file, _, name = place.partition("::")
        tree = ast.parse((UNIT / file).read_text())
        assert name in {getattr(node, "name", None) for node in tree.body}, place


def test_03_field_names_are_those_of_the_specification() -> None:
    assert {"UploadPumpTransaction", "UploadTankMeasurement", "UploadAlertRecord"} <= set(COLUMNS)
    for type_, names in COLUMNS.items():
        assert type_.startswith("Upload")
        # The specification writes every member in capitals at the start: no pumpId, no fuelType.
        assert all(re.fullmatch(r"[A-Z][A-Za-z]*", name) for name in names), type_


async def test_06_a_site_behind_one_address_comes_back_after_a_restart(serve) -> None:
    """500 controllers, one address, a journal that knows none of them, and failures before."""
    server = await serve()
    for _ in range(3):  # the first of them came while the server was not there yet
        stray = await Wire.connect(server.port)
        await stray.ask(request("/wrong"))
        await stray.close()
    wires = []
    for start in range(0, 500, 50):
        wires += await asyncio.gather(
            *(Wire.link(server.port, X_Pts_Id=f"A{n:023X}") for n in range(start + 1, start + 51))
        )
    assert len(server.app.registry.controllers()) == 500
    for wire in wires:
        wire.writer.transport.abort()
    await until(lambda: not len(server.app.registry))


def log_lines(tmp_path: Path, type_: str) -> list[str]:
    return [
        line
        for path in (tmp_path / "logs").glob(f"{type_}_*.log")
        for line in path.read_text().splitlines()
    ]


async def test_09_one_end_is_one_line_and_one_record(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    wire.writer.transport.abort()
    await until(lambda: not len(server.app.registry))
    assert sum(server.app.endings.values()) == 1
    await server.stop()
    assert len(log_lines(tmp_path, "Disconnection")) == 1


async def test_11_the_reason_of_a_close_is_text_in_the_log(serve, tmp_path) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    wire.write(close_frame(1001, "going to sleep"))
    assert await wire.until_close() == (1001, "going to sleep")
    await until(lambda: not len(server.app.registry))
    await server.stop()
    (line,) = log_lines(tmp_path, "Disconnection")
    assert "close 1001 received (going to sleep)" in line


@pytest.mark.parametrize(
    ("table", "key"),
    [(name, key) for name, table in TABLES.items() for key in settings.declared(table)],
)
def test_12_every_setting_is_used(table: str, key: str) -> None:
    source = "\n".join(
        path.read_text()
        for room in ("server", "journal")
        for path in (ROOT / "src" / "ptslink" / room).glob("*.py")
    )
    if table == "tls" and "_" in key:  # certificate and key are read in pairs
        assert 'f"{kind}_certificate"' in source
        return
    assert re.search(rf"\b(?:{table}|self\._\w+|settings|config|tls)\.{key}\b", source)


async def test_14_no_answer_opens_the_server_to_other_origins(serve) -> None:
    server = await serve()
    for port, path in ((server.port, "/health"), (server.port, "/x"), (server.admin_port, "/")):
        wire = await Wire.connect(port)
        reply = await wire.ask(request(path, drop=("Upgrade",), Origin="http://elsewhere"))
        assert not [name for name in reply.headers if name.startswith("access-control")]
        await wire.close()


async def test_19_nothing_in_a_message_can_imitate_a_log_line(serve, tmp_path) -> None:
    server = await serve(logs={"message_text": True})
    wire = await Wire.link(server.port)
    forged = "\n2026-01-01T00:00:00.000Z connection established successfully\n" + "-" * 80
    await wire.upload(sale(1, Tag=forged), {"Id": "a\nb", "Type": "UploadX", "Data": {}})
    await wire.close()
    await until(lambda: not len(server.app.registry))
    await server.stop()
    (line,) = log_lines(tmp_path, "UploadPumpTransaction")
    assert json.loads(json.loads(line[line.index("{") :])["data"])["Tag"] == forged
    assert len(log_lines(tmp_path, "UploadX")) == 1


def broken(*_arguments: Any, **_named: Any) -> Any:
    raise RuntimeError("secret detail")


async def test_20_a_fault_at_a_request_is_answered_500_and_recorded_once(
    serve, tmp_path, monkeypatch
) -> None:
    server = await serve()
    monkeypatch.setattr("ptslink.server.app.judge", broken)
    wire = await Wire.connect(server.port)
    reply = await wire.ask(request())
    assert reply.status == 500
    assert reply.json["error"] == "internal-error"
    assert "secret detail" not in reply.body.decode()
    assert re.fullmatch(r"RuntimeError at test_mistakes\.py:\d+", reply.json["fault"])
    assert await wire.eof() == b""
    assert server.app.attempts == {"internal-error": 1}
    monkeypatch.undo()
    after = await Wire.link(server.port)
    assert (await after.upload(sale(1)))["Packets"][0]["Message"] == "OK"
    await after.close()
    await until(lambda: not len(server.app.registry))
    await server.stop()
    assert len(log_lines(tmp_path, "ConnectionIssue")) == 1


async def test_20_a_fault_at_an_admin_request_is_answered_too(serve, tmp_path, monkeypatch) -> None:
    server = await serve()
    monkeypatch.setattr("ptslink.server.admin.render_metrics", broken)
    wire = await Wire.connect(server.admin_port)
    reply = await wire.ask(request("/metrics", drop=("Upgrade",)))
    assert (reply.status, reply.json["error"]) == (500, "internal-error")
    await server.stop()
    assert len([line for line in log_lines(tmp_path, "Server") if "internal-error" in line]) == 1


async def test_20_a_fault_at_a_message_ends_that_link_alone(serve, monkeypatch) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: reported.append(str(context["exception"]))
    )
    server = await serve()
    other = await Wire.link(server.port, X_Pts_Id="AB")
    wire = await Wire.link(server.port)
    monkeypatch.setattr("ptslink.server.uplink.file", broken)
    wire.send(message(sale(1)))
    assert await wire.until_close() == (1011, "internal error")
    monkeypatch.undo()
    assert reported == ["secret detail"]
    assert (await other.upload(sale(2)))["Packets"][0]["Message"] == "OK"
    await wire.close()
    await other.close()


async def test_21_a_request_for_a_tags_balance_is_not_answered(serve) -> None:
    server = await serve()
    wire = await Wire.link(server.port)
    asked = {"Id": 1, "Type": "RequestTagBalance", "Data": {"Tag": "0011223344"}}
    answer = await wire.upload(asked, sale(2))
    assert answer["Packets"] == [{"Id": 2, "Type": "UploadPumpTransaction", "Message": "OK"}]
    await wire.close()


async def test_23_the_start_says_port_and_path_and_the_licence_is_there(serve, tmp_path) -> None:
    server = await serve()
    await server.stop()
    first = log_lines(tmp_path, "Server")[0]
    assert f"Listening on port {server.port}, path /ptsWebSocket." in first
    assert "Apache License" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_24_every_command_can_be_run(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "usage: " in result.output.lower()


#: As the doctor's probe calls itself.
PROBE = "0" * 16 + "1A2B3C4D"


async def test_a_probe_is_welcome_and_leaves_nothing_but_evidence(serve, tmp_path) -> None:
    server = await serve(controllers={"allowed": [CONTROLLER]})
    first = await Wire.link(server.port, X_Pts_Id=PROBE)
    second = await Wire.link(server.port, X_Pts_Id=PROBE)
    second.send(message(sale(1), PtsId=PROBE))
    first.send(message(sale(2), PtsId=CONTROLLER))
    controller = await Wire.link(server.port)
    await controller.upload(sale(3))
    # Neither replaced the other, nor a controller; and nobody is found by such an id.
    assert len(server.app.registry) == 3
    assert server.app.registry.links == 1
    assert server.app.registry.controllers() == [CONTROLLER]
    assert server.app.health()["controllers"] == 1
    assert server.app.attempts == {"probe": 2, "accepted": 1}
    assert server.app.packets == {"UploadPumpTransaction": 1}
    assert not server.app.journal.knows(PROBE)
    # A stop says goodbye to probes as well.
    stopping = asyncio.ensure_future(server.stop())
    for wire in (first, second, controller):
        assert (await wire.until_close())[0] == 1012
        await wire.close()
    await stopping
    lines = log_lines(tmp_path, "Connection")
    assert sum(f'"controller":"{PROBE}"' in line and '"probe"' in line for line in lines) == 2


async def test_a_probes_upload_is_answered_and_not_kept(serve) -> None:
    server = await serve()
    body = message(sale(1), PtsId=PROBE)
    wire = await Wire.connect(server.port)
    reply = await wire.ask(
        request(
            method="POST",
            body=body,
            drop=("Upgrade",),
            X_Pts_Id=PROBE,
            Content_Length=str(len(body)),
        )
    )
    assert (reply.status, reply.json["Packets"]) == (200, [])
    assert not server.app.journal.knows(PROBE)


def test_the_probe_and_the_server_agree_on_what_a_probe_is() -> None:
    from ptslink.doctor import probe
    from ptslink.handshake import identity

    assert probe.PROBE_ID_PREFIX == identity.PROBE_ID_PREFIX
    assert not identity.Identity("0" * 16).probe
    assert identity.Identity(PROBE).probe


async def test_each_message_gets_exactly_one_confirmation(serve) -> None:
    """However they come: alone, together, as copies, in one segment with a ping."""
    server = await serve()
    wire = await Wire.link(server.port)
    numbers = [1, 2, 2, 3, 1, 4]
    for position, number in enumerate(numbers):
        wire.send(message(sale(number, id_=position)))
    confirmed = []
    while len(confirmed) < len(numbers):
        confirmed += [packet["Id"] for packet in json.loads(await wire.text())["Packets"]]
    assert confirmed == list(range(len(numbers)))
    # Nothing more comes: the answer to a ping is the next thing there is.
    wire.write(b"\x89\x80" + bytes(4))
    assert await wire.frame() == (10, b"")
    assert server.app.journal.health.stored == len(numbers)
    await wire.close()
