"""What a good run left is kept whole, and put back exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def record(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("run_record/library/run_record_state")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's worth of files: a configuration, a release, the link to it."""
    (tmp_path / "releases" / "one").mkdir(parents=True)
    (tmp_path / "releases" / "two").mkdir()
    (tmp_path / "current").symlink_to("releases/one")
    (tmp_path / "conf").write_text("good\n")
    (tmp_path / "conf").chmod(0o640)
    return tmp_path


def taken(record: Any, host: Path) -> dict[str, Any]:
    paths = [host / "conf", host / "current", host / "not-there"]
    return {"paths": {str(path): record.look(path) for path in paths}, "notes": {"a": 1}}


def test_what_is_put_back_is_what_was(record: Any, host: Path) -> None:
    before = taken(record, host)
    (host / "conf").write_text("bad\n")
    (host / "conf").chmod(0o666)
    (host / "current").unlink()
    (host / "current").symlink_to("releases/two")
    (host / "not-there").write_text("new\n")
    for path, wanted in before["paths"].items():
        record.lay(Path(path), wanted)
    assert taken(record, host) == before
    assert (host / "conf").stat().st_mode & 0o777 == 0o640
    assert (host / "current").resolve().name == "one"


def test_only_what_differs_is_named(record: Any, host: Path) -> None:
    before = taken(record, host)["paths"]
    (host / "conf").write_text("bad\n")
    now = taken(record, host)["paths"]
    assert record.differences(now, before) == [str(host / "conf")]
    shown = record.shown([str(host / "conf")], now, before)
    assert "-bad" in shown
    assert "+good" in shown


def test_a_difference_shows_no_secret(record: Any, host: Path) -> None:
    path = host / "conf"
    path.write_text('port = 1\nsecret = "planted-one"\n')
    before = taken(record, host)["paths"]
    path.write_text('port = 2\nsecret = "planted-two"\n')
    shown = record.shown([str(path)], taken(record, host)["paths"], before)
    assert "+port = 1" in shown
    assert "planted" not in shown


def test_a_mode_alone_is_a_difference(record: Any, host: Path) -> None:
    before = taken(record, host)["paths"]
    (host / "conf").chmod(0o644)
    assert record.differences(taken(record, host)["paths"], before) == [str(host / "conf")]


def test_records_are_roots_alone_and_the_oldest_are_forgotten(record: Any, host: Path) -> None:
    records = record.Records(host / "records")
    names = [records.write("good", {"paths": {}, "notes": {"n": n}}, keep=3) for n in range(5)]
    assert records.names("good") == names[-3:]
    kept = host / "records" / names[-1]
    assert kept.stat().st_mode & 0o077 == 0
    assert (host / "records").stat().st_mode & 0o077 == 0


def test_the_last_good_run_is_found_and_the_previous_one(record: Any, host: Path) -> None:
    records = record.Records(host / "records")
    first = records.write("good", taken(record, host), keep=9)
    (host / "conf").write_text("better\n")
    second = records.write("good", taken(record, host), keep=9)
    link = host / "current"
    assert record.choose(records, "last", link)[0] == second
    # What is there is like the second: the one before it is the previous one.
    assert record.choose(records, "previous", link)[0] == first


def test_a_record_whose_release_is_gone_is_passed_over(record: Any, host: Path) -> None:
    records = record.Records(host / "records")
    first = records.write("good", taken(record, host), keep=9)
    (host / "current").unlink()
    (host / "current").symlink_to("releases/two")
    records.write("good", taken(record, host), keep=9)
    (host / "releases" / "two").rmdir()
    assert record.choose(records, "last", host / "current")[0] == first


def test_what_was_replaced_is_never_taken_for_good(record: Any, host: Path) -> None:
    records = record.Records(host / "records")
    records.write("replaced", taken(record, host), keep=9)
    with pytest.raises(record.Missing, match="no good run"):
        record.choose(records, "last", host / "current")


def test_half_a_record_is_none(record: Any, host: Path) -> None:
    records = record.Records(host / "records")
    name = records.write("good", taken(record, host), keep=9)
    (host / "records" / name).rename(host / "records" / f".{name}")
    assert records.names("good") == []
