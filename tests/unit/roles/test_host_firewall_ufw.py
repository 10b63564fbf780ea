"""ufw: what is planned from what is there, and that it can never lock anyone out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

ADDED = """\
Added user rules (see 'ufw status' for running firewall):
ufw allow 22/tcp comment 'ptslink: ssh'
ufw allow 8080/tcp comment 'ptslink: controllers'
ufw deny from 198.51.100.0/24
ufw allow 443/tcp comment 'the shop's own'
"""


@pytest.fixture
def guard(plugin: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    module = plugin("host_firewall/module_utils/host_firewall_guard")
    # Where Ansible puts it on the host.
    monkeypatch.setitem(sys.modules, "ansible.module_utils.host_firewall_guard", module)
    return module


@pytest.fixture
def ufw(plugin: Callable[[str], ModuleType], guard: Any) -> Any:
    assert guard
    return plugin("host_firewall/library/host_firewall_ufw")


def state(ufw: Any, rules: dict[str, str], active: bool = True, incoming: str = "deny") -> Any:
    return ufw.State(active=active, incoming=incoming, rules=rules, ipv6=True)


def ssh(ufw: Any, *ports: int) -> list[Any]:
    return [ufw.Rule(port, "tcp", None, "ssh") for port in ports]


def link(ufw: Any, *ports: int) -> list[Any]:
    return [ufw.Rule(port, "tcp", None, "controllers") for port in ports]


def test_rules_are_read_as_ufw_prints_them(ufw: Any) -> None:
    text = ADDED.replace("shop's", "shop")
    assert ufw.parse_added(text) == {
        "allow 22/tcp": "ptslink: ssh",
        "allow 8080/tcp": "ptslink: controllers",
        "deny from 198.51.100.0/24": "",
        "allow 443/tcp": "the shop own",
    }
    assert ufw.parse_added("Added user rules (see 'ufw status'):\n(None)\n") == {}


def test_a_bare_ufw_gets_ssh_first_then_the_link_then_deny(ufw: Any) -> None:
    todo = ufw.plan(
        state(ufw, {}, active=False, incoming="allow"), ssh(ufw, 22), link(ufw, 80), "ptslink", True
    )
    assert [rule.port for rule in todo.first] == [22]
    assert [rule.port for rule in todo.add] == [80]
    assert todo.deny
    assert todo.enable


def test_the_commands_run_in_the_order_that_never_locks_out(
    ufw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(ufw.Ufw, "__call__", lambda _self, *words: said.append(" ".join(words)))
    before = state(ufw, {"allow 8080/tcp": "ptslink: controllers"}, active=False, incoming="allow")
    todo = ufw.plan(before, ssh(ufw, 22, 2222), link(ufw, 80), "ptslink", True)
    ufw.Ufw("ufw").apply(todo, "ptslink", True)
    assert said == [
        "prepend allow 2222/tcp comment ptslink: ssh",
        "prepend allow 22/tcp comment ptslink: ssh",
        "allow 80/tcp comment ptslink: controllers",
        "--force delete allow 8080/tcp",
        "default deny incoming",
        "--force enable",
    ]


def test_what_is_as_wanted_is_left(ufw: Any) -> None:
    now = state(ufw, {"allow 22/tcp": "ptslink: ssh", "allow 80/tcp": "ptslink: controllers"})
    assert not ufw.plan(now, ssh(ufw, 22), link(ufw, 80), "ptslink", True)


def test_only_marked_rules_are_removed(ufw: Any) -> None:
    now = state(
        ufw,
        {
            "allow 22/tcp": "ptslink: ssh",
            "allow 8080/tcp": "ptslink: controllers",
            "allow 443/tcp": "the shop",
            "deny from 198.51.100.0/24": "",
        },
    )
    todo = ufw.plan(now, ssh(ufw, 22), [], "ptslink", True)
    assert todo.remove == ["allow 8080/tcp"]


def test_a_strangers_rule_that_does_the_same_stays_the_strangers(ufw: Any) -> None:
    now = state(ufw, {"allow 22/tcp": "", "allow 80/tcp": "the shop"})
    assert not ufw.plan(now, ssh(ufw, 22), link(ufw, 80), "ptslink", True)


def test_an_old_comment_of_ours_is_renewed_and_the_rule_kept(ufw: Any) -> None:
    now = state(ufw, {"allow 22/tcp": "ptslink: ssh", "allow 80/tcp": "ptslink: http"})
    todo = ufw.plan(now, ssh(ufw, 22), link(ufw, 80), "ptslink", True)
    assert [rule.port for rule in todo.add] == [80]
    assert todo.remove == []


@pytest.mark.parametrize(
    ("sources", "run_from", "let_in"),
    [
        ([], "203.0.113.9", [None]),
        (["10.0.0.0/8"], "10.1.2.3", ["10.0.0.0/8"]),
        (["10.0.0.0/8"], "203.0.113.9", ["10.0.0.0/8", "203.0.113.9"]),
        (["10.0.0.0/8"], "2001:db8::9", ["10.0.0.0/8", "2001:db8::9"]),
        (["10.0.0.7/32"], "10.0.0.7", ["10.0.0.7"]),
        (["10.0.0.0/8"], None, ["10.0.0.0/8"]),
    ],
)
def test_where_the_run_comes_from_is_let_in_whatever_the_sources_say(
    guard: Any, sources: list[str], run_from: str | None, let_in: list[str | None]
) -> None:
    assert [rule.source for rule in guard.ssh_rules([22], sources, run_from)] == let_in


def test_a_rule_with_a_source_has_the_form_ufw_prints(ufw: Any) -> None:
    rule = ufw.Rule(3000, "tcp", "10.0.0.0/8", "controllers")
    assert " ".join(ufw.words(rule)) == "allow from 10.0.0.0/8 to any port 3000 proto tcp"


def test_a_dry_run_says_what_there_would_be(ufw: Any) -> None:
    before = state(ufw, {"allow 443/tcp": "the shop"}, active=False, incoming="allow")
    todo = ufw.plan(before, ssh(ufw, 22), link(ufw, 80), "ptslink", True)
    after = ufw.outcome(before, todo, "ptslink", True)
    assert after.text() == (
        "status: active\nincoming: deny\nipv6: yes\n"
        "allow 22/tcp  # ptslink: ssh\nallow 443/tcp  # the shop\n"
        "allow 80/tcp  # ptslink: controllers\n"
    )
