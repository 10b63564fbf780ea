"""This computer: a process is never mistaken for another, a lock is held alone."""

from __future__ import annotations

import signal
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ptslab import host
from ptslab.errors import LabError, UsageError


@pytest.fixture
def sleeper():  # type: ignore[no-untyped-def]
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_process_is_known_until_it_ends(sleeper: subprocess.Popen[bytes]) -> None:
    process = host.Process.of(sleeper.pid)
    assert process is not None
    assert process.alive()
    assert not process.wait(0.01)
    assert process.signal(signal.SIGTERM)
    assert process.wait(5)
    sleeper.wait()
    assert not process.alive()
    assert not process.signal(signal.SIGTERM)


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_a_later_process_with_the_same_number_is_left_alone(
    sleeper: subprocess.Popen[bytes], change: dict[str, int]
) -> None:
    process = host.Process.of(sleeper.pid)
    assert process is not None
    other = replace(process, **change)  # type: ignore[arg-type]
    assert not other.alive()
    assert not other.signal(signal.SIGKILL)
    assert other.wait(0)
    assert sleeper.poll() is None


def test_a_zombie_counts_as_gone(sleeper: subprocess.Popen[bytes]) -> None:
    process = host.Process.of(sleeper.pid)
    assert process is not None
    process.signal(signal.SIGKILL)
    assert process.wait(5)  # readable once it has ended, reaped or not
    assert host.Process.of(sleeper.pid) is None


def test_kill_all_ends_what_ignores_the_polite_word() -> None:
    stubborn = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    process = host.Process.of(stubborn.pid)
    assert process is not None
    host.kill_all([process], grace=0.1)
    assert stubborn.wait(5) == -signal.SIGKILL
    stubborn.stdout.close()


def test_a_failing_command_says_what_it_said() -> None:
    with pytest.raises(LabError, match="exit 3: no such luck"):
        host.run(("sh", "-c", "echo no such luck >&2; exit 3"))


def test_commands_do_not_see_the_callers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    seen = dict(line.split("=", 1) for line in host.run(("env",)).splitlines())
    assert "PYTHONPATH" not in seen
    assert seen["LC_ALL"] == "C.UTF-8"
    assert seen["http_proxy"] == "http://192.0.2.1:3128"


def test_missing_tools_are_named_by_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"nft", "systemd-nspawn", "ssh", "ssh-keygen"}
    monkeypatch.setattr(host.shutil, "which", lambda tool, **_: None if tool in gone else tool)
    assert host.missing_packages() == ["nftables", "openssh-client", "systemd-container"]
    with pytest.raises(UsageError, match=r"nftables openssh-client systemd-container.*prepare"):
        host.require_tools()


def test_without_root_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="scripts/lab up needs root: run it again with sudo"):
        host.require_root("scripts/lab up")


def test_a_lock_is_held_by_one_at_a_time_even_when_its_file_is_deleted(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with host.locked(path):
                inside += 1
                most = max(most, inside)
                inside -= 1
                path.unlink()  # the last act of a holder

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_the_root_mount_is_found() -> None:
    assert host.mounts_under(Path("/proc"))[-1] == Path("/proc")
    assert host.mounts_under(Path("/proc/self")) == []


def test_remove_tree_never_goes_through_a_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(host, "mounts_under", lambda directory: [directory / "kept"])
    with pytest.raises(LabError, match="mounts below it"):
        host.remove_tree(tmp_path)
    assert (tmp_path / "kept").exists()
