"""Machines that site.yml has provisioned already, every variable at its default.

    provisioned.py LAB MACHINE...        raise them
    provisioned.py --take LAB MACHINE    keep this one for others to begin from

They begin from a snapshot that is used only while nothing that went into it has changed: plays,
roles and the server's source of this checkout, and the root file system. Where there is none yet,
the first machine is provisioned here, which takes a minute, and kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAB = ROOT / "scripts" / "lab"
NAME = "provisioned"
#: What decides what site.yml makes of a machine.
OF = (
    "ansible.cfg", "site.yml", "playbooks", "roles", "templates", "requirements", "src",
    "pyproject.toml", "README.md", "LICENSE", "tests/support/provisioned.py",
)  # fmt: skip


def _run(lab: str, *command: str | Path) -> None:
    subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PTSLINK_LAB": lab},
        stdin=subprocess.DEVNULL,
        check=True,
    )


def take(lab: str, machine: str) -> None:
    """Keep `machine` of `lab`, which site.yml has just provisioned, unless one is kept already."""
    _run(lab, LAB, "snapshot", machine, NAME, *(f"--of={path}" for path in OF))


def up(lab: str, machines: Sequence[str]) -> None:
    """Raise Debian 12 machines that are provisioned; raises CalledProcessError if that fails."""
    asked = [f"--machine={machine}=bookworm" for machine in machines]
    begin = [f"--from={NAME}", *(f"--of={path}" for path in OF)]
    there = subprocess.run(
        [LAB, "up", *asked, *begin],
        cwd=ROOT,
        env={**os.environ, "PTSLINK_LAB": lab},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    sys.stderr.write(there.stderr)
    if there.returncode == 0:
        return
    if "no snapshot" not in there.stderr:
        there.check_returncode()
    _run(lab, LAB, "up", asked[0])
    playbook = Path(sys.executable).with_name("ansible-playbook")
    _run(lab, playbook, "--inventory=inventory/lab", f"--limit={machines[0]}", "site.yml")
    take(lab, machines[0])
    _run(lab, LAB, "up", *asked, *begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--take", action="store_true", help="keep a machine instead")
    parser.add_argument("lab")
    parser.add_argument("machine", nargs="+")
    chosen = parser.parse_args()
    if chosen.take:
        take(chosen.lab, chosen.machine[0])
    else:
        up(chosen.lab, chosen.machine)


if __name__ == "__main__":
    main()
