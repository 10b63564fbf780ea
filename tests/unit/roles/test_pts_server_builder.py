"""A control node that cannot build the server says so, unless it has been built already."""

from __future__ import annotations

import importlib.machinery
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def judge(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("pts_server/filter_plugins/pts_server")


@pytest.fixture
def lacks_hatchling(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    find = judge.importlib.util.find_spec

    def found(name: str) -> importlib.machinery.ModuleSpec | None:
        return None if name == "hatchling" else find(name)

    monkeypatch.setattr(judge.importlib.util, "find_spec", found)


def test_the_locked_environment_can_build(judge: Any, tmp_path: Path) -> None:
    assert judge.builder_complaint(str(tmp_path), str(ROOT)) == ""


@pytest.mark.usefixtures("lacks_hatchling")
def test_what_an_environment_lacks_is_named(judge: Any, tmp_path: Path) -> None:
    (tmp_path / "py3.11-x86_64").mkdir()
    (tmp_path / "py3.11-x86_64" / "ptslink-of-before.tar").touch()
    said = judge.builder_complaint(str(tmp_path), str(ROOT))
    assert said.endswith("is not the locked environment: it lacks hatchling")


@pytest.mark.usefixtures("lacks_hatchling")
def test_what_was_built_elsewhere_needs_no_builder(
    judge: Any, plugin: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    release = plugin("pts_server/library/pts_server_wheelhouse").release_name(ROOT)
    (tmp_path / "py3.11-x86_64").mkdir()
    (tmp_path / "py3.11-x86_64" / f"ptslink-{release}.tar").touch()
    assert judge.builder_complaint(str(tmp_path), str(ROOT)) == ""
