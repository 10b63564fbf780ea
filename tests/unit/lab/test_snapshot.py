"""What a snapshot is called: by the image and by every file that went into the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptslab import snapshot
from ptslab.errors import LabError, UsageError

IMAGE = Path("/images/bookworm-0123")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles/one.yml").write_text("a: 1\n")
    (tmp_path / "site.yml").write_text("b: 2\n")
    return tmp_path


def key(tree: Path, image: Path = IMAGE) -> str:
    return snapshot.key(image, [tree / "roles", tree / "site.yml"])


def test_the_same_files_have_the_same_key(tree: Path) -> None:
    first = key(tree)
    (tree / "roles/__pycache__").mkdir()
    (tree / "roles/__pycache__/one.pyc").write_bytes(b"compiled")
    assert key(tree) == first


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "roles/one.yml").write_text("a: 2\n"),
        lambda tree: (tree / "roles/two.yml").write_text(""),
        lambda tree: (tree / "roles/one.yml").rename(tree / "roles/other.yml"),
        lambda tree: (tree / "site.yml").chmod(0o755),
    ],
    ids=["content", "another file", "name", "mode"],
)
def test_any_change_of_what_went_into_it_is_another_key(tree: Path, change: object) -> None:
    first = key(tree)
    assert callable(change)
    change(tree)
    assert key(tree) != first


def test_another_image_is_another_key(tree: Path) -> None:
    assert key(tree, Path("/images/bookworm-4567")) != key(tree)


def test_a_file_that_is_not_there_is_refused_by_its_name(tree: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: no such file"):
        snapshot.key(IMAGE, [tree / "nowhere"])


@pytest.mark.parametrize("name", ["", "Provisioned", "a/b", "..", "x" * 33])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="a name is up to 32"):
        snapshot.path(name, "bookworm", [])


def test_a_snapshot_that_is_not_there_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="scripts/lab snapshot"):
        snapshot.require(tmp_path / "provisioned-bookworm-0123")
