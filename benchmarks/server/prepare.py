"""What the bench needs, made in build/bench before it enters its own network namespace.

The comparators come from their registries at the versions locked in node/package-lock.json; what
cannot be had here is said and left out, and the goals that need it are then not judged.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.server.engines import HERE, Tools

UVLOOP = "uvloop==0.23.0"
CHECK_SQLITE = "const D = require('better-sqlite3'); new D(':memory:').prepare('select 1').get()"

Say = Callable[[str], None]


def prepare(directory: Path, say: Say) -> Tools:
    """Install the comparators and uvloop unless they are there already."""
    directory.mkdir(parents=True, exist_ok=True)
    modules = comparators(directory, say)
    works = node_runs(CHECK_SQLITE, directory) if modules.exists() else False
    if modules.exists() and not works:
        say("better-sqlite3 does not load here: its goals will not be judged")
    return Tools(modules, works, uvloop(directory, say))


def comparators(directory: Path, say: Say) -> Path:
    """node_modules with ws and better-sqlite3, from package-lock.json."""
    modules = directory / "node_modules"
    lock = HERE / "node" / "package-lock.json"
    stamp = directory / "node_modules.stamp"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest() + node_version()
    if modules.exists() and stamp.exists() and stamp.read_text() == wanted:
        return modules
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise SystemExit(
            "scripts/bench: needs node and npm (Debian packages nodejs and npm) for the comparators"
        )
    say("installing the comparators (ws, better-sqlite3)")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / "node" / name, directory / name)
    environment = {**os.environ, **node_headers()}
    log = directory / "npm.log"
    with log.open("w") as output:
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund"],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode == 0 and not node_runs(CHECK_SQLITE, directory):
        # Some npm configurations run no install scripts: build it by hand, as its script would.
        say("building better-sqlite3 (a minute)")
        with log.open("a") as output:
            subprocess.run(
                ["npm", "rebuild", "better-sqlite3", "--build-from-source", "--foreground-scripts"],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
    if not node_runs("require('ws')", directory):
        raise SystemExit(f"scripts/bench: npm could not install ws; its output is in {log}")
    stamp.write_text(wanted)
    return modules


def node_version() -> str:
    done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def node_headers() -> dict[str, str]:
    """Where Node's own headers are, so that a build need not fetch them."""
    node = shutil.which("node")
    prefix = Path(node).resolve().parents[1] if node else Path("/usr")
    if (prefix / "include" / "node" / "node.h").exists():
        return {"npm_config_nodedir": str(prefix)}
    return {}


def node_runs(script: str, directory: Path) -> bool:
    done = subprocess.run(
        ["node", "--eval", script], cwd=directory, capture_output=True, check=False
    )
    return done.returncode == 0


def uvloop(directory: Path, say: Say) -> Path | None:
    """A directory with uvloop for this Python, or None."""
    target = directory / "uvloop"
    if not (target / "uvloop").exists():
        say(f"installing {UVLOOP}")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet"),
                *("--disable-pip-version-check", "--no-deps", "--target", str(target), UVLOOP),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            say(f"uvloop cannot be had here, its goals will not be judged: {done.stderr.strip()}")
            return None
    return target
