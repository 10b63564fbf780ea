"""What goes into a bundle is what the roles ask for and what the checkout is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptsbundle import content, debian, layout

ROOT = Path(__file__).parents[3]
ROLES = ROOT / "roles"


def tasks(path: Path) -> Iterator[dict[str, Any]]:
    """Every task of a file, those in blocks too."""
    waiting = list(yaml.safe_load(path.read_text()) or [])
    while waiting:
        task = waiting.pop()
        yield task
        for part in ("block", "rescue", "always"):
            waiting += task.get(part, [])


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)


def asked_for() -> Iterator[tuple[str, str]]:
    """(role, Debian package) of every task that installs one, variables followed."""
    for path in sorted(ROLES.glob("*/tasks/*.yml")):
        role = path.parents[1]
        private = role / "vars" / "main.yml"
        variables = yaml.safe_load(private.read_text()) if private.exists() else {}
        for task in tasks(path):
            for module in ("ansible.builtin.package", "ansible.builtin.apt"):
                for name in strings(task.get(module, {}).get("name", [])):
                    for package in resolved(name, variables):
                        yield role.name, package


def resolved(name: str, variables: dict[str, Any]) -> Iterator[str]:
    if "{{" not in name:
        yield name
        return
    expression = re.sub(r"\w+\[[^\]]*\]", "", name)
    yield from re.findall(r"'([a-z0-9][a-z0-9.+-]+)'", re.sub(r"==\s*'[^']*'", "", expression))
    for reference in re.findall(r"__\w+", name):
        # What a task registered are names that others ask for.
        value = variables.get(reference, [])
        if isinstance(value, dict):
            value = value.get("Debian", value)
        if isinstance(value, dict):
            value = value.get("packages", [])
        for text in strings(value):
            yield from resolved(text, variables) if "{{" in text else iter([text])


def test_every_package_a_role_asks_for_is_in_a_bundle() -> None:
    found = set(asked_for())
    # The sieve finds plain names and names behind variables, or it would prove nothing.
    assert {("nginx_proxy", "nginx"), ("host_firewall", "ufw")} <= found
    assert ("pts_server", "python3-venv") in found
    assert {package for _, package in found} <= set(layout.PACKAGES)


def test_systems_a_bundle_is_for_are_those_preflight_lets_in() -> None:
    known = yaml.safe_load((ROLES / "preflight" / "vars" / "main.yml").read_text())
    assert len(known["__preflight_platforms"]["Debian"]) == len(layout.SUITES)
    assert known["__preflight_machines"] == list(layout.MACHINES)


def test_every_collection_of_the_requirements_is_found() -> None:
    text = (ROOT / "requirements.yml").read_text()
    declared = [(c["name"], c["version"]) for c in yaml.safe_load(text)["collections"]]
    assert content.required_collections(text) == declared
    files, named = content.collections(ROOT)
    assert named == declared
    assert "ansible_collections/ansible/posix/MANIFEST.json" in {file.name for file in files}


def test_the_project_holds_what_a_run_needs() -> None:
    names = {file.name for file in content.project(ROOT)}
    assert {"site.yml", "ansible.cfg", "scripts/lib/ptsbundle/cli.py"} <= names
    assert not [name for name in names if name.startswith((".git/", "build/", ".venv/"))]


def test_a_checkout_without_git_is_its_files_and_not_what_was_made_of_it(tmp_path: Path) -> None:
    for name in ("site.yml", "roles/a/tasks/main.yml", "build/x", ".venv/y", "src/__pycache__/z"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in content.project(tmp_path)] == [
        "roles/a/tasks/main.yml",
        "site.yml",
    ]


def test_the_release_is_named_by_the_servers_own_rule() -> None:
    name = content.release_name(ROOT)
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*-[0-9a-f]{12}", name)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a", True),
        ("debian/bookworm-amd64/a_1+b~c_all.deb", True),
        ("", False),
        ("/a", False),
        ("../a", False),
        ("a/../b", False),
        ("./a", False),
        ("a//b", False),
        ("a\\b", False),
        ("a\nb", False),
    ],
)
def test_a_plain_name_stays_where_it_is_put(name: str, plain: bool) -> None:
    assert layout.is_plain(name) is plain


URIS = """\
Reading package lists...
'http://mirror.example/pool/n/nginx/nginx_1.22.1-9_amd64.deb' nginx_1.22.1-9_amd64.deb 527 SHA256:ab
'http://mirror.example/pool/d/dbus/dbus_1.14_all.deb' dbus_1%3a1.14%2bx_all.deb 9 SHA256:cd
"""


def test_what_apt_would_fetch_is_read() -> None:
    assert debian.parse_uris(URIS) == ["nginx_1.22.1-9_amd64.deb", "dbus_1%3a1.14%2bx_all.deb"]


STANZAS = """\
Package: dbus
Version: 1:1.14+x-1
Architecture: all
Depends: a,
 b
Description: long
 story
SHA256: cd

Package: ufw
Version: 0.36
Architecture: all
SHA256: ef
"""


def test_an_index_keeps_what_apt_needs_and_names_files_without_an_epoch() -> None:
    first, second = debian.parse_stanzas(STANZAS)
    assert first["Depends"] == "a,\n b"
    assert second["Package"] == "ufw"
    package = debian.Package(debian.pool_name(first), Path("x"), first)
    assert package.stanza().splitlines() == [
        "Package: dbus", "Version: 1:1.14+x-1", "Architecture: all", "Depends: a,", " b",
        "SHA256: cd", "Filename: ./dbus_1.14+x-1_all.deb",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "file"),
    [
        ("1.22.1-9", "p_1.22.1-9_all.deb"),
        ("1:2.5", "p_1%3a2.5_all.deb"),
        ("2+really~3", "p_2+really~3_all.deb"),
    ],
)
def test_an_archive_is_found_under_the_name_apt_gives_it(version: str, file: str) -> None:
    fields = {"Package": "p", "Version": version, "Architecture": "all"}
    assert debian.file_of(fields) == file
