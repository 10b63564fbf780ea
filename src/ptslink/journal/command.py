"""``ptslink journal``: looking into the durable record."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click

from ptslink.escape import visible
from ptslink.journal.reader import JournalMissing, open_reader, summary
from ptslink.server.config_option import config_option, load_or_exit

#: Types are listed up to this many, the most frequent first: anybody may invent one.
MOST_TYPES: Final = 50


@click.group()
@config_option(of_group=True)
def journal() -> None:
    """Look into the durable record; works beside the running server."""


@journal.command("summary")
@config_option()
@click.option("--ids", is_flag=True, help="Name every controller.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def summary_command(config_path: Path, ids: bool, as_json: bool) -> None:
    """Count what the journal holds."""
    path = load_or_exit(config_path).journal.path
    try:
        with open_reader(path) as connection:
            found = summary(connection)
    except (JournalMissing, sqlite3.Error) as error:
        raise click.ClickException(f"cannot read the journal: {error}") from error
    if as_json:
        controllers = found.pop("controllers")
        found |= {"controllers": len(controllers)} | ({"ids": controllers} if ids else {})
        click.echo(visible(json.dumps(found)))
        return
    for line in _lines(path, found, ids):
        click.echo(visible(line))


def _lines(path: Path, found: Mapping[str, Any], ids: bool) -> Iterator[str]:
    controllers = found["controllers"]
    yield f"journal      {path}"
    yield f"messages     {found['messages']}"
    yield f"controllers  {len(controllers)}" + ("" if ids else " (--ids names them)")
    if ids:
        yield from (f"             {controller}" for controller in controllers)
    yield "records"
    yield from _counted(found["records"])
    if found["others"]:
        yield "kept with their messages, no records"
        yield from _counted(found["others"])


def _counted(counts: Mapping[str, int]) -> Iterator[str]:
    frequent = sorted(counts, key=lambda name: -counts[name])[:MOST_TYPES]
    yield from (f"  {name:<28} {counts[name]}" for name in sorted(frequent))
    if len(counts) > MOST_TYPES:
        yield f"  and {len(counts) - MOST_TYPES} more Types (--json has all)"
