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


def test_a_relative_link_out_of_the_tree_leads_where_it_led(
    site: Any, tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "app.conf").write_text("theirs")
    (tree / "sites-enabled" / "app").symlink_to("../../../srv/app.conf")
    (tree / "sites-enabled" / "inside").symlink_to("../sites-available/default")
    copy = tmp_path / "far" / "away" / "staged"
    site.stage(tree, copy, {"sites-available/default": "changed"})
    assert (copy / "sites-enabled" / "app").read_text() == "theirs"
    assert (copy / "sites-enabled" / "inside").read_text() == "changed"


@pytest.mark.parametrize(("refuses", "at_fault"), [("staged", True), ("nginx", False), ("", False)])
def test_a_copy_that_nginx_refuses_as_it_is_says_nothing_of_new_files(
    site: Any, tree: Path, tmp_path: Path, refuses: str, at_fault: bool
) -> None:
    nginx = tmp_path / "nginx"
    nginx.write_text(f'#!/bin/sh\ncase "$4" in *"/{refuses or "none"}/"*) exit 1;; esac\n')
    nginx.chmod(0o755)
    assert site.only_in_place(tree, tmp_path / "staged", str(nginx)) == at_fault


def test_staging_leaves_the_tree_as_it_was(site: Any, tree: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    site.stage(tree, tmp_path / "staged", {"nginx.conf": "x", "sites-enabled/default": None})
    assert before == {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert (tree / "sites-enabled" / "default").is_symlink()


MAIN = """user www-data;
worker_processes auto;  # worker_rlimit_nofile 1;
include /etc/nginx/modules-enabled/*.conf;

events {
\tworker_connections 768;
\t# multi_accept on;
}

http {
\tmap $uri $new { '~^/(?<a>{2})}' "worker_connections 1;"; }
\tlog_format x "${remote_addr} }";
}
"""
LEAST = {"worker_connections": 20256, "worker_rlimit_nofile": 20512}


@pytest.fixture
def limits(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("nginx_proxy/module_utils/nginx_proxy_limits")


def test_limits_are_raised_and_nothing_else_changes(limits: Any) -> None:
    assert limits.raised(MAIN, LEAST) == MAIN.replace("768", "20256").replace(
        "events {", "worker_rlimit_nofile 20512;\nevents {"
    )


def test_what_was_raised_stays_as_it_is(limits: Any) -> None:
    once = limits.raised(MAIN, LEAST)
    assert limits.raised(once, LEAST) == once


def test_a_higher_limit_is_never_lowered(limits: Any) -> None:
    high = MAIN.replace("768", "30000").replace("user", "worker_rlimit_nofile 65535;\nuser")
    assert limits.raised(high, LEAST) == high


def test_an_events_block_without_a_limit_gets_one(limits: Any) -> None:
    assert "events {\n    worker_connections 9;}" in limits.raised(
        "events {}\n", {"worker_connections": 9}
    )


@pytest.mark.parametrize(
    "text",
    [
        MAIN,
        "events {}\n",
        "events {\n\tuse epoll;\n}\n",
        "user a; events { worker_connections 5; }",
        "worker_rlimit_nofile 4;\nevents {\n}\n",
    ],
)
def test_what_was_raised_is_lowered_to_the_letter(limits: Any, text: str) -> None:
    former = limits.numbers(text, LEAST)
    assert limits.lowered(limits.raised(text, LEAST), former, LEAST) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("include events.conf;\nhttp {}\n", "no events block"),
        ("http { events { worker_connections 1; } }\n", "no events block"),
        ("events { worker_connections many; }\n", "'many', which is no number"),
    ],
)
def test_limits_that_cannot_be_raised_are_said(limits: Any, text: str, says: str) -> None:
    with pytest.raises(limits.Unplaceable, match=says):
        limits.raised(text, LEAST)


def test_a_file_that_is_not_ours_keeps_its_text(site: Any, tree: Path) -> None:
    (tree / "nginx.conf").write_text(MAIN)
    file = {"path": "nginx.conf", "content": None, "at_least": {"worker_connections": "900"}}
    assert site.wanted_text(tree, file, None) == MAIN.replace("768", "900")


def test_no_more_files_are_asked_for_than_the_host_gives(site: Any, tree: Path) -> None:
    (tree / "nginx.conf").write_text(MAIN)
    file = {"path": "nginx.conf", "content": None, "at_least": LEAST}
    assert "worker_rlimit_nofile 20000;" in site.wanted_text(tree, file, 20000)
    assert "worker_rlimit_nofile 20512;" in site.wanted_text(tree, file, 524288)


@pytest.mark.parametrize(
    ("mask", "expected"), [("000001fffeffffff", 20000), ("000001ffffffffff", None)]
)
def test_a_hard_limit_binds_who_may_not_exceed_it(
    limits: Any, mask: str, expected: int | None
) -> None:
    text = "Max processes     1   2   processes\nMax open files    1024     20000      files\n"
    status = f"Name:\tnginx\nCapPrm:\t000001ffffffffff\nCapEff:\t{mask}\n"
    assert limits.most_open_files(text, status) == expected


def test_the_main_process_is_nginxs_or_our_own(site: Any) -> None:
    assert site.main_process("ActiveState=active\nMainPID=571\n") == "571"
    assert site.main_process("ActiveState=inactive\nMainPID=0\n") == "self"


def rename(fresh: str, path: str) -> None:
    Path(fresh).rename(path)


def test_what_was_replaced_can_be_made_what_it_was(site: Any, tree: Path, tmp_path: Path) -> None:
    (tree / "conf.d" / "there.conf").write_text("before")
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    swap = site.Swap(rename, str(tmp_path))
    swap.lay(tree / "conf.d" / "there.conf", "after")
    swap.lay(tree / "conf.d" / "fresh.conf", "new")
    swap.lay(tree / "sites-enabled" / "default", None)
    assert (tree / "conf.d" / "there.conf").read_text() == "after"
    assert not (tree / "sites-enabled" / "default").is_symlink()
    swap.undo()
    assert before == {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert (tree / "sites-enabled" / "default").is_symlink()


def test_a_link_stays_a_link_to_what_is_replaced(site: Any, tree: Path, tmp_path: Path) -> None:
    (tree / "nginx.conf").rename(tmp_path / "theirs.conf")
    (tree / "nginx.conf").symlink_to(tmp_path / "theirs.conf")
    site.Swap(rename, str(tmp_path)).lay(tree / "nginx.conf", "raised")
    assert (tree / "nginx.conf").is_symlink()
    assert (tmp_path / "theirs.conf").read_text() == "raised"


def test_a_limit_set_elsewhere_too_is_explained(site: Any, tree: Path, tmp_path: Path) -> None:
    nginx = tmp_path / "nginx"
    nginx.write_text("#!/bin/sh\n")
    nginx.chmod(0o755)
    said = site.explain('"worker_rlimit_nofile" directive is duplicate in a:1', tree, str(nginx))
    assert "nginx_proxy_links_max to 0" in said
