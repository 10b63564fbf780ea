#!/usr/bin/python
"""On the control node: everything a target needs to install the server without an index."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: pts_server_wheelhouse
short_description: Builds the archive of wheels a release is installed from
description:
  - Runs on the control node, which has a package index or already has the wheels.
  - >-
    One archive a target Python and machine, named after a hash of what goes into it. An archive
    that exists is used as it is, so that any number of hosts and runs share one build; builds
    take turns by a lock file.
  - In check mode it says which release would be built and builds nothing.
options:
  source: {type: path, required: true, description: The ptslink checkout.}
  cache: {type: path, required: true, description: Where archives are kept.}
  interpreter: {type: path, required: true, description: A Python with pip and hatchling.}
  targets:
    type: list
    elements: dict
    required: true
    description: Pythons and machines to build for.
    options:
      python: {type: str, required: true, description: "Version as in C(3.11)."}
      machine: {type: str, required: true, description: "As uname -m says it."}
author: ptslink authors
"""

#: Wheels for any glibc from 2.5 up to this one are taken; every supported system is newer.
GLIBC_MINOR = 34
#: The parts of pyproject.toml that make a wheel; the rest is about developing it.
WHEEL_TABLES = ("build-system", "project")


#: What reading a checkout that is not whole can raise.
UNREADABLE = (OSError, KeyError, tomllib.TOMLDecodeError)


class BuildFailed(Exception):
    """An archive could not be built; the message says why and what to do."""


def inputs(source: Path) -> Iterator[tuple[str, bytes]]:
    """What decides the content of a release, as (name, content), in a stable order."""
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))
    tables = {name: project[name] for name in WHEEL_TABLES}
    tables["hatch"] = project.get("tool", {}).get("hatch", {})
    yield "pyproject.toml", json.dumps(tables, sort_keys=True).encode()
    yield "runtime.lock", (source / "requirements" / "runtime.lock").read_bytes()
    package = source / "src" / "ptslink"
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(source).as_posix(), path.read_bytes()


def release_name(source: Path) -> str:
    """Version and content hash: the same sources always make the same release."""
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    digest = hashlib.sha256()
    for name, content in inputs(source):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return f"{project['version']}-{digest.hexdigest()[:12]}"


def wanted(
    source: Path, cache: Path, targets: Iterable[Mapping[str, str]]
) -> tuple[str, dict[str, Path]]:
    """The release of a checkout, and where its archive for each target is or will be.

    Raises:
        UNREADABLE: the checkout is not whole.
    """
    release = release_name(source)
    keys = [f"{target['python']}-{target['machine']}" for target in targets]
    return release, {key: cache / f"py{key}" / f"ptslink-{release}.tar" for key in keys}


def platforms(machine: str) -> list[str]:
    """Platform tags pip may take wheels of, newest first."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, 4, -1)]
    return [*tags, f"manylinux2014_{machine}"]


def pip(interpreter: str, *arguments: str) -> None:
    """Run pip; its last words become the failure."""
    done = subprocess.run(
        [interpreter, "-m", "pip", "--disable-pip-version-check", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        # Fixed times make the wheel the same bytes wherever and whenever it is built.
        env={**os.environ, "SOURCE_DATE_EPOCH": "1577836800"},
    )
    if done.returncode:
        raise BuildFailed(
            f"pip {arguments[0]} ended with {done.returncode}: "
            + " | ".join(done.stdout.strip().splitlines()[-4:])
        )


def build(source: Path, interpreter: str, python: str, machine: str, archive: Path) -> None:
    """Collect the locked wheels and ours for one target into ``archive``, atomically."""
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".building-") as temporary:
        wheels = Path(temporary) / "wheels"
        wheels.mkdir()
        # Built from a copy: two builds at once must not meet in the checkout's build directory.
        checkout = Path(temporary) / "source"
        checkout.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(source / name, checkout / name)
        shutil.copytree(
            source / "src", checkout / "src", ignore=shutil.ignore_patterns("__pycache__")
        )
        pip(
            interpreter,
            "download",
            "--quiet",
            "--require-hashes",
            "--only-binary=:all:",
            *(f"--platform={tag}" for tag in platforms(machine)),
            f"--python-version={python}",
            "--implementation=cp",
            f"--abi=cp{python.replace('.', '')}",
            "--abi=abi3",
            "--abi=none",
            f"--requirement={source / 'requirements' / 'runtime.lock'}",
            f"--dest={wheels}",
        )
        pip(
            interpreter,
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            f"--wheel-dir={wheels}",
            str(checkout),
        )
        pack(wheels, archive)


def pack(wheels: Path, archive: Path) -> None:
    """All wheels and a requirements file with their hashes, as a tar that only content decides."""
    members = {path.name: path.read_bytes() for path in sorted(wheels.glob("*.whl"))}
    lines = []
    for name, content in members.items():
        distribution, version = name.split("-")[:2]
        lines.append(
            f"{distribution.replace('_', '-')}=={version} "
            f"--hash=sha256:{hashlib.sha256(content).hexdigest()}"
        )
    members["requirements.txt"] = ("\n".join(lines) + "\n").encode()
    partial = archive.with_suffix(".partial")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    partial.replace(archive)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "cache": {"type": "path", "required": True},
            "interpreter": {"type": "path", "required": True},
            "targets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "python": {"type": "str", "required": True},
                    "machine": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    source, cache = Path(module.params["source"]).resolve(), Path(module.params["cache"])
    targets = module.params["targets"]
    built = []
    try:
        release, archives = wanted(source, cache, targets)
        for target, (key, archive) in zip(targets, archives.items(), strict=True):
            if archive.exists():
                continue
            built.append(key)
            if module.check_mode:
                continue
            archive.parent.mkdir(parents=True, exist_ok=True)
            with (cache / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not archive.exists():
                    build(source, module.params["interpreter"], archive=archive, **target)
    except (BuildFailed, *UNREADABLE) as error:
        module.fail_json(
            msg=f"The wheelhouse could not be built on the control node: {error}. Fix: run from a "
            "complete ptslink checkout, with the locked environment (requirements/control.lock), "
            "where the package index is reachable; or bring build/wheelhouse from such a machine."
        )
    # What is built is kept for every host and run, and is no change to any host.
    module.exit_json(
        changed=False,
        release=release,
        archives={key: str(archive) for key, archive in archives.items()},
        built=built,
    )


if __name__ == "__main__":
    main()
