"""``ptslink probe``: the click door to the same program as ``python -m ptslink.doctor.probe``.

The options are declared once, in ``__main__``, because the probe must run where click is not
installed; click only hands the words over.
"""

from __future__ import annotations

import click

from ptslink.doctor.probe.__main__ import run


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
    short_help="Walk the link to a server the way a controller does.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def probe(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Walk the link to a server the way a controller does."""
    context.exit(run(arguments, "ptslink probe"))
