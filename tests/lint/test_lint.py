"""What the linters accept, one test a linter, so that a failure names the one that objects."""

from __future__ import annotations

import pytest
from tests.lint.linters import LINTERS, Linting, shell_scripts


@pytest.mark.parametrize("linting", LINTERS, indirect=True)
def test_the_linter_accepts_the_tree(linting: Linting) -> None:
    if (objection := linting.objection()) is not None:
        pytest.fail(objection, pytrace=False)


def test_shellcheck_is_shown_what_has_no_suffix() -> None:
    assert "scripts/test" in shell_scripts()
