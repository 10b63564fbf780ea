"""``ptslink serve`` and ``ptslink check-config``."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click

from ptslink.server.config import Config, ConfigError, load

_config = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="The TOML file, /etc/ptslink/ptslink.toml on a provisioned server.",
)


def load_or_exit(path: Path) -> Config:
    """The configuration, or exit 2 with every mistake on standard error."""
    try:
        return load(path)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from error


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the configured event loop; None is asyncio's own way."""
    if name != "uvloop":
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    return factory


@click.command()
@_config
def serve(config_path: Path) -> None:
    """Serve controllers until SIGTERM.

    SIGHUP reads certificates, allow-list, users and secret again. SIGTERM and SIGINT stop
    accepting, close every controller with 1012 and end with 0. Exit 1: an address or the journal
    cannot be had. Exit 2: the configuration is wrong.
    """
    config = load_or_exit(config_path)
    from ptslink.journal.schema import JournalRefused
    from ptslink.server.listeners import ListenError
    from ptslink.server.service import run
    from ptslink.server.tls import CertificateError

    try:
        with asyncio.Runner(loop_factory=loop_factory(config.listen.event_loop)) as runner:
            runner.run(run(config, config_path))
    except (ListenError, CertificateError) as error:
        raise click.ClickException(str(error)) from error
    except (sqlite3.Error, OSError, JournalRefused) as error:
        raise click.ClickException(f"journal {config.journal.path}: {error}") from error


@click.command("check-config")
@_config
def check_config(config_path: Path) -> None:
    """Check a configuration file.

    Exit 0: it can be used. Exit 2: each mistake is named with its key, its value and what is
    accepted.
    """
    config = load_or_exit(config_path)
    if config.tls.port:
        from ptslink.server.tls import CertificateError, make_context

        try:
            make_context(config.tls)
        except CertificateError as error:
            click.echo(f"{config_path}: tls: {error}", err=True)
            raise SystemExit(2) from error
    click.echo(
        f"{config_path}: good; the link will be at port {config.listen.port},"
        f" path /{config.listen.path}"
    )
