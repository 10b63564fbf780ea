"""docs/faults.md, from the matrix's own results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from machines.faults.fault import NotInjected
from ptslink.doctor.causes import CAUSES

HEAD = """\
# Faults the doctor names

Written by `scripts/bench faults` from the results of the fault matrix (`tests/machines/faults`), do
not edit by hand. Each cause below was injected for real on a provisioned machine behind a site's
router, and the doctor was run at the site, on the server, or both. "Named" is its first finding.

Each has a healthy twin, in which the doctor has to find nothing: the same system without the fault,
reached by the same URL (the right one, where the URL was wrong), examined from the same places
with the same options. Where only the server was asked, a controller that does everything right is
connected meanwhile, and has to have got through by itself. What is not the fault stays as it was
for the fault: a proxy before nginx, an allow-list, short timers.
"""


def document(results: Sequence[Mapping[str, Any]], left_out: Sequence[NotInjected]) -> str:
    """The page. The newest result of each row counts."""
    newest = {(one["id"], one["variant"]): one for one in results}
    systems = [one for one in newest.values() if "configuration" in one]
    rows = sorted(
        (one for one in newest.values() if "configuration" not in one),
        key=lambda one: (_rank(one["id"]), one["variant"]),
    )
    causes = {one["id"] for one in rows if one["layer"] is not None and not one.get("twin")}
    parts = [HEAD, *_figures(rows, systems), *_days(rows, systems), "", *_rows(rows)]
    if systems:
        parts += ["", *_healthy(systems)]
    missing = [one for one in left_out if one.id not in causes]
    if missing:
        parts += ["", "## Not injected", "", "| Cause | Why not |", "|---|---|"]
        parts += [f"| `{one.id}` | {one.reason} |" for one in missing]
    listed = {one.id for one in missing} | causes
    silent = [cause.id for cause in CAUSES if cause.id not in listed]
    if silent:
        parts += ["", "## Known to the doctor, proven by unit cases only", ""]
        parts += [", ".join(f"`{id_}`" for id_ in silent)]
    return "\n".join(parts) + "\n"


def _figures(rows: Sequence[Mapping[str, Any]], systems: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the page says in figures."""
    injected = [one for one in rows if one["layer"] is not None and not one.get("twin")]
    twins = [one for one in rows if one.get("twin")]
    causes = {one["id"] for one in injected}
    exact = {id_ for id_ in causes if all(one["right"] for one in injected if one["id"] == id_)}
    seconds = [one["seconds"] for one in injected if "seconds" in one]
    lines = [
        f"- {len(causes)} of {len(CAUSES)} causes it knows injected in {len(injected)} ways; named "
        f"exactly: {len(exact)} causes ({_count(injected, 'right')} ways); right in layer: "
        f"{_count(injected, 'layer_right')} ways.",
        f"- Healthy twins in which it stayed silent: {_count(injected, 'healthy_after')} of "
        f"{len(injected)}.",
    ]
    if twins:
        lines.append(f"- Systems beside a fault, told apart from it by staying silent: "
                     f"{_count(twins, 'right')} of {len(twins)}.")  # fmt: skip
    if systems:
        lines.append(f"- Healthy systems in which it stayed silent: {_count(systems, 'right')} of "
                     f"{len(systems)}.")  # fmt: skip
    if seconds:
        lines.append(f"- Time to a verdict: median {statistics.median(seconds):.1f} s, longest "
                     f"{max(seconds):.0f} s.")  # fmt: skip
    return lines


def _days(rows: Sequence[Mapping[str, Any]], systems: Sequence[Mapping[str, Any]]) -> list[str]:
    """When what is on the page was run: one day, or one a layer."""
    days: dict[str, set[str]] = {}
    for one in (*rows, *systems):
        part = "healthy systems" if "configuration" in one else str(one["layer"] or "")
        days.setdefault(part, set()).add(str(one.get("day", "an unknown day")))
    every = sorted(set().union(*days.values()))
    if len(every) == 1:
        return [f"- All of it run on {every[0]}."]
    told = [f"{part} on {', '.join(sorted(which))}" for part, which in days.items()]
    return [f"- Run: {'; '.join(told)}. The newest result of each row counts."] if told else []


def _count(results: Sequence[Mapping[str, Any]], key: str) -> int:
    return sum(bool(one.get(key)) for one in results)


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| Layer | Cause | Injected as | Named | Seconds | Twin |",
        "|---|---|---|---|---|---|",
    ]
    for one in rows:
        right = "silent, as it should" if one.get("twin") else "yes"
        named = right if one["right"] else f"no: {one['named'] or one.get('error', 'nothing')}"
        twin = "silent" if one.get("healthy_after") else "not silent"
        lines.append(
            f"| {one['layer'] or ''} | `{one['id']}` | {one['variant']} | {named} "
            f"| {one.get('seconds', '')} | {twin} |"
        )
    return lines


def _healthy(systems: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of healthy systems: what was found in each, from the site, the server, joined."""
    lines = [
        "## Healthy systems",
        "",
        "Each was examined from the site, from the server, and joined by the command line, which "
        "had to find nothing and exit with 0.",
        "",
        "| Configuration | Meanwhile | Found | Seconds |",
        "|---|---|---|---|",
    ]
    for one in systems:
        found = "nothing" if one["right"] else str(one.get("found") or one.get("error"))
        seconds = one.get("seconds", "")
        lines.append(f"| {one['configuration']} | {one['doing']} | {found} | {seconds} |")
    return lines


def _rank(id_: str) -> int:
    order = [cause.id for cause in CAUSES]
    return order.index(id_) if id_ in order else len(order)
