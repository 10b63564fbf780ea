"""``ptslink doctor``: what it prints, what it takes, and its exit status."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ptslink import cli
from ptslink.doctor import capture, command
from ptslink.doctor.cause import Cause, Fix, Layer
from ptslink.doctor.command import Progress, doctor
from ptslink.doctor.evidence import Case, Evidence, Status
from support.ports import free_port
from unit.probe.scripted import ScriptedServer, right

KEYS = ["healthy", "target", "vantage", "duration_s", "findings", "checks"]
FINDING = ["id", "layer", "title", "confidence", "evidence", "ruled_out", "fix"]
FIX = {"summary", "command", "ansible", "auto"}


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(doctor, [*arguments, "--timeout", "2"])


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    served = ScriptedServer(right, None)
    yield served
    served.stop()


@pytest.fixture
def closed_port() -> int:
    return free_port()


def test_a_link_that_works_is_healthy_and_exits_0(server: ScriptedServer) -> None:
    done = run(server.url)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Healthy: nothing found")


def test_a_broken_link_exits_1_and_its_json_has_the_promised_shape(closed_port: int) -> None:
    done = run(f"ws://127.0.0.1:{closed_port}/ptsWebSocket", "--json")
    assert done.exit_code == 1, done.output
    told = json.loads(done.stdout)
    assert list(told) == KEYS
    assert (told["healthy"], told["vantage"]) == (False, ["site"])
    assert list(told["findings"][0]) == FINDING
    assert set(told["findings"][0]["fix"]) == FIX
    assert told["findings"][0]["fix"]["auto"] in ("yes", "ask", "no")
    assert {check["status"] for check in told["checks"]} <= {"ok", "failed", "unknown", "skipped"}


def test_evidence_saved_here_gives_the_same_verdict_there(closed_port: int, tmp_path: Path) -> None:
    url, saved = f"ws://127.0.0.1:{closed_port}/ptsWebSocket", tmp_path / "site.json"
    here = json.loads(run(url, "--json", "--save-evidence", str(saved)).stdout)
    there = json.loads(run("--evidence", str(saved), "--json").stdout)
    assert there["findings"] == here["findings"]
    assert there["checks"] == here["checks"]
    piped = run(url, "--save-evidence", "-")
    assert piped.exit_code == 0
    assert {one["probe"] for one in json.loads(piped.stdout)} >= {"tcp.connect", "route.trace"}


# arguments -> what the message names
REFUSED: list[tuple[list[str], str]] = [
    ([], "nothing to look at"),
    (["http://h/"], "'http' is not accepted; use ws:// or wss://"),
    (["ws://u:p@h/"], "a login does not belong in the URL"),
    (["ws://h:99999/"], "the port must be a number from 1 to 65535"),
    (["ws://h/", "--controller-id", "XYZ"], "'XYZ' is not an id of 1 to 24 hex digits"),
    (["ws://h/", "--basic-env", "NOT_SET"], "--basic-env NOT_SET: the environment variable must"),
    (["ws://h/", "--timeout", "0"], "--timeout"),
    (["--server", "--peer", "foo"], "'foo' is no IP address; accepted is a site's address"),
    (["--server", "--peer", "198.51.100.300"], "'198.51.100.300' is no IP address"),
    (["ws://h/", "--save-evidence", "/no/such/place/site.json"], "there is no such directory"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_what_cannot_be_done_is_named_and_exits_2(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(doctor, arguments)
    assert done.exit_code == 2
    assert words in done.output


@pytest.mark.parametrize("text", ["", "{}", '"x"', "[" * 100_000])
def test_a_file_that_holds_no_evidence_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.json"
    file.write_text(text)
    done = run("--evidence", str(file))
    assert done.exit_code == 2
    assert "odd.json: not evidence of the doctor" in done.output


def test_a_capture_without_tshark_exits_2_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(capture.shutil, "which", lambda _name, **_: None)
    file = tmp_path / "link.pcap"
    file.touch()
    done = run("--pcap", str(file))
    assert done.exit_code == 2
    assert "apt-get install tshark" in done.output


def test_our_own_failure_is_not_taken_for_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(command, "survey", breaks)
    done = run("ws://127.0.0.1/")
    assert done.exit_code == 2


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9/x", "wss://127.0.0.1:9/x"])
def test_a_ca_that_holds_no_certificate_is_one_clear_line(tmp_path: Path, url: str) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not PEM")
    done = run(url, "--ca", str(file))
    assert done.exit_code == 2
    assert f"--ca {file}: no certificate can be read from it (it holds none)" in done.output
    assert "Traceback" not in done.output


def test_evidence_that_cannot_be_written_is_one_clear_line(
    server: ScriptedServer, tmp_path: Path
) -> None:
    file = tmp_path / ("x" * 300)
    done = run(server.url, "--save-evidence", str(file))
    assert done.exit_code == 2
    assert f"--save-evidence {file}: File name too long" in done.output
    assert "Traceback" not in done.output


def test_an_interrupted_doctor_found_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "survey", interrupted)
    done = run("ws://127.0.0.1/")
    assert done.exit_code == 130
    assert "interrupted, nothing was judged" in done.output


def test_an_interruption_while_it_is_loaded_is_no_finding_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_name: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", interrupted)
    assert CliRunner().invoke(cli.main, ["doctor", "ws://127.0.0.1/"]).exit_code == 130


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, text: str, wait: float = 0.0) -> str:
    monkeypatch.setattr(command, "TOLD_SECONDS", 0.25)
    say = Progress(stream)
    say(text)
    time.sleep(wait)
    say("")
    time.sleep(0.3)
    return stream.getvalue()


def test_where_no_line_can_be_overwritten_only_what_takes_long_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert told(monkeypatch, io.StringIO(), "looking at nginx") == ""
    assert told(monkeypatch, io.StringIO(), "looking at nginx", 0.8) == (
        "doctor: looking at nginx ...\n"
    )


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_when_to_try_the_link_is_told_at_once_everywhere(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    text = "counting packets for 30 s: try the link now"
    assert told(monkeypatch, Terminal(), text) == f"doctor: {text} ...\n"


def test_one_cause_that_breaks_costs_only_itself(
    monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    def breaks(_case: Case) -> None:
        raise KeyError("status")

    odd = Cause("odd-cause", Layer.TCP, "Odd", Fix("-", "-"), breaks)
    monkeypatch.setattr(command, "CAUSES", (odd, *command.CAUSES))
    done = run(f"ws://127.0.0.1:{closed_port}/", "--json")
    told = json.loads(done.stdout)
    assert told["findings"]
    [check] = [check for check in told["checks"] if check["id"] == "doctor:odd-cause"]
    assert check == {"id": "doctor:odd-cause", "status": "unknown",
                     "seen": "could not be judged: KeyError: 'status'"}  # fmt: skip


def test_nothing_examined_is_not_health(tmp_path: Path) -> None:
    file = tmp_path / "skipped.json"
    piece = Evidence("net.firewall", Status.SKIPPED, "root only", vantage="server")
    file.write_text(json.dumps([piece.to_json()]))
    assert run("--evidence", str(file)).exit_code == 2


def test_the_password_comes_from_the_environment(server: ScriptedServer) -> None:
    done = run(server.url, "--basic-env", "PTS_LOGIN", PTS_LOGIN="station:secret")
    assert done.exit_code == 0
    assert "secret" not in done.output
    assert all(
        "Authorization: Basic c3RhdGlvbjpzZWNyZXQ=" in head
        for head in server.heads
        if "Upgrade: websocket" in head
    )
