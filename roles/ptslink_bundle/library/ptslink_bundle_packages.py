#!/usr/bin/python
"""On the host: packages from a bundle, by a package source that exists for one call of apt only."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: ptslink_bundle_packages
short_description: Says whether Debian packages can be had, or installs them from a bundle
description:
  - >-
    C(looked_at) only finds which packages are missing.
  - >-
    C(obtainable) finds which packages are missing and whether they can be had, with their
    dependencies and without removing any: from the index given, else from the host's own mirrors,
    which are asked for one file each. Nothing is changed. With nothing missing nothing is asked.
  - >-
    C(installed) installs the missing ones from the archive. apt is given a source list, lists and
    an archive directory of its own in a temporary directory; C(/etc/apt) is not touched, so that
    nothing has to be put back, whenever the run ends.
  - >-
    That source is marked trusted because its trust comes from elsewhere: the bundle's signature was
    judged on the control node, the index came from there over ssh, and each package is held
    against the index's SHA-256 here.
  - >-
    Returns C(missing), C(files) (what apt would take to install them) and, without an index,
    C(mirrors).
options:
  names: {type: list, elements: str, required: true, description: Packages that are to be there.}
  index: {type: str, description: Text of the bundle's Packages file for this system.}
  archive:
    type: path
    description: A tar on the host of the packages to take. It is removed, whatever comes of it.
  state:
    type: str
    choices: [looked_at, obtainable, installed]
    default: obtainable
    description: What will be true afterwards.
author: ptslink authors
"""

#: Seconds a mirror has to answer for one small file.
PATIENCE = 15
_FETCH = re.compile(r"^'(?:file|copy):(?P<path>[^']+)' ", re.MULTILINE)
_RELEASE = re.compile(r"^'(https?:[^']+/InRelease)' ", re.MULTILINE)
_VALUE = re.compile(r"^(?P<name>Package|Filename|SHA256): (?P<value>.+)$", re.MULTILINE)


class Unobtainable(Exception):
    """The packages cannot be had; the message says why and how to mend it."""


def apt(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
    )


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [
        line
        for line in lines
        if line.startswith(("E:", "dpkg:")) and not line.endswith("additional context:")
    ]
    # What apt cannot satisfy it lists below this heading, indented, before its error.
    unmet = next((n for n, line in enumerate(lines) if "unmet dependencies" in line), len(lines))
    listed = itertools.takewhile(lambda line: line.startswith(" "), lines[unmet + 1 :])
    reasons = [line.strip() for line in listed][:4]
    return " | ".join(reasons + errors[-3:] or lines[-3:])


def missing(names: Iterable[str]) -> list[str]:
    """Those of ``names`` dpkg does not have installed."""
    wanted = list(names)
    if not wanted:
        return []
    listed = apt(["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *wanted])
    there = {line.split()[0] for line in listed.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in there]


def checksums(index: str) -> dict[str, str]:
    """Packages index -> {file name: sha256}."""
    found = {}
    for stanza in index.split("\n\n"):
        fields: Mapping[str, str] = {m["name"]: m["value"] for m in _VALUE.finditer(stanza)}
        if "Filename" in fields:
            found[Path(fields["Filename"]).name] = fields["SHA256"]
    return found


class Source:
    """apt with a package source of its own, below a directory that is removed afterwards."""

    def __init__(self, directory: Path, index: str) -> None:
        self._directory = directory
        self.repository = directory / "repository"
        for path in (self.repository, directory / "lists" / "partial", directory / "partial"):
            path.mkdir(parents=True)
        (self.repository / "Packages").write_text(index, encoding="utf-8")
        (directory / "sources.list").write_text(f"deb [trusted=yes] file:{self.repository} ./\n")
        self._run("update")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        directory = self._directory
        options = {
            "Dir::Etc::sourcelist": directory / "sources.list",
            "Dir::Etc::sourceparts": os.devnull,
            "Dir::State::lists": directory / "lists",
            "Dir::Cache::archives": directory,
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
            "DPkg::Lock::Timeout": 120,
            "Dpkg::Options::": "--force-confdef",
        }
        done = apt(
            ["apt-get", "--quiet", "--assume-yes", "--no-remove"]
            + [f"--option={name}={value}" for name, value in options.items()]
            + ["--option=Dpkg::Options::=--force-confold", *arguments]
        )
        if done.returncode != 0:
            raise Unobtainable(last_words(done))
        return done

    def files(self, names: Sequence[str]) -> list[str]:
        """The files apt would take to install ``names``."""
        done = self._run("--print-uris", "install", *names)
        return sorted(
            urllib.parse.unquote(Path(match["path"]).name) for match in _FETCH.finditer(done.stdout)
        )

    def install(self, names: Sequence[str]) -> None:
        self._run("install", *names)


def unpack(archive: Path, directory: Path, index: str) -> None:
    """Lay out the packages of an archive, each held against the index."""
    listed = checksums(index)
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if member.name == "Packages" or content is None:
                continue
            target = directory / Path(member.name).name
            with target.open("wb") as stream:
                shutil.copyfileobj(content, stream)
            with target.open("rb") as stream:
                seen = hashlib.sha256(stream.read()).hexdigest()
            if seen != listed.get(target.name):
                raise Unobtainable(f"{target.name} was damaged on its way to the host")


def mirrors() -> list[str]:
    """One small file of each package source that is reached over a network, as a URI."""
    return list(dict.fromkeys(_RELEASE.findall(apt(["apt-get", "--print-uris", "update"]).stdout)))


def unreachable(uri: str, directory: Path) -> str:
    """Why apt's own downloader does not get ``uri``, or an empty string."""
    done = apt(
        [
            "timeout",
            str(PATIENCE + 5),
            "/usr/lib/apt/apt-helper",
            "--option=Acquire::Retries=0",
            f"--option=Acquire::http::Timeout={PATIENCE}",
            f"--option=Acquire::https::Timeout={PATIENCE}",
            "download-file",
            uri,
            str(directory / "answer"),
        ]
    )
    return "" if done.returncode == 0 else last_words(done) or "no answer"


def ask_mirrors(wanted: Sequence[str], directory: Path) -> list[str]:
    """The package sources that answer; Unobtainable where none does."""
    sources = mirrors()
    reasons = []
    for uri in sources:
        reason = unreachable(uri, directory)
        if not reason:
            return [uri]
        reasons.append(reason)
    raise Unobtainable(
        f"{', '.join(wanted)} must be installed, and "
        + (
            f"no package mirror can be reached ({reasons[0]})"
            if sources
            else "the host names no package mirror (/etc/apt/sources.list)"
        )
        + ". Fix: give the host a way to its mirror, or bring the packages in a bundle: "
        "scripts/bundle --sign KEY, then -e ptslink_bundle=FILE (docs/airgap.md)."
    )


def bring(module: AnsibleModule, wanted: Sequence[str], result: dict[str, Any]) -> None:
    index, archive = module.params["index"], module.params["archive"]
    with tempfile.TemporaryDirectory(prefix="ptslink-bundle-", dir="/var/tmp") as temporary:
        directory = Path(temporary)
        if index is None:
            result["mirrors"] = ask_mirrors(wanted, directory)
            return
        try:
            source = Source(directory, index)
            result["files"] = source.files(wanted)
        except Unobtainable as reason:
            raise Unobtainable(
                f"The bundle cannot bring {', '.join(wanted)} onto this host: {reason}. "
                "Fix: where the host's packages are newer than the bundle's, make a new bundle; "
                "where something else is asked for, bring the host into order (apt-get check)."
            ) from reason
        if module.params["state"] != "installed":
            return
        result["changed"] = True
        result["diff"] = {
            "before": "",
            "after": "".join(f"{name}\n" for name in result["files"]),
        }
        if module.check_mode:
            return
        try:
            unpack(Path(archive), source.repository, index)
            source.install(wanted)
        except (Unobtainable, OSError, tarfile.TarError) as reason:
            raise Unobtainable(
                f"Installing {', '.join(wanted)} from the bundle failed: {reason}"
            ) from reason


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            # Long, and of no use in a log.
            "index": {"type": "str", "no_log": True},
            "archive": {"type": "path"},
            "state": {
                "type": "str",
                "choices": ["looked_at", "obtainable", "installed"],
                "default": "obtainable",
            },
        },
        required_if=[("state", "installed", ("index", "archive"))],
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False, "files": []}
    try:
        result["missing"] = missing(module.params["names"])
        if result["missing"] and module.params["state"] != "looked_at":
            bring(module, result["missing"], result)
    except Unobtainable as reason:
        module.fail_json(msg=str(reason), **result)
    finally:
        if module.params["archive"] and not module.check_mode:
            Path(module.params["archive"]).unlink(missing_ok=True)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
