"""Releases: complete or nothing, switched in one rename, old ones forgotten."""

from __future__ import annotations

import os
import pwd
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def release(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("pts_server/library/pts_server_release")


@pytest.fixture
def wheelhouse(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("pts_server/library/pts_server_wheelhouse")


@pytest.fixture
def ready(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("pts_server/action_plugins/pts_server_wheelhouse").ready


def add(release: Any, releases: Any, name: str, when: int, complete: bool = True) -> None:
    home = releases.directory / name
    home.mkdir(parents=True)
    (home / "file").write_text(name)
    if complete:
        marker = home / release.MARKER
        marker.write_text("{}")
        os.utime(marker, (when, when))


def test_a_release_without_its_marker_is_not_installed(release: Any, tmp_path: Path) -> None:
    releases = release.Releases(tmp_path)
    add(release, releases, "2-b", 2)
    add(release, releases, "1-a", 1)
    add(release, releases, "3-interrupted", 3, complete=False)
    assert releases.installed() == ["1-a", "2-b"]


def test_current_is_switched_by_one_rename(release: Any, tmp_path: Path) -> None:
    releases = release.Releases(tmp_path)
    for when, name in enumerate(["a", "b"]):
        add(release, releases, name, when)
    assert releases.current() is None
    releases.switch("a")
    releases.switch("b")
    assert releases.current() == "b"
    assert (tmp_path / "current" / "file").read_text() == "b"
    assert not (tmp_path / ".current.new").exists()


def test_a_switch_that_was_interrupted_does_not_hinder_the_next(
    release: Any, tmp_path: Path
) -> None:
    releases = release.Releases(tmp_path)
    add(release, releases, "a", 1)
    (tmp_path / ".current.new").symlink_to("nowhere")
    releases.switch("a")
    assert releases.current() == "a"


def test_the_newest_stay_and_what_is_or_was_current_always(release: Any, tmp_path: Path) -> None:
    releases = release.Releases(tmp_path)
    for when, name in enumerate(["a", "b", "c", "d", "e"]):
        add(release, releases, name, when)
    assert releases.forget(3, but=("e", "a")) == ["b", "c"]
    assert releases.installed() == ["a", "d", "e"]


@pytest.mark.parametrize("selinux", [True, False])
def test_programs_of_a_release_have_their_labels_before_it_counts_as_installed(
    release: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selinux: bool
) -> None:
    home = tmp_path / "releases" / "a"
    home.mkdir(parents=True)
    with tarfile.open(tmp_path / "wheels.tar", "w"):
        pass
    done = []

    def run(*command: str, **_: str) -> None:
        home.mkdir(exist_ok=True)
        done.append((command[0], (home / release.MARKER).exists()))

    monkeypatch.setattr(release, "run", run)
    release.install(home, tmp_path / "wheels.tar", "/usr/bin/python3.11", selinux)
    assert (("restorecon", False) in done) == selinux
    assert (home / release.MARKER).exists()


def test_an_archive_holds_wheels_and_nothing_that_leaves_its_directory(
    release: Any, tmp_path: Path
) -> None:
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"))
    with pytest.raises(release.InstallFailed, match="escaped"):
        release.unpack(archive, tmp_path)


def test_packing_the_same_wheels_gives_the_same_bytes(
    release: Any, wheelhouse: Any, tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "some_thing-1.0-py3-none-any.whl").write_bytes(b"wheel")
    for name in ("one", "two"):
        wheelhouse.pack(wheels, tmp_path / f"{name}.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    release.unpack(tmp_path / "one.tar", unpacked)
    assert (unpacked / "requirements.txt").read_text().startswith("some-thing==1.0 --hash=sha256:")


def checkout(directory: Path) -> Path:
    """The least a release is built from."""
    (directory / "requirements").mkdir(parents=True)
    (directory / "requirements" / "runtime.lock").write_text("click==1\n")
    (directory / "src" / "ptslink").mkdir(parents=True)
    (directory / "src" / "ptslink" / "a.py").write_text("A = 1\n")
    (directory / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\n[project]\nname = "ptslink"\nversion = "1.2"\n'
        "[tool.ruff]\nline-length = 100\n"
    )
    return directory


@pytest.mark.parametrize(
    ("path", "text", "another"),
    [
        ("src/ptslink/a.py", "A = 2\n", True),
        ("src/ptslink/b.py", "", True),
        ("requirements/runtime.lock", "click==2\n", True),
        ("src/ptslink/__pycache__/a.pyc", "x", False),
        ("README.md", "words", False),
        ("docs/page.md", "words", False),
    ],
)
def test_a_release_is_named_after_what_goes_into_it(
    wheelhouse: Any, tmp_path: Path, path: str, text: str, another: bool
) -> None:
    source = checkout(tmp_path)
    before = wheelhouse.release_name(source)
    assert before.startswith("1.2-")
    (source / path).parent.mkdir(exist_ok=True)
    (source / path).write_text(text)
    assert (wheelhouse.release_name(source) != before) is another


def test_how_the_project_is_developed_does_not_name_a_release(
    wheelhouse: Any, tmp_path: Path
) -> None:
    source = checkout(tmp_path)
    before = wheelhouse.release_name(source)
    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace("100", "90"))
    assert wheelhouse.release_name(source) == before


def test_no_process_is_started_where_every_archive_is_there(
    ready: Any, wheelhouse: Any, tmp_path: Path
) -> None:
    source, cache = checkout(tmp_path / "source"), tmp_path / "cache"
    targets = [{"python": python, "machine": "x86_64"} for python in ("3.11", "3.13")]
    arguments = {"source": str(source), "cache": str(cache), "targets": targets}
    release, archives = wheelhouse.wanted(source, cache, targets)
    assert ready(arguments) is None
    for archive in archives.values():
        assert ready(arguments) is None
        archive.parent.mkdir(parents=True)
        archive.touch()
    answer = ready(arguments)
    assert (answer["changed"], answer["release"], answer["built"]) == (False, release, [])
    assert answer["archives"] == {key: str(path) for key, path in archives.items()}
    (source / "pyproject.toml").write_text("not TOML")
    assert ready(arguments) is None, "the module has the words for it"


def test_the_checkout_has_what_a_release_is_named_after(wheelhouse: Any) -> None:
    names = [name for name, _ in wheelhouse.inputs(ROOT)]
    assert {"pyproject.toml", "runtime.lock", "src/ptslink/__init__.py"} <= set(names)


def test_a_directory_that_others_may_change_is_made_right(release: Any, tmp_path: Path) -> None:
    place = tmp_path / "place"
    assert not release.is_open(place)
    place.mkdir(mode=0o755)
    assert release.is_open(place) is (os.getuid() == os.getgid() == 0)
    place.chmod(0o775)
    assert not release.is_open(place)
    (tmp_path / "link").symlink_to(tmp_path)
    assert not release.is_open(tmp_path / "link")


def test_a_user_with_another_shell_is_made_right(release: Any) -> None:
    me = pwd.getpwuid(os.getuid())
    assert release.is_user(me.pw_name, me.pw_dir, me.pw_shell)
    assert not release.is_user(me.pw_name, me.pw_dir, "/usr/sbin/nologin-not")
    assert not release.is_user("nobody-of-that-name", me.pw_dir, me.pw_shell)
