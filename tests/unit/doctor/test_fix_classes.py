"""Whether a fix may be applied unasked, where that hangs on the evidence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptslink.doctor.cause import Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.commands import PROVISION_NGINX, Commands
from ptslink.doctor.evidence import Evidence
from ptslink.doctor.finding import Finding
from ptslink.doctor.remedy import remedies
from ptslink.doctor.verdict import Verdict, judge
from unit.doctor.programs import assert_runnable
from unit.doctor.traces import CONTROLLER, NOW, attempt, case, link, records, seen, service_config

ROOT = Path(__file__).parents[3]
TYPO = "/ptsWebSocekt"


def verdict(*evidence: Evidence) -> Verdict:
    return judge(case(*evidence), CAUSES)


def first(*evidence: Evidence) -> Finding:
    return verdict(*evidence).findings[0]


def doctors_try(controller: str) -> Evidence:
    return seen("http.upgrade", "site", status=404, path=TYPO, scheme="ws", port=3000,
                controller_id=controller, body='{"error":"wrong-path","message":"no"}',
                headers={})  # fmt: skip


def test_a_path_a_controller_asked_for_may_be_accepted_unasked() -> None:
    found = first(service_config(), records([attempt("wrong-path", 404, path="/pts2")]))
    assert (found.id, found.fix.auto.value) == ("hs-wrong-path", "yes")


@pytest.mark.parametrize("controller", ["0" * 16 + "12345678", CONTROLLER])
def test_a_path_that_only_the_doctor_was_given_may_not(controller: str) -> None:
    """Nor where it came under a controller's own id."""
    own = records([attempt("wrong-path", 404, path=TYPO, controller=controller)])
    seen_by_all = verdict(service_config(), doctors_try(controller), own)
    found = seen_by_all.findings[0]
    assert (found.id, found.fix.auto.value) == ("hs-wrong-path", "ask")
    assert remedies(seen_by_all) == []
    assert any("no controller" in line for line in found.match.evidence)


def test_a_controller_on_the_same_path_as_the_doctor_counts() -> None:
    own = records([attempt("wrong-path", 404, path=TYPO, controller="AA" * 12)])
    assert first(service_config(), doctors_try("0" * 16 + "12345678"), own).fix.auto.value == "yes"


@pytest.mark.parametrize(
    ("listeners", "auto"),
    [([{"port": 80, "process": "haproxy", "unit": "haproxy.service"}], "yes"), ([], "ask")],
)
def test_pings_are_put_in_time_unasked_before_an_own_proxy_alone(
    listeners: list[dict[str, object]], auto: str
) -> None:
    ends = [
        link("lost-rst", 50.0, NOW - n * 51.0, transport="rst", controller=name)
        for n in range(3)
        for name in ("A1", "B2")
    ]
    front = seen("http.upgrade", "site", status=101, headers={"Via": "1.1 edge"})
    more = [front] if not listeners else []
    # Ends at one moment are no timer's.
    ends = [{**one, "at": one["at"] + 3.0 * (one["controller"] == "B2")} for one in ends]
    found = first(
        service_config(keepalive={"ping_interval_seconds": 0.0}),
        records(links=ends),
        seen("net.listeners", listeners=listeners),
        *more,
    )
    assert (found.id, found.fix.auto.value) == ("px-other-idle-timeout", auto)
    assert found.fix.ansible == {"pts_server_ping_interval_seconds": 15}


@pytest.mark.parametrize(
    ("by", "variables"), [("nginx", False), ("service", True)], ids=["nginx", "service"]
)
def test_a_limit_that_strikes_a_shared_address_is_lifted_where_it_is(
    by: str, variables: bool
) -> None:
    line = {
        "time": NOW, "client": "198.51.100.20", "request": "GET /ptsWebSocket HTTP/1.1",
        "method": "GET", "path": "/ptsWebSocket", "version": "1.1", "port": 80,
        "upgrade": "websocket", "controller": "A1", "status": 101, "by": "backend",
        "request_seconds": 9.0, "upstream_header_seconds": 0.1,
    }  # fmt: skip
    refused = {**line, "time": NOW + 1.0, "controller": "B2", "status": 503, "by": "nginx",
               "upstream_header_seconds": None, "request_seconds": 0.0}  # fmt: skip
    lines = [line, refused] if by == "nginx" else [line]
    tries = [attempt("rate-limited", 429, NOW + 1.0, controller="B2")] if by == "service" else []
    event = {
        "time": NOW + 1.0, "kind": "limit-conn", "level": "error", "client": "198.51.100.20",
        "text": "limiting connections by zone", "request": line["request"], "port": 80,
    }  # fmt: skip
    evidence = [
        service_config(),
        seen("nginx.access", file=[], lines=lines),
        seen("nginx.error", file=[], hidden=False, events=[event] if by == "nginx" else []),
        records([attempt("accepted", 101, NOW, controller="A1"), *tries]),
    ]
    cause = next(one for one in CAUSES if one.id == "dev-site-shared-nat")
    match = cause.judge(case(*evidence))
    assert match is not None
    assert match.fix is not None
    [remedy] = remedies(
        dataclasses.replace(
            verdict(),
            findings=(Finding(cause.id, cause.layer, cause.title, match, match.fix, None),),
        )
    )
    assert remedy.provision
    assert not remedy.refused
    assert bool(remedy.variables) is variables


def test_a_fix_outside_the_site_file_survives_the_next_provisioning() -> None:
    cause = next(one for one in CAUSES if one.id == "hs-half-close-499")
    assert "/etc/nginx/conf.d/ptslink.conf" not in str(cause.fix.command)
    assert cause.fix.auto.value == "yes"


def fix_of(
    commands: Commands = (), ansible: dict[str, Any] | None = None, seen_line: str = "seen"
) -> Cause:
    """A cause that always matches, with a fix of class yes."""
    fix = Fix("Do.", "Done.", Auto.YES, commands, ansible or {})
    return Cause("x", Layer.HOST, "X", fix, lambda _case: Match(0.95, (seen_line,)))


def state(active: str, connected: int = 0) -> list[Evidence]:
    return [
        seen("host.unit", unit="nginx.service", active=active, load="loaded",
             result="exit-code" if active == "failed" else "success"),
        seen("service.live", health={"status": "ok"}, now=NOW,
             controllers=[{"id": f"A{n}"} for n in range(connected)]),
        service_config(keepalive={"ping_interval_seconds": 20}),
    ]  # fmt: skip


RESTART = (("systemctl", "restart", "nginx"),)
START = (("systemctl", "enable", "--now", "nginx.service"),)
LINE = "{} line 7: return 403"
# the fix, the state of nginx, how many are connected, what was seen -> its class
UNASKED = [
    (fix_of(RESTART), "active", 2, "ask"),
    (fix_of(RESTART), "active", 0, "yes"),
    # What failed by itself fails again.
    (fix_of(RESTART), "failed", 2, "ask"),
    (fix_of(START), "failed", 0, "ask"),
    (fix_of(START), "active", 0, "ask"),
    (fix_of(START), "inactive", 2, "yes"),
    (fix_of(ansible={"pts_server_ping_interval_seconds": 20}), "active", 0, "ask"),
    (fix_of(ansible={"pts_server_ping_interval_seconds": 15}), "active", 0, "yes"),
    (fix_of(ansible={"pts_server_settings": {"keepalive": {"ping_interval_seconds": 20}}}),
     "active", 0, "ask"),
    (fix_of(ansible={"pts_server_settings": {"limits": {"failures_per_minute": 600}}}),
     "active", 0, "ask"),
    (fix_of((("ufw", "delete", "limit", "80/tcp"),)), "active", 0, "ask"),
    (fix_of(PROVISION_NGINX, seen_line=LINE.format("/etc/nginx/sites-enabled/lb")), "active", 0,
     "ask"),
    (fix_of(PROVISION_NGINX, seen_line="nginx -t: duplicate in /etc/nginx/sites-enabled/tea:1"),
     "active", 0, "ask"),
    (fix_of(PROVISION_NGINX, seen_line=LINE.format("/etc/nginx/conf.d/ptslink.conf")), "active", 0,
     "yes"),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "active", "connected", "auto"), UNASKED)
def test_what_costs_somebody_something_or_mends_nothing_is_asked_for(
    cause: Cause, active: str, connected: int, auto: str
) -> None:
    found = judge(case(*state(active, connected)), [cause]).findings[0]
    assert found.fix.auto.value == auto
    # Why it is not done unasked is told.
    assert (len(found.match.evidence) > 1) is (auto == "ask")


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.id)
def test_every_command_of_a_general_fix_is_an_argument_vector_of_a_program(cause: Cause) -> None:
    assert_runnable(cause.fix)


def test_the_report_and_the_finding_are_there_before_a_provisioning_can_fail() -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / "diagnose.yml").read_text())
    imported = next(n for n, play in enumerate(plays) if "provision.yml" in str(play))
    before = [task for play in plays[:imported] for task in play["tasks"]]
    written = [task for task in before if "write_report.yml" in str(task)]
    assert len(written) == 1
    assert "__diagnose_first.verdict" in written[0]["vars"]["__diagnose_written"]
    told = before[before.index(written[0]) + 1]
    assert "findings | first" in str(told["ansible.builtin.debug"]["msg"])
