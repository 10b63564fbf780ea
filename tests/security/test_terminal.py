"""No command writes to a terminal what a peer chose to be acted upon."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ptslink.cli import main
from ptslink.doctor import command as doctor_command
from ptslink.doctor import report
from ptslink.doctor.cause import Auto, Cause, Fix, Layer, Match
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.probe import __main__ as probe_main
from ptslink.doctor.probe.result import LinkResult, Step
from ptslink.doctor.probe.show import render as render_probe
from ptslink.doctor.verdict import judge
from ptslink.journal.entry import Entry, Transport
from ptslink.journal.filing import facts_of
from ptslink.journal.store import Store
from ptslink.server import ask_command
from ptslink.simulator import command as simulator_command
from ptslink.simulator.confirmation import Verdict
from ptslink.simulator.device import Tally
from ptslink.simulator.result import ControllerResult, SimulationResult
from support.hostile import HOSTILE, SENDABLE, acted_upon

hostile = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
sendable = pytest.mark.parametrize("text", SENDABLE.values(), ids=SENDABLE)
#: Colours are ours.
COLOURS = [f"\x1b[{look}m" for look in ("31;1", "32", "33", "1", "0", "31", "2")]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], color=True)


def keep(directory: Path, *messages: bytes) -> Path:
    """A configuration whose journal holds the messages."""
    config = directory / "c.toml"
    config.write_text(f'[journal]\npath = "{directory}/j.db"\n')
    store = Store(directory / "j.db")
    for raw in messages:
        store.write([Entry("AB", 1, Transport.WEBSOCKET, 1, raw, facts_of(raw))], [])
    store.close()
    return config


def packet(type_: str, **data: object) -> bytes:
    return json.dumps({"Packets": [{"Id": 1, "Type": type_, "Data": data}]}).encode()


def evidence_of(text: str) -> list[Evidence]:
    facts = {"host": text, "port": 3000, "path": text, "reason": text}
    return [
        Evidence("dns.resolve", Status.OK, text, facts),
        Evidence("tcp.connect", Status.FAILED, text, facts),
        Evidence("host.disk", Status.UNKNOWN, text, vantage="server"),
        Evidence("net.firewall", Status.SKIPPED, text, vantage="server"),
        Evidence("place.reached", Status.SKIPPED, text, vantage="control"),
        Evidence("pattern.loop", Status.UNKNOWN, text, vantage="server"),
    ]


@hostile
@pytest.mark.parametrize("form", [[], ["--json"], ["--save-evidence", "-"]])
def test_a_doctor_shows_evidence_from_elsewhere(tmp_path: Path, text: str, form: list[str]) -> None:
    file = tmp_path / "site.json"
    file.write_text(json.dumps([piece.to_json() for piece in evidence_of(text)]))
    result = run("doctor", "--evidence", file, *form)
    assert result.exit_code in (0, 1)
    assert not acted_upon(result.output)


@hostile
def test_a_doctors_report_shows_every_text_of_a_finding(text: str) -> None:
    fix = Fix(text, text, Auto.YES, f"one {text}\ntwo", {text: text}, text)
    causes = (
        Cause("first", Layer.TCP, text, fix, lambda _: Match(0.9, (text,), (text,))),
        Cause("other", Layer.HOST, text, fix, lambda _: Match(0.8, (text,))),
    )
    verdict = judge(Case(text, evidence_of(text)), causes)
    shown = report.render(verdict, titles={text: text}, colour=True)
    for colour in COLOURS:
        shown = shown.replace(colour, "")
    assert not acted_upon(shown)


@hostile
def test_a_doctor_that_fails_shows_why(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def fail(*_: object) -> list[Evidence]:
        raise RuntimeError(text)

    monkeypatch.setattr(doctor_command, "gathered", fail)
    result = run("doctor", "--server")
    assert result.exit_code == 2
    assert "RuntimeError: " in result.stderr
    assert not acted_upon(result.stderr, keep="\n\r")


@hostile
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_probe_shows_what_a_server_said(
    monkeypatch: pytest.MonkeyPatch, text: str, form: list[str]
) -> None:
    found = LinkResult(
        **{"url": "ws://h/", "ok": False, "status": 404, "accept_ok": False, "cause": text},
        **{"headers": {"Server": text}, "body": text, "address": None, "controller_id": "0"},
        steps=(Step("get", "failed", 1.0, text, {"said": text}),),
    )
    monkeypatch.setattr(probe_main, "probe_link", lambda *_, **__: found)
    result = run("probe", "ws://h/", *form)
    assert result.exit_code == 1
    assert not acted_upon(result.output)
    coloured = render_probe(found, colour=True)
    for colour in COLOURS:
        coloured = coloured.replace(colour, "")
    assert not acted_upon(coloured)


@hostile
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_simulator_shows_what_a_server_answered(
    monkeypatch: pytest.MonkeyPatch, text: str, form: list[str]
) -> None:
    tally = Tally(sent=Counter({"UploadX": 1}))
    tally.rejections.append(Verdict("UploadX", 1, text, text))
    controller = ControllerResult("AB", tally, 101, True, error=text, first_error=text)
    result = SimulationResult("ws://h/", text, (controller,))

    async def simulated(_: object) -> SimulationResult:
        return result

    monkeypatch.setattr(simulator_command, "_run", simulated)
    shown = run("simulate", "ws://h/", *form)
    assert shown.exit_code == 1
    assert not acted_upon(shown.output)


@hostile
def test_a_reply_of_a_controller_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(ask_command, "put_question", lambda *_: (200, {"data": text}))
    config = tmp_path / "c.toml"
    config.write_text("")
    result = run("ask", "AB", "GetDateTime", "--config", config)
    assert json.loads(result.output) == {"data": text}
    assert not acted_upon(result.output)


@sendable
def test_a_journal_names_types_that_a_controller_invented(tmp_path: Path, text: str) -> None:
    config = keep(tmp_path, packet(f"Upload{text[:50]}"), packet(f"Novel{text[:50]}"))
    for form in ([], ["--json"]):
        result = run("journal", "summary", "--config", config, *form)
        assert result.exit_code == 0, result.output
        assert "Upload" in result.output
        assert "Novel" in result.output
        assert result.output.count("\n") == (1 if form else 7)
        assert not acted_upon(result.output)


@sendable
@pytest.mark.parametrize(
    "refused",
    [
        ("export", "--config", "c.toml", "--type", "TEXT"),
        ("export", "--config", "c.toml", "--cursor-file", "cursor"),
        ("check-config", "--config", "wrong.toml"),
        ("logs", "view", "--config", "c.toml", "TEXT"),
    ],
)
def test_an_error_names_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, refused: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = keep(tmp_path, packet(f"Upload{text}"))
    with config.open("a") as handle:
        handle.write(f'[logs]\ndirectory = "{tmp_path}"\n')
    (tmp_path / "cursor").write_text(json.dumps({"cursor": 0, "what": text}))
    (tmp_path / "wrong.toml").write_text(f"[listen]\nport = {json.dumps(text)}\n")
    result = run(*(text if word == "TEXT" else word for word in refused))
    assert result.exit_code in (1, 2)
    assert "Error" in result.output or "not accepted" in result.output
    assert not acted_upon(result.output)
