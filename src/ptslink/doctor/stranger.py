"""A probe that is turned away as a stranger has seen a link that works up to its door. Pure.

An allow-list, passwords or signatures keep out who is no controller of this server. That the
service judged the request proves the whole way to it; whether a controller gets in is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ptslink.doctor.attempts import of_probe
from ptslink.doctor.evidence import Case, Evidence, Status

#: Our service's refusal -> what to try in order to see more.
_HOW: Mapping[str, str] = {
    "controller-not-allowed": (
        "not on the server's allow-list: the way to the service works. To try a controller's own "
        "id: ptslink doctor URL --controller-id ID (it takes that controller's place)"
    ),
    "missing-credentials": (
        "the server asks for a password: the way to the service works. To try with one: "
        "ptslink doctor URL --basic-env NAME (the variable NAME holds user:password)"
    ),
    "signature-missing": (
        "the server asks for signed requests: the way to the service works. Only a controller "
        "with the secret key can show more"
    ),
}


def recognized(case: Case) -> Case:
    """The case with every refusal of a strange probe marked ``unknown``, saying how to see more."""
    if not any(piece.status is Status.FAILED for piece in case.evidence):
        return case
    return replace(case, evidence=tuple(map(_recognized, case.evidence)))


def _recognized(piece: Evidence) -> Evidence:
    if piece.status is not Status.FAILED or piece.probe not in ("http.upgrade", "link.local"):
        return piece
    attempt = of_probe(piece)
    if attempt is None or not attempt.stranger:
        return piece
    how = _HOW[str(attempt.code)]
    return replace(piece, status=Status.UNKNOWN, seen=f"{piece.seen}: {how}")
