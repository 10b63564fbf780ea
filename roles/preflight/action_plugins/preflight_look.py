"""The module of the same name, with the modules that it looks with sent along."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

ROLES = Path(__file__).parents[2]
SOURCE = ROLES.parent / "src"
#: What a module or a shared file of a role imports of the shared files of roles.
IMPORTED = re.compile(r"^from ansible\.module_utils(?: import |\.)(\w+)", re.MULTILINE)
#: What one imports of the server's own source.
OF_SOURCE = re.compile(r"^from (ptslink[\w.]*) import (\w+)", re.MULTILINE)


def text_of(kind: str, name: str) -> str | None:
    """The file of that name in any role's directory of that kind; None where no role has one."""
    found = sorted(ROLES.glob(f"*/{kind}/{name}.py"))
    return found[0].read_text(encoding="utf-8") if found else None


def shared_by(texts: Iterable[str]) -> dict[str, str]:
    """Shared files that texts import, and those that these import: name -> text.

    One of the server's source goes along by its path, as ``ptslink/doctor/collect/firewall``.
    """
    found: dict[str, str] = {}
    waiting = list(texts)
    while waiting:
        importing = waiting.pop()
        for package, name in OF_SOURCE.findall(importing):
            place = package.replace(".", "/")
            for path in (place, f"{place}/{name}"):
                if path not in found and (file := SOURCE / f"{path}.py").is_file():
                    found[path] = file.read_text(encoding="utf-8")
                    waiting.append(found[path])
        for name in IMPORTED.findall(importing):
            # What no role has is Ansible's own, and there already.
            if name not in found and (text := text_of("module_utils", name)) is not None:
                found[name] = text
                waiting.append(text)
    return found


def modules_of(looks: Any) -> dict[str, str]:
    """The modules that looks name -> their text.

    Raises:
        AnsibleError: no role has a module of that name.
    """
    names = {look["module"] for of_role in looks.values() for look in of_role.values()}
    modules = {}
    for name in sorted(names):
        text = text_of("library", name)
        if text is None:
            raise AnsibleError(
                f"preflight_look is to look with {name!r}, which is no role's module"
            )
        modules[name] = text
    return modules


class ActionModule(ActionBase):
    """Sends what the looks need, and nothing else, with them."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Any:
        super().run(tmp, task_vars)
        looks = self._task.args["looks"]
        modules = modules_of(looks)
        return self._execute_module(
            module_args={
                "looks": looks,
                "modules": modules,
                "shared": shared_by(modules.values()),
            },
            task_vars=task_vars or {},
        )
