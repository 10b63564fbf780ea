"""``ptslink export``: every record once, for a back office."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from ptslink.handshake.identity import controller_id
from ptslink.journal.command import journal_path
from ptslink.journal.export import all_records, csv_lines, json_lines
from ptslink.journal.reader import JournalMissing, open_reader


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("/etc/ptslink/ptslink.toml"),
    show_default=True,
)
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl")
@click.option("--type", "type_", help="Only this Type, such as UploadPumpTransaction.")
@click.option("--controller", help="Only this controller.")
@click.option("--after", type=click.IntRange(min=0), help="Only records after this cursor.")
@click.option(
    "--cursor-file",
    type=click.Path(path_type=Path),
    help="Go on after the cursor in this file, and leave the new one there when all is written.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write this file, complete or not at all; by default, standard output.",
)
def export(
    config_path: Path,
    form: str,
    type_: str | None,
    controller: str | None,
    after: int | None,
    cursor_file: Path | None,
    output: Path | None,
) -> None:
    """Export records in the order they were stored.

    With --cursor-file, each run exports what came since the last complete one: every record once.
    """
    if after is not None and cursor_file is not None:
        raise click.UsageError("--after and --cursor-file exclude each other")
    if controller is not None and controller_id(controller) is None:
        raise click.BadParameter("must be 1 to 24 hexadecimal digits", param_hint="--controller")
    start = after or (_read_cursor(cursor_file) if cursor_file is not None else 0)
    last = start
    partial = output.with_name(output.name + ".part") if output is not None else None
    try:
        with open_reader(journal_path(config_path)) as connection:
            records = all_records(
                connection,
                after=start,
                type_=type_,
                controller=controller.upper() if controller else None,
            )
            lines = csv_lines(records, type_) if form == "csv" else json_lines(records)
            if partial is not None and output is not None:
                with partial.open("w", encoding="utf-8", newline="") as handle:
                    last = _write(lines, handle, last)
                    os.fsync(handle.fileno())
                partial.replace(output)
            else:
                last = _write(lines, sys.stdout, last)
    except (JournalMissing, sqlite3.Error, OSError) as error:
        raise click.ClickException(f"export failed: {error}") from error
    if cursor_file is not None:
        fresh = cursor_file.with_name(cursor_file.name + ".part")
        fresh.write_text(f"{last}\n")
        fresh.replace(cursor_file)


def _write(lines: Iterator[tuple[int, str]], handle: TextIO, last: int) -> int:
    for cursor, line in lines:
        handle.write(line)
        last = max(last, cursor)
    handle.flush()
    return last


def _read_cursor(path: Path) -> int:
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return 0
    if not text.isdigit():
        raise click.ClickException(f"{path} does not hold a cursor: {text[:40]!r}")
    return int(text)
