"""Small disks for a machine: what is needed to see a service meet a full disk.

A disk is an image file with ext4, mounted at a path of the machine. It is there
at once in a running machine and again after each of its boots.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from ptslab import host, state
from ptslab.errors import LabError, UsageError
from ptslab.state import Lab, Machine

#: The smallest ext4 with a journal is a little less.
SMALLEST_MEGABYTES: Final = 8
LARGEST_MEGABYTES: Final = 4096


@dataclass(frozen=True)
class Disk:
    """`megabytes` of ext4 in the file `image`, mounted at `path` of the machine."""

    path: str
    image: str
    megabytes: int


def check(path: str, megabytes: int) -> None:
    """Raise UsageError unless a disk of that size can be mounted at `path`."""
    if not path.startswith("/") or path == "/" or ".." in PurePosixPath(path).parts:
        raise UsageError(f"path {path!r}: give an absolute directory of the machine, not / itself")
    if not SMALLEST_MEGABYTES <= megabytes <= LARGEST_MEGABYTES:
        raise UsageError(
            f"size {megabytes}: a disk has {SMALLEST_MEGABYTES} to {LARGEST_MEGABYTES} megabytes"
        )


def disks(lab: Lab, machine: Machine) -> list[Disk]:
    try:
        data = json.loads((lab.machine_directory(machine) / "disks.json").read_text())
    except FileNotFoundError:
        return []
    return [Disk(**disk) for disk in data["disks"]]


def add(lab: Lab, machine: Machine, path: str, megabytes: int) -> Disk:
    """Make a disk and mount it in the running machine, owned like the directory it covers."""
    check(path, megabytes)
    present = disks(lab, machine)
    if any(disk.path == path for disk in present):
        raise LabError(f"machine {machine.name} has a disk at {path} already")
    running = lab.running(machine)
    leader = running.leader() if running is not None else None
    if leader is None:
        raise LabError(f"machine {machine.name} is not running")
    image = lab.machine_directory(machine) / f"disk{len(present)}.img"
    device = None
    try:
        with image.open("wb") as file:
            file.truncate(megabytes * 1024 * 1024)
        host.run(("mkfs.ext4", "-q", "-F", "-m", "0", str(image)))
        device = host.run(("losetup", "--find", "--show", str(image))).strip()
        number = Path(device).stat().st_rdev
        host.run(
            ("nsenter", "--target", str(leader), "--mount", "--root", "--wd=/", "--",
             "sh", "-ec", _MOUNT_INSIDE, "sh", path, str(os.major(number)),
             str(os.minor(number)))
        )  # fmt: skip
    except BaseException:
        image.unlink(missing_ok=True)
        raise
    finally:
        if device is not None:
            # Mounted, the device goes when the mount goes; else it goes now.
            host.run_quietly(("losetup", "--detach", device))
    disk = Disk(path, str(image), megabytes)
    state.write_json(
        lab.machine_directory(machine) / "disks.json",
        {"disks": [asdict(one) for one in (*present, disk)]},
    )
    return disk


# The machine has no loop devices of its own: the node is there for the moment of mounting.
_MOUNT_INSIDE = """\
mkdir -p "$1"
owner=$(stat -c %u:%g "$1") mode=$(stat -c %a "$1")
node=/dev/.lab-disk-$3
mknod "$node" b "$2" "$3"
trap 'rm -f "$node"' EXIT
mount -t ext4 "$node" "$1"
rmdir "$1/lost+found"
chown "$owner" "$1"
chmod "$mode" "$1"
"""


def attach_for_boot(lab: Lab, machine: Machine) -> None:
    """Mount the machine's disks below its root, where systemd-nspawn takes them along."""
    for disk in disks(lab, machine):
        place = lab.root(machine) / disk.path.lstrip("/")
        host.run(("mount", "-o", "loop", disk.image, str(place)))


def detach(lab: Lab, machine: Machine) -> None:
    """Undo attach_for_boot."""
    for disk in disks(lab, machine):
        host.unmount_under(lab.root(machine) / disk.path.lstrip("/"))
