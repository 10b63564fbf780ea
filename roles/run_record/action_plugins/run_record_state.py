"""The record of a run: made here from what this computer knows, and kept here and on the host."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import callback_loader
from ansible.release import __version__ as ansible_core
from ansible.utils.display import Display

UNTOLD = "tasks and times are not known: Ansible did not load the callback run_record_tasks"
ROLES = Path(__file__).parents[2]
#: Ansible's own variables that hold what it logs in with.
LOGIN = re.compile(r"^ansible_\w*pass(word|phrase)?$")
#: Ends of names that hold what a run looks at and sees.
SEEN = ("_seen", "_found", "_looks")
#: A secret shorter than this is not looked for in texts: it would be found in any.
SHORT = 4
#: Lines of one task's difference that are kept: a record is to be read.
LINES = 400
#: What of a hop is for the record.
HOP = ("name", "url", "ok", "status", "accept_ok", "cause", "days", "warning")


def shared(role: str, name: str) -> ModuleType:
    """A file of a role's module_utils, which Ansible gives to modules only."""
    path = ROLES / role / "module_utils" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"run_record_{name}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


redact = shared("pts_server", "pts_server_redact")
files = shared("run_record", "run_record_files")


def is_input(name: str, roles: Iterable[str]) -> bool:
    """Whether a variable is one of a role's that people, or the wiring for them, set."""
    if name.endswith(SEEN):
        return False
    return any(name.startswith(f"{role}_") for role in roles if role != "run_record")


def known(names: Iterable[str], value_of: Callable[[str], Any]) -> dict[str, Any]:
    """Names with their values; one that needs what this run never learnt says so."""
    values: dict[str, Any] = {}
    for name in sorted(names):
        try:
            values[name] = value_of(name)
        except Exception as why:  # whatever a template can raise
            values[name] = f"(cannot be told: {type(why).__name__})"
    return values


def digest(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of redacted inputs. Secrets are not in it: short ones could be guessed from it."""
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def leaves(value: Any) -> set[str]:
    """Every text in a value that is long enough to be looked for; of users, not their names."""
    if isinstance(value, Mapping):
        return {leaf for part in value.values() for leaf in leaves(part)}
    if isinstance(value, (list, tuple)):
        return {leaf for part in value for leaf in leaves(part)}
    return {str(value)} if isinstance(value, str) and len(value) >= SHORT else set()


def secrets_in(values: Mapping[str, Any]) -> set[str]:
    """The texts under secret keys, at any depth."""
    found: set[str] = set()
    for key, value in values.items():
        # Of Ansible's own, ansible_user among them, not all that sounds like a secret is one.
        ours = not str(key).startswith("ansible_")
        if redact.is_secret(str(key)) if ours else LOGIN.search(str(key)):
            found |= leaves(value)
        elif isinstance(value, Mapping):
            found |= secrets_in(value)
    return found


def scrubbed(value: Any, secrets: Iterable[str]) -> Any:
    """A value without any of ``secrets``, wherever in a text they stand."""
    if isinstance(value, Mapping):
        return {key: scrubbed(inner, secrets) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrubbed(inner, secrets) for inner in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, redact.HIDDEN)
    return value


def side(value: Any) -> list[str]:
    """One side of a difference, as Ansible has them: text, or something to be written as JSON."""
    if value is None:
        return []
    text = value if isinstance(value, str) else json.dumps(value, indent=1, sort_keys=True)
    return list(redact.redacted(str(text)).splitlines())


def difference(diffs: Iterable[Any]) -> str:
    """What results have as ``diff``, as the lines that go (-) and come (+), without context."""
    lines: list[str] = []
    flat = [one for diff in diffs for one in (diff if isinstance(diff, list) else [diff])]
    for one in flat:
        if not isinstance(one, Mapping):
            continue
        lines += side(one.get("prepared"))
        lines += difflib.unified_diff(
            side(one.get("before")),
            side(one.get("after")),
            f"before {one.get('before_header', '')}".rstrip(),
            f"after {one.get('after_header', '')}".rstrip(),
            n=0,
            lineterm="",
        )
    if len(lines) > LINES:
        lines[LINES:] = [f"({len(lines) - LINES} more lines)"]
    return "\n".join(lines)


def deed(changed: Mapping[str, Any]) -> dict[str, Any]:
    """A task that changed something, as it is told."""
    said = difference(changed["diffs"])
    kept = {key: value for key, value in changed.items() if key != "diffs"}
    return kept | ({"difference": said} if said else {})


def hop(seen: Mapping[str, Any]) -> dict[str, Any]:
    """What of a hop is for the record, with how long its steps took."""
    kept = {key: seen[key] for key in HOP if seen.get(key) is not None}
    took = sum(step.get("ms") or 0 for step in seen.get("steps") or [])
    return kept | ({"ms": round(took, 1)} if took else {})


def outcome(asked: str, deeds: Mapping[str, Any] | None) -> str:
    """How a run ended, in a word; of a good one, whether it changed anything."""
    if asked != "good" or deeds is None:
        return asked
    return "changed" if deeds["changed"] else "unchanged"


def account(
    asked: Mapping[str, Any],
    host: str,
    values: Mapping[str, Any],
    deeds: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The record as far as it is known here, without secrets.

    Args:
        asked: what the task says of the run: ``outcome``, ``failure``, ``link``, ``difference``.
        values: variables of the roles, and whatever else has a secret's name.
        deeds: what the callback remembers, or None where it was not there.
    """
    inputs = redact.without_secrets(
        {name: value for name, value in values.items() if not name.startswith("ansible_")}
    )
    told = (
        {**deeds, "changed": [deed(changed) for changed in deeds["changed"]]}
        if deeds
        else {"note": UNTOLD}
    )
    record = {
        "outcome": outcome(asked["outcome"], deeds),
        "host": host,
        **told,
        **{key: asked[key] for key in ("failure", "difference") if asked.get(key)},
        "link": {name: [hop(one) for one in seen] for name, seen in asked["link"].items()},
    }
    # Longest first: a secret may begin with another one.
    secrets = sorted(secrets_in(values), key=len, reverse=True)
    return {
        **scrubbed(record, secrets),
        "versions": {"ansible_core": ansible_core, "control_python": platform.python_version()},
        "inputs": json.loads(json.dumps(scrubbed(inputs, secrets), default=str)),
        "inputs_hash": digest(scrubbed(inputs, secrets)),
    }


class ActionModule(ActionBase):
    """The module of the same name, with the record of the run made before and kept after it."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Any:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        asked = arguments.pop("run", None)
        if not asked or self._task.check_mode:
            return self._execute_module(module_args=arguments, task_vars=variables)
        host = variables["inventory_hostname"]
        try:
            record = account(asked, host, self._values(variables), self._deeds(host))
        except Exception as why:  # a run that is good is not undone for want of words about it
            self._warn(f"{host}: this run is not on record: {type(why).__name__}: {why}")
            if arguments["state"] == "told":
                return {"changed": False}
            return self._execute_module(module_args=arguments, task_vars=variables)
        arguments |= {"run": record, "run_name": files.name_of("run")}
        try:
            result = self._execute_module(module_args=arguments, task_vars=variables)
        except AnsibleConnectionFailure as why:
            if arguments["state"] != "told":
                raise
            # What failed before is what is to be read at the end, not this.
            result = {"changed": False, "unkept": str(why)}
        if result.get("failed") and arguments["state"] != "told":
            return result
        unkept = result.get("unkept") or (result.get("msg") if result.get("failed") else "")
        record = result.pop("run", record)
        if unkept:
            record["unkept"] = f"The host has no copy of this record: {unkept}"
            self._warn(f"{host}: {record['unkept']}")
        here = Path(asked["directory"])
        try:
            files.Records(here).write("run", record, int(arguments["keep"]), arguments["run_name"])
        except OSError as why:
            self._warn(f"{host}: this computer has no copy of the record of the run: {why}")
        return {**result, "failed": False, "run_record": str(here / arguments["run_name"])}

    @staticmethod
    def _warn(text: str) -> None:
        # Not by way of the result, which is hidden.
        Display().warning(text)

    def _values(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        roles = [path.name for path in ROLES.iterdir()]
        names = [name for name in variables if is_input(name, roles) or LOGIN.search(name)]
        return known(names, lambda name: self._templar.template(variables[name]))

    @staticmethod
    def _deeds(host: str) -> dict[str, Any] | None:
        teller = callback_loader.get("run_record_tasks", class_only=True)
        deeds: dict[str, Any] | None = teller.run.of(host) if teller else None
        return deeds
