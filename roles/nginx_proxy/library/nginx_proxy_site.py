#!/usr/bin/python
"""nginx files: tested together with all the others in a copy of the tree, then put in place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.nginx_proxy_limits import Unplaceable, most_open_files, raised

DOCUMENTATION = r"""
module: nginx_proxy_site
short_description: Puts nginx files in place once the whole configuration with them is valid
description:
  - >-
    C(nginx -t) can judge only a whole configuration. The tree is copied, the new files are laid
    into the copy, absolute paths into the tree are turned to the copy, and that is tested. Only
    then is anything replaced, each file in one rename.
  - >-
    A file that is refused leaves the host as it was. So does one that nginx refuses once it is in
    place, which a copy may not show: what was there before is put back.
  - In check mode the test is made where nginx is installed, and nothing is replaced.
  - >-
    Files that are right but newer than nginx's last start and reload (a run was interrupted
    between the two) count as a change: they are not in force.
options:
  directory: {type: path, default: /etc/nginx, description: The configuration tree.}
  binary: {type: str, default: nginx, description: The nginx to test with.}
  unit: {type: str, default: nginx.service, description: The unit that is to have read the files.}
  files:
    type: list
    elements: dict
    required: true
    description: Files of the tree and what they shall hold.
    options:
      path: {type: str, required: true, description: Path below the tree.}
      content: {type: str, description: The text; without it the file (or link) shall be gone.}
      at_least:
        type: dict
        description: >-
          In place of a text, for a file that is not ours - directives (worker_connections,
          worker_rlimit_nofile) and the least number each shall have. The rest stays as it is.
  needs:
    type: list
    elements: path
    default: []
    description: >-
      Files of others that the configuration refers to. While one is missing, as in a dry run
      before the run that brings it, check mode leaves the test out.
author: ptslink authors
"""


class Refused(Exception):
    """nginx does not accept the configuration; the message is what it says."""


def present(path: Path) -> str | None:
    """What a path holds now; None where nothing is there."""
    if not os.path.lexists(path):
        return None
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:  # a link to nothing
        return ""


def wanted_text(directory: Path, file: Mapping[str, Any], open_files: int | None) -> str | None:
    """What a file shall hold; None where it shall be gone.

    Args:
        open_files: what ``worker_rlimit_nofile`` cannot exceed. More would not be taken in part
            but refused as a whole, by workers that then go on with what they had.
    """
    if not file["at_least"]:
        content: str | None = file["content"]
        return content
    least = {directive: int(number) for directive, number in file["at_least"].items()}
    if open_files is not None and "worker_rlimit_nofile" in least:
        least["worker_rlimit_nofile"] = min(least["worker_rlimit_nofile"], open_files)
    return raised(present(directory / file["path"]) or "", least)


def differences(directory: Path, files: Mapping[str, str | None]) -> dict[str, str | None]:
    """Those of ``files`` that are not yet as wanted."""
    return {
        path: content for path, content in files.items() if present(directory / path) != content
    }


def stage(directory: Path, copy: Path, files: Mapping[str, str | None]) -> None:
    """Copy the tree to ``copy`` as it would be with ``files``, self-contained."""
    shutil.copytree(directory, copy, symlinks=True)
    for path, content in files.items():
        target = copy / path
        target.unlink(missing_ok=True)
        if content is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8", errors="surrogateescape")
    inside = f"{directory}/"
    for path in copy.rglob("*"):
        if path.is_symlink():
            # What a relative link leads to depends on where it lies.
            from_there = (directory / path.relative_to(copy)).parent / path.readlink()
            target_text = os.path.normpath(from_there)
            path.unlink()
            path.symlink_to(
                f"{copy}/{target_text.removeprefix(inside)}"
                if target_text.startswith(inside)
                else target_text
            )
        elif path.is_file():
            before = path.read_bytes()
            after = before.replace(inside.encode(), f"{copy}/".encode())
            if after != before:
                path.write_bytes(after)


def test(binary: str, configuration: Path) -> None:
    """``nginx -t`` on one main file, or Refused with its complaints."""
    done = subprocess.run(
        [binary, "-t", "-q", "-c", str(configuration)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused(" | ".join(done.stdout.strip().splitlines()))


def only_in_place(directory: Path, copy: Path, binary: str) -> bool:
    """Whether nginx accepts the tree as it is, and not an unaltered copy of it."""
    try:
        test(binary, directory / "nginx.conf")
    except Refused:
        return False
    stage(directory, copy, {})
    try:
        test(binary, copy / "nginx.conf")
    except Refused:
        return True
    return False


def explain(complaint: str, directory: Path, binary: str) -> str:
    """The complaint about the staged tree, told about the real one, with what helps."""
    advice = "the new files are at fault"
    if re.search(r'"worker_\w+" directive is duplicate', complaint):
        advice = (
            "that limit is set in another file too; raise it there, and set nginx_proxy_links_max "
            "to 0, which leaves nginx's limits alone"
        )
    if "Address family not supported" in complaint:
        advice = "the host has no IPv6; set nginx_proxy_ipv6 to false"
    try:
        test(binary, directory / "nginx.conf")
    except Refused as already:
        advice = f"the configuration was broken before this run already ({already}); mend it first"
    return f"{complaint}. Nothing was replaced; {advice}."


class Swap:
    """Files being replaced, each in one rename, and what they were.

    Args:
        move: puts a finished file in the place of another, with the other's owner and mode.
        scratch: directory for files under way.
    """

    def __init__(self, move: Callable[[str, str], None], scratch: str | None) -> None:
        self._move = move
        self._scratch = scratch
        self._before: list[tuple[Path, str | None, str | None]] = []

    def lay(self, path: Path, content: str | None) -> None:
        """Give a file (of a link in use: what it leads to) new content; None removes it."""
        link = str(path.readlink()) if path.is_symlink() else None
        self._before.append((path, link, present(path)))
        self._write(path, content)

    def undo(self) -> None:
        """Make everything what it was."""
        for path, link, content in reversed(self._before):
            if link is not None and not path.is_symlink():
                path.symlink_to(link)
            else:
                self._write(path, content)

    def _write(self, path: Path, content: str | None) -> None:
        if content is None:
            path.unlink(missing_ok=True)
            return
        descriptor, fresh = tempfile.mkstemp(dir=self._scratch)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).chmod(0o644)
        self._move(fresh, str(path.resolve()))


def last_read(shown: str) -> float | None:
    """Seconds since 1970 of the last start or reload; None where nginx does not run.

    A reload changes the unit's state to reloading and back. (The times of ExecReload are forgotten
    with its end, and a worker's own start says nothing: one that died is replaced without any
    reading.)
    """
    if "ActiveState=active" not in shown.splitlines():
        return None
    found = re.search(r"^StateChangeTimestamp=\w+ (\S+ \S+) UTC$", shown, re.MULTILINE)
    return datetime.fromisoformat(f"{found[1]}+00:00").timestamp() if found else None


def runs(shown: str) -> bool:
    """Whether nginx runs, now and after a reboot."""
    return {"ActiveState=active", "UnitFileState=enabled"} <= set(shown.splitlines())


def main_process(shown: str) -> str:
    """The name of nginx's main process in /proc; while it does not run, of this one."""
    found = re.search(r"^MainPID=([1-9]\d*)$", shown, re.MULTILINE)
    return found[1] if found else "self"


def unread(directory: Path, paths: Iterable[str], read: float | None, now: float) -> list[str]:
    """Those of ``paths`` (of a removed one: its directory) that changed after the last reading."""
    if read is None:
        return []
    if read > now:  # the clock was set back since: nothing can be said, and a reload costs no link
        return sorted(paths)
    found = []
    for path in paths:
        target = directory / path
        looked_at = target if os.path.lexists(target) else target.parent
        if os.path.lexists(looked_at) and looked_at.lstat().st_ctime > read:
            found.append(path)
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/nginx"},
            "binary": {"type": "str", "default": "nginx"},
            "unit": {"type": "str", "default": "nginx.service"},
            "needs": {"type": "list", "elements": "path", "default": []},
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str", "required": True},
                    "content": {"type": "str"},
                    "at_least": {"type": "dict"},
                },
            },
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    # Files are readable by all, whatever root's own habit.
    os.umask(0o022)
    shown = subprocess.run(
        [
            "systemctl",
            "show",
            "--timestamp=us+utc",
            module.params["unit"],
            "--property=ActiveState,MainPID,StateChangeTimestamp,UnitFileState",
        ],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    process = Path("/proc") / main_process(shown)
    open_files = most_open_files((process / "limits").read_text(), (process / "status").read_text())
    try:
        wanted = {
            file["path"]: wanted_text(directory, file, open_files)
            for file in module.params["files"]
            # Before the package is there, a file that is not ours is not there either.
            if not file["at_least"] or (directory / file["path"]).exists()
        }
    except Unplaceable as why:
        module.fail_json(
            msg=f"nginx's limits cannot be raised in {directory}/nginx.conf: {why}. Nothing was "
            "replaced; raise worker_connections and worker_rlimit_nofile where they are set, and "
            "set nginx_proxy_links_max to 0, which leaves them alone."
        )
    for file in module.params["files"]:
        needed = int((file["at_least"] or {}).get("worker_rlimit_nofile", 0))
        if open_files is not None and open_files < needed:
            module.warn(
                f"This host lets nginx open {open_files} files at most and {needed} are needed for "
                "nginx_proxy_links_max: it will hold about half as many links as files. Raise the "
                "host's hard limit of open files, or lower nginx_proxy_links_max."
            )
    changes = differences(directory, wanted)
    stale = unread(directory, wanted, last_read(shown), time.time())
    result: dict[str, Any] = {
        "changed": bool(changes or stale),
        "unread": stale,
        "runs": runs(shown),
        "tested": False,
        "diff": [
            {
                "before_header": str(directory / path),
                "after_header": str(directory / path),
                "before": present(directory / path) or "",
                "after": content or "",
            }
            for path, content in changes.items()
        ]
        + [
            {"prepared": f"{directory / path} is newer than nginx's last start or reload"}
            for path in stale
            if path not in changes
        ],
    }
    binary = module.get_bin_path(module.params["binary"])
    untestable = binary is None or not all(Path(path).exists() for path in module.params["needs"])
    if not changes or (untestable and module.check_mode):
        module.exit_json(**result)
    if binary is None:
        module.fail_json(msg=f"There is no {module.params['binary']} on the host to test with")

    with tempfile.TemporaryDirectory(prefix="nginx-staged-") as temporary:
        copy = Path(temporary) / "nginx"
        stage(directory, copy, changes)
        try:
            test(binary, copy / "nginx.conf")
            result["tested"] = True
        except Refused as refused:
            # One that nginx accepts where it is and not in a copy is tested in its place below.
            if not only_in_place(directory, Path(temporary) / "as-it-is", binary):
                complaint = str(refused).replace(str(copy), str(directory))
                module.fail_json(
                    msg=f"nginx refuses the configuration: {explain(complaint, directory, binary)}"
                )

    if not module.check_mode:
        swap = Swap(module.atomic_move, module.tmpdir)
        for path, content in changes.items():
            swap.lay(directory / path, content)
        try:
            test(binary, directory / "nginx.conf")
        except Refused as refused:
            swap.undo()
            module.fail_json(
                msg=f"nginx refuses the configuration in its place, and what was before is back: "
                f"{refused}"
            )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
