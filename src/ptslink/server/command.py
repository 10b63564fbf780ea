"""``ptslink serve`` and ``ptslink check-config``."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click

from ptslink.escape import visible
from ptslink.server.config_option import config_option, load_or_exit


class _Indented(logging.Formatter):
    """A report whose further lines are indented, so that none can be taken for another report."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record), keep="\n").replace("\n", "\n  ")


def report_on_stderr() -> None:
    """Put what goes wrong in this process on standard error, an exception nobody caught included.

    What is in it may be a peer's, and the journal of systemd makes an entry of each line.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_Indented("%(levelname)s: %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    log = logging.getLogger("ptslink")

    sys.excepthook = lambda _type, error, _frames: log.critical("failed", exc_info=error)

    def thread_failed(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread else "?"
        log.critical("thread %s failed", name, exc_info=failed.exc_value)

    threading.excepthook = thread_failed


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the configured event loop; None is asyncio's own way."""
    if name != "uvloop":
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    return factory


@click.command()
@config_option()
def serve(config_path: Path) -> None:
    """Serve controllers until SIGTERM.

    SIGHUP reads certificates, allow-list, users and secret again. SIGTERM and SIGINT stop
    accepting, close every controller with 1012 and end with 0. Exit 1: an address or the journal
    cannot be had. Exit 2: the configuration is wrong.
    """
    config = load_or_exit(config_path)
    report_on_stderr()
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
@config_option()
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
            click.echo(visible(f"{config_path}: tls: {error}"), err=True)
            raise SystemExit(2) from error
    click.echo(
        f"{config_path}: good; the link will be at port {config.listen.port},"
        f" path /{config.listen.path}"
    )
