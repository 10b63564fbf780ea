"""The service's own traces: its configuration, its records, its log, who is connected."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from ptslink.doctor.collect import service
from ptslink.doctor.collect.edge import Output, Stopwatch
from ptslink.doctor.evidence import Evidence, Status
from unit.doctor.fake_machine import FakeMachine

ADMIN = {"address": "127.0.0.1", "port": 9180}
NOW = time.time()


def journal(path: Path, *rows: tuple[Any, ...]) -> str:
    """A journal with only its evidence in it."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE evidence (id INTEGER PRIMARY KEY, at INTEGER, kind TEXT,"
            " controller TEXT, peer TEXT, code TEXT, detail TEXT)"
        )
        connection.executemany(
            "INSERT INTO evidence (at, kind, controller, peer, code, detail)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )
    connection.close()
    return str(path)


def row(ago: float, kind: str, code: str, detail: str = "{}") -> tuple[Any, ...]:
    return (int((NOW - ago) * 1000), kind, "AABB", "198.51.100.20", code, detail)


def test_records_come_by_kind_oldest_first_in_seconds(tmp_path: Path) -> None:
    path = journal(
        tmp_path / "journal.db",
        row(10, "attempt", "accepted", '{"status": 101}'),
        row(20, "attempt", "wrong-path", '{"status": 404}'),
        row(5, "link", "lost-fin", '{"seconds": 2.5}'),
        row(1, "event", "stopping"),
    )
    piece = service._records(Stopwatch(), path, NOW - 3600)
    assert piece.status is Status.OK
    assert [a["code"] for a in piece.facts["attempts"]] == ["wrong-path", "accepted"]
    assert [a["status"] for a in piece.facts["attempts"]] == [404, 101]
    assert piece.facts["links"][0]["at"] == pytest.approx(NOW - 5, abs=0.01)
    assert piece.seen == "2 attempts, 1 links, 1 events"


def test_records_from_before_the_horizon_are_left_out(tmp_path: Path) -> None:
    path = journal(tmp_path / "journal.db", row(10, "link", "new"), row(4000, "link", "old"))
    piece = service._records(Stopwatch(), path, NOW - 3600)
    assert [record["code"] for record in piece.facts["links"]] == ["new"]


def test_only_the_newest_records_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RECORDS", 2)
    path = journal(tmp_path / "journal.db", *(row(100 - n, "link", f"l{n}") for n in range(5)))
    piece = service._records(Stopwatch(), path, NOW - 3600)
    assert [record["code"] for record in piece.facts["links"]] == ["l3", "l4"]


@pytest.mark.parametrize("content", [None, b"", b"this is no database, though long enough" * 9])
def test_a_journal_that_cannot_be_read_is_skipped_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "journal.db"
    if content is not None:
        file.write_bytes(content)
    piece = service._records(Stopwatch(), str(file), 0.0)
    assert piece.status is Status.SKIPPED
    assert str(file) in piece.seen


def test_a_detail_that_is_no_object_loses_only_itself() -> None:
    rows = [(1000, "attempt", None, None, "x", "[1]"), (2000, "attempt", None, None, "y", "{"),
            (3000, "other", None, None, "z", "{}")]  # fmt: skip
    records = service.read_records(rows)
    assert [record["code"] for record in records["attempts"]] == ["x", "y"]
    assert records["attempts"][0]["at"] == 1.0


def logged(*messages: Any) -> str:
    lines = [json.dumps({"MESSAGE": m, "__REALTIME_TIMESTAMP": "1795000000500000",
                         "_SYSTEMD_UNIT": "ptslink.service"}) for m in messages]  # fmt: skip
    return "\n".join(["-- No entries --", *lines])


# a line of the log -> the kind of fault it names
KINDS = [
    ("connection handler failed", "handler-failed"),
    ("opening handshake failed", "opening-failed"),
    ("[Errno 24] Too many open files", "too-many-files"),
    ("THE JOURNAL FAILS: disk full", "dependency"),
    ("sqlite3.OperationalError: database is locked", "dependency"),
    ("Executing <Task> took 3.210 seconds", "loop-blocked"),
    ("Traceback (most recent call last):\n  File ...", "traceback"),
    ("No supported WebSocket library detected.", "no-websocket-library"),
]


@pytest.mark.parametrize(("message", "kind"), KINDS)
def test_a_line_that_names_a_fault_is_kept(message: str, kind: str) -> None:
    (event,) = service.read_log(logged("all is well", message, [1, 2]))
    assert (event["kind"], event["at"], event["unit"]) == (
        kind, 1795000000.5, "ptslink.service"
    )  # fmt: skip


def test_the_log_is_asked_for_no_more_than_the_horizon() -> None:
    host = FakeMachine({"journalctl": Output(logged("connection handler failed"))})
    piece = service._log(host, Stopwatch(), 1795000000.9)
    assert "--since=@1795000000" in host.ran[0]
    assert "-u ptslink.service" in host.ran[0]
    assert piece.seen == "1 lines that name a fault"


def test_the_newest_lines_of_a_long_log_are_asked_for_and_told_oldest_first() -> None:
    newest_first = logged("Rate limiting B, too many attempts", "connection handler failed")
    host = FakeMachine({"journalctl": Output(newest_first)})
    piece = service._log(host, Stopwatch(), 0.0)
    # Without -r, journalctl 252 takes -n beside --since for the oldest lines.
    assert " -r -n 5000 " in host.ran[0]
    assert [event["kind"] for event in piece.facts["events"]] == ["handler-failed", "rate-limited"]


def test_without_leave_to_read_the_log_it_is_skipped() -> None:
    host = FakeMachine({"journalctl": Output("", 1, "", "No journal files were opened")})
    piece = service._log(host, Stopwatch(), 0.0)
    assert (piece.status, piece.seen) == (Status.SKIPPED, "there is no journal to read")


def live(monkeypatch: pytest.MonkeyPatch, health: Any, controllers: Any) -> Evidence:
    answers = {"/health": health, "/controllers": controllers}

    def get(_address: str, _port: int, path: str) -> Any:
        answer = answers[path]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(service, "_get", get)
    return service._live(Stopwatch(), ADMIN)


def test_who_is_connected_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = live(monkeypatch, (200, {"status": "ok"}), (200, {"controllers": [{"id": "AABB"}]}))
    assert (piece.status, piece.seen) == (Status.OK, "health ok; 1 controllers connected")
    assert piece.facts["controllers"] == [{"id": "AABB"}]


def test_a_sick_service_fails_and_a_silent_one_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert live(monkeypatch, (503, {"status": "failing"}), (200, {})).status is Status.FAILED
    gone = {"status": "ok", "journal": {"ok": True, "replaced": "a new, empty journal was begun"}}
    piece = live(monkeypatch, (200, gone), (200, {}))
    assert piece.status is Status.FAILED
    assert "CONFIRMED RECORDS ARE GONE: a new, empty journal was begun" in piece.seen
    silent = live(monkeypatch, ConnectionRefusedError("refused"), (200, {}))
    assert silent.status is Status.UNKNOWN
    assert silent.facts["health"] is None
    assert "127.0.0.1:9180" in silent.seen


def test_the_configuration_is_shown_without_its_secrets(tmp_path: Path) -> None:
    file = tmp_path / "ptslink.toml"
    file.write_text('[controllers]\nusers = { pump = "hush" }\nsecret = "hush"\n')
    piece = service.configured(Stopwatch(), str(file))
    assert piece.status is Status.OK
    assert "hush" not in json.dumps(piece.to_json())
    assert piece.facts["config"]["controllers"]["users"] == ["pump"]
    assert piece.facts["config"]["controllers"]["secret"] is True


def test_a_configuration_in_error_fails_and_a_missing_one_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "ptslink.toml"
    assert service.configured(Stopwatch(), str(file)).status is Status.SKIPPED
    file.write_text("[listen]\nprot = 3000\n")
    piece = service.configured(Stopwatch(), str(file))
    assert piece.status is Status.FAILED
    assert any("prot" in mistake for mistake in piece.facts["errors"])


def test_a_handler_that_failed_at_a_dropped_link_is_no_fault() -> None:
    failed = ("ERROR:websockets.server:connection handler failed",
              "Traceback (most recent call last):")  # fmt: skip
    dropped = "websockets.exceptions.ConnectionClosedError: no close frame received or sent"
    assert service.read_log(logged(*failed, dropped)) == []
    kept = service.read_log(logged(*failed, "KeyError: 'Data'", *failed, dropped))
    assert [event["kind"] for event in kept] == ["handler-failed", "traceback"]


def test_the_log_of_whoever_listens_in_our_place_is_read_too() -> None:
    owners = ((3000, "guide.service"), (3000, "init.scope"), (22, "ssh.service"))
    listeners = [{"port": port, "unit": unit} for port, unit in owners]
    machine = FakeMachine({"journalctl": Output("", 0)})
    service._log(machine, Stopwatch(), 0.0, 3000, listeners)
    assert machine.ran[0].startswith("journalctl -u ptslink.service -u guide.service -o json")
