"""Every molecule scenario holds: each is one promise, kept on a machine that really boots.

Scenarios have labs of their own and do not disturb each other, so two run side by side: while one
is waited for, the next is under way.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
LOGS = ROOT / "build" / "scenarios"
SIDE_BY_SIDE = 2

# What molecule says when it starts a step of a scenario.
STEP = re.compile(r"\[(?P<scenario>[\w-]+) > (?P<step>[\w-]+)\] Executing$")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Run:
    """One scenario under way, and what it has said so far."""

    scenario: str
    #: (seconds since its start, step begun)
    steps: list[tuple[float, str]] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return LOGS / f"{self.scenario}.log"

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
                [sys.executable, "-m", "molecule", "test", "--scenario-name", self.scenario],
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
                    self.steps.append((time.monotonic() - started, step["step"]))
        return process.returncode


@pytest.fixture(scope="module")
def under_way(request: pytest.FixtureRequest) -> Iterator[dict[str, tuple[Run, Future[int]]]]:
    """Every scenario that was asked for, started in order, a few at a time."""
    LOGS.mkdir(parents=True, exist_ok=True)
    asked = [
        str(item.callspec.params["scenario"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_scenario_holds"
    ]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        runs = [Run(scenario) for scenario in asked]
        yield {run.scenario: (run, pool.submit(run.run)) for run in runs}
        pool.shutdown(cancel_futures=True)


def test_there_are_scenarios() -> None:
    assert SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_holds(
    scenario: str,
    under_way: dict[str, tuple[Run, Future[int]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, status = under_way[scenario]
    shown = 0
    while not status.done() or shown < len(run.steps):
        for seconds, step in run.steps[shown:]:
            shown += 1
            with capsys.disabled():
                print(f"\n  [{seconds:4.0f}s] {scenario}: {step}", end="", flush=True)
        time.sleep(0.2)
    if status.result() != 0:
        tail = "".join(run.log.read_text().splitlines(keepends=True)[-80:])
        pytest.fail(
            f"molecule exit {status.result()}; whole log in {run.log}\n{tail}", pytrace=False
        )
