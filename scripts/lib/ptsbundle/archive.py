"""Writing a bundle that only content decides, and reading one that nobody changed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ptsbundle import Refused, layout

#: Larger than any list of checksums; a file that claims more is not ours.
SMALL = 16 * 1024 * 1024
_SUM = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<name>.+)")


@dataclass(frozen=True)
class File:
    """A file to go into a tar: content in memory or on disk."""

    name: str
    content: bytes | Path
    executable: bool = False

    @property
    def size(self) -> int:
        content = self.content
        return content.stat().st_size if isinstance(content, Path) else len(content)

    def open(self) -> BinaryIO:
        content = self.content
        return content.open("rb") if isinstance(content, Path) else io.BytesIO(content)

    def sha256(self) -> str:
        with self.open() as stream:
            return digest(stream)


def digest(stream: BinaryIO) -> str:
    """SHA-256 of what is left of a stream, as hex digits."""
    seen = hashlib.sha256()
    while block := stream.read(1024 * 1024):
        seen.update(block)
    return seen.hexdigest()


def write(target: Path, files: Iterable[File]) -> None:
    """Write a tar whose bytes follow from names and contents alone, atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
            for file in files:
                member = tarfile.TarInfo(file.name)
                member.size = file.size
                member.mode = 0o755 if file.executable else 0o644
                with file.open() as stream:
                    tar.addfile(member, stream)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def sums(files: Iterable[File]) -> bytes:
    """The text of SHA256SUMS, as ``sha256sum --check`` reads it."""
    lines = sorted(f"{file.sha256()}  {file.name}\n" for file in files)
    return "".join(sorted(lines, key=lambda line: line[66:])).encode()


def parse_sums(text: bytes) -> dict[str, str]:
    """SHA256SUMS -> {name: sha256}; raise Refused for anything else than that."""
    found: dict[str, str] = {}
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError:
        lines = ["not text"]
    for line in lines:
        match = _SUM.fullmatch(line)
        if match is None or not layout.is_plain(match["name"]) or match["name"] in found:
            raise Refused(f"its {layout.SUMS} has the line {line[:80]!r}, which is none of ours")
        found[match["name"]] = match["sha256"]
    return found


def manifest(facts: Mapping[str, Any], components: Iterable[Mapping[str, Any]]) -> bytes:
    """The text of manifest.json: facts of the bundle, then one entry a component."""
    ordered = sorted(components, key=lambda entry: (entry["type"], entry["path"], entry["name"]))
    return (json.dumps({**facts, "components": ordered}, indent=1) + "\n").encode()


class Reader:
    """A bundle on disk. Nothing it says is to be believed before ``verify``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._tar = tarfile.open(path, "r:")  # noqa: SIM115 (closed by __exit__)
            members = self._tar.getmembers()
        except (tarfile.TarError, EOFError) as error:
            raise Refused(f"it is no bundle, or only part of one ({error})") from error
        except OSError as error:
            raise Refused(f"it cannot be read: {error.strerror}") from error
        self._members: dict[str, tarfile.TarInfo] = {}
        self._sums: dict[str, str] = {}
        for member in members:
            if not member.isfile() or not layout.is_plain(member.name):
                raise Refused(f"it holds {member.name!r}, which is no plain file")
            if member.name in self._members:
                raise Refused(f"it holds {member.name} twice")
            self._members[member.name] = member

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def open(self, name: str) -> BinaryIO:
        member = self._members.get(name)
        stream = self._tar.extractfile(member) if member else None
        if stream is None:
            raise Refused(f"it lacks {name}")
        return stream  # type: ignore[return-value]

    def small(self, name: str) -> bytes:
        """A file that is read whole."""
        if name in self._members and self._members[name].size > SMALL:
            raise Refused(f"its {name} is larger than any bundle's")
        with self.open(name) as stream:
            return stream.read()

    def signed(self) -> bool:
        return layout.SIGNATURE in self._members

    def verify(self) -> dict[str, Any]:
        """Hold every file against SHA256SUMS; return the manifest. Who signed is another matter."""
        expected = parse_sums(self.small(layout.SUMS))
        there = set(self._members) - {layout.SUMS, layout.SIGNATURE}
        for names, what in (
            (set(expected) - there, "lacks"),
            (there - set(expected), "holds, unlisted,"),
        ):
            if names:
                raise Refused(f"it {what} {', '.join(sorted(names)[:3])}")
        for name, sha256 in expected.items():
            try:
                with self.open(name) as stream:
                    seen = digest(stream)
            except (tarfile.TarError, EOFError, OSError) as error:
                raise Refused(f"its {name} cannot be read ({error})") from error
            if seen != sha256:
                raise Refused(
                    f"its {name} was changed or damaged: its SHA-256 is {seen[:16]}..., "
                    f"{sha256[:16]}... is listed"
                )
        if layout.MANIFEST not in expected:
            raise Refused(f"it lacks {layout.MANIFEST}")
        read: dict[str, Any] = json.loads(self.small(layout.MANIFEST))
        if read.get("format") != layout.FORMAT:
            raise Refused(
                f"it is of format {read.get('format')!r}, this checkout reads {layout.FORMAT}: "
                "use the playbooks inside it (scripts/bundle --unpack)"
            )
        self._sums = expected
        return read

    def names(self, below: str) -> Iterator[str]:
        return (name for name in self._members if name.startswith(below))

    def extract(self, name: str, target: Path) -> None:
        """Put one file on disk, atomically; one that is there stays if it is the same.

        Raises:
            KeyError: ``verify`` did not accept the file.
            Refused: the bundle was changed since.
        """
        wanted = self._sums[name]
        if target.is_file() and not target.is_symlink() and File(name, target).sha256() == wanted:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        with self.open(name) as stream:
            content = stream.read()
        if hashlib.sha256(content).hexdigest() != wanted:
            raise Refused(f"its {name} was changed while it was read")
        partial.write_bytes(content)
        partial.replace(target)

    def extract_tar(self, name: str, directory: Path) -> int:
        """Lay out a tar inside the bundle; return how many files that were."""
        count = 0
        with self.open(name) as stream, tarfile.open(fileobj=stream, mode="r:") as inner:
            for member in inner:
                content = inner.extractfile(member)
                if content is None or not layout.is_plain(member.name):
                    raise Refused(f"its {name} holds {member.name!r}, which is no plain file")
                target = directory / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
                target.chmod(0o755 if member.mode & 0o100 else 0o644)
                count += 1
        return count
