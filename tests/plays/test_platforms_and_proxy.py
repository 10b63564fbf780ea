"""What the roles make of a host's facts and of the proxy's variables.

One run of a playbook that renders every template, with the very wiring site.yml has, for hosts that
exist only as tables of facts. Nothing is contacted. The texts are then read by who will read them:
systemd, nginx's grammar, the server's own configuration loader.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import crossplane
import pytest
import yaml

import trial
from ptsbundle import layout
from ptslink.server import config

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "roles"
BIN = Path(sys.executable).parent


def facts(name: str, version: str, family: str, python: str, **more: Any) -> dict[str, Any]:
    """Facts as Ansible gathers them, of what the roles look at."""
    return {
        "distribution": name,
        "distribution_version": version,
        "distribution_major_version": version.split(".")[0],
        "distribution_release": more.pop("release", "x"),
        "os_family": family,
        "pkg_mgr": "apt" if family == "Debian" else "dnf",
        "python_version": python,
        "service_mgr": "systemd",
        "architecture": "x86_64",
        "selinux": {"status": "disabled"},
        "user_uid": 0,
        **more,
    }


ENFORCED = {"status": "enabled", "mode": "enforcing", "type": "targeted"}
DEBIAN_12 = facts("Debian", "12.11", "Debian", "3.11.2", release="bookworm")
#: Platform -> facts, and what /usr/bin/python3 says there.
PLATFORMS: dict[str, tuple[dict[str, Any], str]] = {
    "debian-12": (DEBIAN_12, "3.11"),
    "debian-13": (facts("Debian", "13.1", "Debian", "3.13.5", release="trixie"), "3.13"),
    # Somebody's newer Python is the one Ansible found: the server's is the system's all the same.
    "debian-12-with-another-python": (DEBIAN_12 | {"python_version": "3.13.1"}, "3.11"),
    "ubuntu-22": (facts("Ubuntu", "22.04", "Debian", "3.10.12", release="jammy"), "3.10"),
    "ubuntu-24": (facts("Ubuntu", "24.04", "Debian", "3.12.3", release="noble"), "3.12"),
    "rocky-9": (facts("Rocky", "9.6", "RedHat", "3.9.21", selinux=ENFORCED), ""),
    "alma-9": (facts("AlmaLinux", "9.6", "RedHat", "3.9.21", selinux=ENFORCED), ""),
    "alma-9-without-selinux": (facts("AlmaLinux", "9.6", "RedHat", "3.9.21"), ""),
}
DEBIAN = {
    "supported": True,
    "firewall": "ufw",
    "server_packages": ["python3-venv"],
    "interpreter": "/usr/bin/python3",
    "packages": ["certbot", "logrotate", "nginx", "openssl", "python3-apt", "python3-venv", "ufw"],
    "default_site": "sites-enabled/default",
    "selinux": False,
}
SELINUX_PACKAGES = ["python3-libselinux", "python3-libsemanage", "python3-policycoreutils"]
EL = {
    "supported": True,
    "firewall": "firewalld",
    "server_packages": ["python3.11"],
    "interpreter": "/usr/bin/python3.11",
    "packages": sorted(
        [
            "certbot",
            "firewalld",
            "logrotate",
            "nginx",
            "openssl",
            "python3-dnf",
            "python3.11",
            *SELINUX_PACKAGES,
        ]
    ),
    "default_site": "",
    "target": "3.11-x86_64",
    "selinux": True,
    "selinux_ports": [3000, 9001],
}
EXPECTED: dict[str, dict[str, Any]] = {
    "debian-12": DEBIAN | {"target": "3.11-x86_64", "bundle_python": "3.11 on x86_64"},
    "debian-13": DEBIAN | {"target": "3.13-x86_64", "bundle_python": "3.13 on x86_64"},
    "debian-12-with-another-python": DEBIAN
    | {"target": "3.11-x86_64", "bundle_python": "3.11 on x86_64"},
    "ubuntu-22": DEBIAN | {"supported": False, "python_complaint": "3.11 or newer is needed"},
    "ubuntu-24": DEBIAN | {"target": "3.12-x86_64"},
    "rocky-9": EL,
    "alma-9": EL,
    "alma-9-without-selinux": EL
    | {"selinux": False, "packages": [p for p in EL["packages"] if p not in SELINUX_PACKAGES]},
}
#: Everything a platform's templates can hold: TLS, every well-known port, an ACME server.
ALL_ON: dict[str, Any] = {
    "pts_server_port": 3100,
    "nginx_proxy_listeners": [
        {"port": 80},
        {"port": 443, "tls": True},
        {"port": 3000},
        {"port": 8080},
        {"port": 8443, "tls": True},
        {"port": 9001, "tls": True},
    ],
    "tls_certificate_mode": "acme",
    "tls_certificate_names": ["pts.example.com"],
    "pts_server_users": {"station": "planted"},
}

#: The words of one directive each, in order.
Directives = list[tuple[str, ...]]


def plain(*ports: int) -> dict[str, Any]:
    return {"nginx_proxy_listeners": [{"port": port} for port in ports]}


TLS = {"nginx_proxy_listeners": [{"port": 80}, {"port": 443, "tls": True}]}
PAIR = [
    ("ssl_certificate", "/etc/ptslink/tls/live/rsa.pem"),
    ("ssl_certificate_key", "/etc/ptslink/tls/live/rsa.key"),
    ("ssl_certificate", "/etc/ptslink/tls/live/ecdsa.pem"),
    ("ssl_certificate_key", "/etc/ptslink/tls/live/ecdsa.key"),
]
TLS_WORDS = ["ssl_certificate", "ssl_certificate_key", "ssl_protocols", "ssl_ciphers"]
TLS_WORDS += ["ssl_prefer_server_ciphers", "ssl_buffer_size", "ssl_session_cache"]
TLS_WORDS += ["ssl_session_timeout", "ssl_session_tickets"]
ACME = {"tls_certificate_mode": "acme", "tls_certificate_names": ["pts.example.com"]}
CHALLENGES = ("location", "^~", "/.well-known/acme-challenge/")
#: (variables, block, directives of these names, what they are, in order)
PROXY: dict[str, tuple[dict[str, Any], str, list[str], Directives]] = {
    "one plain listener, both kinds of address": (
        plain(80),
        "server",
        ["listen"],
        [("listen", "80"), ("listen", "[::]:80")],
    ),
    "IPv6 off": (
        plain(80, 8080) | {"nginx_proxy_ipv6": False},
        "server",
        ["listen"],
        [("listen", "80"), ("listen", "8080")],
    ),
    "IPv6 off, said on the command line": (
        plain(80) | {"nginx_proxy_ipv6": "false"},
        "server",
        ["listen"],
        [("listen", "80")],
    ),
    "TLS beside plain": (
        TLS,
        "server",
        ["listen"],
        [
            ("listen", "80"),
            ("listen", "[::]:80"),
            ("listen", "443", "ssl", "default_server"),
            ("listen", "[::]:443", "ssl", "default_server"),
        ],
    ),
    "TLS beside another site's default": (
        TLS | {"nginx_proxy_tls_default_server": False, "nginx_proxy_ipv6": False},
        "server",
        ["listen"],
        [("listen", "80"), ("listen", "443", "ssl")],
    ),
    "tls: false is plain": (
        {"nginx_proxy_listeners": [{"port": 80, "tls": False}], "nginx_proxy_ipv6": False},
        "server",
        ["listen", "ssl_certificate", "ssl_protocols"],
        [("listen", "80")],
    ),
    "both kinds of key": (TLS, "server", ["ssl_certificate", "ssl_certificate_key"], PAIR),
    "RSA alone, where that is what was provided": (
        TLS
        | {
            "tls_certificate_mode": "provided",
            "tls_certificate_provided": {"rsa": {"certificate": "/c", "key": "/k"}},
        },
        "server",
        ["ssl_certificate", "ssl_certificate_key"],
        PAIR[:2],
    ),
    "what small TLS clients need": (
        TLS,
        "server",
        ["ssl_protocols", "ssl_buffer_size", "ssl_prefer_server_ciphers", "ssl_session_tickets"],
        [
            ("ssl_protocols", "TLSv1.2", "TLSv1.3"),
            ("ssl_prefer_server_ciphers", "on"),
            ("ssl_buffer_size", "4k"),
            ("ssl_session_tickets", "off"),
        ],
    ),
    "no word of TLS without TLS": (plain(80), "server", TLS_WORDS, []),
    "any name nobody else has": (plain(80), "server", ["server_name"], [("server_name", "~^")]),
    "names": (
        plain(80) | {"nginx_proxy_server_names": ["pts.example.com", "203.0.113.7"]},
        "server",
        ["server_name"],
        [("server_name", "pts.example.com", "203.0.113.7")],
    ),
    "the server on this host": (
        plain(80) | {"pts_server_port": 3100},
        "upstream ptslink",
        ["hash", "server"],
        [("server", "127.0.0.1:3100")],
    ),
    "the server on this host, by IPv6 alone": (
        plain(80) | {"pts_server_listen_addresses": ["::"]},
        "upstream ptslink",
        ["server"],
        [("server", "[::1]:3000")],
    ),
    "one server elsewhere": (
        plain(80) | {"nginx_proxy_upstreams": ["10.0.0.5:3000"]},
        "upstream ptslink",
        ["hash", "server"],
        [("server", "10.0.0.5:3000")],
    ),
    "several servers, a controller always with the same": (
        plain(80) | {"nginx_proxy_upstreams": ["10.0.0.5:3000", "10.0.0.6:3000", "[fd00::7]:3000"]},
        "upstream ptslink",
        ["hash", "server"],
        [
            ("hash", "$http_x_pts_id", "consistent"),
            ("server", "10.0.0.5:3000"),
            ("server", "10.0.0.6:3000"),
            ("server", "[fd00::7]:3000"),
        ],
    ),
    "patience by default": (
        plain(80),
        "location /",
        ["proxy_read_timeout", "proxy_send_timeout"],
        [("proxy_read_timeout", "300s"), ("proxy_send_timeout", "300s")],
    ),
    "patience of three pings, where that is more": (
        plain(80)
        | {"pts_server_ping_interval_seconds": 100, "pts_server_ping_timeout_seconds": "50"},
        "location /",
        ["proxy_read_timeout", "proxy_send_timeout"],
        [("proxy_read_timeout", "450s"), ("proxy_send_timeout", "450s")],
    ),
    "patience as told": (
        plain(80) | {"nginx_proxy_idle_timeout_seconds": 90},
        "location /",
        ["proxy_read_timeout", "proxy_send_timeout"],
        [("proxy_read_timeout", "90s"), ("proxy_send_timeout", "90s")],
    ),
    "the way of the link": (
        plain(80),
        "location /",
        ["proxy_pass", "proxy_http_version", "proxy_set_header", "return", "rewrite", "add_header"],
        [
            ("proxy_pass", "http://ptslink"),
            ("proxy_http_version", "1.1"),
            ("proxy_set_header", "Upgrade", "$http_upgrade"),
            ("proxy_set_header", "Connection", "$ptslink_connection"),
            ("proxy_set_header", "Host", "$http_host"),
            ("proxy_set_header", "X-Real-IP", "$remote_addr"),
            ("proxy_set_header", "X-Forwarded-For", "$proxy_add_x_forwarded_for"),
            ("proxy_set_header", "X-Forwarded-Proto", "$scheme"),
        ],
    ),
    "nothing is held back, and nothing sent elsewhere": (
        plain(80),
        "location /",
        ["proxy_buffering", "proxy_request_buffering", "proxy_redirect", "proxy_socket_keepalive"],
        [
            ("proxy_socket_keepalive", "on"),
            ("proxy_buffering", "off"),
            ("proxy_request_buffering", "off"),
            ("proxy_redirect", "off"),
        ],
    ),
    "the Connection header by what was asked": (
        plain(80),
        "map $http_upgrade $ptslink_connection",
        ["default", ""],
        [("default", "upgrade"), ("", "close")],
    ),
    "logs": (
        plain(80),
        "server",
        ["access_log", "error_log"],
        [
            ("access_log", "/var/log/nginx/ptslink.access.log", "ptslink"),
            ("error_log", "/var/log/nginx/ptslink.error.log", "info"),
        ],
    ),
    "an ACME server's questions": (
        TLS | ACME,
        " ".join(CHALLENGES),
        ["root", "try_files"],
        [("root", "/var/lib/ptslink-tls/challenges"), ("try_files", "$uri", "=404")],
    ),
    "no redirects and no way of its own beside the link's": (
        TLS | ACME,
        "server",
        ["location", "return", "rewrite", "add_header", "if"],
        [CHALLENGES, ("location", "/")],
    ),
    "without an ACME server one way alone": (TLS, "server", ["location"], [("location", "/")]),
}
#: nginx_proxy_default_site, links_max -> files the role brings to a state.
FILES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "the default site stays": ("debian-12", {}, ["conf.d/ptslink.conf", "nginx.conf"]),
    "the default site goes": (
        "debian-12",
        {"nginx_proxy_default_site": "absent"},
        ["conf.d/ptslink.conf", "sites-enabled/default", "nginx.conf"],
    ),
    "EL's default site is no file": (
        "rocky-9",
        {"nginx_proxy_default_site": "absent"},
        ["conf.d/ptslink.conf", "nginx.conf"],
    ),
    "nginx's limits are left alone": (
        "debian-12",
        {"nginx_proxy_links_max": 0},
        ["conf.d/ptslink.conf"],
    ),
}

TEMPLATES = [
    "pts_server/templates/ptslink.service.j2",
    "pts_server/templates/ptslink.socket.j2",
    "pts_server/templates/ptslink.toml.j2",
    "pts_server/templates/journald.conf.j2",
    "nginx_proxy/templates/ptslink.conf.j2",
    "nginx_proxy/templates/logrotate.conf.j2",
    "nginx_proxy/templates/ptslink-nginx-logs.service.j2",
    "nginx_proxy/templates/ptslink-nginx-logs.timer.j2",
    "tls_certificate/templates/ptslink-tls-renew.service.j2",
    "tls_certificate/templates/ptslink-tls-renew.timer.j2",
]
UNITS = [
    "ptslink.service",
    "ptslink.socket",
    "ptslink-nginx-logs.service",
    "ptslink-nginx-logs.timer",
    "ptslink-tls-renew.service",
    "ptslink-tls-renew.timer",
]
NGINX_MAIN = "events {}\nhttp {\n    include conf.d/*.conf;\n}\n"


def name_of(table: str, row: str) -> str:
    """The host a row of a table is rendered for."""
    return f"{table}-{re.sub(r'[^a-z0-9]+', '-', row.lower()).strip('-')}"


def hosts() -> dict[str, tuple[str, dict[str, Any]]]:
    """Host -> (platform, variables)."""
    found = {name_of("platform", name): (name, ALL_ON) for name in PLATFORMS}
    found |= {name_of("proxy", row): ("debian-12", case[0]) for row, case in PROXY.items()}
    found |= {name_of("files", row): (case[0], case[1]) for row, case in FILES.items()}
    return found


def playbook(directory: Path) -> Path:
    """Renders what the roles would, with site.yml's own wiring."""
    wanted = {
        "supported": "{{ ansible_facts['distribution_major_version'] in "
        "__preflight_platforms[ansible_facts['distribution']] | default([]) }}",
        "python_complaint": "{{ preflight_python | preflight_python_complaint("
        "__preflight_host.pythons[preflight_python] | default('')) }}",
        "firewall": "{{ __host_firewall_arguments.backend }}",
        "server_packages": "{{ __pts_server_family.packages }}",
        "interpreter": "{{ __pts_server_family.python }}",
        "target": "{{ __pts_server_target }}",
        "packages": "{{ ptslink_bundle_packages | sort }}",
        "bundle_python": "{{ __ptslink_bundle_python }}",
        "default_site": "{{ __nginx_proxy_family.default_site }}",
        "selinux": "{{ __nginx_proxy_selinux }}",
        "selinux_ports": "{{ __nginx_proxy_selinux_ports }}",
        "files": "{{ __nginx_proxy_files | map(attribute='path') }}",
        "texts": {
            Path(name).stem: f"{{{{ lookup('ansible.builtin.template', '{ROLES / name}') }}}}"
            for name in [*TEMPLATES, "../templates/controller-settings.txt.j2"]
        },
    }
    plays = [
        {
            "hosts": "all",
            "gather_facts": False,
            "vars_files": [
                *(str(path) for path in sorted(ROLES.glob("*/vars/main.yml"))),
                str(ROOT / "playbooks" / "roles" / "wiring" / "vars" / "main.yml"),
            ],
            "tasks": [
                {
                    "name": "Rendered",
                    "ansible.builtin.debug": {"msg": wanted},
                    "vars": {
                        "ansible_facts": "{{ __seen }}",
                        "__preflight_host": "{{ __looked_at }}",
                        # Here no role surrounds the expression to look for the template from.
                        "__nginx_proxy_templates": f"{ROLES}/nginx_proxy/templates",
                    },
                },
            ],
        }
    ]
    path = directory / "render.yml"
    path.write_text(yaml.safe_dump(plays, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Host -> what the roles make of it."""
    directory = tmp_path_factory.mktemp("rendered")
    inventory = {}
    for host, (platform, variables) in hosts().items():
        seen, python = PLATFORMS[platform]
        pythons = {"/usr/bin/python3": python, "/usr/bin/python3.11": ""}
        inventory[host] = {
            **variables,
            "__seen": seen,
            "__looked_at": {"pythons": pythons},
            "ansible_host": "192.0.2.7",
        }
    listed = directory / "hosts.json"
    defaults: dict[str, Any] = {}
    for path in ROLES.glob("*/defaults/main.yml"):
        defaults |= yaml.safe_load(path.read_text())
    listed.write_text(json.dumps({"all": {"hosts": inventory, "vars": defaults}}))
    done = subprocess.run(
        [BIN / "ansible-playbook", "--inventory", listed, playbook(directory)],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_FILTER_PLUGINS": ":".join(map(str, ROLES.glob("*/filter_plugins"))),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "{" in done.stdout, done.stderr
    report = json.loads(done.stdout[done.stdout.index("{") :])
    found: dict[str, dict[str, Any]] = {}
    for play in report["plays"]:
        for task in play["tasks"]:
            for host, result in task["hosts"].items():
                assert not result.get("failed"), (host, result["msg"])
                if task["task"]["name"] == "Rendered":
                    found[host] = result["msg"]
    return found


def parsed(text: str, directory: Path) -> list[dict[str, Any]]:
    """The blocks of conf.d/ptslink.conf, by nginx's grammar: names, places and arguments."""
    (directory / "conf.d").mkdir(exist_ok=True)
    (directory / "conf.d" / "ptslink.conf").write_text(text)
    (directory / "nginx.conf").write_text(NGINX_MAIN)
    main = str(directory / "nginx.conf")
    unknown = [error["error"] for error in crossplane.parse(main, strict=True)["errors"]]
    # It takes the two words of the map for directives.
    assert [error.split(" in ")[0] for error in unknown] == [
        'unknown directive "default"',
        'unknown directive ""',
    ]
    read = crossplane.parse(main, check_ctx=True, check_args=True)
    assert read["errors"] == []
    blocks: list[dict[str, Any]] = read["config"][1]["parsed"]
    return blocks


def block_of(blocks: list[dict[str, Any]], wanted: str) -> list[dict[str, Any]]:
    """What is inside the block of that head."""
    inside = [*blocks]
    for block in inside:
        inside += block.get("block", [])
    [found] = [b["block"] for b in inside if " ".join([b["directive"], *b["args"]]) == wanted]
    return list(found)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_differs_between_systems_is_chosen_by_their_facts(
    rendered: dict[str, dict[str, Any]], platform: str
) -> None:
    made = rendered[f"platform-{platform}"]
    expected = {"python_complaint": ""} | EXPECTED[platform]
    complaint = expected.pop("python_complaint")
    assert {name: made[name] for name in expected} == expected
    assert (complaint in made["python_complaint"]) if complaint else not made["python_complaint"]


def distinct(rendered: dict[str, dict[str, Any]], *names: str) -> list[dict[str, str]]:
    """The texts of these names, once for all platforms that have the same."""
    found: list[dict[str, str]] = []
    for platform in PLATFORMS:
        texts = {name: rendered[f"platform-{platform}"]["texts"][name] for name in names}
        if texts not in found:
            found.append(texts)
    return found


def test_systemd_accepts_the_units_of_every_platform(
    rendered: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    stub = tmp_path / "program"
    stub.write_text("#!/bin/sh\n")
    stub.chmod(0o755)
    for number, units in enumerate(distinct(rendered, *UNITS)):
        home = tmp_path / str(number)
        home.mkdir()
        for name, text in units.items():
            # What a unit starts must be there, or that is all systemd says.
            (home / name).write_text(re.sub(r"(?m)^(ExecStart=)\S+", rf"\1{stub}", text))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *(home / name for name in units)],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{home}:"},
            capture_output=True,
            text=True,
            check=False,
        )
        said = [line for line in done.stderr.splitlines() if "ptslink" in line]
        assert (done.returncode, said) == (0, [])


def test_the_server_accepts_its_configuration_of_every_platform(
    rendered: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "ptslink.toml"
    for texts in distinct(rendered, path.name):
        path.write_text(texts[path.name])
        read = config.load(path)
        assert (read.listen.port, read.listen.path) == (3100, "ptsWebSocket")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_nginx_can_read_the_proxy(
    rendered: dict[str, dict[str, Any]], platform: str, tmp_path: Path
) -> None:
    blocks = parsed(rendered[f"platform-{platform}"]["texts"]["ptslink.conf"], tmp_path)
    assert [block["directive"] for block in blocks if block["directive"] != "#"] == [
        "map",
        "log_format",
        "upstream",
        "server",
    ]


@pytest.mark.parametrize("row", PROXY)
def test_the_proxy_is_what_its_variables_say(
    rendered: dict[str, dict[str, Any]], row: str, tmp_path: Path
) -> None:
    _, head, names, expected = PROXY[row]
    blocks = parsed(rendered[name_of("proxy", row)]["texts"]["ptslink.conf"], tmp_path)
    inside = block_of(blocks, head)
    assert [(d["directive"], *d["args"]) for d in inside if d["directive"] in names] == expected


@pytest.mark.parametrize("row", FILES)
def test_only_files_that_are_the_roles_business_are_brought_to_a_state(
    rendered: dict[str, dict[str, Any]], row: str
) -> None:
    assert rendered[name_of("files", row)]["files"] == FILES[row][2]


def test_the_log_tells_what_the_doctor_reads(
    rendered: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    row = "one plain listener, both kinds of address"
    blocks = parsed(rendered[name_of("proxy", row)]["texts"]["ptslink.conf"], tmp_path)
    [line] = [block["args"] for block in blocks if block["directive"] == "log_format"]
    assert line[:2] == ["ptslink", "escape=json"]
    fields = json.loads("".join(line[2:]))
    assert fields["controller"] == "$http_x_pts_id"
    assert fields["upstream_status"] == "$upstream_status"
    assert not [value for value in fields.values() if re.search("authorization|signature", value)]


def test_a_technician_is_told_what_to_type(rendered: dict[str, dict[str, Any]]) -> None:
    text = rendered["platform-debian-12"]["texts"]["controller-settings.txt"]
    assert "Server address             192.0.2.7\n" in text
    assert "ptsWebSocket   (without the leading slash)\n" in text
    assert "/ptsWebSocket" not in text
    for port, protocol in [(80, "HTTP (ws://)"), (443, "HTTPS (wss://)"), (3000, "HTTP (ws://)")]:
        assert re.search(rf" {port} +{re.escape(protocol)} +by way of nginx\n", text)
    assert re.search(r" 3100 +HTTP \(ws://\) +straight to the server\n", text)
    assert "one of pts_server_users" in text
    assert "planted" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_scripts_try_tells_it_in_the_same_words(rendered: dict[str, dict[str, Any]]) -> None:
    row = name_of("proxy", "one plain listener, both kinds of address")
    told = rendered[row]["texts"]["controller-settings.txt"].splitlines()
    assert trial.settings("192.0.2.7") == told


def test_a_bundle_has_the_packages_of_every_choice_on_debian() -> None:
    # nftables counts new connections, where a limit of them is set.
    assert sorted([*DEBIAN["packages"], "firewalld", "nftables"]) == list(layout.PACKAGES)


def test_every_template_is_rendered_here() -> None:
    there = {path.relative_to(ROLES).as_posix() for path in ROLES.glob("*/templates/*.j2")}
    assert there == set(TEMPLATES)


def test_the_one_shot_is_right_for_a_host_of_either_family(tmp_path: Path) -> None:
    """Its syntax; every other playbook's is the linters' business."""
    listed = tmp_path / "hosts.json"
    listed.write_text(json.dumps({"all": {"hosts": {"rocky-9": {}, "ubuntu-24": ALL_ON}}}))
    done = subprocess.run(
        [BIN / "ansible-playbook", "--syntax-check", "--inventory", listed, ROOT / "site.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


#: Modules that run on the control node, whose Python is 3.11 at least.
ON_THE_CONTROL_NODE = {"pts_server_wheelhouse", "tls_certificate_authority"}


def test_what_runs_on_a_host_is_written_for_its_oldest_python() -> None:
    """EL 9's is 3.9, and the packages that bring another are installed by these very modules."""
    for path in [*ROLES.glob("*/library/*.py"), *ROLES.glob("*/module_utils/*.py")]:
        if path.stem in ON_THE_CONTROL_NODE:
            continue
        tree = ast.parse(path.read_text(), path.name, feature_version=(3, 9))
        # Without it, "str | None" in a signature is an error there.
        assert "annotations" in {
            alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module == "__future__"
            for alias in node.names
        }, path
