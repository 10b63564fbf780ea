"""What a probe saw: facts, never conclusions.

Standard library only: evidence is gathered on machines where nothing of ours is installed, sent as
JSON, and judged elsewhere. Evidence from several vantage points makes one :class:`Case`.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

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
    #: What has been worked out of this very evidence, by the function that did; see :func:`once`.
    known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def all(self, probe: str, vantage: str | None = None) -> Iterator[Evidence]:
        """Every piece of evidence of a probe that ran (skipped ones prove nothing)."""
        for piece in _by_probe(self).get(probe, ()):
            if vantage in (None, piece.vantage):
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


_Result = TypeVar("_Result")


def once(work: Callable[[Case], _Result]) -> Callable[[Case], _Result]:
    """*work*, done when it is first asked for and once a case: all causes share its result.

    Nobody changes what it returns. One that raises is tried again when it is asked again.
    """

    @functools.wraps(work)
    def analysis(case: Case) -> _Result:
        if analysis not in case.known:
            case.known[analysis] = work(case)
        result: _Result = case.known[analysis]
        return result

    return analysis


@once
def _by_probe(case: Case) -> Mapping[str, Sequence[Evidence]]:
    """The pieces of each probe that ran, in their order."""
    found: dict[str, list[Evidence]] = {}
    for piece in case.evidence:
        if piece.status is not Status.SKIPPED:
            found.setdefault(piece.probe, []).append(piece)
    return found
