"""The lab of the matrix: raised, provisioned by site.yml, and taken down."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from support import provisioned

ROOT = Path(__file__).parents[3]
LAB = ROOT / "scripts" / "lab"
#: What the machine of the rows is provisioned with.
MACHINE = Path(__file__).parent / "machine.yml"
#: The longest a whole site.yml may take, seconds: the first one builds the release.
SITE_SECONDS = 900.0


class LabError(Exception):
    """A lab could not be made ready; ends with what the command said."""


def _run(lab: str, *words: str | Path, seconds: float = 240.0) -> str:
    done = subprocess.run(
        words, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=seconds, check=False,
        env={**os.environ, "PTSLINK_LAB": lab, "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()[-25:]
        raise LabError(f"{words[0]} gave {done.returncode}:\n" + "\n".join(said))
    return done.stdout


def machines(lab: str) -> set[str]:
    """The machines of *lab* that are there; none where there is no such lab."""
    listed = json.loads(_run(lab, LAB, "status", "--json"))
    return {name for one in listed if one["lab"] == lab for name in one["machines"]}


def add(lab: str, machine: str, suite: str = "bookworm") -> None:
    """Boot *machine*, and the lab with it where it is not up."""
    _run(lab, LAB, "up", f"--machine={machine}={suite}")


def provision(lab: str, machine: str, variables: Mapping[str, Any]) -> None:
    """site.yml on *machine*, with *variables* on top of what :data:`MACHINE` says."""
    _run(
        lab,
        Path(sys.executable).with_name("ansible-playbook"),
        *("-i", ROOT / "inventory" / "lab", "--limit", machine, ROOT / "site.yml"),
        *("-e", f"@{MACHINE}", "-e", json.dumps(variables)),
        seconds=SITE_SECONDS,
    )


def reboot(lab: str, machine: str) -> None:
    """Reboot *machine* from inside; back when ssh answers."""
    _run(lab, LAB, "reboot", machine)


def rebuild(lab: str, machine: str) -> None:
    """Take *lab* down, and make *machine* again as :func:`ready` makes it."""
    _run(lab, LAB, "down")
    provisioned.up(lab, [machine])
    provision(lab, machine, {})


@contextlib.contextmanager
def ready(lab: str, machine: str = "server") -> Iterator[None]:
    """A provisioned *machine* of *lab*. One that is up is taken as it is, and left up."""
    if machine in machines(lab):
        yield
        return
    had = machines(lab)
    try:
        provisioned.up(lab, [machine])
        provision(lab, machine, {})
        yield
    finally:
        if not had:
            _run(lab, LAB, "down")
