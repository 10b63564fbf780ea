"""Snapshots: what a machine wrote until now, kept for other machines to begin from.

A snapshot is a machine's own layer, moved beside the root file systems; the machine goes on with a
new layer over it. Its key is a hash of the image and of every file that is named as having gone
into it, so that a snapshot is used again only where nothing of that has changed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from ptslab import host, rootfs
from ptslab.errors import LabError, UsageError
from ptslab.state import Lab, Machine

HOME: Final = rootfs.CACHE / "snapshots"
#: Left by programs that read the files, and not what went into a machine.
_PASSED_OVER: Final = frozenset({"__pycache__"})


def path(name: str, suite: str, of: Iterable[Path]) -> Path:
    """Where the snapshot `name` of a machine with that suite lies, whether it is there or not.

    Raises UsageError for a name that is none, or a file in `of` that is not there.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
        raise UsageError(
            f"snapshot {name!r}: a name is up to 32 of a-z, 0-9, _ and -, beginning with a letter"
        )
    image = rootfs.image_path(suite, rootfs.architecture())
    return HOME / f"{name}-{suite}-{key(image, of)}"


def key(image: Path, of: Iterable[Path]) -> str:
    """Twelve hex digits that change with the image, and with name, mode or content of any file."""
    digest = hashlib.sha256(image.name.encode())
    for file in _files(of):
        executable = os.access(file, os.X_OK)
        digest.update(f"\n{file} {executable} {file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _files(of: Iterable[Path]) -> Iterator[Path]:
    for given in of:
        if given.is_file():
            yield given
        elif given.is_dir():
            yield from sorted(
                file
                for file in given.rglob("*")
                if file.is_file() and not _PASSED_OVER & set(file.parts)
            )
        else:
            raise UsageError(f"{given}: no such file or directory")


def lower_layers(snapshot: Path) -> tuple[str, ...]:
    """The layers of a machine that begins from `snapshot`, the newest first."""
    below = (snapshot / "below").read_text().split()
    return (str(snapshot / "layer"), *below)


def take(lab: Lab, machine: Machine, target: Path) -> Machine:
    """Move the layer of `machine`, which is off, to `target`; return the machine as it is then.

    Made beside its final place and renamed, so that nobody ever sees half of it. A snapshot that
    is there already is left as it is, and so is the machine.
    """
    with host.locked(HOME / "snapshots.lock"):
        if target.is_dir():
            return machine
        making = HOME / f".{target.name}.making"
        host.remove_tree(making)
        making.mkdir(parents=True)
        host.unmount_under(lab.machine_directory(machine))
        (making / "below").write_text("\n".join(machine.snapshots) + "\n")
        # Not Path.rename: the cache may lie on another file system.
        host.run(("mv", str(lab.upper(machine)), str(making / "layer")))
        making.rename(target)
        host.remove_tree(lab.machine_directory(machine) / "work")
        for directory in (lab.upper(machine), lab.machine_directory(machine) / "work"):
            directory.mkdir()
        return replace(machine, snapshots=lower_layers(target))


def prune(target: Path, used: Sequence[str]) -> list[Path]:
    """Remove the snapshots of the name and suite of `target` that no machine stands on."""
    prefix = target.name.rpartition("-")[0]
    removed = []
    for other in sorted(HOME.glob(f"{prefix}-*")):
        if other != target and str(other / "layer") not in used:
            host.remove_tree(other)
            removed.append(other)
    return removed


def require(snapshot: Path) -> Path:
    """`snapshot`; raises LabError when there is none."""
    if not (snapshot / "layer").is_dir():
        raise LabError(f"no snapshot {snapshot.name}: make it with 'scripts/lab snapshot'")
    return snapshot
