"""What must hold of any text that is given to the doctor as evidence of another place."""

from __future__ import annotations

import json
from typing import Final

from tests.unit.doctor.programs import assert_runnable

from ptslink.doctor.admission import read
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.evidence import Case
from ptslink.doctor.report import render
from ptslink.doctor.verdict import judge

#: What the doctor does with evidence of a case, in turn: as a file gives it, and as a site does.
_PLACES: Final = (None, "site")


def evidence(data: bytes) -> None:
    """A verdict comes out, its commands are argument vectors of known programs, nothing that is
    shown controls a terminal."""
    for vantage in _PLACES:
        try:
            pieces = read(data.decode("utf-8", "replace"), "a file", vantage=vantage)
        except ValueError:
            return
        found = judge(Case("ws://h/", tuple(pieces)), CAUSES)
        for finding in found.findings:
            assert_runnable(finding.fix)
        shown = render(found).replace("\n", "")
        assert shown.isprintable(), shown
        told = json.dumps(found.to_json(), ensure_ascii=False)
        assert told.isprintable(), told
