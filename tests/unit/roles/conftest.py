"""Role plugins are single files, not a package: they are loaded from where they lie."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
ROLES = ROOT / "roles"


def load(relative: str) -> ModuleType:
    """The plugin at ``roles/<relative>.py`` as a module."""
    path = ROLES / f"{relative}.py"
    name = f"role_plugin_{relative.replace('/', '_')}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def plugin() -> Callable[[str], ModuleType]:
    """What loads a plugin; those that others import are where Ansible would put them."""
    for path in sorted(ROLES.glob("*/module_utils/*.py")):  # one imports another
        shared = load(str(path.relative_to(ROLES).with_suffix("")))
        sys.modules[f"ansible.module_utils.{path.stem}"] = shared
    return load
