"""nginx files: the whole configuration is tested in a copy before anything is replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def site(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("nginx_proxy/library/nginx_proxy_site")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A configuration tree as Debian lays it out."""
    tree = tmp_path / "etc" / "nginx"
    (tree / "conf.d").mkdir(parents=True)
    (tree / "sites-available").mkdir()
    (tree / "sites-enabled").mkdir()
    (tree / "nginx.conf").write_text(f"include {tree}/conf.d/*.conf;\ninclude mime.types;\n")
    (tree / "sites-available" / "default").write_text("server {}\n")
    (tree / "sites-enabled" / "default").symlink_to(f"{tree}/sites-available/default")
    return tree


def test_only_what_differs_is_to_be_done(site: Any, tree: Path) -> None:
    (tree / "conf.d" / "a.conf").write_text("a")
    wanted = {"conf.d/a.conf": "a", "conf.d/b.conf": "b", "conf.d/c.conf": None}
    assert site.differences(tree, wanted) == {"conf.d/b.conf": "b"}
    assert site.differences(tree, {"sites-enabled/default": None}) == {
        "sites-enabled/default": None
    }


def test_a_link_to_nothing_is_something_that_can_be_removed(site: Any, tree: Path) -> None:
    (tree / "sites-available" / "default").unlink()
    assert site.differences(tree, {"sites-enabled/default": None})


def test_the_copy_refers_to_itself_and_has_the_new_files(
    site: Any, tree: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "staged"
    site.stage(tree, copy, {"conf.d/ptslink.conf": "new", "sites-enabled/default": None})
    assert (copy / "conf.d" / "ptslink.conf").read_text() == "new"
    assert not (copy / "sites-enabled" / "default").exists()
    assert (copy / "nginx.conf").read_text() == (
        f"include {copy}/conf.d/*.conf;\ninclude mime.types;\n"
    )


def test_links_into_the_tree_lead_into_the_copy(site: Any, tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "staged"
    site.stage(tree, copy, {"sites-available/default": "changed"})
    assert (copy / "sites-enabled" / "default").read_text() == "changed"


def test_staging_leaves_the_tree_as_it_was(site: Any, tree: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    site.stage(tree, tmp_path / "staged", {"nginx.conf": "x", "sites-enabled/default": None})
    assert before == {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert (tree / "sites-enabled" / "default").is_symlink()
