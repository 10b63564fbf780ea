"""The rules that every verdict keeps, whatever is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from ptslink.doctor.cause import CERTAIN, LIKELY
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.collect import _ROOMS
from ptslink.doctor.collect.host import last_words
from ptslink.doctor.collect.nginx_log import KINDS
from ptslink.doctor.collect.service import LOG_KINDS
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.finding import Finding
from ptslink.doctor.unlisted import _ROUTINE
from ptslink.doctor.verdict import judge
from unit.doctor.traces import NOW, attempt, link, records, seen, service_config

PROBE = "0" * 16 + "AABBCCDD"


def findings(*evidence: Evidence) -> tuple[Finding, ...]:
    return judge(Case("ws://192.0.2.7:80/ptsWebSocket", evidence), CAUSES).findings


def failing_try(hop: str = "nginx", port: int = 80, **facts: Any) -> Evidence:
    told = {"hop": hop, "port": port, "status": 418, "path": "/ptsWebSocket", "body": "",
            "address": "192.0.2.7", "controller_id": PROBE, "headers": {}, **facts}  # fmt: skip
    return Evidence("link.local", Status.FAILED, f"{hop} at 192.0.2.7:{port}: 418", told, 1.0,
                    "server")  # fmt: skip


@pytest.mark.parametrize("kind", sorted({k for k, _ in KINDS} - set(_ROUTINE)))
def test_what_nginx_logs_is_quoted_where_nothing_else_explains(kind: str) -> None:
    event = {"time": NOW, "kind": kind, "level": "error", "text": f"words of {kind}",
             "client": "203.0.113.5", "request": None, "port": 80, "connection": 3, "pid": 1,
             "alert": None, "reason": None, "openssl": None}  # fmt: skip
    found = findings(
        failing_try(), seen("nginx.error", file=["e"], hidden=False, events=[event])
    )  # fmt: skip
    assert any(f"words of {kind}" in line for one in found for line in one.match.evidence)


@pytest.mark.parametrize("kind", [kind for kind, _ in LOG_KINDS])
def test_what_the_service_logs_is_quoted_where_nothing_else_explains(kind: str) -> None:
    event = {"at": NOW, "kind": kind, "text": f"words of {kind}", "unit": "ptslink.service"}
    found = findings(failing_try("service", 3000), seen("service.log", events=[event]))
    assert any(f"words of {kind}" in line for one in found for line in one.match.evidence)


def test_the_log_line_of_the_failing_request_goes_before_the_newest() -> None:
    line = {"time": NOW, "client": "192.0.2.7", "request": "GET /ptsWebSocket HTTP/1.1",
            "method": "GET", "path": "/ptsWebSocket", "version": "1.1", "status": 418,
            "by": "nginx", "port": 80, "upgrade": "websocket", "controller": PROBE,
            "serial": 7}  # fmt: skip
    own = {"time": NOW, "kind": "no-file", "text": "its own line", "client": "192.0.2.7",
           "request": line["request"], "connection": 7, "port": 80}  # fmt: skip
    other = {**own, "text": "of somebody else", "client": "203.0.113.5", "connection": 9}
    line["status"] = 403
    found = findings(
        failing_try(status=403),
        seen("nginx.access", file=["a"], lines=[line]),
        seen("nginx.error", file=["e"], hidden=False, events=[own, other]),
    )
    text = str([one.match.evidence for one in found])
    assert "its own line" in text
    assert "of somebody else" not in text


def test_a_finding_about_a_connect_shows_the_address_dialled() -> None:
    assert "192.0.2.7" in str(findings(failing_try(status=502, body="<center>nginx</center>"))[0]
                              .match.evidence)  # fmt: skip


def test_a_series_whose_later_tries_fail_otherwise_is_judged_by_the_later() -> None:
    tries = [attempt("key-length", 400, NOW + n) for n in range(4)]
    tries += [attempt("wrong-path", 404, NOW + 10 + n, path="/pts2") for n in range(4)]
    ids = [one.id for one in findings(service_config(), records(tries, now=NOW + 14))]
    assert ids[0] == "hs-wrong-path"
    assert "hs-bad-key" not in ids


# a close code, the service's own name for it -> how sure
CODES = [
    (1007, "closed", "", LIKELY), (1007, "not-utf8", "invalid UTF-8", CERTAIN),
    (1009, "closed", "", LIKELY), (1009, "message-too-big", "too big", CERTAIN),
]  # fmt: skip


@pytest.mark.parametrize(("code", "name", "reason", "sure"), CODES)
def test_a_code_alone_is_never_more_than_likely(
    code: int, name: str, reason: str, sure: float
) -> None:
    ends = [link(name, 3.0, NOW + 4 * n, closed_by="server", close_sent=[code, reason])
            for n in range(4)]  # fmt: skip
    first = findings(service_config(), records(links=ends, now=NOW + 13))[0]
    assert first.match.confidence == sure


def test_what_restarts_over_and_over_does_not_hang() -> None:
    def unit(active: str, sub: str) -> Evidence:
        return seen("host.unit", unit="ptslink.service", load="loaded", active=active, sub=sub,
                    result="exit-code", restarts=9, exit_status=1)  # fmt: skip

    mute = failing_try("service", 3000, status=None, ended="timeout")
    stuck = seen("net.sockets", syn_recv=0, sockets=[
        {"state": "ESTAB", "local": "127.0.0.1", "local_port": 3000, "peer": "127.0.0.1",
         "peer_port": 4000, "recv_q": 900, "send_q": 0, "timer": ""}])  # fmt: skip
    config = service_config(listen={"port": 3000})
    looping = [one.id for one in findings(unit("activating", "auto-restart"), mute, stuck, config)]
    hanging = [one.id for one in findings(unit("active", "running"), mute, stuck, config)]
    assert ("host-crash-loop" in looping, "app-event-loop-blocked" in looping) == (True, False)
    assert "app-event-loop-blocked" in hanging


@pytest.mark.parametrize(("hop", "port"), [("service", 3000), ("nginx", 80)])
def test_who_answers_on_a_port_of_the_link_is_not_the_service_until_it_says_so(
    hop: str, port: int
) -> None:
    listener = {"address": "0.0.0.0", "port": port, "family": "ipv4", "process": "python3",
                "pid": 4711, "unit": "odd.service", "queue": 0, "backlog": 128}  # fmt: skip
    process = Evidence("nginx.process", Status.OK if hop == "service" else Status.FAILED, "as seen",
                       {"running": hop == "service", "test_ok": True}, 1.0, "server")  # fmt: skip
    first = findings(failing_try(hop, port), process,
                     seen("net.listeners", listeners=[listener], ports=[port]))[0]  # fmt: skip
    assert first.id == "tcp-port-taken"
    assert f"port {port} of" in str(first.match.evidence)
    assert "python3 (pid 4711, odd.service)" in str(first.match.evidence)
    assert ("systemctl", "disable", "--now", "odd.service") in first.fix.commands


@pytest.mark.parametrize(("queue", "named"), [(129, True), (3, False)])
def test_a_full_queue_of_the_listener_accuses(queue: int, named: bool) -> None:
    listener = {"address": "0.0.0.0", "port": 80, "family": "ipv4", "process": "nginx", "pid": 1,
                "unit": "nginx.service", "queue": queue, "backlog": 128}  # fmt: skip
    failed = Evidence("tcp.connect", Status.FAILED, "ETIMEDOUT",
                      {"address": "192.0.2.7", "family": "ipv4", "port": 80,
                       "errno": "ETIMEDOUT"}, 9000.0, "site")  # fmt: skip
    found = findings(failed, seen("net.listeners", listeners=[listener], ports=[80]))
    assert (found[0].id == "tcp-accept-queue-full") is named


def test_the_last_words_are_the_process_s_own() -> None:
    lines = ["Started ptslink.service - x.", "KeyError: 'port'",
             "ptslink.service: Main process exited, code=exited, status=1/FAILURE",
             "ptslink.service: Failed with result 'exit-code'.",
             "ptslink.service: Scheduled restart job, restart counter is at 5."]  # fmt: skip
    assert last_words(lines) == ["KeyError: 'port'"]
    refused = ["ptslink.service: Failed at step EXEC spawning x: Permission denied", *lines[2:]]
    assert last_words(refused) == refused[:1]
    assert last_words(lines[2:]) == lines[2:]


def test_the_link_is_tried_before_the_logs_are_read_that_say_what_became_of_it() -> None:
    rooms = list(_ROOMS)
    assert rooms.index("service") < rooms.index("nginx")


# the unit that the listener's process is said to belong to -> whether it is somebody else's
HOLDERS = [("init.scope", False), ("ptslink.service", False), ("odd.service", True)]


@pytest.mark.parametrize(("unit", "foreign"), HOLDERS)
def test_a_socket_that_systemd_handed_on_is_the_service_s_own(unit: str, foreign: bool) -> None:
    listener = {"address": "0.0.0.0", "port": 3000, "family": "ipv4", "process": "python",
                "pid": 4711, "unit": unit, "queue": 0, "backlog": 128}  # fmt: skip
    found = findings(failing_try("service", 3000, ended="timeout"),
                     seen("net.listeners", listeners=[listener], ports=[80]))  # fmt: skip
    assert ("tcp-port-taken" in [one.id for one in found]) is foreign
