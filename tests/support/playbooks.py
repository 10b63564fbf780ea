"""How a run of a playbook ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """How a run ended; ``done`` are (host, role) in order."""

    status: int
    said: str
    done: list[tuple[str, str]]

    def with_role(self, role: str) -> list[str]:
        return [host for host, done in self.done if done == role]
