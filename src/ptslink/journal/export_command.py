"""``ptslink export``: every record once, for a back office."""

from __future__ import annotations

import io
import os
import sqlite3
import stat
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

import click

from ptslink.handshake.identity import controller_id
from ptslink.journal.cursor import (
    PARTIAL,
    Cursor,
    CursorFault,
    locked,
    publish,
    read_cursor,
    sync_directory,
    write_cursor,
)
from ptslink.journal.export import Reading, csv_lines, json_lines
from ptslink.journal.reader import JournalMissing, open_reader
from ptslink.journal.records import CursorRefused
from ptslink.journal.store import NAMED_TYPES, OTHER_TYPE
from ptslink.server.config_option import config_option, load_or_exit


@click.command()
@config_option()
@click.option("--format", "form", type=click.Choice(["jsonl", "csv"]), default="jsonl")
@click.option(
    "--type", "type_", help="Only this Type, such as UploadPumpTransaction; letter case matters."
)
@click.option("--controller", help="Only this controller.")
@click.option("--variants", is_flag=True, help="Not the records: other contents under their keys.")
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
    variants: bool,
    after: int | None,
    cursor_file: Path | None,
    output: Path | None,
) -> None:
    """Export records in the order they were stored.

    With --cursor-file, each run exports what came since the last complete one. With --output as
    well, every record is in one file, once, whenever a run is interrupted: the file must have been
    taken away before the next run, and where nothing new came, none is written.

    On standard output, a run that is interrupted is repeated by the next. The cursor is written
    once all is on the disk, where standard output is a file (... > sales.jsonl). Where it is a
    pipe, the cursor is written once all is in the pipe: what the program at its other end has read
    and not yet kept when it ends, or the machine does, is not exported again. Use --output there.
    """
    if after is not None and cursor_file is not None:
        raise click.UsageError("--after and --cursor-file exclude each other")
    if controller is not None and controller_id(controller) is None:
        raise click.BadParameter("must be 1 to 24 hexadecimal digits", param_hint="--controller")
    controller = controller.upper() if controller else None
    config = load_or_exit(config_path)
    path = config.journal.path
    options: Options = {"type_": type_, "controller": controller, "variants": variants}
    options["code_page"] = config.controllers.code_page
    try:
        if type_ is not None:
            _check_type(path, type_)
        with locked(cursor_file) if cursor_file is not None else nullcontext():
            if cursor_file is None:
                _write_all(path, after or 0, form, output, options)
            else:
                _write_new(path, cursor_file, form, output, options)
    except BrokenPipeError:
        raise  # nobody reads on: click ends quietly
    except (
        *(JournalMissing, CursorRefused, CursorFault),
        *(sqlite3.Error, OSError),
    ) as error:
        raise click.ClickException(f"export failed: {error}") from error


def _check_type(path: Path, type_: str) -> None:
    """Refuse a Type that no record has or can have.

    Raises:
        click.BadParameter: it names the Types.
        JournalMissing, sqlite3.Error: the journal cannot be read.
    """
    with open_reader(path) as connection:
        stored = {name for (name,) in connection.execute("SELECT name FROM types")}
    known = sorted(NAMED_TYPES | stored - {OTHER_TYPE})
    # Types that share an entry are named by their messages alone.
    if type_ in known or (OTHER_TYPE in stored and type_.lower() not in map(str.lower, known)):
        return
    raise click.BadParameter(
        f"{type_!r} is not the Type of any record; letter case matters. Accepted are: "
        + ", ".join(known),
        param_hint="--type",
    )


Options = dict[str, str | bool | None]


def _write_all(path: Path, after: int, form: str, output: Path | None, options: Options) -> None:
    with open_reader(path) as connection:
        reading = Reading(connection, after, **options)
        if output is None:
            _write_standard(reading, form, options)
            return
        _write_partial(reading, form, output, options)
        output.with_name(output.name + PARTIAL).replace(output)
        sync_directory(output.parent)


def _write_new(
    path: Path, cursor_file: Path, form: str, output: Path | None, options: Options
) -> None:
    before = read_cursor(cursor_file)
    what = _what(options)
    if before.what not in (None, what):
        raise CursorFault(
            f"{cursor_file} is the cursor of another export ({before.what}); this one ({what})"
            " needs a file of its own"
        )
    if before.output:
        # The last run ended between its last two steps; what it wrote is what this one brings.
        brought = publish(Path(before.output))
        before.output = ""
        write_cursor(cursor_file, before)
        if brought:
            return
    if output is not None and output.exists():
        raise CursorFault(f"{output} is still there; take it away, it would be lost")
    with open_reader(path) as connection:
        reading = Reading(connection, before.cursor, journal=before.journal, **options)
        if output is None:
            _write_standard(reading, form, options)
            count = 0
        else:
            count = _write_partial(reading, form, output, options)
    cursor = Cursor(reading.next, reading.journal, what)
    if output is None or not count:
        if output is not None:
            output.with_name(output.name + PARTIAL).unlink(missing_ok=True)
        if cursor != before:
            write_cursor(cursor_file, cursor)
        return
    cursor.output = str(output.resolve())
    write_cursor(cursor_file, cursor)
    publish(output)
    cursor.output = ""
    write_cursor(cursor_file, cursor)


def _what(options: Options) -> str:
    """What is exported, in words."""
    words = ["variants" if options["variants"] else "records"]
    words += [f"of {options[name]}" for name in ("type_", "controller") if options[name]]
    return " ".join(words)


def _write_standard(reading: Reading, form: str, options: Options) -> None:
    """Write to standard output; to the disk, where that is a file."""
    # UTF-8 whatever the locale: a name that it lacks must not end an export.
    handle = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", errors="replace", newline="")
    try:
        _write(reading, form, handle, options)
    finally:
        binary = handle.detach()
    try:
        descriptor = binary.fileno()
    except OSError:  # io.UnsupportedOperation: it is in memory
        return
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fsync(descriptor)


def _write_partial(reading: Reading, form: str, output: Path, options: Options) -> int:
    partial = output.with_name(output.name + PARTIAL)
    with partial.open("w", encoding="utf-8", errors="replace", newline="") as handle:
        count = _write(reading, form, handle, options)
        os.fsync(handle.fileno())
    sync_directory(partial.parent)
    return count


def _write(reading: Reading, form: str, handle: TextIO, options: Options) -> int:
    """Write all of it. Returns how many lines came, the header aside."""
    header = int(form == "csv")
    type_ = options["type_"]
    lines = (
        csv_lines(
            reading,
            type_ if isinstance(type_, str) else None,
            variants=bool(options["variants"]),
        )
        if header
        else json_lines(reading)
    )
    count = 0
    for line in lines:
        handle.write(line)
        count += 1
    handle.flush()
    return count - header
