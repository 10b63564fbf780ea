"""A restart under 500 connected controllers costs nobody anything, on a machine as users have it.

All 500 come from one address, through the site's NAT, with the limits as they are by default; 400
dial straight to port 3000 and 100 by way of nginx. Takes a machine that is up if
PTSLINK_RESTART_LAB names its lab, and leaves it up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.restart.attend import RELOAD, RESTART, SIGTERM, Attended, attend
from benchmarks.restart.machine import Machine

DIRECT, PROXIED = 400, 100

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="machines need root")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attended]:
    """What controllers saw of a restart, a SIGTERM and reloads, one after the other."""
    given = os.environ.get("PTSLINK_RESTART_LAB")
    machine = Machine(given or f"restart-{os.getpid()}")
    directory: Path = tmp_path_factory.mktemp("restart")
    try:
        if not given:
            machine.raise_up()
        yield attend(machine, directory, direct=DIRECT, proxied=PROXIED, say=print)
    finally:
        if not given:
            machine.down()


@pytest.mark.parametrize("command", [RESTART, SIGTERM])
def test_nobody_is_refused_while_the_server_is_replaced(seen: Attended, command: str) -> None:
    event = seen.events[command]
    assert not event.same_process
    assert event.refused == {}
    assert event.attempts == DIRECT + PROXIED, "somebody had to dial twice"
    assert len(event.away) == DIRECT + PROXIED


@pytest.mark.parametrize("command", [RESTART, SIGTERM])
def test_every_link_is_closed_with_1012_and_no_other_code(seen: Attended, command: str) -> None:
    assert seen.events[command].endings == {"1012": DIRECT + PROXIED}


def test_a_reload_closes_no_link(seen: Attended) -> None:
    event = seen.events[RELOAD]
    assert event.same_process
    assert event.endings == {}
    assert event.attempts == 0


def test_whatever_was_confirmed_meanwhile_is_in_the_journal_once(seen: Attended) -> None:
    assert seen.confirmed > DIRECT + PROXIED
    assert seen.faults == []
