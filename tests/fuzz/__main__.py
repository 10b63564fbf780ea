"""``scripts/bench fuzz``: coverage-guided fuzzing of everything that reads bytes from outside."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from tests.fuzz.seeds import SEEDS, WORDS
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "fuzz"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
#: Seconds one input may take: what holds the event loop longer holds up every controller.
INPUT_SECONDS = 10
MAX_BYTES = 6000
#: Patterns are short: it is their repetition that is long.
PATTERN_BYTES = 60

COUNT = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
PULSE = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+)")


@dataclass
class Ran:
    """What came of one target."""

    inputs: int
    coverage: int
    findings: list[Path]


def install() -> Path:
    """The fuzzer in build/fuzz/engine, unless it is there."""
    target, stamp = BUILD / "engine", BUILD / "engine.stamp"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return target
    BUILD.mkdir(parents=True, exist_ok=True)
    log = BUILD / "pip.log"
    with log.open("w") as output:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--disable-pip-version-check"),
                *("--only-binary", ":all:", "--upgrade", "--target", target),
                *("--requirement", REQUIREMENTS),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        click.echo(f"the fuzzer could not be installed; see {log}", err=True)
        sys.exit(2)
    stamp.write_text(wanted)
    return target


def prepare(name: str) -> Path:
    """The directories of a target: what it learnt before stays, its seeds are written anew."""
    home = BUILD / name
    (home / "corpus").mkdir(parents=True, exist_ok=True)
    (home / "seeds").mkdir(exist_ok=True)
    for at, seed in enumerate(SEEDS[name]):
        (home / "seeds" / f"{at:03}").write_bytes(seed)
    (home / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS))
    return home


def _escaped(word: str) -> str:
    return "".join(c if c.isalnum() else f"\\x{ord(c):02X}" for c in word)


def fuzz(name: str, seconds: int, engine: Path, home: Path) -> Ran:
    """Run one target until its time is over or it found something."""
    before = set(home.iterdir())
    log = home / "log"
    limit = PATTERN_BYTES if name == "repetition" else MAX_BYTES
    command = [
        *("nice", "-n", "10", sys.executable, "-m", "tests.fuzz.engine", name),
        *(f"-max_total_time={seconds}", f"-timeout={INPUT_SECONDS}", f"-max_len={limit}"),
        *(f"-dict={home / 'words'}", f"-artifact_prefix={home}/", "-print_final_stats=1"),
        *(str(home / "corpus"), str(home / "seeds")),
    ]
    path = os.pathsep.join(str(part) for part in (ROOT, ROOT / "src", engine))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    inputs = coverage = 0
    shown = time.monotonic()
    with (
        log.open("w") as kept,
        subprocess.Popen(
            command,
            cwd=home,
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
            kept.write(line)
            if pulse := PULSE.match(line):
                inputs, coverage = int(pulse[1]), int(pulse[2])
            elif count := COUNT.match(line):
                inputs = int(count[1])
            if time.monotonic() - shown >= 30:
                shown = time.monotonic()
                click.echo(f"  {inputs} inputs, {coverage} edges")
    findings = [path for path in home.iterdir() if path not in before and "-" in path.name]
    if process.returncode != 0 and not findings:
        findings = [log]
    return Ran(inputs, coverage, findings)


@click.command()
@click.option(
    "--seconds", type=click.IntRange(1), default=600, show_default=True, help="For each target."
)
@click.option(
    "--target",
    "chosen",
    multiple=True,
    type=click.Choice(list(TARGETS)),
    help="Only this one; may be repeated.",
)
@click.pass_context
def main(context: click.Context, seconds: int, chosen: tuple[str, ...]) -> None:
    """Feed everything that reads bytes from outside with whatever reaches new code.

    Targets and what must hold for any bytes: tests/fuzz/targets.py. They run one after the other.
    What was learnt is kept in build/fuzz/TARGET/corpus and built upon the next time. A finding ends
    its target; it is a file that `python -m tests.fuzz.engine TARGET FILE` runs again, and belongs
    into tests/unit/fuzz/test_fuzz_cases.py once it is mended.

    Exit status: 0 nothing found, 1 something found, 2 could not start.
    """
    engine = install()
    found: dict[str, Ran] = {}
    for name in chosen or tuple(TARGETS):
        click.echo(f"{name}: {seconds} s")
        found[name] = ran = fuzz(name, seconds, engine, prepare(name))
        for finding in ran.findings:
            click.echo(f"  FOUND {finding}")
    click.echo(table(found))
    if any(ran.findings for ran in found.values()):
        context.exit(1)


def table(found: Mapping[str, Ran]) -> str:
    """The result, a line a target."""
    lines = [f"{'target':<16}{'inputs':>12}{'edges':>8}{'findings':>10}"]
    lines += [
        f"{name:<16}{ran.inputs:>12,}{ran.coverage:>8}{len(ran.findings):>10}"
        for name, ran in found.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(prog_name="scripts/bench fuzz")
