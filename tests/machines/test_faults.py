"""The doctor names what is broken on a real machine, one or two causes of each layer, is neither
sure of the wrong party nor content where a generated fault breaks the link, and the playbooks that
use it keep what they promise.

The whole matrix is `scripts/bench faults`, all generated faults are `scripts/bench mutate`. Takes a
machine that is up if PTSLINK_FAULTS_LAB names its lab, and leaves it up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from machines.faults import lab
from machines.faults.bench import ROOT, Bench
from machines.faults.fault import Fault, server
from machines.faults.http_upgrade import station
from machines.faults.playbooks import NO_SSH, playbook
from machines.faults.runner import HEALTHY, prepare, run_one, tables, verdict_of
from machines.mutations import runner as mutations
from machines.mutations.figures import SURE
from machines.mutations.kinds import LEFT_OUT
from machines.mutations.mutation import KINDS, Mutation, generated, sample

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="machines need root")

#: Rows that need no waiting.
ROWS = (
    "dns-name-typo",
    "fw-ufw-drop",
    "tcp-bind-loopback",
    "tls-cert-expired",
    "px-captive-portal",
    "hs-wrong-path[through nginx]",
    "hs-subprotocol[named unasked]",
    "ws-rsv1-compressed",
    "app-ghost-blocks[refused with 409]",
    "host-disk-full",
    "dev-ws-disabled",
)
FAULTS = {fault.name: fault for fault in tables()[0]}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """A provisioned machine with the doctor of this checkout on it."""
    given = os.environ.get("PTSLINK_FAULTS_LAB")
    name = given or f"faults-{os.getpid()}"
    with lab.ready(name):
        bench = Bench(name)
        prepare(bench, [FAULTS[row] for row in ROWS])
        yield bench


def test_it_is_silent_where_nothing_is_broken(bench: Bench) -> None:
    verdict, _, _ = verdict_of(bench, HEALTHY)
    assert [finding.id for finding in verdict.findings] == []
    assert {"site", "server"} <= set(verdict.vantages)


@pytest.mark.parametrize("row", ROWS)
def test_it_names_the_cause_and_is_silent_once_that_is_undone(bench: Bench, row: str) -> None:
    result = run_one(bench, FAULTS[row])
    assert result["named"] == FAULTS[row].id, result
    assert result["healthy_after"], result["left_behind"]


#: What is drawn of the generated faults, and how many; the left out kinds are not among them.
SEED, DRAWN = "scripts/test", 20


@pytest.fixture(scope="module")
def drawn(bench: Bench) -> list[Mutation]:
    """One mutation of each of so many kinds."""
    bench.carry(*mutations.TOOLS)
    looked_at = [name for name in KINDS if name not in LEFT_OUT]
    return sample(generated(mutations.read(bench), looked_at), SEED, 1)[:DRAWN]


@pytest.mark.parametrize("number", range(DRAWN))
def test_it_is_neither_content_with_a_generated_fault_nor_sure_of_the_wrong_party(
    bench: Bench, drawn: list[Mutation], number: int
) -> None:
    result = mutations.run_one(bench, drawn[number])
    assert "error" not in result, result
    if result["works"]:
        assert result["healthy"] or result["elsewhere"], result
    else:
        assert not result["healthy"], result
        assert result["party"] or result["confidence"] < SURE, result


#: The keys of a verdict and of a finding, as programs are promised them.
VERDICT = ["healthy", "target", "vantage", "duration_s", "findings", "checks"]
FINDING = ["id", "layer", "title", "confidence", "evidence", "ruled_out", "fix"]
FIX = ["summary", "command", "ansible", "auto"]
HEADERS_GONE = FAULTS["px-upgrade-headers-missing"]


@contextmanager
def broken(bench: Bench, fault: Fault) -> Iterator[None]:
    """The machine with *fault*, which is undone however it ends."""
    bench.wash()
    try:
        bench.run(fault.inject)
        yield
    finally:
        bench.end_background()
        bench.run(fault.undo)


def shape(verdict: dict[str, Any]) -> list[str]:
    """The keys of *verdict*, once those of what it holds were seen to be as promised."""
    for finding in verdict["findings"]:
        assert list(finding) == FINDING
        assert list(finding["fix"]) == FIX
        assert finding["fix"]["auto"] in ("yes", "ask", "no")
    for check in verdict["checks"]:
        assert list(check) == ["id", "status", "seen"]
        assert check["status"] in ("ok", "failed", "unknown", "skipped")
    return list(verdict)


def test_diagnose_mends_what_may_be_mended_unasked_and_nothing_it_cannot_see(
    bench: Bench, tmp_path: Path
) -> None:
    report = tmp_path / "verdict.json"
    asked = {"diagnose_report": report, "diagnose_fix": "true"}
    with broken(bench, HEADERS_GONE):
        away = {"ansible_ssh_executable": tmp_path / NO_SSH}
        blind = playbook(bench, "diagnose.yml", tmp_path, **asked, **away)
        assert blind.status != 0
        assert "Nothing is applied: the server could not be examined" in blind.said
        told = json.loads(report.read_text())
        assert shape(told) == VERDICT
        assert "server" not in told["vantage"]
        assert told["findings"][0]["layer"] == "proxy"
        assert any(
            check["id"].endswith("place.reached") and check["status"] == "skipped"
            for check in told["checks"]
        )
        bench.run([server("! grep -q 'proxy_set_header Upgrade' /etc/nginx/conf.d/ptslink.conf")])

        mended = playbook(bench, "diagnose.yml", tmp_path, **asked, diagnose_idle_seconds=2)
        assert mended.status == 0, mended.said[-3000:]
        told = json.loads(report.read_text())
        assert shape(told["before"]) == VERDICT
        assert set(told["before"]["vantage"]) == {"site", "control", "server"}
        assert told["before"]["findings"][0]["id"] == HEADERS_GONE.id
        assert told["before"]["findings"][0]["fix"]["auto"] == "yes"
        assert [remedy["id"] for remedy in told["applied"]] == [HEADERS_GONE.id]
        assert shape(told) == [*VERDICT, "applied", "before"]
        assert (told["healthy"], told["findings"]) == (True, [])
        idle = {
            check["id"]: check["status"] for check in told["checks"] if "ws.idle" in check["id"]
        }
        assert idle == {"site:ws.idle": "ok", "control:ws.idle": "ok"}
        assert "PLAY [The forecourt server is in place]" in mended.said
        bench.run([server("grep -q 'proxy_set_header Upgrade' /etc/nginx/conf.d/ptslink.conf")])
        verdict, _, _ = verdict_of(bench, HEALTHY)
        assert [(one.id, one.match.evidence) for one in verdict.findings] == []
    left = [*Path("/tmp").glob("ptslink-doctor-*")]
    assert not left
    bench.run([server("! ls -d /tmp/ptslink-doctor-* 2>/dev/null")])


def test_diagnose_changes_nothing_that_has_to_be_asked_first(bench: Bench, tmp_path: Path) -> None:
    report = tmp_path / "verdict.json"
    fault = FAULTS["l3-no-return-route"]
    with broken(bench, fault):
        ran = playbook(bench, "diagnose.yml", tmp_path, diagnose_report=report, diagnose_fix="true")
        bench.run([server("ip route show type unreachable | grep -q .")])
    told = json.loads(report.read_text())
    assert (told["findings"][0]["id"], told["findings"][0]["fix"]["auto"]) == (fault.id, "ask")
    assert shape(told) == VERDICT, "nothing was applied"
    assert ran.status != 0
    assert f"{fault.id}: {told['findings'][0]['title']}" in ran.said


def test_a_capture_of_a_failing_handshake_is_brought_here_and_explained(
    bench: Bench, tmp_path: Path
) -> None:
    seconds = 90
    deviating = station("hs-wrong-path=/nowhere", seconds=seconds, port=80)
    with broken(bench, Fault("hs-wrong-path", (deviating,))):
        ran = playbook(
            bench, "capture.yml", tmp_path, capture_seconds=4, capture_directory=tmp_path
        )
    assert ran.status == 0, ran.said[-3000:]
    capture = tmp_path / f"{bench.machine}.pcap"
    assert capture.stat().st_mode & 0o777 == 0o600
    done = subprocess.run(
        [sys.executable, "-m", "ptslink.cli", "doctor", "--pcap", str(capture), "--json"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert shape(told) == VERDICT
    assert told["findings"][0]["id"] == "hs-wrong-path", told["findings"][0]
    bench.run([server("! ls -d /tmp/ptslink-capture-* 2>/dev/null")])
