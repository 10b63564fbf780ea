"""``ptslink journal``: looking into the durable record."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import click

from ptslink.journal.reader import JournalMissing, open_reader, summary
from ptslink.server.config import Config, ConfigError, load


@click.group()
def journal() -> None:
    """Look into the durable record; works beside the running server."""


@journal.command("summary")
@click.option("--config", "config_path", type=click.Path(path_type=Path), required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def summary_command(config_path: Path, as_json: bool) -> None:
    """Count what the journal holds."""
    path = configured(config_path).journal.path
    try:
        with open_reader(path) as connection:
            found = summary(connection)
    except (JournalMissing, sqlite3.Error) as error:
        raise click.ClickException(f"cannot read the journal: {error}") from error
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"journal      {path}")
    click.echo(f"messages     {found['messages']}")
    click.echo(f"controllers  {len(found['controllers'])}")
    for controller in found["controllers"]:
        click.echo(f"             {controller}")
    click.echo("records")
    for name, count in found["records"].items():
        click.echo(f"  {name:<28} {count}")


def configured(config_path: Path) -> Config:
    """The configuration; ends the command with exit 2 if it is invalid."""
    try:
        return load(config_path)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from error
