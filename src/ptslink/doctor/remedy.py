"""Which fixes of a verdict may be applied unasked, and how. Pure.

Only fixes of class ``yes``, of findings that are known rather than guessed and are not the mere
aftermath of another. A fix that still holds a placeholder for something the evidence did not tell
(``PORT``, ``LOGIN``) is refused and says so: a person has to fill it in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ptslink.doctor.cause import Auto
from ptslink.doctor.commands import Commands
from ptslink.doctor.evidence import Json
from ptslink.doctor.finding import Finding
from ptslink.doctor.verdict import GUESS, Verdict

#: Provisioning again is the fix: the whole site.yml is run, whatever tags the command names.
_PROVISION = "ansible-playbook"
_PLACEHOLDER = re.compile(
    r"\b(?:ADDRESS|FILE|HOST|INVENTORY|JAIL|LOGIN|NAME|PASSWORD|PATH|PID|PORT|PROXY_ADDRESS|SITE)\b"
)


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is to be done about one finding."""

    id: str
    summary: str
    #: What to run on the server, as root and without a shell; empty where nothing is needed.
    commands: Commands = ()
    #: Ansible variables to provision with.
    variables: tuple[tuple[str, Json], ...] = ()
    #: Whether the server is to be provisioned again.
    provision: bool = False
    #: Why it is not applied, or empty.
    refused: str = ""

    def to_json(self) -> dict[str, Json]:
        return {
            "id": self.id,
            "summary": self.summary,
            "commands": [list(command) for command in self.commands],
            "variables": dict(self.variables),
            "provision": self.provision,
            "refused": self.refused,
        }


def remedies(verdict: Verdict) -> list[Remedy]:
    """What may be done unasked, and what of class ``yes`` cannot be done so, in the order of the
    findings."""
    return [
        _remedy(finding)
        for finding in verdict.findings
        if finding.fix.auto is Auto.YES
        and finding.follows is None
        and finding.match.confidence >= GUESS
    ]


def _remedy(finding: Finding) -> Remedy:
    fix = finding.fix
    commands = tuple(command for command in fix.commands if command[0] != _PROVISION)
    provision = bool(fix.ansible) or commands != fix.commands
    missing = sorted(_placeholders([commands, fix.ansible]))
    refused = ""
    if missing:
        refused = f"{', '.join(missing)} is for a person to fill in"
    elif not commands and not provision:
        refused = "the cause names neither a command nor a variable"
    return Remedy(
        finding.id, fix.summary, commands, tuple(fix.ansible.items()), provision, refused
    )  # fmt: skip


def _placeholders(value: Json) -> set[str]:
    """Placeholders anywhere in *value*, keys included."""
    if isinstance(value, str):
        return set(_PLACEHOLDER.findall(value))
    if isinstance(value, Mapping):
        return {found for pair in value.items() for part in pair for found in _placeholders(part)}
    if isinstance(value, list | tuple):
        return {found for part in value for found in _placeholders(part)}
    return set()
