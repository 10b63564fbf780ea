"""What the doctor's own probes leave on a server: traces that speak of no controller. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ptslink.doctor.evidence import Case, Json, Status

if TYPE_CHECKING:
    from ptslink.doctor.attempts import Attempt

#: Within this time whoever fails at TLS has tried again, in seconds.
RETRY_SECONDS = 30.0
#: A probe tries its kinds of TLS this close to its other traces, in seconds; so many of them may
#: fail in one way beside those that its evidence tells.
PROBE_SECONDS = 3.0
PROBE_TRIES = 2


@dataclass(frozen=True, slots=True)
class _Survey:
    """When a probe tried its kinds of TLS, epoch seconds, and how many of one kind may fail."""

    begin: float
    end: float
    #: The probe's address as seen by the server; None: not known.
    client: str | None
    tries: int

    def covers(self, trace: Attempt) -> bool:
        near = self.begin <= (trace.at or 0.0) <= self.end
        return near and self.client in (None, trace.client)


def _surveys(traces: Sequence[Attempt], case: Case) -> list[_Survey]:
    """Surveys whose evidence is here, then those known only by requests with a probe's id."""
    failed = sum(
        1
        for probe in ("tls.handshake", "tls.offer", "tls.certificate")
        for piece in case.all(probe)
        if piece.vantage != "server"
        and (piece.status is Status.FAILED or piece.facts.get("ok") is False
             or piece.facts.get("verify"))
    )  # fmt: skip
    known = [
        _Survey(window["from"] - 2.0, window["to"] + 2.0, None, failed + PROBE_TRIES)
        for window in _windows(case)
    ]
    left = [a for a in traces if a.by_probe]
    return known + [
        _Survey((a.at or 0.0) - PROBE_SECONDS, (a.at or 0.0) + PROBE_SECONDS, a.client, PROBE_TRIES)
        for a in left
        if not any(survey.covers(a) for survey in known)
    ]


def without_probes_handshakes(traces: Sequence[Attempt], case: Case) -> list[Attempt]:
    """*traces* less as many failed TLS handshakes as surveys may have made."""
    surveys = _surveys(traces, case)
    spent: Counter[tuple[int, tuple[Json, ...]]] = Counter()
    kept = []
    for trace in traces:
        made_by = [
            (number, trace.kind)
            for number, survey in enumerate(surveys)
            if trace.handshake is not None
            and survey.covers(trace)
            and spent[number, trace.kind] < survey.tries
        ]
        if made_by:
            spent[made_by[0]] += 1
        else:
            kept.append(trace)
    return kept


def is_variation(attempt: Attempt, own: AbstractSet[str | None], case: Case) -> bool:
    """Whether a trace was left by a probe that tried something wrong on purpose."""
    if attempt.by_probe and attempt.controller not in own:
        # No variation makes a proxy fail: what nginx could not pass on is a fault all the same.
        return not (attempt.by == "nginx" and (attempt.status or 0) >= 500)
    if attempt.controller or attempt.at is None or attempt.handshake is not None:
        return False
    return any(_within(window, attempt.at) for window in _windows(case))


def _windows(case: Case) -> Iterator[Mapping[str, Json]]:
    return (piece.facts for piece in case.all("survey.window"))


def _within(window: Mapping[str, Json], at: float) -> bool:
    """Whether something happened while a survey went on; clocks and logs are whole seconds off."""
    return bool(window["from"] - 2.0 <= at <= window["to"] + 2.0)


def still_trying(failed: float, succeeded: float | None, case: Case) -> bool:
    """Whether who failed was still trying when a probe began that succeeded."""
    if succeeded is None:
        return False
    began = [w["from"] for w in _windows(case) if _within(w, succeeded)]
    return bool(min([succeeded, *began]) - failed < RETRY_SECONDS)
