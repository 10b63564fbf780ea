"""docs/testing.md: every promise has a test that exists, every scenario a promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def rows(document: str, heading: str) -> dict[str, str]:
    """First and second cell of each row of the table under a heading."""
    text = (ROOT / "docs" / document).read_text().split(f"\n## {heading}", 1)[1].split("\n## ")[0]
    table = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return {cells[1].strip(): cells[2] for cells in (line.split("|") for line in table)}


HELD = rows("testing.md", "Promises")
TESTS = sorted({test for cell in HELD.values() for test in re.findall("`([^`]+)`", cell)})


def test_the_promises_are_those_of_the_architecture() -> None:
    assert list(HELD) == list(rows("architecture.md", "Promises and where each is kept"))


@pytest.mark.parametrize("promise", HELD)
def test_a_promise_has_a_test(promise: str) -> None:
    assert "`" in HELD[promise]


@pytest.mark.parametrize("test", TESTS)
def test_a_test_that_is_named_exists(test: str) -> None:
    file, _, function = test.partition("::")
    if file.startswith("molecule/"):
        assert (ROOT / file / "molecule.yml").is_file()
        return
    text = (ROOT / file).read_text()
    assert not function or re.search(rf"^(?:async )?def {function}\(", text, re.MULTILINE)


def test_every_scenario_is_there_for_a_promise() -> None:
    scenarios = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")}
    assert scenarios == {test.removeprefix("molecule/") for test in TESTS if "molecule/" in test}
