"""The server's configuration: rendered as TOML, judged before it is used, secrets unseen."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ptslink.server.config import parse

ROOT = Path(__file__).parents[3]
MODULE = ROOT / "roles" / "pts_server" / "library" / "pts_server_configuration.py"
SECRETS = ["planted-one", "planted-two", "planted-three", "planted-login"]
BEFORE = """\
[listen]
port = 3000

[controllers]
secret = "planted-one"
secret_required = false
users = { "planted-login" = "planted-two" }

[controllers.users]
planted-login = "planted-three"
"""


@pytest.fixture
def redact(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("pts_server/module_utils/pts_server_redact")


@pytest.mark.parametrize(
    "text",
    [
        BEFORE,
        'controllers.secret = "planted-one"\n',
        "[controllers]\nsecret = '''\nplanted-one\nplanted-two'''\nport = 1\n",
        '[controllers]\n"secret" = "planted-one"\r\n',
        '[[controllers.users]]\nplanted-login = "planted-one"\n',
    ],
)
def test_no_secret_of_a_configuration_is_shown(redact: Any, text: str) -> None:
    shown = redact.redacted(text)
    assert not [secret for secret in SECRETS if secret in shown]
    assert redact.HIDDEN in shown


def test_what_is_no_secret_is_shown(redact: Any) -> None:
    text = '[listen]\nport = 3000\n[tls]\nrsa_key = "/k"\n[controllers]\nsecret_required = true\n'
    assert redact.redacted(text) == text


def test_what_follows_a_secret_of_several_lines_is_shown(redact: Any) -> None:
    text = '[controllers]\nsecret = """\nplanted\n"""\nallowed = []\n'
    assert redact.redacted(text) == "[controllers]\nsecret = (hidden)\nallowed = []\n"


def test_secrets_in_variables_are_hidden_at_any_depth(redact: Any) -> None:
    value = {"a": [{"secret": "planted-one", "port": 1}], "users": {"planted-login": "x"}}
    assert redact.without_secrets(value) == {
        "a": [{"secret": redact.HIDDEN, "port": 1}],
        "users": redact.HIDDEN,
    }


@pytest.fixture
def render() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Variables in, the configuration as the server reads it out."""

    def rendered(variables: dict[str, Any]) -> dict[str, Any]:
        play = [
            {
                "hosts": "localhost",
                "gather_facts": False,
                "vars": variables,
                "vars_files": [
                    str(ROOT / "roles/pts_server/defaults/main.yml"),
                    str(ROOT / "roles/pts_server/vars/main.yml"),
                ],
                "tasks": [
                    {
                        "ansible.builtin.debug": {
                            "msg": "{{ lookup('ansible.builtin.template', '"
                            + str(ROOT / "roles/pts_server/templates/ptslink.toml.j2")
                            + "') }}"
                        }
                    }
                ],
            }
        ]
        done = subprocess.run(
            [
                Path(sys.executable).parent / "ansible-playbook",
                *("--inventory", "localhost,", "--connection=local"),
                *("--extra-vars", json.dumps(variables), "/dev/stdin"),
            ],
            input=json.dumps(play),
            capture_output=True,
            text=True,
            check=True,
            env={"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "PATH": "/usr/bin:/bin"},
        )
        report = json.loads(done.stdout)
        text = report["plays"][0]["tasks"][0]["hosts"]["localhost"]["msg"]
        return tomllib.loads(text)

    return rendered


def test_the_settings_of_the_guide_reach_the_server(
    render: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    quoted = 'pa"s\\ '
    config = parse(
        render(
            {
                "pts_server_users": {"station": quoted, "A" * 24: "x"},
                "pts_server_secret": "sec'ret\"",
                "pts_server_subprotocols": ["pts.one"],
                "pts_server_utf8_validation": True,
                "pts_server_code_page": "cp1251",
                "pts_server_message_bytes_max": "70000",
                "pts_server_handshake_timeout_seconds": 7,
                "pts_server_settings": {"controllers": {"allowed": ["AB"]}},
            }
        )
    )
    assert config.controllers.users == {"station": quoted, "A" * 24: "x"}
    assert config.controllers.secret == "sec'ret\""
    assert config.controllers.allowed == ("AB",)
    assert config.listen.subprotocols == ("pts.one",)
    assert config.listen.validate_utf8
    assert config.controllers.code_page == "cp1251"
    assert config.limits.message_bytes == 70000
    assert config.limits.head_seconds == 7


def test_without_users_and_secret_none_are_asked_for(
    render: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    config = parse(render({}))
    assert config.controllers.users == {}
    assert config.controllers.secret == ""


@pytest.fixture
def module(
    plugin: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Runs the module over a file; gives what it prints and returns."""
    code = plugin("pts_server/library/pts_server_configuration")

    class Ended(Exception):
        pass

    class Module:
        check_mode = False

        def __init__(self, argument_spec: dict[str, dict[str, Any]], **_: Any) -> None:
            # What is not no_log, Ansible writes to the host's journal.
            assert argument_spec["content"]["no_log"]
            self.params = asked
            self.no_log_values = {asked["content"]}

        def exit_json(self, **result: Any) -> None:
            raise Ended(result)

        def fail_json(self, **result: Any) -> None:
            raise Ended({"failed": True, **result})

        def set_owner_if_different(self, *said: Any) -> Any:
            return said[-1]

        set_group_if_different = set_owner_if_different

        def set_mode_if_different(self, path: str, mode: int, changed: bool) -> bool:
            Path(path).chmod(mode)
            return changed

    asked: dict[str, Any] = {}
    monkeypatch.setattr(code, "AnsibleModule", Module)

    def run(
        content: str, accepts: bool = True, dry: bool = False, anyway: bool = False
    ) -> dict[str, Any]:
        words = "exit 0" if accepts else 'echo "$1 is wrong"; exit 1'
        asked.update(
            path=str(tmp_path / "ptslink.toml"),
            content=content,
            group="ptslink",
            judge=["/bin/sh", "-c", words, "judge"],
            judge_anyway=anyway,
        )
        monkeypatch.setattr(Module, "check_mode", dry)
        with pytest.raises(Ended) as ended:
            code.main()
        result: dict[str, Any] = ended.value.args[0]
        return result

    return run


def test_it_is_put_in_place_and_a_second_run_changes_nothing(
    module: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    assert module(BEFORE)["changed"]
    placed = tmp_path / "ptslink.toml"
    assert placed.read_text() == BEFORE
    assert stat.S_IMODE(placed.stat().st_mode) == 0o640
    assert not module(BEFORE)["changed"]
    assert [path.name for path in tmp_path.iterdir()] == ["ptslink.toml"]


def test_what_the_release_refuses_replaces_nothing(
    module: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    module(BEFORE)
    result = module(BEFORE.replace("3000", "3001"), accepts=False)
    assert result["failed"]
    assert result["msg"].endswith(f"{tmp_path}/ptslink.toml is wrong")
    assert (tmp_path / "ptslink.toml").read_text() == BEFORE


def test_another_release_judges_what_has_not_changed(
    module: Callable[..., dict[str, Any]],
) -> None:
    module(BEFORE)
    assert "failed" not in module(BEFORE, accepts=False)
    assert module(BEFORE, accepts=False, anyway=True)["failed"]


def test_a_dry_run_places_nothing(module: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    assert module(BEFORE, dry=True)["changed"]
    assert not (tmp_path / "ptslink.toml").exists()


@pytest.mark.parametrize("accepts", [True, False])
def test_nothing_it_returns_has_a_secret(
    module: Callable[..., dict[str, Any]], accepts: bool
) -> None:
    module(BEFORE)
    result = json.dumps(module(BEFORE.replace("3000", "3001"), accepts=accepts))
    assert not [secret for secret in SECRETS if secret in result]
    assert "port = 3001" in result


def test_a_changed_secret_is_told_and_not_shown(module: Callable[..., dict[str, Any]]) -> None:
    module(BEFORE)
    result = module(BEFORE.replace("planted-one", "planted-four"))
    assert result["changed"]
    assert "a hidden value changed" in result["diff"]["after"]
    assert "planted-four" not in json.dumps(result)
