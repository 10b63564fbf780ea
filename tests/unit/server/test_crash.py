"""SIGKILL under load: what was confirmed is there, and nothing is there twice."""

from __future__ import annotations

from pathlib import Path

from support.crash import crash


async def test_every_confirmed_record_survives_being_killed(tmp_path: Path) -> None:
    found = await crash(tmp_path, kills=3, controllers=10, seed=3, longest=0.3)
    assert found.kills == 3
    assert found.total > 100
    assert found.lost == []
    assert found.doubled == []
