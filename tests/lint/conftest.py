"""Starts the linters that are asked for before the first test runs, and stops them at the end."""

from __future__ import annotations

import pytest
from tests.lint.linters import LINTERS, Linting

LINTING = pytest.StashKey[dict[str, Linting]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    linting = session.config.stash.setdefault(LINTING, {})
    if session.config.option.collectonly:
        return
    for item in session.items:
        if "linting" in getattr(item, "fixturenames", ()):
            linter = item.callspec.params["linting"]
            linting[linter] = Linting(LINTERS[linter])


def pytest_sessionfinish(session: pytest.Session) -> None:
    for linting in session.config.stash.get(LINTING, {}).values():
        linting.stop()


@pytest.fixture
def linting(request: pytest.FixtureRequest) -> Linting:
    """The linter that the test is about, at work since the session began."""
    return request.config.stash[LINTING][request.param]
