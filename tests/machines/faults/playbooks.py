"""diagnose.yml and capture.yml against the machine of a bench, with a site that is looked from."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machines.faults.bench import ROOT, Bench
from machines.faults.lab import MACHINE

#: The controllers' network as a host that Ansible reaches: its shell runs there.
_SITE = """\
site_probes:
  hosts:
    station-12-office:
      ansible_connection: local
      ansible_python_interpreter: {python}
      ansible_shell_executable: {shell}
"""
#: An ssh that reaches nobody, in the room of a run.
NO_SSH = "no-ssh"
SECONDS = 600.0


@dataclass(frozen=True)
class Ran:
    """How a playbook ended, and what it said."""

    status: int
    said: str


def playbook(bench: Bench, name: str, room: Path, **variables: Any) -> Ran:
    """Run playbooks/*name* with *variables*; *room* is a directory for what it is given."""
    shell = room / "at-the-site"
    shell.write_text(f'#!/bin/sh\nexec ip netns exec {bench.names["controller_ns"]} /bin/sh "$@"\n')
    shell.chmod(0o755)
    no_ssh = room / NO_SSH
    no_ssh.write_text("#!/bin/sh\nexit 255\n")
    no_ssh.chmod(0o755)
    sites = room / "sites.yml"
    sites.write_text(_SITE.format(python=sys.executable, shell=shell))
    words = ["-i", str(sites), "--limit", f"{bench.machine},site_probes"]
    words += [str(ROOT / "playbooks" / name)]
    for key, value in variables.items():
        words += ["-e", f"{key}={value}"]
    return _ansible(bench, words)


def provisioned_by(bench: Bench, command: Sequence[str]) -> Ran:
    """Run the ansible-playbook that a fix prints, with the lab as its INVENTORY."""
    words = [word for word in command[1:] if word not in ("-i", "INVENTORY")]
    return _ansible(bench, ["--limit", bench.machine, *words])


def _ansible(bench: Bench, words: Sequence[str]) -> Ran:
    lab = ["-i", str(ROOT / "inventory" / "lab"), "-e", f"@{MACHINE}"]
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), *lab, *words],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
        check=False, env={**os.environ, "PTSLINK_LAB": bench.lab, "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    return Ran(done.returncode, done.stdout + done.stderr)
