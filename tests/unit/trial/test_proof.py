"""What scripts/try prints is a proof only when every part of it holds."""

from __future__ import annotations

import dataclasses

import pytest

from trial import Hop, Proof, simulator_cause, total

GOOD = Proof(
    hops=[
        Hop("nginx", "ws://192.0.2.1/ptsWebSocket", 101, True, None),
        Hop("direct", "ws://192.0.2.1:3000/ptsWebSocket", 101, True, None),
    ],
    sent={"UploadStatus": 4, "UploadConfiguration": 4},
    confirmed={"UploadStatus": 4, "UploadConfiguration": 4},
    before={"UploadConfiguration": 3},
    after={"UploadStatus": 1, "UploadConfiguration": 7},
    address="192.0.2.1",
    seconds=61.0,
)


def test_a_run_where_everything_held_has_no_problem() -> None:
    assert GOOD.problems() == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"hops": [Hop("nginx", "ws://x", 426, False, "the Upgrade header was lost")]},
            "nginx: the Upgrade header was lost",
        ),
        ({"hops": [Hop("nginx", "ws://x", 101, False, None)]}, "nginx: HTTP status 101"),
        (
            {"confirmed": {"UploadStatus": 3, "UploadConfiguration": 4}},
            "UploadStatus: 4 sent, 3 confirmed",
        ),
        (
            {"before": {"UploadConfiguration": 4}},
            "UploadConfiguration: 4 confirmed, 3 added to the journal",
        ),
        (
            {"after": {"UploadConfiguration": 7}},
            "UploadStatus: confirmed, but the journal keeps none",
        ),
        ({"sent": {}, "confirmed": {}}, "no message was confirmed"),
    ],
)
def test_each_part_that_does_not_hold_is_named(change: dict[str, object], problem: str) -> None:
    assert problem in dataclasses.replace(GOOD, **change).problems()  # type: ignore[arg-type]


def test_the_proof_fits_a_terminal_and_shows_the_uri_without_its_slash() -> None:
    lines = list(GOOD.lines())
    assert max(map(len, lines)) <= 80
    uri = next(line for line in lines if "request URI" in line)
    assert "ptsWebSocket" in uri
    assert "/ptsWebSocket" not in uri


def test_counts_of_all_controllers_are_added_up() -> None:
    summaries = [
        {"controllers": [{"sent": {"UploadStatus": 1}}, {"sent": {"UploadStatus": 2}}]},
        {"controllers": [{"sent": {"UploadShift": 1}}]},
    ]
    assert total(summaries, "sent") == {"UploadStatus": 3, "UploadShift": 1}


@pytest.mark.parametrize(
    ("controller", "cause"),
    [
        ({"id": "AB", "error": "connection refused", "rejected": {}}, "AB: connection refused"),
        ({"id": "AB", "error": None, "rejected": {"UploadStatus": 1}}, "rejected answers"),
    ],
)
def test_a_simulator_that_failed_says_which_controller_and_why(
    controller: dict[str, object], cause: str
) -> None:
    assert cause in str(simulator_cause({"ok": False, "controllers": [controller]}))
