"""The section on mutations in docs/faults.md, from their results. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from machines.mutations.figures import MEDIAN_GOAL, Figure, figures, median_seconds
from machines.mutations.kinds import LEFT_OUT

TITLE = "## Mutations"
HEAD = f"""\
{TITLE}

Written by `scripts/bench mutate`: a healthy machine is changed one step at a time, by generators
that read its configuration (`tests/machines/mutations`). Whether a change breaks the link is
decided by a faithful controller at the site, which has to get in, have its uploads confirmed and
stay. Then the doctor is asked at the site, on the control node and on the server, and each fix that
it offers to apply unasked is applied as printed and has to mend the link. A quarter of the kinds,
chosen by a hash of their names, was left out while the doctor was worked on; its figures stand
apart.
"""


def section(results: Iterable[Mapping[str, Any]]) -> str:
    """The section, from the newest result of each mutation."""
    newest = list({one["name"]: one for one in results}.values())
    lines = [HEAD]
    for title, part in (
        ("Kinds that were looked at", [one for one in newest if one["kind"] not in LEFT_OUT]),
        ("Kinds that were left out", [one for one in newest if one["kind"] in LEFT_OUT]),
    ):
        if part:
            lines += [f"### {title}", "", *table(part), ""]
    lines += ["### By kind", "", *by_kind(newest)]
    return "\n".join(lines) + "\n"


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The figures of *results* against their goals, as Markdown."""
    broken = sum(not one["works"] for one in results if "error" not in one)
    failed = sum("error" in one for one in results)
    lines = [
        f"{len(results)} mutations, {broken} of which break the link"
        + (f"; {failed} could not be made or asked about." if failed else "."),
        "",
        "| Figure | Measured | Goal | Met |",
        "|---|---|---|---|",
        *map(_row, figures(results)),
    ]
    seconds = median_seconds(results)
    if seconds is not None:
        met = "yes" if seconds < MEDIAN_GOAL else "no"
        lines.append(f"| median time to a verdict | {seconds:.1f} s | under {MEDIAN_GOAL:g} s "
                     f"| {met} |")  # fmt: skip
    return lines


def _row(one: Figure) -> str:
    goal = "0" if not one.goal else f"{'at least' if one.least else 'at most'} {one.goal:g} %"
    measured = f"{one.count} of {one.of} ({one.share:.1f} %)" if one.of else "none"
    return f"| {one.what} | {measured} | {goal} | {_met(one)} |"


def _met(one: Figure) -> str:
    if not one.of:
        return "not measured"
    return "yes" if one.met else "no"


def by_kind(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a kind: how many, how many break the link, how many were named rightly."""
    lines = [
        "| Kind | Mutations | Break the link | Right party | And exact | Healthy | Left out |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in sorted({one["kind"] for one in results}):
        own = [one for one in results if one["kind"] == kind]
        broken = [one for one in own if "error" not in one and not one["works"]]
        counts = (sum(bool(one[key]) for one in broken) for key in ("party", "exact", "healthy"))
        told = " | ".join(map(str, (len(own), len(broken), *counts)))
        lines.append(f"| `{kind}` | {told} | {'yes' if kind in LEFT_OUT else ''} |")
    return lines


def with_section(page: str, text: str) -> str:
    """*page* with *text* in place of its section on mutations, or behind all that it has."""
    before, _, _ = page.partition(f"\n{TITLE}\n")
    return f"{before.rstrip()}\n\n{text}" if text else page


def section_of(page: str) -> str:
    """The section on mutations of a page; nothing where it has none."""
    _, found, after = page.partition(f"\n{TITLE}\n")
    return f"{TITLE}\n{after}" if found else ""
