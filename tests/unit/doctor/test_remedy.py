"""Which fixes may be applied unasked."""

from __future__ import annotations

from typing import Any

import pytest

from ptslink.doctor.cause import Auto, Fix, Layer, Match
from ptslink.doctor.commands import PROVISION_NGINX
from ptslink.doctor.finding import Finding
from ptslink.doctor.remedy import Remedy, remedies
from ptslink.doctor.verdict import Verdict


def of(*, confidence: float = 0.9, follows: str | None = None, **fix: Any) -> list[Remedy]:
    """What may be done about one finding with this fix."""
    given = Fix("Do it.", "It works.", **{"auto": Auto.YES, **fix})
    found = Finding("x", Layer.TCP, "X", Match(confidence, ("seen",)), given, follows)
    return remedies(Verdict("ws://h/p", ("server",), (found,), ()))


def test_a_command_is_run_as_it_stands() -> None:
    given = (("systemctl", "enable", "--now", "nginx.service"),)
    [remedy] = of(commands=given)
    assert (remedy.commands, remedy.provision) == (given, False)
    assert not remedy.refused


def test_provisioning_takes_the_place_of_its_own_command() -> None:
    [remedy] = of(commands=PROVISION_NGINX)
    assert (remedy.commands, remedy.provision, remedy.refused) == ((), True, "")


def test_variables_are_provisioned_with() -> None:
    [remedy] = of(ansible={"nginx_proxy_idle_timeout_seconds": 300})
    assert remedy.provision
    assert dict(remedy.variables) == {"nginx_proxy_idle_timeout_seconds": 300}


@pytest.mark.parametrize("auto", [Auto.ASK, Auto.NO])
def test_what_is_to_be_asked_or_left_to_a_person_is_not_done(auto: Auto) -> None:
    assert of(auto=auto, commands=(("reboot",),)) == []


def test_a_guess_is_not_acted_on() -> None:
    assert of(confidence=0.4, commands=(("true",),)) == []


def test_an_aftermath_goes_away_with_its_cause() -> None:
    assert of(follows="host-disk-full", commands=(("true",),)) == []


@pytest.mark.parametrize(
    ("fix", "names"),
    [
        ({"commands": (("ufw", "allow", "PORT/tcp"),)}, "PORT"),
        ({"ansible": {"settings": {"users": {"LOGIN": "PASSWORD"}}}}, "LOGIN, PASSWORD"),
        ({"ansible": {"proxies": ["PROXY_ADDRESS"]}}, "PROXY_ADDRESS"),
    ],
)
def test_what_the_evidence_did_not_tell_is_for_a_person(fix: dict[str, Any], names: str) -> None:
    [remedy] = of(**fix)
    assert remedy.refused == f"{names} is for a person to fill in"


def test_a_fix_that_says_nothing_to_do_is_refused() -> None:
    [remedy] = of()
    assert remedy.refused
