"""The doctor names what is broken on a real machine: one or two causes of each layer.

The whole matrix is `scripts/bench faults`. Takes a machine that is up if PTSLINK_FAULTS_LAB names
its lab, and leaves it up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from machines.faults import lab
from machines.faults.bench import Bench
from machines.faults.runner import HEALTHY, prepare, run_one, tables, verdict_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="machines need root")

#: Rows that need no waiting.
ROWS = (
    "dns-name-typo",
    "l3-no-return-route",
    "fw-ufw-drop",
    "tcp-bind-loopback",
    "tls-cert-expired",
    "px-upgrade-headers-missing",
    "px-captive-portal",
    "hs-wrong-path[through nginx]",
    "hs-subprotocol[named unasked]",
    "ws-rsv1-compressed",
    "app-ghost-blocks[refused with 409]",
    "host-disk-full",
    "dev-ws-disabled",
)
FAULTS = {fault.name: fault for fault in tables()[0]}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A provisioned machine with the doctor of this checkout on it."""
    given = os.environ.get("PTSLINK_FAULTS_LAB")
    name = given or f"faults-{os.getpid()}"
    with lab.ready(name):
        bench = Bench(name)
        prepare(bench, [FAULTS[row] for row in ROWS])
        yield bench


def test_it_is_silent_where_nothing_is_broken(bench: Bench) -> None:
    verdict, _, _ = verdict_of(bench, HEALTHY)
    assert [finding.id for finding in verdict.findings] == []
    assert {"site", "server"} <= set(verdict.vantages)


@pytest.mark.parametrize("row", ROWS)
def test_it_names_the_cause_and_is_silent_once_that_is_undone(bench: Bench, row: str) -> None:
    result = run_one(bench, FAULTS[row])
    assert result["named"] == FAULTS[row].id, result
    assert result["healthy_after"], result["left_behind"]
