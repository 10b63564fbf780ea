"""The ``ptslink`` command itself, before any subcommand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ptslink.cli import main
from ptslink.journal.entry import Entry, Transport
from ptslink.journal.filing import facts_of
from ptslink.journal.store import Store
from ptslink.server import config_option


def test_it_tells_its_version() -> None:
    told = CliRunner().invoke(main, ["--version"])
    assert (told.exit_code, told.output) == (0, f"ptslink, version {metadata.version('ptslink')}\n")


def test_a_probe_starts_without_what_it_does_not_need() -> None:
    loaded = "import sys, ptslink.doctor.probe; print(*sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", loaded], check=True, capture_output=True, text=True
    ).stdout.split()
    assert {"importlib.metadata", "asyncio", "click"}.isdisjoint(said)
    assert "ptslink.doctor.probe.link" in said


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that reads the server's configuration."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        elif name not in ("doctor", "probe", "simulate"):
            yield (*path, name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a mistake that every command has to come upon."""
    file = tmp_path / "a file of its own.toml"
    file.write_text("[listen]\nprot = 1\n")
    return file


@pytest.mark.parametrize("words", leaves(main), ids=" ".join)
def test_every_command_takes_its_configuration_at_the_same_places(
    monkeypatch: pytest.MonkeyPatch, config: Path, words: tuple[str, ...]
) -> None:
    more = {"ask": ["AB", "GetDateTime"], "view": ["Server"], "search": ["x"]}.get(words[-1], [])
    option = ["--config", str(config)]
    ways = [[*words, *option, *more], [*words, *more, *option]]
    if len(words) > 1:
        ways.append([words[0], *option, *words[1:], *more])
        ways.append([words[0], "--config", "/nowhere", *words[1:], *more, *option])
    monkeypatch.setattr(config_option, "DEFAULT", config)
    ways.append([*words, *more])
    for way in ways:
        result = CliRunner().invoke(main, way)
        assert (result.exit_code, str(config) in result.output) == (2, True), (way, result.output)
        assert "unknown key listen.prot" in result.output
    assert "/etc/ptslink/ptslink.toml" in CliRunner().invoke(main, [*words, "--help"]).output


def test_a_journal_is_summed_up_without_a_wall_of_ids(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[journal]\npath = "{tmp_path}/j.db"\n')
    store = Store(tmp_path / "j.db")
    types = (["UploadShift"], ["UploadShift", "PumpStatus"], ["PumpStatus", "Totals"], ["Totals"])
    for number, names in enumerate(types):
        packets = [{"Id": 1, "Type": name, "Data": {"Number": number}} for name in names]
        raw = json.dumps({"Packets": packets}).encode()
        store.write([Entry(f"AB{number}", 1, Transport.HTTP, 1, raw, facts_of(raw))], [])
    store.close()

    def shown(*options: str) -> str:
        result = CliRunner().invoke(main, ["journal", "summary", "--config", str(config), *options])
        assert result.exit_code == 0, result.output
        return result.output

    assert "AB" not in shown()
    assert "controllers  4 (--ids names them)" in shown()
    assert [line.strip() for line in shown("--ids").splitlines() if "AB" in line] == [
        *("AB0", "AB1", "AB2", "AB3")
    ]
    # A reply beside an upload is in the upload's message and told there.
    assert shown().endswith(
        "no records\n  PumpStatus                   1\n  Totals                       2\n"
    )
    told = json.loads(shown("--json"))
    assert (told["controllers"], told["others"]) == (4, {"PumpStatus": 1, "Totals": 2})
    assert "ids" not in told
    assert json.loads(shown("--json", "--ids"))["ids"] == ["AB0", "AB1", "AB2", "AB3"]


def test_of_types_that_anybody_may_invent_the_most_frequent_are_shown(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[journal]\npath = "{tmp_path}/j.db"\n')
    store = Store(tmp_path / "j.db")
    packets = [{"Id": 1, "Type": f"T{n:02}"} for n in range(60)] + [{"Id": 1, "Type": "T59"}]
    raw = json.dumps({"Packets": packets}).encode()
    store.write([Entry("AB", 1, Transport.HTTP, 1, raw, facts_of(raw))], [])
    store.close()
    output = CliRunner().invoke(main, ["journal", "summary", "--config", str(config)]).output
    assert "T59                          2\n  and 10 more Types (--json has all)\n" in output
