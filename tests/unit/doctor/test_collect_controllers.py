"""The settings of controllers: out of what they uploaded, or asked for over the admin socket."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ptslink.doctor.causes.controller import CAUSES
from ptslink.doctor.collect.controllers import collect, from_upload, read_settings
from ptslink.doctor.collect.edge import Stopwatch
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.journal.entry import Entry, Fact, Transport
from ptslink.journal.store import Store
from unit.doctor.traces import CONTROLLER

TOLD = {
    "IpAddress": [0, 0, 0, 0],
    "DomainName": "pts.example.test",
    "ProtocolType": "HTTPS",
    "SecretKey": "never to be shown",
    "Port": 80,
    "WebsocketsPort": 3000,
    "WebsocketsUri": "ptsWebSocket",
    "WebsocketsPingRequestsPeriodSeconds": 30,
    "UseWebsocketsCommunication": True,
}
FACTS = {
    "ip_address": "0.0.0.0",
    "domain_name": "pts.example.test",
    "tls": True,
    "port": 80,
    "websockets_port": 3000,
    "uri": "ptsWebSocket",
    "ping_seconds": 30,
    "websockets": True,
}


def test_settings_are_read_and_the_secret_is_left() -> None:
    assert read_settings(TOLD) == FACTS


@pytest.mark.parametrize(
    "data", [{}, {"IpAddress": "192.0.2.1"}, {"IpAddress": [1, 2]}, {"ProtocolType": 7}]
)
def test_what_is_not_told_as_the_protocol_has_it_is_missing(data: dict[str, Any]) -> None:
    assert read_settings(data) == {}


@pytest.mark.parametrize(
    "configuration",
    [None, {}, [], ["x"], [{"Type": "Other"}], [{"Type": "RemoteServerConfiguration", "Data": 1}]],
)
def test_an_upload_without_settings_tells_none(configuration: Any) -> None:
    assert from_upload(configuration) is None


def upload(path: Path, *changes: dict[str, Any]) -> str:
    """A journal to which one controller uploaded its configuration after each of *changes*."""
    store = Store(path)
    for number, change in enumerate(changes):
        settings = {"Type": "RemoteServerConfiguration", "Data": TOLD | change}
        packet = {
            "Id": 1,
            "Type": "UploadConfiguration",
            "ConfigurationId": f"{number}",
            "Configuration": [{"Type": "PumpsConfiguration", "Data": {}}, settings],
        }
        raw = json.dumps({"Protocol": "jsonPTS", "Packets": [packet]}).encode()
        fact = Fact(0, "UploadConfiguration", number.to_bytes(16, "big"), None, None)
        at = 1_795_000_000_000 + number
        store.write([Entry(CONTROLLER, at, Transport.WEBSOCKET, 1, raw, [fact])], [])
    store.close()
    return str(path)


def collected(
    journal: str, socket: str = "", connected: list[str] | None = None, *, ask: bool = False
) -> list[Evidence]:
    tables = {"journal": {"path": journal}, "admin": {"socket": socket}}
    return list(collect(Stopwatch(), tables, connected or [], ask))


def test_the_newest_upload_counts(tmp_path: Path) -> None:
    journal = upload(tmp_path / "j.db", {}, {"DomainName": "new.example.test"})
    [piece] = collected(journal)
    assert piece.facts["domain_name"] == "new.example.test"
    assert (piece.facts["asked"], piece.facts["connected"]) == (False, False)
    assert piece.facts["as_of"] == pytest.approx(1_795_000_000.001)
    assert "secret" not in json.dumps(piece.to_json())


def test_a_server_that_was_restarted_still_knows_what_was_uploaded(tmp_path: Path) -> None:
    journal = upload(tmp_path / "j.db", {})
    # Ids go on with the time of day: by far more than as many later as are looked back.
    with patch("ptslink.journal.schema.clock_id", return_value=10**16):
        store = Store(Path(journal))
        fact = Fact(0, "UploadShift", bytes(16), None, None)
        store.write([Entry(CONTROLLER, 1, Transport.WEBSOCKET, 1, b"{}", [fact])], [])
        store.close()
    [piece] = collected(journal)
    assert piece.facts["domain_name"] == TOLD["DomainName"]


def test_without_a_journal_nothing_is_told(tmp_path: Path) -> None:
    assert collected(str(tmp_path / "missing.db")) == []


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """An admin socket: its path, and what it answers, by controller."""
    answers: dict[str, Any] = {}

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert asked == {"Type": "GetRemoteServerConfiguration"}
            content = json.dumps(answers[self.path.split("/")[2]]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

        def address_string(self) -> str:
            return "unix"

    path = str(tmp_path / "admin.sock")
    with socketserver.ThreadingUnixStreamServer(path, Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield path, answers
        server.shutdown()
        thread.join()


def test_who_is_connected_is_asked_only_when_told_to(
    tmp_path: Path, admin: tuple[str, dict[str, Any]]
) -> None:
    socket, answers = admin
    answers[CONTROLLER] = {"type": "RemoteServerConfiguration", "data": TOLD | {"Port": 8080}}
    journal = upload(tmp_path / "j.db", {})
    [silent] = collected(journal, socket, [CONTROLLER])
    assert (silent.facts["asked"], silent.facts["port"]) == (False, 80)
    [asked] = collected(journal, socket, [CONTROLLER], ask=True)
    assert (asked.facts["asked"], asked.facts["port"]) == (True, 8080)


def test_one_that_does_not_say_is_named_and_nothing_is_inferred(
    tmp_path: Path, admin: tuple[str, dict[str, Any]]
) -> None:
    socket, answers = admin
    answers["AB"] = {"error": "no-reply", "message": "No reply to it in time."}
    answers["CD"] = {"type": "RemoteServerConfiguration", "data": TOLD}
    found = collected(str(tmp_path / "none.db"), socket, ["AB", "CD"], ask=True)
    assert [piece.status for piece in found] == [Status.UNKNOWN, Status.OK]
    assert "AB: asked for its settings, said: No reply" in found[0].seen


def test_no_socket_is_said_and_does_not_hide_the_rest(tmp_path: Path) -> None:
    [piece] = collected(str(tmp_path / "j.db"), str(tmp_path / "no.sock"), ["AB"], ask=True)
    assert piece.status is Status.UNKNOWN
    assert "cannot be asked" in piece.seen


def found_in(*told: dict[str, Any]) -> set[str]:
    evidence = [Evidence("controller.config", Status.OK, "", facts, 0, "server") for facts in told]
    case = Case("ws://192.0.2.7/ptsWebSocket", evidence)
    return {cause.id for cause in CAUSES if cause.judge(case) is not None}


@pytest.mark.parametrize(
    ("change", "id_"),
    [
        ({"UseWebsocketsCommunication": False}, "dev-ws-disabled"),
        ({"IpAddress": [192, 0, 2, 7]}, "dev-ip-vs-domain"),
    ],
)
def test_settings_are_a_finding_only_of_who_is_not_connected(
    change: dict[str, Any], id_: str
) -> None:
    facts = {"controller": CONTROLLER, **read_settings(TOLD | change)}
    assert found_in(facts | {"connected": False}) == {id_}
    assert found_in(facts | {"connected": True}) == set()
    assert found_in({"controller": CONTROLLER, **FACTS, "connected": False}) == set()
