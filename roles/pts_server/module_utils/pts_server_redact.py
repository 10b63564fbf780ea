"""Secrets out of what people read: the server's configuration, and variables of the roles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "(hidden)"
#: A key whose value is nobody's to read, whatever table it is in. Paths of keys are no secrets.
SECRET = re.compile(
    r"(^|_)(secret|users?|logins?|passwords?|passphrase|token|credentials?|hmac|private)$",
    re.IGNORECASE,
)
TABLE = re.compile(r"^\s*\[+\s*(?P<name>[^\]]*?)\s*\]+\s*(#.*)?$")
SETTING = re.compile(r"^(?P<before>\s*(?P<key>[^=#]+?)\s*=\s*)(?P<value>.*)$")


def is_secret(key: str) -> bool:
    """Whether a key, dotted or quoted perhaps, has a secret's name in it."""
    return any(SECRET.search(part.strip(" \"'")) for part in key.split("."))


def redacted(text: str) -> str:
    """The text of a TOML file, line by line, with the values of secret keys hidden.

    A table with a secret's name is hidden whole, and so are the lines of a value of several lines.
    """
    lines = []
    table_is_secret, closing = False, ""
    for line in text.splitlines(keepends=True):
        end = line[len(line.rstrip("\r\n")) :]
        if closing:
            closing = "" if closing in line else closing
            continue
        table = TABLE.match(line)
        if table:
            table_is_secret = is_secret(table["name"])
        setting = SETTING.match(line)
        if table or not setting or not (table_is_secret or is_secret(setting["key"])):
            lines.append(line)
            continue
        for quotes in ('"""', "'''"):
            if setting["value"].startswith(quotes) and setting["value"].count(quotes) == 1:
                closing = quotes
        shown = setting["before"]
        if table_is_secret:  # the keys of a table of users are their names
            shown = f"{HIDDEN} = "
        lines.append(f"{shown}{HIDDEN}{end}")
    return "".join(lines)


def without_secrets(value: Any) -> Any:
    """A value as JSON has them, with what lies under secret keys hidden at any depth."""
    if isinstance(value, Mapping):
        return {
            str(key): HIDDEN if is_secret(str(key)) and inner else without_secrets(inner)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [without_secrets(inner) for inner in value]
    return value
