"""What a probe saw: facts, never conclusions.

Standard library only: evidence is gathered on machines where nothing of ours is installed, sent as
JSON, and judged elsewhere. Evidence from several vantage points makes one :class:`Case`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: Plain JSON data: what json.loads gives.
Json = Any


class Status(enum.StrEnum):
    """How a probe went, as far as the probe itself can tell."""

    OK = "ok"
    FAILED = "failed"
    #: It ran and could not tell.
    UNKNOWN = "unknown"
    #: It may not or cannot run here; ``seen`` says why. Nothing is inferred from it.
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing one probe saw from one place."""

    #: Which probe, as ``room.thing``: ``tcp.connect``, ``nginx.config``, ``service.unit``.
    probe: str
    status: Status
    #: One line for a person.
    seen: str
    #: The same for a cause to judge; keys are documented with the probe.
    facts: Mapping[str, Json] = field(default_factory=dict)
    #: How long it took, milliseconds.
    ms: float = 0.0
    #: Where it was seen from: ``site``, ``control`` or ``server``.
    vantage: str = "site"
    #: What it was read from, as whoever joined it knows: a host, a file; empty: seen from here.
    source: str = ""
    #: Whether whoever judges saw it or fetched it himself; a file may say anything.
    own: bool = True

    def to_json(self) -> dict[str, Json]:
        return {
            "probe": self.probe,
            "vantage": self.vantage,
            "status": self.status.value,
            "seen": self.seen,
            "facts": dict(self.facts),
            "ms": round(self.ms, 1),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Evidence:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: it does not fit; says where.
        """
        if not isinstance(data["facts"], Mapping):
            raise ValueError("facts is no table")
        ms = float(data["ms"])
        if not math.isfinite(ms):
            raise ValueError("ms is no time")
        return cls(
            probe=str(data["probe"]),
            vantage=str(data["vantage"]),
            status=Status(data["status"]),
            seen=str(data["seen"]),
            facts=dict(data["facts"]),
            ms=ms,
        )


@dataclass(frozen=True, slots=True)
class Case:
    """All that was seen of one link, from every vantage point, in the order it was gathered."""

    target: str
    evidence: Sequence[Evidence]

    def all(self, probe: str, vantage: str | None = None) -> Iterator[Evidence]:
        """Every piece of evidence of a probe that ran (skipped ones prove nothing)."""
        for piece in self.evidence:
            if (
                piece.probe == probe
                and piece.status is not Status.SKIPPED
                and vantage in (None, piece.vantage)
            ):
                yield piece

    def first(self, probe: str, vantage: str | None = None) -> Evidence | None:
        """The first piece of evidence of a probe that ran, or None."""
        return next(self.all(probe, vantage), None)

    def fact(self, probe: str, key: str, vantage: str | None = None) -> Json:
        """A fact of the first piece of evidence that has it, or None: not seen is not false."""
        for piece in self.all(probe, vantage):
            if key in piece.facts:
                return piece.facts[key]
        return None

    def vantages(self) -> list[str]:
        return list(dict.fromkeys(piece.vantage for piece in self.evidence))
