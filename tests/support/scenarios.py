"""Molecule's scenarios, each a process whose steps are told as they begin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOGS = ROOT / "build" / "scenarios"
#: The descriptor scripts/test gives for lines of progress.
PROGRESS = int(os.environ["PTSLINK_PROGRESS"]) if "PTSLINK_PROGRESS" in os.environ else None
SIDE_BY_SIDE = 2
#: What takes longest begins first, and `default` before all: others begin from what it leaves.
LONGEST_FIRST = (
    "default", "first_run", "firewalld", "interrupted", "rollback", "upgrade",
    "field", "airgap", "acme",
)  # fmt: skip

# What molecule says when it starts a step of a scenario.
STEP = re.compile(r"\[(?P<scenario>[\w-]+) > (?P<step>[\w-]+)\] Executing$")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Scenario:
    """One scenario under way."""

    name: str
    #: Seconds it took, once it has ended.
    seconds: float = field(default=0.0, init=False)

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    def run(self) -> int:
        """Run it to its end; the exit status of molecule."""
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
        }
        started = time.monotonic()
        with (
            self.log.open("w") as kept,
            subprocess.Popen(
                [sys.executable, "-m", "molecule", "test", "--scenario-name", self.name],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                plain = COLOUR.sub("", line)
                kept.write(plain)
                kept.flush()
                if (step := STEP.search(plain)) is not None:
                    self._say(f"[{time.monotonic() - started:4.0f}s] {self.name}: {step['step']}")
        self.seconds = time.monotonic() - started
        self._say(f"[{self.seconds:4.0f}s] {self.name}: ended, exit {process.returncode}")
        return process.returncode

    def _say(self, line: str) -> None:
        """A line of progress, past what pytest captures of the test that is run meanwhile."""
        if PROGRESS is not None:
            os.write(PROGRESS, f"\n  {line}".encode())
