"""The image cache: a new recipe is a new image, and packages are fetched once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptslab import rootfs


def test_the_key_changes_with_everything_that_shapes_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {rootfs.image_key("bookworm", "x86_64")}
    keys.add(rootfs.image_key("trixie", "x86_64"))
    keys.add(rootfs.image_key("bookworm", "aarch64"))
    monkeypatch.setattr(rootfs, "PACKAGES", (*rootfs.PACKAGES, "less"))
    keys.add(rootfs.image_key("bookworm", "x86_64"))
    monkeypatch.setattr(rootfs, "RECIPE", rootfs.RECIPE + 1)
    keys.add(rootfs.image_key("bookworm", "x86_64"))
    monkeypatch.setattr(rootfs, "DPKG_OPTIONS", ())
    keys.add(rootfs.image_key("bookworm", "x86_64"))
    assert len(keys) == 6


def test_the_order_of_the_packages_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rootfs.image_key("bookworm", "x86_64")
    monkeypatch.setattr(rootfs, "PACKAGES", tuple(reversed(rootfs.PACKAGES)))
    assert rootfs.image_key("bookworm", "x86_64") == before


def test_what_the_product_must_bring_is_not_in_the_image() -> None:
    for package in ("nginx", "ufw", "firewalld", "python3-venv", "nftables"):
        assert package not in rootfs.PACKAGES


def test_no_mirror_is_named() -> None:
    command = rootfs.build_command("trixie", Path("/target"))
    assert command[-2:] == ("trixie", "/target")
    assert not [word for word in command if "://" in word]


def test_no_two_machines_get_the_same_identity_from_the_image() -> None:
    hooks = " ".join(rootfs.build_command("bookworm", Path("/target")))
    assert "ssh_host_*" in hooks
    assert "machine-id" in hooks


def test_packages_are_lent_and_collected_as_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rootfs, "CACHE", tmp_path / "cache")
    first, second = tmp_path / "first", tmp_path / "second"
    assert rootfs.lend_debs("bookworm", first) == 0
    (first / "nginx_1.22_amd64.deb").write_text("package")
    (first / "lock").write_text("")
    (first / "partial").mkdir()
    (first / "partial/ufw_0.36_all.deb").write_text("half")

    assert rootfs.collect_debs("bookworm", first) == 1
    assert rootfs.collect_debs("bookworm", first) == 0
    assert rootfs.lend_debs("trixie", second) == 0
    assert rootfs.lend_debs("bookworm", second) == 1
    assert [path.name for path in second.iterdir()] == ["nginx_1.22_amd64.deb"]
    assert (second / "nginx_1.22_amd64.deb").stat().st_nlink == 3


def test_a_link_in_the_archive_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rootfs, "CACHE", tmp_path / "cache")
    archive = tmp_path / "archive"
    archive.mkdir()
    (archive / "evil_1_all.deb").symlink_to("/etc/shadow")
    assert rootfs.collect_debs("bookworm", archive) == 0


def test_images_of_former_recipes_go_unless_a_lab_stands_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rootfs, "CACHE", tmp_path)
    current = rootfs.image_path("bookworm", rootfs.architecture())
    used = current.with_name("bookworm-aaaaaaaaaaaa")
    stale = current.with_name("bookworm-bbbbbbbbbbbb")
    for path in (current, used, stale):
        path.mkdir(parents=True)
    assert rootfs.prune([used]) == [stale]
    assert sorted(p.name for p in current.parent.iterdir()) == sorted([current.name, used.name])
