"""A rollback is refused only for what keeps it from going back; all else is told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from support.playbooks import Ended


@pytest.fixture
def rollback(play: Callable[..., Ended]) -> Callable[..., Ended]:
    """Runs playbooks/rollback.yml; keywords are variables of a host."""
    return partial(play, "playbooks/rollback.yml")


def test_what_does_not_matter_to_it_is_told_and_what_does_is_refused(
    rollback: Callable[..., Ended],
) -> None:
    ended = rollback(
        a={"fails": "pts_server/check"},
        b={"fails": "preflight"},
        c={"fails": "preflight/reach"},
        d={"fails": "preflight/root"},
    )
    assert ended.status != 0
    assert set(ended.with_role("put_back")) == {"a", "b"}
    assert set(ended.with_role("run_record")) == {"a", "b"}
    assert ended.said.count("A rollback goes on without, site.yml would not: broken") == 2


def test_one_that_fails_is_on_record_and_says_so(rollback: Callable[..., Ended]) -> None:
    ended = rollback(b={"fails": "put_back"})
    assert ended.status != 0
    assert ended.with_role("told") == ["b"]
    assert set(ended.with_role("run_record")) == {"a", "c", "d"}
    assert "no good run" in ended.said.rpartition("ends as failed")[2]
