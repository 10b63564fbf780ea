"""The table of settings: every key, what it accepts in words, and the check behind the words.

`ptslink.server.config` turns a TOML file into a `Config` by these tables; the documentation is
tested against them.
"""

from __future__ import annotations

import codecs
import ipaddress
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

T = TypeVar("T")


class Unacceptable(ValueError):
    """A value that a setting does not accept."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a setting accepts.

    Attributes:
        accepted: in words, such as ``a whole number from 1 to 65535``.
        read: turns the TOML value into the setting's value, or raises `Unacceptable`.
    """

    accepted: str
    read: Callable[[Any], Any]


def setting(default: T, form: Form, about: str) -> T:
    """Declare a key of a table: its default, its accepted form and what it is about."""
    metadata = {"form": form, "about": about}
    if isinstance(default, dict):
        return cast("T", field(default_factory=default.copy, metadata=metadata))
    return field(default=default, metadata=metadata)


def whole(low: int, high: int, unit: str = "") -> Form:
    """A whole number in a range."""

    def read(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise Unacceptable
        return value

    return Form(f"a whole number{' of ' + unit if unit else ''} from {low} to {high}", read)


def number(low: float, high: float, unit: str) -> Form:
    """A number in a range."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unacceptable
        if not low <= value <= high:
            raise Unacceptable
        return float(value)

    return Form(f"a number of {unit} from {low:g} to {high:g}", read)


def choice(*options: str) -> Form:
    """One of a few words."""

    def read(value: Any) -> str:
        if value not in options:
            raise Unacceptable
        return str(value)

    return Form("one of " + ", ".join(f'"{option}"' for option in options), read)


def text(pattern: str, words: str) -> Form:
    """A text that matches a pattern whole."""
    compiled = re.compile(pattern)

    def read(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise Unacceptable
        return value

    return Form(words, read)


def listed(item: Form, words: str, *, least: int = 0) -> Form:
    """A list of values of one form, becoming a tuple."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) < least:
            raise Unacceptable
        return tuple(item.read(member) for member in value)

    return Form(words, read)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unacceptable
    return value


def _address(value: Any) -> str:
    if not isinstance(value, str):
        raise Unacceptable
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise Unacceptable from error


def _network(value: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if not isinstance(value, str):
        raise Unacceptable
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        raise Unacceptable from error


def _absolute_path(value: Any) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise Unacceptable
    return Path(value)


def _optional_path(value: Any) -> Path | None:
    return None if value == "" else _absolute_path(value)


def _zone(value: Any) -> str:
    if not isinstance(value, str):
        raise Unacceptable
    try:
        if value:
            ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Unacceptable from error
    return value


#: What a code page for JSON must leave as it is: what has a meaning in some codecs, then ASCII.
_PLAIN: Final = (b'{"A":"\\u0041\\n\\x41 +AGE- ~{!!~} xn--a"}', bytes(range(128)))


def _code_page(value: Any) -> str:
    if not isinstance(value, str):
        raise Unacceptable
    if not value:
        return value
    try:
        name = codecs.lookup(value).name
        # Not every codec is of text, and not every one of text is for a text that has ASCII in it.
        plain = all(part.decode(name) == part.decode("ascii") for part in _PLAIN)
        bytes(range(128, 256)).decode(name, "replace")
    except (LookupError, ValueError) as error:
        raise Unacceptable from error
    if not plain:
        raise Unacceptable
    return name


_CREDENTIAL = re.compile(r"[\x21-\x39\x3b-\x7e]{1,10}|[0-9A-Fa-f]{24}")
_PASSWORD = re.compile(r"[\x20-\x7e]{1,10}")


def _users(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Unacceptable
    for login, password in value.items():
        if not _CREDENTIAL.fullmatch(login):
            raise Unacceptable
        if not isinstance(password, str) or not _PASSWORD.fullmatch(password):
            raise Unacceptable
    return dict(value)


BOOLEAN: Final = Form("true or false", _boolean)
ADDRESS: Final = Form("an IPv4 or IPv6 address", _address)
NETWORK: Final = Form("an address or a network such as 192.0.2.0/24", _network)
ABSOLUTE_PATH: Final = Form("an absolute path", _absolute_path)
OPTIONAL_PATH: Final = Form('an absolute path, or "" for none', _optional_path)
ZONE: Final = Form('a time zone name such as "Europe/Kyiv", or "" for unknown', _zone)
CODE_PAGE: Final = Form(
    'a code page that Python knows and that contains ASCII, such as "cp1251", or "" for none',
    _code_page,
)
#: The controller's own limit: 40 ASCII characters, typed without the leading slash.
URI: Final = text(
    r"[!-.0-~](?:[!-~]{0,38}[!-~])?",
    "1 to 40 printable ASCII characters without a leading slash (the controller's limit)",
)
URI_OR_EMPTY: Final = text(r"(?:[!-.0-~][!-~]{0,39})?", "as listen.path, or empty")
USERS: Final = Form(
    "a table of login = password, each at most 10 ASCII characters (the controller's limit); "
    "a login may also be a 24-digit controller id",
    _users,
)
CONTROLLER: Final = text(r"[0-9A-Fa-f]{1,24}", "1 to 24 hexadecimal digits")
#: The controller's own limit: 20 characters.
SECRET: Final = text(r"[\x20-\x7e]{0,20}", "at most 20 ASCII characters (the controller's limit)")


def declared(table: type) -> dict[str, tuple[Any, Form, str]]:
    """The keys of a table: name -> (default, form, about)."""
    found = {}
    for item in fields(table):
        default = item.default
        if default is MISSING and item.default_factory is not MISSING:
            default = item.default_factory()
        found[item.name] = (default, item.metadata["form"], item.metadata["about"])
    return found
