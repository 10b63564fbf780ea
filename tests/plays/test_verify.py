"""site.yml proves each link once; verify.yml proves whatever has not been proven in its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from support.playbooks import Ended


@pytest.mark.parametrize(
    ("arguments", "hosts", "proofs"),
    [
        (["site.yml"], {}, {"a": 1, "b": 1, "c": 1, "d": 1}),
        (["site.yml", "--tags=verify"], {}, {"a": 1, "b": 1, "c": 1, "d": 1}),
        (["site.yml", "--skip-tags=provision"], {}, {"a": 1, "b": 1, "c": 1, "d": 1}),
        (["playbooks/verify.yml"], {}, {"a": 1, "b": 1, "c": 1, "d": 1}),
        # A dry run finds nothing to prove on a bare machine, and says so both times.
        (["site.yml"], {"b": {"bare": True}}, {"a": 1, "b": 2, "c": 1, "d": 1}),
    ],
)
def test_a_link_is_proven_once_a_run(
    play: Callable[..., Ended],
    arguments: list[str],
    hosts: dict[str, dict[str, Any]],
    proofs: dict[str, int],
) -> None:
    ended = play(*arguments, **hosts)
    assert ended.status == 0, ended.said
    assert Counter(ended.with_role("link_check")) == proofs


@pytest.mark.parametrize(
    "arguments", [["site.yml"], ["site.yml", "--tags=verify"], ["playbooks/verify.yml"]]
)
def test_a_link_that_is_broken_fails_the_run(
    play: Callable[..., Ended], arguments: list[str]
) -> None:
    ended = play(*arguments, b={"fails": "link_check"})
    assert ended.status != 0
    assert Counter(ended.with_role("link_check")) == {"a": 1, "c": 1, "d": 1}
    assert "link_check works" in ended.said
