"""The account of a run: what was done, in how long, with what, and without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).parents[3] / "roles"
HOPS = [
    {
        "name": "nginx on its host",
        "url": "ws://127.0.0.1/x",
        "ok": False,
        "status": 426,
        "cause": "no Upgrade",
        "steps": [{"name": "connect", "ms": 1.2}, {"name": "get", "ms": 3.4}],
        "body": "a page",
    }
]
#: Short ones are found too where their names give them away.
SECRETS = {
    "pts_server_users": {"link": "planted-password"},
    "pts_server_secret": "pl4",
    "pts_server_settings": {"push": {"token": "planted-token"}},
    "ansible_become_password": "planted-become",
    "ansible_ssh_pass": "planted-pass",
}


@pytest.fixture
def action(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("run_record/action_plugins/run_record_state")


@pytest.fixture
def seen(plugin: Callable[[str], ModuleType]) -> Any:
    """A run as the callback sees it, on a clock that goes on by a second at each look."""
    ticks = iter(range(1795382796, 1795382796 + 1000))
    run = plugin("run_record/callback_plugins/run_record_tasks").Run(clock=lambda: next(ticks))
    run.begin("site.yml")
    return run


def asked(**changes: Any) -> dict[str, Any]:
    return {"outcome": "good", "failure": "", "difference": "", "link": {"proven": HOPS}, **changes}


def ended(run: Any, name: str, role: str = "", host: str = "a", **result: Any) -> None:
    run.task_begins(host, name)
    run.task_ends(host, name, name, role, result)


def test_tasks_that_changed_something_are_told_with_differences_and_times(
    action: Any, seen: Any
) -> None:
    ended(seen, "quiet", "pts_server")
    ended(seen, "told", "pts_server", changed=True, diff={"before": "a\nb\n", "after": "a\nc\n"})
    ended(seen, "elsewhere", host="b", changed=True)
    record = action.account(asked(), "a", {}, seen.of("a"))
    assert record["outcome"] == "changed"
    assert record["started"] == "2026-11-22T21:26:36Z"
    assert record["seconds"]["roles"] == {"pts_server": 2.0}
    assert record["seconds"]["run"] > 2
    [changed] = record["changed"]
    assert (changed["task"], changed["seconds"]) == ("told", 1)
    assert changed["difference"].splitlines()[-2:] == ["-b", "+c"]


def test_each_turn_of_a_loop_is_told(action: Any, seen: Any) -> None:
    seen.task_begins("a", "loop")
    for name in ("one", "two"):
        seen.item_changed("a", "loop", {"diff": {"before": {"path": ""}, "after": {"path": name}}})
    seen.task_ends("a", "loop", "loop", "", {"changed": True, "results": []})
    [changed] = action.account(asked(), "a", {}, seen.of("a"))["changed"]
    assert '+ "path": "one"' in changed["difference"]
    assert '+ "path": "two"' in changed["difference"]


def test_a_run_that_changed_nothing_says_so(action: Any, seen: Any) -> None:
    ended(seen, "quiet")
    assert action.account(asked(), "a", {}, seen.of("a"))["outcome"] == "unchanged"


def test_a_run_that_failed_says_what_failed_and_what_was_put_back(action: Any, seen: Any) -> None:
    seen.task_ends("a", "proof", "link_check : proof", "link_check", {}, failed=True)
    record = action.account(
        asked(outcome="put_back", failure="The link breaks", difference="-bad\n+good"),
        "a",
        {},
        seen.of("a"),
    )
    assert record["outcome"] == "put_back"
    assert record["failed"] == ["link_check : proof"]
    assert (record["failure"], record["difference"]) == ("The link breaks", "-bad\n+good")


def test_hops_are_told_with_their_verdicts_and_times(action: Any) -> None:
    [hop] = action.account(asked(), "a", {}, None)["link"]["proven"]
    assert hop == {
        "name": "nginx on its host",
        "url": "ws://127.0.0.1/x",
        "ok": False,
        "status": 426,
        "cause": "no Upgrade",
        "ms": 4.6,
    }


def test_without_the_callback_the_record_says_that_tasks_are_not_known(action: Any) -> None:
    record = action.account(asked(), "a", {}, None)
    assert record["outcome"] == "good"
    assert "did not load the callback" in record["note"]
    assert "changed" not in record


def test_no_secret_is_in_a_record_wherever_it_stood(action: Any, seen: Any) -> None:
    ended(
        seen,
        "toml",
        changed=True,
        diff={"before": "", "after": 'secret = "pl4"\n[controllers.users]\nx = "planted-two"\n'},
    )
    ended(seen, "other", changed=True, diff={"before": "", "after": "token planted-token;\n"})
    failure = "planted-password of root, sudo said planted-become, ssh planted-pass"
    values = {**SECRETS, "ansible_user": "root"}
    record = action.account(asked(failure=failure), "a", values, seen.of("a"))
    text = json.dumps(record)
    assert "planted" not in text
    assert "pl4" not in text
    assert "ansible_" not in text.replace("ansible_core", "")
    # What is no secret is not taken for one, whatever it is a part of.
    assert "(hidden) of root" in record["failure"]
    assert "proven" in record["link"]
    assert record["inputs"]["pts_server_secret"] == "(hidden)"


def test_every_option_that_argument_specs_call_secret_is_hidden(action: Any) -> None:
    secret = [
        name
        for specs in ROLES.glob("*/meta/argument_specs.yml")
        for entry in yaml.safe_load(specs.read_text())["argument_specs"].values()
        for name, option in (entry.get("options") or {}).items()
        if option.get("no_log")
    ]
    assert secret
    assert [name for name in secret if not action.redact.is_secret(name)] == []


def test_the_hash_is_of_the_inputs_and_of_no_secret(action: Any) -> None:
    def digest(**values: Any) -> str:
        return str(action.account(asked(), "a", values, None)["inputs_hash"])

    same = digest(pts_server_port=3000, pts_server_path="x", pts_server_secret="one")
    assert same == digest(pts_server_secret="two", pts_server_path="x", pts_server_port=3000)
    assert same != digest(pts_server_port=3001, pts_server_path="x", pts_server_secret="one")
    assert same.startswith("sha256:")


def test_inputs_are_the_variables_of_roles_and_one_that_cannot_be_told_stops_nothing(
    action: Any,
) -> None:
    names = ["pts_server_port", "ansible_host", "run_record_notes", "pts_serverx", "groups"]
    assert [name for name in names if action.is_input(name, ["pts_server", "run_record"])] == [
        "pts_server_port"
    ]
    values = action.known(["b", "a"], lambda name: {"a": 1}[name])
    assert values == {"a": 1, "b": "(cannot be told: KeyError)"}


def test_a_long_difference_is_cut(action: Any) -> None:
    long = action.difference([{"before": "", "after": "x\n" * 1000}])
    assert len(long.splitlines()) == action.LINES + 1
    assert long.endswith("more lines)")
