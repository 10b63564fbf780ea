"""defaults/main.yml, meta/argument_specs.yml and README.md of a role say the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("role_readme", HERE / "role_readme.py")
assert spec
assert spec.loader
role_readme = importlib.util.module_from_spec(spec)
spec.loader.exec_module(role_readme)

ROLES = role_readme.roles()
TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "dict": (dict,),
    "int": (int,),
    "list": (list,),
    "path": (str,),
    "str": (str,),
}


def defaults(role: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    return loaded


def test_every_role_declares_its_arguments() -> None:
    everyone = {path.name for path in role_readme.ROLES.iterdir() if (path / "tasks").is_dir()}
    assert {role.name for role in ROLES} == everyone


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_and_argument_specs_are_in_step(role: Path) -> None:
    declared = {
        name: option["default"]
        for name, option in role_readme.options(role).items()
        if "default" in option
    }
    assert defaults(role) == declared


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_default_has_the_type_its_variable_declares(role: Path) -> None:
    for name, option in role_readme.options(role).items():
        default = option.get("default")
        if isinstance(default, str) and "{{" in default:
            continue  # a template's type shows at run time, where Ansible checks it
        if "default" in option:
            assert isinstance(default, TYPES[option["type"]]), name
            assert isinstance(default, bool) == (option["type"] == "bool"), name
            assert default in option.get("choices", [default]), name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_entry_points_take_the_same_arguments(role: Path) -> None:
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    # preflight's first entry point looks at names alone.
    taken = [entry["options"] for name, entry in specs.items() if name != "control"]
    assert all(options == taken[0] for options in taken)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_public_variables_carry_the_roles_name_and_private_ones_its_mark(role: Path) -> None:
    assert all(name.startswith(f"{role.name}_") for name in defaults(role))
    private = role / "vars" / "main.yml"
    if private.exists():
        names = yaml.safe_load(private.read_text())
        assert all(name.startswith(f"__{role.name}_") for name in names)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_readme_has_the_current_table_of_variables(role: Path) -> None:
    readme = (role / "README.md").read_text()
    assert role_readme.written(readme) == role_readme.table(role), (
        "run: python tests/unit/roles/role_readme.py"
    )
