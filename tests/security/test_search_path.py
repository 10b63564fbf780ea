"""Root runs no program because somebody put it where root happened to stand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ptslink.doctor.capture import CaptureError, gather
from ptslink.doctor.collect.edge import LocalMachine
from ptslink.doctor.search_path import search_path


def ask_the_machine() -> None:
    LocalMachine().run("a-program-of-nobody")


def read_a_capture() -> None:
    with contextlib.suppress(CaptureError):
        gather(Path("capture.pcap"))


@pytest.mark.parametrize("path", ["", ":", ".", "relative", "/nowhere::/nowhere", "/nowhere:"])
@pytest.mark.parametrize("look", [ask_the_machine, read_a_capture])
def test_the_working_directory_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, look: Callable[[], None]
) -> None:
    (tmp_path / "relative").mkdir()
    for name in ("a-program-of-nobody", "tshark"):
        for program in (tmp_path / name, tmp_path / "relative" / name):
            program.write_text(f"#!/bin/sh\n: >{tmp_path}/ran\n")
            program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    look()
    assert not (tmp_path / "ran").exists()


def test_what_is_on_the_path_comes_before_what_the_system_has() -> None:
    assert search_path({"PATH": "/opt/a:/usr/bin"}).split(os.pathsep)[:3] == [
        "/opt/a",
        "/usr/bin",
        "/usr/local/sbin",
    ]
    assert search_path({}).startswith("/usr/local/sbin:")
