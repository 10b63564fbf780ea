"""What the suite's index says, counted by section. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

#: What a case may end with; anything else is a failure.
ACCEPTED = frozenset({"OK", "INFORMATIONAL"})

SECTIONS: Mapping[int, str] = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragmentation",
    6: "UTF-8",
    7: "closing",
    9: "limits and performance",
    10: "miscellaneous",
}

BEGIN = "<!-- results: written by scripts/bench autobahn, do not edit by hand -->"
END = "<!-- end of results -->"


@dataclass(frozen=True)
class Case:
    """One case: its number, how the exchange and how the close went."""

    number: str
    behaviour: str
    close: str

    @property
    def section(self) -> int:
        return int(self.number.split(".")[0])

    @property
    def accepted(self) -> bool:
        return self.behaviour in ACCEPTED and self.close in ACCEPTED


def read_index(index: Mapping[str, Mapping[str, Mapping[str, str]]], agent: str) -> list[Case]:
    """The cases of one agent, in the suite's order.

    Raises:
        ValueError: the index has no case of that agent; nothing was tested.
    """
    cases = [
        Case(number, seen["behavior"], seen["behaviorClose"])
        for number, seen in index.get(agent, {}).items()
    ]
    if not cases:
        raise ValueError(f"no case of {agent} in the index")
    return sorted(cases, key=lambda case: [int(part) for part in case.number.split(".")])


def markdown(cases: list[Case], versions: Mapping[str, str], day: str) -> str:
    """The block of docs/conformance.md between its markers."""
    lines = [
        BEGIN,
        "",
        f"Run on {day}: " + ", ".join(f"{name} {value}" for name, value in versions.items()) + ".",
        "",
        "| Section | Cases | OK | Informational | Not accepted |",
        "|---|---|---|---|---|",
    ]
    for section, about in SECTIONS.items():
        mine = [case for case in cases if case.section == section]
        count = Counter(case.behaviour if case.accepted else "not" for case in mine)
        lines.append(
            f"| {section} {about} | {len(mine)} | {count['OK']} | {count['INFORMATIONAL']} "
            f"| {count['not']} |"
        )
    refused = [case for case in cases if not case.accepted]
    lines.append(
        f"| **all** | {len(cases)} | {sum(c.behaviour == 'OK' and c.accepted for c in cases)} "
        f"| {sum(c.behaviour == 'INFORMATIONAL' and c.accepted for c in cases)} "
        f"| {len(refused)} |"
    )
    if refused:
        lines += ["", "Not accepted: " + ", ".join(describe(case) for case in refused) + "."]
    return "\n".join([*lines, "", END])


def describe(case: Case) -> str:
    return f"{case.number} ({case.behaviour}, close {case.close})"


def replace_block(document: str, block: str) -> str:
    """The document with the block between its markers exchanged.

    Raises:
        ValueError: it has no markers.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("no markers for the results")
    return before + block + after
