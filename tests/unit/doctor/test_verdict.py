"""The order of findings, what is dropped, and what stands in for an unlisted cause."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import ptslink.doctor
from ptslink.doctor.cause import Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.verdict import Verdict, judge

CONNECTED = Evidence("tcp.connect", Status.OK, "connected", {"errno": None, "port": 80}, 1.0)


def cause(
    id_: str,
    layer: Layer,
    confidence: float | None = 0.9,
    *,
    aftermath: tuple[str, ...] = (),
    ruled_out: tuple[str, ...] = (),
) -> Cause:
    match = None if confidence is None else Match(confidence, (f"seen {id_}",), ruled_out)
    return Cause(
        id_, layer, f"Title of {id_}", Fix("Mend it.", "It works."), lambda _case: match, aftermath
    )


def order(*causes: Cause, evidence: tuple[Evidence, ...] = (CONNECTED,)) -> list[str]:
    return [finding.id for finding in judge(Case("ws://h/", evidence), causes).findings]


# causes -> the order they are named in
ORDERS = [
    ([cause("a", Layer.TCP, None)], []),
    ([cause("deep", Layer.PROXY, 0.99), cause("outer", Layer.TCP, 0.7)], ["outer", "deep"]),
    ([cause("less", Layer.TCP, 0.7), cause("more", Layer.TCP, 0.8)], ["more", "less"]),
    ([cause("guess", Layer.DNS, 0.3), cause("known", Layer.HOST, 0.6)], ["known", "guess"]),
    (
        [cause("down", Layer.TCP), cause("disk", Layer.HOST, aftermath=("down",))],
        ["disk", "down"],
    ),
    (
        [
            cause("down", Layer.TCP),
            cause("typo", Layer.L3, 0.6),
            cause("disk", Layer.HOST, aftermath=("down",)),
        ],
        ["typo", "disk", "down"],
    ),
    (
        [
            cause("c", Layer.DNS),
            cause("b", Layer.PROXY, aftermath=("c",)),
            cause("a", Layer.HOST, aftermath=("b",)),
        ],
        ["a", "b", "c"],
    ),
    # A guess does not lead what is known.
    (
        [cause("known", Layer.TCP), cause("guess", Layer.HOST, 0.4, aftermath=("known",))],
        ["known", "guess"],
    ),
    # The better founded of two neighbours excludes the other.
    ([cause("a", Layer.TCP, 0.95, ruled_out=("b",)), cause("b", Layer.L3, 0.7)], ["a"]),
    ([cause("a", Layer.TCP, 0.6, ruled_out=("b",)), cause("b", Layer.L3, 0.7)], ["b", "a"]),
    (
        [
            cause("a", Layer.TCP, 0.9, ruled_out=("b",)),
            cause("b", Layer.L3, 0.9, ruled_out=("a",)),
        ],
        ["b", "a"],
    ),
]


@pytest.mark.parametrize(("causes", "named"), ORDERS)
def test_findings_come_root_cause_first(causes: list[Cause], named: list[str]) -> None:
    assert order(*causes) == named


def test_the_order_does_not_depend_on_the_order_of_the_causes() -> None:
    for causes, _ in ORDERS:
        assert order(*causes) == order(*reversed(causes))


def test_what_only_follows_is_marked() -> None:
    causes = [cause("down", Layer.TCP), cause("disk", Layer.HOST, aftermath=("down",))]
    verdict = judge(Case("ws://h/", (CONNECTED,)), causes)
    assert [finding.follows for finding in verdict.findings] == [None, "disk"]


def failed(probe: str, vantage: str = "site", **facts: object) -> Evidence:
    return Evidence(probe, Status.FAILED, f"{probe} failed", facts, 10.0, vantage)


# a failing step that nothing explains -> the layer that stands in
UNLISTED = [
    (failed("dns.resolve"), "unlisted-dns"),
    (failed("route.links"), "unlisted-l3"),
    (failed("tcp.connect", errno="ETIMEDOUT", port=80), "unlisted-tcp"),
    (failed("tls.handshake"), "unlisted-tls"),
    (failed("http.upgrade", status=418), "unlisted-http-upgrade"),
    (failed("ws.idle"), "unlisted-ws-protocol"),
    (failed("nginx.process", "server"), "unlisted-proxy"),
    (failed("service.live", "server"), "unlisted-application"),
]


@pytest.mark.parametrize(("piece", "named"), UNLISTED)
def test_an_unlisted_cause_gets_its_layer_and_advice(piece: Evidence, named: str) -> None:
    verdict = judge(Case("ws://h/", (CONNECTED, piece)), ())
    (finding,) = verdict.findings
    assert finding.id == named
    assert finding.id == f"unlisted-{finding.layer}"
    assert any("failed" in line for line in finding.match.evidence)
    assert finding.fix.summary
    assert finding.fix.expect


def test_the_outermost_failing_step_is_the_one_that_counts() -> None:
    steps = (failed("http.upgrade", status=500), failed("tcp.connect", errno="ECONNREFUSED"))
    assert order(evidence=steps) == ["unlisted-tcp"]


def test_a_finding_that_explains_leaves_no_room_for_an_unlisted_one() -> None:
    steps = (failed("http.upgrade", status=502),)
    assert order(cause("refused", Layer.PROXY), evidence=steps) == ["refused"]
    assert order(cause("refused", Layer.PROXY, 0.3), evidence=steps)[0] == "unlisted-http-upgrade"


def test_a_deeper_layer_explains_no_broken_connection() -> None:
    steps = (failed("tcp.connect", errno="ETIMEDOUT"),)
    assert order(cause("app", Layer.APPLICATION), evidence=steps) == ["unlisted-tcp", "app"]


def test_a_wrong_clock_explains_no_broken_link() -> None:
    steps = (failed("http.upgrade", status=500),)
    clock = cause("host-clock-wrong", Layer.HOST)
    assert order(clock, evidence=steps) == ["unlisted-http-upgrade", "host-clock-wrong"]


def test_a_variation_that_fails_is_no_fault() -> None:
    assert order(evidence=(failed("tls.offer", variation=True),)) == []


def test_skipped_probes_prove_nothing() -> None:
    case = Case("ws://h/", (Evidence("tcp.connect", Status.SKIPPED, "may not"),))
    verdict = judge(case, CAUSES)
    assert verdict.healthy
    assert not verdict.examined


def test_json_has_the_promised_shape() -> None:
    fix = Fix(
        "Set it.", "It lives.", Auto.ASK, (("do", "it all"),), {"role_thing": 5}, "Page: Field"
    )
    match = Match(0.951, ("line",), ("other",), fix)
    one = Cause("a", Layer.PROXY, "T", Fix("-", "-"), lambda _case: match)
    data = judge(Case("ws://h/", (CONNECTED,)), (one,), 3.21).to_json()
    assert json.loads(json.dumps(data)) == {
        "healthy": False,
        "target": "ws://h/",
        "vantage": ["site"],
        "duration_s": 3.2,
        "findings": [
            {
                "id": "a",
                "layer": "proxy",
                "title": "T",
                "confidence": 0.95,
                "evidence": ["line"],
                "ruled_out": ["other"],
                "fix": {
                    "summary": "Set it. In the controller: Page: Field Once right: It lives.",
                    "command": "do 'it all'",
                    "ansible": {"role_thing": 5},
                    "auto": "ask",
                },
            }
        ],
        "checks": [{"id": "site:tcp.connect", "status": "ok", "seen": "connected"}],
    }


def test_every_cause_has_one_id_a_fix_and_known_neighbours() -> None:
    ids = [one.id for one in CAUSES]
    assert len(ids) == len(set(ids))
    for one in CAUSES:
        assert one.title
        assert one.fix.summary
        assert one.fix.expect
        assert one.id not in one.aftermath


def _named_in_the_code() -> set[str]:
    """What looks like the id of a cause in the modules of the causes."""
    layers = {one.id.partition("-")[0] for one in CAUSES}
    return {
        node.value
        for file in (Path(ptslink.doctor.__path__[0]) / "causes").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(rf"({'|'.join(layers)})-[a-z0-9-]+", node.value)
    }


#: Of the same look: kinds of nginx's events, refusals of the service, and how a packet is refused.
NO_CAUSES = {"tls-alert", "tls-closed", "tls-failed", "tls-rejected", "tls-on-plain",
             "tls-on-plain-port", "tcp-reset"}  # fmt: skip


def test_every_cause_that_is_ruled_out_or_follows_exists() -> None:
    ids = {one.id for one in CAUSES}
    assert _named_in_the_code() - ids <= NO_CAUSES
    assert {id_ for one in CAUSES for id_ in one.aftermath} <= ids


def test_no_cause_is_its_own_aftermath() -> None:
    follows = {one.id: set(one.aftermath) for one in CAUSES}
    for start in follows:
        reached, ahead = set[str](), {start}
        while ahead:
            ahead = set().union(*(follows[id_] for id_ in ahead)) - reached
            reached |= ahead
        assert start not in reached


def test_no_cause_is_found_where_nothing_was_seen() -> None:
    verdict: Verdict = judge(Case("ws://h/", ()), CAUSES)
    assert verdict.findings == ()


def turned_away(code: str, controller: str = "0" * 16 + "AABBCCDD") -> Evidence:
    """The answer of a service that does not know the probe."""
    body = f'{{"error":"{code}","message":"No."}}'
    return failed("http.upgrade", status=403, body=body, controller_id=controller, scheme="ws")


# how a service that is well refuses a strange probe -> how to see more
STRANGERS = [
    ("controller-not-allowed", "--controller-id"),
    ("missing-credentials", "--basic-env"),
    ("signature-missing", "secret key"),
]


@pytest.mark.parametrize(("code", "how"), STRANGERS)
def test_a_probe_turned_away_as_a_stranger_is_no_failing_link(code: str, how: str) -> None:
    verdict = judge(Case("ws://h/", (CONNECTED, turned_away(code))), CAUSES)
    assert verdict.findings == ()
    check = verdict.checks[-1]
    assert (check.status, how in check.seen) == (Status.UNKNOWN, True)
    assert "http.upgrade failed" in check.seen


@pytest.mark.parametrize("code", ["wrong-credentials", "wrong-path", "rate-limited"])
def test_any_other_refusal_of_a_probe_is_a_failing_link(code: str) -> None:
    verdict = judge(Case("ws://h/", (CONNECTED, turned_away(code))), CAUSES)
    assert verdict.findings
    assert verdict.checks[-1].status is Status.FAILED


def test_a_probe_with_a_controllers_own_id_speaks_for_that_controller() -> None:
    refused = turned_away("controller-not-allowed", "AABBCCDDEEFF001122334455")
    verdict = judge(Case("ws://h/", (CONNECTED, refused)), CAUSES)
    assert [finding.id for finding in verdict.findings][:1] == ["hs-id-unknown"]
