"""What the linters accept, one test a linter, so that a failure names the one that objects."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.lint import linters
from tests.lint.linters import LINTERS, Linting, shell_scripts


@pytest.mark.parametrize("linting", LINTERS, indirect=True)
def test_the_linter_accepts_the_tree(linting: Linting) -> None:
    if (objection := linting.objection()) is not None:
        pytest.fail(objection, pytrace=False)


def test_shellcheck_is_shown_what_has_no_suffix() -> None:
    assert "scripts/test" in shell_scripts()


@pytest.mark.parametrize("place", ["roles/x/tasks/main.yml", "site.yml", "roles/x/library/y.py"])
def test_what_was_accepted_is_looked_at_again_after_a_change(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linters, "ROOT", tmp_path)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    changing = tmp_path / place
    changing.parent.mkdir(parents=True, exist_ok=True)
    changing.write_text("- one\n")
    accepted = linters.looked_at()
    assert linters.looked_at() == accepted
    changing.write_text("- two\n")
    assert linters.looked_at() != accepted
    changing.unlink()
    assert linters.looked_at() != accepted


@pytest.mark.parametrize("name", linters.REMEMBERED)
def test_what_is_not_accepted_is_not_remembered(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linters, "ACCEPTED", tmp_path / "accepted")
    # The other's word is not this one's.
    (other,) = set(linters.REMEMBERED) - {name}
    accepted = Linting(other, ["true"])
    assert accepted.objection() is None
    accepted.stop()
    for command, objects in ((["false"], True), (["true"], False), (["false"], False)):
        linting = Linting(name, [*command])
        assert (linting.objection() is not None) is objects
        linting.stop()
