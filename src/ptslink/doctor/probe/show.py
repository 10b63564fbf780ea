"""A link result for people: one line a step, 80 columns, colour only where it is welcome."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from typing import TextIO

from ptslink.doctor.probe.result import LinkResult
from ptslink.escape import visible

WIDTH = 80
_COLOURS = {"ok": "32", "failed": "31", "skipped": "2"}


def wants_colour(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether *stream* is a terminal that knows colour and whose owner has not declined it."""
    if environment.get("NO_COLOR") or environment.get("TERM", "dumb") in ("", "dumb"):
        return False
    return stream.isatty()


def render(result: LinkResult, *, colour: bool = False) -> str:
    """The whole report, ending in a newline."""

    def paint(text: str, status: str) -> str:
        return f"\x1b[{_COLOURS[status]}m{text}\x1b[0m" if colour else text

    lines = [visible(result.url)]
    for step in result.steps:
        ms = f"{step.ms:.1f} ms" if step.status != "skipped" else ""
        start = f"  {step.name:<8}"
        status = paint(f"{step.status:<8}", step.status)
        room = WIDTH - len(start) - 8 - 12
        seen = visible(step.seen)
        seen = seen if len(seen) <= room else seen[: room - 3] + "..."
        lines.append(f"{start}{status}{ms:>11} {seen}".rstrip())
    if result.cause is None:
        lines.append(paint("The link works.", "ok"))
    else:
        lines += [
            paint(line, "failed")
            for line in textwrap.wrap(visible(result.cause), WIDTH, break_on_hyphens=False)
        ]
        if result.body.strip():
            lines.append("The server's words:")
            body = textwrap.wrap(visible(" ".join(result.body.split())), WIDTH - 2)
            lines += ["  " + line for line in body[:6]]
    return "\n".join(lines) + "\n"
