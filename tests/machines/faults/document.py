"""Write docs/faults.md from the matrix's own results: python -m machines.faults.document FILE."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machines.faults.fault import NotInjected
from ptslink.doctor.causes import CAUSES

HEAD = """\
# Faults the doctor names

Made by `python -m machines.faults.document` from the results of the fault matrix
(`tests/machines/faults`): each cause below was injected for real on a provisioned machine behind a
site router, the doctor was run from the places named, the fault was undone, and the doctor had to
find the link healthy again. "Named" is its first finding.
"""


def document(results: Sequence[Mapping[str, Any]], left_out: Sequence[NotInjected]) -> str:
    """The page. The newest result of each row counts: give it the file of one whole run."""
    newest = {(one["id"], one["variant"]): one for one in results}
    rows = sorted(newest.values(), key=lambda one: (_rank(one["id"]), one["variant"]))
    injected = [one for one in rows if one["layer"] is not None and not one.get("twin")]
    twins = [one for one in rows if one.get("twin")]
    causes = {one["id"] for one in injected}
    named = [one for one in injected if one["right"]]
    seconds = [one["seconds"] for one in injected if "seconds" in one]
    lines = [
        HEAD,
        f"- {len(causes)} causes injected in {len(injected)} ways; named exactly: {len(named)}, "
        f"right in layer: {sum(bool(one['layer_right']) for one in injected)}.",
        f"- Healthy again after being undone: "
        f"{sum(bool(one.get('healthy_after')) for one in injected)} of {len(injected)}.",
        f"- Healthy twins in which it stayed silent: {sum(bool(one['right']) for one in twins)} of "
        f"{len(twins)}."
        if twins
        else "",
        f"- Median time to a verdict: {statistics.median(seconds):.1f} s." if seconds else "",
        "",
        "| Layer | Cause | Injected as | Named | Seconds | Healthy after |",
        "|---|---|---|---|---|---|",
    ]
    for one in rows:
        good = "silent, as it should" if one.get("twin") else "yes"
        named_as = good if one["right"] else f"no: {one['named'] or one.get('error', 'nothing')}"
        lines.append(
            f"| {one['layer'] or ''} | `{one['id']}` | {one['variant']} | {named_as} "
            f"| {one.get('seconds', '')} | {'yes' if one.get('healthy_after') else 'no'} |"
        )
    missing = [one for one in left_out if one.id not in causes]
    if missing:
        lines += ["", "## Not injected", "", "| Cause | Why not |", "|---|---|"]
        lines += [f"| `{one.id}` | {one.reason} |" for one in missing]
    listed = {one.id for one in missing} | causes
    silent = [cause.id for cause in CAUSES if cause.id not in listed]
    if silent:
        lines += ["", "## Known to the doctor, proven by unit cases only", ""]
        lines += [", ".join(f"`{id_}`" for id_ in silent)]
    return "\n".join(lines) + "\n"


def _rank(id_: str) -> int:
    order = [cause.id for cause in CAUSES]
    return order.index(id_) if id_ in order else len(order)


def main() -> None:
    """Print the page for the result files named on the command line."""
    from machines.faults.__main__ import tables

    results = [
        json.loads(line)
        for name in sys.argv[1:]
        for line in Path(name).read_text().splitlines()
        if line
    ]
    sys.stdout.write(document(results, tables()[1]))


if __name__ == "__main__":
    main()
