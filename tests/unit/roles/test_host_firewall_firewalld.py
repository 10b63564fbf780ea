"""firewalld: what is planned from what is there, and only our own policies are written."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# As firewalld 2.3 prints them: a rich rule a line, after a tab.
ZONES = """\
public (default, active)
  target: default
  ingress-priority: 0
  icmp-block-inversion: no
  interfaces: host0
  sources: 
  services: dhcpv6-client ssh
  ports: 8443/tcp
  protocols: 
  forward: yes
  masquerade: no
  forward-ports: 
  source-ports: 
  icmp-blocks: 
  rich rules: 
\trule family="ipv4" source address="198.51.100.0/24" reject
\trule service name="http" accept

trusted
  target: ACCEPT
  interfaces: 
  sources: 
  services: 
  ports: 
  rich rules: 
"""  # noqa: W291


@pytest.fixture
def firewalld(plugin: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    guard = plugin("host_firewall/module_utils/host_firewall_guard")
    # Where Ansible puts it on the host.
    monkeypatch.setitem(sys.modules, "ansible.module_utils.host_firewall_guard", guard)
    return plugin("host_firewall/library/host_firewall_firewalld")


@pytest.fixture
def wanted(firewalld: Any) -> Any:
    rules = [firewalld.Rule(port, "tcp", None, "controllers") for port in (80, 3000)]
    return firewalld.policies([firewalld.Rule(22, "tcp", None, "ssh")], rules, "ptslink", True)


def settled(firewalld: Any, wanted: Any) -> Any:
    """A host that is as wanted."""
    before = firewalld.State(
        active=True,
        enabled=True,
        default_zone="public",
        zones=firewalld.parse_zones(ZONES),
        files={},
        running={"ptslink-ssh": None, "ptslink": None},
    )
    return firewalld.outcome(before, wanted)


def test_zones_are_read_as_firewalld_prints_them(firewalld: Any) -> None:
    zones = firewalld.parse_zones(ZONES)
    assert zones["public"]["services"] == ["dhcpv6-client", "ssh"]
    assert zones["public"]["ports"] == ["8443/tcp"]
    assert zones["public"]["rich rules"] == [
        'rule family="ipv4" source address="198.51.100.0/24" reject',
        'rule service name="http" accept',
    ]
    assert zones["trusted"]["target"] == ["ACCEPT"]


def test_what_others_let_in_is_named_where_it_is_in_force(firewalld: Any, wanted: Any) -> None:
    assert settled(firewalld, wanted).strangers() == [
        "zone public: service dhcpv6-client",
        "zone public: service ssh",
        "zone public: port 8443/tcp",
        'zone public: rich rule rule family="ipv4" source address="198.51.100.0/24" reject',
        'zone public: rich rule rule service name="http" accept',
    ]


@pytest.mark.parametrize(
    ("source", "ipv6", "text"),
    [
        (None, True, 'rule port port="80" protocol="tcp" accept'),
        (None, False, 'rule family="ipv4" port port="80" protocol="tcp" accept'),
        (
            "10.0.0.0/8",
            True,
            'rule family="ipv4" source address="10.0.0.0/8" port port="80" protocol="tcp" accept',
        ),
        (
            "2001:db8::/32",
            False,
            'rule family="ipv6" source address="2001:db8::/32" '
            'port port="80" protocol="tcp" accept',
        ),
    ],
)
def test_a_rule_is_spelt_as_firewalld_prints_it_and_reads_back(
    firewalld: Any, source: str | None, ipv6: bool, text: str
) -> None:
    rule = firewalld.Rule(80, "tcp", source, "a -- purpose")
    assert firewalld.rich(rule, ipv6) == text
    policy = firewalld.Policy("ptslink", 1000, {text: rule.purpose})
    assert ET.fromstring(policy.xml()).get("target") == "CONTINUE"
    assert firewalld.read_policy(policy.xml()) == (1000, frozenset([text]))


def test_ssh_comes_before_every_zone_and_the_link_after(wanted: Any) -> None:
    ssh, link = wanted
    assert (ssh.name, link.name) == ("ptslink-ssh", "ptslink")
    assert ssh.priority < 0 < link.priority


@pytest.mark.parametrize(
    "foreign",
    [
        "<service name='http'/>",
        "<rule><service name='http'/><accept/></rule>",
        "<rule><port port='80' protocol='tcp'/><drop/></rule>",
        "<rule priority='-5'><port port='80' protocol='tcp'/><accept/></rule>",
        "<rule><source address='10.0.0.1' invert='yes'/>"
        "<port port='1' protocol='tcp'/><accept/></rule>",
        "<ingress-zone name='public'/>",
    ],
)
def test_what_somebody_wrote_into_a_policy_of_ours_is_seen(
    firewalld: Any, wanted: Any, foreign: str
) -> None:
    altered = wanted[1].xml().replace("</policy>", f"{foreign}</policy>")
    assert firewalld.read_policy(altered) is None


def test_what_is_as_wanted_is_left(firewalld: Any, wanted: Any) -> None:
    assert not firewalld.plan(settled(firewalld, wanted), wanted)


def test_a_bare_firewalld_is_written_to_and_started_without_a_reload(
    firewalld: Any, wanted: Any
) -> None:
    now = replace(settled(firewalld, wanted), active=False, enabled=False, files={})
    now.running = dict.fromkeys(now.running)
    todo = firewalld.plan(now, wanted)
    assert todo.write == list(wanted)
    assert (todo.start, todo.reload) == (True, False)


def test_only_new_policies_need_a_reload(firewalld: Any, wanted: Any) -> None:
    now = settled(firewalld, wanted)
    less = [wanted[0], firewalld.Policy("ptslink", 1000, dict(list(wanted[1].rules.items())[:1]))]
    todo = firewalld.plan(now, less)
    assert (todo.reload, todo.write, todo.live) == (False, [less[1]], [less[1]])
    now.running["ptslink"] = None
    assert firewalld.plan(now, wanted).reload


def test_a_port_taken_out_is_closed_after_new_ones_are_open(
    firewalld: Any, wanted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = 'rule port port="8080" protocol="tcp" accept'
    there = 'rule port port="80" protocol="tcp" accept'
    asked: list[str] = []

    def must(*command: str) -> str:
        asked.append(command[-1])
        return f"{there}\n{gone}" if command[-1] == "--list-rich-rules" else ""

    monkeypatch.setattr(firewalld, "must", must)
    firewalld.change(wanted[1])
    assert asked == [
        "--list-rich-rules",
        '--add-rich-rule=rule port port="3000" protocol="tcp" accept',
        f"--remove-rich-rule={gone}",
    ]


def test_what_is_there_for_this_boot_only_survives_a_reload(firewalld: Any) -> None:
    runtime = firewalld.parse_zones(ZONES)
    permanent = firewalld.parse_zones(ZONES.replace("8443/tcp", "").replace(" ssh", ""))
    assert firewalld.volatile(runtime, permanent) == [
        ["--zone=public", "--add-service=ssh"],
        ["--zone=public", "--add-port=8443/tcp"],
    ]


@pytest.fixture
def host(firewalld: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Our places moved to a directory, and every command noted instead of run."""
    asked: list[str] = []
    monkeypatch.setattr(firewalld, "ETC", tmp_path / "etc")
    monkeypatch.setattr(firewalld, "MASK", tmp_path / "firewalld.service")
    (tmp_path / "etc").mkdir()
    monkeypatch.setattr(firewalld, "must", lambda *words: asked.append(" ".join(words)) or "")
    return asked


def test_the_configuration_is_checked_before_anything_is_loaded(
    firewalld: Any, wanted: Any, host: list[str]
) -> None:
    firewalld.apply(firewalld.Plan(list(wanted), [], reload=True, start=False), [], offline=False)
    assert host == ["firewall-cmd --check-config", "firewall-cmd --reload", "firewall-cmd --state"]


def test_the_mask_is_lifted_once_our_rules_are_in(
    firewalld: Any, wanted: Any, host: list[str], tmp_path: Path
) -> None:
    firewalld.MASK.symlink_to("/dev/null")
    firewalld.apply(firewalld.Plan(list(wanted), [], reload=False, start=True), [], offline=True)
    assert not firewalld.masked()
    assert host[0] == "firewall-offline-cmd --check-config"
    assert host[-3:-1] == [
        "systemctl enable firewalld.service",
        "systemctl start firewalld.service",
    ]
    written = {path.name for path in (tmp_path / "etc" / "policies").iterdir()}
    assert written == {"ptslink-ssh.xml", "ptslink.xml"}


def test_a_default_zone_that_lets_everything_in_is_refused(firewalld: Any, wanted: Any) -> None:
    now = replace(settled(firewalld, wanted), default_zone="trusted")
    with pytest.raises(firewalld.Refused, match="--set-default-zone=public"):
        firewalld.refuse_open(now)


# Which firewall there is.


@pytest.mark.parametrize(
    ("text", "on"),
    [("ENABLED=yes\n", True), ("# x\nENABLED='yes'\n", True), ("ENABLED=no\n", False), ("", False)],
)
def test_whether_ufw_is_on_is_read_from_its_file(
    plugin: Callable[[str], ModuleType], text: str, on: bool
) -> None:
    assert plugin("host_firewall/library/host_firewall_found").ufw_enabled(text) is on


@pytest.mark.parametrize(
    ("state", "on"), [("active", True), ("inactive", False), ("failed", False)]
)
def test_whether_firewalld_is_on_is_asked_of_systemd(
    plugin: Callable[[str], ModuleType], state: str, on: bool
) -> None:
    found = plugin("host_firewall/library/host_firewall_found")
    assert found.firewalld_on(f"ActiveState={state}\n") is on
