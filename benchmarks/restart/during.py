"""``python -m benchmarks.restart.during``: a command, and what connected controllers see of it.

    ... --lab NAME --on canary=ptslink --on other= --direct 200 --proxied 50 -- COMMAND ...

Controllers connect to each machine named and upload while COMMAND runs. Behind the equals sign is
what COMMAND is to replace there: ``ptslink``, whose links then end with 1012, or nothing.

Prints JSON: ``status`` of COMMAND, what it ``said``, what was ``seen``, and the ``problems``: links
that ended otherwise, controllers refused or not back, messages confirmed that are in no journal.
Exit status: 0 no problems, whatever COMMAND's; 1 problems; 2 could not run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
from benchmarks.restart.attend import SERVER, Attended, Watched, connect, judge, witness
from benchmarks.restart.machine import Failed, Machine


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--lab", required=True)
@click.option("--on", "machines", multiple=True, required=True, metavar="MACHINE=[ptslink]")
@click.option("--direct", type=click.IntRange(0, 2000), default=200, show_default=True)
@click.option("--proxied", type=click.IntRange(0, 2000), default=50, show_default=True)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def main(
    lab: str, machines: tuple[str, ...], direct: int, proxied: int, command: tuple[str, ...]
) -> None:
    """Run COMMAND under connected controllers, and tell what they saw."""
    ran: list[subprocess.CompletedProcess[str]] = []

    def run() -> None:
        ran.append(
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        )

    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ptslink-during-") as place, ExitStack() as stack:
        try:
            watched = []
            for name, _, replaced in (machine.partition("=") for machine in machines):
                machine = Machine(lab, name)
                crowds = connect(stack, machine, Path(place), direct=direct, proxied=proxied)
                watched.append(Watched(machine, crowds, [SERVER] if replaced == SERVER else []))
            seen = witness("the command", watched, run)
            for each, event in zip(watched, seen, strict=True):
                whole = Attended()
                judge(each.machine, each.crowds, Path(place), whole)
                problems += [
                    f"{each.machine.name}: {problem}"
                    for problem in (*event.problems(), *whole.faults)
                ]
        except Failed as failure:
            click.echo(f"{failure}\n{ran[0].stdout if ran else ''}", err=True)
            sys.exit(2)
    told = {each.machine.name: event.words() for each, event in zip(watched, seen, strict=True)}
    print(
        json.dumps(
            {"status": ran[0].returncode, "seen": told, "problems": problems, "said": ran[0].stdout}
        )
    )
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.restart.during")
