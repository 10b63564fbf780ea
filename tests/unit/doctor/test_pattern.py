"""What stands out in many links: loops, the timer behind a constant age, many lost at once."""

from __future__ import annotations

from typing import Any

import pytest

from ptslink.doctor.collect import gather_records
from ptslink.doctor.collect.edge import Output
from ptslink.doctor.evidence import Evidence, Status
from ptslink.doctor.pattern import Timers, constant, fingerprints, near, patterns
from ptslink.doctor.verdict import judge
from unit.doctor.fake_machine import FakeMachine
from unit.doctor.traces import NOW, case, link, records, seen, service_config


def loop(
    count: int, seconds: float, gap: float = 1.0, code: str = "lost-fin", **more: Any
) -> list[dict[str, Any]]:
    """Links of one controller that follow each other."""
    return [link(code, seconds, at=NOW + n * (seconds + gap), **more) for n in range(count)]


def stand_out(*evidence: Evidence) -> dict[str, Evidence]:
    return {piece.probe: piece for piece in patterns(case(*evidence))}


def test_no_link_on_record_is_not_health() -> None:
    (piece,) = patterns(case(records()))
    assert (piece.probe, piece.status) == ("pattern.links", Status.UNKNOWN)


def test_the_overview_counts_ends_and_short_links() -> None:
    ends = [link("closed", 900.0, NOW), link("lost-fin", 0.4, NOW + 999),
            link("lost-fin", 70.0, NOW + 2000)]  # fmt: skip
    facts = stand_out(records(links=ends))["pattern.links"].facts
    assert facts == {"links": 3, "short": 1, "ends": {"closed": 1, "lost-fin": 2}}


@pytest.mark.parametrize(
    ("tables", "lifetime", "words"),
    [
        ({"keepalive": {"ping_interval_seconds": 7.0, "ping_timeout_seconds": 5.0}}, 12.1,
         "ping interval + ping timeout (12 s)"),
        ({"limits": {"idle_seconds": 33.0}}, 33.1, "limits.idle_seconds (33 s)"),
        ({"limits": {"idle_seconds": 44.0}}, 33.1, ""),
    ],
)  # fmt: skip
def test_a_loop_of_equal_ages_names_the_configured_timer(
    tables: dict[str, Any], lifetime: float, words: str
) -> None:
    found = stand_out(service_config(**tables), records(links=loop(5, lifetime)))["pattern.loop"]
    assert found.status is Status.FAILED
    assert found.facts["seconds"] == pytest.approx(lifetime)
    assert found.facts["period"] == pytest.approx(lifetime + 1.0)
    assert words in found.seen
    assert bool(found.facts["fingerprints"]) is bool(words)


def test_three_links_or_far_apart_ones_are_no_loop() -> None:
    assert "pattern.loop" not in stand_out(records(links=loop(3, 20.0)))
    assert "pattern.loop" not in stand_out(records(links=loop(5, 20.0, gap=500.0)))
    assert "pattern.loop" in stand_out(records(links=loop(4, 20.0)))


def test_a_loop_whose_ages_vary_has_no_timer() -> None:
    ages = [3.0, 40.0, 11.0, 77.0, 5.0]
    ends = [link("lost-fin", age, NOW + sum(ages[: n + 1]) + n) for n, age in enumerate(ages)]
    found = stand_out(service_config(), records(links=ends))["pattern.loop"]
    assert "durations vary" in found.seen
    assert found.facts["fingerprints"] == []


def test_controllers_lost_together_are_one_drop_with_what_happened_before() -> None:
    ends = [link("lost-fin", 300.0 + n, NOW + n / 5, controller=f"C{n}") for n in range(3)]
    reload = seen("nginx.error", events=[{"time": NOW - 60.0, "kind": "reloading"},
                                         {"time": NOW - 400.0, "kind": "started"}])  # fmt: skip
    found = stand_out(records(links=ends), reload)["pattern.drop"]
    assert found.seen == "3 controllers lost together; reloading 60.0 s before"
    assert found.status is Status.FAILED
    assert found.facts["controllers"] == ["C0", "C1", "C2"]


def test_two_controllers_or_one_that_ends_often_are_no_drop() -> None:
    two = [link("lost-fin", 300.0, NOW + n / 5, controller=f"C{n % 2}") for n in range(4)]
    apart = [link("lost-fin", 300.0, NOW + 10 * n, controller=f"C{n}") for n in range(4)]
    for ends in (two, apart):
        assert "pattern.drop" not in stand_out(records(links=ends))


def test_a_probes_own_links_do_not_stand_out() -> None:
    own = loop(6, 5.0, controller="0" * 16 + "AABBCCDD")
    assert stand_out(records(links=own))["pattern.links"].status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("ends", "later", "status"),
    [
        (loop(5, 20.0), 5.0, Status.FAILED),
        # Given up, or over: the records alone do not tell which.
        (loop(5, 20.0), 600.0, Status.UNKNOWN),
        # Who says good-bye each time has no fault.
        (loop(5, 20.0, code="closed", close_rcvd=[1000, ""], close_sent=[1000, ""]), 5.0,
         Status.UNKNOWN),
        # A planned stop of ours.
        (loop(5, 20.0, code="closed", close_sent=[1012, "restart"]), 5.0, Status.UNKNOWN),
        (loop(5, 20.0, code="ping-timeout", close_sent=[1011, "keepalive"]), 5.0, Status.FAILED),
    ],
)  # fmt: skip
def test_only_a_loop_of_lost_links_that_goes_on_is_a_failure(
    ends: list[dict[str, Any]], later: float, status: Status
) -> None:
    found = stand_out(records(links=ends, now=ends[-1]["at"] + later))["pattern.loop"]
    assert found.status is status


def test_a_loop_of_who_is_connected_again_is_over() -> None:
    ends = loop(5, 2.0)
    now = ends[-1]["at"] + 30.0
    back = {"id": ends[0]["controller"], "since": (now - 25.0) * 1000}
    live = seen("service.live", now=now, controllers=[back])
    assert stand_out(records(links=ends, now=now), live)["pattern.loop"].status is Status.UNKNOWN


def refusals(count: int, controller: str = "AB" * 12, **more: Any) -> list[dict[str, Any]]:
    first = {"at": NOW, "controller": controller, "peer": "198.51.100.20", "status": 418,
             "code": "teapot", "reason": "", "method": "GET", "path": "/ptsWebSocket",
             "headers": [["Upgrade", "websocket"]]}  # fmt: skip
    return [first | {"at": NOW + n} | more for n in range(count)]


def test_a_burst_tells_its_first_error_apart_from_the_limits_that_follow() -> None:
    tries = refusals(2) + [one | {"at": NOW + 9 + n} for n, one in
                           enumerate(refusals(4, status=429, code="rate-limited"))]  # fmt: skip
    found = stand_out(records(attempts=tries, now=NOW + 14))["pattern.burst"]
    assert (found.status, found.facts["tries"], found.facts["limits"]) == (Status.FAILED, 6, 4)
    assert "answered 418" in found.facts["first"]
    assert "4 of them by a limit, which only follows" in found.seen


@pytest.mark.parametrize(
    ("tries", "later"), [(refusals(2), 2.0), (refusals(6), 900.0)], ids=["few", "over"]
)
def test_few_refusals_or_old_ones_are_no_failure(tries: list[dict[str, Any]], later: float) -> None:
    found = stand_out(records(attempts=tries, now=NOW + 6 + later))["pattern.burst"]
    assert found.status is Status.UNKNOWN


def test_a_scanner_makes_no_burst() -> None:
    tries = refusals(9, controller="", method="GET", headers=[], status=404, path="/wp-login.php")
    assert "pattern.burst" not in stand_out(records(attempts=tries, now=NOW + 9))


def test_a_loop_and_a_burst_that_nothing_explains_are_findings_of_their_layer() -> None:
    ends, tries = loop(6, 7.3), refusals(6)
    at_loop = judge(case(records(links=ends, now=ends[-1]["at"] + 1)), ())
    at_burst = judge(case(records(attempts=tries, now=NOW + 7)), ())
    assert [finding.id for finding in at_loop.findings] == ["unlisted-ws-protocol"]
    assert [finding.id for finding in at_burst.findings] == ["unlisted-http-upgrade"]


# measured, timer -> whether it is that timer's
NEAR = [(60.0, 60.0, True), (60.9, 60.0, True), (59.0, 60.0, False), (62.0, 60.0, False),
        (20.3, 20.0, True), (None, 60.0, False), (0.0, 0.0, False), (5.0, None, False)]  # fmt: skip


@pytest.mark.parametrize(("value", "timer", "same"), NEAR)
def test_a_time_is_a_timers_within_a_hundredth(
    value: float | None, timer: float | None, same: bool
) -> None:
    assert near(value, timer) is same


def test_an_age_is_constant_though_one_link_fell_out() -> None:
    assert constant([60.1, 60.0, 60.2, 3.0]) == pytest.approx(60.05)
    assert constant([60.1, 60.0]) is None
    assert constant([60.0, 3.0, 9.0, 31.0]) is None


def test_only_configured_timers_leave_a_fingerprint() -> None:
    assert fingerprints(60.1, Timers()) == []
    assert fingerprints(60.1, Timers(proxy_read=60.0)) == ["nginx's proxy_read_timeout (60 s)"]
    assert fingerprints(45.2, Timers(ping_interval=20.0, ping_timeout=20.0, close=5.0)) == [
        "ping interval + timeout + close_seconds (45 s)"
    ]


def test_a_package_upgrade_is_a_moment_that_explains_a_drop() -> None:
    ends = [link("lost-fin", 300.0 + n, NOW + n / 5, controller=f"C{n}") for n in range(3)]
    run = {"start": NOW - 9.0, "end": NOW - 1.0, "unattended": True, "packages": ["nginx"]}
    upgrades = seen("host.upgrades", runs=[run], timers=True)
    unit = seen("host.unit", unit="ptslink.service", started=NOW - 0.5)
    found = stand_out(records(links=ends), upgrades, unit)["pattern.drop"]
    assert found.seen == (
        "3 controllers lost together; unattended upgrade (nginx) begun 9.0 s before, "
        "unattended upgrade (nginx) 1.0 s before, ptslink.service started 0.5 s before"
    )


def test_the_patterns_gather_the_host_and_the_sockets_too() -> None:
    machine = FakeMachine(
        {"ss -H -tanoi": Output("ESTAB 0 9 10.0.0.1:80 10.0.0.9:5000 timer:(on,1min,5)\n"),
         "ss -H -ltnpe": Output('LISTEN 0 511 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=1,fd=6))')},
        {"/var/log/apt/history.log": "Start-Date: 2026-11-23  06:12:01\n"
         "Upgrade: nginx:amd64 (1, 2)\nEnd-Date: 2026-11-23  06:12:09"},
    )  # fmt: skip
    found = {piece.probe: piece for piece in gather_records(machine=machine)}
    assert found["net.sockets"].facts["total"] == 1
    assert found["host.upgrades"].facts["runs"][0]["packages"] == ["nginx"]
    assert {"service.records", "nginx.config", "host.clock"} <= found.keys()
    assert not {"net.firewall", "net.bans"} & found.keys()
