"""The ``ptslink`` command itself, before any subcommand."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

from click.testing import CliRunner

from ptslink.cli import main


def test_it_tells_its_version() -> None:
    told = CliRunner().invoke(main, ["--version"])
    assert (told.exit_code, told.output) == (0, f"ptslink, version {metadata.version('ptslink')}\n")


def test_a_probe_starts_without_what_it_does_not_need() -> None:
    loaded = "import sys, ptslink.doctor.probe; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", loaded], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"importlib.metadata", "asyncio", "click"}.isdisjoint(said)
    assert "ptslink.doctor.probe.link" in said
