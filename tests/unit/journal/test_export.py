"""``ptslink export``: every record in one file, once, wherever a run is interrupted."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from ptslink.cli import main
from ptslink.journal import cursor, export_command
from ptslink.journal.cursor import locked, read_cursor
from ptslink.journal.entry import Entry, Transport
from ptslink.journal.filing import facts_of
from ptslink.journal.store import Store


class Interrupted(BaseException):
    """As a power cut: nobody handles it."""


class Office:
    """A back office with a journal, a cursor and a file it takes away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "c.toml"
        self.config.write_text(f'[journal]\npath = "{path}/j.db"\n')
        self.cursor, self.output = path / "cursor", path / "sales.jsonl"
        self.seen: list[int] = []

    def sell(self, *numbers: int) -> None:
        store = Store(self.path / "j.db")
        for number in numbers:
            raw = (
                b'{"Packets":[{"Id":1,"Type":"UploadPumpTransaction","Data":'
                b'{"DateTime":"2026-03-01T10:01:00","Transaction":%d}}]}' % number
            )
            store.write([Entry("AB", 1, Transport.WEBSOCKET, 1, raw, facts_of(raw))], [])
        store.close()

    def run(self, *more: str) -> Result:
        options = ["--cursor-file", str(self.cursor), "--output", str(self.output)]
        return CliRunner().invoke(main, ["export", "--config", str(self.config), *options, *more])

    def take(self) -> None:
        """Take the file away, if there is one."""
        if self.output.exists():
            lines = self.output.read_text().splitlines()
            self.seen += [json.loads(line)["data"]["Transaction"] for line in lines]
            self.output.unlink()


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


#: Every step of a run that leaves something on the disk.
STEPS = ("write_cursor", "publish", "sync_directory", "_write_partial", "_write")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("nth", [1, 2])
def test_an_interrupted_run_neither_loses_nor_repeats(
    office: Office, monkeypatch: pytest.MonkeyPatch, step: str, after: bool, nth: int
) -> None:
    office.sell(1, 2)
    calls = 0
    original: Callable[..., object] = getattr(export_command, step)

    def interrupted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == nth and not after:
            raise Interrupted
        result = original(*arguments)
        if calls == nth:
            raise Interrupted
        return result

    monkeypatch.setattr(export_command, step, interrupted)
    try:
        result = office.run()
        assert calls < nth or isinstance(result.exception, Interrupted)
    except Interrupted:
        pass
    monkeypatch.undo()
    office.sell(3)
    for _ in range(3):
        office.take()
        assert office.run().exit_code == 0
    office.take()
    assert office.seen == [1, 2, 3]


def test_a_file_that_was_not_taken_away_is_not_overwritten(office: Office) -> None:
    office.sell(1)
    assert office.run().exit_code == 0
    office.sell(2)
    refused = office.run()
    assert refused.exit_code == 1
    assert "take it away" in refused.output
    office.take()
    assert office.run().exit_code == 0
    office.take()
    assert office.seen == [1, 2]


def test_where_nothing_new_came_no_file_is_written(office: Office) -> None:
    office.sell(1)
    office.run()
    office.take()
    assert office.run().exit_code == 0
    assert office.run("--format", "csv").exit_code == 0
    assert not office.output.exists()
    assert [path for path in office.path.iterdir() if path.name.endswith(".part")] == []


def test_two_exports_with_one_cursor_exclude_each_other(office: Office) -> None:
    office.sell(1)
    with locked(office.cursor):
        refused = office.run()
    assert refused.exit_code == 1
    assert "under way" in refused.output
    assert office.run().exit_code == 0


def test_a_cursor_belongs_to_one_choice_of_records(office: Office) -> None:
    office.sell(1)
    office.run("--type", "UploadPumpTransaction")
    office.take()
    for other in (["--type", "UploadShift"], [], ["--variants"]):
        refused = office.run(*other)
        assert refused.exit_code == 1
        assert "needs a file of its own" in refused.output


def test_a_cursor_ahead_of_the_journal_is_an_error_and_stays(office: Office) -> None:
    office.sell(1)
    office.cursor.write_text(f"{10**17}\n")
    refused = office.run()
    assert refused.exit_code == 1
    assert "greater than any id" in refused.output
    assert office.cursor.read_text() == f"{10**17}\n"


@pytest.mark.parametrize("text", ["five", "{}}", '{"cursor":"x"}', "\xff"])
def test_what_is_no_cursor_is_refused(office: Office, text: str) -> None:
    office.sell(1)
    office.cursor.write_text(text)
    assert "does not hold a cursor" in office.run().output


def test_the_cursor_of_an_older_version_is_taken(office: Office) -> None:
    office.sell(1)
    office.cursor.write_text("0\n")
    assert office.run().exit_code == 0
    office.take()
    assert office.seen == [1]
    assert read_cursor(office.cursor).journal


def test_cursor_and_output_are_synced(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(cursor.os, "fsync", lambda handle: synced.append(handle))
    office.sell(1)
    office.run()
    # The output and its directory twice, and both cursors with theirs.
    assert len(synced) == 7


@pytest.mark.parametrize("fails", [False, True])
def test_standard_output_that_is_a_file_is_on_the_disk_before_the_cursor_is_written(
    office: Office, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    synced: list[str] = []

    def sync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        if fails:
            raise OSError(errno.EIO, "Input/output error")

    office.sell(1)
    with office.output.open("wb") as standard:
        stdout = SimpleNamespace(buffer=standard)
        monkeypatch.setattr(export_command, "sys", SimpleNamespace(stdout=stdout))
        monkeypatch.setattr(os, "fsync", sync)
        arguments = ["--config", str(office.config), "--cursor-file", str(office.cursor)]
        result = CliRunner().invoke(main, ["export", *arguments])
    assert result.exit_code == int(fails)
    assert office.output.read_bytes().count(b"\n") == 1
    assert office.cursor.exists() is not fails
    assert synced == ["sales.jsonl"] + ([] if fails else ["cursor.part", office.path.name])


def test_the_help_says_what_a_pipe_can_lose() -> None:
    text = " ".join(CliRunner().invoke(main, ["export", "--help"]).output.split())
    assert "what the program at its other end has read and not yet kept" in text


def test_variants_are_exported_with_what_they_say(office: Office) -> None:
    office.sell(1)
    store = Store(office.path / "j.db")
    raw = (
        b'{"Packets":[{"Id":1,"Type":"UploadPumpTransaction","Data":'
        b'{"DateTime":"2026-03-01T10:01:00","Transaction":1,"Amount":7}}]}'
    )
    store.write([Entry("AB", 1, Transport.WEBSOCKET, 1, raw, facts_of(raw))], [])
    store.close()
    assert office.run("--variants").exit_code == 0
    (line,) = office.output.read_text().splitlines()
    assert json.loads(line)["data"]["Amount"] == 7
    office.output.unlink()
    office.cursor.unlink()
    assert office.run("--variants", "--format", "csv").exit_code == 0
    assert office.output.read_text().startswith("id,record,controller,type,received,data\n")


@pytest.mark.parametrize("given", ["uploadpumptransaction", "Nonsense", "UploadStatus", ""])
def test_a_type_that_no_record_has_is_an_error_that_names_those_there_are(
    office: Office, given: str
) -> None:
    office.sell(1)
    refused = office.run("--type", given)
    assert refused.exit_code == 2
    assert f"{given!r} is not the Type of any record" in refused.output
    words = " ".join(refused.output.replace("\u2502", " ").split())
    assert "UploadPayment, UploadPumpTransaction, UploadShift" in words
    assert not office.cursor.exists()


def test_a_type_of_no_record_so_far_is_none_that_is_wrong(office: Office) -> None:
    office.sell(1)
    assert office.run("--type", "UploadShift").exit_code == 0
    store = Store(office.path / "j.db")
    raw = b'{"Packets":[{"Id":1,"Type":"UploadNovelty","Data":{}}]}'
    store.write([Entry("AB", 1, Transport.WEBSOCKET, 1, raw, facts_of(raw))], [])
    office.cursor.unlink()
    assert office.run("--type", "UploadNovelty").exit_code == 0


def test_a_type_that_shares_an_entry_with_others_is_found(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptslink.journal.store.MAX_TYPES", 0)
    store = Store(office.path / "j.db")
    raw = b'{"Packets":[{"Id":1,"Type":"UploadNovelty","Data":{}}]}'
    store.write([Entry("AB", 1, Transport.WEBSOCKET, 1, raw, facts_of(raw))], [])
    store.close()
    assert office.run("--type", "UploadNovelty").exit_code == 0
    assert json.loads(office.output.read_text())["type"] == "UploadNovelty"
    assert office.run("--type", "uploadshift").exit_code == 2


@pytest.mark.parametrize("with_cursor", [False, True])
def test_who_reads_no_further_ends_an_export_quietly(office: Office, with_cursor: bool) -> None:
    """More than a pipe holds, of which one line is read."""
    data = ",".join(
        f'{{"Id":1,"Type":"UploadX","Data":{{"Number":{n},"Text":"{"x" * 400}"}}}}'
        for n in range(900)
    )
    store = Store(office.path / "j.db")
    raw = f'{{"Packets":[{data}]}}'.encode()
    store.write([Entry("AB", 1, Transport.WEBSOCKET, 1, raw, facts_of(raw))], [])
    store.close()
    command = [sys.executable, "-m", "ptslink.cli", "export", "--config", str(office.config)]
    command += ["--cursor-file", str(office.cursor)] if with_cursor else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as export:
        assert export.stdout
        assert export.stderr
        assert export.stdout.readline().startswith(b'{"id":')
        export.stdout.close()
        assert export.stderr.read() == b""
        assert export.wait() == 1
    assert not office.cursor.exists()
