"""nginx's own limits, raised (and lowered again) in a main configuration file that is not ours.

Pure: text in, text out. Only a number changes, or one line is added; whether nginx accepts the
result is for `nginx -t` to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

#: Where each directive belongs.
HOMES: Mapping[str, list[str]] = {"worker_connections": ["events"], "worker_rlimit_nofile": []}
#: A comment, a quoted word, punctuation or a word (which may hold quotes, "#" and "${name}").
TOKEN = re.compile(
    r"""\#[^\n]* | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | [{};] | (?:\$\{[^}]*\}|\\.|[^\s{};])+""",
    re.VERBOSE | re.DOTALL,
)

#: Bit of the capability to exceed a hard limit, in the mask of /proc/PID/status.
CAP_SYS_RESOURCE = 24


class Unplaceable(Exception):
    """A limit cannot be raised here; the message says why."""


def raised(text: str, least: Mapping[str, int]) -> str:
    """``text`` with each directive of ``least`` at that number, or higher where it was.

    Raises Unplaceable where the text has no ``events`` block of its own or a limit is no number.
    """
    found, events = _look(text)
    if events is None:
        raise Unplaceable("it has no events block")
    edits = []
    for directive, number in least.items():
        value = found.get(directive)
        if value is None:
            edits.append(_added(directive, number, events))
        elif not value[0].isdecimal():
            raise Unplaceable(f"its {directive} is {value[0]!r}, which is no number")
        elif int(value[0]) < number:
            edits.append((value.start(), value.end(), str(number)))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def numbers(text: str, directives: Iterable[str]) -> dict[str, int | None]:
    """The number each directive has in ``text``; None where it has none."""
    found, _ = _look(text)
    return {
        directive: int(found[directive][0])
        if directive in found and found[directive][0].isdecimal()
        else None
        for directive in directives
    }


def lowered(text: str, former: Mapping[str, int | None], most: Mapping[str, int]) -> str:
    """``text`` with each directive at its former number again, or gone where it had none.

    A number above ``most``, which is more than was ever asked for here, is somebody else's and
    stays; so does one that is not above the former.
    """
    found, _ = _look(text)
    edits = []
    for directive, number in former.items():
        value = found.get(directive)
        if value is None or not value[0].isdecimal():
            continue
        if (number or 0) < int(value[0]) <= most.get(directive, 0):
            edits.append(
                _removed(text, directive, value)
                if number is None
                else (value.start(), value.end(), str(number))
            )
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def most_open_files(limits: str, status: str) -> int | None:
    """How many files a process may let its children open, by its ``/proc/PID/limits`` and
    ``status``; None where nothing but the kernel's own limit stops it.
    """
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if capabilities and int(capabilities[1], 16) >> CAP_SYS_RESOURCE & 1:
        return None
    hard = re.search(r"^Max open files\s+\S+\s+(\d+)", limits, re.MULTILINE)
    return int(hard[1]) if hard else None


def _added(directive: str, number: int, events: tuple[int, int]) -> tuple[int, int, str]:
    """What to put where for a directive that is not there."""
    before, inside = events
    if HOMES[directive]:
        return inside, inside, f"\n    {directive} {number};"
    return before, before, f"{directive} {number};\n"


def _removed(text: str, directive: str, value: re.Match[str]) -> tuple[int, int, str]:
    """What to take away for a directive that is to go: with its line, where it has one alone."""
    start = text.rindex(directive, 0, value.start())
    end = text.index(";", value.end()) + 1
    line = text.rfind("\n", 0, start) + 1
    alone = not text[line:start].strip()
    if text[end : end + 1] == "\n":
        return (line if alone else start), end + 1, ""
    return (line - 1 if alone and line else start), end, ""


def _look(text: str) -> tuple[dict[str, re.Match[str]], tuple[int, int] | None]:
    """The values of the directives of `HOMES`; where the events block begins, and its inside."""
    found: dict[str, re.Match[str]] = {}
    events = None
    context: list[str] = []
    words: list[re.Match[str]] = []
    for token in TOKEN.finditer(text):
        if token[0].startswith("#"):
            continue
        if token[0] not in ("{", "}", ";"):
            words.append(token)
            continue
        name = words[0][0] if words else ""
        if token[0] == "{":
            if [*context, name] == ["events"]:
                events = words[0].start(), token.end()
            context.append(name)
        elif token[0] == "}":
            del context[-1:]
        elif len(words) == 2 and HOMES.get(name) == context:
            found[name] = words[1]
        words = []
    return found, events
