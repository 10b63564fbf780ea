"""The module of the same name, which is started only where something is to be built."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.plugins.action import ActionBase

MODULE = Path(__file__).parents[1] / "library" / "pts_server_wheelhouse.py"


def loaded(path: Path) -> ModuleType:
    """A module of this role, which Ansible gives to Python processes of their own only."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_here", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


wheelhouse = loaded(MODULE)


def ready(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the module would return if every archive is there; None where it has to look further."""
    try:
        release, archives = wheelhouse.wanted(
            Path(arguments["source"]).resolve(), Path(arguments["cache"]), arguments["targets"]
        )
    except wheelhouse.UNREADABLE:
        return None  # the module has the words for it
    if not all(archive.exists() for archive in archives.values()):
        return None
    return {
        "changed": False,
        "release": release,
        "archives": {key: str(archive) for key, archive in archives.items()},
        "built": [],
    }


class ActionModule(ActionBase):
    """Answers at once where nothing is to be built, which is nearly always."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Any:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        return ready(arguments) or self._execute_module(
            module_args=arguments, task_vars=task_vars or {}
        )
