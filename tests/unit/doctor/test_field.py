"""Faults from the field that were once told wrongly, each as the collectors show it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import crossplane
import pytest

from ptslink.doctor.cause import WORDS
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.collect import host, network
from ptslink.doctor.collect import nginx as nginx_collector
from ptslink.doctor.collect.edge import Output, Stopwatch
from ptslink.doctor.collect.nginx_config import read_config
from ptslink.doctor.collect.nginx_log import read_access, read_error
from ptslink.doctor.collect.service import dialled
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.verdict import Verdict, judge
from unit.doctor.fake_machine import FakeMachine
from unit.doctor.programs import assert_runnable
from unit.doctor.traces import CONTROLLER, NOW, attempt, link, records, seen, service_config

TARGET = "ws://192.0.2.7:80/ptsWebSocket"
PROBE = "0" * 16 + "AABBCCDD"
LB = "server { listen 80 proxy_protocol; listen [::]:80 proxy_protocol; return 200 x; }"
SITE = """server {
    listen 80 default_server;
    location / { proxy_pass http://127.0.0.1:3000; proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection upgrade; proxy_http_version 1.1; } }"""


def verdict(*evidence: Evidence, target: str = TARGET) -> Verdict:
    found = judge(Case(target, evidence), CAUSES)
    for finding in found.findings:
        assert_runnable(finding.fix)
        assert finding.match.confidence in (*WORDS, 1.0)
    return found


def own_try(hop: str, port: int, status: int | None = 101, **facts: Any) -> Evidence:
    """``link.local`` as the service's collector makes it."""
    good = status == 101 and "ended" not in facts
    told = {"hop": hop, "port": port, "scheme": "ws", "path": "/ptsWebSocket", "status": status,
            "headers": {}, "body": "", "accept_ok": True if good else None,
            "controller_id": PROBE, **facts}  # fmt: skip
    text = f"{hop} at port {port}: {status or facts.get('errno') or facts.get('ended')}"
    return Evidence("link.local", Status.OK if good else Status.FAILED, text, told, 3.0, "server")


def configured(tmp_path: Any, **sites: str) -> Evidence:
    """``nginx.config`` of the *sites* by name, as the collector reads them."""
    for name, text in sites.items():
        (tmp_path / name).write_text(text)
    main = tmp_path / "nginx.conf"
    main.write_text("events {}\nhttp {" + "".join(f"include {tmp_path}/{n};\n" for n in sites)
                    + "}")  # fmt: skip
    return seen("nginx.config", **read_config(crossplane.parse(str(main), combine=True)))


def logged(access: str = "", error: str = "") -> tuple[Evidence, Evidence]:
    return (
        seen("nginx.access", file=["access.log"], lines=read_access(access)),
        seen("nginx.error", file=["error.log"], hidden=False, events=read_error(error)),
    )


BROKEN_HEADER = "".join(
    f'2026/11/18 11:06:3{n} [error] 812#812: *{n} broken header: "GET /ptsWebSocket HTTP/1.1" '
    "while reading PROXY protocol, client: 127.0.0.1, server: 0.0.0.0:80\n"
    for n in range(2)
)


def test_proxy_protocol_on_the_links_port_is_named_with_file_and_line(tmp_path: Any) -> None:
    first = verdict(
        service_config(listen={"port": 3000}),
        configured(tmp_path, site=SITE, lb=LB),
        *logged(error=BROKEN_HEADER),
        own_try("service", 3000),
        own_try("nginx", 80, None, ended="fin"),
    ).findings[0]
    assert first.id == "px-proxy-protocol-expected"
    assert f"{tmp_path}/lb line 1: listen 80 with proxy_protocol" in str(first.match.evidence)


def proxy_line(start: str, by: str) -> list[Evidence]:
    """Six connections that begin so, as nginx's default site or the service has them."""
    if by == "service":
        told = {"controller": "", "method": None, "path": None, "headers": [],
                "first_bytes": {"hex": start.encode("latin-1").hex()}}  # fmt: skip
        return [records([attempt("proxy-protocol", 400, NOW + n * 0.1, **told) for n in range(6)])]
    printed = start.encode("unicode_escape").decode().upper().replace("\\X", "\\x")
    lines = "".join(
        f'198.51.100.9 - - [18/Nov/2026:11:06:40 +0000] "{printed}" 400 150 "-" "-"\n'
        for _ in range(6)
    )
    return [*logged(lines), records()]


@pytest.mark.parametrize("by", ["nginx", "service"])
@pytest.mark.parametrize("start", [
    "PROXY TCP4 198.51.100.9 192.0.2.7 40000 3000",
    "\r\n\r\n\x00\r\nQUIT\n",
], ids=["version 1", "version 2"])  # fmt: skip
def test_a_balancer_that_sends_proxy_protocol_is_blamed_and_no_firmware(
    start: str, by: str
) -> None:
    if by == "nginx" and not start.startswith("PROXY"):
        start = "\0"  # nginx skips empty lines in front and logs up to the next end of a line
    first = verdict(*proxy_line(start, by)).findings[0]
    assert first.id == "px-proxy-protocol-sent"
    assert first.fix.auto.value == "no"


# where the file of the link lies -> the command that has nginx read it
UNREAD = [
    ("conf.d/ptslink.conf", "include {}/conf.d/*.conf;"),
    ("conf.d/ptslink.conf.bak", "mv {0}/conf.d/ptslink.conf.bak {0}/conf.d/ptslink.conf"),
    ("sites-available/link", "mv {0}/sites-available/link {0}/sites-enabled/link"),
]


@pytest.mark.parametrize(("name", "command"), UNREAD)
def test_a_file_that_no_include_names_is_the_fault(tmp_path: Any, name: str, command: str) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "sites-available").mkdir()
    (tmp_path / name).write_text("# ptslink\n" + SITE)
    (tmp_path / "conf.d" / "gzip.conf").write_text("gzip on;\n")
    read = configured(tmp_path, other="server { listen 80; return 404; }")
    assert f"{tmp_path}/other" in read.facts["files"]
    left = nginx_collector.unread(tmp_path, read.facts["files"])
    assert left == [f"{tmp_path}/{name}"]
    told = seen("nginx.config", **{**read.facts, "unread": left})
    access = (
        f'{{"time":"2026-11-18T11:06:40+00:00","client":"198.51.100.20","request":'
        f'"GET /ptsWebSocket HTTP/1.1","status":404,"port":"80","upgrade":"websocket",'
        f'"controller":"{CONTROLLER}","upstream_status":"","request_seconds":"0.000"}}\n'
    )
    for evidence in ([told], [told, *logged(access)]):
        first = verdict(service_config(), *evidence).findings[0]
        assert first.id == "px-include-missing"
        assert command.format(tmp_path) in str(first.fix.command)
        assert name in str(first.match.evidence)
        assert "include" in str(first.fix.command)


def test_nginx_that_refuses_a_request_itself_is_no_way_out_for_it() -> None:
    line = '"GET /ptsWebSocket HTTP/1.1" 400 150 "-" "-"\n'
    error = (
        '2026/11/18 11:06:40 [info] 812#812: *1 client sent invalid header line: "Sec\\x20- '
        'WebSocket - Protocol: x" while reading client request headers, client: 198.51.100.20, '
        'server: _, request: "GET /ptsWebSocket HTTP/1.1"\n'
    )
    stamps = [f"198.51.100.20 - - [18/Nov/2026:11:06:{40 + n} +0000] " for n in range(6)]
    through = logged("".join(s + line for s in stamps), error)
    reason = "The header line 'Sec - WebSocket - Protocol' has blanks in its name."
    direct = records([attempt("blank-in-header-name", 400, NOW + n, reason=reason)
                      for n in range(6)])  # fmt: skip
    first = verdict(*through, direct).findings[0]
    assert first.id == "hs-malformed-request"
    assert reason in first.match.evidence
    assert "through nginx" not in first.fix.summary
    assert first.fix.auto.value == "ask"


@pytest.mark.parametrize("scheme", ["Digest", "Basic"])
def test_digest_is_a_switch_of_the_controller_and_no_wrong_password(scheme: str) -> None:
    code = {"Digest": "digest-credentials", "Basic": "wrong-credentials"}[scheme]
    headers = [["Upgrade", "websocket"], ["Authorization", f"{scheme} x"]]
    first = verdict(service_config(), records([attempt(code, 401, headers=headers)])).findings[0]
    assert first.id == "hs-auth-mismatch"
    assert ("switch 2" in str(first.fix.controller)) is (scheme == "Digest")
    assert ("same login" in first.fix.summary) is (scheme == "Basic")


def test_a_controller_that_closes_after_the_101_has_read_it() -> None:
    quick = [link("lost-fin", 0.003, NOW + n, closed_by="peer") for n in range(6)]
    tries = [attempt("accepted", 101, NOW + n) for n in range(6)]
    found = verdict(service_config(), records(tries, quick, now=NOW + 6)).findings
    assert "hs-half-close-499" not in [one.id for one in found]
    assert "The controller ends it" in found[0].fix.summary
    assert found[0].fix.auto.value != "yes"


def test_who_asks_for_the_links_path_in_vain_is_no_stranger() -> None:
    """Another site's log names neither controller nor Upgrade, only the path."""
    lines = "".join(
        f"198.51.100.20 - - [18/Nov/2026:11:06:{40 + n} +0000] "
        '"GET /ptsWebSocket HTTP/1.1" 418 150 "-" "-"\n'
        for n in range(6)
    )
    assert not verdict(*logged(lines), records(now=NOW + 6)).healthy
    assert verdict(*logged(lines.replace("/ptsWebSocket", "/wp-login.php")), records()).healthy


# --- Firewalls: the table whose rule decides -----------------------------------------------------

UFW_OFF = "*filter\n:INPUT ACCEPT [0:0]\n:ufw-user-input - [0:0]\n"
OUTSIDE = (
    UFW_OFF + "-A INPUT -p tcp --dport 22 -j ACCEPT\n"
    "-A INPUT -j REJECT --reject-with icmp-host-prohibited\n-A INPUT -j ufw-user-input\nCOMMIT\n"
)
BY_UFW = (
    UFW_OFF.replace("INPUT ACCEPT", "INPUT DROP") + "-A INPUT -j ufw-user-input\n"
    "-A ufw-user-input -p tcp --dport 22 -j ACCEPT\nCOMMIT\n"
)
OWN_NFT = json.dumps({"nftables": [
    {"table": {"family": "inet", "name": "own"}},
    {"chain": {"family": "inet", "table": "own", "name": "in", "hook": "input", "prio": 0,
               "type": "filter", "policy": "drop"}},
]})  # fmt: skip
DNAT = (
    "*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp --dport 80 -j DNAT --to-destination "
    "192.0.2.99:80\nCOMMIT\n"
)


SHADOWED = (
    "*filter\n:INPUT DROP [0:0]\n:ufw-user-input - [0:0]\n-A INPUT -j ufw-user-input\n"
    "-A ufw-user-input -p tcp -j REJECT --reject-with tcp-reset\n"
    "-A ufw-user-input -p tcp --dport 80 -j ACCEPT\nCOMMIT\n"
)


def firewall(iptables: str = "", nft: str = '{"nftables": []}', **files: str) -> Evidence:
    """``net.firewall`` of port 80 as the collector makes it of the rules in the kernel."""
    return rules_of(iptables, nft, **files)[0]


def rules_of(iptables: str = "", nft: str = '{"nftables": []}', **files: str) -> list[Evidence]:
    """``net.firewall`` and ``net.filter`` of port 80, IPv4."""
    commands = {"iptables-save": Output(iptables), "nft": Output(nft), "ip6tables-save": Output("")}
    machine = FakeMachine(commands, {"/etc/ufw/ufw.conf": files.get("ufw", "")})
    found = network._firewall(machine, Stopwatch(), [80], [], "eth0", [80])
    return [one for one in found if one.facts["family"] == "ipv4"]


LISTENING = seen("net.listeners", ports=[80], listeners=[
    {"address": "0.0.0.0", "port": 80, "family": "ipv4", "process": "nginx", "pid": 1,
     "unit": "nginx.service", "queue": 0, "backlog": 511}])  # fmt: skip

# the rules -> the words that quote the rule, the command that works on its table, its class
RULES = [
    (firewall(OUTSIDE), "INPUT: -j REJECT", "iptables -t filter -I INPUT -p tcp --dport 80", "ask"),
    (firewall(BY_UFW), "policy drop", "ufw allow 80/tcp", "yes"),
    (firewall(nft=OWN_NFT), "inet own in: policy drop",
     "nft insert rule inet own in tcp dport 80 accept", "ask"),
    # What ufw adds comes behind a rule of its own that refuses.
    (firewall(SHADOWED), "ufw-user-input: -p tcp -j REJECT", "ufw status numbered", "ask"),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "quoted", "command", "auto"), RULES,
                         ids=["no manager", "ufw", "nftables", "ufw's rule"])  # fmt: skip
def test_the_table_of_the_rule_decides_which_tool_undoes_it(
    rules: Evidence, quoted: str, command: str, auto: str
) -> None:
    first = verdict(rules, LISTENING).findings[0]
    assert quoted in str(first.match.evidence)
    assert command in str(first.fix.command)
    assert "firewalld" not in first.title + first.fix.summary
    assert first.fix.auto.value == auto


@pytest.mark.parametrize("enabled", [True, False])
def test_rules_that_another_program_has_flushed_are_told(enabled: bool) -> None:
    rules = firewall(nft=OWN_NFT, ufw=f"ENABLED={'yes' if enabled else 'no'}\n")
    text = str(verdict(rules, LISTENING).findings[0].match.evidence)
    assert ("ufw is switched on, and none of its rules is in the kernel" in text) is enabled


def test_a_rule_that_takes_the_packets_before_nginx_is_seen_from_the_server_alone() -> None:
    first = verdict(firewall(DNAT), LISTENING).findings[0]
    assert first.id == "fw-docker-path"
    assert "192.0.2.99:80" in str(first.match.evidence)
    assert verdict(firewall(), LISTENING).findings == ()


# --- The site, the disk, the machine -------------------------------------------------------------


@pytest.mark.parametrize("socket", [True, False], ids=["after 75 s", "after 150 s"])
def test_a_site_without_power_looks_the_same_after_its_socket_is_gone(socket: bool) -> None:
    end = link("ping-timeout", 85.0, closed_by="server", transport="aborted", pings=4, pongs=2,
               close_sent=[1011, "keepalive ping timeout"], messages_in=9)  # fmt: skip
    left = {"state": "FIN-WAIT-1", "local": "192.0.2.7", "local_port": 3000,
            "peer": "198.51.100.20", "peer_port": 40000, "recv_q": 0, "send_q": 33, "timer": "on",
            "retrans": 1, "backoff": 5, "mss": 1448}  # fmt: skip
    found = verdict(
        service_config(listen={"port": 3000}, keepalive={"ping_interval_seconds": 20}),
        records([attempt("accepted", 101, NOW - 85)], [end]),
        seen("net.sockets", sockets=[left] if socket else [], syn_recv=0),
    ).findings
    assert found[0].id == "tcp-half-open-ghost"
    assert "ws-ping-unanswered" not in [one.id for one in found]
    # Pings are on: to switch them on again mends nothing.
    assert (found[0].fix.auto.value, dict(found[0].fix.ansible)) == ("no", {})


def disk(path: str, mount: str, kind: str = "ext4", free: int = 1 << 30, **more: Any) -> Any:
    return {"path": path, "mount": mount, "type": kind, "size": 1 << 34, "free": free,
            "inodes": 100, "inodes_free": 50, "read_only": False, **more}  # fmt: skip


@pytest.mark.parametrize(("kind", "named"), [("tmpfs", True), ("nfs4", True), ("cifs", True),
                                             ("ext4", False), ("xfs", False)])  # fmt: skip
def test_a_journal_on_a_file_system_that_cannot_keep_it_is_named(kind: str, named: bool) -> None:
    told = disk("/var/lib/ptslink", "/var/lib/ptslink", kind)
    found = verdict(seen("host.disk", file_systems=[told]), records()).findings
    assert [one.id for one in found] == (["host-journal-forgets"] if named else [])


@pytest.mark.parametrize("own", [True, False], ids=["a disk of its own", "with /var/log"])
def test_what_makes_room_is_what_lies_on_the_full_disk(own: bool) -> None:
    big = disk("/", "/", free=1 << 33)
    full = disk("/var/lib/ptslink", "/var/lib/ptslink", free=0,
                largest=["/var/lib/ptslink/backup 9000 MiB"])  # fmt: skip
    systems = [full, big] if own else [{**full, "path": "/", "mount": "/"}]
    first = verdict(seen("host.disk", file_systems=systems)).findings[0]
    assert first.id == "host-disk-full"
    assert "backup 9000 MiB" in str(first.match.evidence)
    assert ("vacuum" in str(first.fix.command)) is not own
    assert (first.fix.auto.value == "yes") is not own


def test_the_directory_that_the_services_user_may_not_enter_is_named() -> None:
    program = "/opt/ptslink/current/bin/ptslink"
    machine = FakeMachine({
        "readlink": Output("/opt/ptslink/releases/1/bin/ptslink\n"), "id": Output("ptslink\n"),
        "stat": Output("755 root root /\n750 root root /opt\n750 root ptslink /opt/ptslink\n"),
    })  # fmt: skip
    show = {"User": "ptslink", "ExecStart": f"{{ path={program} ; argv[]={program} serve }}"}
    closed = host.closed(machine, show)
    assert [one["directory"] for one in closed] == ["/opt"]
    assert any("/opt/ptslink/releases" in line for line in machine.ran)
    failed = Evidence(
        "host.unit", Status.FAILED, "ptslink.service: failed",
        {"unit": "ptslink.service", "load": "loaded", "active": "failed", "sub": "failed",
         "result": "exit-code", "exit_status": 203, "restarts": 5, "enabled": "enabled",
         "start_limit": True, "last_lines": ["Failed at step EXEC"], "closed": closed},
        1.0, "server",
    )  # fmt: skip
    first = verdict(failed, records()).findings[0]
    assert first.id == "host-directory-closed"
    assert "/opt (mode 750, of root)" in str(first.match.evidence)


# --- No failing check is left out ---------------------------------------------------------------

FAILING = [
    own_try("nginx", 80, None, ended="fin"),
    own_try("nginx", 80, 404),
    own_try("service", 3000, None, errno="ECONNREFUSED"),
    Evidence("host.unit", Status.FAILED, "x.service: failed", {"unit": "x.service"}, 1, "server"),
    Evidence("net.route_to", Status.FAILED, "no route", {"peer": "192.0.2.9"}, 1, "server"),
    Evidence("odd.new", Status.FAILED, "odd", {}, 1, "server"),
]


@pytest.mark.parametrize("piece", FAILING, ids=lambda piece: f"{piece.probe}: {piece.seen}")
def test_no_failing_check_goes_with_a_healthy_verdict(piece: Evidence) -> None:
    well = (seen("service.live", health={"status": "ok"}, controllers=[], now=NOW), records())
    found = verdict(*well, piece)
    assert not found.healthy
    assert piece.seen in str(found.findings[0].match.evidence)
    variation = dataclasses.replace(piece, facts={**piece.facts, "variation": True})
    assert verdict(*well, variation).healthy


def test_what_a_controller_does_wrong_explains_no_failing_try_of_the_server() -> None:
    bad = records([attempt("key-length", 400, NOW + n) for n in range(3)])
    ids = [one.id for one in verdict(bad, own_try("service", 3000),
                                     own_try("nginx", 80, 418)).findings]  # fmt: skip
    assert ids[0] == "unlisted-proxy"
    assert "hs-bad-key" in ids


def test_one_good_try_at_nginx_does_not_acquit_another_that_fails() -> None:
    found = verdict(
        own_try("service", 3000),
        own_try("nginx", 80, address="127.0.0.1"),
        own_try("nginx", 80, 403, address="192.0.2.7", body="<center>nginx</center>"),
    )
    assert found.findings[0].layer.value == "proxy"


def test_the_server_dials_its_own_address_as_a_controller_does() -> None:
    def listening(address: str, family: str = "ipv4") -> list[dict[str, Any]]:
        return [{"address": address, "port": 80, "family": family}]

    own = ["192.0.2.7", "198.51.100.2"]
    assert dialled(listening("0.0.0.0"), 80, own) == ["127.0.0.1", "192.0.2.7"]
    assert dialled(listening("198.51.100.2"), 80, own) == ["198.51.100.2"]
    assert dialled(listening("127.0.0.1"), 80, own) == ["127.0.0.1"]
    assert dialled(listening("::", "both"), 80, []) == ["127.0.0.1"]
    assert dialled(listening("0.0.0.0"), 443, own) == []


def test_a_journal_that_was_begun_anew_is_loud_and_nothing_is_healthy() -> None:
    """The seen line is the collector's of a service whose /health tells of it."""
    gone = Evidence("service.live", Status.FAILED,
                    "health ok; 2 controllers connected; CONFIRMED RECORDS ARE GONE: a new journal",
                    {"health": {"status": "ok", "journal": {"ok": True, "replaced": "a new one"}},
                     "controllers": [{"id": "A1"}], "now": NOW}, 1.0, "server")  # fmt: skip
    found = verdict(gone, records(), own_try("service", 3000), own_try("nginx", 80))
    assert not found.healthy
    assert "CONFIRMED RECORDS ARE GONE" in str(found.findings[0].match.evidence)


def test_the_site_that_answers_on_the_very_address_is_named_with_its_line(tmp_path: Any) -> None:
    tea = "server {\n listen 192.0.2.7:80;\n return 418;\n}"
    first = verdict(
        service_config(listen={"port": 3000}),
        configured(tmp_path, site=SITE, tea=tea),
        own_try("service", 3000),
        own_try("nginx", 80, address="127.0.0.1", host="127.0.0.1:80"),
        own_try("nginx", 80, 418, address="192.0.2.7", host="192.0.2.7:80"),
    ).findings[0]
    assert first.id == "unlisted-proxy"
    assert f"{tmp_path}/tea line 3: return 418" in first.match.evidence


@pytest.mark.parametrize(("reloaded", "told"), [(NOW + 60, False), (NOW - 60, True)])
def test_what_an_earlier_nginx_logged_is_not_quoted(reloaded: float, told: bool) -> None:
    process = seen("nginx.process", running=True, reloaded=reloaded, test_ok=True)
    event = {"time": NOW, "kind": "no-file", "text": "open() failed", "client": "203.0.113.5",
             "request": None, "port": 80}  # fmt: skip
    log = seen("nginx.error", file=["e"], hidden=False, events=[event])
    found = verdict(process, log, own_try("service", 3000), own_try("nginx", 80, 418))
    assert ("open() failed" in str(found.findings[0].match.evidence)) is told


def in_table(hook: str, rule: str) -> str:
    """``iptables-save`` of one chain of filter with *rule* in it."""
    return f"*filter\n:{hook} ACCEPT [0:0]\n[7:420] -A {hook} {rule}\nCOMMIT\n"


SILENT = Evidence("tcp.connect", Status.FAILED, "ETIMEDOUT", {
    "address": "192.0.2.7", "family": "ipv4", "port": 80, "errno": "ETIMEDOUT"},
    2000.0, "site")  # fmt: skip
MUTE = Evidence("http.upgrade", Status.FAILED, "nothing came within 2 s",
                {"port": 80, "ended": "timeout", "status": None}, 2000.0, "site")  # fmt: skip
INSIDE = own_try("service", 80, None, errno="ETIMEDOUT", address="127.0.0.1")
# the rule, what fails -> whether that rule is named
TAKEN = [
    (in_table("OUTPUT", "-p tcp --sport 80 -j DROP"), SILENT, True),
    (in_table("OUTPUT", "-o lo -p tcp --dport 80 -j DROP"), INSIDE, True),
    (in_table("INPUT", "-i lo -p tcp --dport 80 -j REJECT"), INSIDE, True),
    (in_table("INPUT", "-p tcp --dport 80 -m conntrack --ctstate ESTABLISHED -j DROP"), MUTE, True),
    (in_table("INPUT", "-p tcp --dport 80 -m length --length 100:1500 -j DROP"), MUTE, True),
    (in_table("OUTPUT", "-d 198.51.100.9 -j DROP"), SILENT, False),
    # Nothing says that it took anything, and it is not about the link.
    (in_table("INPUT", "-m mark --mark 7 -j DROP").replace("[7:420]", "[0:0]"), MUTE, False),
    (in_table("OUTPUT", "-o lo -p tcp --dport 80 -j DROP"), SILENT, False),
    (in_table("OUTPUT", "-p tcp --sport 80 -m conntrack --ctstate NEW -j DROP"), SILENT, False),
]


@pytest.mark.parametrize(("rules", "failed", "named"), TAKEN)
def test_a_rule_that_takes_packets_after_the_first_is_named(
    rules: str, failed: Evidence, named: bool
) -> None:
    found = verdict(failed, *rules_of(rules), LISTENING).findings
    text = rules.splitlines()[2].partition("-A ")[2].partition(" ")[2]
    assert (found[0].id == "fw-answers-taken", text in str(found[0].match.evidence)) == (
        named,
        named,
    )


def test_a_port_that_a_rule_turns_to_another_one_is_named_before_what_answers_there() -> None:
    rule = "-i eth0 -p tcp --dport 80 -j REDIRECT --to-ports 443"
    nat = f"*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {rule}\nCOMMIT\n"
    answer = Evidence("http.upgrade", Status.FAILED, "answered 400 by nginx itself",
                      {"port": 80, "status": 400, "scheme": "ws",
                       "body": "The plain HTTP request was sent to HTTPS port"},
                      5.0, "site")  # fmt: skip
    first = verdict(answer, *rules_of(nat), LISTENING).findings[0]
    assert first.id == "fw-docker-path"
    assert "REDIRECT --to-ports 443" in str(first.match.evidence)


def test_a_drop_in_of_a_unit_that_fails_is_shown_and_starting_it_again_is_asked_for() -> None:
    unit = seen("host.unit", unit="nginx.service", active="failed", sub="failed", load="loaded",
                result="signal", enabled="enabled", last_lines=["Bad system call"],
                set=[["/etc/systemd/system/nginx.service.d/x.conf", "UMask=0777"]])  # fmt: skip
    refused = dataclasses.replace(SILENT, facts=SILENT.facts | {"errno": "ECONNREFUSED"})
    first = verdict(refused, unit, seen("net.listeners", ports=[80], listeners=[])).findings[0]
    assert "x.conf sets UMask=0777" in str(first.match.evidence)
    assert "Bad system call" in str(first.match.evidence)
    assert first.fix.auto.value == "ask"


# what nginx -t says -> whose it is
REFUSED = [
    ('cannot load certificate key "/etc/ptslink/tls/live/rsa.key": PEM_read_bio_PrivateKey() '
     "failed", "px-certificate-unusable"),
    ('SSL_CTX_use_PrivateKey("/etc/k.pem") failed (SSL: error:0B080074:x509 certificate '
     "routines:X509_check_private_key:key values mismatch)", "px-certificate-unusable"),
    ('unknown directive "lissten" in /etc/nginx/conf.d/a.conf:3', "px-not-running-bad-config"),
    ('no "ssl_certificate" is defined for the "listen ... ssl" directive in '
     "/etc/nginx/conf.d/ptslink.conf:8", "px-not-running-bad-config"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "named"), REFUSED)
def test_a_certificate_that_nginx_cannot_use_is_told_from_its_configuration(
    message: str, named: str
) -> None:
    process = seen("nginx.process", installed=True, running=False, active_state="failed",
                   test_ok=False, test_message=message)  # fmt: skip
    refused = dataclasses.replace(SILENT, facts=SILENT.facts | {"errno": "ECONNREFUSED"})
    assert verdict(refused, process).findings[0].id == named


def unit_asked(**facts: Any) -> str:
    """The class of the fix that starts a stopped nginx, where its unit is so."""
    unit = seen("host.unit", unit="nginx.service", active="inactive", sub="dead", load="loaded",
                result="success", enabled="enabled", **facts)  # fmt: skip
    refused = dataclasses.replace(SILENT, facts=SILENT.facts | {"errno": "ECONNREFUSED"})
    nobody = seen("net.listeners", ports=[80], listeners=[])
    found = verdict(refused, unit, nobody).findings[0]
    assert found.id == "tcp-service-down"
    return found.fix.auto.value


def test_a_unit_is_started_unasked_only_where_nothing_keeps_it_from_starting() -> None:
    path = "/etc/systemd/system/nginx.service.d/x.conf"
    assert unit_asked() == "yes"
    assert unit_asked(set=[[path, "LimitNOFILE=4096"]]) == "yes"
    assert unit_asked(set=[[path, "ConditionPathExists=/nonexistent"]]) == "ask"
    assert unit_asked(set=[[path, "Requires=nosuch.service"]]) == "ask"


def test_a_controller_whose_texts_are_no_messages_is_named_and_no_timer_on_the_way() -> None:
    ends = [link("lost-fin", 3.02, at=NOW - 10 + n * 4, messages_in=1, messages_out=0,
                 notes=["unreadable"], closed_by="transport", transport="fin")
            for n in range(3)]  # fmt: skip
    first = verdict(service_config(), records(links=ends, now=NOW)).findings[0]
    assert first.id == "ws-message-unreadable"


def test_a_controller_that_closes_every_link_before_a_word_is_not_healthy() -> None:
    ends = [link("closed-1000-by-peer", 0.01, at=NOW - 8 + n, messages_in=0, closed_by="peer",
                 close_sent=[1000, ""], close_rcvd=[1000, ""]) for n in range(6)]  # fmt: skip
    found = verdict(service_config(), records(links=ends, now=NOW)).findings
    assert [one.id for one in found] == ["ws-closed-by-controller"]
    assert verdict(service_config(), records(links=ends[:1], now=NOW)).healthy


# how a request was logged that nginx could not read, how often -> what is found
UNREAD_REQUESTS = [
    ("GET /ptsWebSocket http/1.1", 400, 6, ["hs-malformed-request"]),
    ("GET /ptsWebSocket HTTP/2.0", 505, 6, ["hs-malformed-request"]),
    ("GET /ptsWebSocket", 404, 6, ["hs-malformed-request"]),
    ("GET /%zz HTTP/1.1", 400, 6, []),
    ("GET /wp-login.php http/1.1", 400, 2, []),  # a scanner comes by once or twice
]


@pytest.mark.parametrize(("request_line", "status", "tries", "ids"), UNREAD_REQUESTS)
def test_a_request_for_the_link_that_nginx_cannot_read_is_not_a_scanner_s(
    request_line: str, status: int, tries: int, ids: list[str]
) -> None:
    lines = "".join(
        f'198.51.100.20 - - [18/Nov/2026:11:06:4{n} +0000] "{request_line}" {status} 150 "-" "-"\n'
        for n in range(tries)
    )
    found = verdict(*logged(lines), service_config(), records(now=NOW + 6)).findings
    assert [one.id for one in found] == ids


def test_another_proxy_in_the_place_of_nginx_is_no_fault_where_the_link_works() -> None:
    stopped = Evidence("nginx.process", Status.UNKNOWN, "nginx does not run",
                       {"running": False, "test_ok": True}, 1.0, "server")  # fmt: skip
    apache = dict(LISTENING.facts["listeners"][0], process="apache2", unit="apache2.service")
    held = seen("net.listeners", ports=[80], listeners=[apache])
    tries = [own_try("nginx", 80), own_try("service", 3000)]
    assert verdict(stopped, held, *tries).healthy
    named = verdict(SILENT, stopped, held).findings[0]
    assert named.id == "tcp-port-taken"


def test_pages_asked_of_the_link_s_path_by_nobody_known_are_no_controller_s_tries() -> None:
    lines = "".join(
        f'{{"time":"2026-11-18T11:06:4{n}+00:00","client":"198.51.100.20","request":'
        f'"GET /ptsWebSocket HTTP/1.1","status":426,"port":"80","upgrade":"","connection":"",'
        f'"controller":"","upstream_status":"426","upstream_header_seconds":"0.001",'
        f'"request_seconds":"0.001"}}\n'
        for n in range(9)
    )
    assert verdict(*logged(lines), service_config(), records(now=NOW + 9)).healthy
