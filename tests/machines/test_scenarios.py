"""Every molecule scenario holds: each is one promise, kept on a machine that really boots."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
LOGS = ROOT / "build" / "scenarios"

# What molecule says when it starts a step of a scenario.
STEP = re.compile(r"(?P<scenario>[\w-]+) ➜ (?P<step>[\w-]+): (?:Executing|Starting)")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def test_there_are_scenarios() -> None:
    assert SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_holds(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{scenario}.log"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    started = time.monotonic()
    with (
        log.open("w") as kept,
        subprocess.Popen(
            [sys.executable, "-m", "molecule", "test", "--scenario-name", scenario],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as run,
    ):
        assert run.stdout is not None
        for line in run.stdout:
            plain = COLOUR.sub("", line)
            kept.write(plain)
            step = STEP.search(plain)
            if step is not None:
                with capsys.disabled():
                    elapsed = time.monotonic() - started
                    print(f"\n  [{elapsed:4.0f}s] {scenario}: {step['step']}", end="", flush=True)
    if run.returncode != 0:
        tail = "".join(log.read_text().splitlines(keepends=True)[-80:])
        pytest.fail(f"molecule exit {run.returncode}; whole log in {log}\n{tail}", pytrace=False)
