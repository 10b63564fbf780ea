"""``--config``: at the same place and with the same default for every command that has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ptslink.escape import visible
from ptslink.server.config import Config, ConfigError, load

#: Where a provisioned server has it.
DEFAULT: Final = Path("/etc/ptslink/ptslink.toml")

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _chosen(context: click.Context, _option: click.Parameter, value: Path | None) -> Path:
    if value is not None:
        # The contexts of a group's commands begin with the object of the group's.
        context.obj = value
    chosen: Path = context.obj or DEFAULT
    return chosen


def config_option(*, of_group: bool = False) -> Callable[[_Command], _Command]:
    """The option, as ``config_path``. A group takes it too, for its commands, which take it alone.

    Args:
        of_group: it is the group's own, whose function does not get it.
    """
    return click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        callback=_chosen,
        expose_value=not of_group,
        help=f"The TOML file of the server. [default: {DEFAULT}]",
    )


def load_or_exit(path: Path) -> Config:
    """The configuration, or exit 2 with every mistake on standard error."""
    try:
        return load(path)
    except ConfigError as error:
        click.echo(visible(str(error), keep="\n"), err=True)
        raise SystemExit(2) from error
