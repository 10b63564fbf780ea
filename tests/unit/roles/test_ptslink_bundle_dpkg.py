"""Who holds the locks of apt and dpkg, and whether a host's packages are in order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def dpkg(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("ptslink_bundle/module_utils/ptslink_bundle_dpkg")


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A file that another program has locked, and its process."""
    script = tmp_path / "unattended-upgrade"
    script.write_text(HOLD)
    lock = str(tmp_path / "lock")
    command = [sys.executable, "-I", str(script), lock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        yield lock, holder.pid


def test_the_holder_of_a_lock_is_named(dpkg: Any, held: tuple[str, int]) -> None:
    lock, pid = held
    said = dpkg.holders([lock])
    assert said.startswith(f"unattended-upgrade (pid {pid}")
    assert said.endswith(f" holds {lock}")


def test_a_lock_that_stays_held_is_given_up_with_its_holder(
    dpkg: Any, held: tuple[str, int]
) -> None:
    lock, pid = held
    with pytest.raises(dpkg.Held, match=f"pid {pid}"):
        dpkg.wait(0, [lock])


def test_a_lock_that_is_free_or_not_there_is_not_waited_for(dpkg: Any, tmp_path: Path) -> None:
    (tmp_path / "free").touch()
    dpkg.wait(0, [str(tmp_path / "free"), str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ("/usr/bin/python3\0/usr/bin/unattended-upgrade\0--download-only\0", "unattended-upgrade"),
        ("apt-get\0-qq\0-y\0update\0", "apt-get"),
        ("/bin/sh\0-e\0/usr/lib/apt/apt.systemd.daily\0update\0", "apt.systemd.daily"),
        ("/usr/bin/python3.11\0", "python3.11"),
        ("", "kworker"),
    ],
)
def test_a_process_is_called_by_its_program(dpkg: Any, arguments: str, called: str) -> None:
    assert dpkg.program(arguments, "kworker\n") == called


def test_a_process_is_named_with_its_unit(dpkg: Any, tmp_path: Path) -> None:
    (tmp_path / "812").mkdir()
    (tmp_path / "812" / "cmdline").write_text("apt-get\0update\0")
    (tmp_path / "812" / "cgroup").write_text("0::/system.slice/cloud-final.service\n")
    assert dpkg.process(812, tmp_path) == "apt-get (pid 812, cloud-final.service)"


@pytest.mark.parametrize("pid", [-1, 0, 4])
def test_a_process_the_kernel_does_not_show_is_said_to_be_one(
    dpkg: Any, tmp_path: Path, pid: int
) -> None:
    assert dpkg.process(pid, tmp_path) == "a process that cannot be named"


IN_ORDER = "installed ok nginx\nconfig-files ok ufw\ntriggers-pending ok man-db\n"


@pytest.mark.parametrize(
    ("listed", "updates", "complaint", "said"),
    [
        (IN_ORDER, [], "", ""),
        (IN_ORDER, ["tmp.i"], "", ""),
        (IN_ORDER, ["0001"], "", "Fix: dpkg --configure -a"),
        (f"{IN_ORDER}half-configured ok exim4", [], "", "exim4 (half-configured). Fix: dpkg --con"),
        ("half-installed reinstreq x", [], "", "apt-get install --reinstall"),
        (
            "unpacked ok x",
            [],
            "x : Depends: y",
            "x : Depends: y. Fix: apt-get --fix-broken",
        ),
    ],
)
def test_packages_that_are_not_in_order_are_named_with_the_fix(
    dpkg: Any, tmp_path: Path, listed: str, updates: list[str], complaint: str, said: str
) -> None:
    for name in updates:
        (tmp_path / name).touch()
    seen = dpkg.disorder(listed, lambda: complaint, os.fspath(tmp_path))
    assert (said in seen) if said else seen == ""


def test_a_plan_that_removes_nothing_is_no_removal(dpkg: Any) -> None:
    assert dpkg.removal("Inst ufw (0.36)\nConf ufw (0.36)\n", ["ufw"]) == ""
