"""What must hold for any bytes that leave for a log, a report or a table."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
from tests.fuzz.wire import CONTROLLER, MemoryJournal, request
from tests.support.hostile import acted_upon

from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.report import render
from ptslink.doctor.verdict import judge
from ptslink.handshake.head import HeadError, parse_head
from ptslink.journal.export import csv_lines, json_lines
from ptslink.journal.logfiles import Line, LogFiles, PacketLine, file_name, parse_name
from ptslink.journal.records import Record
from ptslink.jsonpts.envelope import decode
from ptslink.server.evidence import EvidenceLog
from ptslink.server.registry import Session
from ptslink.server.seam import Caller, Ending

_AT = 1_772_323_200_000  # 2026-03-01
_CALLER = cast("Caller", SimpleNamespace(address="192.0.2.1", local_port=3000))


class _Lines(LogFiles):
    """Makes the texts of lines as the thread would, and keeps them."""

    def __init__(self) -> None:
        super().__init__(Path("logs"), keep_days=1, keep_bytes=1, out=io.BytesIO())
        self.texts: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.stream: list[str] = []

    def put(self, line: Line | PacketLine) -> None:
        before = len(self.stream)
        self._sort_in(line, self.texts, self.stream)
        for event in self.stream[before:]:
            told = json.loads(event)
            assert isinstance(line, Line)
            assert told["message"] == line.message or not line.message.isprintable()


def log_sinks(data: bytes) -> None:
    """Whatever a peer sends as a reason, a header, a Type or Data is one line, seen and not acted
    upon, in log files, on standard output, in the doctor's report and in both exports."""
    try:
        text = data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    lines = _Lines()
    log = EvidenceLog(MemoryJournal(), lines, short_seconds=5.0)
    _attempts(log, data, text)
    packets = [
        PacketLine(_AT, CONTROLLER, packet.type, packet.id, len(packet.data), packet.data)
        for packet in decode(data).packets
    ]
    for line in (*packets, PacketLine(_AT, text, text, data, 1, data)):
        lines.put(line)
    for (type_, day), parts in lines.texts.items():
        assert parse_name(file_name(type_, day)) == (type_, day)
        for part in parts:
            _one_line(part)
    for event in lines.stream:
        _one_line(event)
    _report(text)
    _exports(data)


def _attempts(log: EvidenceLog, data: bytes, text: str) -> None:
    raw = request().replace(b"\r\n\r\n", b"\r\nX-Note: " + data + b"\r\n\r\n")
    head, reason = None, text
    try:
        head = parse_head(raw)
    except HeadError as error:
        reason = error.reason
    log.attempt(
        _CALLER, "192.0.2.1", head, status=404, code="wrong-path", reason=reason, start=data
    )
    close = (1000, text)
    session = SimpleNamespace(
        **{"controller": CONTROLLER, "remote": "192.0.2.1", "since": _AT, "counts": {text: 1}},
        **{"opened_at": 0.0, "noted": {text}, "peer": SimpleNamespace(number=1)},
    )
    for ending in (
        Ending(1.0, close_rcvd=close, close_sent=close, fault="x", error=text, first_bytes=data),
        Ending(9.0, close_rcvd=close, closed_by="peer"),
    ):
        log.link(cast("Session", session), ending)
    log.event("note", text, controller=CONTROLLER, note=text)


def _report(text: str) -> None:
    facts = {"host": text, "port": 3000, "path": text, "reason": text}
    evidence = (
        Evidence("tcp.connect", Status.FAILED, text, facts),
        Evidence("host.disk", Status.UNKNOWN, text, vantage="server"),
        Evidence("pattern.loop", Status.UNKNOWN, text, vantage="server"),
    )
    shown = render(judge(Case(text, evidence), ()))
    assert not acted_upon(shown), acted_upon(shown)


def _exports(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    records = [_record(text, msgspec.json.encode(text), None), _record(text, None, text)]
    for line, record in zip(json_lines(records), records, strict=True):
        _one_line(line)
        assert json.loads(line)["local_time"] == record.local_time
    header, *rows = csv_lines(records, None)
    for row in rows:
        _one_line(row)
        (cells,) = csv.reader(io.StringIO(row))
        assert len(cells) == header.count(",") + 1
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def _record(text: str, data: bytes | None, message: str | None) -> Record:
    return Record(
        id=1,
        controller=CONTROLLER,
        type="UploadX",
        received="",
        data=None if data is None else msgspec.Raw(data),
        message=message,
        local_time=text,
        utc=None,
        flags=[],
        variants=0,
    )


def _one_line(text: str) -> None:
    assert text.endswith("\n")
    assert text.count("\n") == 1, "more lines than one"
    assert not acted_upon(text), acted_upon(text)
