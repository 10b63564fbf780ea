"""A cause nobody listed: the right layer, a title that says what is seen, advice for that place."""

from __future__ import annotations

from typing import Any

import pytest

from ptslink.doctor.cause import Auto
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.finding import Finding
from ptslink.doctor.report import render
from ptslink.doctor.verdict import judge
from unit.doctor.traces import NOW, attempt, captured_config, records, seen

PROBE = "0" * 16 + "AABBCCDD"
TARGET = "ws://192.0.2.7:80/ptsWebSocket"
FAILED, OK, UNKNOWN = Status.FAILED, Status.OK, Status.UNKNOWN


def step(probe: str, text: str, went: Status = FAILED, **facts: Any) -> Evidence:
    return Evidence(probe, went, text, facts, 1.0, "site")


def upgrade(status: int | None = None, **facts: Any) -> Evidence:
    told = {"port": 80, "path": "/ptsWebSocket", "controller_id": PROBE, **facts}
    text = f"HTTP {status}" if status else str(facts.get("ended"))
    return step("http.upgrade", text, status=status, **told)


def hop(name: str, port: int, went: Status, text: str = "as tried", **facts: Any) -> Evidence:
    return Evidence("link.local", went, text, {"hop": name, "port": port, **facts}, 1.0, "server")


SERVICE_WELL = hop("service", 3000, OK, "101", status=101, accept_ok=True)
NGINX_WELL = hop("nginx", 80, OK, "101", status=101, accept_ok=True)
TEAPOT = hop("nginx", 80, FAILED, "HTTP 418", status=418)
RULE = "inet odd i: tcp dport 80 reject with tcp-reset"
FIREWALL = seen("net.firewall", port=80, family="ipv4", verdict="accept", maybe=[RULE])
STOPPED = Evidence("nginx.process", FAILED, "nginx does not run (inactive)",
                   {"running": False, "test_ok": True}, 1.0, "server")  # fmt: skip


def found(*evidence: Evidence) -> Finding:
    finding = judge(Case(TARGET, evidence), ()).findings[0]
    assert finding.match.confidence < 0.9  # what nobody listed is never certain
    return finding


# what was seen -> id, words of the title, words of the advice
PLACES: list[tuple[list[Evidence], str, str, str]] = [
    # By the site alone: what came, and where to look from next.
    ([upgrade(418)], "unlisted-http-upgrade", "answered with 418", "Run the doctor on the server"),
    ([upgrade(first_bytes="68656c6c6f")], "unlisted-http-upgrade", "does not speak HTTP",
     "Another program listens there"),
    ([upgrade(ended="timeout")], "unlisted-http-upgrade", "gets no answer", "hangs"),
    ([upgrade(ended="rst")], "unlisted-http-upgrade", "is reset when the upgrade", "filter"),
    ([upgrade(ended="fin")], "unlisted-http-upgrade", "closed without a word", "another site"),
    ([step("ws.ping", "closed", code=4401, reason="no licence", after_seconds=0.1)],
     "unlisted-ws-protocol", "after 0.1 s with 4401 'no licence'", "its own words"),
    ([step("ws.idle", "gone", ended="rst", after_seconds=31.0)], "unlisted-ws-protocol",
     "made and then reset after 31.0 s", "who ends it"),
    ([step("ws.ping", "gone", ended="timeout")], "unlisted-ws-protocol", "nothing passes any more",
     "Run the doctor on the server"),
    ([step("tcp.connect", "no", errno="ECONNREFUSED", port=80, address="192.0.2.7",
           icmp={"from": "198.51.100.1", "type": 3, "code": 13})],
     "unlisted-tcp", "198.51.100.1, a machine on the way, refuses", "past 198.51.100.1"),
    ([step("tcp.connect", "no", errno="EHOSTUNREACH", port=80, address="192.0.2.7",
           icmp={"from": "192.0.2.7", "type": 3, "code": 10})],
     "unlisted-tcp", "The server's firewall rejects", "which of its rules"),
    ([step("dns.resolve", "EAI_AGAIN", errno="EAI_AGAIN", host="h"),
      step("dns.server", "says", OK, server="9.9.9.9", rcode="SERVFAIL", variation=True)],
     "unlisted-dns", "answers SERVFAIL", "9.9.9.9 is reached and says SERVFAIL"),
    # With the server's own tries: hop by hop.
    ([upgrade(418), SERVICE_WELL, TEAPOT], "unlisted-proxy",
     "nginx on port 80 answers 418; the service behind it works", "nginx's configuration"),
    ([upgrade(ended="timeout"), SERVICE_WELL, hop("nginx", 80, FAILED, ended="timeout")],
     "unlisted-proxy", "takes connections on port 80 and does not answer", "stopped (T)"),
    ([upgrade(418), hop("service", 3000, FAILED, "HTTP 418", status=418), TEAPOT],
     "unlisted-application", "even when asked on the server itself", "not to blame"),
    ([step("ws.ping", "reset", ended="rst"), SERVICE_WELL,
      hop("nginx", 80, FAILED, status=101, ended="rst"), FIREWALL],
     "unlisted-tcp", "a firewall rule takes some of their packets", "counter"),
    ([STOPPED], "unlisted-proxy", "nginx does not run", "Start it"),
    # The server is well by its own tries.
    ([upgrade(418), SERVICE_WELL, NGINX_WELL, records()], "unlisted-http-upgrade",
     "the server works and saw nothing of it", "address that is dialled"),
    ([upgrade(418), SERVICE_WELL, NGINX_WELL,
      records([attempt("accepted", 101, controller=PROBE)])], "unlisted-http-upgrade",
     "something on the way breaks it", "security appliance"),
]  # fmt: skip


@pytest.mark.parametrize(("evidence", "id_", "title", "advice"), PLACES,
                         ids=[f"{p[1]}-{p[2][:24]}" for p in PLACES])  # fmt: skip
def test_the_place_is_named_with_advice_for_it(
    evidence: list[Evidence], id_: str, title: str, advice: str
) -> None:
    finding = found(*evidence)
    assert finding.id == id_
    assert title in finding.title
    assert advice in finding.fix.summary
    # Nothing that nobody understood is mended without asking.
    assert finding.fix.auto is not Auto.YES


@pytest.mark.parametrize(("evidence", "id_"), [(p[0], p[1]) for p in PLACES])
def test_no_line_of_evidence_is_told_twice(evidence: list[Evidence], id_: str) -> None:
    lines = found(*evidence).match.evidence
    assert lines, id_
    assert len(lines) == len(set(lines))


def test_what_was_changed_and_worked_is_told() -> None:
    changed = step("http.upgrade", "user-agent: 101", OK, status=101, variation=True,
                   tried="user-agent")  # fmt: skip
    text = " ".join(found(upgrade(418), changed).match.evidence)
    assert "answered with 101 when changed so: user-agent" in text


def test_who_answers_is_told_in_its_own_words() -> None:
    answer = upgrade(418, headers={"Server": "odd/1.0", "via": "1.1 box"}, body="I am\n a teapot")
    text = " ".join(found(answer).match.evidence)
    assert 'Server: odd/1.0, Via: 1.1 box; it says: "I am a teapot"' in text


def test_what_nginx_is_told_to_answer_by_itself_is_pointed_at() -> None:
    config = captured_config()
    site = next(s for s in config["sites"] if any(e["port"] == 8018 for e in s["listen"]))
    place = next(loc for loc in site["locations"] if loc["settings"]["proxy_pass"])
    rule = {"if": "", "args": ["418"], "line": 99}
    told = {**place, "settings": {**place["settings"], "return": [rule]}}
    nginx = seen("nginx.config", **{**config, "sites": [{**site, "locations": [told]}]})
    text = " ".join(found(upgrade(418), SERVICE_WELL, TEAPOT, nginx).match.evidence)
    assert f"{site['file']} line 99: return 418" in text


def test_the_report_tells_what_many_checks_saw_alike_once() -> None:
    tried = [step("http.upgrade", f"{name}: HTTP 418", UNKNOWN, status=418, variation=True)
             for name in ("no-origin", "user-agent")]  # fmt: skip
    skipped = [step(f"ws.{name}", "an earlier step failed", Status.SKIPPED)
               for name in ("ping", "echo")]  # fmt: skip
    text = render(judge(Case(TARGET, [upgrade(418), *tried, *skipped]), ()))
    assert "unknown site:http.upgrade: no-origin, user-agent: HTTP 418" in text
    assert "skipped site:ws.ping, ws.echo: an earlier step failed" in text


def test_a_long_gone_moment_is_no_evidence_of_now() -> None:
    old = records([attempt("odd", 418, at=NOW - 900.0 + n) for n in range(9)], now=NOW)
    assert judge(Case(TARGET, [old]), ()).findings == ()
