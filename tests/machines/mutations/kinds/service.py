"""The service's own configuration: every value removed, changed, written wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator

from machines.mutations.mutation import (
    DIRECT,
    SERVICE_AGAIN,
    Edit,
    Mutation,
    Party,
    Truth,
    kind,
)
from machines.mutations.system import Setting, System, replaced, settings

_QUIET = 5.0
_TABLE = re.compile(r"^\[other\]")
_TIMERS = re.compile(r"ping|seconds")


def _edited(kind_: str, system: System, one: Setting, text: str, told: str) -> Mutation:
    edit = Edit({system.toml_path: text}, SERVICE_AGAIN)
    return Mutation(
        kind_, f"[{one.section}] {told}"[:140],
        Truth((Party.SERVICE,), (one.key, *_TABLE.findall(told)), f"{system.toml_path}: {told}"),
        edit.apply, edit.undo, DIRECT, _QUIET if _TIMERS.search(one.key) else 0.0,
    )  # fmt: skip


@kind("setting-removed")
def setting_removed(system: System) -> Iterator[Mutation]:
    """Each setting is taken out."""
    for one in settings(system.toml):
        yield _edited("setting-removed", system, one,
                      replaced(system.toml, one.start, one.end, ""),
                      f"without {one.key}")  # fmt: skip


def other_values(value: str) -> Iterator[str]:
    """What somebody could have written in place of *value*, of its own type and of others."""
    if value in ("true", "false"):
        yield "false" if value == "true" else "true"
        yield f'"{value}"'
    elif re.fullmatch(r"-?\d+", value):
        yield "0"
        yield "1"
        yield "-1"
        yield "65536"
        yield f'"{value}"'
    elif value.startswith("["):
        yield "[]"
        yield '["elsewhere"]'
        yield '["127.0.0.1"]'
        yield '["192.0.2.1"]'
        yield '"elsewhere"'
    elif value.startswith("{"):
        yield '{ pump = "other" }'
        yield "[]"
    elif value.startswith('"'):
        yield '""'
        yield '"elsewhere"'
        yield '"strict"'
        yield '"127.0.0.2"'
        yield '"/nonexistent/file"'
        yield "7"


@kind("setting-value")
def setting_value(system: System) -> Iterator[Mutation]:
    """Each setting has another value."""
    for one in settings(system.toml):
        for new in other_values(one.value):
            if new != one.value:
                told = f"{one.key} = {new}"
                yield _edited("setting-value", system, one,
                              replaced(system.toml, one.start, one.end, told), told)  # fmt: skip


@kind("setting-syntax")
def setting_syntax(system: System) -> Iterator[Mutation]:
    """Each setting is written wrong: its name, its end, its sign, twice, in another table."""
    for one in settings(system.toml):
        line = system.toml[one.start : one.end]
        for told in (f"{one.key}x = {one.value}", line[:-1], line.replace("=", ":", 1),
                     f"{line}\n{line}", f"[other]\n{line}", line.replace("=", "", 1)):  # fmt: skip
            yield _edited("setting-syntax", system, one,
                          replaced(system.toml, one.start, one.end, told), told)  # fmt: skip
