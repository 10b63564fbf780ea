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
    ufw.Ufw("ufw").apply(before, todo, "ptslink", True)
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


@pytest.mark.parametrize(
    ("theirs", "port", "says"),
    [
        ("deny 3000/tcp", 3000, "`ufw delete deny 3000/tcp`"),
        ("reject 3000/tcp", 3000, "somebody's `reject 3000/tcp`"),
        ("deny log 3000/tcp", 3000, "`ufw delete deny log 3000/tcp`"),
        ("limit 3000/tcp", 3000, "`ufw delete limit 3000/tcp`"),
        ("deny 22/tcp", 22, "`ufw delete deny 22/tcp`"),
    ],
)
def test_somebodys_denial_is_not_turned_into_its_opposite(
    ufw: Any, theirs: str, port: int, says: str
) -> None:
    rules = [ufw.Rule(port, "tcp", None, "ssh" if port == 22 else "controllers")]
    lists = (rules, []) if port == 22 else ([], rules)
    with pytest.raises(ufw.Refused) as refused:
        ufw.refuse_opposites(state(ufw, {theirs: ""}), *lists)
    assert says in str(refused.value)


def test_a_denial_of_one_address_is_beside_ours(ufw: Any) -> None:
    now = state(ufw, {"deny from 198.51.100.7 to any port 3000 proto tcp": "", "limit 22/tcp": ""})
    ufw.refuse_opposites(now, ssh(ufw, 22), link(ufw, 3000))


TUPLE = "### tuple ### {} 0.0.0.0/0 any 0.0.0.0/0 {}\n"


@pytest.mark.parametrize(
    ("tuples", "ports"),
    [
        (TUPLE.format("limit tcp 22", "in"), {22}),
        (TUPLE.format("limit any 22", "in comment=6d696e65"), {22}),
        (TUPLE.format("limit tcp 22", "OpenSSH - in"), {22}),
        (TUPLE.format("limit_log tcp 22,2222:2223", "in"), {22, 2222, 2223}),
        (TUPLE.format("allow tcp 22", "in"), set()),
        ("### tuple ### limit tcp 22 0.0.0.0/0 any 10.0.0.7 in\n", set()),
    ],
)
def test_what_ufw_limits_is_read_from_its_own_rules(
    guard: Any, tuples: str, ports: set[int]
) -> None:
    assert guard.ufw_limited(tuples) == ports


def test_somebodys_limit_of_ssh_counts_as_letting_it_in(ufw: Any) -> None:
    now = state(ufw, {"limit OpenSSH": "", "allow 80/tcp": "ptslink: controllers"})
    now.limited = frozenset({22})
    assert not ufw.plan(now, ssh(ufw, 22), link(ufw, 80), "ptslink", True)


def test_a_rule_of_ours_that_ssh_has_already_gets_its_new_comment_in_place(
    ufw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ufw prepend` skips a rule that is there, whatever its comment."""
    said: list[str] = []
    monkeypatch.setattr(ufw.Ufw, "__call__", lambda _self, *words: said.append(" ".join(words)))
    now = state(ufw, {"allow 22/tcp": "ptslink: ssh from where it was provisioned"})
    ufw.Ufw("ufw").apply(now, ufw.plan(now, ssh(ufw, 22), [], "ptslink", True), "ptslink", True)
    assert said == ["allow 22/tcp comment ptslink: ssh"]


def test_what_is_lacking_is_told_in_words_of_ufw(ufw: Any) -> None:
    now = state(ufw, {"allow 8080/tcp": "ptslink: controllers"}, active=False, incoming="allow")
    lacking = str(ufw.plan(now, ssh(ufw, 22), link(ufw, 80), "ptslink", False))
    assert lacking == (
        "`allow 22/tcp`, `allow 80/tcp`, the removal of `allow 8080/tcp`, "
        "`default deny incoming`, `enable`, another IPV6 in /etc/default/ufw"
    )


@pytest.mark.parametrize(
    ("there", "asked", "run_from", "wanted"),
    [
        (True, "needed", None, True),
        (True, "keep", None, True),
        (False, "keep", "203.0.113.9", False),
        (False, "yes", None, True),
        (True, "no", None, False),
        (False, "needed", None, None),
        (False, "keep", "2001:db8::9", None),
    ],
)
def test_somebodys_ipv6_no_is_kept_or_asked_for(
    ufw: Any, there: bool, asked: str, run_from: str | None, wanted: bool | None
) -> None:
    now = state(ufw, {})
    now.ipv6 = there
    if wanted is None:
        with pytest.raises(ufw.Refused, match="IPV6=no"):
            ufw.wanted_ipv6(now, asked, run_from)
    else:
        assert ufw.wanted_ipv6(now, asked, run_from) is wanted
