#!/usr/bin/python
"""What several modules would change, seen in one round trip. Changes nothing."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import ansible.module_utils
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: preflight_look
short_description: Runs modules of roles dry, several in one round trip
description:
  - >-
    A round trip costs the same however little is asked, most of it for Python to start and to read
    Ansible's library. Where nothing is to be done, what each module of each role says of that can
    be had in one.
  - >-
    Every look is the module itself in check mode, with the arguments its task has, so that it
    cannot say anything else than the task would.
  - >-
    Returns C(seen), role to name of look to what the module returned, without its differences; and
    C(unseen), role to reason where a look failed. Such a role is not in C(seen): its task, which
    has the words for it, is to fail.
options:
  looks:
    type: dict
    required: true
    description: "Role -> name of the look -> C(module) and its C(args)."
  modules: {type: dict, required: true, description: Module -> its text; the action plugin's.}
  shared: {type: dict, required: true, description: Shared file -> its text; the action plugin's.}
author: ptslink authors
"""

#: What a module returns for people to read is not asked for.
FOR_PEOPLE = ("diff", "invocation")


class Said(BaseException):  # no module is to catch it as one of its own errors
    """A module has come to its end; ``result`` is what it returned."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__()
        self.result = result


class Dry(AnsibleModule):  # type: ignore[misc]
    """An AnsibleModule with arguments from here, in check mode, which says its result to us."""

    #: The module's name and arguments.
    look: tuple[str, Mapping[str, Any]]
    #: Where its warnings go.
    warnings: list[str]

    def warn(self, warning: str, **_: Any) -> None:
        self.warnings.append(warning)

    def _load_params(self) -> None:
        super()._load_params()
        # How Ansible runs modules on this host holds for all of them.
        ansible = {key: value for key, value in self.params.items() if key.startswith("_ansible_")}
        name, arguments = self.look
        self.params = {
            **ansible,
            "_ansible_check_mode": True,
            "_ansible_module_name": name,
            **copy.deepcopy(dict(arguments)),
        }

    def exit_json(self, **result: Any) -> NoReturn:
        raise Said(result)

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        raise Said({**result, "msg": msg, "failed": True})


def loaded(path: Path) -> ModuleType:
    """A module from its file."""
    spec = importlib.util.spec_from_file_location(f"preflight_look_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def look(
    module: ModuleType, name: str, arguments: Mapping[str, Any], warned: list[str]
) -> dict[str, Any]:
    """What a module says in check mode; ``failed`` where it does not come to its end.

    Args:
        warned: is given what it warns of.
    """

    class Looking(Dry):
        look = (name, arguments)
        warnings = warned

    module.AnsibleModule = Looking  # type: ignore[attr-defined]
    try:
        module.main()
    except Said as said:
        return said.result
    except Exception as why:  # whatever a module can raise; the task will say it in its own words
        return {"failed": True, "msg": f"{type(why).__name__}: {why}"}
    return {"failed": True, "msg": f"{name} ended without a result"}


def look_around(
    looks: Mapping[str, Mapping[str, Any]], modules: Mapping[str, str], shared: Mapping[str, str]
) -> dict[str, Any]:
    """``seen``, ``unseen`` and ``warned`` of the module."""
    seen: dict[str, Any] = {}
    unseen: dict[str, str] = {}
    warned: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ptslink-look-") as directory:
        place = Path(directory)
        (place / "shared").mkdir()
        for name, text in shared.items():
            file = place / "shared" / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        ansible.module_utils.__path__.append(str(place / "shared"))
        # For what is of the server's own source.
        sys.path.append(str(place / "shared"))
        importlib.invalidate_caches()
        ready = {}
        for name, text in modules.items():
            (place / f"{name}.py").write_text(text, encoding="utf-8")
            ready[name] = loaded(place / f"{name}.py")
        for role, of_role in looks.items():
            results = {
                name: look(ready[one["module"]], one["module"], one["args"], warned)
                for name, one in of_role.items()
            }
            failed = [str(result["msg"]) for result in results.values() if result.get("failed")]
            if failed:
                unseen[role] = " | ".join(failed)
                continue
            seen[role] = {
                name: {key: value for key, value in result.items() if key not in FOR_PEOPLE}
                for name, result in results.items()
            }
    return {"seen": seen, "unseen": unseen, "warned": warned}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "looks": {"type": "dict", "required": True, "no_log": True},
            "modules": {"type": "dict", "required": True, "no_log": True},
            "shared": {"type": "dict", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    # no_log keeps the arguments, secrets among them, out of the host's journal. In what is returned
    # it would hide every word that is in any of them; what modules return has no secret in it.
    module.no_log_values.clear()
    parameters = module.params
    result = look_around(parameters["looks"], parameters["modules"], parameters["shared"])
    for warning in result.pop("warned"):
        module.warn(warning)
    module.exit_json(changed=False, invocation={"module_args": {}}, **result)


if __name__ == "__main__":
    main()
