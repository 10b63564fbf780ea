"""Files and links as a record holds them; numbers in files that are not ours."""

from __future__ import annotations

import base64
import grp
import os
import pwd
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.nginx_proxy_limits import lowered, numbers


def look(path: Path) -> dict[str, Any] | None:
    """A file or link as a record holds it; None where there is none."""
    if path.is_symlink():
        return {"link": str(path.readlink())}
    if not path.exists():
        return None
    status = path.stat()
    return {
        "content": base64.b64encode(path.read_bytes()).decode(),
        "mode": status.st_mode & 0o7777,
        "owner": pwd.getpwuid(status.st_uid).pw_name,
        "group": grp.getgrgid(status.st_gid).gr_name,
    }


def lay(path: Path, wanted: Mapping[str, Any] | None) -> None:
    """Make a path what a record says, in one rename."""
    if wanted is None:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_name(f".{path.name}.put-back")
    fresh.unlink(missing_ok=True)
    if "link" in wanted:
        fresh.symlink_to(wanted["link"])
    else:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64decode(wanted["content"]))
            os.fchown(
                file.fileno(),
                pwd.getpwnam(wanted["owner"]).pw_uid,
                grp.getgrnam(wanted["group"]).gr_gid,
            )
            os.fchmod(file.fileno(), wanted["mode"])
            file.flush()
            os.fsync(file.fileno())
    fresh.replace(path)


def limits_found(asked: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What files of others have for the directives asked for, and what is asked for."""
    return {
        path: {
            "found": numbers(read(path), directives),
            "asked": {directive: int(number) for directive, number in directives.items()},
        }
        for path, directives in asked.items()
        if directives and Path(path).is_file()
    }


def read(path: str) -> str:
    """The text of a file that is not ours, byte for byte."""
    return Path(path).read_text(encoding="utf-8", errors="surrogateescape")


def lowerings(
    limits: Iterable[Mapping[str, Mapping[str, Any]]], wanted: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Files of others that have numbers our runs raised -> their text with those of ``wanted``.

    Args:
        limits: what `limits_found` has found, now and for each record there is.
    """
    most: dict[tuple[str, str], int] = {}
    for path, directive, number in (
        (path, directive, number)
        for one in limits
        for path, state in one.items()
        for directive, number in state["asked"].items()
    ):
        most[path, directive] = max(number, most.get((path, directive), 0))
    fresh = {
        path: lowered(
            read(path),
            state["found"],
            {directive: most.get((path, directive), 0) for directive in state["found"]},
        )
        for path, state in wanted.items()
        if Path(path).is_file()
    }
    return {path: text for path, text in fresh.items() if text != read(path)}


def rewrite(path: str, content: str) -> None:
    """Give a file of others (of a link: what it leads to) new text, in one rename."""
    target = Path(path).resolve()
    status = target.stat()
    fresh = target.with_name(f".{target.name}.put-back")
    fresh.write_text(content, encoding="utf-8", errors="surrogateescape")
    os.chown(fresh, status.st_uid, status.st_gid)
    fresh.chmod(status.st_mode & 0o7777)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(target)
