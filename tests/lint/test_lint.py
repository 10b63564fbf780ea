"""What the linters accept, one test a linter, so that a failure names the one that objects."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
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


def templates(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """Every text of a YAML file that Ansible renders."""
    if isinstance(node, yaml.ScalarNode) and "{{" in node.value:
        yield node
    elif isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):
                yield from templates(part)


def test_a_backslash_in_a_template_is_not_escaped() -> None:
    """Ansible escapes each once more: what Jinja would read as one is two."""
    named = [path for place in ("roles", "playbooks", "molecule") for path in
             (linters.ROOT / place).rglob("*.yml")]  # fmt: skip
    twice = [
        f"{path.relative_to(linters.ROOT)}:{node.start_mark.line + 1}"
        for path in named
        for node in templates(yaml.compose(path.read_bytes(), yaml.CSafeLoader))
        if re.search(r"\\\\\w", node.value)
    ]
    assert twice == []
