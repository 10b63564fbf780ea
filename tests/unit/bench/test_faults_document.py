"""The page of the fault matrix counts what was run, and every cause is in it."""

from __future__ import annotations

from typing import Any

from machines.faults.document import document
from machines.faults.fault import NotInjected
from machines.faults.runner import tables
from ptslink.doctor.causes import CAUSES


def row(id_: str, right: bool = True, variant: str = "", **more: Any) -> dict[str, Any]:
    layer = next(cause.layer.value for cause in CAUSES if cause.id == id_)
    return {
        "id": id_, "variant": variant, "layer": layer, "twin": False, "right": right,
        "layer_right": True, "named": id_ if right else "hs-wrong-path", "seconds": 2.0,
        "healthy_after": True, **more,
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
