"""Files that the link needs: owner, mode, absence, emptiness, another kind of file in the place."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from machines.faults.fault import server
from machines.mutations.mutation import (
    DIRECT,
    KEPT,
    NGINX_AGAIN,
    PLAIN,
    SECURE,
    SERVICE_AGAIN,
    Mutation,
    Party,
    Restart,
    Truth,
    Way,
    kind,
)
from machines.mutations.system import Needed, System, needed


def _needs(path: str) -> tuple[Party, Restart, Way]:
    """Whose a file is, who has to be started again to notice, and the way that shows it."""
    if "/tls" in path:
        return Party.CERTIFICATE, NGINX_AGAIN, SECURE
    if "nginx" in path:
        return Party.NGINX, NGINX_AGAIN, PLAIN
    return Party.SERVICE, SERVICE_AGAIN, DIRECT


def _mutation(kind_: str, one: Needed, what: str, line: str) -> Mutation:
    party, again, way = _needs(one.path)
    path = shlex.quote(one.path)
    if one.directory:
        # What is in it stays there: its attributes alone are given back.
        kept = f"real={path}"
        back = f"chown {one.owner}:{one.group} {path}; chmod {one.mode} {path}"
    else:
        # Through links: what is changed is the file itself.
        kept = (
            f"rm -rf {KEPT}; mkdir -p {KEPT}; real=$(readlink -f {path}); "
            f"echo $real > {KEPT}.real; cp -a --parents $real {KEPT}/"
        )
        back = f"real=$(cat {KEPT}.real); rm -rf $real; cp -a {KEPT}$real $real"
        if one.path.endswith("journal.db"):
            # A copy without its log is no journal: it is begun anew.
            back = f"systemctl stop ptslink.socket ptslink.service; rm -rf {path}*"
    return Mutation(
        kind_, f"{one.path}: {what}",
        Truth((Party.FILE, party), (one.path,), f"{one.path}: {what}"),
        (server(f"{kept} && {line}"), server(again.line, may_fail=True)),
        (server(back), server(again.line, may_fail=True)), way,
    )  # fmt: skip


@kind("file-mode")
def mode(system: System) -> Iterator[Mutation]:
    """Each has a mode that shuts out who needs it, or lets in everybody."""
    for one in needed(system.files):
        for other in ("000", "600", "700", "644", "666", "777"):
            if other != one.mode:
                yield _mutation("file-mode", one, f"mode {other} instead of {one.mode}",
                                f"chmod {other} $real")  # fmt: skip


@kind("file-owner")
def owner(system: System) -> Iterator[Mutation]:
    """Each belongs to somebody else, who keeps it to himself."""
    for one in needed(system.files):
        for other in ("root:root", "nobody:nogroup", "www-data:www-data", "ptslink:ptslink"):
            if other != f"{one.owner}:{one.group}":
                yield _mutation("file-owner", one, f"owner {other}, mode {one.mode}",
                                f"chown {other} $real && chmod {one.mode} $real")  # fmt: skip
                if one.directory:
                    continue
                yield _mutation("file-owner", one, f"owner {other}, mode 600",
                                f"chown {other} $real && chmod 600 $real")  # fmt: skip


@kind("file-gone")
def gone(system: System) -> Iterator[Mutation]:
    """Each file is not there, is empty, is cut, is no text, or is something else."""
    for one in needed(system.files):
        if one.directory:
            continue
        for what, line in (
            ("is not there", "rm -f $real"),
            ("is empty", ": > $real"),
            ("ends in the middle", "truncate -s $(($(stat -c %s $real) / 2)) $real"),
            ("is no text", "head -c 300 /dev/urandom > $real"),
            ("is a directory", "rm -f $real && mkdir $real"),
            ("is a link to nothing", "rm -f $real && ln -s /nonexistent $real"),
            ("ends in CRLF", "sed -i 's/$/\\r/' $real"),
            ("begins with a byte order mark", "sed -i '1s/^/\\xef\\xbb\\xbf/' $real"),
        ):
            # The interpreter and the journal are no text whose lines could end otherwise.
            if what[0] in "eb" and ("/bin/" in one.path or "journal" in one.path):
                continue
            yield _mutation("file-gone", one, what, line)
