"""The page of the fault matrix counts what was run, and every cause is in it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from machines.faults.document import document
from machines.faults.fault import Fault, NotInjected, server, well_behaved
from machines.faults.helpers import tracked
from machines.faults.runner import tables
from ptslink.doctor.causes import CAUSES


def row(id_: str, right: bool = True, variant: str = "", **more: Any) -> dict[str, Any]:
    layer = next(cause.layer.value for cause in CAUSES if cause.id == id_)
    return {
        "id": id_, "variant": variant, "layer": layer, "twin": False, "right": right,
        "layer_right": True, "named": id_ if right else "hs-wrong-path", "seconds": 2.0,
        "healthy_after": True, "day": "2026-05-01", **more,
    }  # fmt: skip


def test_a_cause_counts_as_named_only_if_each_of_its_ways_was() -> None:
    page = document(
        [row("px-limit-req"), row("px-emfile"), row("px-emfile", right=False, variant="slow")], []
    )
    assert "2 of " in page
    assert "injected in 3 ways; named exactly: 1 causes (2 ways); right in layer: 3 ways" in page
    assert "| `px-emfile` | slow | no: hs-wrong-path |" in page


def test_the_newest_result_of_a_row_counts() -> None:
    page = document([row("px-emfile", right=False), row("px-emfile")], [])
    assert "no: hs-wrong-path" not in page


def test_it_tells_the_day_it_was_run_or_the_days_of_each_layer() -> None:
    once = [row("px-emfile", day="2026-05-01"), row("dns-name-typo", day="2026-05-01")]
    assert "All of it run on 2026-05-01." in document(once, [])
    later = row("dns-name-typo", variant="new", day="2026-05-03")
    assert "Run: dns on 2026-05-01, 2026-05-03; proxy on 2026-05-01. The newest" in document(
        [*once, later], []
    )


def test_a_healthy_system_in_which_something_was_found_is_told() -> None:
    system = {
        "id": "healthy", "variant": "a: b", "layer": None, "twin": True, "configuration": "a",
        "doing": "b", "right": False, "found": {"site": ["px-emfile"]}, "seconds": 1.0,
    }  # fmt: skip
    page = document([row("px-limit-req"), system], [])
    assert "Healthy systems in which it stayed silent: 0 of 1." in page
    assert "| a | b | {'site': ['px-emfile']} | 1.0 |" in page


def test_what_is_not_injected_has_its_reason_on_the_page() -> None:
    page = document([row("px-emfile")], [NotInjected("px-selinux-denied", "no SELinux here")])
    assert "| `px-selinux-denied` | no SELinux here |" in page
    assert "proven by unit cases only" in page


def test_every_row_is_of_a_known_cause_and_has_a_name_of_its_own() -> None:
    faults, left_out = tables()
    names = [fault.name for fault in faults if not fault.healthy]
    assert len(names) == len(set(names))
    known = {cause.id for cause in CAUSES}
    assert {fault.id for fault in faults if not fault.healthy} <= known
    assert {one.id for one in left_out} <= known


def test_the_twin_of_a_row_is_reached_and_examined_as_the_row_was() -> None:
    fault = Fault(
        "px-emfile", (server("break"),), url="ws://{server}:3000/x", site_options=("--idle", "8")
    )
    twin = fault.healthy_twin()
    assert (twin.url, twin.vantages, twin.site_options) == (
        fault.url, fault.vantages, fault.site_options,
    )  # fmt: skip
    assert twin.inject == ()


def test_where_only_the_server_is_asked_the_twin_has_a_controller_on_the_way_of_the_row() -> None:
    faults, _ = tables()
    alone = [fault for fault in faults if fault.vantages == ("server",)]
    assert len(alone) > 50
    for fault in alone:
        steps = fault.healthy_twin().inject
        assert any(step.background and step.place == "controller" for step in steps), fault.name


@pytest.mark.parametrize(
    ("url", "port"),
    [("ws://{server}/p", 80), ("wss://{server}/p", 443), ("ws://{server}:3000/p", 3000),
     ("wss://pts.example.test/p --address {server}", 443)],
)  # fmt: skip
def test_a_well_behaved_controller_is_waited_for_on_the_port_of_its_url(
    url: str, port: int
) -> None:
    assert f"sport = :{port} " in well_behaved(url)[-1].line


def test_memory_is_filled_with_connections_that_all_differ() -> None:
    messages = {tracked(number, 60) for number in (0, 1, 59_999, 60_000, 299_999)}
    assert len(messages) == 5
    assert {int.from_bytes(one[:4], sys.byteorder) for one in messages} == {
        len(one) for one in messages
    }
