"""One look is the roles' own modules, run dry, several in one process."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import ansible.module_utils
import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.testing import patch_module_args

ROLES = Path(__file__).parents[3] / "roles"
#: A module that would write a file, with what it shall hold, and says what it makes of it.
WRITER = """
from pathlib import Path
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.letters import loud

def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True, "no_log": True},
            "fail": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    if module.params["fail"]:
        module.fail_json(msg="it does not want to")
    if path.name == "odd":
        module.warn("an odd name")
    if path.name == "broken":
        raise RuntimeError("it broke")
    changed = not path.exists() or path.read_text() != module.params["content"]
    if changed and not module.check_mode:
        path.write_text(module.params["content"])
    module.exit_json(changed=changed, said=loud(path.name), diff={"after": "long"})
"""
SHARED = {"letters": "def loud(text):\n    return text.upper()\n"}


@pytest.fixture
def library(plugin: Callable[[str], ModuleType]) -> Iterator[Any]:
    before = list(ansible.module_utils.__path__)
    yield plugin("preflight/library/preflight_look")
    ansible.module_utils.__path__[:] = before


@pytest.fixture
def action(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("preflight/action_plugins/preflight_look")


def looked(library: Any, **looks: dict[str, Any]) -> dict[str, Any]:
    """What is seen of roles that ask one thing each, as Ansible would run it."""
    asked = {role: {"file": {"module": "writer", "args": args}} for role, args in looks.items()}
    with patch_module_args({}):
        result: dict[str, Any] = library.look_around(asked, {"writer": WRITER}, SHARED)
    return result


def test_a_look_says_what_the_task_would_and_changes_nothing(library: Any, tmp_path: Path) -> None:
    (tmp_path / "right").write_text("text")
    seen = looked(
        library,
        one={"path": str(tmp_path / "right"), "content": "text"},
        other={"path": str(tmp_path / "new"), "content": "text"},
    )
    assert seen["seen"] == {
        "one": {"file": {"changed": False, "said": "RIGHT"}},
        "other": {"file": {"changed": True, "said": "NEW"}},
    }
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"path": "/x", "content": "y", "fail": True}, "it does not want to"),
        ({"path": "/x/broken", "content": "y"}, "RuntimeError: it broke"),
        ({"path": "/x"}, "missing required arguments: content"),
        ({"path": "/x", "content": "y", "colour": "red"}, "Unsupported parameters"),
    ],
)
def test_a_role_whose_look_fails_is_left_to_look_for_itself(
    library: Any, tmp_path: Path, arguments: dict[str, Any], says: str
) -> None:
    seen = looked(library, bad=arguments, good={"path": str(tmp_path / "new"), "content": "text"})
    assert set(seen["seen"]) == {"good"}
    assert says in seen["unseen"]["bad"]


def test_warnings_of_a_look_are_passed_on(library: Any, tmp_path: Path) -> None:
    seen = looked(library, one={"path": str(tmp_path / "odd"), "content": "text"})
    assert seen["warned"] == ["an odd name"]
    assert "one" in seen["seen"]


def test_no_secret_of_an_argument_is_returned(
    library: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "looks": {
            "one": {
                "file": {
                    "module": "writer",
                    "args": {"path": str(tmp_path / "new"), "content": "planted-secret"},
                }
            }
        },
        "modules": {"writer": WRITER},
        "shared": SHARED,
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        library.main()
    printed = capsys.readouterr().out
    assert json.loads(printed)["seen"]["one"]["file"]["changed"] is True
    assert "planted-secret" not in printed


def test_a_module_goes_along_with_what_it_imports_of_roles_and_no_more(action: Any) -> None:
    modules = action.modules_of({"host_firewall": {"rules": {"module": "host_firewall_ufw"}}})
    assert set(modules) == {"host_firewall_ufw"}
    assert set(action.shared_by(modules.values())) == {"host_firewall_guard", "host_firewall_rate"}


def test_a_module_goes_along_with_what_it_imports_of_the_servers_own_source(action: Any) -> None:
    """One copy for the doctor and preflight: what goes along is the file itself."""
    way = {"host_firewall": {"way": {"module": "host_firewall_in_the_way"}}}
    shared = action.shared_by(action.modules_of(way).values())
    walker = "ptslink/doctor/collect/firewall"
    assert set(shared) == {"host_firewall_guard", walker}
    assert shared[walker] == (ROLES.parent / "src" / f"{walker}.py").read_text()
    imported = re.findall(r"^(?:from|import) (\w+)", shared[walker], re.MULTILINE)
    assert set(imported) <= sys.stdlib_module_names


def test_a_module_that_no_role_has_is_refused_by_name(action: Any) -> None:
    with pytest.raises(AnsibleError, match="'shell', which is no role's module"):
        action.modules_of({"x": {"y": {"module": "shell"}}})


def looks() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(role, module, arguments) of all that one look asks for roles that put things in place."""
    for path in sorted(ROLES.glob("*/vars/main.yml")):
        role = path.parts[-3]
        asked = (yaml.safe_load(path.read_text()) or {}).get(f"__{role}_looks", {})
        for look in asked.values() if role != "preflight" else ():
            # Either firewall's task has the same arguments.
            for backend in ("ufw", "firewalld") if "{{" in look["module"] else ("",):
                module = look["module"].replace("{{ __host_firewall_backend }}", backend)
                yield role, module, look["args"]


def tasks_with(role: str, module: str) -> Iterator[dict[str, Any]]:
    """The arguments of every task of a role that runs a module."""

    def within(tasks: Any) -> Iterator[dict[str, Any]]:
        for task in tasks or []:
            for part in ("block", "rescue", "always"):
                yield from within(task.get(part))
            if module in task:
                yield task[module]

    for path in sorted((ROLES / role / "tasks").glob("*.yml")):
        yield from within(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    ("role", "module", "arguments"),
    [
        pytest.param(*look, id=f"{look[0]} {look[1]}")
        for look in looks()
        if look[0] != "tls_certificate"
    ],
)
def test_a_look_has_the_arguments_of_the_task_it_stands_for(
    role: str, module: str, arguments: dict[str, Any]
) -> None:
    asked: dict[str, list[Any]] = {}
    for task in tasks_with(role, module):
        for name, value in task.items():
            asked.setdefault(name, []).append(value)
    for name, value in arguments.items():
        assert value in asked[name], name


@pytest.mark.parametrize("role", ["pts_server", "nginx_proxy", "host_firewall"])
def test_whatever_a_role_asks_of_its_own_things_is_looked_at(role: str) -> None:
    own = {path.stem for path in ROLES.glob("*/library/*.py")}
    # What is looked at once before, and what only a change needs.
    other = {"pts_server_wheelhouse", "host_firewall_found", "pts_server_sandbox"}
    run = {name for name in own - other if any(True for _ in tasks_with(role, name))}
    assert run == {module for looking, module, _ in looks() if looking == role}
