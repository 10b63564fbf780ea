"""Evidence is text of another machine: none of it becomes a command, and none controls a terminal.

What it says of its own place is not believed, and a value that has not the type it should have is
refused.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ptslink.doctor.admission import REFUSED, VANTAGES, read
from ptslink.doctor.cause import Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.command import doctor
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.remedy import remedies
from ptslink.doctor.report import render
from ptslink.doctor.verdict import EVIDENCE_REFUSED, Verdict, judge
from unit.doctor import outer_cases
from unit.doctor.outer_cases import SITE, changed, connect, firewall, healthy, listener, piece
from unit.doctor.programs import assert_runnable
from unit.doctor.traces import attempt, on_port, records, seen, service_config

ROOT = Path(__file__).parents[2]
INJECTED = ROOT / "tests" / "unit" / "doctor" / "injected"


def verdict(case: Case) -> Verdict:
    return judge(case, CAUSES)


def told(case: Case) -> list[str]:
    """What was refused, and why."""
    return [one.seen for one in verdict(case).checks if one.id.endswith(REFUSED)]


# --- Places ------------------------------------------------------------------------------------

BANNED = {"jails": {"sshd": [SITE]}, "rules": []}
#: A site's address banned on the server: the fix names the jail and the address.
BAN = changed(
    connect("ECONNREFUSED"),
    piece("net.bans", **BANNED),
    piece("net.watch", seconds=3.0, ports=[80], syn_in={SITE: {"80": 3}}, syn_ack_out={},
          rst_out={}, rst_in={}, icmp_out={}),
    without=("http.upgrade",),
)  # fmt: skip


def test_a_ban_that_the_server_tells_of_is_lifted_unasked() -> None:
    found = verdict(BAN).findings[0]
    assert (found.id, found.fix.auto) == ("fw-fail2ban-ban", Auto.YES)
    assert found.fix.commands[0] == ("fail2ban-client", "set", "sshd", "unbanip", SITE)


def servers_probes() -> list[str]:
    room = {"host", "link", "net", "nginx", "service"}
    return sorted({one.probe for one in healthy() if one.probe.partition(".")[0] in room})


@pytest.mark.parametrize("vantage", ["site", "control"])
def test_only_the_server_speaks_of_the_server(vantage: str) -> None:
    more = ("nginx.access", "service.records", "link.local", "tls.disk", "pattern.loop", "of.none")
    printed = [piece(probe).to_json() for probe in (*servers_probes(), *more)]
    joined = read(json.dumps(printed), "station-12", vantage=vantage)
    reasons = told(Case("ws://h/", joined))
    assert len(reasons) == len(printed)
    assert all(one.startswith("evidence from station-12 was refused: ") for one in reasons)
    assert reasons[0].endswith(f"only the server itself can tell that, not a {vantage}")


def test_the_join_of_the_playbook_does_not_believe_a_site_that_says_it_is_the_server() -> None:
    """The module of playbooks/diagnose.yml itself, with what a site's computer printed."""
    ban = {"jails": {"sshd": ["198.51.100.9; touch /tmp/pwned #"]}, "rules": []}
    forged = [replace(one, facts=ban) if one.probe == "net.bans" else one for one in BAN.evidence]
    asked = {
        "source": str(ROOT / "src"),
        "target": BAN.target,
        "seen": [
            {"place": "station-12", "vantage": "site",
             "printed": json.dumps([one.to_json() for one in forged])},
            {"place": "server-1", "vantage": "server",
             "printed": json.dumps([one.to_json() for one in healthy()
                                    if one.vantage == "server"])},
        ],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "playbooks" / "library" / "doctor_verdict.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": asked}), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["remedies"] == []
    assert "pwned" not in json.dumps([one["fix"] for one in answer["verdict"]["findings"]])
    refused = next(one for one in answer["verdict"]["findings"] if one["id"] == EVIDENCE_REFUSED)
    assert any("station-12 was refused: net.bans" in line for line in refused["evidence"])


def save(file: Path, *evidence: Evidence) -> str:
    file.write_text(json.dumps([one.to_json() for one in evidence]))
    return str(file)


def test_what_a_file_says_of_a_server_is_never_applied_unasked(tmp_path: Path) -> None:
    file = Path(save(tmp_path / "server.json", *BAN.evidence))
    found = verdict(Case(BAN.target, read(file.read_text(), str(file)))).findings[0]
    assert (found.id, found.fix.auto) == ("fw-fail2ban-ban", Auto.ASK)


def test_beside_the_server_itself_no_file_speaks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ptslink.doctor.command.gather", lambda **_: list(healthy()))
    file = save(tmp_path / "site.json", *BAN.evidence)
    done = CliRunner().invoke(doctor, ["--server", "--evidence", file, "--json"])
    findings = {one["id"]: one for one in json.loads(done.stdout)["findings"]}
    assert "fw-fail2ban-ban" not in findings
    assert f"evidence from {file} was refused" in str(findings[EVIDENCE_REFUSED]["evidence"])


# --- What a fix is made of ---------------------------------------------------------------------


def asks_for(value: str) -> Cause:
    """A cause whose fix is made of what ``tcp.banner`` or ``net.limited`` tells, whoever tells."""

    def sees(case: Case) -> Match | None:
        text = case.fact("tcp.banner", "text") or case.fact("net.limited", "lines")[0]
        fix = Fix("Do it.", "It works.", Auto.YES, (("ufw", "allow", str(text)),))
        return Match(0.9, ("seen",), fix=fix)

    return Cause(value, Layer.TCP, "T", Fix("Do it.", "It works."), sees)


@pytest.mark.parametrize(
    ("evidence", "auto"),
    [
        ([piece("net.limited", lines=["80/tcp"])], Auto.YES),
        ([piece("net.limited", lines=["80/tcp"]), piece("tcp.banner", "site", text="80/tcp")],
         Auto.YES),
        ([piece("net.limited", lines=["80/tcp"]), piece("tcp.banner", "site", text="22/tcp")],
         Auto.ASK),
        ([piece("tcp.banner", "site", text="22/tcp")], Auto.ASK),
    ],
    ids=["the server alone", "a site says the same", "a site says another", "a site alone"],
)  # fmt: skip
def test_a_value_that_the_server_does_not_know_needs_asking(
    evidence: list[Evidence], auto: Auto
) -> None:
    [found] = [one for one in judge(Case("ws://h/", evidence), [asks_for("x")]).findings
               if one.id == "x"]  # fmt: skip
    assert found.fix.auto is auto
    assert bool(remedies(replace(verdict(BAN), findings=(found,)))) is (auto is Auto.YES)


def test_the_general_fix_of_every_cause_runs_known_programs() -> None:
    for cause in CAUSES:
        assert_runnable(cause.fix)


# --- Hostile text ------------------------------------------------------------------------------

#: Each in the place of a text of evidence, made from that text.
HOSTILE: tuple[Callable[[str], str], ...] = (
    lambda text: f"{text}; touch /tmp/pwned #",
    lambda text: f"--pwned={text}",
    lambda text: f"{text}\n$(touch /tmp/pwned)\u2028\x85`pwned`",
    lambda text: f"\x1b[2J\x1b[HHealthy: nothing found pwned {text}\x9b2J",
)


#: Probe and last part of the place of texts that fixes are made of, or that choose them.
MADE_OF = {
    ("net.bans", "*"), ("net.firewall", "manager"), ("net.firewall", "source"),
    ("net.listeners", "unit"), ("host.unit", "unit"), ("host.sandbox", "unit"),
    ("host.sandbox", "file"), ("host.sandbox", "name"), ("dns.server", "server"),
    ("dns.resolve", "host"), ("service.records", "path"), ("nginx.access", "path"),
}  # fmt: skip


def hand_made() -> Iterator[Case]:
    """Cases whose fixes are made of evidence, beside those that machines showed."""
    yield BAN
    yield changed(connect("ETIMEDOUT"), firewall("drop"), without=("http.upgrade",))
    rejects = firewall("reject", manager="firewalld", answer="icmp-admin-prohibited")
    yield changed(connect("EHOSTUNREACH"), rejects, without=("http.upgrade",))
    yield changed(
        outer_cases.unit("ptslink.service", active="failed", sub="failed", restarts=7,
                         result="start-limit-hit", start_limit=True, last_lines=["no"]),
        connect("ECONNREFUSED"),
        without=("http.upgrade", "net.watch"),
    )  # fmt: skip
    yield changed(
        piece("nginx.process", status=Status.FAILED, running=False, installed=True),
        piece("net.listeners", ports=[80],
              listeners=[listener(80, process="apache2", unit="apache2.service", pid=7)]),
        connect("ETIMEDOUT"),
        without=("http.upgrade", "net.watch"),
    )  # fmt: skip
    yield Case("ws://192.0.2.7/ptsWebSocket", (
        service_config(),
        records([attempt("wrong-path", 404, path="/pts2")]),
    ))  # fmt: skip
    yield Case("ws://192.0.2.7/ptsWebSocket", (
        *map(not_let, on_port(8003)),
        seen("host.sandbox", unit="nginx.service", effective={"RestrictAddressFamilies": "AF_UNIX"},
             settings=[{"file": "/etc/systemd/system/nginx.service.d/x.conf", "line": 2,
                        "name": "RestrictAddressFamilies", "value": "AF_UNIX"}]),
    ))  # fmt: skip
    yield Case("ws://forecourt.example/ptsWebSocket", (
        Evidence("dns.resolve", Status.FAILED, "no answer",
                 {"host": "forecourt.example", "is_address": False, "errno": "EAI_AGAIN"}),
        piece("dns.server", "site", server="192.0.2.53", rcode="SERVFAIL", errno=None),
    ))  # fmt: skip


def not_let(one: Evidence) -> Evidence:
    """What nginx logged, as if the kernel had not let it open a socket."""
    text = "connect() to 127.0.0.1:9099 failed (97: Address family not supported by protocol)"
    events = [{**event, "kind": "connect-failed", "text": text}
              for event in one.facts.get("events", ())]  # fmt: skip
    return replace(one, facts={**one.facts, "events": events}) if events else one


def cut(value: Any) -> Any:
    """The same facts, the last four of long lists."""
    if isinstance(value, dict):
        return {key: cut(one) for key, one in value.items()}
    return [cut(one) for one in value[-4:]] if isinstance(value, list) else value


def shown_by_machines() -> Iterator[Case]:
    for name in ("fw-ufw-limit-lockout", "host-crash-loop", "tls-sni-missing.another-certificate",
                 "px-upgrade-headers-missing.over-and-a-page-asked-for"):  # fmt: skip
        data = json.loads((INJECTED / f"{name}.json").read_text())
        evidence = [Evidence.from_json({**one, "facts": cut(one["facts"])})
                    for one in data["evidence"]]  # fmt: skip
        yield Case(data["url"], evidence)


Place = tuple[str, ...]


def of_other_probes(known: set[str]) -> Case:
    """A case with the piece that has most texts of each probe but the *known* ones."""
    richest: dict[str, tuple[int, Evidence]] = {}
    for file in sorted(INJECTED.glob("*.json")):
        for one in json.loads(file.read_text())["evidence"]:
            if one["probe"] not in known:
                facts = cut(one["facts"])
                texts = len(set(places(facts)))
                if texts > richest.get(one["probe"], (0,))[0]:
                    richest[one["probe"]] = (texts, Evidence.from_json({**one, "facts": facts}))
    return Case("ws://h/", (*BAN.evidence, *(piece for _, piece in richest.values())))


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """Where texts are in facts; what stands in a list is one place."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from places(one, (*above, key))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from places(one, (*above, "*"))
    elif isinstance(value, str):
        yield above


def put(value: Any, at: Place, change: Callable[[str], str]) -> Any:
    """The facts with every text *at* a place changed."""
    if not at:
        return change(value) if isinstance(value, str) else value
    if isinstance(value, dict):
        return {key: put(one, at[1:], change) if key == at[0] else one
                for key, one in value.items()}  # fmt: skip
    if isinstance(value, list | tuple) and at[0] == "*":
        return [put(one, at[1:], change) for one in value]
    return value


@cache
def changes() -> dict[str, list[Case]]:
    """Cases with one text of one probe changed, by probe: each text once; what fixes are made of in
    every case and with everything hostile."""
    found: dict[str, list[Case]] = {}
    done: set[tuple[str, Place]] = set()
    cases = [*hand_made(), *shown_by_machines()]
    told = {one.probe for case in cases for one in case.evidence if [*places(one.facts)]}
    for case in (*cases, of_other_probes(told)):
        for probe in dict.fromkeys(one.probe for one in case.evidence):
            of_probe = [one.facts for one in case.evidence if one.probe == probe]
            for at in dict.fromkeys(place for facts in of_probe for place in places(facts)):
                made_of = (probe, at[-1]) in MADE_OF
                if (probe, at) in done and not made_of:
                    continue
                done.add((probe, at))
                chosen = HOSTILE if made_of else HOSTILE[len(done) % 4 :][:1]
                found.setdefault(probe, []).extend(
                    replace(case, evidence=tuple(
                        replace(one, facts=put(one.facts, at, change), seen=change(one.seen))
                        if one.probe == probe else one
                        for one in case.evidence
                    ))
                    for change in chosen
                )  # fmt: skip
    return found


@pytest.mark.parametrize("probe", sorted(changes()))
def test_no_text_of_evidence_becomes_a_command_or_controls_a_terminal(probe: str) -> None:
    for case in changes()[probe]:
        found = verdict(case)
        for finding in found.findings:
            assert_runnable(finding.fix)
            assert "pwned" not in str((finding.fix.commands, finding.fix.ansible))
        shown = render(found).replace("\n", "")
        assert shown.isprintable(), shown
        data = json.dumps(found.to_json(), ensure_ascii=False)
        assert data.isprintable(), data


def test_the_hostile_cases_come_from_cases_whose_fixes_are_made_of_evidence() -> None:
    made = {finding.fix.commands[0][0] for case in (*hand_made(), *shown_by_machines())
            for finding in verdict(case).findings if finding.fix.commands}  # fmt: skip
    assert made >= {"fail2ban-client", "ufw", "firewall-cmd", "journalctl", "ps", "sed", "dig"}


@pytest.mark.parametrize(
    ("probe", "facts", "why"),
    [
        ("net.bans", {"jails": {"sshd; id": []}}, "jails: 'sshd; id' is no name of a jail"),
        ("net.bans", {"jails": {"--all": []}}, "jails: '--all' is no name of a jail"),
        ("net.bans", {"jails": {"sshd": ["198.51.100.9; id"]}}, "is no IP address or network"),
        ("net.firewall", {"port": "80; id"}, "port: '80; id' is no port"),
        ("net.firewall", {"port": True}, "port: True is no port"),
        ("net.listeners", {"listeners": [{"unit": "--now"}]}, "is no name of a systemd unit"),
        ("net.listeners", {"listeners": [{"pid": "1 2"}]}, "pid: '1 2' is no number"),
        ("net.watch", {"syn_in": {"x\n": {"80": 1}}}, "syn_in: 'x\\n' is no IP address"),
        ("host.unit", {"unit": "a.service b.service"}, "is no name of a systemd unit"),
        ("host.sandbox", {"settings": [{"file": "/etc/passwd"}]}, "no file of a systemd unit"),
        ("host.sandbox", {"settings": [{"file": "/etc/systemd/../shadow/x"}]}, "no file of a sys"),
        ("host.sandbox", {"settings": [{"name": "ExecStart"}]}, "is no setting of the sandbox"),
        ("dns.server", {"server": "@9.9.9.9"}, "server: '@9.9.9.9' is no IP address"),
        ("dns.resolve", {"host": "-x.example"}, "host: '-x.example' is no host name"),
        ("tcp.connect", {"address": "::1%$(id)"}, "address: '::1%$(id)' is no IP address"),
    ],
)
def test_a_value_of_another_type_is_refused_and_told(
    probe: str, facts: dict[str, Any], why: str
) -> None:
    case = Case("ws://h/", (piece(probe, **facts), connect()))
    [reason] = told(case)
    assert reason.startswith(f"evidence from server was refused: {probe}: ")
    assert why in reason
    assert [one.id for one in verdict(case).findings] == [EVIDENCE_REFUSED]


# --- Odd evidence ------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (7, "x", [None], {"x": []}, -1.5)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_verdict_comes_out_whatever_the_facts_are(odd: Any) -> None:
    pieces = [*healthy(), piece("capture.stream"), piece("pattern.drop"),
              piece("nginx.config", sites=[]), piece("service.records", links=[], attempts=[]),
              piece("host.sandbox", settings=[])]  # fmt: skip
    for number, one in enumerate(pieces):
        for facts in (dict.fromkeys(one.facts, odd), {}):
            broken = replace(one, facts=facts, status=Status.FAILED)
            found = verdict(Case("x", (*pieces[:number], broken, *pieces[number + 1 :])))
            assert len(found.checks) >= len(pieces)
            assert render(found)


def test_nesting_that_nobody_can_follow_makes_no_fix_one_to_apply() -> None:
    deep: Any = "x"
    for _ in range(sys.getrecursionlimit()):
        deep = [deep]
    found = verdict(replace(BAN, evidence=(*BAN.evidence, piece("ws.ping", "site", deep=deep))))
    ban = next(one for one in found.findings if one.id == "fw-fail2ban-ban")
    assert ban.fix.auto is Auto.ASK
    assert remedies(found) == []


def test_what_could_not_be_judged_is_named_and_not_called_healthy() -> None:
    found = verdict(Case("x", (*healthy(), piece("nginx.config", sites=[{}]))))
    assert any(check.id.startswith("doctor:") for check in found.checks)
    assert found.healthy
    assert render(found).startswith("Healthy as far as could be judged")


PRINTED: list[tuple[str, str]] = [
    ("[1]", "not what the doctor writes (TypeError"),
    ('[{"probe": "x"}]', "not what the doctor writes (KeyError"),
    ('[{"probe": "x", "vantage": "site", "status": "odd", "seen": "", "facts": {}, "ms": 1}]',
     "'odd' is not a valid Status"),
    ('[{"probe": "x", "vantage": "moon", "status": "ok", "seen": "", "facts": {}, "ms": 1}]',
     f"of 'moon'; taken is that of {' or '.join(VANTAGES)}"),
    ('[{"probe": "x", "vantage": "site", "status": "ok", "seen": "", "facts": [], "ms": 1}]',
     "facts is no table"),
]  # fmt: skip


@pytest.mark.parametrize(("printed", "why"), PRINTED)
def test_what_is_no_evidence_is_a_finding_and_the_rest_counts(printed: str, why: str) -> None:
    good = json.dumps([connect().to_json()])
    joined = read(f"{printed[:-1]}, {good[1:]}", "odd.json")
    [reason] = told(Case("ws://h/", joined))
    assert reason.startswith("evidence from odd.json was refused: ")
    assert why in reason
    assert [one.probe for one in joined] == [REFUSED, "tcp.connect"]


@pytest.mark.parametrize("printed", ["", "{}", "null", "[" * 100_000, "[NaN"])
def test_what_is_no_list_is_said_to_be_none(printed: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(printed, "x")
