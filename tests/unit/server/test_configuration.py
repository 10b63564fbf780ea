"""The configuration: every mistake named, every key documented."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ptslink.server import settings
from ptslink.server.command import loop_factory
from ptslink.server.config import TABLES, Config, ConfigError, parse

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"


def toml(value: Any) -> str:
    """A default as it would be written in the file."""
    if value is None:
        return '""'
    if isinstance(value, Path):
        return json.dumps(str(value))
    if isinstance(value, tuple):
        return json.dumps(list(value))
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)


def rows() -> list[str]:
    return [
        f"| `{table}.{key}` | `{toml(default)}` | {form.accepted} | {about} |"
        for table, known in TABLES.items()
        for key, (default, form, about) in settings.declared(known).items()
    ]


@pytest.mark.parametrize("row", rows())
def test_every_key_is_documented_with_its_default_and_form(row: str) -> None:
    assert row in DOCUMENT.read_text().splitlines()


def test_nothing_is_documented_that_does_not_exist() -> None:
    written = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert [line for line in written if line not in rows()] == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"listen": {"port": 70000}}, "listen.port = 70000 is not accepted"),
        ({"listen": {"port": "3000"}}, "listen.port = '3000' is not accepted"),
        ({"listen": {"port": True}}, "listen.port = True is not accepted"),
        ({"listen": {"addresses": []}}, "listen.addresses = [] is not accepted"),
        ({"listen": {"addresses": ["localhost"]}}, "listen.addresses = ['localhost']"),
        ({"listen": {"path": "/ptsWebSocket"}}, "without a leading slash"),
        ({"listen": {"path": "a" * 41}}, "1 to 40 printable ASCII characters"),
        ({"listen": {"path": ""}}, "listen.path = ''"),
        ({"listen": {"handshake_profile": "loose"}}, 'one of "strict", "lenient"'),
        ({"listen": {"prt": 1}}, "unknown key listen.prt; accepted in [listen]: addresses"),
        ({"lissen": {}}, "unknown table [lissen]; accepted: [listen]"),
        ({"listen": 5}, "listen = 5 is not a table"),
        ({"controllers": {"users": {"a" * 11: "b"}}}, "at most 10 ASCII characters"),
        ({"controllers": {"users": {"a": "b" * 11}}}, "controllers.users = (not shown)"),
        ({"controllers": {"secret": "x" * 21}}, "controllers.secret = (not shown)"),
        ({"controllers": {"allowed": ["xyz"]}}, "1 to 24 hexadecimal digits"),
        ({"controllers": {"time_zone": "Mars/Olympus"}}, "a time zone name"),
        *(
            ({"controllers": {"code_page": name}}, "a code page that Python knows")
            for name in ("cp9999", "utf-16", "cp037", "hex", "rot13", "idna", "unicode_escape")
        ),
        ({"journal": {"path": "journal.db"}}, "an absolute path"),
        ({"limits": {"message_bytes": 8192}}, "bytes from 65536"),
        ({"limits": {"idle_seconds": "1m"}}, "a number of seconds"),
        ({"tls": {"port": 3443}}, "needs a certificate"),
        ({"tls": {"rsa_key": "/k"}}, "must both be set, or neither"),
        (
            {"tls": {"port": 3000, "rsa_key": "/k", "rsa_certificate": "/c"}},
            "tls.port = 3000 is also listen.port",
        ),
    ],
)
def test_a_mistake_is_named_with_key_value_and_accepted_form(content: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(content)
    assert words in str(caught.value)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"listen": {"port": -1, "x": 1}, "limits": {"connections": 0}})
    assert len(caught.value.mistakes) == 3


def test_defaults_are_those_of_the_empty_file_and_accept_themselves() -> None:
    assert parse({}) == Config()
    for table, known in TABLES.items():
        for key, (default, form, _) in settings.declared(known).items():
            value = "" if default is None else default
            value = str(value) if isinstance(value, Path) else value
            value = list(value) if isinstance(value, tuple) else value
            assert form.read(value) == default, (table, key)


def test_an_event_loop_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptslink.server.config.find_spec", lambda _name: None)
    with pytest.raises(
        ConfigError, match="needs the Python package uvloop, which is not installed"
    ):
        parse({"listen": {"event_loop": "uvloop"}})
    assert parse({"listen": {"event_loop": "asyncio"}}).listen.event_loop == "asyncio"


def test_the_configured_event_loop_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = object()
    stand_in = SimpleNamespace(new_event_loop=lambda: made)
    monkeypatch.setitem(sys.modules, "uvloop", stand_in)
    assert loop_factory("asyncio") is None
    factory = loop_factory("uvloop")
    assert factory is not None
    assert factory() is made
