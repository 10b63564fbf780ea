"""One suite of tests, several times, and how often each of them failed.

    repeat.py N PYTEST_ARGUMENT...

Exit status 0 where every run passed, 1 where one did not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path


def failed_in(report: Path) -> list[str]:
    """The tests that failed in a JUnit report of pytest, setting up and clearing up included."""
    if not report.exists():
        return ["(pytest itself: no report)"]
    return [
        f"{case.get('classname')}::{case.get('name')}"
        for case in ElementTree.parse(report).iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]


def tell(runs: int, bad: int, failures: Counter[str]) -> str:
    """What a person reads at the end."""
    lines = [f"{runs} runs, {runs - bad} passed, {bad} did not"]
    lines += [f"  {count:>3} of {runs}  {name}" for name, count in failures.most_common()]
    return "\n".join(lines)


def main(count: str, *arguments: str) -> int:
    if not count.isdecimal() or not int(count):
        print(f"--repeat {count}: how many times is a whole number from 1", file=sys.stderr)
        return 2
    failures: Counter[str] = Counter()
    bad = 0
    with tempfile.TemporaryDirectory(prefix="ptslink-repeat-") as directory:
        for number in range(1, int(count) + 1):
            report = Path(directory, f"{number}.xml")
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "pytest", f"--junit-xml={report}", *arguments], check=False
            )
            if done.returncode not in (0, 1):
                return 2
            bad += done.returncode
            failures.update(failed_in(report))
            seconds = time.monotonic() - began
            print(f"[run {number} of {count}: {seconds:.0f} s]", flush=True)
    print(tell(int(count), bad, failures))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
