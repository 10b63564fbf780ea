"""``ptslink logs``: reading the log files without knowing where they are."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from ptslink.escape import visible
from ptslink.journal.logfiles import parse_name
from ptslink.server.config_option import config_option, load_or_exit

#: How a line of a type begins behind its time, and what `summary` counts it as. What a peer wrote
#: comes later in a line, and may hold any sentence.
_SIGNS: Final = (
    ("Connection", re.compile(r"Verifying WebSocket client "), "connections accepted"),
    ("ConnectionIssue", re.compile(r"Verifying WebSocket client "), "connections refused"),
    ("ConnectionIssue", re.compile(r"Connection from "), "connections without a request"),
    (
        "Disconnection",
        re.compile(
            r"PTS Controller (?:[0-9A-F]+|\(no id\)) disconnected after [\d.]+ s, \d+ messages: "
            r"Close code 1006 \(abnormal closure\)"
        ),
        "links lost (1006)",
    ),
    ("ConnectionIssue", re.compile(r"Rate limiting "), "strangers turned away"),
)


@click.group()
@config_option(of_group=True)
def logs() -> None:
    """Read the log files: one type a file, one day a file, one line an event.

    Connection, ConnectionIssue, Disconnection, ShortConnection and Server tell about links; the
    types named like packets (UploadPumpTransaction, ...) tell what was received.
    """


def _directory(config_path: Path) -> Path:
    directory = load_or_exit(config_path).logs.directory
    if directory is None or not directory.is_dir():
        raise click.ClickException(f"no log directory: {directory or 'logs.directory is empty'}")
    return directory


@logs.command("list")
@config_option()
def list_command(config_path: Path) -> None:
    """List the files: type, day, size."""
    for type_, day, path in files(_directory(config_path)):
        click.echo(f"{day}  {path.stat().st_size:>12,}  {type_}")


@logs.command("summary")
@config_option()
def summary_command(config_path: Path) -> None:
    """Count lines by type, and the signs of trouble."""
    lines: Counter[str] = Counter()
    signs: Counter[str] = Counter()
    for type_, _, path in files(_directory(config_path)):
        told = [(begins, name) for of, begins, name in _SIGNS if of == type_]
        for line in read_lines(path):
            lines[type_] += 1
            at = line.find(" ") + 1
            signs.update(name for begins, name in told if begins.match(line, at))
    for type_, count in sorted(lines.items()):
        click.echo(f"{count:>10}  {type_}")
    click.echo()
    for _, _, name in _SIGNS:
        click.echo(f"{signs[name]:>10}  {name}")


@logs.command("view")
@click.argument("type_", metavar="TYPE")
@click.option("-n", "--lines", "count", default=50, show_default=True, help="How many, the newest.")
@config_option()
def view_command(config_path: Path, type_: str, count: int) -> None:
    """Show the newest lines of TYPE, over midnight too."""
    found: list[str] = []
    known = set()
    for name, _, path in reversed(list(files(_directory(config_path)))):
        known.add(name)
        if name.lower() == type_.lower() and len(found) < count:
            found = [*read_lines(path), *found]
    if type_.lower() not in {name.lower() for name in known}:
        names = ", ".join(sorted(known)) or "none yet"
        raise click.ClickException(f"no log of type {type_!r}; there are: {names}")
    for line in found[-count:] if count > 0 else []:
        click.echo(visible(line))


@logs.command("search")
@click.argument("term")
@config_option()
def search_command(config_path: Path, term: str) -> None:
    """Show every line that contains TERM (letter case does not matter). Exit 1: none does."""
    pattern = re.compile(re.escape(term), re.IGNORECASE)
    hits = 0
    for type_, _, path in files(_directory(config_path)):
        for line in read_lines(path):
            if pattern.search(line):
                hits += 1
                click.echo(visible(f"{type_}: {line}"))
    raise SystemExit(0 if hits else 1)


@logs.command("follow")
@click.option("--seconds", type=float, help="Stop after this time; by default, at Ctrl-C.")
@config_option()
def follow_command(config_path: Path, seconds: float | None) -> None:
    """Show new lines of every type as they come."""
    directory = _directory(config_path)
    ends = None if seconds is None else time.monotonic() + seconds
    places = {path: path.stat().st_size for _, _, path in files(directory)}
    while ends is None or time.monotonic() < ends:
        for type_, _, path in files(directory):
            # It may go by age or size at any moment.
            with contextlib.suppress(FileNotFoundError), path.open("rb") as handle:
                place = handle.seek(places.get(path, 0))
                fresh = handle.read()
                whole = fresh[: fresh.rfind(b"\n") + 1]
                places[path] = place + len(whole)
                for line in whole.decode("utf-8", "replace").split("\n")[:-1]:
                    click.echo(visible(f"{type_}: {line}"))
        time.sleep(0.2)


def files(directory: Path) -> Iterator[tuple[str, str, Path]]:
    """(type, day, path) of every log file, oldest day first."""
    named = [(name, path) for path in directory.iterdir() if (name := parse_name(path.name))]
    for (type_, day), path in sorted(named, key=lambda item: (item[0][1], item[0][0])):
        yield type_, day, path


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file, one at a time, without their ends."""
    with path.open("r", encoding="utf-8", errors="replace", newline="\n") as handle:
        for line in handle:
            yield line.rstrip("\n")
