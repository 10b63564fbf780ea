"""What else goes into a bundle: wheelhouses, collections, and the project itself."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ptsbundle import BundleError, layout
from ptsbundle.archive import File, write

WHEELHOUSE_MODULE = Path("roles/pts_server/library/pts_server_wheelhouse.py")
#: Of a checkout without git: what is made here and not part of it.
_MADE = re.compile(r"^(build|dist|collections|\.venv|\.git|\.[a-z]+_cache|\.hypothesis)(/|$)")
_REQUIREMENT = re.compile(r"^(?P<name>\S+)==(?P<version>\S+) --hash=sha256:(?P<sha256>[0-9a-f]+)$")


def release_name(root: Path) -> str:
    """The release a checkout makes, by the very rule the server's role names it with."""
    path = root / WHEELHOUSE_MODULE
    spec = importlib.util.spec_from_file_location("pts_server_wheelhouse", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise BundleError(f"{root} is no ptslink checkout: it lacks {WHEELHOUSE_MODULE}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    name: str = module.release_name(root)
    return name


def wheelhouses(root: Path, cache: Path) -> tuple[str, dict[tuple[str, str], Path]]:
    """(release, {(python, machine): archive}), built where the cache lacks them."""
    targets = [
        {"python": python, "machine": machine}
        for python in layout.PYTHONS
        for machine in layout.MACHINES
    ]
    arguments = {
        "source": str(root),
        "cache": str(cache),
        "interpreter": sys.executable,
        "targets": targets,
    }
    # A role's module is a program that reads its arguments from a file.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"ANSIBLE_MODULE_ARGS": arguments}, file)
        file.flush()
        done = subprocess.run(
            [sys.executable, root / WHEELHOUSE_MODULE, file.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise BundleError(f"the wheelhouses could not be built: {done.stderr[-800:]}") from None
    if done.returncode != 0 or result.get("failed"):
        raise BundleError(result.get("msg", "the wheelhouses could not be built"))
    return result["release"], {
        (target["python"], target["machine"]): Path(
            result["archives"][f"{target['python']}-{target['machine']}"]
        )
        for target in targets
    }


def wheels(archive: Path) -> Iterator[dict[str, str]]:
    """Name, version and hash of each wheel in a wheelhouse."""
    with tarfile.open(archive) as tar:
        listed = tar.extractfile("requirements.txt")
        if listed is None:
            raise BundleError(f"{archive} has no requirements.txt; remove it, then run it again")
        text = listed.read().decode()
    yield from (match.groupdict() for match in map(_REQUIREMENT.match, text.splitlines()) if match)


def project(root: Path) -> list[File]:
    """Every file of the checkout that is part of it."""
    if (root / ".git").exists():
        listed = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z"],
            cwd=root,
            capture_output=True,
            check=True,
        )
        names = [name for name in listed.stdout.decode().split("\0") if name]
    else:
        names = [
            name
            for path in root.rglob("*")
            if path.is_file()
            and not _MADE.match(name := path.relative_to(root).as_posix())
            and "__pycache__" not in path.parts
        ]
    return [
        File(name, root / name, executable=bool((root / name).stat().st_mode & 0o100))
        for name in sorted(names)
        if (root / name).is_file() and not (root / name).is_symlink()
    ]


def revision(root: Path) -> str | None:
    """The commit a checkout stands at, marked where files differ from it; None without git."""
    if not (root / ".git").exists():
        return None
    git = ["git", "-c", "safe.directory=*"]
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], cwd=root, check=False).returncode
    return head.stdout.strip() + ("-modified" if changed else "") if head.returncode == 0 else None


def required_collections(requirements: str) -> list[tuple[str, str]]:
    """(name, version) of each entry of requirements.yml."""
    return re.findall(r"- name: (\S+)\n\s+version: \"?([\w.]+)\"?", requirements)


def collections(root: Path) -> tuple[list[File], list[tuple[str, str]]]:
    """The collections of requirements.yml as this Python's Ansible has them."""
    spec = importlib.util.find_spec("ansible_collections")
    homes = [Path(path) for path in (spec.submodule_search_locations or [])] if spec else []
    wanted = required_collections((root / "requirements.yml").read_text(encoding="utf-8"))
    files: list[File] = []
    for name, version in wanted:
        namespace, _, collection = name.partition(".")
        home = next(
            (h for h in homes if (h / namespace / collection / "MANIFEST.json").is_file()), None
        )
        if home is None:
            raise BundleError(
                f"collection {name} is not installed here: use the locked environment "
                "(requirements/control.lock)"
            )
        tree = home / namespace / collection
        described = json.loads((tree / "MANIFEST.json").read_text(encoding="utf-8"))
        if (has := described["collection_info"]["version"]) != version:
            raise BundleError(
                f"collection {name} is {has} here, requirements.yml wants {version}: use the "
                "locked environment (requirements/control.lock)"
            )
        files += [
            File(f"ansible_collections/{path.relative_to(home).as_posix()}", path)
            for path in sorted(tree.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        ]
    return files, wanted


def packed(name: str, files: Sequence[File], directory: Path) -> File:
    """Many small files as one."""
    target = directory / name
    write(target, files)
    return File(name, target)
