"""A case of the conformance suite counts only when its exchange and its close are both in order."""

from __future__ import annotations

import pytest

from conformance.results import Case, markdown, read_index


@pytest.mark.parametrize(
    ("behaviour", "close", "accepted"),
    [
        ("OK", "OK", True),
        ("INFORMATIONAL", "INFORMATIONAL", True),
        ("NON-STRICT", "OK", False),
        ("FAILED", "OK", False),
        ("OK", "FAILED", False),
        ("OK", "WRONG CODE", False),
        ("OK", "UNCLEAN", False),
        ("UNIMPLEMENTED", "OK", False),
    ],
)
def test_a_case_is_accepted(behaviour: str, close: str, accepted: bool) -> None:
    assert Case("1.1.1", behaviour, close).accepted is accepted


def test_cases_are_in_the_order_of_the_suite() -> None:
    good = {"behavior": "OK", "behaviorClose": "OK"}
    index = {"ptslink": {"10.1.1": good, "1.1.10": good, "1.1.2": good}}
    assert [case.number for case in read_index(index, "ptslink")] == ["1.1.2", "1.1.10", "10.1.1"]


def test_a_run_without_cases_is_no_result() -> None:
    with pytest.raises(ValueError, match="no case"):
        read_index({}, "ptslink")


def test_what_was_not_accepted_is_named() -> None:
    cases = [Case("7.1.5", "FAILED", "WRONG CODE"), Case("7.1.6", "OK", "OK")]
    written = markdown(cases, {"ptslink": "0"}, "2026-01-01")
    assert "| 7 closing | 2 | 1 | 0 | 1 |" in written
    assert "| **all** | 2 | 1 | 0 | 1 |" in written
    assert "7.1.5 (FAILED, close WRONG CODE)" in written
