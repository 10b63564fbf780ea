"""``scripts/bench autobahn``: the Autobahn TestSuite, sections 1 to 10, against our own frames."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import click
from benchmarks import namespace
from tests.conformance.results import describe, markdown, read_index, replace_block

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "autobahn"
DOCUMENT = ROOT / "docs" / "conformance.md"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
AGENT = "ptslink"
PORT = 9001

#: The suite is Python 2 alone. A --target directory is enough for it: no virtualenv needed.
RUN_SUITE = (
    "import site, sys; site.addsitedir(sys.argv[1]); sys.argv = ['wstest'] + sys.argv[2:];"
    " from autobahntestsuite.wstest import run; run()"
)
CASE = re.compile(r"Running test case ID (?P<number>[\d.]+)")


def python27() -> Path | None:
    """A CPython 2.7 with pip that works: $PYTHON27, pyenv's, or one on the path."""
    candidates = [os.environ.get("PYTHON27", "")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += [str(path) for path in sorted(pyenv.glob("versions/2.7*/bin/python"))]
    candidates += [shutil.which("python2.7") or "", shutil.which("python2") or ""]
    for candidate in filter(None, candidates):
        try:
            done = subprocess.run(
                [candidate, "-c", "import pip, sys; assert sys.version_info[:2] == (2, 7)"],
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if done.returncode == 0:
            return Path(candidate)
    return None


def install(python: Path) -> Path:
    """The suite in build/autobahn/suite, unless it is there."""
    target, stamp = BUILD / "suite", BUILD / "suite.stamp"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if target.exists() and stamp.exists() and stamp.read_text() == wanted:
        return target
    click.echo("installing the Autobahn TestSuite (half a minute)")
    shutil.rmtree(target, ignore_errors=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    log = BUILD / "pip.log"
    with log.open("w") as output:
        done = subprocess.run(
            [
                *(python, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"),
                *("--target", target, "--requirement", REQUIREMENTS),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise click.ClickException(f"the suite could not be installed; see {log}")
    stamp.write_text(wanted)
    return target


@contextmanager
def echo_server() -> Iterator[None]:
    """The server's connection code, echoing, on `PORT`; stopped by its own pid."""
    log = BUILD / "echo.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.echo", str(PORT)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                    break
            if process.poll() is not None:
                raise click.ClickException(f"the echo server ended at once:\n{log.read_text()}")
            time.sleep(0.05)
        yield
        if process.poll() is not None:
            raise click.ClickException(f"the echo server ended by itself:\n{log.read_text()}")
    finally:
        process.terminate()
        process.wait()


def run_suite(python: Path, suite: Path, cases: list[str]) -> Path:
    """Run the cases; returns the index the suite wrote."""
    reports = BUILD / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    specification = {
        "outdir": str(reports),
        "servers": [{"agent": AGENT, "url": f"ws://127.0.0.1:{PORT}"}],
        "cases": cases,
        "exclude-cases": ["12.*", "13.*"],
        "exclude-agent-cases": {},
    }
    written = BUILD / "fuzzingclient.json"
    written.write_text(json.dumps(specification, indent=1))
    command: list[str | Path] = [
        python,
        "-c",
        RUN_SUITE,
        suite,
        *("-m", "fuzzingclient", "-s", written),
    ]
    log = BUILD / "wstest.log"
    section, started = "", time.monotonic()
    with (
        log.open("w") as kept,
        subprocess.Popen(
            command,
            cwd=BUILD,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            kept.write(line)
            if found := CASE.search(line):
                new = found["number"].partition(".")[0]
                if new != section:
                    section = new
                    click.echo(f"[{time.monotonic() - started:4.0f}s] section {section}")
    index = reports / "index.json"
    if process.returncode != 0 or not index.exists():
        raise click.ClickException(f"the suite ended with {process.returncode}; see {log}")
    return index


@click.command()
@click.option(
    "--case",
    "cases",
    multiple=True,
    default=["*"],
    show_default=True,
    help="Cases to run, such as 7.1.*; may be repeated.",
)
@click.option(
    "--write/--no-write",
    default=None,
    help="Put the results into docs/conformance.md; default for a whole run.",
)
@click.pass_context
def main(context: click.Context, cases: tuple[str, ...], write: bool | None) -> None:
    """Run the Autobahn TestSuite, sections 1 to 10, against the server's connection code.

    Sections 12 and 13 are compression, which is never negotiated. The suite needs a CPython 2.7
    with pip ($PYTHON27, pyenv's, or python2.7 on the path); where there is none this says so and
    skips. Reports of every case: build/autobahn/reports/index.html.

    Exit status: 0 every case OK or informational, or skipped; 1 some are not; 2 could not start.
    """
    python = python27()
    if python is None:
        click.echo("SKIPPED: the Autobahn TestSuite needs CPython 2.7 and there is none here")
        return
    suite = install(python)
    if not namespace.inside():
        context.exit(namespace.enter("tests.conformance", sys.argv[1:]))
    namespace.settle()
    with echo_server():
        index = run_suite(python, suite, list(cases))
    seen = read_index(json.loads(index.read_text()), AGENT)
    refused = [case for case in seen if not case.accepted]
    for case in refused:
        click.echo(f"not accepted: {describe(case)}")
    click.echo(f"{len(seen)} cases, {len(seen) - len(refused)} accepted, {len(refused)} not")
    if write or (write is None and cases == ("*",)):
        versions = {
            "ptslink": version("ptslink"),
            "websockets": version("websockets"),
            "Autobahn TestSuite": suite_version(),
        }
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        block = markdown(seen, versions, today)
        DOCUMENT.write_text(replace_block(DOCUMENT.read_text(), block))
        click.echo(f"Results written to {DOCUMENT.relative_to(ROOT)}")
    if refused:
        context.exit(1)


def suite_version() -> str:
    line = next(
        line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("autobahntests")
    )
    return line.partition("==")[2]


if __name__ == "__main__":
    main(prog_name="scripts/bench autobahn")
