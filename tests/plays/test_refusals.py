"""Bad variables are refused by name, with what is accepted, before any host is contacted.

One run of the preflight playbook over an inventory whose hosts have the mistakes. The hosts do not
exist: a mistake that got past the checks would end in "cannot be reached", which is also how the
healthy host, without a mistake, ends.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
#: Hosts without a mistake. Numbers given on the command line (-e name=1) arrive as text.
HEALTHY: dict[str, dict[str, Any]] = {
    "healthy": {},
    "healthy-with-tls": {
        "nginx_proxy_listeners": [{"port": 80}, {"port": 443, "tls": True}],
        "tls_certificate_days": "90",
    },
    "healthy-by-command-line": {
        "pts_server_port": "3001",
        "pts_server_admin_port": "9181",
        "pts_server_message_bytes_max": "100000",
        "pts_server_ping_interval_seconds": "25",
        "nginx_proxy_idle_timeout_seconds": "400",
        "nginx_proxy_ipv6": "false",
        "host_firewall_patience_seconds": "30",
        "host_firewall_link_rate": "100",
        "host_firewall_link_port_sources": {"3001": ["10.0.0.0/8", "2001:db8::/32"]},
        "link_check_idle_seconds": "5",
        "pts_server_users": {"station": "0123456789", "0" * 24: "pw"},
        "pts_server_secret": "x" * 20,
        "pts_server_memory_max": "512M",
        "pts_server_log_lines_per_minute": "0",
        "pts_server_journald_max_use": "",
        "pts_server_subprotocols": ["pts.technotrade.ua", "it's"],
        "pts_server_listen_addresses": ["127.0.0.1", "10.20.30.40", "fe80::1"],
    },
}

#: (variable, value, what the refusal must say)
MISTAKES: list[tuple[str, Any, str]] = [
    # Names
    ("pts_server_prot", 3000, "did you mean pts_server_port?"),
    ("pts_server_websocket_compression", True, "pts_server_websocket_compression is not a"),
    ("pts_sever_port", 3000, "a letter or two away from pts_server_port"),
    ("nginx_proxy_listener", [{"port": 80}], "did you mean nginx_proxy_listeners?"),
    ("nginx_proxy_idle_timeout", 300, "did you mean nginx_proxy_idle_timeout_seconds?"),
    ("host_firewall_ports", [80], "is not a variable of host_firewall"),
    ("host_firewall_ssh_source", [], "did you mean host_firewall_ssh_sources?"),
    ("link_check_idle", 5, "did you mean link_check_idle_seconds?"),
    ("preflight_disk_free", 5, "did you mean preflight_disk_free_mb?"),
    ("ptslink_bundle_signer", "x", "did you mean ptslink_bundle_signers?"),
    # Names of others
    ("pts_server_uri", "ptsWebSocket", "is called pts_server_path: rename it"),
    ("pts_server_domain_name", "pts.example", "is called link_check_public_host"),
    ("pts_server_secret_key", "planted", "is called pts_server_secret"),
    ("pts_server_password", "planted", "is called pts_server_users"),
    ("nginx_proxy_read_timeout", 300, "is called nginx_proxy_idle_timeout_seconds"),
    # Types
    ("ptslink_bundle_unsigned", "perhaps", "ptslink_bundle_unsigned"),
    ("pts_server_port", "three thousand", "pts_server_port"),
    ("pts_server_listen_addresses", {"a": 1}, "pts_server_listen_addresses"),
    ("pts_server_handshake_profile", "sloppy", "lenient, strict"),
    ("pts_server_settings", ["x"], "pts_server_settings"),
    ("pts_server_settings", {"limits": 5}, "sections of ptslink.toml"),
    ("nginx_proxy_listeners", [{"prot": 80}], "nginx_proxy_listeners"),
    ("nginx_proxy_listeners", ["80"], "nginx_proxy_listeners"),
    ("nginx_proxy_default_site", "remove", "keep, absent"),
    ("host_firewall_rules", [{"port": 443}], "purpose"),
    ("host_firewall_backend", "iptables", "auto, ufw"),
    ("host_firewall_link_sources", {"a": 1}, "host_firewall_link_sources"),
    ("nginx_proxy_listeners", [{"port": 443, "tls": "perhaps"}], "nginx_proxy_listeners"),
    ("tls_certificate_mode", "letsencrypt", "self_signed, provided, acme"),
    ("host_firewall_link_port_sources", [80], "host_firewall_link_port_sources"),
    ("host_firewall_link_rate", "many", "host_firewall_link_rate"),
    # What a controller can hold
    ("pts_server_path", "/ptsWebSocket", "no leading slash"),
    ("pts_server_path", "p" * 41, "at most 40 ASCII characters"),
    ("pts_server_path", "pts socket", "no blanks"),
    ("pts_server_path", "pumpe-größe", "ASCII"),
    ("pts_server_path", "pts?id=1", "use something like ptsWebSocket"),
    ("pts_server_users", {"elevenchars": "pw"}, "1 to 10 ASCII characters"),
    ("pts_server_users", {"station": "elevenchars"}, '["station"]'),
    ("pts_server_users", {"a:b": "pw"}, "without blanks and colons"),
    ("pts_server_secret", "x" * 21, "at most 20 ASCII characters"),
    ("link_check_public_host", "a" * 27 + ".com", "at most 30"),
    ("pts_server_subprotocols", ["two words"], "names without blanks"),
    ("pts_server_code_page", "Windows 1251", "such as cp1251"),
    # Ranges
    ("pts_server_port", 0, "from 1 to 65535"),
    ("pts_server_port", 65536, "from 1 to 65535"),
    ("pts_server_message_bytes_max", 8192, "from 65536"),
    ("pts_server_ping_interval_seconds", 1, "from 5 to 300"),
    ("pts_server_ping_timeout_seconds", 600, "from 5 to 120"),
    ("pts_server_handshake_timeout_seconds", 0, "from 2 to 60"),
    ("pts_server_releases_kept", 1, "from 2 to 20"),
    ("pts_server_open_files", 16, "from 1024"),
    ("pts_server_memory_max", "10%", "from 30%"),
    ("pts_server_memory_max", "100M", "at least 256M"),
    ("pts_server_memory_max", "1 GB", "such as 2G"),
    ("pts_server_tasks_max", 4, "from 32"),
    ("pts_server_log_lines_per_minute", 10, "from 1000"),
    ("pts_server_journald_max_use", "5M", "at least 50M"),
    ("pts_server_journald_max_use", "plenty", "or empty"),
    ("nginx_proxy_log_megabytes", 0, "from 1 to 10000"),
    ("pts_server_listen_addresses", [], "IPv4 or IPv6 addresses"),
    ("pts_server_listen_addresses", ["eth0"], "IPv4 or IPv6 addresses"),
    ("nginx_proxy_listeners", [], "at least one port"),
    ("nginx_proxy_listeners", [{"port": 99999}], "from 1 to 65535"),
    ("nginx_proxy_listeners", [{"port": 80}, {"port": 80}], "each once"),
    ("nginx_proxy_upstreams", ["10.0.0.5"], "10.0.0.5:3000"),
    ("nginx_proxy_upstreams", ["x:1; return 200"], "10.0.0.5:3000"),
    ("nginx_proxy_links_max", 600000, "from 1 to 500000"),
    ("nginx_proxy_server_names", ["http://pts.example"], "host names or IP"),
    ("host_firewall_rules", [{"port": 70000, "purpose": "x"}], "from 1 to 65535"),
    ("host_firewall_ssh_ports", [0], "from 1 to 65535"),
    ("host_firewall_ssh_sources", ["10.0.0.0/33"], "10.0.0.0/33 is no network"),
    ("host_firewall_link_sources", ["everywhere"], "everywhere is no network"),
    ("host_firewall_rules", [{"port": 1, "purpose": "x", "sources": ["a"]}], "a is no network"),
    ("host_firewall_patience_seconds", 5, "from 20"),
    ("host_firewall_link_port_sources", {80: ["10.0.0.0/33"]}, "10.0.0.0/33 is no network"),
    ("host_firewall_link_port_sources", {80: "10.0.0.0/8"}, "a list of networks, as {80: ["),
    ("host_firewall_link_rate", 6, "0 for no limit, or from 50"),
    ("host_firewall_rules", [{"port": 1, "purpose": "x", "rate": -1}], "0 for no limit"),
    ("link_check_idle_seconds", 3600, "from 0 to 150"),
    ("link_check_timeout_seconds", 0, "from 1 to 60"),
    # Combinations: each has a host of its own
    ("pts_server_port", 9180, "two different numbers"),
    ("ptslink_bundle", "/nowhere.bundle", "cannot be read"),
    ("pts_server_admin_port", 3000, "two different numbers"),
    ("host_firewall_link_port_sources", {8080: ["10.0.0.0/8"]}, "Fix: one of 80, 3000"),
    (
        "host_firewall_rules",
        [{"port": 80, "purpose": "x", "sources": ["10.0.0.0/8"]}],
        "who may use it in host_firewall_link_port_sources",
    ),
    ("pts_server_settings", {"controllers": {"secret": "x"}}, "pts_server_secret"),
    ("pts_server_settings", {"controllers": {"users": {"a": "b"}}}, "pts_server_users"),
    ("pts_server_settings", {"controllers": {"secret_required": True}}, "comes unsigned"),
    ("nginx_proxy_listeners", [{"port": 3000}], "not the server's"),
    ("nginx_proxy_listeners", [{"port": 9180}], "is wanted by pts_server_admin_port and by nginx"),
    ("nginx_proxy_idle_timeout_seconds", 40, "more than 40"),
    ("nginx_proxy_idle_timeout_seconds", 30, "controllers would see 1006"),
]

#: Mistakes that show only in company: (variables, what must be said).
JOINT_MISTAKES: list[tuple[dict[str, Any], str]] = [
    (
        {
            "host_firewall_link_port_sources": {3000: ["10.0.0.0/8"]},
            "pts_server_listen_addresses": ["::"],
        },
        "port 3000 hears ipv6 alone",
    ),
    (
        {"host_firewall_link_sources": ["2001:db8::/32"], "nginx_proxy_ipv6": False},
        "port 80 hears ipv4 alone",
    ),
    (
        {"host_firewall_link_port_sources": {80: ["2001:db8::/32"]}, "host_firewall_ipv6": False},
        "port 80 hears ipv4 alone",
    ),
    (
        {
            "host_firewall_ssh_ports": [2222],
            "host_firewall_rules": [{"port": 2222, "purpose": "x", "rate": 100}],
        },
        "which host_firewall_ssh_ports gives to ssh",
    ),
]

#: Mistakes of one role, all of which one run is to name.
SEVERAL: dict[str, Any] = {
    "pts_server_path": "/ptsWebSocket",
    "pts_server_ping_interval_seconds": 1,
    "pts_server_memory_max": "10%",
    "pts_server_settings": {"limits": 5, "controllers": 5},
}

#: Mistakes that show only where a listener speaks TLS: (further variables, what must be said).
TLS_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"tls_certificate_names": []}, "host names like pts.example.com"),
    ({"tls_certificate_names": ["pts.example.com:443"]}, "without ports or wss://"),
    ({"tls_certificate_days": 30}, "tls_certificate_renew_days from 1 to less than that"),
    ({"tls_certificate_days": 36500}, "from 2 to 7300"),
    ({"tls_certificate_ca_directory": "tls"}, "the absolute path of a directory outside"),
    ({"tls_certificate_ca_directory": str(ROOT / "roles" / "tls")}, "would be shared"),
    ({"tls_certificate_mode": "acme", "tls_certificate_names": ["203.0.113.7"]}, "host names only"),
    (
        {
            "tls_certificate_mode": "acme",
            "tls_certificate_names": ["pts.example.com"],
            "nginx_proxy_listeners": [{"port": 443, "tls": True}],
        },
        "needs {port: 80} without tls",
    ),
    (
        {
            "tls_certificate_mode": "acme",
            "tls_certificate_names": ["pts.example.com"],
            "tls_certificate_acme_server": "pebble:14000/dir",
        },
        "the https:// address of the server's directory",
    ),
    ({"tls_certificate_mode": "provided"}, "rsa is required"),
    (
        {
            "tls_certificate_mode": "provided",
            "tls_certificate_provided": {"rsa": {"certificate": "/no/such.pem"}},
        },
        "{certificate: PATH, key: PATH}",
    ),
    (
        {
            "tls_certificate_mode": "provided",
            "tls_certificate_provided": {"rsa": {"certificate": "/no/such.pem", "key": "/no/k"}},
        },
        "the rsa certificate /no/such.pem cannot be read",
    ),
    (
        {
            "tls_certificate_mode": "acme",
            "tls_certificate_names": ["pts.example.com"],
            "tls_certificate_ca": "/no/such.pem",
        },
        "There is no file /no/such.pem on this computer",
    ),
]
TLS_LISTENERS = [{"port": 80}, {"port": 443, "tls": True}]


#: Where each kind of mistake begins in the table. What is wrong with a name or a type is said ahead
#: of what is wrong with a value, so that a host has mistakes of one kind and one role.
KINDS = ("pts_server_prot", "pts_server_uri", "ptslink_bundle_unsigned", "pts_server_path")
ALONE = MISTAKES.index(("pts_server_port", 9180, "two different numbers"))


def together() -> dict[str, list[int]]:
    """Host -> the mistakes it has; no variable twice, and whatever shows in combination alone."""
    hosts: dict[str, list[int]] = {}
    starts = [next(n for n, row in enumerate(MISTAKES) if row[0] == name) for name in KINDS]
    for number, (name, _, _) in enumerate(MISTAKES):
        kind = sum(start <= number for start in starts)
        role = name.split("_")[0]
        for turn in range(len(MISTAKES)):
            # Of host_firewall's values one rule names the first that is wrong, and not the others.
            alone = number >= ALONE or (kind == len(KINDS) and role == "host")
            host = f"mistake-{number}" if alone else f"mistakes-{kind}-{role}-{turn}"
            if name not in {MISTAKES[other][0] for other in hosts.get(host, ())}:
                hosts.setdefault(host, []).append(number)
                break
    return hosts


TOGETHER = together()
HOST_OF = {number: host for host, numbers in TOGETHER.items() for number in numbers}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Host -> the result it failed with."""
    directory = tmp_path_factory.mktemp("refusals")
    hosts: dict[str, dict[str, Any]] = {
        host: {MISTAKES[number][0]: MISTAKES[number][1] for number in numbers}
        for host, numbers in TOGETHER.items()
    }
    hosts |= {
        f"tls-mistake-{number}": {"nginx_proxy_listeners": TLS_LISTENERS} | variables
        for number, (variables, _) in enumerate(TLS_MISTAKES)
    }
    hosts |= {
        f"joint-mistake-{number}": dict(variables)
        for number, (variables, _) in enumerate(JOINT_MISTAKES)
    }
    hosts |= {name: dict(variables) for name, variables in HEALTHY.items()}
    hosts["several-mistakes"] = dict(SEVERAL)
    for variables in hosts.values():
        # Port 1 of loopback: refused at once, should anything get that far.
        variables |= {"ansible_host": "127.0.0.1", "ansible_port": 1}
    inventory = directory / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
    done = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            *("--inventory", inventory),
            ROOT / "playbooks" / "preflight.yml",
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "ANSIBLE_FORKS": "50",
            "ANSIBLE_SSH_RETRIES": "0",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout[done.stdout.index("{") :])
    return {
        host: result
        for play in report["plays"]
        for task in play["tasks"]
        for host, result in task["hosts"].items()
        if result.get("failed")
    }


@pytest.fixture(scope="module")
def failures(refusals: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Host -> the message it failed with."""
    return {
        host: " ".join(str(part.get("msg", "")) for part in [result, *result.get("results", [])])
        + " ".join(result.get("argument_errors", []))
        for host, result in refusals.items()
    }


def test_there_are_at_least_forty_mistakes() -> None:
    assert len(MISTAKES) >= 40


@pytest.mark.parametrize("host", HEALTHY)
def test_without_a_mistake_the_host_would_be_contacted(failures: dict[str, str], host: str) -> None:
    assert "cannot be reached" in failures[host]
    assert "Fix: " in failures[host]


@pytest.mark.parametrize(
    ("number", "name", "says"),
    [
        pytest.param(number, name, says, id=f"{name}={json.dumps(value)[:40]}")
        for number, (name, value, says) in enumerate(MISTAKES)
    ],
)
def test_the_mistake_is_refused_by_name(
    failures: dict[str, str], number: int, name: str, says: str
) -> None:
    message = failures[HOST_OF[number]]
    assert "cannot be reached" not in message
    assert name in message
    assert says in message


def test_a_refusal_shows_no_secret(failures: dict[str, str]) -> None:
    for number, (name, value, _) in enumerate(MISTAKES):
        if name in ("pts_server_users", "pts_server_secret"):
            secrets = value.values() if isinstance(value, dict) else [value]
            message = failures[HOST_OF[number]]
            assert not [secret for secret in secrets if secret in message and secret != "pw"], name


@pytest.mark.parametrize(
    ("host", "says"),
    [
        pytest.param(f"{kind}-mistake-{number}", says, id=f"{kind}: {says[:50]}")
        for kind, mistakes in (("tls", TLS_MISTAKES), ("joint", JOINT_MISTAKES))
        for number, (_, says) in enumerate(mistakes)
    ],
)
def test_the_mistake_that_shows_in_company_is_refused(
    failures: dict[str, str], host: str, says: str
) -> None:
    message = failures[host]
    assert "cannot be reached" not in message
    assert says in message


def test_one_run_names_every_mistake_in_a_role_s_settings(failures: dict[str, str]) -> None:
    assert [name for name in SEVERAL if name not in failures["several-mistakes"]] == []


#: What is for programmers and for those who know Ansible from within.
DIALECT = re.compile(r"Plan\(|Traceback|\{'|evaluated_to")


def test_a_refusal_is_in_the_words_of_people(refusals: dict[str, dict[str, Any]]) -> None:
    """All of a result, because Ansible prints all of it."""
    found = {
        host: said[0]
        for host, result in refusals.items()
        if (said := DIALECT.findall(json.dumps(result, ensure_ascii=False)))
    }
    assert found == {}


def test_no_refusal_is_printed_with_the_condition_it_failed() -> None:
    """What ansible.builtin.assert prints beside its message is not for people."""
    tasks = [*(ROOT / "roles").rglob("*.yml"), *(ROOT / "playbooks").rglob("*.yml")]
    assert [path for path in tasks if re.search(r"\bassert:", path.read_text())] == []
