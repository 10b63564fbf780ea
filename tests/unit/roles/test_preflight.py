"""Preflight: whose port it is, and which names are nobody's."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).parents[3] / "roles"

WANTED = [
    {"ports": [3000], "units": ["ptslink.service", "ptslink.socket"], "variable": "a"},
    {"ports": [80, 8080], "units": ["nginx.service"], "variable": "b"},
]


@pytest.fixture
def judge(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("preflight/filter_plugins/preflight")


@pytest.fixture
def probe(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("preflight/library/preflight_probe")


def listener(port: int, pid: int, command: str, unit: str) -> dict[str, Any]:
    return {"port": port, "processes": [{"pid": pid, "command": command, "unit": unit}]}


@pytest.mark.parametrize(
    ("seen", "complaint"),
    [
        (listener(80, 7, "nginx", "nginx.service"), None),
        (listener(3000, 8, "ptslink", "ptslink.service"), None),
        (listener(3000, 1, "systemd", "ptslink.socket"), None),
        (
            listener(3000, 1, "systemd", "grafana.socket"),
            "port 3000 (a) is taken by systemd (pid 1, grafana.socket)",
        ),
        (
            listener(3000, 1, "systemd", "init.scope"),
            "port 3000 (a) is taken by systemd (pid 1, init.scope)",
        ),
        (
            listener(80, 9, "apache2", "apache2.service"),
            "port 80 (b) is taken by apache2 (pid 9, apache2.service)",
        ),
        (
            listener(8080, 1, "systemd", "init.scope"),
            "port 8080 (b) is taken by systemd (pid 1, init.scope)",
        ),
        (
            listener(3000, 12, "node", ""),
            "port 3000 (a) is taken by node (pid 12, no unit)",
        ),
        (
            {"port": 3000, "processes": []},
            "port 3000 (a) is taken by a process that cannot be named",
        ),
        (listener(22, 3, "sshd", "ssh.service"), None),
    ],
)
def test_a_port_is_ours_or_a_strangers(
    judge: Any, seen: dict[str, Any], complaint: str | None
) -> None:
    assert judge.strangers([seen, seen], WANTED) == ([complaint] if complaint else [])


@pytest.mark.parametrize(
    ("version", "until", "says"),
    [
        (
            "0.9.3",
            "0.10",
            "pts_server_uri is now called pts_server_path: rename it where you set it",
        ),
        (
            "0.10.0",
            "0.11",
            "pts_server_uri is now called pts_server_path: rename it where you set it",
        ),
        (
            "1.0.0",
            "1.0",
            "pts_server_uri is not a variable of pts_server: did you mean pts_server_path?",
        ),
        (
            "1.2.0",
            "1.0",
            "pts_server_uri is not a variable of pts_server: did you mean pts_server_path?",
        ),
        ("9.9", None, "pts_server_uri is called pts_server_path: rename it where you set it"),
    ],
)
def test_a_renamed_variable_is_told_its_new_name_until_a_version(
    judge: Any, version: str, until: str | None, says: str
) -> None:
    other = {"to": "pts_server_path"} | ({"until": until} if until else {})
    known = {"pts_server": ["pts_server_path"]}
    [complaint] = judge.unknown_variables(
        ["pts_server_uri"], known, {"pts_server_uri": other}, version
    )
    assert complaint.startswith(says)


def test_other_names_lead_to_variables_there_are_and_have_not_expired(judge: Any) -> None:
    names = yaml.safe_load((ROLES / "preflight" / "vars" / "main.yml").read_text())
    known = {one for role in judge.known_variables(str(ROLES)).values() for one in role}
    version = judge.project_version(str(ROLES.parent / "pyproject.toml"))
    for name, other in names["__preflight_other_names"].items():
        assert name not in known
        assert other["to"] in known
        assert set(other) <= {"to", "until"}
        # One that has is to be taken out of the table.
        assert judge.numbers(version) < judge.numbers(other.get("until", "999"))


def test_other_peoples_variables_are_left_alone(judge: Any) -> None:
    known = {"pts_server": ["pts_server_port"]}
    names = ["ansible_host", "shop_port", "server_port", "pts_server_port"]
    assert judge.unknown_variables(names, known, {}, "1.0") == []


@pytest.mark.parametrize(
    ("claims", "complaints"),
    [
        ([("a", [3000]), ("b", [80, 8080]), ("c", ["9180"])], []),
        ([("a", [3000]), ("b", ["80", "3000"])], ["port 3000 is wanted by a and by b"]),
        ([("b", [80, 9180]), ("c", [9180])], ["port 9180 is wanted by b and by c"]),
        # Twice in one variable is that role's own business.
        ([("b", [80, 80])], []),
    ],
)
def test_a_port_is_wanted_once(
    judge: Any, claims: list[tuple[str, list[Any]]], complaints: list[str]
) -> None:
    wanted = [{"variable": variable, "ports": ports} for variable, ports in claims]
    assert judge.shared(wanted) == complaints


@pytest.mark.parametrize(
    ("path", "seen", "complaint"),
    [
        ("/usr/bin/python3", "3.11", ""),
        ("/usr/bin/python3", "3.13", ""),
        ("/usr/bin/python3", "3.9", "/usr/bin/python3 is Python 3.9, and 3.11 or newer is needed"),
        ("/usr/bin/python3", "", "There is no /usr/bin/python3 that runs"),
        # A package of that name brings it.
        ("/usr/bin/python3.11", "", ""),
        ("", "", ""),
    ],
)
def test_the_servers_python_is_judged(judge: Any, path: str, seen: str, complaint: str) -> None:
    assert judge.python_complaint(path, seen) == complaint


def test_the_oldest_python_is_the_projects(judge: Any) -> None:
    project = tomllib.loads((ROLES.parent / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=" + ".".join(map(str, judge.PYTHON_LEAST))


@pytest.mark.parametrize(
    ("says", "seen"),
    [
        ("3.11 x86_64-linux-gnu", ("3.11", "x86_64-linux-gnu")),
        ("3.11 ", ("3.11", "")),
        ("3.11 arm-linux-gnueabihf", ("3.11", "arm-linux-gnueabihf")),
    ],
)
def test_python_is_asked_what_it_is(
    probe: Any, tmp_path: Path, says: str, seen: tuple[str, str]
) -> None:
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\necho '{says}'\n")
    python.chmod(0o755)
    assert probe.interpreter(str(python)) == seen


def test_a_python_that_does_not_run_is_nothing(probe: Any, tmp_path: Path) -> None:
    assert probe.interpreter(str(tmp_path / "python3")) == ("", "")


def test_this_python_says_its_version(probe: Any) -> None:
    assert probe.interpreter(sys.executable)[0] == "{}.{}".format(*sys.version_info[:2])


@pytest.mark.parametrize(
    ("machine", "kernel", "complaint"),
    [
        ("x86_64-linux-gnu", "x86_64", ""),
        ("aarch64-linux-gnu", "aarch64", ""),
        ("", "x86_64", ""),
        ("arm-linux-gnueabihf", "aarch64", "arm-linux-gnueabihf) under its aarch64 kernel"),
        ("i386-linux-gnu", "x86_64", "i386-linux-gnu) under its x86_64 kernel"),
    ],
)
def test_programs_are_to_be_the_kernels(
    judge: Any, machine: str, kernel: str, complaint: str
) -> None:
    seen = judge.machine_complaint(machine, kernel)
    assert (complaint in seen) if complaint else seen == ""


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:0BB8 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 4712 1
   2: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1
"""


def test_listening_sockets_are_told_from_connections(probe: Any) -> None:
    assert probe.listening_inodes(TABLE, {80, 3000}) == {"4711": 80, "4713": 3000}
    assert probe.listening_inodes(TABLE, {443}) == {}


SOCKETS = """\
Listen=0.0.0.0:3000 (Stream)
Listen=[::]:3000 (Stream)
Id=ptslink.socket

Listen=/run/dbus/system_bus_socket (Stream)
Id=dbus.socket

Listen=127.0.0.1:69 (Datagram)
Listen=[::]:9090 (Stream)
Id=cockpit.socket

Id=other.socket
Listen=127.0.0.1:9090 (Stream)
"""


def test_a_socket_units_ports_are_known(probe: Any) -> None:
    assert probe.socket_units(SOCKETS) == {
        3000: "ptslink.socket",
        9090: "cockpit.socket and other.socket",
    }
    assert probe.socket_units("") == {}


def test_what_systemd_holds_is_its_socket_units(
    probe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "read", lambda path: TABLE if path.name == "tcp" else "")
    monkeypatch.setattr(probe, "holders", lambda _: {"4713": [(1, "systemd", "init.scope")]})
    monkeypatch.setattr(probe, "output", lambda *_: SOCKETS)
    assert probe.listeners({3000}) == [listener(3000, 1, "systemd", "ptslink.socket")]
    monkeypatch.setattr(probe, "output", lambda *_: "")
    assert probe.listeners({3000}) == [listener(3000, 1, "systemd", "init.scope")]


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/init.scope\n", "init.scope"),
        (
            "1:name=systemd:/system.slice/system-getty.slice/getty@tty1.service",
            "getty@tty1.service",
        ),
        ("0::/\n", ""),
    ],
)
def test_the_unit_is_read_from_the_cgroup(probe: Any, cgroup: str, unit: str) -> None:
    assert probe.unit_of(cgroup) == unit


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
@pytest.mark.parametrize(
    ("ahead", "complaint"),
    [
        (0, ""),
        (58, ""),
        (-58, ""),
        (62, "62 seconds ahead of this machine's"),
        (-3600, "3600 seconds behind this machine's"),
    ],
)
def test_a_clock_is_judged_alike_in_any_time_zone(
    judge: Any, monkeypatch: pytest.MonkeyPatch, zone: str, ahead: int, complaint: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    assert judge.clock_complaint(time.time() + ahead, 60) == complaint
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("run", "skip", "leaves_out"),
    [
        (["all"], [], ""),
        (["provision"], [], ""),
        (["pts_server", "nginx_proxy"], [], ""),
        (["all"], ["host_firewall"], ""),
        (["verify"], [], ""),
        (["preflight"], [], ""),
        (["all"], ["provision"], ""),
        (["nginx_proxy"], [], "pts_server"),
        (["pts_server"], [], "nginx_proxy"),
        (["host_firewall"], [], "pts_server and nginx_proxy"),
        (["all"], ["pts_server"], "pts_server"),
    ],
)
def test_a_first_run_has_all_that_a_server_needs(
    judge: Any, run: list[str], skip: list[str], leaves_out: str
) -> None:
    said = judge.limited_complaint(run, skip)
    assert said == (f"the run leaves out {leaves_out}" if leaves_out else "")


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("sudo: sorry, you must have a tty to run sudo", "ANSIBLE_PIPELINING=false"),
        ("sudo: a password is required", "--ask-become-pass"),
    ],
)
def test_what_keeps_root_away_is_named_with_its_fix(judge: Any, said: str, fix: str) -> None:
    complaint = judge.root_complaint(said, "station-12", "operator")
    assert fix in complaint
    assert "station-12" in complaint
    assert "operator" in complaint


MOUNTS = """\
21 1 0:30 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir={upper},workdir=/w
22 21 0:31 / /run rw - tmpfs tmpfs rw
23 21 8:1 / /srv/my\\040disk rw - ext4 /dev/sda1 rw
24 21 0:32 / /srv/nas rw - nfs4 nas:/x rw,addr=10.0.0.9
"""


@pytest.mark.parametrize(
    ("directory", "kind", "point"),
    [
        ("/var/lib/ptslink", "overlay", "/"),
        ("/run/ptslink", "tmpfs", "/run"),
        ("/srv/my disk/journal", "ext4", "/srv/my disk"),
        ("/srv/nas", "nfs4", "/srv/nas"),
        ("/srv/nassau", "overlay", "/"),
    ],
)
def test_the_file_system_of_the_journal_is_known(
    probe: Any, directory: str, kind: str, point: str
) -> None:
    found = probe.mount_of(Path(directory), MOUNTS)
    assert (found["type"], found["point"]) == (kind, point)


@pytest.mark.parametrize(
    ("journal_on", "says"),
    [
        ({"type": "ext4", "point": "/"}, ""),
        ({}, ""),
        ({"type": "tmpfs", "point": "/var"}, "on tmpfs (/var), which is memory"),
        ({"type": "nfs4", "point": "/srv"}, "a disk of another machine"),
        ({"type": "overlay", "point": "/", "upper": "tmpfs"}, "a reboot would forget"),
        ({"type": "overlay", "point": "/", "upper": "ext4"}, ""),
        ({"type": "overlay", "point": "/", "container": "docker"}, "forgets it with the container"),
        ({"type": "overlay", "point": "/", "container": "systemd-nspawn"}, ""),
    ],
)
def test_a_journal_on_what_forgets_or_cannot_sync_is_refused(
    judge: Any, journal_on: dict[str, str], says: str
) -> None:
    complaint = judge.journal_complaint(journal_on)
    assert says in complaint
    assert bool(complaint) == bool(says)
    assert not complaint or "Fix: mount a disk" in complaint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root asks for another user")
def test_directories_the_services_user_cannot_enter_are_found_and_named(
    probe: Any, judge: Any
) -> None:
    # pytest's own directories are closed to others.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        shut = Path(directory) / "opt"
        (shut / "inner").mkdir(parents=True)
        shut.chmod(0o750)
        [one] = probe.closed([f"{shut}/inner/ptslink"], "")
        assert (one["path"], one["mode"]) == (str(shut), "drwxr-x---")
        said = judge.closed_complaint([one], "ptslink")
        assert f"ptslink cannot enter {shut} (drwxr-x---" in said
        assert f"chmod o+x {shut}" in said
        shut.chmod(0o711)
        assert probe.closed([f"{shut}/inner/ptslink"], "") == []
