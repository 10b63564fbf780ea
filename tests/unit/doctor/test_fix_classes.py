"""Whether a fix may be applied unasked, where that hangs on the evidence."""

from __future__ import annotations

import dataclasses

import pytest

from ptslink.doctor.causes import CAUSES
from ptslink.doctor.evidence import Evidence
from ptslink.doctor.finding import Finding
from ptslink.doctor.remedy import remedies
from ptslink.doctor.verdict import Verdict, judge
from unit.doctor.traces import CONTROLLER, NOW, attempt, case, link, records, seen, service_config

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
