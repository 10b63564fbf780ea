"""What the doctor says about one fault: the same shape for a listed cause and an unlisted one."""

from __future__ import annotations

from dataclasses import dataclass

from ptslink.doctor.cause import Fix, Layer, Match


@dataclass(frozen=True, slots=True)
class Finding:
    """One explanation of the case, and what it is the consequence of."""

    #: An id of the fault catalogue, or ``unlisted-LAYER``.
    id: str
    layer: Layer
    title: str
    match: Match
    fix: Fix
    #: Id of the finding this one is only the aftermath of.
    follows: str | None = None
