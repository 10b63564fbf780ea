"""Packages from a bundle: what apt says is read right, and nothing damaged is installed."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

DEB = b"a package"
INDEX = f"""\
Package: ufw
Version: 0.36
Filename: ./ufw_0.36_all.deb
SHA256: {hashlib.sha256(DEB).hexdigest()}

Package: nginx
Filename: ./nginx_1.22+b1_amd64.deb
SHA256: {"0" * 64}
"""


@pytest.fixture(scope="module")
def packages(plugin: Callable[[str], ModuleType]) -> ModuleType:
    return plugin("ptslink_bundle/library/ptslink_bundle_packages")


@pytest.fixture
def apt(packages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every command print this."""

    def says(out: str, *, error: str = "", status: int = 0) -> None:
        monkeypatch.setattr(
            packages,
            "apt",
            lambda command: subprocess.CompletedProcess(command, status, out, error),
        )

    return says


def packed(directory: Path, members: dict[str, bytes]) -> Path:
    archive = directory / "packages.tar"
    with tarfile.open(archive, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def test_a_package_that_was_removed_but_for_its_configuration_is_missing(
    packages: ModuleType, apt: Callable[..., None]
) -> None:
    apt("nginx config-files\nufw installed\npython3-venv not-installed\n", status=1)
    wanted = ["nginx", "ufw", "python3-venv", "unknown"]
    assert packages.missing(wanted) == ["nginx", "python3-venv", "unknown"]


def test_nothing_wanted_asks_nothing(packages: ModuleType) -> None:
    assert packages.missing([]) == []


def test_an_index_gives_the_hash_of_each_file(packages: ModuleType) -> None:
    assert packages.checksums(INDEX) == {
        "ufw_0.36_all.deb": hashlib.sha256(DEB).hexdigest(),
        "nginx_1.22+b1_amd64.deb": "0" * 64,
    }


def test_what_arrives_as_it_was_listed_is_laid_out(packages: ModuleType, tmp_path: Path) -> None:
    archive = packed(tmp_path, {"Packages": b"other", "ufw_0.36_all.deb": DEB})
    (tmp_path / "out").mkdir()
    packages.unpack(archive, tmp_path / "out", INDEX)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ufw_0.36_all.deb"]


@pytest.mark.parametrize("name", ["nginx_1.22+b1_amd64.deb", "unlisted_1_all.deb"])
def test_what_is_not_as_listed_is_not_installed(
    packages: ModuleType, tmp_path: Path, name: str
) -> None:
    with pytest.raises(packages.Unobtainable, match="damaged"):
        packages.unpack(packed(tmp_path, {name: DEB}), tmp_path, INDEX)


def release(uri: str) -> str:
    """What apt-get --print-uris update says of a source."""
    return f"'{uri}/InRelease' as_a_file_InRelease 0 \n'{uri}/main/Packages.xz' as_a_file 0 \n"


@pytest.mark.parametrize(
    "uri",
    [
        "http://mirror.example/debian/dists/bookworm",
        "https://mirror.example/debian/dists/bookworm",
        "mirror+file:/etc/apt/mirrors/debian.list/dists/bookworm",
        "mirror://mirror.example/list/dists/bookworm",
        "tor+https://mirror.example/debian/dists/bookworm",
        "file:/srv/mirror/dists/bookworm",
    ],
)
def test_every_kind_of_source_is_a_mirror_each_once(packages: ModuleType, uri: str) -> None:
    assert packages.mirrors(release(uri) * 2) == [f"{uri}/InRelease"]


def test_an_installation_medium_alone_is_no_mirror(
    packages: ModuleType, apt: Callable[..., None], tmp_path: Path
) -> None:
    apt(release("cdrom://[Debian GNU/Linux 12]/dists/bookworm"))
    with pytest.raises(packages.Unobtainable, match="no package mirror but an installation medium"):
        packages.ask_mirrors(["nginx"], tmp_path)


def test_a_source_that_apt_has_no_program_for_is_told_in_its_words(
    packages: ModuleType, apt: Callable[..., None], tmp_path: Path
) -> None:
    said = "E: The method driver /usr/lib/apt/methods/tor+https could not be found."
    apt("", error=said, status=100)
    with pytest.raises(packages.Unobtainable, match="methods/tor"):
        packages.ask_mirrors(["nginx"], tmp_path)


def test_a_source_on_the_hosts_own_disk_need_not_be_signed(
    packages: ModuleType, tmp_path: Path
) -> None:
    assert packages.unreachable(f"file:{tmp_path}/./InRelease", tmp_path) == ""


def test_what_would_be_removed_is_refused_by_name(
    packages: ModuleType, apt: Callable[..., None]
) -> None:
    apt("Remv iptables-persistent [1.0.20]\nRemv netfilter-persistent [1.0.20]\nInst ufw (0.36)\n")
    with pytest.raises(packages.Unobtainable) as refused:
        packages.removing_nothing(["ufw"])
    said = str(refused.value)
    assert "would remove iptables-persistent, netfilter-persistent" in said
    assert "host_firewall_backend: firewalld" in said
    assert "apt-get remove iptables-persistent netfilter-persistent" in said


def test_without_package_lists_it_is_the_mirrors_turn(
    packages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apt(command: list[str]) -> subprocess.CompletedProcess[str]:
        failed = "check" not in command
        said = "E: Unable to locate package ufw" if failed else ""
        return subprocess.CompletedProcess(command, 100 if failed else 0, "", said)

    monkeypatch.setattr(packages, "apt", apt)
    assert packages.removing_nothing(["ufw"]).returncode == 100


def test_nothing_is_installed_without_no_remove(
    packages: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def apt(command: list[str]) -> subprocess.CompletedProcess[str]:
        asked.append(list(command))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packages, "apt", apt)
    packages.install(["nginx"])
    changing = [
        command for command in asked if "install" in command and "--simulate" not in command
    ]
    assert changing
    assert all("--no-remove" in command for command in changing)
    assert ["apt-get", "--quiet", "update"] in asked[: asked.index(changing[0])]


def test_lists_that_could_not_be_fetched_are_named_with_what_failed_for_want_of_them(
    packages: ModuleType, apt: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "W: Failed to fetch http://m.example/InRelease no route\nE: Unable to locate package ufw"
    apt("", error=said, status=100)
    monkeypatch.setattr(packages, "check", lambda: "")
    with pytest.raises(packages.Unobtainable) as refused:
        packages.install(["ufw"])
    assert "Unable to locate package ufw" in str(refused.value)
    assert "could not be fetched: W: Failed to fetch http://m.example" in str(refused.value)


def test_without_a_mirror_that_answers_the_fix_is_named(
    packages: ModuleType, apt: Callable[..., None], tmp_path: Path
) -> None:
    apt("'http://m.example/dists/x/InRelease' x 0 \n", error="E: no route", status=100)
    with pytest.raises(packages.Unobtainable) as refused:
        packages.ask_mirrors(["nginx"], tmp_path)
    assert "nginx must be installed" in str(refused.value)
    assert "E: no route" in str(refused.value)
    assert "ptslink_bundle=FILE" in str(refused.value)


def test_a_host_without_any_mirror_is_told_so(
    packages: ModuleType, apt: Callable[..., None], tmp_path: Path
) -> None:
    apt("")
    with pytest.raises(packages.Unobtainable, match="names no package mirror"):
        packages.ask_mirrors(["nginx"], tmp_path)


def test_what_apt_cannot_satisfy_is_what_is_told(packages: ModuleType) -> None:
    said = """\
Reading package lists...
The following packages have unmet dependencies:
 python3.11-venv : Depends: python3.11 (= 3.11.2-6+deb12u9) but 3.11.2-7 is to be installed
E: Unable to correct problems, you have held broken packages.
"""
    told = packages.last_words(subprocess.CompletedProcess([], 100, said, ""))
    assert told.startswith("python3.11-venv : Depends: python3.11 (= 3.11.2-6+deb12u9)")
    assert "held broken packages" in told
