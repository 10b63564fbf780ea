"""What a person reads."""

from __future__ import annotations

from ptslink.doctor.cause import Auto, Cause, Fix, Layer, Match
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.report import WIDTH, render
from ptslink.doctor.verdict import Verdict, judge

LONG = "a rather long line of evidence " * 6
COMMAND = "x" * 100


def verdict(*, healthy: bool = False) -> Verdict:
    first = Match(0.95, (LONG, "short"), ("fw-ufw-drop", "unknown-id"))
    second = Match(0.4, ("weak",))
    fix = Fix("Set it " * 30, "It lives.", Auto.YES, COMMAND, {"a_variable": True}, "Page: Field")
    causes = (
        Cause("first-cause", Layer.TCP, "Nobody listens", fix, lambda _c: first, ("third",)),
        Cause("second", Layer.HOST, "A guess", Fix("Look.", "Ok."), lambda _c: second),
        Cause("third", Layer.PROXY, "A consequence", Fix("No.", "No."), lambda _c: Match(0.8, ())),
    )
    evidence = (
        Evidence("tcp.connect", Status.OK, "connected"),
        Evidence("host.disk", Status.UNKNOWN, LONG, vantage="server"),
        Evidence("net.firewall", Status.SKIPPED, "root only", vantage="server"),
    )
    return judge(Case("ws://h:80/x", evidence), () if healthy else causes, 2.04)


def test_the_answer_is_in_the_first_three_lines() -> None:
    lines = render(verdict()).splitlines()
    assert lines[0] == "Nobody listens."
    assert lines[1] == "first-cause  layer tcp, 95% sure"
    assert lines[2] == "ws://h:80/x, seen from site, server in 2.0 s"


def test_nothing_but_a_command_is_wider_than_a_terminal() -> None:
    for line in render(verdict()).splitlines():
        assert len(line) <= WIDTH or line.strip() == COMMAND


def test_the_parts_come_in_the_order_they_are_needed() -> None:
    text = render(verdict(), titles={"fw-ufw-drop": "A firewall drops"})
    parts = ["What to do", "What was seen", "Why not another cause", "What else", "Checked: 3"]
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)
    assert "fw-ufw-drop: A firewall drops" in text
    assert "Ansible: a_variable: true" in text
    assert "In the controller: Page: Field" in text
    assert "Once it is right: It lives." in text


def test_a_consequence_and_a_guess_are_called_so() -> None:
    text = render(verdict())
    assert "Only what follows from first-cause." in text
    assert "a guess, 40%" in text


def test_what_was_well_is_counted_and_the_rest_is_named() -> None:
    text = render(verdict())
    assert "Checked: 3, found well: 1" in text
    assert "skipped server:net.firewall: root only" in text
    assert "site:tcp.connect" not in text.split("Checked")[1]


def test_what_the_records_show_stands_by_itself_and_is_bounded() -> None:
    evidence = [
        Evidence("pattern.loop", Status.UNKNOWN, f"AB{n} reconnects every 9 s", vantage="server")
        for n in range(11)
    ]
    text = render(judge(Case("ws://h/", evidence), ()))
    shown, checked = text.split("What the records show")[1].split("Checked:")
    assert shown.count("reconnects every") == 8
    assert "and 3 more" in shown
    assert "reconnects" not in checked


def test_who_could_not_look_is_told_beside_the_verdict() -> None:
    evidence = [
        Evidence("tcp.connect", Status.OK, "connected"),
        Evidence("place.reached", Status.SKIPPED, "h could not look: no space", vantage="server"),
    ]
    lines = render(judge(Case("ws://h/", evidence), ())).splitlines()
    assert lines[0] == "Healthy as far as could be seen: not everybody could look."
    assert lines[2] == "h could not look: no space."


def test_health_is_one_line() -> None:
    assert render(verdict(healthy=True)).startswith("Healthy: nothing found")


def test_an_empty_examination_is_not_called_healthy() -> None:
    empty = judge(Case("x", (Evidence("ws.ping", Status.SKIPPED, "may not"),)), ())
    assert render(empty).startswith("Nothing could be examined.")


def test_colour_only_where_asked_for() -> None:
    assert "\x1b[" not in render(verdict())
    assert "\x1b[31;1mNobody listens.\x1b[0m" in render(verdict(), colour=True)


def test_what_is_cut_off_is_marked() -> None:
    long = " ".join(f"word{n:03}" for n in range(80))
    case = Case("x", (Evidence("host.disk", Status.UNKNOWN, long, vantage="server"),))
    text = render(judge(case, ()))
    assert text.rstrip().endswith(" ... (--json)")
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert "(--json)" not in render(verdict())
