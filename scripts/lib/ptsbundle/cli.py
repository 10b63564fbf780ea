"""The command line of scripts/bundle."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptsbundle import BundleError, Refused, layout, signature
from ptsbundle.archive import File, Reader, manifest, sums, write

ROOT = Path(__file__).resolve().parents[3]

DESCRIPTION = """\
Makes one file that provisions machines without Internet: the Debian packages
the roles need with all they depend on, the server's wheels for every supported
Python, the playbooks, and the checksums of it all, signed.
"""
EPILOG = """\
  scripts/bundle --suite bookworm --sign ~/.ssh/id_ed25519 --output site.bundle
  scripts/bundle --verify site.bundle --signers signers
  ansible-playbook -i inventory/mysite site.yml \\
      -e ptslink_bundle=site.bundle -e ptslink_bundle_signers=signers

The signers file is OpenSSH's (ssh-keygen(1), ALLOWED SIGNERS); the line for a
key is printed when a bundle is signed with it. Making needs root on Debian 12
or 13 and a mirror; verifying needs neither. More: docs/airgap.md.

Exit status: 0 done, 1 refused or failed (the cause is printed), 2 bad arguments
or something missing on this computer.
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="scripts/bundle",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    make = top.add_argument_group("making one")
    make.add_argument(
        "--suite",
        action="append",
        choices=layout.SUITES,
        help="Debian release of the machines; repeatable (default bookworm)",
    )
    make.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default build/ptslink-bundle-RELEASE-SUITES.tar",
    )
    make.add_argument("--sign", type=Path, metavar="KEY", help="SSH key to sign with")
    use = top.add_argument_group("using one")
    use.add_argument("--verify", type=Path, metavar="FILE", help="say whether it may be used")
    use.add_argument(
        "--unpack", type=Path, metavar="FILE", help="verify, then lay out its playbooks in --to"
    )
    use.add_argument("--to", type=Path, metavar="DIR", help="a directory that is not there yet")
    use.add_argument("--signers", type=Path, metavar="FILE", help="who may have signed it")
    use.add_argument(
        "--unsigned", action="store_true", help="accept it whoever made it; checksums must hold"
    )
    use.add_argument("--json", action="store_true", help="the verdict as JSON on stdout")
    # What the ptslink_bundle role asks for.
    use.add_argument("--of-checkout", action="store_true", help=argparse.SUPPRESS)
    use.add_argument("--extract", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    use.add_argument("--pick", nargs="+", metavar="NAME", help=argparse.SUPPRESS)
    return top


def make(suites: Sequence[str], output: Path | None, key: Path | None, started: float) -> None:
    # Imported here: verification must not need what making needs.
    from ptsbundle import content, debian
    from ptslab import host
    from ptslab.errors import LabError

    try:
        host.require_root("making a bundle")
        host.require_tools()
    except LabError as error:
        raise BundleError(str(error)) from error
    if key is not None:
        signature.sign(b"can it?", key)
    host.say("wheels for Python " + " and ".join(layout.PYTHONS), started=started)
    release, archives = content.wheelhouses(ROOT, ROOT / "build" / "wheelhouse")
    files: list[File] = []
    components: list[dict[str, Any]] = []

    def add(file: File, kind: str, name: str, version: str, **more: Any) -> None:
        files.append(file)
        components.append(
            {"type": kind, "name": name, "version": version, **more, "path": file.name,
             "size": file.size, "sha256": file.sha256()}
        )  # fmt: skip

    targets = []
    for (python, machine), archive in archives.items():
        file = File(layout.wheelhouse(python, machine, release), archive)
        add(file, "wheelhouse", "ptslink", release, python=python, machine=machine)
        targets.append({"python": python, "machine": machine})
        components += [
            {"type": "wheel", "path": file.name, "python": python, "machine": machine, **wheel}
            for wheel in content.wheels(archive)
        ]
    systems: list[layout.System] = []
    for suite in dict.fromkeys(suites):
        system = layout.System(suite, debian.this_architecture())
        found = debian.packages(suite, layout.PACKAGES, started=started)
        index, *debs = debian.repository(system, found)
        add(index, "index", str(system), release)
        for file, package in zip(debs, found, strict=True):
            add(
                file, "deb", package.fields["Package"], package.fields["Version"],
                architecture=package.fields["Architecture"], suite=suite,
            )  # fmt: skip
        systems.append(system)
    with tempfile.TemporaryDirectory(prefix="ptslink-bundle-") as directory:
        host.say("playbooks, roles and collections", started=started)
        add(
            content.packed(layout.PROJECT, content.project(ROOT), Path(directory)),
            "project", "ptslink", release,
        )  # fmt: skip
        trees, named = content.collections(ROOT)
        add(
            content.packed(layout.COLLECTIONS, trees, Path(directory)),
            "collections", "requirements.yml", release,
        )  # fmt: skip
        components += [
            {"type": "collection", "name": name, "version": version, "path": layout.COLLECTIONS}
            for name, version in named
        ]
        facts = {
            "name": "ptslink-bundle",
            "format": layout.FORMAT,
            "release": release,
            "revision": content.revision(ROOT),
            "targets": targets,
            "systems": [
                {"suite": one.suite, "architecture": one.architecture, "packages": layout.PACKAGES}
                for one in systems
            ],
        }
        files.append(File(layout.MANIFEST, manifest(facts, components)))
        files.sort(key=lambda file: file.name)
        host.say(f"checksums of {len(files)} files", started=started)
        listed = sums(files)
        head = [File(layout.SUMS, listed)]
        if key is not None:
            head.append(File(layout.SIGNATURE, signature.sign(listed, key)))
        target = output or ROOT / "build" / (
            f"ptslink-bundle-{release}-{'-'.join(dict.fromkeys(suites))}.tar"
        )
        host.say(f"writing {target}", started=started)
        write(target, [*head, *files])
    print(f"{target}: {target.stat().st_size / 1e6:.0f} MB, release {release}")
    print(f"  for {', '.join(map(str, systems))}")
    if key is None:
        print("  NOT SIGNED: site.yml will refuse it. Sign it with --sign KEY.")
    else:
        print("  signed; the line for the signers file of those who use it:")
        print(f"  {signature.signers_line(key)}")


def judge(reader: Reader, signers: Path | None, unsigned: bool) -> tuple[dict[str, Any], str]:
    """(manifest, who signed or an empty string) of a bundle that may be used; else Refused."""
    who = ""
    if not unsigned:
        if signers is None:
            raise Refused(
                "nobody is named whose signature counts: name the file of those who may sign "
                "(--signers FILE; in a playbook ptslink_bundle_signers), or accept it whoever "
                "made it (--unsigned; ptslink_bundle_unsigned: true)"
            )
        if not reader.signed():
            raise Refused(
                "it is not signed: make it with scripts/bundle --sign KEY, or accept it whoever "
                "made it (--unsigned; ptslink_bundle_unsigned: true)"
            )
        who = signature.signer(reader.small(layout.SUMS), reader.small(layout.SIGNATURE), signers)
    # Checksums after the signature: what an unknown signer lists is of no interest.
    return reader.verify(), who


def verify(options: argparse.Namespace, path: Path) -> None:
    with Reader(path) as reader:
        read, who = judge(reader, options.signers, options.unsigned)
        verdict: dict[str, Any] = {
            "signer": who,
            **{key: read[key] for key in ("release", "revision", "targets", "systems")},
        }
        if options.of_checkout:
            from ptsbundle import content

            if (here := content.release_name(ROOT)) != read["release"]:
                raise Refused(
                    f"it holds release {read['release']}, this checkout is {here}. Use the "
                    f"playbooks inside it (scripts/bundle --unpack {path} --to DIR), or make a "
                    "bundle of this checkout"
                )
        if options.extract:
            verdict |= extract(reader, options.extract, options.pick)
        if options.unpack:
            unpack(reader, options.to)
    if options.json:
        print(json.dumps(verdict))
    elif options.unpack:
        print(f"{options.to}: release {read['release']}, ready to run")
        print(f"  cd {options.to} && ansible-playbook -i INVENTORY site.yml \\")
        print(f"      -e ptslink_bundle={path.resolve()} -e ptslink_bundle_signers=FILE")
    else:
        counts = {
            kind: sum(entry["type"] == kind for entry in read["components"])
            for kind in ("deb", "wheelhouse", "collection")
        }
        print(f"{path}: good, signed by {who}" if who else f"{path}: whole, NOBODY vouches for it")
        print(f"  release {read['release']}, revision {read['revision'] or 'unknown'}")
        print("  for " + ", ".join(f"{s['suite']}-{s['architecture']}" for s in read["systems"]))
        print("  " + ", ".join(f"{count} {kind}s" for kind, count in counts.items()))


def extract(reader: Reader, cache: Path, pick: Sequence[str] | None) -> dict[str, str]:
    """Put wheelhouses and indexes, and packages asked for, where the roles look for them.

    ``pick`` is a system and file names of its packages; they come as one tar with their index.
    """
    home = cache / hashlib.sha256(reader.small(layout.SUMS)).hexdigest()[:16]
    for name in reader.names("wheelhouse/"):
        reader.extract(name, home / name)
    for name in reader.names("debian/"):
        if name.endswith(f"/{layout.INDEX}"):
            reader.extract(name, home / name)
    found = {"home": str(home)}
    if pick:
        system, *names = pick
        key = hashlib.sha256("\n".join(pick).encode()).hexdigest()[:16]
        target = home / f"packages-{system}-{key}.tar"
        # Written each time: to find out whether one that is there is the same costs as much.
        with tempfile.TemporaryDirectory(dir=home, prefix=".picking-") as directory:
            files = []
            for name in [layout.INDEX, *sorted(names)]:
                reader.extract(f"debian/{system}/{name}", Path(directory) / name)
                files.append(File(name, Path(directory) / name))
            write(target, files)
        found["packages"] = str(target)
    return found


def unpack(reader: Reader, directory: Path) -> None:
    """A checkout to run from, with its collections and wheelhouses."""
    if directory.exists() and any(directory.iterdir()):
        raise BundleError(f"--to {directory}: is there and not empty; name a new directory")
    reader.extract_tar(layout.PROJECT, directory)
    reader.extract_tar(layout.COLLECTIONS, directory / "collections")
    # A bundle has plain files alone; playbooks find their roles by links.
    for role in sorted((directory / "roles").iterdir()):
        link = directory / "playbooks" / "roles" / role.name
        link.symlink_to(Path("..", "..", "roles", role.name))
    for name in reader.names("wheelhouse/"):
        reader.extract(name, directory / "build" / name)


def main(arguments: Sequence[str] | None = None) -> int:
    started = time.monotonic()
    top = parser()
    options = top.parse_args(arguments)
    using = options.verify or options.unpack
    making = options.suite or options.output or options.sign
    if options.verify and options.unpack:
        top.error("--verify and --unpack: one of them (--unpack verifies too)")
    if using and making:
        top.error("--suite, --output and --sign make a bundle; they do not go with --verify")
    if not using and (options.signers or options.unsigned or options.json or options.to):
        top.error("--signers, --unsigned, --json and --to go with --verify or --unpack")
    if bool(options.unpack) != bool(options.to):
        top.error("--unpack FILE and --to DIR go together")
    try:
        if using:
            verify(options, using)
        else:
            make(options.suite or ["bookworm"], options.output, options.sign, started)
    except Refused as refusal:
        print(f"scripts/bundle: {using} is refused: {refusal}.", file=sys.stderr)
        return 1
    except (BundleError, OSError, tarfile.TarError) as error:
        print(f"scripts/bundle: {error}", file=sys.stderr)
        return 1
    return 0
