"""``ptslink logs``: reading the log files without knowing where they are."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from ptslink.journal.logfiles import parse_name
from ptslink.server.config import ConfigError, load

#: Sentences of the troubleshooting guide and what `summary` counts them as.
_SIGNS = (
    ("connection established successfully", "connections accepted"),
    ("refused with", "connections refused"),
    ("brought no request", "connections without a request"),
    ("Close code 1006 (abnormal closure)", "links lost (1006)"),
    ("Rate limiting", "strangers turned away"),
)


@click.group()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("/etc/ptslink/ptslink.toml"),
    show_default=True,
)
@click.pass_context
def logs(context: click.Context, config_path: Path) -> None:
    """Read the log files: one type a file, one day a file, one line an event.

    Connection, ConnectionIssue, Disconnection, ShortConnection and Server tell about links; the
    types named like packets (UploadPumpTransaction, ...) tell what was received.
    """
    try:
        directory = load(config_path).logs.directory
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from error
    if directory is None or not directory.is_dir():
        raise click.ClickException(f"no log directory: {directory or 'logs.directory is empty'}")
    context.obj = directory


@logs.command("list")
@click.pass_obj
def list_command(directory: Path) -> None:
    """List the files: type, day, size."""
    for type_, day, path in files(directory):
        click.echo(f"{day}  {path.stat().st_size:>12,}  {type_}")


@logs.command("summary")
@click.pass_obj
def summary_command(directory: Path) -> None:
    """Count lines by type, and the signs of trouble."""
    lines: Counter[str] = Counter()
    signs: Counter[str] = Counter()
    for type_, _, path in files(directory):
        for line in read_lines(path):
            lines[type_] += 1
            if type_ == "ShortConnection":
                continue
            for words, name in _SIGNS:
                if words in line:
                    signs[name] += 1
    for type_, count in sorted(lines.items()):
        click.echo(f"{count:>10}  {type_}")
    click.echo()
    for _, name in _SIGNS:
        click.echo(f"{signs[name]:>10}  {name}")


@logs.command("view")
@click.argument("type_", metavar="TYPE")
@click.option("-n", "--lines", "count", default=50, show_default=True, help="How many, the newest.")
@click.pass_obj
def view_command(directory: Path, type_: str, count: int) -> None:
    """Show the newest lines of TYPE, over midnight too."""
    found: list[str] = []
    known = set()
    for name, _, path in reversed(list(files(directory))):
        known.add(name)
        if name.lower() == type_.lower() and len(found) < count:
            found = [*read_lines(path), *found]
    if type_.lower() not in {name.lower() for name in known}:
        names = ", ".join(sorted(known)) or "none yet"
        raise click.ClickException(f"no log of type {type_!r}; there are: {names}")
    for line in found[-count:] if count > 0 else []:
        click.echo(line)


@logs.command("search")
@click.argument("term")
@click.pass_obj
def search_command(directory: Path, term: str) -> None:
    """Show every line that contains TERM (letter case does not matter). Exit 1: none does."""
    pattern = re.compile(re.escape(term), re.IGNORECASE)
    hits = 0
    for type_, _, path in files(directory):
        for line in read_lines(path):
            if pattern.search(line):
                hits += 1
                click.echo(f"{type_}: {line}")
    raise SystemExit(0 if hits else 1)


@logs.command("follow")
@click.option("--seconds", type=float, help="Stop after this time; by default, at Ctrl-C.")
@click.pass_obj
def follow_command(directory: Path, seconds: float | None) -> None:
    """Show new lines of every type as they come."""
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
                for line in whole.decode("utf-8", "replace").splitlines():
                    click.echo(f"{type_}: {line}")
        time.sleep(0.2)


def files(directory: Path) -> Iterator[tuple[str, str, Path]]:
    """(type, day, path) of every log file, oldest day first."""
    named = [(name, path) for path in directory.iterdir() if (name := parse_name(path.name))]
    for (type_, day), path in sorted(named, key=lambda item: (item[0][1], item[0][0])):
        yield type_, day, path


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file, one at a time, without their ends."""
    with path.open("r", encoding="utf-8", errors="replace") as handle:
        for line in handle:
            yield line.rstrip("\n")
