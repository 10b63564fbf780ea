"""Which fixes may be applied unasked."""

from __future__ import annotations

from typing import Any

import pytest

from ptslink.doctor.cause import Auto, Fix, Layer, Match
from ptslink.doctor.finding import Finding
from ptslink.doctor.remedy import Remedy, remedies
from ptslink.doctor.verdict import Verdict


def of(*, confidence: float = 0.9, follows: str | None = None, **fix: Any) -> list[Remedy]:
    """What may be done about one finding with this fix."""
    given = Fix("Do it.", "It works.", **{"auto": Auto.YES, **fix})
    found = Finding("x", Layer.TCP, "X", Match(confidence, ("seen",)), given, follows)
    return remedies(Verdict("ws://h/p", ("server",), (found,), ()))


def test_a_command_is_run_as_it_stands() -> None:
    [remedy] = of(command="systemctl enable --now nginx.service")
    assert (remedy.command, remedy.provision) == ("systemctl enable --now nginx.service", False)
    assert not remedy.refused


def test_provisioning_takes_the_place_of_its_own_command() -> None:
    [remedy] = of(command="ansible-playbook -i INVENTORY site.yml --tags nginx_proxy")
    assert (remedy.command, remedy.provision, remedy.refused) == ("", True, "")


def test_variables_are_provisioned_with() -> None:
    [remedy] = of(ansible={"nginx_proxy_idle_timeout_seconds": 300})
    assert remedy.provision
    assert dict(remedy.variables) == {"nginx_proxy_idle_timeout_seconds": 300}


@pytest.mark.parametrize("auto", [Auto.ASK, Auto.NO])
def test_what_is_to_be_asked_or_left_to_a_person_is_not_done(auto: Auto) -> None:
    assert of(auto=auto, command="reboot") == []


def test_a_guess_is_not_acted_on() -> None:
    assert of(confidence=0.4, command="true") == []


def test_an_aftermath_goes_away_with_its_cause() -> None:
    assert of(follows="host-disk-full", command="true") == []


@pytest.mark.parametrize(
    ("fix", "names"),
    [
        ({"command": "ufw allow PORT/tcp"}, "PORT"),
        ({"ansible": {"settings": {"users": {"LOGIN": "PASSWORD"}}}}, "LOGIN, PASSWORD"),
        ({"ansible": {"proxies": ["PROXY_ADDRESS"]}}, "PROXY_ADDRESS"),
    ],
)
def test_what_the_evidence_did_not_tell_is_for_a_person(fix: dict[str, Any], names: str) -> None:
    [remedy] = of(**fix)
    assert remedy.refused == f"{names} is for a person to fill in"


@pytest.mark.parametrize("command", ["nginx: key by $http_x_pts_id", "set a ... instead of b"])
def test_advice_is_not_run_as_a_command(command: str) -> None:
    [remedy] = of(command=command)
    assert remedy.refused.startswith("not a command")


def test_a_fix_that_says_nothing_to_do_is_refused() -> None:
    [remedy] = of()
    assert remedy.refused
