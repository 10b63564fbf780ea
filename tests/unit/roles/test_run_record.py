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
    assert record.choose(records, "last", link).name == second
    # What is there is like the second: the one before it is the previous one.
    assert record.choose(records, "previous", link).name == first


def test_a_record_whose_release_is_gone_is_passed_over(record: Any, host: Path) -> None:
    records = record.Records(host / "records")
    first = records.write("good", taken(record, host), keep=9)
    (host / "current").unlink()
    (host / "current").symlink_to("releases/two")
    records.write("good", taken(record, host), keep=9)
    (host / "releases" / "two").rmdir()
    assert record.choose(records, "last", host / "current").name == first


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


MAIN = "user www-data;\nevents {\n    worker_connections 768;\n}\n"
ASKED = {"worker_connections": 20256, "worker_rlimit_nofile": 20512}


@pytest.fixture
def limited(record: Any, host: Path, plugin: Callable[[str], ModuleType]) -> Callable[..., Any]:
    """A good run over nginx's file as the distribution has it; then a run that raised its limits.

    Gives the way back from what the file is made to be after that.
    """
    limits = plugin("nginx_proxy/module_utils/nginx_proxy_limits")
    conf = host / "nginx.conf"
    conf.write_text(MAIN)
    conf.chmod(0o640)
    asked = {str(conf): ASKED}
    records = record.Records(host / "records")
    before = taken(record, host) | {"limits": record.limits_found({str(conf): {}})}
    records.write("good", before | {"limits": record.limits_found(asked)}, keep=9)

    def way(edit: Callable[[str], str], which: str = "last") -> Any:
        conf.write_text(edit(limits.raised(MAIN, ASKED)))
        return record.choose(records, which, host / "current", record.limits_found(asked))

    return way


def test_limits_a_failed_run_raised_are_lowered_again(
    record: Any, limited: Callable[..., Any], host: Path
) -> None:
    way = limited(str)
    assert way.changes == []
    assert "+    worker_connections 768;" in way.difference()
    for path, text in way.lowerings.items():
        record.rewrite(path, text)
    assert (host / "nginx.conf").read_text() == MAIN
    assert (host / "nginx.conf").stat().st_mode & 0o777 == 0o640


def test_what_others_wrote_into_the_file_since_stays(limited: Callable[..., Any]) -> None:
    [text] = limited(lambda text: f"# theirs\n{text}error_log syslog:;\n").lowerings.values()
    assert text == f"# theirs\n{MAIN}error_log syslog:;\n"


def test_a_limit_above_what_was_asked_for_is_somebody_elses(limited: Callable[..., Any]) -> None:
    [text] = limited(lambda text: text.replace("20256", "50000")).lowerings.values()
    assert text == MAIN.replace("768", "50000")


def test_a_lower_limit_of_others_is_not_raised(limited: Callable[..., Any]) -> None:
    assert limited(lambda _: MAIN.replace("768", "512")).lowerings == {}


def test_a_good_run_that_differs_in_limits_alone_is_one_to_go_back_to(
    record: Any, limited: Callable[..., Any]
) -> None:
    assert limited(str, "previous").lowerings
    with pytest.raises(record.Missing, match="every good run"):
        limited(lambda _: MAIN, "previous")


def test_a_record_of_before_there_were_limits_says_nothing_of_them(record: Any, host: Path) -> None:
    records = record.Records(host / "records")
    records.write("good", taken(record, host), keep=9)
    way = record.choose(records, "last", host / "current", {})
    assert (way.changes, way.lowerings) == ([], {})


def told(host: Path, name: str = "") -> dict[str, Any]:
    """What the module is given of a good run, with an account of it."""
    return {
        "paths": [str(host / "conf"), str(host / "current")],
        "limits": {},
        "notes": {},
        "keep": 10,
        "release_link": str(host / "current"),
        "run": {"outcome": "changed", "versions": {"ansible_core": "2.19"}},
        "run_name": name,
    }


def test_the_account_of_a_run_has_versions_and_what_changed_since_the_last(
    record: Any, host: Path
) -> None:
    records = record.Records(host / "records")
    record.keep_good(records, told(host), check_mode=False)
    (host / "conf").write_text('secret = "planted"\nport = 2\n')
    result = record.keep_good(records, told(host), check_mode=False)
    kept = records.read(records.names("run")[-1])
    assert kept == result["run"]
    assert "+port = 2" in kept["since_last_good"]
    assert "planted" not in str(kept)
    assert kept["versions"]["ptslink"] == "one"
    assert {"ansible_core", "host_python", "kernel"} <= set(kept["versions"])


def test_a_run_that_changed_nothing_leaves_an_account_and_no_new_good_state(
    record: Any, host: Path
) -> None:
    records = record.Records(host / "records")
    for _ in range(2):
        result = record.keep_good(records, told(host), check_mode=False)
    assert not result["changed"]
    assert (len(records.names("good")), len(records.names("run"))) == (1, 2)


def test_the_eleventh_account_drops_the_oldest_and_no_good_state(record: Any, host: Path) -> None:
    records = record.Records(host / "records")
    names = [f"run-20260101T0000{n:02}Z-000000000.json" for n in range(11)]
    for name in names:
        record.keep_good(records, told(host, name), check_mode=False)
    assert records.names("run") == names[1:]
    assert len(records.names("good")) == 1


def test_a_dry_run_leaves_nothing(record: Any, host: Path) -> None:
    records = record.Records(host / "records")
    assert record.keep_good(records, told(host), check_mode=True)["changed"]
    assert not records.directory.exists()


def test_a_disk_without_room_for_the_account_fails_no_good_run(record: Any, host: Path) -> None:
    records = record.Records(host / "records")
    result = record.keep_good(records, told(host, "no/such.json"), check_mode=False)
    assert result["run"]["outcome"] == "changed"
    assert "no/such.json" in result["unkept"]


@pytest.mark.parametrize("path", ["", ":", ".", "/nowhere::"])
def test_no_program_of_the_working_directory_is_asked(
    record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "nginx").write_text("#!/bin/sh\necho planted/1\n")
    (tmp_path / "nginx").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    assert record.system().get("nginx") != "1"
