"""Each deviation on the wire, against the faithful controller's bytes from the same seed."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ptslink.doctor.probe.frames import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    encode_frame,
)
from ptslink.doctor.probe.target import parse_target
from ptslink.simulator import session
from ptslink.simulator.manner import Manner
from ptslink.simulator.misbehave import (
    FAITHFUL_SHOWS,
    TABLE,
    DeviationError,
    bend,
    conduct,
    dialling,
    framing,
    handshake,
    listing,
    tls,
)
from ptslink.simulator.result import SimulationResult, render
from ptslink.simulator.run import Simulation, simulate
from ptslink.simulator.setup import Setup, new_identities
from unit.simulator.recorder import Recorder, Taken
from unit.simulator.station_server import confirm, raw_server, station


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CLOSE_SECONDS", 0.02)


#: Both runs of a comparison read the same time.
CLOCK = datetime.fromisoformat("2026-01-02T03:04:05")


def setup(url: str, *misbehave: str, controllers: int = 1, **options: Any) -> Setup:
    options.setdefault("timeout", 2.0)
    return Setup(
        parse_target(url),
        new_identities(controllers, "test"),
        manner=bend(misbehave, Manner(clock=CLOCK)),
        ramp=1000,
        **options,
    )


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (the condition lies in a server that knows no events)
        await asyncio.sleep(0.01)


async def record(
    *misbehave: str, recorder: Recorder | None = None, **options: Any
) -> tuple[Recorder, SimulationResult, SimulationResult]:
    """One faithful connection, then one with *misbehave*, to the same recording server."""
    recorder = recorder or Recorder()
    async with raw_server(recorder.serve) as url:
        options.setdefault("kinds", ("UploadStatus", "UploadShift"))
        right = await simulate(setup(url, **options))
        bent = await simulate(setup(url, *misbehave, **options))
        await asyncio.sleep(0.02)
    return recorder, right, bent


# The table.


def test_every_deviation_is_listed_in_80_columns() -> None:
    lines = listing().splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(TABLE)
    assert all(len(line) <= 80 for line in lines)
    modules = (dialling, tls, handshake, framing, conduct)
    assert len(TABLE) == sum(len(module.DEVIATIONS) for module in modules)
    assert not TABLE.keys() & FAITHFUL_SHOWS.keys()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("nonsense", "no deviation is called 'nonsense'"),
        ("hs-bad-accept", "the faithful controller verifies the accept hash"),
        ("dns-resolver-unreachable", "it is a fault of the machine it runs on: drop UDP port 53"),
        ("dns-stale-or-wrong-ip", "let the name there point to another address"),
        ("l3-device-no-default-route", "take the default route of its machine away"),
        ("l3-device-wrong-gateway", "let the default route lead to a dead address"),
        ("hs-bad-key=weird", "one of test, short, long, missing"),
        ("hs-http10-device=1", "takes no value"),
        ("l3-wrong-server-ip", "needs a value: l3-wrong-server-ip=IP"),
        ("tcp-wrong-port=0", "not a whole number from 1 to 65535"),
        ("ws-device-idle-timeout=soon", "not a number of seconds"),
        ("tls-device-clock=yesterday", "YYYY-MM-DDThh:mm:ss"),
    ],
)
def test_what_is_no_deviation_is_refused_with_what_is(wanted: str, words: str) -> None:
    with pytest.raises(DeviationError, match=re.escape(words)):
        bend([wanted])


# Dialling.


@pytest.mark.parametrize(
    ("wanted", "url"),
    [
        ("dns-name-typo", "ws://no-such-name.invalid:3000/ptsWebSocket"),
        ("l3-wrong-server-ip=127.0.0.9", "ws://127.0.0.9:3000/ptsWebSocket"),
        ("tcp-wrong-port", "ws://127.0.0.1:81/ptsWebSocket"),
        ("tls-client-to-plain-port", "wss://127.0.0.1:3000/ptsWebSocket"),
    ],
)
def test_it_dials_elsewhere(wanted: str, url: str) -> None:
    simulation = Simulation(setup("ws://127.0.0.1:3000/ptsWebSocket", wanted))
    assert simulation._target.url == url


async def test_with_two_targets_it_tells_of_both_and_then_dials_the_other() -> None:
    async with station(ask=[{"Type": "GetRemoteServerConfiguration"}]) as server:
        options = {"once": False, "reconnect_seconds": 0.01}
        simulation = Simulation(setup(server.url, "dev-ip-vs-domain=127.0.0.9", **options))
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(simulation.run())
            await until(
                lambda: bool(simulation.results) and "127.0.0.9" in str(simulation.results[0].error)
            )
            simulation.stopping.set()
    [upload] = [p for p in server.packets if p["Type"] == "UploadConfiguration"]
    parts = {part["Type"]: part["Data"] for part in upload["Configuration"]}
    told = [parts["RemoteServerConfiguration"], server.replies[0]["Packets"][0]["Data"]]
    for settings in told:
        assert (settings["IpAddress"], settings["DomainName"]) == (
            [127, 0, 0, 9],
            "pts.example.test",
        )
    assert len(server.requests) == 1
    assert [code for code, _ in server.closes] == [1000]


def test_it_speaks_plainly_to_a_tls_port() -> None:
    simulation = Simulation(setup("wss://127.0.0.1:3000/x", "tls-plain-client-to-tls-port"))
    assert simulation._target.url == "ws://127.0.0.1:3000/x"
    assert simulation._tls is None


@pytest.mark.parametrize("wanted", ["dev-ws-disabled", "l3-device-offline"])
async def test_it_never_dials(wanted: str) -> None:
    recorder = Recorder()
    async with raw_server(recorder.serve) as url:
        result = await simulate(setup(url, wanted, once=False, duration=0.1))
    assert recorder.taken == []
    assert not result.ok


async def test_a_name_that_does_not_exist_is_not_resolved() -> None:
    result = await simulate(setup("ws://127.0.0.1:9/x", "dns-name-typo", timeout=5))
    assert "connect: EAI_" in str(result.controllers[0].error)


# The handshake: which lines of the head went, and which came instead.

HEADS: list[tuple[str, set[str], set[str]]] = [
    ("hs-wrong-path", {"GET /ptsWebSocket HTTP/1.1"}, {"GET //ptsWebSocket HTTP/1.1"}),
    ("hs-wrong-path=/PTS/", {"GET /ptsWebSocket HTTP/1.1"}, {"GET /PTS/ HTTP/1.1"}),
    ("hs-uri-no-slash", {"GET /ptsWebSocket HTTP/1.1"}, {"GET ptsWebSocket HTTP/1.1"}),
    ("hs-bad-key", {"Sec-WebSocket-Key: *"}, {"Sec-WebSocket-Key: test"}),
    ("hs-bad-key=short", {"Sec-WebSocket-Key: *"}, {"Sec-WebSocket-Key: OCBieXRlcyE="}),
    ("hs-bad-key=missing", {"Sec-WebSocket-Key: *"}, set()),
    ("hs-bad-version", {"Sec-WebSocket-Version: 13"}, {"Sec-WebSocket-Version: 8"}),
    ("hs-bad-version=missing", {"Sec-WebSocket-Version: 13"}, set()),
    ("hs-device-no-connection", {"Connection: Upgrade"}, set()),
    (
        "hs-device-no-connection=keep-alive",
        {"Connection: Upgrade"},
        {"Connection: keep-alive"},
    ),
    ("hs-device-no-upgrade", {"Upgrade: websocket"}, set()),
    ("hs-http10-device", {"GET /ptsWebSocket HTTP/1.1"}, {"GET /ptsWebSocket HTTP/1.0"}),
    ("hs-malformed-request=body", set(), {"Content-Length: 5"}),
    ("hs-origin-rejected", {"Origin: http://127.0.0.1"}, set()),
    ("hs-origin-rejected=x://y", {"Origin: http://127.0.0.1"}, {"Origin: x://y"}),
    ("hs-subprotocol", set(), {"Sec-WebSocket-Protocol: chat"}),
    ("hs-id-missing", {"X-Pts-Id: *"}, set()),
    ("hs-id-missing=blank", {"X-Pts-Id: *"}, {"X-Pts-Id: "}),
    ("hs-id-missing=long", {"X-Pts-Id: *"}, {"X-Pts-Id: " + "0123456789ABCDEF" * 3}),
    ("hs-id-unknown", {"X-Pts-Id: *"}, {"X-Pts-Id: 0BADC0DE0BADC0DE0BADC0DE"}),
    ("hs-auth-mismatch", set(), {"Authorization: Basic c3RhdGlvbjptaXN0eXBlZA=="}),
    ("ws-deflate-unsupported", set(), {"Sec-WebSocket-Extensions: permessage-deflate"}),
    (
        "px-forward-proxy",
        {"GET /ptsWebSocket HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade"},
        {
            "GET /ptsWebSocket HTTP/1.0",
            "Via: 1.0 proxy.site.invalid (squid)",
            "Connection: close",
        },
    ),
]


def lines(taken: Taken) -> list[str]:
    return taken.head.decode().removesuffix("\r\n\r\n").split("\r\n")


@pytest.mark.parametrize(("wanted", "gone", "instead"), HEADS)
async def test_the_head_differs_in_exactly_these_lines(
    wanted: str, gone: set[str], instead: set[str]
) -> None:
    recorder, _, _ = await record(wanted)
    right, bent = (lines(taken) for taken in recorder.taken[:2])
    missing = {line for line in right if line not in bent}
    shown = {f"{m.partition(': ')[0]}: *" if any("*" in g for g in gone) else m for m in missing}
    assert shown == gone
    assert {line for line in bent if line not in right} == instead
    # What stayed, stayed in order.
    assert [x for x in right if x in bent] == [x for x in bent if x in right]


async def test_a_post_carries_an_upload_in_its_body() -> None:
    recorder, _, _ = await record("hs-method-post", timeout=0.3)
    taken = recorder.taken[1]
    assert taken.head.startswith(b"POST /ptsWebSocket HTTP/1.1\r\n")
    assert b"Upgrade" not in taken.head
    length = int(taken.head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
    body = taken.data[len(taken.head) :][:length]
    assert body.endswith(b"}\r\n")
    assert json.loads(body)["Packets"][0]["Type"] == "UploadStatus"


async def test_line_feeds_alone_end_the_lines() -> None:
    recorder, _, _ = await record("hs-malformed-request")
    right, bent = (taken.head for taken in recorder.taken[:2])
    assert bent == right.replace(b"\r\n", b"\n")


async def test_garbage_is_no_http_at_all() -> None:
    recorder, _, _ = await record("hs-malformed-request=garbage")
    assert recorder.taken[1].data.startswith(b"\x02PTS\x03 ")


async def test_half_a_head_and_then_nothing() -> None:
    recorder, right, bent = await record("hs-slow-handshake", timeout=0.2)
    whole, half = (taken.data for taken in recorder.taken[:2])
    head = recorder.taken[0].head
    assert half == head[: len(head) // 2]
    assert whole.startswith(half)
    assert right.controllers[0].status == 101
    assert "no answer within 0.2 s" in str(bent.controllers[0].error)


async def test_the_sending_side_ends_behind_the_request() -> None:
    recorder, _, _ = await record("hs-half-close-499")
    taken = recorder.taken[1]
    assert taken.data == taken.head
    assert taken.ended == "fin"


async def test_a_strict_device_does_not_find_a_lower_case_accept() -> None:
    recorder = Recorder(accept_name="sec-websocket-accept")
    _, right, bent = await record("px-header-case", recorder=recorder)
    assert right.controllers[0].accept_ok
    assert not bent.controllers[0].accept_ok
    assert recorder.taken[1].frames == []
    spelled = Recorder()
    _, _, content = await record("px-header-case", recorder=spelled)
    assert content.controllers[0].accept_ok


async def test_a_refusal_is_sat_out() -> None:
    recorder = Recorder(answer=b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    _, _, bent = await record("px-error-held-open", recorder=recorder, timeout=0.15)
    closed, held = recorder.taken[:2]
    assert held.ended_at - held.opened_at >= 0.14
    assert closed.ended_at - closed.opened_at < 0.14
    assert "connection held for 0.1" in str(bent.controllers[0].error)


async def test_a_secret_that_was_mistyped_signs_wrongly() -> None:
    recorder, _, _ = await record("hs-auth-mismatch=signature")
    assert b"X-Data-Signature: " in recorder.taken[1].head
    assert b"X-Data-Signature: " not in recorder.taken[0].head


@pytest.mark.parametrize(
    ("value", "start"), [("digest", "Authorization: Digest username="), ("none", None)]
)
async def test_other_credentials(value: str, start: str | None) -> None:
    recorder, _, _ = await record(f"hs-auth-mismatch={value}")
    found = [line for line in lines(recorder.taken[1]) if line.startswith("Authorization")]
    assert [line.startswith(str(start)) for line in found] == ([True] if start else [])


# Frames.


def inflated(payload: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")


async def test_the_faithful_controllers_frames_are_masked_plain_text() -> None:
    recorder, _, _ = await record()
    for taken in recorder.taken:
        assert all(f.masked and f.rsv == 0 for f in taken.frames)
        assert [f.opcode for f in taken.frames] == [TEXT, TEXT, CLOSE]


async def test_compressed_frames_hold_the_same_messages() -> None:
    recorder, _, _ = await record("ws-rsv1-compressed")
    right, bent = (taken.frames for taken in recorder.taken[:2])
    assert [f.rsv for f in bent] == [4, 4, 0]
    assert inflated(bent[1].payload) == right[1].payload


async def test_the_reserved_bit_alone() -> None:
    recorder, _, _ = await record("ws-rsv1-compressed=bit")
    right, bent = (taken.frames for taken in recorder.taken[:2])
    assert [f.rsv for f in bent] == [4, 4, 0]
    assert bent[1].payload == right[1].payload


async def test_reserved_bits_at_random() -> None:
    recorder, _, _ = await record("ws-rsv1-compressed=noise")
    assert all(f.rsv for f in recorder.taken[1].frames if f.opcode == TEXT)


PING_FRAME = encode_frame(Frame(PING, b"there?"))


async def test_only_pong_and_close_are_unmasked() -> None:
    recorder, _, _ = await record("ws-unmasked", recorder=Recorder(says=PING_FRAME))
    masked = {f.opcode: f.masked for f in recorder.taken[1].frames}
    assert masked == {TEXT: True, PONG: False, CLOSE: False}
    assert all(f.masked for f in recorder.taken[0].frames)


async def test_nothing_is_masked() -> None:
    recorder, _, _ = await record("ws-unmasked=all")
    assert not any(f.masked for f in recorder.taken[1].frames)


async def test_pings_are_not_answered() -> None:
    recorder, _, _ = await record("ws-ping-unanswered", recorder=Recorder(says=PING_FRAME))
    right, bent = ([f.opcode for f in taken.frames] for taken in recorder.taken[:2])
    assert PONG in right
    assert PONG not in bent
    assert [o for o in right if o != PONG] == bent


async def test_a_grade_is_named_in_cp1251() -> None:
    recorder, _, _ = await record("ws-invalid-utf8")
    status = recorder.taken[1].frames[0].payload
    assert "Дизель".encode("cp1251") in status
    with pytest.raises(UnicodeDecodeError):
        status.decode()
    assert recorder.taken[0].frames[0].payload.decode()


async def test_one_frame_of_the_size_asked_for() -> None:
    recorder, _, _ = await record("ws-too-big=70000")
    right, bent = (taken.frames for taken in recorder.taken[:2])
    assert (bent[0].fin, len(bent[0].payload)) == (True, 70000)
    assert json.loads(bent[0].payload)["Packets"][0]["Type"] == "UploadStatus"
    assert bent[1].payload == right[1].payload


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("opcode", [(0x3, True)]),
        ("continuation", [(CONTINUATION, True)]),
        ("interleaved", [(TEXT, False), (TEXT, True)]),
        ("long-control", [(PING, True)]),
        ("split-control", [(PING, False)]),
    ],
)
async def test_it_begins_with_a_forbidden_frame(value: str, expected: list[Any]) -> None:
    recorder, _, _ = await record(f"ws-bad-frame={value}")
    right, bent = (taken.frames for taken in recorder.taken[:2])
    assert [(f.opcode, f.fin) for f in bent[: len(expected)]] == expected
    assert all(f.masked for f in bent)
    if value == "long-control":
        assert len(bent[0].payload) == 126
    assert bent[len(expected)].opcode == right[0].opcode


async def test_it_repeats_its_get_after_the_upgrade() -> None:
    recorder, _, _ = await record("ws-http-after-upgrade", timeout=0.3)
    taken = recorder.taken[1]
    assert taken.data.startswith(taken.head + taken.head)


COMPRESSED = encode_frame(Frame(TEXT, b"\xaaV*.", rsv=4))


async def test_it_drops_the_link_at_a_compressed_frame() -> None:
    recorder, _, _ = await record("ws-deflate-unsupported", recorder=Recorder(says=COMPRESSED))
    right, bent = ([f.opcode for f in taken.frames] for taken in recorder.taken[:2])
    assert CLOSE in right  # 1002, as RFC 6455 has it
    assert CLOSE not in bent


def says(text: str) -> Recorder:
    return Recorder(says=encode_frame(Frame(TEXT, text.encode())))


async def test_a_message_above_its_buffer_drops_the_link() -> None:
    big = json.dumps({"Protocol": "jsonPTS", "Packets": [], "x": "y" * 100})
    recorder, _, bent = await record("ws-server-frame-too-big=64", recorder=says(big))
    assert CLOSE not in [f.opcode for f in recorder.taken[1].frames]
    assert "the buffer holds 64" in str(bent.controllers[0].error)
    _, _, content = await record("ws-server-frame-too-big=640", recorder=says(big))
    assert "buffer" not in str(content.controllers[0].error)


# Conduct.


async def test_a_welcome_drops_the_link() -> None:
    recorder, _, bent = await record("app-first-message", recorder=says("Welcome"))
    assert CLOSE not in [f.opcode for f in recorder.taken[1].frames]
    assert "not jsonPTS" in str(bent.controllers[0].error)


async def test_silence_drops_the_link_and_traffic_keeps_it() -> None:
    silent = Recorder(confirms=False)
    async with raw_server(silent.serve) as url:
        options = {"once": False, "duration": 0.3, "timeout": 0.1, "reconnect_seconds": 0.05}
        result = await simulate(setup(url, "ws-device-idle-timeout=0.1", **options))
    assert result.controllers[0].first_error == "left: the server was silent for 0.1 s"
    async with station() as server:
        options = {"once": False, "status_period": 0.05, "duration": 0.6}
        result = await simulate(setup(server.url, "ws-device-idle-timeout=0.4", **options))
    assert result.ok, render(result)


async def test_an_unconfirmed_upload_drops_the_link_instead_of_being_resent() -> None:
    silent = Recorder(confirms=False)
    options = {"kinds": ("UploadShift",), "response_seconds": 0.05, "timeout": 0.3}
    recorder, _, bent = await record("app-no-confirmation", recorder=silent, **options)
    right, left = (taken.frames for taken in recorder.taken[:2])
    assert len([f for f in right if f.opcode == TEXT]) > 1
    assert len([f for f in left if f.opcode == TEXT]) == 1
    assert "UploadShift was not confirmed within 0.05 s" in str(bent.controllers[0].error)


async def test_two_controllers_share_an_id_but_not_a_configuration() -> None:
    async with station() as server:
        options = {"controllers": 3, "timeout": 2.0}
        await simulate(setup(server.url, "app-dup-id-replaced", **options))
    seen = [dict(request) for request in server.requests]
    assert len({h["X-Pts-Id"] for h in seen}) == 1
    assert len({h["X-Pts-Configuration-Identifier"] for h in seen}) == 3


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("truncated", None),
        ("trailing-comma", b",]}"),
        ("missing-comma", b' "Type"'),
        ("trailing-bytes", b"\r\n\x00"),
    ],
)
async def test_json_that_no_strict_parser_takes(value: str, read: bytes | None) -> None:
    recorder, _, _ = await record(f"app-handler-exception={value}")
    right, bent = (taken.frames[0].payload for taken in recorder.taken[:2])
    with pytest.raises(json.JSONDecodeError):
        json.loads(bent)
    assert json.loads(right)
    assert read is None or read in bent


async def test_ids_as_text_and_no_ptsid_change_nothing_else() -> None:
    recorder, _, _ = await record("id-as-text", "no-ptsid")
    right, bent = (json.loads(t.frames[1].payload) for t in recorder.taken[:2])
    assert bent["Packets"][0]["Id"] == str(right["Packets"][0]["Id"])
    assert "PtsId" not in bent
    right.pop("PtsId")
    right["Packets"][0]["Id"] = bent["Packets"][0]["Id"]
    assert bent == right


@pytest.mark.parametrize("wanted", ["clock-reset", "tls-device-clock"])
async def test_a_dead_clock_starts_in_the_year_2000(wanted: str) -> None:
    recorder, _, _ = await record(wanted)
    data = json.loads(recorder.taken[1].frames[0].payload)["Packets"][0]["Data"]
    assert data["DateTime"].startswith("2000-01-01T00:00:0")


async def test_a_storm_dials_again_and_again_without_a_close() -> None:
    recorder = Recorder()
    async with raw_server(recorder.serve) as url:
        await simulate(setup(url, "dev-reconnect-storm=0.02", once=False, duration=0.4))
    assert len(recorder.taken) >= 5
    assert all(t.ended == "fin" for t in recorder.taken[:-1])
    assert all(CLOSE not in [f.opcode for f in t.frames] for t in recorder.taken[:-1])


async def test_a_lost_link_is_not_dialled_again() -> None:
    async def drops(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        del writer

    seen: list[bytes] = []
    options = {"once": False, "duration": 0.3, "reconnect_seconds": 0.02}
    async with raw_server(drops) as url:
        await simulate(setup(url, "dev-no-reconnect", **options))
        assert len(seen) == 1
        await simulate(setup(url, **options))
        assert len(seen) > 2


@pytest.mark.parametrize(
    ("wanted", "connections"), [("tcp-half-open-ghost=0.05", 1), ("app-ghost-blocks=0.05", 2)]
)
async def test_a_ghost_sends_neither_fin_nor_rst_nor_acknowledgement(
    wanted: str, connections: int
) -> None:
    writers: list[asyncio.StreamWriter] = []
    recorder = Recorder()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await recorder.serve(reader, writer)

    async with raw_server(serve) as url:
        options = {"once": False, "reconnect_seconds": 0.01, "timeout": 0.1}
        simulation = Simulation(setup(url, wanted, **options))
        async with asyncio.TaskGroup() as group:
            group.create_task(simulation.run())
            await until(lambda: bool(simulation.results and simulation.results[0].errors))
            await asyncio.sleep(0.1)
            assert recorder.taken[0].ended == ""
            writers[0].write(PING_FRAME)
            await asyncio.sleep(0.15)
            assert unacknowledged(writers[0]) > 0
            assert recorder.taken[0].ended == ""
            assert PONG not in [f.opcode for f in recorder.taken[0].frames]
            assert min(len(recorder.taken), 2) == connections
            simulation.stopping.set()


def unacknowledged(writer: asyncio.StreamWriter) -> int:
    """Segments in flight, from TCP_INFO (tcpi_unacked, the seventh 32-bit word)."""
    sock: socket.socket = writer.get_extra_info("socket")
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[24:28], "little")


async def test_a_reboot_leaves_no_fin_and_uploads_the_configuration_first() -> None:
    async with station(confirm) as server:
        simulation = Simulation(
            setup(server.url, "dev-reboot-loop=0.15", once=False, reconnect_seconds=0.01)
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(simulation.run())
            await until(lambda: len(server.requests) > 2)
            assert server.closes == []  # the server noticed neither end
            simulation.stopping.set()
        kinds = [p["Type"] for p in server.packets]
    assert kinds[0] == "UploadStatus"
    assert kinds.count("UploadConfiguration") >= 2


async def test_a_rebooted_device_answers_its_old_connection_by_a_reset() -> None:
    """As a kernel does that knows nothing of a connection; a ghost would stay silent."""
    writers: list[asyncio.StreamWriter] = []
    recorder = Recorder()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await recorder.serve(reader, writer)

    async with raw_server(serve) as url:
        simulation = Simulation(setup(url, "dev-reboot-loop=0.05", once=False, timeout=0.1))
        async with asyncio.TaskGroup() as group:
            group.create_task(simulation.run())
            await until(lambda: bool(simulation.results and simulation.results[0].errors))
            silent = bool(simulation._ghosts)  # without CAP_NET_ADMIN it can only be a ghost
            assert recorder.taken[0].ended == ""
            writers[0].write(PING_FRAME)
            if not silent:
                await until(lambda: recorder.taken[0].ended == "rst")
            simulation.stopping.set()
    assert silent is not may_administer_the_network()


def may_administer_the_network() -> bool:
    """CAP_NET_ADMIN is number 12 (capabilities(7))."""
    status = Path("/proc/self/status").read_text()
    return bool(int(re.findall(r"CapEff:\s*([0-9a-f]+)", status)[0], 16) >> 12 & 1)


def test_each_deviation_has_a_test_that_shows_it() -> None:
    here = Path(__file__).parent
    text = "".join(path.read_text() for path in here.glob("test_simulator_misbehave*.py"))
    missing = [name for name in TABLE if f'"{name}' not in text]
    assert missing == []
