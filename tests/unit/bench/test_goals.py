"""A goal is judged on the median of ratios taken within rounds, and says so when it cannot be."""

from __future__ import annotations

import pytest
from benchmarks.server.goals import GOALS, Goal, judge
from benchmarks.server.report import BEGIN, END, replace_block, screen

FASTER = Goal("speed: ours", "ours/s", "theirs/s", 1.0, "at least")
LIGHTER = Goal("memory: ours", "ours KiB", "theirs KiB", 1.0, "at most")
QUICK = Goal("p99: ours", "ours ms", None, 15.0, "at most", "ms")


@pytest.mark.parametrize(
    ("goal", "rounds", "value", "met"),
    [
        (FASTER, [{"ours/s": 9.0, "theirs/s": 10.0}], 0.9, False),
        (FASTER, [{"ours/s": 10.0, "theirs/s": 10.0}], 1.0, True),
        (LIGHTER, [{"ours KiB": 9.0, "theirs KiB": 10.0}], 0.9, True),
        (LIGHTER, [{"ours KiB": 11.0, "theirs KiB": 10.0}], 1.1, False),
        (QUICK, [{"ours ms": 15.0}], 15.0, True),
        (QUICK, [{"ours ms": 15.1}], 15.1, False),
    ],
)
def test_a_goal_is_met_up_to_its_bound(
    goal: Goal, rounds: list[dict[str, float]], value: float, met: bool
) -> None:
    verdict = judge(goal, rounds)
    assert verdict.value == pytest.approx(value)
    assert verdict.met is met


def test_ratios_are_taken_within_a_round_so_that_a_slow_round_does_not_count_against_either() -> (
    None
):
    slow_machine = {"ours/s": 110.0, "theirs/s": 100.0}
    fast_machine = {"ours/s": 220.0, "theirs/s": 200.0}
    noise = {"ours/s": 100.0, "theirs/s": 200.0}
    assert judge(FASTER, [slow_machine, noise, fast_machine]).value == pytest.approx(1.1)


@pytest.mark.parametrize(
    "rounds", [[], [{"ours/s": 1.0}], [{"theirs/s": 1.0}], [{"ours/s": 1, "theirs/s": 0}]]
)
def test_what_was_not_measured_is_neither_met_nor_missed(rounds: list[dict[str, float]]) -> None:
    verdict = judge(FASTER, rounds)
    assert verdict.value is None
    assert verdict.met is None
    assert any("not judged" in line for line in screen(rounds, [verdict]))


def test_every_promise_about_speed_is_judged() -> None:
    assert len(GOALS) == 8
    assert len({goal.figure + str(goal.against) for goal in GOALS}) == 8


def test_the_screen_fits_80_columns() -> None:
    rounds = [{name: 123456.0 for goal in GOALS for name in (goal.figure, goal.against) if name}]
    lines = screen(rounds * 2, [judge(goal, rounds) for goal in GOALS])
    assert [line for line in lines if len(line) > 80] == []


def test_only_the_figures_are_replaced_in_the_document() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nkept by hand\n"
    assert replace_block(document, f"{BEGIN}\nnew\n{END}") == (
        f"before\n{BEGIN}\nnew\n{END}\nkept by hand\n"
    )
    with pytest.raises(ValueError, match="markers"):
        replace_block("no markers", "new")
