"""What a link probe saw, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

StepStatus = Literal["ok", "failed", "skipped"]

#: The steps in the order they are walked.
STEPS = ("resolve", "connect", "tls", "get", "upgrade", "accept", "ping", "echo", "idle", "close")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was seen, in a short line for people and as facts for programs."""

    name: str
    status: StepStatus
    ms: float
    seen: str
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "name": self.name,
            "status": self.status,
            "ms": self.ms,
            "seen": self.seen,
        }
        if self.facts:
            shown["facts"] = self.facts
        return shown


@dataclass(frozen=True, slots=True)
class LinkResult:
    """Whether a controller's link works from here, and what each step showed.

    ``ok`` rests on every step but ``get``: how a server answers a plain GET says who is there, but
    no controller ever sends one. ``cause`` says in one sentence what the first failing step saw;
    why it is so is for the doctor to judge.
    """

    url: str
    ok: bool
    status: int | None
    accept_ok: bool
    cause: str | None
    steps: tuple[Step, ...]
    headers: dict[str, str]
    body: str
    address: str | None
    controller_id: str

    def step(self, name: str) -> Step:
        """The step called *name*; raises ``KeyError`` for a name that is none of ``STEPS``."""
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data; the shape ``ptslink probe --json`` prints."""
        return {
            "url": self.url,
            "ok": self.ok,
            "status": self.status,
            "accept_ok": self.accept_ok,
            "cause": self.cause,
            "steps": [step.as_json() for step in self.steps],
            "headers": self.headers,
            "body": self.body,
            "address": self.address,
            "controller_id": self.controller_id,
        }


def link_result_from_json(data: dict[str, Any]) -> LinkResult:
    """The result another host printed with ``--json``.

    Raises:
        KeyError, TypeError: *data* is not such a result.
    """
    steps = tuple(
        Step(s["name"], s["status"], s["ms"], s["seen"], s.get("facts", {})) for s in data["steps"]
    )
    return LinkResult(**{**data, "steps": steps})
