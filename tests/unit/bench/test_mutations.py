"""Mutations are generated from what a machine says of itself, and counted as their results say."""

from __future__ import annotations

from typing import Any

import pytest

from machines.mutations.device import frames, head_of, header, text
from machines.mutations.document import section, section_of, table, with_section
from machines.mutations.figures import BLAMED, blamed, figures, score
from machines.mutations.kinds import LEFT_OUT
from machines.mutations.mutation import (
    KINDS,
    Edit,
    Mutation,
    Party,
    Truth,
    generated,
    give_back,
    keep,
    quarter,
    sample,
)
from machines.mutations.oracle import judged
from machines.mutations.system import (
    System,
    allowed_ports,
    directives,
    effective,
    rules,
    settings,
    split_configuration,
)
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.probe.frames import decode_frame

SITE = """\
map $http_upgrade $connection_of_it {
    default upgrade;
}
server {
    listen 80;  # plain; not TLS
    location / {
        proxy_pass http://127.0.0.1:3000;
        proxy_set_header Upgrade $http_upgrade;
        proxy_read_timeout 90s;
    }
}
"""
FILE = "/etc/nginx/conf.d/ptslink.conf"
SYSTEM = System(
    nginx={FILE: SITE},
    units={
        "ptslink.service": "[Service]\nUser=ptslink\nRestart=always\n",
        "ptslink.socket": "[Socket]\nListenStream=0.0.0.0:3000\n",
        "nginx.service": "[Service]\nType=forking\n",
    },
    toml='[listen]\nport = 3000\npath = "ptsWebSocket"\n',
    toml_path="/etc/ptslink/ptslink.toml",
    shown={"ptslink.service": {"PrivateNetwork": "no", "LimitNOFILE": "65536", "Id": "x"}},
    ruleset="table ip filter { # handle 1\n\tchain INPUT { # handle 2\n"
    "\t\ttype filter hook input priority filter; policy drop;\n"
    "\t\ttcp dport 80 counter packets 0 bytes 0 accept # handle 7\n\t}\n}\n",
    user_rules="### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n"
    "### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in\n",
    files="/etc/ptslink|root|root|755|directory\n"
    "/etc/ptslink/ptslink.toml|root|ptslink|640|regular file\n",
    routes="default via 10.77.1.1 dev eth0 proto static\n"
    "10.77.1.0/24 dev eth0 proto kernel scope link src 10.77.1.10\n",
    address="10.77.1.10",
    site="10.77.1.2",
)


def names(kind: str, system: System = SYSTEM) -> list[str]:
    return [one.name for one in generated(system, [kind])[kind]]


# --- Reading a machine -------------------------------------------------------------------------


def test_a_directive_is_found_with_its_place_its_words_and_the_blocks_around_it() -> None:
    found = {one.words: one for one in directives(FILE, SITE)}
    header_line = found["proxy_set_header Upgrade $http_upgrade"]
    assert (header_line.line, header_line.context) == (8, ("server", "location"))
    assert SITE[header_line.start : header_line.end].endswith("$http_upgrade;")
    assert SITE[found["location /"].start : found["location /"].end].endswith("}")
    assert "listen 80" in found, "a comment behind it is no part of it"


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("a 'x; {y}' \"z # w\";", ("'x; {y}'", '"z # w"')),
        ("a ${b}c;", ("${b}c",)),
        ("a\n  b # c;\n  d;", ("b", "d")),
        ("a ~^\\d+$;", ("~^\\d+$",)),
    ],
)
def test_words_are_read_as_nginx_reads_them(line: str, args: tuple[str, ...]) -> None:
    (one,) = directives("x", line)
    assert (one.name, one.args) == ("a", args)


def test_lines_of_a_table_are_no_directives_of_the_configuration() -> None:
    assert "default upgrade" not in [one.words for one in effective(SYSTEM)]
    assert "map $http_upgrade $connection_of_it" in [one.words for one in effective(SYSTEM)]


def test_the_effective_configuration_comes_apart_into_its_files() -> None:
    printed = (
        f"# configuration file /etc/a.conf:\nuser x;\n\n# configuration file {FILE}:\n{SITE}\n"
    )
    assert split_configuration(printed) == {"/etc/a.conf": "user x;\n", FILE: SITE}


def test_settings_rules_and_ports_are_read_from_what_the_tools_print() -> None:
    assert [(one.section, one.key, one.value) for one in settings(SYSTEM.toml)] == [
        ("listen", "port", "3000"),
        ("listen", "path", '"ptsWebSocket"'),
    ]
    (rule,) = rules(SYSTEM.ruleset)
    assert (rule.table, rule.chain, rule.handle) == ("filter", "INPUT", "7")
    assert allowed_ports(SYSTEM.user_rules) == [80], "ssh's port is left alone"


# --- Generating --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_names_each_mutation_once_says_whose_it_is_and_how_it_is_undone(kind: str) -> None:
    every = [*KINDS[kind](SYSTEM)]
    assert every
    assert len({one.name for one in every}) == len(every)
    for one in every:
        assert one.truth.parties
        assert all(one.truth.things), one.name
        assert one.undo
        assert bool(one.apply) != bool(one.device)


def test_the_same_system_gives_the_same_mutations() -> None:
    once, again = (generated(SYSTEM, KINDS) for _ in range(2))
    assert once == again


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nginx-removed", "ptslink.conf:8 proxy_set_header Upgrade $http_upgrade"),
        ("nginx-value", "ptslink.conf:9 proxy_read_timeout 90s -> proxy_read_timeout 1s"),
        ("nginx-moved", "ptslink.conf:9 proxy_read_timeout 90s out of location"),
        ("unit-value", "ptslink.socket: ListenStream=127.0.0.1:3000 instead of 0.0.0.0:3000"),
        ("unit-switched", "ptslink.service: PrivateNetwork=yes"),
        ("setting-value", "[listen] port = 0"),
        ("rule-removed", "ip filter INPUT: tcp dport 80 accept"),
        ("ufw-shadowed", "80: deny from 10.77.1.2 to any port 80"),
        ("file-mode", "/etc/ptslink/ptslink.toml: mode 000 instead of 640"),
        ("machine-route", "without default via 10.77.1.1 dev eth0"),
    ],
)
def test_what_stands_on_the_machine_is_what_is_changed(kind: str, expected: str) -> None:
    assert f"{kind}/{expected}" in names(kind)


def test_a_directive_that_the_machine_lacks_is_not_mutated() -> None:
    other = System(**{**fields(SYSTEM), "nginx": {FILE: "server { listen 80; }"}})
    assert not [name for name in names("nginx-removed", other) if "proxy_" in name]


def fields(system: System) -> dict[str, Any]:
    return {name: getattr(system, name) for name in System.__slots__}


def test_an_edit_keeps_a_file_before_it_writes_and_gives_it_back() -> None:
    edit = Edit({"/etc/x": "new"})
    assert edit.apply[0].line.startswith(keep("/etc/x"))
    assert edit.undo[0].line == give_back("/etc/x")


# --- Choosing ----------------------------------------------------------------------------------


def test_a_quarter_of_the_kinds_is_left_out_whatever_their_order() -> None:
    kinds = [f"kind-{number}" for number in range(40)]
    assert len(quarter(kinds)) == 10
    assert quarter(kinds) == quarter(reversed(kinds))
    assert quarter(KINDS) == LEFT_OUT
    assert set(KINDS) > LEFT_OUT


def test_a_sample_follows_from_its_seed_and_is_the_same_beside_other_kinds() -> None:
    alone = generated(SYSTEM, ["setting-value"])
    both = generated(SYSTEM, ["setting-value", "nginx-removed"])
    first = sample(alone, "1", 3)
    assert len(first) == 3
    assert first == sample(alone, "1", 3) != sample(alone, "2", 3)
    assert [one for one in sample(both, "1", 3) if one.kind == "setting-value"] == first
    assert len(sample(alone, "1", 0)) == len(alone["setting-value"])


# --- Judging -----------------------------------------------------------------------------------

GOOD = {
    "ok": True, "connections": 1, "errors": 0, "status": 101, "first_error": None, "error": None,
    "unconfirmed": {}, "rejected": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "works"),
    [
        ({}, True),
        ({"ok": False, "status": 502}, False),
        ({"connections": 2}, False),
        ({"errors": 1, "first_error": "cut"}, False),
    ],
)
def test_a_link_works_where_the_controller_gets_in_once_and_stays(
    change: dict[str, Any], works: bool
) -> None:
    assert judged(GOOD | change).works is works


TRUTH = Truth((Party.NGINX,), ("ptslink.conf:8", "proxy_set_header Upgrade"), "without Upgrade")


def finding(id_: str, *evidence: str, **fix: Any) -> dict[str, Any]:
    return {
        "id": id_, "layer": "proxy", "title": "", "confidence": 0.9, "evidence": [*evidence],
        "ruled_out": ["proxy_set_header Upgrade"], "fix": {"summary": "", "auto": "no", **fix},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("told", "party", "exact"),
    [
        (finding("px-upgrade-headers-missing"), True, False),
        (finding("px-upgrade-headers-missing", "no  proxy_set_header 'upgrade'"), True, True),
        (finding("px-limit-req", command="edit ptslink.conf:8"), True, True),
        (finding("hs-wrong-path", "proxy_set_header Upgrade"), False, False),
        (finding("fw-ufw-drop"), False, False),
        (finding("unlisted-tcp", "ptslink.conf:8 answers there"), True, True),
        (finding("unlisted-tcp", "something answers there"), False, False),
    ],
)
def test_a_finding_is_right_about_the_party_by_its_id_and_exact_by_its_words(
    told: dict[str, Any], party: bool, exact: bool
) -> None:
    scored = score(TRUTH, told)
    assert (scored.party, scored.exact) == (party, exact)


def test_the_longest_beginning_decides_whom_a_finding_blames() -> None:
    assert blamed("fw-ufw-drop") == (Party.FIREWALL,)
    assert blamed("fw-upstream-drop") == (Party.PATH,)
    assert blamed("nobody-knows") == ()


def test_every_cause_of_the_doctor_blames_somebody() -> None:
    assert [cause.id for cause in CAUSES if not blamed(cause.id)] == []
    assert all(BLAMED.values())


# --- Counting ----------------------------------------------------------------------------------


def result(number: int, **more: Any) -> dict[str, Any]:
    kind = more.pop("kind", next(name for name in KINDS if name not in LEFT_OUT))
    usual = {"works": False, "healthy": False, "party": True, "exact": True, "confidence": 0.97,
             "named": "px-limit-req", "mended": None, "seconds": 2.0}  # fmt: skip
    return {"name": f"{kind}/{number}", "kind": kind, **usual, **more}


def counted(*results: dict[str, Any]) -> list[tuple[int, int]]:
    return [(one.count, one.of) for one in figures(results)]


@pytest.mark.parametrize(
    ("more", "place", "count"),
    [
        (
            {"healthy": True, "named": None, "party": False, "exact": False, "confidence": None},
            0,
            1,
        ),
        ({}, 1, 1),
        ({"party": False, "exact": False}, 1, 0),
        ({"exact": False}, 2, 0),
        ({"party": False, "exact": False}, 3, 1),
        ({"party": False, "exact": False, "confidence": 0.75}, 3, 0),
        ({"mended": False}, 4, 1),
        ({"mended": True}, 4, 0),
        ({"works": True}, 5, 1),
        ({"works": True, "healthy": True}, 5, 0),
    ],
)
def test_each_figure_counts_what_it_says(more: dict[str, Any], place: int, count: int) -> None:
    assert counted(result(1, **more))[place] == (count, 1)


def test_what_could_not_be_asked_about_counts_nowhere() -> None:
    failed = {"name": "x", "kind": "nginx-moved", "error": "no evidence"}
    assert counted(failed) == counted()
    assert "1 could not be made" in "\n".join(table([failed]))


def test_a_finding_about_another_way_that_is_broken_is_no_false_alarm() -> None:
    assert counted(result(1, works=True, elsewhere=True))[5] == (0, 0)


def test_nothing_counted_meets_no_goal() -> None:
    assert not any(one.met for one in figures([]))
    assert "not measured" in "\n".join(table([]))


def test_the_section_tells_the_left_out_kinds_apart_and_counts_the_newest_result() -> None:
    out = min(LEFT_OUT)
    page = section([result(1, exact=False), result(1), result(2, kind=out, party=False)])
    looked, left = page.partition("### Kinds that were left out")[::2]
    assert "right party and the exact thing | 1 of 1" in looked
    assert "right party in the first finding | 0 of 1" in left.partition("### By kind")[0]
    assert f"| `{out}` | 1 | 1 | 0 | 1 | 0 | yes |" in left


def test_the_page_of_the_matrix_and_the_section_replace_each_other_by_neither() -> None:
    text_ = section([result(1)])
    page = with_section("# Faults\n\nrows\n", text_)
    assert page.startswith("# Faults\n\nrows\n\n## Mutations\n")
    assert with_section(page, text_) == page
    assert with_section("# Faults\n\nnew rows\n", section_of(page)).endswith(text_)
    assert with_section("# Faults\n", section_of("# Faults\n")) == "# Faults\n"


# --- The device --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "held"),
    [
        ("removed", b"Origin"),
        ("no colon", b"Origin: "),
    ],
)
def test_a_header_is_taken_out_of_the_request(what: str, held: bytes) -> None:
    head = head_of("192.0.2.1", 80)
    assert held in head.encode()
    assert held not in header(head, what, "Origin")
    assert header(head, what, "Origin").endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "operation",
    [
        ("frame", "unmasked"),
        ("frame", "rsv", "4"),
        ("frame", "long length"),
        ("frame", "not final"),
    ],
)
def test_a_changed_frame_differs_in_one_thing_and_carries_the_same_text(
    operation: tuple[str, ...],
) -> None:
    found = decode_frame(b"".join(frames(text(()), operation)))
    assert found is not None
    frame, rest = found
    assert (frame.payload, rest) == (text(()), b"")
    plain = decode_frame(b"".join(frames(text(()), ())))
    assert plain is not None
    if operation[1] != "long length":
        assert frame != plain[0]


def test_a_mutation_is_called_by_its_kind_and_what_it_is() -> None:
    assert Mutation("kind", "what", TRUTH, (), ()).name == "kind/what"
