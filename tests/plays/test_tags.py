"""Tags limit what a run does, never how it ends: proven and kept, or put back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.playbooks import Ended, let_it_reload

LIMITED = ["ptslink_bundle", "pts_server", "tls_certificate", "nginx_proxy", "host_firewall"]
#: What does more than check.
DOING = [*LIMITED, "link_check", "run_record", "put_back", "told"]


@pytest.mark.parametrize("role", LIMITED)
def test_a_run_limited_to_a_role_ends_with_the_proof(play: Callable[..., Ended], role: str) -> None:
    ended = play("site.yml", f"--tags={role}")
    assert ended.status == 0, ended.said
    for host in "abcd":
        done = [name for where, name in ended.done if where == host and name in DOING]
        assert done == [role, "link_check", "run_record"]


def test_one_that_fails_is_put_back(play: Callable[..., Ended]) -> None:
    ended = play(
        "site.yml", "--tags=nginx_proxy", a={"fails": "nginx_proxy"}, b={"fails": "link_check"}
    )
    assert ended.status != 0
    assert set(ended.with_role("put_back")) == {"a", "b"}
    assert set(ended.with_role("told")) == {"a", "b"}
    assert set(ended.with_role("run_record")) == {"c", "d"}
    assert ended.with_role("pts_server") == []


def test_a_first_run_that_fails_takes_back_what_it_changed(play: Callable[..., Ended]) -> None:
    """Nobody is told that a host may not serve which never did."""
    ended = play(
        "site.yml",
        a={"first": True, "fails": "link_check"},
        b={"first": True, "fails": "link_check", "fails_then": "take_back"},
        c={"first": True},
        d={"fails": "link_check"},
    )
    assert ended.status != 0
    assert ended.with_role("take_back") == ["a"]
    assert ended.with_role("put_back") == ["d"]
    assert set(ended.with_role("told")) == {"a", "b", "d"}
    assert "The host is as it was before this run, its first" in ended.said
    assert "no user ptslink" in ended.said
    assert "Not all is as it was before this run." in ended.said
    assert "may not serve" not in ended.said


def test_a_proof_alone_puts_nothing_back(play: Callable[..., Ended]) -> None:
    ended = play("site.yml", "--tags=verify", a={"fails": "link_check"})
    assert ended.status != 0
    assert ended.with_role("put_back") == ended.with_role("run_record") == []


@pytest.mark.parametrize("arguments", [[], ["--tags=tls_certificate"]], ids=["whole", "limited"])
def test_what_a_role_changed_is_in_force_before_the_proof(
    play: Callable[..., Ended], tmp_path: Path, arguments: list[str]
) -> None:
    let_it_reload(tmp_path / "roles" / "tls_certificate")
    ended = play("site.yml", *arguments)
    assert ended.status == 0, ended.said
    for host in "abcd":
        done = [name for where, name in ended.done if where == host]
        assert done.index("reloaded") < done.index("link_check")
