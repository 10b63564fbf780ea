"""The cached root file systems: a bare Debian a suite, made once with mmdebstrap.

A machine never writes to one: it is the lower layer of the machine's overlay.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ptslab import host
from ptslab.errors import LabError

CACHE: Final = Path("/var/cache/ptslink-lab")

#: Raise it when the way an image is made changes in a manner the lists below do not show.
RECIPE: Final = 1

#: What a provider's smallest Debian image holds. No nginx, no ufw, no python3-venv:
#: bringing those is the product's task.
PACKAGES: Final = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iputils-ping",
    "libpam-systemd",
    "netbase",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "tzdata",
)

#: Three comforts of a test machine; docs/lab.md lists them under "How a machine differs".
APT_OPTIONS: Final = (
    'APT::Keep-Downloaded-Packages "true"',
    'Acquire::Languages "none"',
)
DPKG_OPTIONS: Final = ("force-unsafe-io",)


def image_key(suite: str, architecture: str) -> str:
    """Twelve hex digits that change when anything that shapes the image changes."""
    recipe = [suite, architecture, str(RECIPE), *sorted(PACKAGES), *APT_OPTIONS, *DPKG_OPTIONS]
    return hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]


def image_path(suite: str, architecture: str) -> Path:
    return CACHE / "rootfs" / f"{suite}-{image_key(suite, architecture)}"


def build_command(suite: str, target: Path) -> tuple[str, ...]:
    """The mmdebstrap call; no mirror is named, so its default for the suite is used."""
    return (
        "mmdebstrap",
        "--mode=root",
        "--format=directory",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        *(f"--aptopt={option}" for option in APT_OPTIONS),
        *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
        # The package lists stay: a first `apt-get update` then fetches changes only.
        "--skip=cleanup/apt/lists",
        # Each machine gets its own identity before it first boots.
        '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*',
        '--customize-hook=rm -f "$1"/etc/machine-id "$1"/etc/hostname "$1"/etc/resolv.conf',
        suite,
        str(target),
    )


def architecture() -> str:
    return os.uname().machine


def ensure_image(suite: str, *, started: float, refresh: bool = False) -> Path:
    """Return the root file system of `suite`, making it first if the cache lacks it.

    Made beside its final place and renamed, under a lock: nobody ever sees half an
    image and two labs never make the same one. Raises LabError with the end of
    mmdebstrap's own words when it fails.
    """
    target = image_path(suite, architecture())
    if target.is_dir() and not refresh:
        return target
    with host.locked(CACHE / f"build-{suite}.lock"):
        if target.is_dir() and not refresh:
            return target
        _remove_halves(suite)
        building = target.with_name(f".{target.name}.making")
        building.parent.mkdir(parents=True, exist_ok=True)
        host.say(f"{suite}: making the root file system (once; about half a minute)",
                 started=started)  # fmt: skip
        try:
            _build(suite, building, started=started)
            old = target.with_name(f".{target.name}.old")
            if target.is_dir():
                target.rename(old)
            building.rename(target)
            host.remove_tree(old)
        except BaseException:
            host.remove_tree(building)
            raise
    return target


def _build(suite: str, target: Path, *, started: float) -> None:
    began = time.monotonic()
    tail: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        build_command(suite, target),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=host.environment(),
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                tail.append(line.rstrip())
                if line.startswith("I: ") and "success" not in line:
                    host.say(f"{suite}: {line[3:].strip()}", started=started)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        words = "\n".join(f"    {line}" for line in tail)
        raise LabError(f"{suite}: mmdebstrap failed (exit {process.returncode}):\n{words}")
    host.say(f"{suite}: root file system made in {time.monotonic() - began:.0f} s", started=started)


def _remove_halves(suite: str) -> None:
    """Clear what an interrupted making left behind."""
    for path in (CACHE / "rootfs").glob(f".{suite}-*"):
        host.unmount_under(path)
        host.remove_tree(path)


def prune(used: Iterable[Path]) -> list[Path]:
    """Remove images of former recipes that no lab stands on; return what was removed."""
    kept = set(used)
    removed = []
    for path in sorted((CACHE / "rootfs").glob("[!.]*")):
        suite = path.name.rpartition("-")[0]
        if path not in kept and path != image_path(suite, architecture()):
            host.remove_tree(path)
            removed.append(path)
    return removed


# -- packages machines have fetched -------------------------------------------------------


def deb_cache(suite: str) -> Path:
    return CACHE / "debs" / suite


def lend_debs(suite: str, archives: Path) -> int:
    """Put every cached package into a machine's apt archive directory; return how many."""
    archives.mkdir(parents=True, exist_ok=True)
    return _link_debs(deb_cache(suite), archives)


def collect_debs(suite: str, archives: Path) -> int:
    """Keep the packages a machine has fetched for the next machine; return how many are new."""
    deb_cache(suite).mkdir(parents=True, exist_ok=True)
    return _link_debs(archives, deb_cache(suite))


def _link_debs(source: Path, target: Path) -> int:
    if not source.is_dir():
        return 0
    count = 0
    for deb in source.glob("*.deb"):
        place = target / deb.name
        if deb.is_symlink() or not deb.is_file() or place.exists():
            continue
        try:
            place.hardlink_to(deb)
        except FileExistsError:
            continue
        except OSError:  # another file system
            place.write_bytes(deb.read_bytes())
        count += 1
    return count
