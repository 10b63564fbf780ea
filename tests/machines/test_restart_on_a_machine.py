"""What an operator does under 500 connected controllers costs nobody anything, on a real machine.

All 500 come from one address, through the site's NAT, with the limits as they are by default; 350
dial straight to port 3000, 100 by way of nginx and 50 by way of nginx and TLS. Takes a machine
that is up if PTSLINK_RESTART_LAB names its lab, and leaves it up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.restart.attend import (
    CONFIGURE,
    RELOAD,
    RENEW,
    RESTART,
    SERVER,
    SIGTERM,
    WORKERS,
    Attended,
    attend,
)
from benchmarks.restart.machine import Machine

from support import provisioned

DIRECT, PROXIED, SECURED = 350, 100, 50
ALL = DIRECT + PROXIED + SECURED

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="machines need root")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attended]:
    """What controllers saw of each, one after the other."""
    given = os.environ.get("PTSLINK_RESTART_LAB")
    machine = Machine(given or f"restart-{os.getpid()}")
    directory: Path = tmp_path_factory.mktemp("restart")
    try:
        if not given:
            provisioned.up(machine.lab, [machine.name])
            machine.raise_up()
        yield attend(machine, directory, direct=DIRECT, proxied=PROXIED, secured=SECURED, say=print)
    finally:
        if not given:
            machine.down()


@pytest.mark.parametrize("what", [RESTART, SIGTERM])
def test_nobody_is_refused_while_the_server_is_replaced(seen: Attended, what: str) -> None:
    event = seen.events[what]
    assert event.replaced == [SERVER]
    assert event.refused == {}
    assert event.attempts == ALL, "somebody had to dial twice"
    assert len(event.away) == ALL


@pytest.mark.parametrize("what", [RESTART, SIGTERM])
def test_every_link_is_closed_with_1012_and_no_other_code(seen: Attended, what: str) -> None:
    assert seen.events[what].endings == {"1012": ALL}


@pytest.mark.parametrize(
    ("what", "replaced"), [(RELOAD, []), (CONFIGURE, [WORKERS]), (RENEW, [WORKERS])]
)
def test_whatever_needs_no_restart_closes_no_link(
    seen: Attended, what: str, replaced: list[str]
) -> None:
    event = seen.events[what]
    assert event.replaced == replaced, "the workers are new, and what they work for is not"
    assert event.endings == {}
    assert event.attempts == 0


def test_whatever_was_confirmed_meanwhile_is_in_the_journal_once(seen: Attended) -> None:
    assert seen.confirmed > ALL
    assert seen.faults == []
