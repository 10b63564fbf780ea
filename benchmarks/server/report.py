"""The figures as text for the screen and as Markdown for docs/performance.md. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.server.goals import Round, Verdict, median

BEGIN = "<!-- figures: written by scripts/bench server, do not edit by hand -->"
END = "<!-- end of figures -->"


def verdict_word(verdict: Verdict) -> str:
    if verdict.met is None:
        return "not judged"
    return "met" if verdict.met else "NOT MET"


def amount(value: float | None) -> str:
    """A figure with the digits that mean something."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 20 else f"{value:.2f}"


def figure_names(rounds: Sequence[Round]) -> list[str]:
    """Every figure of any round, in the order they were first taken."""
    return list(dict.fromkeys(name for one in rounds for name in one))


def spread(rounds: Sequence[Round], name: str) -> str:
    values = [one[name] for one in rounds if name in one]
    return f"{amount(min(values))} to {amount(max(values))}" if len(values) > 1 else ""


def processors(details: Sequence[Mapping[str, Any]], name: str) -> str:
    """Share of its core the server and the load generator used for one figure, and the server's
    microseconds of processor for each thing counted; of the middle round."""
    both = [
        (
            one["server_cpu"],
            one["client_cpu"],
            one["server_cpu"] / max(one["per_second"], 1.0) * 1e6,
        )
        for one in details
        if one["figure"] == name and "server_cpu" in one
    ]
    if not both:
        return ""
    middle = sorted(both)[len(both) // 2]
    return f"{middle[0]:.2f} / {middle[1]:.2f}, {middle[2]:.0f} us each"


def quantiles(details: Sequence[Mapping[str, Any]], name: str) -> str:
    """p50 / p99 of what the figure timed, ms, of the middle round by p99."""
    kind = "handshake_ms" if name.startswith("handshakes/s") else "confirmation_ms"
    taken = sorted(
        (one[kind]["p99"], one[kind]["p50"])
        for one in details
        if one["figure"] == name and one.get(kind, {}).get("count")
    )
    if not taken:
        return ""
    p99, p50 = taken[len(taken) // 2]
    return f"{amount(p50)} / {amount(p99)}"


def screen(rounds: Sequence[Round], verdicts: Sequence[Verdict]) -> list[str]:
    """The result in 80 columns."""
    lines = [f"{'figure, median of the rounds':<42} {'value':>9}  spread"]
    lines += [
        f"{name:<42} {amount(median(rounds, name)):>9}  {spread(rounds, name)}"
        for name in figure_names(rounds)
    ]
    lines += ["", f"{'goal':<42} {'accepted':<17} {'seen':>6}"]
    for verdict in verdicts:
        what, _, detail = verdict.goal.what.partition(": ")
        lines += [
            what,
            f"  {detail:<40} {verdict.goal.accepted():<17} {amount(verdict.value):>6}"
            f" {verdict_word(verdict)}",
        ]
    return lines


def markdown(
    rounds: Sequence[Round],
    verdicts: Sequence[Verdict],
    details: Sequence[Mapping[str, Any]],
    machine: Mapping[str, str],
    versions: Mapping[str, str],
    day: str,
) -> str:
    """The block of docs/performance.md between its markers."""
    lines = [BEGIN, "", f"Measured on {day}.", "", "| Machine | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in machine.items()]
    lines += [f"| versions | {', '.join(f'{k} {v}' for k, v in versions.items())} |", ""]
    lines += [
        "### Goals",
        "",
        "| What | Goal | Seen | ptslink | comparator | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {verdict.goal.what} | {verdict.goal.accepted()} | **{amount(verdict.value)}** "
        f"| {amount(verdict.ours)} | {amount(verdict.theirs)} | {verdict_word(verdict)} |"
        for verdict in verdicts
    ]
    lines += [
        "",
        "### Figures",
        "",
        "Medians of the rounds. Processor: share of its core that the server and the load",
        "generator used (a load generator near 1.00 would be the bottleneck itself), and the",
        "server's processor time for each message or handshake.",
        "",
        "| Figure | Median | Lowest to highest | p50 / p99 ms | Processor, server / load |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {amount(median(rounds, name))} | {spread(rounds, name)} "
        f"| {quantiles(details, name)} | {processors(details, name)} |"
        for name in figure_names(rounds)
    ]
    return "\n".join([*lines, "", END])


def replace_block(document: str, block: str) -> str:
    """The document with the block between its markers exchanged.

    Raises:
        ValueError: it has no markers.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("no markers for the figures")
    return before + block + after
