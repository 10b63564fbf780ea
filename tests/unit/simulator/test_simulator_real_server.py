"""Controllers and probe against ptslink's own server: the two ends of the product, joined."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ptslink.doctor.causes import CAUSES
from ptslink.doctor.collect.controllers import collect
from ptslink.doctor.collect.edge import Stopwatch
from ptslink.doctor.evidence import Case, Status
from ptslink.doctor.probe import probe_link
from ptslink.doctor.probe.survey import survey
from ptslink.doctor.probe.target import parse_target
from ptslink.doctor.verdict import judge
from ptslink.server.config import parse
from ptslink.server.service import start_server
from ptslink.simulator.misbehave import bend
from ptslink.simulator.packets import KINDS
from ptslink.simulator.result import ControllerResult, SimulationResult, render
from ptslink.simulator.run import simulate
from ptslink.simulator.setup import Setup, new_identities


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """A running ptslink server with its defaults, on a free port of loopback."""
    server = await start_server(
        parse(
            {
                "listen": {"addresses": ["127.0.0.1"], "port": 0},
                "journal": {"path": str(tmp_path / "journal.db")},
                "admin": {"port": 0, "socket": str(tmp_path / "admin.sock")},
                "logs": {"directory": str(tmp_path / "logs")},
            }
        )
    )
    try:
        yield f"ws://127.0.0.1:{server.port}/ptsWebSocket"
    finally:
        await server.stop()


async def run(url: str, *misbehave: str, controllers: int = 1, **options: Any) -> SimulationResult:
    options.setdefault("timeout", 5.0)
    identities = new_identities(controllers, "real")
    manner = bend(misbehave)
    return await simulate(Setup(parse_target(url), identities, manner=manner, **options))


async def first(url: str, *misbehave: str, **options: Any) -> ControllerResult:
    return (await run(url, *misbehave, **options)).controllers[0]


async def test_every_upload_of_every_controller_is_confirmed(url: str) -> None:
    result = await run(url, controllers=20, kinds=KINDS)
    assert result.ok, render(result)


async def test_the_probe_finds_the_link_whole(url: str) -> None:
    result = await asyncio.to_thread(probe_link, url, timeout=5, idle=0.1)
    assert result.ok, result.cause
    assert result.step("get").facts["status"] == 426


async def test_the_survey_finds_nothing_failed(url: str) -> None:
    found = await asyncio.to_thread(lambda: list(survey(url, timeout=5)))
    assert [p.seen for p in found if p.status is Status.FAILED] == []
    assert any(p.probe == "ws.large" and p.status is Status.OK for p in found)


@pytest.mark.parametrize(
    "deviation",
    [
        *("id-as-text", "no-ptsid", "clock-reset", "ws-invalid-utf8"),
        "app-handler-exception=trailing-comma",
    ],
)
async def test_quirks_of_the_field_are_confirmed_all_the_same(url: str, deviation: str) -> None:
    controller = await first(url, deviation)
    assert controller.ok, controller.as_json()


@pytest.mark.parametrize(
    ("deviation", "code"),
    [
        ("ws-too-big", 1009),
        ("ws-bad-frame", 1002),
        ("ws-http-after-upgrade", 1002),
    ],
)
async def test_frames_that_cannot_be_read_are_closed_with_their_code(
    url: str, deviation: str, code: int
) -> None:
    controller = await first(url, deviation)
    assert controller.ending is not None
    assert controller.ending.received == code


@pytest.mark.parametrize("deviation", ["hs-bad-version", "hs-device-no-upgrade"])
async def test_what_is_no_upgrade_is_answered_426(url: str, deviation: str) -> None:
    assert (await first(url, deviation)).status == 426


@pytest.mark.parametrize(
    ("other", "address", "name"),
    [("127.0.0.9", "127.0.0.9", "pts.example.test"),
     ("no-such-name.invalid", "127.0.0.1", "no-such-name.invalid")],
)  # fmt: skip
async def test_two_targets_are_uploaded_then_dialled_and_named_by_the_doctor(
    url: str, tmp_path: Path, other: str, address: str, name: str
) -> None:
    controller = await first(url, f"dev-ip-vs-domain={other}", once=False, duration=2.0)
    assert controller.connections == 1
    assert "connect" in str(controller.error)
    tables = {"journal": {"path": str(tmp_path / "journal.db")}, "admin": {"socket": ""}}
    found = list(collect(Stopwatch(), tables, [], False))
    [settings] = [piece.facts for piece in found]
    assert (settings["ip_address"], settings["domain_name"]) == (address, name)
    assert [f.id for f in judge(Case(url, found), CAUSES).findings] == ["dev-ip-vs-domain"]
