"""The sandbox is tried with the unit's own settings, and the one at fault is named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest

TEMPLATE = Path(__file__).parents[3] / "roles/pts_server/templates/ptslink.service.j2"


@pytest.fixture
def sandbox(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("pts_server/library/pts_server_sandbox")


def unit(kind: str, journal: str = "/var/lib/ptslink/journal.db") -> str:
    """The unit as the role writes it."""
    environment = jinja2.Environment(trim_blocks=True)
    environment.filters |= {"comment": str, "dirname": lambda path: str(Path(path).parent)}
    return environment.from_string(TEMPLATE.read_text()).render(
        pts_server_sandbox=kind,
        __pts_server_user="ptslink",
        __pts_server_home="/var/lib/ptslink",
        __pts_server_journal_in_use=journal,
        ansible_managed="",
    )


def names(settings: Sequence[str]) -> set[str]:
    return {one.partition("=")[0] for one in settings}


def test_what_confines_the_service_is_tried_and_nothing_that_disturbs_it(sandbox: Any) -> None:
    tried = names(sandbox.settings(unit("full")))
    assert {"User", "PrivateUsers", "ProtectSystem", "SystemCallFilter", "StateDirectory"} <= tried
    assert not {"ExecStart", "Restart", "Type", "RuntimeDirectory", "WantedBy", "After"} & tried


def test_a_reduced_sandbox_has_no_namespaces_and_keeps_the_rest(sandbox: Any) -> None:
    full, reduced = (names(sandbox.settings(unit(kind))) for kind in ("full", "reduced"))
    assert reduced < full
    gone = full - reduced
    assert {"PrivateUsers", "ProtectSystem", "PrivateTmp", "ProtectProc"} <= gone
    assert {"User", "NoNewPrivileges", "SystemCallFilter", "CapabilityBoundingSet"} <= reduced


def test_a_journal_elsewhere_can_be_written(sandbox: Any) -> None:
    assert "ReadWritePaths=/srv/disk" in sandbox.settings(unit("full", "/srv/disk/journal.db"))
    assert "ReadWritePaths" not in names(sandbox.settings(unit("full")))
    assert "ReadWritePaths" not in names(sandbox.settings(unit("reduced", "/srv/disk/x.db")))


def forbidding(*forbidden: str) -> Callable[[Sequence[str]], bool]:
    """A host that has no part with these settings."""
    return lambda settings: not names(settings) & set(forbidden)


@pytest.mark.parametrize(
    ("forbidden", "at_fault"),
    [
        (["PrivateUsers"], ["PrivateUsers=true"]),
        (["PrivateUsers", "ProtectProc"], ["PrivateUsers=true", "ProtectProc=invisible"]),
        (
            ["SystemCallFilter"],
            ["SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources"],
        ),
        (["User"], []),
    ],
)
def test_the_setting_at_fault_is_found(
    sandbox: Any, forbidden: list[str], at_fault: list[str]
) -> None:
    tried = sandbox.settings(unit("full"))
    assert sandbox.at_fault(tried, forbidding(*forbidden)) == at_fault


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        (1, "x\ncannot write to /srv/j: Read-only file system\n", "cannot write to /srv/j: Read-"),
        (226, "", "226/NAMESPACE"),
        (203, "", "203/EXEC"),
        (1, "Failed to connect to bus: no\n", "Failed to connect to bus"),
    ],
)
def test_why_it_failed_is_said(sandbox: Any, status: int, said: str, reason: str) -> None:
    assert reason in sandbox.reason(status, said)
