#!/usr/bin/python
"""Releases on the server: a directory each, one of them current, switched atomically."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: pts_server_release
short_description: Installs a release, makes it current, forgets old ones
description:
  - >-
    A release is a virtual environment under C(PREFIX/releases). It counts as installed only once
    its marker file is written, last; what an interrupted run left without one is made anew.
  - >-
    One installation at a time: what a killed run began here is waited for, and used if it ended
    well.
  - C(current) is a symbolic link, replaced in one rename.
  - >-
    Returns C(installed), C(current), C(releases), of a switch C(previous), and C(ready): whether
    the directories are there, root's and open to all, and the user with its home and shell.
options:
  prefix: {type: path, required: true, description: Where releases live.}
  release: {type: str, required: true, description: Name of the release.}
  state:
    type: str
    choices: [looked_at, installed, current]
    default: looked_at
    description: What will be true of the release afterwards.
  archive:
    type: path
    description: >-
      Wheelhouse to install from, needed unless it is installed. It is removed, whatever comes of
      it.
  python: {type: path, default: /usr/bin/python3, description: Interpreter of the release.}
  keep: {type: int, default: 3, description: How many releases stay after a switch.}
  directories:
    {type: list, elements: path, default: [], description: What C(ready) asks for beside the user.}
  user: {type: str, default: "", description: The user C(ready) asks for.}
  home: {type: path, default: /, description: Its home directory.}
  shell: {type: path, default: /bin/sh, description: Its shell.}
author: ptslink authors
"""

MARKER = ".installed.json"
#: Where Debian keeps the pip its own venv module bootstraps from.
SYSTEM_PIP = ("/usr/share/python-wheels", "pip-*.whl")


class InstallFailed(Exception):
    """A release could not be installed; the message says which command said what."""


class Releases:
    """The release directories below one prefix."""

    def __init__(self, prefix: Path) -> None:
        self.directory = prefix / "releases"
        self.link = prefix / "current"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One installation at a time: a run that is killed does not stop what it began here."""
        with (self.directory / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def installed(self) -> list[str]:
        """Complete releases, oldest first."""
        markers = sorted(self.directory.glob(f"*/{MARKER}"), key=lambda path: path.stat().st_mtime)
        return [marker.parent.name for marker in markers]

    def current(self) -> str | None:
        """The release ``current`` points at, or None."""
        try:
            return self.link.readlink().name
        except OSError:
            return None

    def switch(self, release: str) -> None:
        """Point ``current`` at a release in one rename: there is never a moment without one."""
        fresh = self.link.with_name(".current.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("releases") / release)
        fresh.replace(self.link)

    def forget(self, keep: int, but: Sequence[str | None]) -> list[str]:
        """Remove the oldest complete releases beyond ``keep``, never one of ``but``."""
        removable = [name for name in self.installed() if name not in but]
        excess = len(self.installed()) - keep
        forgotten = removable[: max(excess, 0)]
        for name in forgotten:
            # Without its marker first, so that half a removal is never taken for a release.
            (self.directory / name / MARKER).unlink()
            shutil.rmtree(self.directory / name)
        return forgotten


def run(*command: str, **environment: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode:
        raise InstallFailed(
            f"`{' '.join(command)}` ended with {done.returncode}: "
            + " | ".join(done.stdout.strip().splitlines()[-4:])
        )


def unpack(archive: Path, directory: Path) -> None:
    """Lay the archive's files flat into a directory; it holds no other kind of member."""
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is None or Path(member.name).name != member.name:
                raise InstallFailed(f"{archive.name} holds {member.name!r}, which is no wheel")
            (directory / member.name).write_bytes(content.read())


def install(home: Path, archive: Path, python: str, selinux: bool = False) -> None:
    """Make the virtual environment at its final place and mark it once it is whole.

    Args:
        selinux: whether the host has SELinux on: systemd starts what the policy calls a program.
    """
    if home.exists():
        shutil.rmtree(home)
    interpreter = str(home / "bin" / "python")
    arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    system_pip = sorted(Path(SYSTEM_PIP[0]).glob(SYSTEM_PIP[1]))
    # The distribution's pip is used from its wheel where there is one: nothing in a release is
    # there only to install it.
    run(python, "-m", "venv", *(["--without-pip"] if system_pip else []), str(home))
    with tempfile.TemporaryDirectory(prefix="ptslink-wheels-") as wheels:
        unpack(archive, Path(wheels))
        run(
            interpreter,
            *arguments,
            "--require-hashes",
            f"--find-links={wheels}",
            f"--requirement={wheels}/requirements.txt",
            **({"PYTHONPATH": str(system_pip[-1])} if system_pip else {}),
            PIP_CONFIG_FILE=os.devnull,
        )
    run(str(home / "bin" / "ptslink"), "--version")
    if selinux:
        run("restorecon", "-R", str(home))
    partial = home / f"{MARKER}.partial"
    partial.write_text(json.dumps({"archive": archive.name, "python": python}) + "\n")
    os.sync()
    partial.replace(home / MARKER)


def is_open(directory: Path) -> bool:
    """Whether it is a directory of root's that all may read: mode 0755."""
    try:
        there = directory.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(there.st_mode)
        and stat.S_IMODE(there.st_mode) == 0o755
        and (there.st_uid, there.st_gid) == (0, 0)
    )


def is_user(name: str, home: str, shell: str) -> bool:
    """Whether there is a user of that name with that home and shell."""
    try:
        there = pwd.getpwnam(name)
    except KeyError:
        return False
    return (there.pw_dir, there.pw_shell) == (home, shell)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "required": True},
            "release": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "choices": ["looked_at", "installed", "current"],
                "default": "looked_at",
            },
            "archive": {"type": "path"},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "keep": {"type": "int", "default": 3},
            "directories": {"type": "list", "elements": "path", "default": []},
            "user": {"type": "str", "default": ""},
            "home": {"type": "path", "default": "/"},
            "shell": {"type": "path", "default": "/bin/sh"},
        },
        supports_check_mode=True,
    )
    wanted, state = module.params["release"], module.params["state"]
    releases = Releases(Path(module.params["prefix"]))
    before = releases.current()
    installed = wanted in releases.installed()
    result: dict[str, Any] = {"changed": False, "previous": before, "forgotten": []}
    os.umask(0o022)
    try:
        if state == "installed" and not installed:
            result["changed"] = True
            if not module.check_mode:
                with releases.locked():
                    # A killed run's installation may have gone on, and just have ended.
                    if wanted not in releases.installed():
                        install(
                            releases.directory / wanted,
                            Path(module.params["archive"]),
                            module.params["python"],
                            module.selinux_enabled(),
                        )
        if state == "current" and before != wanted:
            result["changed"] = True
            result["diff"] = {
                "before": f"{releases.link} -> releases/{before}\n" if before else "",
                "after": f"{releases.link} -> releases/{wanted}\n",
            }
            if not module.check_mode:
                if not installed:
                    raise InstallFailed(f"release {wanted} is not installed completely")
                releases.switch(wanted)
                result["forgotten"] = releases.forget(module.params["keep"], (wanted, before))
    except (InstallFailed, OSError, tarfile.TarError) as error:
        if state == "installed":
            with contextlib.suppress(OSError):
                shutil.rmtree(releases.directory / wanted)
        module.fail_json(msg=f"Release {wanted} could not be made {state}: {error}")
    finally:
        if module.params["archive"] and not module.check_mode:
            Path(module.params["archive"]).unlink(missing_ok=True)
    result["installed"] = wanted in releases.installed()
    result["ready"] = all(map(is_open, map(Path, module.params["directories"]))) and is_user(
        module.params["user"], module.params["home"], module.params["shell"]
    )
    result["current"] = releases.current()
    result["releases"] = releases.installed()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
