"""A machine without a link is not a healthy one: what counts as evidence of a link."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ptslink.doctor import command
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.collect import gather
from ptslink.doctor.command import doctor
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.report import render
from ptslink.doctor.verdict import Verdict, judge
from unit.doctor.fake_machine import FakeMachine
from unit.doctor.outer_cases import LISTENERS, listener, piece, unit
from unit.doctor.traces import seen

#: What any machine shows: a disk with room, a clock, a route, and a shell that listens.
BARE = (
    piece("host.disk", file_systems=[]),
    piece("host.clock", now=1.0),
    piece("net.routes", default={"ipv4": True}),
    piece("net.listeners", listeners=[listener(22, process="sshd")], ports=[]),
    piece("host.unit", status=Status.UNKNOWN, unit="ptslink.service", load="not-found"),
)
#: A web server that passes nothing on.
STOCK_SITE = {"listen": [{"port": 80, "ssl": False}], "locations": [], "file": "x", "names": [],
              "settings": {"return": []}}  # fmt: skip


def verdict(*more: Evidence) -> Verdict:
    return judge(Case("this server", (*BARE, *more)), CAUSES)


def test_a_machine_without_a_link_is_neither_healthy_nor_examined() -> None:
    bare = verdict()
    assert not bare.findings
    assert not bare.examined
    assert bare.to_json()["healthy"] is False
    text = render(bare)
    assert text.startswith("Nothing could be examined.\nNo link was found on this machine")
    assert "--port N" in text


@pytest.mark.parametrize(
    "more",
    [
        (piece("nginx.config", sites=[STOCK_SITE], upstreams={}),
         piece("nginx.process", running=True)),
        (piece("service.records", status=Status.SKIPPED),),
        (piece("capture.file", streams=0, packets=4, icmp=[]),),
        (seen("survey.window", "site", **{"from": 1.0, "to": 2.0}),),
    ],
    ids=["a web server that passes no link on", "no records", "an empty capture", "a window"],
)  # fmt: skip
def test_what_says_nothing_of_a_link_does_not_count(more: tuple[Evidence, ...]) -> None:
    assert not verdict(*more).examined


@pytest.mark.parametrize(
    "one",
    [
        unit(),
        piece("net.listeners", listeners=LISTENERS, ports=[80, 3000]),
        piece("net.listeners", listeners=[listener(9000, process="python3")], ports=[9000]),
        piece("service.config", file="x", errors=[], config={}),
        piece("service.records", attempts=[], links=[], events=[]),
        piece("service.live", health={"status": "ok"}, controllers=[]),
        piece("nginx.process", running=True, active_state="active"),
        piece("tcp.connect", "site", address="192.0.2.1", port=80, errno=None),
    ],
    ids=lambda one: one.probe,
)
def test_each_trace_of_a_link_counts(one: Evidence) -> None:
    assert verdict(one).examined


def test_without_records_the_patterns_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "pattern_evidence", lambda **_: list(BARE))
    done = CliRunner().invoke(doctor, ["--pattern"])
    assert done.exit_code == 2
    assert "No link was found on this machine" in done.output


def test_the_server_that_is_none_exits_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All collectors, on a machine that has none of the programs."""
    from ptslink.doctor.collect import nginx, service

    monkeypatch.setattr(service, "CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setattr(nginx, "CONFIG", tmp_path / "none.conf")

    def bare(**_: Any) -> list[Evidence]:
        return list(gather(machine=FakeMachine()))

    monkeypatch.setattr(command, "gather", bare)
    done = CliRunner().invoke(doctor, ["--server"])
    assert done.exit_code == 2, done.output
    assert "Healthy" not in done.output


def test_a_service_that_is_configured_and_listens_nowhere_is_down() -> None:
    config = piece("service.config", file="x", errors=[], config={"listen": {"port": 3000}})
    [finding] = verdict(config).findings
    assert (finding.id, finding.fix.auto.value) == ("tcp-service-down", "ask")
