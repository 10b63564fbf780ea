"""The link probe against servers that are right, and wrong in one way each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import ptslink
from ptslink.doctor.evidence import Evidence
from ptslink.doctor.probe import PROBE_ID_PREFIX, link_result_from_json, probe_link
from ptslink.doctor.probe.frames import CLOSE, PING, PONG, TEXT, Frame, close_payload
from ptslink.doctor.probe.show import WIDTH, render
from support.ports import free_port
from unit.probe.scripted import Peer, ScriptedServer, right, upgraded

Serve = Callable[..., ScriptedServer]
SRC = Path(ptslink.__file__).parent.parent


def probe(server: ScriptedServer, **options: object):  # type: ignore[no-untyped-def]
    return probe_link(server.url, timeout=2, **options)  # type: ignore[arg-type]


def statuses(result) -> dict[str, str]:  # type: ignore[no-untyped-def]
    return {step.name: step.status for step in result.steps}


def test_a_right_server_passes_every_step(serve: Serve) -> None:
    result = probe(serve(right))
    assert result.ok
    assert result.cause is None
    assert (result.status, result.accept_ok) == (101, True)
    assert statuses(result) == {
        "resolve": "ok",
        "connect": "ok",
        "tls": "skipped",
        "get": "ok",
        "upgrade": "ok",
        "accept": "ok",
        "ping": "ok",
        "echo": "ok",
        "idle": "skipped",
        "close": "ok",
    }
    assert result.step("get").facts["status"] == 426
    assert result.step("close").facts == {"code": 1000, "reason": "", "fin": True}


def test_the_upgrade_carries_a_controllers_headers_in_a_controllers_order(serve: Serve) -> None:
    server = serve(right)
    result = probe(server, credentials="station:secret", get=False)
    assert result.ok
    server.stop()
    lines = server.heads[0].split("\r\n")
    assert lines[0] == "GET /ptsWebSocket HTTP/1.1"
    assert [line.partition(": ")[0] for line in lines[1:]] == [
        "Host",
        "Authorization",
        "Origin",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "X-Pts-Id",
        "X-Pts-Firmware-Version-DateTime",
        "X-Pts-Configuration-Identifier",
        "Sec-WebSocket-Version",
    ]
    assert f"Host: 127.0.0.1:{server.port}" in lines
    assert "Origin: http://127.0.0.1" in lines
    assert "Authorization: Basic c3RhdGlvbjpzZWNyZXQ=" in lines


def test_each_walk_has_an_id_of_its_own_in_the_reserved_range(serve: Serve) -> None:
    server = serve(right)
    ids = {probe(server, get=False).controller_id for _ in range(3)}
    assert len(ids) == 3
    assert all(i.startswith(PROBE_ID_PREFIX) and len(i) == 24 for i in ids)


def test_address_is_connected_to_while_host_stays(serve: Serve) -> None:
    server = serve(right)
    result = probe_link(
        f"ws://pts.invalid:{server.port}/a/b", address="127.0.0.1", timeout=2, get=False
    )
    assert result.ok
    assert result.step("resolve").status == "skipped"
    assert result.address == "127.0.0.1"
    server.stop()
    assert server.heads[0].startswith(f"GET /a/b HTTP/1.1\r\nHost: pts.invalid:{server.port}\r\n")


def test_a_name_that_does_not_exist_fails_to_resolve() -> None:
    result = probe_link("ws://no-such-name.invalid:3000/x", timeout=5)
    assert not result.ok
    assert result.step("resolve").status == "failed"
    assert result.cause is not None
    assert result.cause.startswith("Resolving no-such-name.invalid: EAI_")


def test_a_refused_connection_names_the_errno() -> None:
    result = probe_link(f"ws://127.0.0.1:{free_port()}/x", timeout=2)
    assert statuses(result)["connect"] == "failed"
    assert result.step("connect").facts["attempts"][0]["errno"] == "ECONNREFUSED"
    assert "ECONNREFUSED" in str(result.cause)
    assert result.status is None


def answering(status: str, body: str = "", extra: str = "") -> Callable[[Peer], None]:
    def run(peer: Peer) -> None:
        if peer.read_head():
            peer.answer(status, body, extra)

    return run


def chunked_404(peer: Peer) -> None:
    if peer.read_head():
        peer.send(
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
            "6\r\nNo pag\r\n6\r\ne here\r\n0\r\n\r\n"
        )


def closing(peer: Peer) -> None:
    peer.read_head()


def resetting(peer: Peer) -> None:
    peer.read_head()
    peer.reset()


def silent(peer: Peer) -> None:
    peer.read_head()
    peer.next_frame()


def banner(peer: Peer) -> None:
    peer.send("SSH-2.0-OpenSSH_9.2\r\n")
    peer.read_head()


def half_a_head(peer: Peer) -> None:
    if peer.read_head():
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpg")


def wrong_accept(peer: Peer) -> None:
    if peer.read_head():
        peer.accept(value="AAAAAAAAAAAAAAAAAAAAAAAAAAA=")


def no_accept(peer: Peer) -> None:
    if peer.read_head():
        peer.send("HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")


def unoffered_extension(peer: Peer) -> None:
    if peer.read_head():
        peer.accept(extra="Sec-WebSocket-Extensions: permessage-deflate\r\n")


def closes_1013(peer: Peer) -> None:
    peer.send_frame(Frame(CLOSE, close_payload(1013, "try again later")))
    peer.serve_frames()


def gone_after_101(peer: Peer) -> None:
    peer.next_frame()  # a close with unread bytes would be a RST


def reset_after_101(peer: Peer) -> None:
    peer.next_frame()
    peer.reset()


def masks(peer: Peer) -> None:
    frame = peer.next_frame()
    assert frame is not None
    peer.send_frame(Frame(PONG, frame.payload), mask=b"abcd")
    peer.serve_frames()


def compresses(peer: Peer) -> None:
    peer.send_frame(Frame(TEXT, b"x", rsv=4))
    peer.serve_frames()


def wrong_pong(peer: Peer) -> None:
    while (frame := peer.next_frame()) is not None:
        if frame.opcode == PING:
            peer.send_frame(Frame(PONG, b"other"))


def never_closes(peer: Peer) -> None:
    while (frame := peer.next_frame()) is not None:
        if frame.opcode == PING:
            peer.send_frame(Frame(PONG, frame.payload))


@pytest.mark.parametrize(
    ("script", "step", "words"),
    [
        (answering("404 Not Found", "<h1>404</h1>"), "upgrade", "HTTP 404 Not Found"),
        (answering("200 OK", "hello"), "upgrade", "HTTP 200 OK"),
        (
            answering("301 Moved Permanently", extra="Location: https://x/\r\n"),
            "upgrade",
            "Location https://x/",
        ),
        (chunked_404, "upgrade", "HTTP 404"),
        (closing, "upgrade", "closed the connection (FIN)"),
        (resetting, "upgrade", "reset the connection (RST)"),
        (silent, "upgrade", "nothing came within 0.3 s"),
        (banner, "upgrade", "SSH-2.0-OpenSSH_9.2"),
        (half_a_head, "upgrade", "cut off: HTTP/1.1 101"),
        (wrong_accept, "accept", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        (no_accept, "accept", "no Sec-WebSocket-Accept"),
        (unoffered_extension, "accept", "permessage-deflate"),
        (upgraded(closes_1013), "ping", "1013 try again later"),
        (upgraded(gone_after_101), "ping", "closed the connection (FIN)"),
        (upgraded(reset_after_101), "ping", "RST"),
        (upgraded(masks), "ping", "a masked"),
        (upgraded(compresses), "ping", "reserved bits"),
        (upgraded(wrong_pong), "ping", "nothing came within 0.3 s"),
        (upgraded(never_closes), "close", "nothing came within 0.3 s"),
    ],
)
def test_a_wrong_server_fails_at_its_step(
    serve: Serve, script: Callable[[Peer], None], step: str, words: str
) -> None:
    result = probe_link(serve(script).url, timeout=0.3)
    assert not result.ok
    found = statuses(result)
    assert found[step] == "failed"
    assert words in str(result.cause)
    after = list(found)[list(found).index(step) + 1 :]
    assert all(found[name] == "skipped" for name in after)


def test_the_body_of_a_refusal_is_kept_chunked_or_not(serve: Serve) -> None:
    assert probe(serve(chunked_404)).body == "No page here"
    long = probe(serve(answering("403 Forbidden", "y" * 2000)))
    assert long.body == "y" * 512


def test_a_server_ping_between_our_ping_and_its_pong_is_answered(serve: Serve) -> None:
    def pings_first(peer: Peer) -> None:
        first = peer.next_frame()
        assert first is not None
        peer.send_frame(Frame(PING, b"are you there"))
        peer.send_frame(Frame(TEXT, b'{"Protocol":"jsonPTS"}'))
        answer = peer.next_frame()
        assert answer == Frame(PONG, b"are you there", masked=True)
        peer.send_frame(Frame(PONG, first.payload))
        peer.serve_frames()

    result = probe(serve(upgraded(pings_first)))
    assert result.ok, result.cause
    assert result.step("ping").facts["messages"] == 1


def test_idle_answers_pings_and_proves_the_link_alive_afterwards(serve: Serve) -> None:
    def pings(peer: Peer) -> None:
        for _ in range(2):  # ping, echo
            frame = peer.next_frame()
            assert frame is not None
            peer.send_frame(Frame(PONG, frame.payload))
        peer.send_frame(Frame(PING, b"1"))
        assert peer.next_frame() == Frame(PONG, b"1", masked=True)
        peer.serve_frames()

    result = probe(serve(upgraded(pings)), idle=0.2)
    assert result.ok, result.cause
    assert result.step("idle").facts == {"seconds": 0.2, "server_pings": 1}


def test_a_link_cut_while_idle_says_after_how_long(serve: Serve) -> None:
    def cuts(peer: Peer) -> None:
        for _ in range(2):
            frame = peer.next_frame()
            assert frame is not None
            peer.send_frame(Frame(PONG, frame.payload))

    result = probe(serve(upgraded(cuts)), idle=1)
    assert statuses(result)["idle"] == "failed"
    assert "closed the connection (FIN)" in str(result.cause)
    assert result.step("idle").facts["after_seconds"] < 1


def test_a_refusal_says_how_long_its_connection_was_held_where_asked_to_wait(serve: Serve) -> None:
    def held(peer: Peer) -> None:
        if peer.read_head():
            peer.answer("503 Service Unavailable", "later")
            if peer.is_upgrade:
                time.sleep(0.4)

    server = serve(held)
    facts = probe(server, idle=2.0).step("upgrade").facts
    assert facts["held_ended"] == "fin"
    assert 0.35 <= facts["held_seconds"] <= 0.9
    assert probe(server, idle=0.1).step("upgrade").facts["held_ended"] == "timeout"
    assert "held_seconds" not in probe(server).step("upgrade").facts


def test_a_broken_get_does_not_break_the_link(serve: Serve) -> None:
    def only_upgrades(peer: Peer) -> None:
        if peer.read_head() and peer.is_upgrade:
            peer.accept()
            peer.serve_frames()

    result = probe(serve(only_upgrades))
    assert result.ok
    assert result.step("get").status == "failed"


def test_json_from_one_host_can_be_joined_on_another(serve: Serve) -> None:
    result = probe(serve(right))
    assert link_result_from_json(json.loads(json.dumps(result.as_json()))) == result


def test_people_get_one_line_a_step_within_80_columns(serve: Serve) -> None:
    result = probe(serve(answering("404 Not Found", "<h1>" + "long words " * 40)))
    text = render(result)
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert "\x1b" not in text
    assert [line.split()[0] for line in text.splitlines()[1:11]] == [s.name for s in result.steps]
    assert "\x1b[31m" in render(result, colour=True)


def run_bare(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The probe as a remote host runs it: no site-packages, no click."""
    return subprocess.run(
        [sys.executable, "-S", "-m", "ptslink.doctor.probe", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SRC), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_it_runs_where_only_python_is_installed(serve: Serve) -> None:
    server = serve(right)
    done = run_bare(server.url, "--json", "--basic-env", "LOGIN", LOGIN="a:b")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["ok"], data["status"], data["accept_ok"]) == (True, 101, True)
    broken = run_bare(serve(answering("404 Not Found")).url, "--json")
    assert broken.returncode == 1
    assert json.loads(broken.stdout)["cause"] == (
        "The server answered the upgrade with HTTP 404 Not Found."
    )


def test_a_host_with_only_python_can_gather_evidence_for_another(serve: Serve) -> None:
    done = run_bare(serve(right).url, "--survey", "--vantage", "control")
    assert done.returncode == 0, done.stderr
    found = [Evidence.from_json(piece) for piece in json.loads(done.stdout)]
    assert {"dns.resolve", "tcp.connect", "http.upgrade", "ws.large"} <= {p.probe for p in found}
    assert all(piece.vantage == "control" for piece in found)
    broken = run_bare(serve(answering("404 Not Found")).url, "--survey")
    assert broken.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["http://x/"], "use ws:// or wss://"),
        (["ws:///x"], "no host"),
        (["ws://x:99999/"], "the port must be a number from 1 to 65535"),
        (["ws://user:pw@x/"], "a login does not belong in the URL"),
        (["ws://x/", "--timeout", "0"], "--timeout"),
        (["ws://x/", "--controller-id", "xyz"], "1 to 24 hex digits"),
        (["ws://x/", "--basic-env", "UNSET_NAME"], "UNSET_NAME"),
        (["wss://x/", "--ca", "/no/such/file"], "/no/such/file"),
    ],
)
def test_bad_arguments_exit_2_and_name_the_fault(arguments: list[str], words: str) -> None:
    done = run_bare(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""
    assert "pw@" not in done.stderr
