"""What the server's speed is held to, and the arithmetic of judging it. No I/O.

A round gives one figure for each thing measured. Ratios are taken within a round, because a
machine's speed drifts between rounds; the median of the rounds is what is judged.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

#: One round: the name of the figure -> its value, in the unit the name says.
Round = Mapping[str, float]


@dataclass(frozen=True)
class Goal:
    """A promise about one figure, or about its ratio to another.

    Attributes:
        what: the promise, for a person.
        figure: the name of ours.
        against: the name of the comparator's, or None for an absolute goal.
        bound: what the ratio (or the figure) is held to.
        sense: whether it must be ``at least`` or ``at most`` the bound.
        unit: of an absolute goal.
    """

    what: str
    figure: str
    against: str | None
    bound: float
    sense: Literal["at least", "at most"]
    unit: str = ""

    def accepted(self) -> str:
        unit = f" {self.unit}" if self.unit else " times" if self.against else ""
        return f"{self.sense} {self.bound:g}{unit}"


@dataclass(frozen=True)
class Verdict:
    """How a goal fared: ``value`` is None where nothing was measured."""

    goal: Goal
    value: float | None
    ours: float | None
    theirs: float | None
    rounds: int

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        if self.goal.sense == "at least":
            return self.value >= self.goal.bound
        return self.value <= self.goal.bound


GOALS: tuple[Goal, ...] = (
    Goal(
        "durable confirmations: Node + SQLite, a commit a message",
        "confirmed/s ptslink",
        "confirmed/s node+sqlite message",
        8.0,
        "at least",
    ),
    Goal(
        "durable confirmations: Node + SQLite, a commit a loop turn",
        "confirmed/s ptslink",
        "confirmed/s node+sqlite turn",
        1.0,
        "at least",
    ),
    Goal(
        "confirmations without a journal: Node ws; ours on asyncio",
        "confirmed/s ptslink without journal",
        "confirmed/s node",
        1.0,
        "at least",
    ),
    Goal(
        "confirmations without a journal: Node ws; ours on uvloop",
        "confirmed/s ptslink uvloop without journal",
        "confirmed/s node",
        1.2,
        "at least",
    ),
    Goal(
        "handshakes, each with its record: Node ws, no record",
        "handshakes/s ptslink",
        "handshakes/s node",
        1.5,
        "at least",
    ),
    Goal(
        "memory of an idle connection: Node ws",
        "KiB/connection ptslink",
        "KiB/connection node",
        1.0,
        "at most",
    ),
    Goal(
        "time of a durable confirmation: p99 at half the highest rate",
        "p99 ms at half rate ptslink",
        None,
        15.0,
        "at most",
        "ms",
    ),
    Goal(
        "9,000 connections, a status each 10 s: late pongs",
        "late pongs of 9000 ptslink",
        None,
        0.0,
        "at most",
    ),
)


def median(rounds: Sequence[Round], figure: str) -> float | None:
    """The median of one figure, None where no round has it."""
    values = [one[figure] for one in rounds if figure in one]
    return statistics.median(values) if values else None


def median_ratio(rounds: Sequence[Round], figure: str, against: str) -> tuple[float | None, int]:
    """The median of the ratios taken within each round that has both, and how many those are."""
    ratios = [
        one[figure] / one[against] for one in rounds if figure in one and one.get(against, 0) > 0
    ]
    return (statistics.median(ratios) if ratios else None), len(ratios)


def judge(goal: Goal, rounds: Sequence[Round]) -> Verdict:
    """Hold the rounds against one goal."""
    ours = median(rounds, goal.figure)
    if goal.against is None:
        count = sum(goal.figure in one for one in rounds)
        return Verdict(goal, ours, ours, None, count)
    value, count = median_ratio(rounds, goal.figure, goal.against)
    return Verdict(goal, value, ours, median(rounds, goal.against), count)
