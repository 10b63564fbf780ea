"""nginx's own limits, raised in a main configuration file that is somebody else's.

Pure: text in, text out. Only a number changes, or one line is added; whether nginx accepts the
result is for `nginx -t` to say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

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
