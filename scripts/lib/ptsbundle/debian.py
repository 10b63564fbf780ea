"""The packages of a suite and all they need, resolved in the lab's root file system.

apt itself does it, in a chroot on a throw-away overlay of the bare machine, in a mount namespace
that ends with it: nothing on this computer and nothing in the cache of images is changed.

Two closures are joined. The first is what apt fetches for the bare machine, Recommends included,
as it would with a mirror. The second is everything the packages depend on down to libc, so that a
machine from an older point release can be brought along (python3.11-venv, for one, wants exactly
its own python3.11).
"""

from __future__ import annotations

import os
import re
import subprocess
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptsbundle import BundleError, layout
from ptsbundle.archive import File
from ptslab import host, rootfs
from ptslab.errors import LabError

#: Runs as root in a mount namespace of its own: image, archives, a directory, then packages.
_SCRIPT = r"""
set -eu
image=$1 archives=$2 work=$3
shift 3
mount -t tmpfs -o size=512m ptslink-bundle "$work"
mkdir "$work/upper" "$work/over" "$work/root"
mount -t overlay -o "lowerdir=$image,upperdir=$work/upper,workdir=$work/over" overlay "$work/root"
mount --bind "$archives" "$work/root/var/cache/apt/archives"
cp /etc/resolv.conf "$work/root/etc/resolv.conf"
apt() { chroot "$work/root" apt-get -q -y -o APT::Sandbox::User=root "$@"; }
whole='-o Dir::State::status=/dev/null'
# What lies in the archives already is not named: so name it beside an empty directory.
empty='-o Dir::Cache::archives=/tmp'
mkdir "$work/root/tmp/partial"
echo "## lists"
apt update >&2
echo "## bare"
apt -qq $empty install --print-uris "$@"
echo "## whole"
apt -qq $empty $whole install --no-install-recommends --print-uris "$@"
echo "## fetch"
apt install --download-only "$@" >&2
apt $whole install --no-install-recommends --download-only "$@" >&2
echo "## available"
chroot "$work/root" apt-cache $whole dumpavail
"""

_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+\.deb) (?P<size>\d+) (?P<hash>\S*)")
#: What an index of ours keeps of the suite's.
_FIELDS = (
    "Package", "Source", "Version", "Architecture", "Multi-Arch", "Essential", "Priority",
    "Section", "Installed-Size", "Pre-Depends", "Depends", "Recommends", "Conflicts", "Breaks",
    "Replaces", "Provides", "Enhances", "Size", "SHA256",
)  # fmt: skip


@dataclass(frozen=True)
class Package:
    """One .deb: where its archive lies on disk, and its entry in the suite's index."""

    file: str
    path: Path
    fields: dict[str, str]

    def stanza(self) -> str:
        lines = [f"{name}: {self.fields[name]}" for name in _FIELDS if name in self.fields]
        return "\n".join([*lines, f"Filename: ./{self.file}"]) + "\n"


def parse_uris(text: str) -> list[str]:
    """``apt-get --print-uris`` -> the file names it would fetch, in its order."""
    return [match["file"] for match in map(_URI.fullmatch, text.splitlines()) if match]


def parse_stanzas(text: str) -> Iterable[dict[str, str]]:
    """Paragraphs of ``Field: value`` with folded lines, as in a Packages index."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line[:1].isspace():
                fields[name] += f"\n{line}"
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        if fields:
            yield fields


def file_of(fields: dict[str, str]) -> str:
    """The name apt gives a package's archive: the epoch's colon is escaped."""
    version = urllib.parse.quote(fields["Version"], safe="+~.-").lower()
    return f"{fields['Package']}_{version}_{fields['Architecture']}.deb"


def pool_name(fields: dict[str, str]) -> str:
    """The name an archive has in a pool: without epoch, whose colon a URI would have to escape."""
    version = fields["Version"].partition(":")[2] or fields["Version"]
    return f"{fields['Package']}_{version}_{fields['Architecture']}.deb"


def packages(suite: str, names: Sequence[str], *, started: float) -> list[Package]:
    """Every package ``names`` need on ``suite``, fetched; ordered by file name."""
    try:
        image = rootfs.ensure_image(suite, started=started)
    except LabError as error:
        raise BundleError(str(error)) from error
    archives = rootfs.CACHE / "bundle" / suite
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    work = rootfs.CACHE / "bundle" / ".root"
    work.mkdir(exist_ok=True)
    with host.locked(rootfs.CACHE / "bundle" / f"{suite}.lock"):
        rootfs.lend_debs(suite, archives)
        host.say(f"{suite}: resolving {', '.join(names)} and all they need", started=started)
        sections = _resolve(suite, image, archives, work, names, started=started)
        wanted = sorted({*parse_uris(sections["bare"]), *parse_uris(sections["whole"])})
        by_file = {file_of(fields): fields for fields in parse_stanzas(sections["available"])}
        found = []
        for file in wanted:
            fields = by_file.get(file)
            if fields is None or not (archives / file).is_file():
                raise BundleError(f"{suite}: apt named {file} but did not fetch it; run it again")
            package = Package(pool_name(fields), archives / file, fields)
            if File(file, package.path).sha256() != package.fields["SHA256"]:
                raise BundleError(
                    f"{suite}: {package.path} is damaged; remove it, then run it again"
                )
            found.append(package)
        rootfs.collect_debs(suite, archives)
    if not found:
        raise BundleError(f"{suite}: apt found nothing to fetch for {', '.join(names)}")
    megabytes = sum(package.path.stat().st_size for package in found) / 1e6
    host.say(f"{suite}: {len(found)} packages, {megabytes:.0f} MB", started=started)
    return found


def _resolve(
    suite: str, image: Path, archives: Path, work: Path, names: Sequence[str], *, started: float
) -> dict[str, str]:
    """Run the script; return what it printed under each of its headings."""
    sections: dict[str, list[str]] = {}
    errors = archives.with_suffix(".log")
    told = {"lists": "package lists", "fetch": "fetching what is not in the cache"}
    with (
        errors.open("w") as log,
        subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh",
             image, archives, work, *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=host.environment(),
        ) as process,
    ):  # fmt: skip
        assert process.stdout is not None
        current: list[str] = []
        for line in process.stdout:
            if line.startswith("## "):
                heading = line[3:].strip()
                current = sections.setdefault(heading, [])
                if heading in told:
                    host.say(f"{suite}: {told[heading]}", started=started)
            else:
                current.append(line)
    if process.returncode != 0:
        tail = "\n".join(f"    {line}" for line in errors.read_text().splitlines()[-12:])
        raise BundleError(
            f"{suite}: its packages could not be fetched (whole log: {errors}):\n{tail}\n"
            "Is a mirror reachable from here?"
        )
    return {name: "".join(lines) for name, lines in sections.items()}


def repository(system: layout.System, found: Sequence[Package]) -> list[File]:
    """The files of a flat repository: an index, and the packages beside it."""
    index = "\n".join(package.stanza() for package in found).encode()
    return [
        File(f"{system.directory}/{layout.INDEX}", index),
        *(File(f"{system.directory}/{package.file}", package.path) for package in found),
    ]


def this_architecture() -> str:
    machine = os.uname().machine
    try:
        return layout.ARCHITECTURES[machine]
    except KeyError:
        raise BundleError(
            f"this computer is {machine}; bundles are made on {' or '.join(layout.ARCHITECTURES)}"
        ) from None
