"""Each fault, as a real nginx logged it, is the first finding; in health there is none."""

from __future__ import annotations

from typing import Any

import pytest

from ptslink.doctor.attempts import attempts, troubles
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.collect.nginx_log import read_access
from ptslink.doctor.collect.tls import read_pem, read_s_client
from ptslink.doctor.evidence import Evidence, Status
from ptslink.doctor.verdict import GUESS, judge
from unit.doctor.traces import (
    CAPTURES,
    NOW,
    attempt,
    captured_access,
    case,
    config_of,
    on_port,
    records,
    seen,
    service_config,
)


def named(*evidence: Evidence, **more: Any) -> list[str]:
    return [finding.id for finding in judge(case(*evidence, **more), CAUSES).findings]


#: As a real s_client printed one, and one of the other kind.
CERTIFICATES: dict[str, dict[str, Any]] = {
    "expired": read_pem((CAPTURES / "openssl-s-client-expired.txt").read_text()),
    "ecdsa": {
        "subject": "CN = pts.example.test", "issuer": "CN = pts.example.test", "key": "ecdsa",
        "sans": ["DNS:pts.example.test"], "not_before": NOW - 1e6, "not_after": NOW + 1e6,
    },
}  # fmt: skip


def certificate(which: str, port: int, now: float = NOW, probe: str = "tls.served") -> Evidence:
    facts = CERTIFICATES[which]
    return seen(probe, port=port, ports=[port], now=now, file=f"{which}.crt", **facts)


def offer(variant: str, ok: bool, port: int) -> Evidence:
    return seen("tls.offer", port=port, variant=variant, ok=ok, variation=True)


#: A client that failed as well: its own handshake, seen from the site.
HURT = seen("tls.handshake", "site", Status.FAILED, errno=None, reason="UNSPECIFIED")
UNANSWERED = seen("http.upgrade", "site", Status.FAILED)


def alert(port: int, number: int) -> list[Evidence]:
    """Only the events of *port* with this alert."""
    found = on_port(port)
    for piece in found:
        if piece.probe == "nginx.error":
            kept = [event for event in piece.facts["events"] if event["alert"] == number]
            found[found.index(piece)] = seen("nginx.error", file=[], hidden=False, events=kept)
        elif piece.probe == "nginx.access":
            found[found.index(piece)] = seen("nginx.access", file=[], lines=[])
    return found


def failed_handshake(port: int, reason: str) -> list[Evidence]:
    found = on_port(port)
    for index, piece in enumerate(found):
        if piece.probe == "nginx.error":
            kept = [event for event in piece.facts["events"] if event["reason"] == reason]
            found[index] = seen("nginx.error", file=[], hidden=False, events=kept)
        elif piece.probe == "nginx.access":
            found[index] = seen("nginx.access", file=[], lines=[])
    return found


def at_service(port: int, line: int, **record: Any) -> list[Evidence]:
    """nginx's traces with what our service recorded of the same attempt."""
    entry = [e for e in captured_access() if e["port"] == port][line]
    told = attempt(
        record.pop("code"), entry["status"], at=entry["time"], controller=entry["controller"],
        peer="127.0.0.1", proxy="127.0.0.1", **record,
    )  # fmt: skip
    return [*on_port(port, line), records([told])]


FAULTS: list[tuple[str, list[Evidence]]] = [
    ("px-upgrade-headers-missing", on_port(8001)),
    ("px-http10-upstream", on_port(8002)),
    ("px-upstream-refused", on_port(8003)),
    ("px-upstream-timeout", on_port(8004)),
    ("px-upstream-timeout", on_port(8005)),
    ("px-https-redirect", on_port(8007)),
    ("px-path-rewrite", on_port(8008)),
    ("px-location-404", on_port(8009)),
    ("px-default-server", on_port(8010, 0)),
    ("px-https-to-plain-upstream", on_port(8011)),
    ("px-http-to-tls-upstream", [seen("nginx.config", **config_of(8012, (8443,))), *on_port(8012)]),
    ("px-limit-req", on_port(8013)),
    ("px-limit-conn", on_port(8014)),
    ("px-access-denied", on_port(8015)),
    ("px-access-denied", on_port(8018, 0)),
    ("px-auth-required", on_port(8016)),
    ("px-h2-only", [*on_port(8017), HURT]),
    ("px-forward-proxy", on_port(8000, 11)),
    ("tls-plain-client-to-tls-port", on_port(8443, 0)),
    ("tls-client-to-plain-port", [*on_port(8000, 12), HURT]),
    ("tls-mtls-required", on_port(8448)),
    ("tls-sni-missing", [*on_port(8447), HURT]),
    ("tls-server-min-too-high", [*on_port(8445), HURT]),
    ("tls-seclevel-mismatch", [*on_port(8449), HURT]),
    (
        "tls-client-version-too-old",
        [*failed_handshake(8443, "no suitable signature algorithm"), offer("tls1.2", True, 8443),
         HURT],
    ),
    ("tls-ecdsa-cert-rsa-client", [*on_port(8444), certificate("ecdsa", 8444), HURT]),
    (
        "tls-ecdsa-cert-rsa-client",
        [*on_port(8444), offer("rsa", False, 8444), offer("ecdsa", True, 8444), HURT],
    ),
    (
        "tls-no-shared-cipher",
        [*on_port(8446), certificate("expired", 8446, now=1_578_000_000.0),
         offer("legacy", False, 8446), HURT],
    ),
    ("tls-cert-expired", [*on_port(8450), certificate("expired", 8450), HURT]),
    ("tls-untrusted-ca", [*alert(8443, 48), certificate("ecdsa", 8443), HURT]),
    (
        "tls-name-mismatch",
        [*alert(8443, 42), certificate("ecdsa", 8443),
         seen("tls.handshake", "site", Status.FAILED, name="other.example.test",
              reason="CERTIFICATE_VERIFY_FAILED", verify_code=62)],
    ),
    ("hs-wrong-path", on_port(8000, 2)),
    ("hs-uri-no-slash", [*on_port(8000, 3), UNANSWERED]),
    ("hs-method-post", on_port(8000, 4)),
    ("hs-device-no-upgrade", on_port(8000, 5)),
    ("hs-bad-key", at_service(8000, 6, code="key-missing", reason="Sec-WebSocket-Key is missing.")),
    ("hs-half-close-499", on_port(8000, 8)),
    ("hs-slow-handshake", [*on_port(8000, 9), UNANSWERED]),
    ("hs-malformed-request", [*on_port(8000, 10), UNANSWERED]),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "evidence"), FAULTS, ids=[cause for cause, _ in FAULTS])
def test_the_first_finding_is_the_fault_that_nginx_logged(
    cause: str, evidence: list[Evidence]
) -> None:
    assert named(*evidence)[:1] == [cause]


@pytest.mark.parametrize(("cause", "evidence"), FAULTS, ids=[cause for cause, _ in FAULTS])
def test_no_neighbour_is_as_sure_as_the_fault(cause: str, evidence: list[Evidence]) -> None:
    sure = [f.id for f in judge(case(*evidence), CAUSES).findings if f.match.confidence >= 0.9]
    assert set(sure) <= {cause}


@pytest.mark.parametrize(("cause", "evidence"), FAULTS, ids=[cause for cause, _ in FAULTS])
def test_a_later_success_of_the_same_controller_ends_the_fault(
    cause: str, evidence: list[Evidence]
) -> None:
    seen_faults = attempts(case(*evidence))
    if not seen_faults or not all(a.controller for a in seen_faults):
        pytest.skip("this attempt brought no controller id")
    controller = next(a.controller for a in seen_faults if a.controller)
    last = max(a.at for a in seen_faults if a.at is not None)
    (good,) = (p for p in on_port(8000, 0) if p.probe == "nginx.access")
    line = {**good.facts["lines"][0], "time": last + 5.0, "controller": controller}
    later = seen("nginx.access", file=[], lines=[line])
    findings = judge(case(*evidence, later), CAUSES).findings
    assert cause not in [finding.id for finding in findings]


#: Faults of nginx's configuration that strike everybody alike, and those that strike some.
FOR_ALL = ("px-upgrade-headers-missing", "px-http10-upstream",
           "px-upstream-refused", "px-https-redirect", "px-location-404")  # fmt: skip
FOR_SOME = ("px-access-denied", "px-auth-required")


def after_the_fix(evidence: list[Evidence], *more: Evidence) -> list[str]:
    """The findings once the configuration is right, and a probe gets through the same nginx; the
    controller has not tried again."""
    traces = [piece for piece in evidence if piece.probe != "nginx.config"]
    path = next(a.path for a in attempts(case(*traces)) if a.path)
    right = seen("http.upgrade", "control", status=101, accept_ok=True, path=path, port=80)
    return named(*traces, right, *more)


@pytest.mark.parametrize(("cause", "evidence"), [f for f in FAULTS if f[0] in FOR_ALL])
def test_a_mended_proxy_is_no_finding_though_the_controller_has_not_come_back(
    cause: str, evidence: list[Evidence]
) -> None:
    assert cause in named(*[piece for piece in evidence if piece.probe != "nginx.config"])
    assert after_the_fix(evidence) == []


@pytest.mark.parametrize(("cause", "evidence"), [f for f in FAULTS if f[0] in FOR_SOME])
def test_a_rule_for_some_is_over_once_nginx_has_taken_in_its_configuration_anew(
    cause: str, evidence: list[Evidence]
) -> None:
    last = max(a.at or 0.0 for a in attempts(case(*evidence)))
    assert after_the_fix(evidence)[:1] == [cause]
    assert after_the_fix(evidence, seen("nginx.process", reloaded=last - 5.0))[:1] == [cause]
    assert after_the_fix(evidence, seen("nginx.process", reloaded=last + 5.0)) == []


def test_a_controllers_own_mistake_is_not_over_when_somebody_else_gets_through() -> None:
    wrong = at_service(8000, 6, code="key-missing", reason="Sec-WebSocket-Key is missing.")
    last = max(a.at or 0.0 for a in attempts(case(*wrong)))
    found = after_the_fix(wrong, seen("nginx.process", reloaded=last + 5.0))
    assert found[:1] == ["hs-bad-key"]


def test_a_link_that_works_is_no_trouble() -> None:
    assert troubles(case(*on_port(8000, 0))) == []
    assert named(*on_port(8000, 1)) == []
    assert named(*on_port(8000, 7)) == []


def test_selinux_is_told_from_a_closed_port_by_errno_13_on_tcp() -> None:
    found = on_port(8003)
    for index, piece in enumerate(found):
        if piece.probe == "nginx.error":
            events = [
                {**event, "kind": "connect-denied", "level": "crit",
                 "text": "connect() to 127.0.0.1:9099 failed (13: Permission denied)"}
                for event in piece.facts["events"]
            ]  # fmt: skip
            found[index] = seen("nginx.error", file=[], hidden=False, events=events)
    assert named(*found)[:1] == ["px-selinux-denied"]


def test_a_unix_socket_that_may_not_be_opened_is_not_selinux() -> None:
    assert "px-selinux-denied" not in named(*on_port(8006))


def test_strangers_that_scan_are_nobodys_fault() -> None:
    """One ClientHello and one garbled request of an unknown address, as the internet sends them."""
    assert named(*on_port(8000, 12)) == []
    assert named(*on_port(8000, 10)) == []


def test_the_same_stranger_again_and_again_is_taken_seriously() -> None:
    (entry,) = (p for p in on_port(8000, 12) if p.probe == "nginx.access")
    lines = [{**entry.facts["lines"][0], "time": NOW + n} for n in range(3)]
    found = seen("nginx.access", file=[], lines=lines)
    assert named(found, service_config())[:1] == ["tls-client-to-plain-port"]


def test_the_refusal_of_a_limit_is_the_aftermath_of_the_fault_before_it() -> None:
    """A wrong path retried each second ends in 503: the path is the fault, the limit follows."""
    (wrong,) = (p for p in on_port(8000, 2) if p.probe == "nginx.access")
    limit = on_port(8013)
    line = {**wrong.facts["lines"][0]}
    (refused,) = (p for p in limit if p.probe == "nginx.access")
    start = refused.facts["lines"][0]["time"] - 3.0
    burst = [{**line, "time": start + n, "port": 8013} for n in range(3)]
    together = seen("nginx.access", file=[], lines=[*burst, *refused.facts["lines"]])
    verdict = judge(case(together, *(p for p in limit if p.probe != "nginx.access")), CAUSES)
    assert [finding.id for finding in verdict.findings] == ["hs-wrong-path", "px-limit-req"]
    assert verdict.findings[1].follows == "hs-wrong-path"


def test_a_proxy_that_works_from_this_machine_is_not_blamed_for_its_settings() -> None:
    works = seen("link.local", hop="nginx", port=8001, status=101)
    quiet = [seen("nginx.config", **config_of(8001)), service_config()]
    assert named(*quiet)[:1] == ["px-upgrade-headers-missing"]
    assert named(*quiet, works) == []


def test_a_real_handshake_refused_for_its_suites_is_read() -> None:
    facts = read_s_client((CAPTURES / "openssl-s-client-nocipher.txt").read_text())
    assert (facts["ok"], facts["alert"]) == (False, 40)
    facts = read_s_client((CAPTURES / "openssl-s-client-nosni.txt").read_text())
    assert (facts["ok"], facts["alert"]) == (False, 112)
    facts = read_s_client((CAPTURES / "openssl-s-client-expired.txt").read_text())
    assert (facts["ok"], facts["version"], facts["verify"]) == (True, "TLSv1.2", 10)
    facts = read_s_client((CAPTURES / "openssl-s-client-plain.txt").read_text())
    assert (facts["ok"], facts["reason"]) == (False, "wrong version number")


def test_a_certificate_that_s_client_printed_is_read() -> None:
    expired = CERTIFICATES["expired"]
    assert (expired["key"], expired["not_after"]) == ("rsa", 1_580_428_800.0)


def test_links_of_the_good_port_were_cut_by_the_configured_timeout() -> None:
    """The captured nginx has proxy_read_timeout 2 s, and its backend sent no pings."""
    found = on_port(8000, 0, keepalive={"ping_interval_seconds": 0.0})
    assert named(*found)[:1] == ["px-read-timeout-60"]


@pytest.mark.parametrize("port", [8004, 8005])
def test_a_busy_shared_machine_is_not_why_the_service_never_answers(port: int) -> None:
    busy = seen("host.cpu", cpus=2, load=[13.0, 13.0, 13.0], some10=90.0, steal=0.0, throttled={})
    late = Evidence("http.upgrade", Status.FAILED, "504", {"status": 504}, 2000.0, "site")
    verdict = judge(case(*on_port(port), busy, late), CAUSES)
    named = [finding.id for finding in verdict.findings]
    assert named[0] == "px-upstream-timeout"
    starved = [f for f in verdict.findings if f.id == "host-cpu-starved"]
    assert all(f.match.confidence < GUESS for f in starved)


def test_a_busy_machine_that_answers_late_is_starved() -> None:
    busy = seen("host.cpu", cpus=2, load=[13.0, 13.0, 13.0], some10=90.0, steal=0.0, throttled={})
    late = Evidence("http.upgrade", Status.OK, "101", {"status": 101}, 2000.0, "site")
    assert [f.id for f in judge(case(busy, late), CAUSES).findings] == ["host-cpu-starved"]


def test_an_error_joins_the_line_of_its_own_connection() -> None:
    """Two controllers behind one address are told apart by nginx's number of the connection."""
    line = {
        "time": NOW, "client": "198.51.100.20", "status": 504, "by": "nginx", "method": "GET",
        "path": "/ptsWebSocket", "request": "GET /ptsWebSocket HTTP/1.1", "port": 80,
    }  # fmt: skip
    lines = [line | {"controller": f"C{n}", "serial": n, "time": NOW + n / 10} for n in (1, 2, 3)]
    event = {
        "time": NOW, "kind": "header-timeout", "client": line["client"], "port": 80,
        "request": line["request"], "text": "upstream timed out", "connection": 2,
    }  # fmt: skip
    found = attempts(case(seen("nginx.access", lines=lines), seen("nginx.error", events=[event])))
    assert [(a.subject, bool(a.events)) for a in found] == [("C1", False), ("C2", True),
                                                            ("C3", False)]  # fmt: skip
    # A log without the number is joined by time alone.
    older = [{**one, "serial": None} for one in lines]
    found = attempts(case(seen("nginx.access", lines=older), seen("nginx.error", events=[event])))
    assert [bool(a.events) for a in found] == [True, False, False]


def test_the_connections_number_is_read_from_our_own_format_only() -> None:
    ours = '{"time":"","serial":"17","request":"GET / HTTP/1.1","status":"200"}'
    older = ours.replace('"serial":"17",', "")
    assert [entry["serial"] for entry in read_access(f"{ours}\n{older}")] == [17, None]
