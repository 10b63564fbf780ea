"""Every molecule scenario holds: promises kept on machines that really boot."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from support.scenarios import LONGEST_FIRST, ROOT, Scenario

SCENARIOS = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))


def test_every_scenario_has_its_place_in_the_order() -> None:
    assert sorted(LONGEST_FIRST) == SCENARIOS


@pytest.mark.parametrize("scenario", LONGEST_FIRST)
def test_scenario_holds(scenario: str, scenarios: dict[str, tuple[Scenario, Future[int]]]) -> None:
    under_way, status = scenarios[scenario]
    if status.result() != 0:
        tail = "".join(under_way.log.read_text().splitlines(keepends=True)[-80:])
        pytest.fail(
            f"molecule exit {status.result()}; whole log in {under_way.log}\n{tail}", pytrace=False
        )
