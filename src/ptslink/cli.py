"""The ``ptslink`` command: one group, each subcommand kept in the room it belongs to.

Subcommands are imported only when they are asked for, so that ``ptslink probe`` starts fast and
needs nothing of the server's.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from ptslink import version
from ptslink.escape import visible

#: Subcommand name -> where its click command lives, as "module:attribute".
SUBCOMMANDS: Mapping[str, str] = {
    "ask": "ptslink.server.ask_command:ask",
    "check-config": "ptslink.server.command:check_config",
    "doctor": "ptslink.doctor.command:doctor",
    "export": "ptslink.journal.export_command:export",
    "journal": "ptslink.journal.command:journal",
    "logs": "ptslink.journal.logs_command:logs",
    "probe": "ptslink.doctor.probe.command:probe",
    "serve": "ptslink.server.command:serve",
    "simulate": "ptslink.simulator.command:simulate",
}

#: What a shell calls the exit status of a program that Ctrl-C ended.
INTERRUPTED = 130


class LazyGroup(click.Group):
    """A click group that imports a subcommand's module when the subcommand is first used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        target = SUBCOMMANDS.get(cmd_name)
        if target is None:
            return None
        module_name, _, attribute = target.partition(":")
        try:
            module = importlib.import_module(module_name)
        except KeyboardInterrupt:
            # click's own exit status for it is 1, which means findings to the doctor.
            raise SystemExit(INTERRUPTED) from None
        command = getattr(module, attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{target} is not a click command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            # What is wrong may have come from outside: a name, a file, an answer.
            vars(error)["message"] = visible(error.message, keep="\n")
            raise


def _tell_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"ptslink, version {version()}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_tell_version,
    help="Show the version and exit.",
)
def main() -> None:
    """The server PTS-2 forecourt controllers dial into, and the doctor for their links."""


if __name__ == "__main__":
    main()
