"""Names inside a bundle, and what is asked of Debian. Pure.

| Name | Holds |
|---|---|
| ``SHA256SUMS`` | of every other file but the signature, by name |
| ``SHA256SUMS.sig`` | ssh-keygen -Y, namespace ptslink-bundle; absent if unsigned |
| ``manifest.json`` | what is inside: names, versions, hashes |
| ``debian/SUITE-ARCH/`` | ``Packages``, and each package it names |
| ``wheelhouse/pyX.Y-MACHINE/`` | ``ptslink-RELEASE.tar``: the server's wheels |
| ``project.tar`` | the playbooks, roles and sources this bundle was made from |
| ``collections.tar`` | the collections of requirements.yml |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

FORMAT: Final = 1
NAMESPACE: Final = "ptslink-bundle"
SUMS: Final = "SHA256SUMS"
SIGNATURE: Final = "SHA256SUMS.sig"
MANIFEST: Final = "manifest.json"
PROJECT: Final = "project.tar"
COLLECTIONS: Final = "collections.tar"
INDEX: Final = "Packages"

SUITES: Final = ("bookworm", "trixie")
PYTHONS: Final = ("3.11", "3.13")
MACHINES: Final = ("x86_64", "aarch64")
#: uname -m -> Debian's word for it.
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}

#: Every package a role may ask for on Debian, whichever way its variables are set, and
#: python3-apt, without which Ansible's own package module would fetch it.
#: tests/unit/bundle/test_content.py and tests/plays/test_platforms_and_proxy.py hold this
#: against the roles.
PACKAGES: Final = (
    "certbot",
    "firewalld",
    "logrotate",
    "nftables",
    "nginx",
    "openssl",
    "python3-apt",
    "python3-venv",
    "ufw",
)


@dataclass(frozen=True, order=True)
class System:
    """A Debian release on an architecture."""

    suite: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.suite}-{self.architecture}"

    @property
    def directory(self) -> str:
        return f"debian/{self}"


def wheelhouse(python: str, machine: str, release: str) -> str:
    """Where a target's wheelhouse lies; below ``wheelhouse/`` as pts_server's cache has it."""
    return f"wheelhouse/py{python}-{machine}/ptslink-{release}.tar"


def is_plain(name: str) -> bool:
    """Whether a member's name stays inside the directory it is unpacked into."""
    path = PurePosixPath(name)
    return (
        bool(name)
        and str(path) == name
        and not path.is_absolute()
        and ".." not in path.parts
        and "\\" not in name
        and name.isprintable()
    )
