"""What a deviation is: an id of the catalogue of causes, a line about it, and how it bends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ptslink.simulator.manner import Manner


class DeviationError(ValueError):
    """No such deviation, or a value it does not take; the text says what is accepted."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """One deviation. ``bend`` gets the manner so far and the value from ``ID=VALUE``."""

    id: str
    summary: str
    bend: Callable[[Manner, str], Manner]
    #: What the value means and, where there is one, the value taken when none is given.
    value: str = ""
    default: str = ""

    def apply(self, manner: Manner, value: str | None) -> Manner:
        """The bent manner; raises ``DeviationError`` for a value that is missing or not taken."""
        if value is not None and not self.value:
            raise DeviationError(f"{self.id} takes no value, got {value!r}")
        if value is None and self.value and not self.default:
            raise DeviationError(f"{self.id} needs a value: {self.id}={self.value}")
        try:
            return self.bend(manner, self.default if value is None else value)
        except ValueError as error:
            raise DeviationError(f"{self.id}={value}: {error}; accepted: {self.value}") from error


def choose(value: str, **choices: object) -> object:
    """The choice called *value*; raises ``ValueError`` naming all of them."""
    names = {name.replace("_", "-"): choice for name, choice in choices.items()}
    if value not in names:
        raise ValueError(f"one of {', '.join(names)}")
    return names[value]


def seconds(value: str) -> float:
    """A number of seconds; raises ``ValueError``."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 86400:
        raise ValueError("not a number of seconds from 0 to 86400")
    return number


def count(value: str, low: int, high: int) -> int:
    """A whole number from *low* to *high*; raises ``ValueError``."""
    if not (value.isdecimal() and low <= int(value) <= high):
        raise ValueError(f"not a whole number from {low} to {high}")
    return int(value)
