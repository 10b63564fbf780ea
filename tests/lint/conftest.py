"""Starts the linters that are asked for at once, and stops them at the end.

Before the first test of all where one process runs them; where several do, when the first test of
a linter is next in one of them: elsewhere nobody would ask.
"""

from __future__ import annotations

import pytest
from tests.lint.linters import LINTERS, Linting

LINTING = pytest.StashKey[dict[str, Linting]]()


def start(session: pytest.Session) -> dict[str, Linting]:
    """Every linter that a test of this session is about, at work."""
    if LINTING not in session.config.stash:
        asked = [
            item.callspec.params["linting"]
            for item in session.items
            if isinstance(item, pytest.Function) and "linting" in item.fixturenames
        ]
        session.config.stash[LINTING] = {name: Linting(name, LINTERS[name]) for name in asked}
    return session.config.stash[LINTING]


def pytest_collection_finish(session: pytest.Session) -> None:
    if not (session.config.option.collectonly or hasattr(session.config, "workerinput")):
        start(session)


def pytest_sessionfinish(session: pytest.Session) -> None:
    for linting in session.config.stash.get(LINTING, {}).values():
        linting.stop()


@pytest.fixture
def linting(request: pytest.FixtureRequest) -> Linting:
    """The linter that the test is about, at work."""
    return start(request.session)[request.param]
