"""An upgrade goes host by host, canary first, and ends where one fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import pytest

from support.playbooks import Ended


@pytest.fixture
def upgrade(play: Callable[..., Ended]) -> Callable[..., Ended]:
    """Runs playbooks/upgrade.yml; keywords are variables of a host."""
    return partial(play, "playbooks/upgrade.yml")


def batches(hosts: list[str], sizes: list[int]) -> list[set[str]]:
    """Hosts in order, cut into batches; within one there is no order."""
    found = []
    for size in sizes:
        found.append(set(hosts[:size]))
        hosts = hosts[size:]
    assert not hosts
    return found


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["a", "b", "c", "d"]),
        (["-e", "upgrade_batch=50%", "-e", "upgrade_canary=d"], ["d", "ab", "c"]),
    ],
)
def test_the_canary_comes_first_and_the_others_in_batches(
    upgrade: Callable[..., Ended], arguments: list[str], expected: list[str]
) -> None:
    ended = upgrade(*arguments)
    assert ended.status == 0, ended.said
    sizes = [len(batch) for batch in expected]
    assert batches(ended.with_role("pts_server"), sizes) == [set(batch) for batch in expected]
    # Each batch is proven before the next is touched.
    roles = [role for _, role in ended.done if role in ("pts_server", "link_check")]
    assert roles == [
        role for size in sizes for role in ("pts_server",) * size + ("link_check",) * size
    ]


@pytest.mark.parametrize(
    ("role", "touched"), [("link_check", ["a"]), ("ptslink_bundle", [])], ids=["late", "early"]
)
def test_a_canary_that_fails_is_put_back_and_nobody_else_is_touched(
    upgrade: Callable[..., Ended], role: str, touched: list[str]
) -> None:
    ended = upgrade(a={"fails": role})
    assert ended.status != 0
    assert ended.with_role("pts_server") == touched
    assert ended.with_role("put_back") == ["a"]
    assert ended.with_role("lift_mask") == ["a"], "what was masked at first is not at last"
    assert ended.with_role("told") == ["a"]
    assert f"Failed: {role} works: broken" in ended.said


def test_one_that_fails_later_ends_the_run_behind_its_batch(upgrade: Callable[..., Ended]) -> None:
    ended = upgrade("-e", "upgrade_batch=2", b={"fails": "nginx_proxy"})
    assert ended.status != 0
    assert set(ended.with_role("link_check")) == {"a", "c"}, "the other of its batch is finished"
    assert ended.with_role("put_back") == ["b"]
    assert set(ended.with_role("pts_server")) == {"a", "b", "c"}


def test_one_that_is_lost_on_the_way_ends_the_run(upgrade: Callable[..., Ended]) -> None:
    ended = upgrade("-e", "upgrade_batch=2", b={"lost": "pts_server"})
    assert ended.status != 0
    assert set(ended.with_role("pts_server")) == {"a", "c"}
    assert "b failed: nothing is done to d or any host after" in ended.said
    assert re.search("--limit '+all:!b'", ended.said)


def test_one_that_is_refused_leaves_all_as_they_are(upgrade: Callable[..., Ended]) -> None:
    ended = upgrade(d={"fails": "preflight"})
    assert ended.status != 0
    assert set(ended.with_role("preflight")) == set("abc")
    assert ended.with_role("pts_server") == []
    assert "d failed: nothing is done to a or any host after" in ended.said


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("upgrade_canary=x", "one host of a, b, c, d"),
        ("upgrade_batch=some", "a number of hosts such as 5"),
    ],
)
def test_what_cannot_be_done_is_refused(
    upgrade: Callable[..., Ended], wrong: str, says: str
) -> None:
    ended = upgrade("-e", wrong)
    assert ended.status != 0
    assert says in ended.said
    assert ended.done == []
