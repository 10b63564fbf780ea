#!/usr/bin/python
"""On the host: packages from its mirrors, or from a bundle by a source for one call of apt only."""

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

from ansible.module_utils import ptslink_bundle_dpkg as dpkg
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: ptslink_bundle_packages
short_description: Says whether Debian packages can be had, or installs them
description:
  - >-
    C(looked_at) only finds which packages are missing.
  - >-
    C(obtainable) finds which packages are missing and whether they can be had, with their
    dependencies and without removing any: from the index given, else from the host's own mirrors,
    which are asked for one file each. A dpkg that was interrupted, and packages that are not in
    order, are refused. Nothing is changed. With nothing missing nothing is asked.
  - >-
    C(installed) installs the missing ones, without an index from the host's mirrors, whose lists
    are fetched first. No package is ever removed for it.
  - >-
    Whoever holds the locks of apt and dpkg is waited for, ten seconds a call: the action plugin
    calls again where C(waiting_for) is returned.
  - >-
    With an index, packages come from the archive. apt is given a source list, lists and
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
  lock_wait_seconds:
    type: int
    default: 0
    description: How long others who install packages are waited for, over all calls.
  waited_seconds: {type: int, default: 0, description: How much of that is over.}
author: ptslink authors
"""

#: Seconds a mirror has to answer for one small file.
PATIENCE = 15
#: Seconds one call waits for a lock.
SLICE = 10
#: What apt-get install is always given: nothing is removed, and files people changed stay.
INSTALL = (
    "apt-get",
    "--quiet",
    "--assume-yes",
    "--no-remove",
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
)
#: Who only looks leaves the files as they are in which apt keeps what it has read.
UNKEPT = ("--option=Dir::Cache::pkgcache=", "--option=Dir::Cache::srcpkgcache=")
_FETCH = re.compile(r"^'(?:file|copy):(?P<path>[^']+)' ", re.MULTILINE)
_RELEASE = re.compile(r"^'([^']+/InRelease)' ", re.MULTILINE)
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


def check() -> str:
    """What apt complains of in the packages that are there."""
    done = apt(["apt-get", *UNKEPT, "check"])
    return last_words(done) if done.returncode != 0 else ""


def in_order() -> None:
    """Unobtainable where apt would install nothing on this host, whatever it was asked for."""
    shown = "--showformat=${db:Status-Status} ${db:Status-Eflag} ${binary:Package}\\n"
    reason = dpkg.disorder(apt(["dpkg-query", "--show", shown]).stdout, check)
    if reason:
        raise Unobtainable(reason)


def removing_nothing(wanted: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """What apt plans to do for ``wanted``; Unobtainable where it would remove another package.

    That it has no plan may be for want of package lists; for that of order it is refused.
    """
    planned = apt(["apt-get", "--simulate", "--quiet", *options, "install", *wanted])
    reason = dpkg.removal(planned.stdout, wanted)
    if planned.returncode != 0 and not reason:
        reason = dpkg.broken(check())
    if reason:
        raise Unobtainable(reason)
    return planned


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
        self.repository = directory / "repository"
        options = {
            "Dir::Etc::sourcelist": directory / "sources.list",
            "Dir::Etc::sourceparts": os.devnull,
            "Dir::State::lists": directory / "lists",
            "Dir::Cache::archives": directory,
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        self._options = [*UNKEPT, *(f"--option={name}={value}" for name, value in options.items())]
        for path in (self.repository, directory / "lists" / "partial", directory / "partial"):
            path.mkdir(parents=True)
        (self.repository / "Packages").write_text(index, encoding="utf-8")
        (directory / "sources.list").write_text(f"deb [trusted=yes] file:{self.repository} ./\n")
        self._run("update")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = apt([*INSTALL, *self._options, *arguments])
        if done.returncode != 0:
            raise Unobtainable(last_words(done))
        return done

    def files(self, names: Sequence[str]) -> list[str]:
        """The files apt would take to install ``names``."""
        removing_nothing(names, *self._options)
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


def mirrors(listed: str) -> list[str]:
    """One small file of each package source, as a URI; not of those on an installation medium.

    Args:
        listed: what ``apt-get --print-uris update`` says.
    """
    found = dict.fromkeys(_RELEASE.findall(listed))
    return [uri for uri in found if not uri.startswith("cdrom:")]


def unreachable(uri: str, directory: Path) -> str:
    """Why apt's own downloader does not get ``uri``, or an empty string."""
    # A source on the host's own disk need not be signed, and has no such file then.
    if uri.startswith(("file:", "copy:")) and Path(uri.partition(":")[2]).parent.is_dir():
        return ""
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
    listed = apt(["apt-get", "--print-uris", "update"])
    sources = mirrors(listed.stdout)
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
            else "the host names no package mirror"
            + (" but an installation medium" if "'cdrom:" in listed.stdout else "")
            + " (/etc/apt/sources.list, /etc/apt/sources.list.d"
            + (f"; apt says: {last_words(listed)})" if listed.returncode != 0 else ")")
        )
        + ". Fix: give the host a way to its mirror, or bring the packages in a bundle: "
        "scripts/bundle --sign KEY, then -e ptslink_bundle=FILE (docs/airgap.md)."
    )


def simulated(wanted: Sequence[str], directory: Path) -> None:
    """Unobtainable where apt would remove something for ``wanted``; on a bare host too.

    A host without package lists knows nothing of that, and a dry run leaves its lists as they are:
    they are fetched into a place of their own.
    """
    if removing_nothing(wanted, *UNKEPT).returncode == 0:
        return
    (directory / "lists" / "partial").mkdir(parents=True)
    options = [
        *UNKEPT,
        f"--option=Dir::State::lists={directory / 'lists'}",
        "--option=Acquire::Languages=none",
        "--option=APT::Sandbox::User=root",
    ]
    apt(["apt-get", "--quiet", *options, "update"])
    removing_nothing(wanted, *options)


def install(wanted: Sequence[str]) -> None:
    """Fetch the lists of the host's mirrors and install ``wanted``, removing nothing.

    One dead mirror of several is not the end: what lists say is told where installing fails.
    """
    fetched = apt(["apt-get", "--quiet", "update"])
    removing_nothing(wanted)
    done = apt([*INSTALL, "install", *wanted])
    if done.returncode == 0:
        return
    complaints = [line for line in fetched.stderr.splitlines() if line.startswith(("E:", "W:"))]
    raise Unobtainable(
        f"Installing {', '.join(wanted)} failed: {last_words(done)}"
        + (f". Its package lists could not be fetched: {complaints[0]}" if complaints else "")
        + ". Fix: see that apt-get update and apt-get install work on the host, then run again"
    )


def bring(module: AnsibleModule, wanted: Sequence[str], result: dict[str, Any]) -> None:
    index, archive = module.params["index"], module.params["archive"]
    installing = module.params["state"] == "installed"
    in_order()
    with tempfile.TemporaryDirectory(prefix="ptslink-bundle-", dir="/var/tmp") as temporary:
        directory = Path(temporary)
        if index is None and not installing:
            removing_nothing(wanted, *UNKEPT)
            result["mirrors"] = ask_mirrors(wanted, directory)
            return
        if index is None:
            result["changed"] = True
            result["diff"] = {"before": "", "after": "".join(f"{name}\n" for name in wanted)}
            if module.check_mode:
                simulated(wanted, directory)
            else:
                install(wanted)
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
        if not installing:
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


def remove(module: AnsibleModule) -> None:
    if module.params["archive"] and not module.check_mode:
        Path(module.params["archive"]).unlink(missing_ok=True)


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
            "lock_wait_seconds": {"type": "int", "default": 0},
            "waited_seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False, "files": []}
    names, state = module.params["names"], module.params["state"]
    limit = module.params["lock_wait_seconds"]
    rest = limit - module.params["waited_seconds"]
    try:
        result["missing"] = missing(names)
        if result["missing"] and state != "looked_at":
            dpkg.wait(max(min(rest, SLICE), 0))
            # Whoever was waited for may have brought some.
            result["missing"] = missing(names)
        if result["missing"] and state != "looked_at":
            try:
                bring(module, result["missing"], result)
            except Unobtainable:
                # apt ends at once where somebody took a lock just before it.
                dpkg.wait(0)
                raise
    except dpkg.Held as held:
        if rest > SLICE:
            module.exit_json(changed=False, waiting_for=str(held))
        remove(module)
        module.fail_json(
            msg=f"{held} for more than {limit} s, and {', '.join(result['missing'])} must be "
            "installed; no package was changed. Fix: let it end, then run again; or wait longer: "
            f"-e ptslink_bundle_lock_wait_seconds={limit * 3 or 600}",
        )
    except Unobtainable as reason:
        remove(module)
        module.fail_json(msg=str(reason), **result)
    remove(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
