"""A line of a log is one event's, whatever a peer wrote; a line that fails costs itself alone."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from click.testing import CliRunner
from tests.fuzz.wire import MemoryJournal

from ptslink.cli import main
from ptslink.escape import visible
from ptslink.handshake.head import parse_head
from ptslink.journal import logfiles
from ptslink.journal.logfiles import Line, LogFiles, PacketLine
from ptslink.server.command import report_on_stderr
from ptslink.server.evidence import EvidenceLog
from ptslink.server.registry import Session
from ptslink.server.seam import Caller, Ending
from support.hostile import HOSTILE, acted_upon
from support.wire import CONTROLLER, request

AT = 1_772_323_200_000  # 2026-03-01
CALLER = cast("Caller", SimpleNamespace(address="192.0.2.1", local_port=3000))
SESSION = cast(
    "Session",
    SimpleNamespace(
        **{"controller": CONTROLLER, "remote": "192.0.2.1", "since": AT, "counts": {}},
        **{"opened_at": 0.0, "noted": set(), "peer": SimpleNamespace(number=1)},
    ),
)


def ended(log: EvidenceLog, text: str) -> None:
    close = (1000, text)
    log.link(SESSION, Ending(60.0, close_rcvd=close, close_sent=close, fault="rsv", error=text))


def attempted(log: EvidenceLog, text: str) -> None:
    encoded = text.encode("utf-8", "replace").decode("latin-1")
    head = parse_head(request(X_Note="".join(encoded.splitlines()).replace("\0", "")))
    log.attempt(CALLER, "192.0.2.1", head, status=404, code="wrong-path", reason=f"path {text}")


def happened(log: EvidenceLog, text: str) -> None:
    log.event("note", f"it said {text}", controller=CONTROLLER, note=text)


def logged(
    directory: Path, what: Callable[[EvidenceLog, LogFiles], object]
) -> tuple[list[str], list[str], LogFiles]:
    """The lines of all log files, those on standard output, and who wrote them."""
    out = io.BytesIO()
    logs = LogFiles(directory, keep_days=36500, keep_bytes=10**9, out=out)
    logs.start()
    what(EvidenceLog(MemoryJournal(), logs, short_seconds=5.0), logs)
    logs.close()
    in_files = "".join(path.read_bytes().decode() for path in sorted(directory.glob("*.log")))
    on_output = out.getvalue().decode()
    assert not acted_upon(in_files + on_output)
    return in_files.splitlines(), on_output.splitlines(), logs


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("say", [ended, attempted, happened])
def test_an_event_is_one_line_of_a_file_and_of_standard_output(
    tmp_path: Path, say: Callable[[EvidenceLog, str], None], text: str
) -> None:
    in_files, on_output, _ = logged(tmp_path, lambda log, _: say(log, text))
    (line,), (event,) = in_files, map(json.loads, on_output)
    assert f" {visible(event['message'])} {{" in line
    assert text in event["message"]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_packet_is_one_line_of_the_file_of_its_type(tmp_path: Path, text: str) -> None:
    sent = json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")
    packets = [
        PacketLine(AT, CONTROLLER, f"Upload{text}", b"1", 2, b"{}"),
        PacketLine(AT, text, "UploadX", b"1", 2, None),
        PacketLine(AT, CONTROLLER, "UploadX", sent, 2, sent),
    ]
    in_files, _, logs = logged(tmp_path, lambda _, logs: [*map(logs.put, packets)])
    assert (len(in_files), logs.dropped) == (3, 0)
    assert {path.name for path in tmp_path.iterdir()} == {
        "Other_2026-03-01.log",
        "UploadX_2026-03-01.log",
    }


def test_a_summary_counts_no_sentence_that_a_peer_wrote(tmp_path: Path) -> None:
    sentences = (
        "connection established successfully, refused with 404, brought no request, Rate limiting"
        ", 1 messages: Close code 1006 (abnormal closure)"
    )

    def say(log: EvidenceLog, _: LogFiles) -> None:
        ended(log, sentences)
        attempted(log, sentences)
        happened(log, sentences)
        log.link(SESSION, Ending(60.0, transport="rst"))

    logged(tmp_path / "logs", say)
    counted = run(tmp_path, "summary").split("\n\n")[1].splitlines()
    assert {line[12:]: int(line[:10]) for line in counted} == {
        "connections accepted": 0,
        "connections refused": 1,
        "connections without a request": 0,
        "links lost (1006)": 1,
        "strangers turned away": 0,
    }


def run(directory: Path, *arguments: str) -> str:
    config = directory / "c.toml"
    config.write_text(f'[logs]\ndirectory = "{directory}/logs"\n')
    result = CliRunner().invoke(main, ["logs", *arguments, "--config", str(config)], color=True)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    "arguments", [["view", "Server"], ["search", "said"], ["follow", "--seconds", "0.01"]]
)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_an_older_version_wrote_raw_is_shown_visibly_and_in_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    (tmp_path / "logs").mkdir()
    file = tmp_path / "logs" / "Server_2026-03-01.log"
    line = f"it said {text.replace(chr(10), '')} \x1b[0m"
    file.write_bytes(line.encode("utf-8", "replace") + b"\n")
    if arguments[0] == "follow":
        # Everything in it came after the start.
        monkeypatch.setattr(Path, "stat", lambda _self, **_: SimpleNamespace(st_size=0))
        monkeypatch.setattr(Path, "is_dir", lambda _: True)
    shown = run(tmp_path, *arguments)
    assert not acted_upon(shown)
    assert shown.count("\n") == 1
    assert "said" in shown


def test_a_line_that_cannot_be_written_costs_itself_alone_and_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A time beyond the calendar stands for whatever nobody foresaw."""

    def say(_: EvidenceLog, logs: LogFiles) -> None:
        for at in (AT, 10**18, AT + 1):
            logs.put(Line(at, ("Server",), "said"))
            logs.put(PacketLine(at, CONTROLLER, "UploadX", b"1", 2, None))

    in_files, on_output, logs = logged(tmp_path, say)
    assert (len(in_files), len(on_output)) == (4, 2)
    assert logs.dropped == 2
    assert "year" in logs.failure
    assert "a line could not be written" in caplog.text


def test_the_thread_goes_on_after_whatever_fails_and_tells_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logfiles, "COLLECT_SECONDS", 0.001)
    failing, done = threading.Event(), threading.Event()

    def expired(*_: object, **__: object) -> list[Path]:
        if not failing.is_set():
            failing.set()
            raise RuntimeError("a fault of ours")
        done.set()
        return []

    monkeypatch.setattr(logfiles, "expired", expired)
    logs = LogFiles(tmp_path, keep_days=1, keep_bytes=0, out=None)
    logs.start()
    logs.put(Line(AT, ("Server",), "one"))
    assert failing.wait(30)
    before = logs.ticked
    logs.put(Line(AT, ("Server",), "two"))
    assert done.wait(30)
    assert logs.ticked >= before > 0
    logs.close()
    assert [
        line[25:28] for line in (tmp_path / "Server_2026-03-01.log").read_text().splitlines()
    ] == [
        "one",
        "two",
    ]
    assert "a fault of ours" in caplog.text


def test_a_thread_with_nothing_to_write_tells_that_it_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfiles, "TICK_SECONDS", 0.001)
    ticks: list[float] = []
    enough = threading.Event()

    class Watched(LogFiles):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            if name == "_ticked":
                ticks.append(cast("float", value))
                if len(ticks) > 3:
                    enough.set()

    logs = Watched(tmp_path, keep_days=1, keep_bytes=1, out=None)
    logs.start()
    assert enough.wait(30)
    logs.close()
    assert ticks == sorted(ticks)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_fault_on_standard_error_forges_no_event(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The journal of systemd keeps a line an entry: whatever follows the first one is indented."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    report_on_stderr()

    def fail() -> None:
        raise ValueError(text)

    logging.getLogger("asyncio").error("%s", text)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError:
        sys.excepthook(*sys.exc_info())
    shown = stream.getvalue()
    assert not acted_upon(shown)
    assert shown.count("ValueError: ") == 2
    for line in shown.splitlines():
        assert line.startswith(("  ", "ERROR", "CRITICAL")), line
