"""Tests that boot machines: root on Debian only; scripts/test --quick leaves them out.

Molecule's scenarios have labs of their own and do not disturb each other, so they run in the
background, two at a time, from the moment the first test begins; test_scenarios.py comes last and
waits for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from support.scenarios import LOGS, SIDE_BY_SIDE, Scenario

#: These need no provisioned machine, so `default` has one for the others by the time they are done.
FIRST = "test_lab.py"
LAST = "test_scenarios.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return {FIRST: 0, LAST: 2}.get(item.path.name, 1)

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def scenarios(request: pytest.FixtureRequest) -> Iterator[dict[str, tuple[Scenario, Future[int]]]]:
    """Every scenario that was asked for, under way."""
    asked = [
        str(item.callspec.params["scenario"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_scenario_holds"
    ]
    LOGS.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        begun = {name: Scenario(name) for name in asked}
        yield {name: (scenario, pool.submit(scenario.run)) for name, scenario in begun.items()}
        pool.shutdown(cancel_futures=True)
