"""A verdict for a person: the answer in the first three lines, 80 columns, any terminal. Pure.

Every line is made by :func:`_wrap` or :func:`_command`, which show control characters.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping

from ptslink.doctor.cause import WORDS, Auto, Fix
from ptslink.doctor.evidence import Status
from ptslink.doctor.finding import Finding
from ptslink.doctor.verdict import EXAMINED, GUESS, Check, Verdict
from ptslink.escape import visible

WIDTH = 80
#: So many of what the records show are told; somebody who reads this has a pump to mend.
MOST_PATTERNS = 8
#: So many lines of one check are shown; what is left out is marked.
MOST_LINES = 4
CUT = " ... (--json)"
_LOOKS = {"bad": "31;1", "good": "32", "doubt": "33", "strong": "1"}
_STATUS_LOOKS = {Status.FAILED: "bad", Status.UNKNOWN: "doubt", Status.SKIPPED: "doubt"}
_Paint = Callable[[str, str], str]

_AUTO_WORDS = {
    Auto.YES: "This may be applied unasked (playbooks/diagnose.yml -e diagnose_fix=true)",
    Auto.ASK: "This changes something somebody may rely on: ask first",
    Auto.NO: "This is for a person to do",
}


def render(
    verdict: Verdict, *, titles: Mapping[str, str] | None = None, colour: bool = False
) -> str:
    """The whole report, ending in a newline.

    *titles* names the causes that were ruled out, by id.
    """

    def paint(text: str, look: str) -> str:
        return f"\x1b[{_LOOKS[look]}m{text}\x1b[0m" if colour and text else text

    lines = _head(verdict, paint)
    for check in verdict.checks:
        if _is_blind(check):
            lines += [paint(line, "doubt") for line in _wrap(f"{check.seen}.")]
    if verdict.findings:
        lines += _first(verdict.findings[0], titles or {}, paint)
        others = verdict.findings[1:]
        if others:
            lines += ["", paint("What else", "strong")]
            for finding in others:
                lines += _other(finding)
    patterns = [check for check in verdict.checks if _is_pattern(check)]
    if patterns:
        lines += ["", paint("What the records show", "strong")]
        for check in patterns[:MOST_PATTERNS]:
            lines += _bullet(check.seen)
        left = len(patterns) - MOST_PATTERNS
        lines += [f"  - and {left} more (--json has all)"] if left > 0 else []
    lines += ["", *_checks(verdict.checks, paint)]
    return "\n".join(lines) + "\n"


def _head(verdict: Verdict, paint: _Paint) -> list[str]:
    """The verdict itself: what is wrong, how sure, what to do; or that nothing is."""
    seen_from = f"seen from {', '.join(verdict.vantages) or 'nowhere'} in {verdict.seconds:.1f} s"
    where = f"{verdict.target}, {seen_from}"
    if not verdict.findings:
        if not verdict.examined:
            lines = ["Nothing could be examined.", *_wrap(f"{verdict.unexamined}.")]
            return [*(paint(line, "doubt") for line in lines), *_wrap(where)]
        well = "Healthy: nothing found that would break this link."
        if any(_is_blind(check) for check in verdict.checks):
            well = "Healthy as far as could be seen: not everybody could look."
        elif any(_is_unjudged(check) for check in verdict.checks):
            well = "Healthy as far as could be judged: some of what was seen made no sense (below)."
        return [paint(well, "good"), *_wrap(where)]
    first = verdict.findings[0]
    word = WORDS.get(first.match.confidence, "a guess" if first.match.confidence < GUESS else "")
    sure = f"{word}{', ' if word else ''}{first.match.confidence:.0%} sure"
    answer = _wrap(first.title + ".")
    return [
        *(paint(line, "bad") for line in answer),
        f"{first.id}  layer {first.layer}, {sure}",
        *_wrap(where),
    ]


def _first(finding: Finding, titles: Mapping[str, str], paint: _Paint) -> list[str]:
    lines = ["", paint("What to do", "strong"), *_fix(finding.fix, "  ")]
    lines += ["", paint("What was seen", "strong")]
    for piece in finding.match.evidence:
        lines += _bullet(piece)
    if finding.match.ruled_out:
        lines += ["", paint("Why not another cause: the above excludes", "strong")]
        for id_ in finding.match.ruled_out:
            lines += _bullet(f"{id_}: {titles[id_]}" if id_ in titles else id_)
    return lines


def _fix(fix: Fix, indent: str) -> list[str]:
    lines = _wrap(fix.summary, indent)
    lines += _command(fix, indent)
    for name, value in fix.ansible.items():
        lines += _wrap(f"Ansible: {name}: {_value(value)}", indent)
    if fix.controller:
        lines += _wrap(f"In the controller: {fix.controller}", indent)
    lines += _wrap(f"Once it is right: {fix.expect}", indent)
    return [*lines, *_wrap(_AUTO_WORDS[fix.auto] + ".", indent)]


def _command(fix: Fix, indent: str) -> list[str]:
    """The commands of a fix; they are to be copied: never broken, whatever their length."""
    return [f"{indent}    {visible(line)}" for line in (fix.command or "").splitlines()]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _other(finding: Finding) -> list[str]:
    guess = f"a guess, {finding.match.confidence:.0%}: " if finding.match.confidence < GUESS else ""
    lines = _bullet(f"{guess}{finding.title} ({finding.id}, layer {finding.layer}).")
    if finding.follows is not None:
        lines += _wrap(f"Only what follows from {finding.follows}.", "    ")
    else:
        lines += _wrap(finding.fix.summary, "    ")
        lines += _command(finding.fix, "    ")
    for piece in finding.match.evidence[:2]:
        lines += _wrap(f"Seen: {piece}", "    ")
    return lines


def _checks(checks: tuple[Check, ...], paint: _Paint) -> list[str]:
    well = sum(check.status is Status.OK for check in checks)
    lines = [paint(f"Checked: {len(checks)}, found well: {well}", "strong")]
    told = (_is_pattern, _is_blind, lambda check: check.id == EXAMINED)
    shown = [check for check in checks if not any(is_it(check) for is_it in told)]
    for status in (Status.FAILED, Status.UNKNOWN, Status.SKIPPED):
        start = f"  {status.value:<8}"
        for line in _told([check for check in shown if check.status is status]):
            text = _wrap(line, " " * 10)
            if len(text) > MOST_LINES:
                cut = text[MOST_LINES - 1].rstrip()[: WIDTH - len(CUT)]
                text = [*text[: MOST_LINES - 1], f"{cut}{CUT}"]
            text[0] = paint(start, _STATUS_LOOKS[status]) + text[0][len(start) :]
            lines += text
    return lines


def _told(checks: Iterable[Check]) -> list[str]:
    """A line a check; what many checks saw alike is told once."""
    alike: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        where, _, probe = check.id.partition(":")
        # A variation says what was tried, then how it went.
        what, _, how = check.seen.partition(": ")
        key = (check.id, how) if how else (where, check.seen)
        alike.setdefault(key, []).append(what if how else probe)
    lines = []
    for (first, seen), names in alike.items():
        listed = ", ".join(dict.fromkeys(names))
        lines.append(f"{first}: {listed}: {seen}" if ":" in first else f"{first}:{listed}: {seen}")
    return lines


def _is_blind(check: Check) -> bool:
    """Whether it says that a place could not look at all."""
    return check.id.endswith(":place.reached")


def _is_unjudged(check: Check) -> bool:
    """Whether it says that the doctor could not judge something."""
    return check.id.startswith("doctor:") and check.id != EXAMINED


def _is_pattern(check: Check) -> bool:
    """Whether it says what the records show; that they show nothing is a check like others."""
    probe = check.id.partition(":")[2]
    nothing = probe == "pattern.links" and check.status is Status.UNKNOWN
    return probe.startswith("pattern.") and not nothing


def _bullet(text: str) -> list[str]:
    return _wrap(text, "    ", first="  - ")


def _wrap(text: str, indent: str = "", first: str | None = None) -> list[str]:
    return textwrap.wrap(
        visible(" ".join(text.split())),
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
    ) or [indent]
