"""A provisioned host lets controllers in, lets nobody else in, and comes back after a reboot."""

from __future__ import annotations

import errno
import http.client
import json
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest

#: systemd's own measure, 0 to 10: how much of the system a broken-into service could reach.
EXPOSURE_AT_MOST = 2.0


def answer(site: Any, port: int, path: str) -> tuple[int, str]:
    """Status and body of a plain GET, as a browser at the pumps would make it."""
    connection = http.client.HTTPConnection(site.address, port, timeout=10)
    try:
        if port in site.tls_ports:
            connection.connect()
            connection.sock = site.context().wrap_socket(
                connection.sock, server_hostname=site.server_name
            )
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(4096).decode(errors="replace")
    finally:
        connection.close()


@pytest.mark.parametrize("unit", ["ptslink.service", "nginx.service"])
def test_the_unit_is_enabled_and_active(host: Any, unit: str) -> None:
    service = host.service(unit)
    assert service.is_enabled
    assert service.is_running


def test_the_server_runs_as_its_own_user(host: Any) -> None:
    pid = host.check_output("systemctl show --property=MainPID --value ptslink.service")
    assert host.check_output(f"ps -o user= -p {pid}") == "ptslink"


def test_the_server_has_not_been_restarted_by_a_failure(host: Any) -> None:
    assert host.check_output("systemctl show --property=NRestarts --value ptslink.service") == "0"


def test_the_sandbox_is_in_force(host: Any) -> None:
    report = host.check_output("systemd-analyze security --no-pager ptslink.service")
    score = re.search(r"Overall exposure level.*?: ([0-9.]+)", report)
    assert score
    assert float(score.group(1)) <= EXPOSURE_AT_MOST
    # What the file asks for and what the kernel grants are two things.
    pid = host.check_output("systemctl show --property=MainPID --value ptslink.service")
    status = host.check_output(f"cat /proc/{pid}/status")
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)


def shown(host: Any, unit: str, *properties: str) -> dict[str, str]:
    """What systemd holds a unit to."""
    wanted = " ".join(f"--property={name}" for name in properties)
    said = host.check_output(f"systemctl show {wanted} {unit}")
    return dict(line.split("=", 1) for line in said.splitlines())


def test_the_service_cannot_take_the_whole_machine(host: Any) -> None:
    limits = shown(
        host,
        "ptslink.service",
        "LimitNOFILE",
        "MemoryMax",
        "TasksMax",
        "LogRateLimitIntervalUSec",
        "LogRateLimitBurst",
    )
    machine = int(re.findall(r"MemTotal:\s+(\d+) kB", host.check_output("cat /proc/meminfo"))[0])
    # Room for 10,000 links, and for ssh beside them.
    assert 150 << 20 < int(limits["MemoryMax"]) < machine << 10
    assert int(limits["LimitNOFILE"]) > 10000
    assert limits["TasksMax"] == "128"
    assert limits["LogRateLimitIntervalUSec"] == "1min"
    assert limits["LogRateLimitBurst"] == "20000"


def test_the_hosts_journal_leaves_room_for_the_records(host: Any) -> None:
    said = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert re.findall(r"^SystemMaxUse=(\S+)", said, re.MULTILINE)[-1:] == ["500M"]
    # What is written and what is in force are two things.
    started = "systemctl show --timestamp=unix --property=ExecMainStartTimestamp --value"
    read = host.check_output(f"{started} systemd-journald.service").lstrip("@")
    laid = host.check_output("stat --format=%Z /etc/systemd/journald.conf.d/ptslink.conf")
    assert int(read) >= int(laid)
    assert "ptslink" in host.check_output("journalctl --unit=ptslink.service --lines=5 --no-pager")


def test_the_proxys_logs_are_rotated_by_size_and_nothing_twice(host: Any) -> None:
    timer = host.service("ptslink-nginx-logs.timer")
    assert timer.is_enabled
    assert timer.is_running
    ours = host.run("logrotate --debug /etc/ptslink/nginx-logs.conf")
    assert (ours.rc, "error" in ours.stderr.replace("error.log", "")) == (0, False), ours.stderr
    # The distribution's own run has our logs once, and does not read our file.
    all_logs = host.run("logrotate --debug /etc/logrotate.conf")
    assert all_logs.rc == 0
    assert "duplicate" not in all_logs.stderr
    assert all_logs.stderr.count("considering log /var/log/nginx/ptslink.access.log") <= 1
    assert "nginx-logs.conf" not in all_logs.stderr


def test_the_journal_is_the_servers_alone(host: Any) -> None:
    directory = host.file("/var/lib/ptslink")
    assert (directory.user, directory.group, directory.mode) == ("ptslink", "ptslink", 0o750)
    journal = host.file("/var/lib/ptslink/journal.db")
    assert journal.is_file
    assert (journal.user, journal.group) == ("ptslink", "ptslink")
    assert journal.mode & 0o007 == 0, "the journal holds personal data"


def test_the_configuration_is_not_the_servers_to_change(host: Any) -> None:
    configuration = host.file("/etc/ptslink/ptslink.toml")
    assert (configuration.user, configuration.group) == ("root", "ptslink")
    assert configuration.mode == 0o640


def test_nginx_accepts_its_configuration(host: Any) -> None:
    assert host.run("nginx -t").rc == 0


def test_nginx_can_hold_what_the_server_holds(host: Any) -> None:
    links = 10000  # limits.connections of the server, unless set otherwise
    configuration = host.check_output("nginx -T 2>/dev/null")
    connections = re.search(r"^\s*worker_connections (\d+);", configuration, re.MULTILINE)
    assert connections
    assert int(connections.group(1)) >= 2 * links, "one from the controller, one to the server"
    # What is written and what is in force are two things.
    main = host.check_output("systemctl show --property=MainPID --value nginx.service")
    worker = host.check_output(f"pgrep --newest --parent {main}")
    limits = host.check_output(f"cat /proc/{worker}/limits")
    files = re.search(r"^Max open files\s+(\d+)\s+(\d+)", limits, re.MULTILINE)
    assert files
    assert int(files.group(1)) >= min(2 * links, int(files.group(2)))


@pytest.fixture
def firewall(pytestconfig: pytest.Config) -> str:
    name: str = pytestconfig.getoption("firewall")
    return name


def ufw_lets_in(host: Any) -> set[str]:
    status = host.check_output("ufw status verbose")
    assert "Status: active" in status
    assert "deny (incoming)" in status
    return set(re.findall(r"^(\S+?)(?: \(v6\))?\s+ALLOW IN", status, re.MULTILINE))


def firewalld_lets_in(host: Any) -> set[str]:
    """By our policies and by the default zone, in force and after a reboot."""
    assert host.check_output("firewall-cmd --state") == "running"
    zone = host.check_output("firewall-cmd --get-default-zone")
    found = []
    for when in ("", "--permanent "):
        ask = f"firewall-cmd {when}"
        assert (
            host.check_output(f"firewall-cmd --permanent --zone={zone} --get-target") == "default"
        )
        ports = set(host.check_output(f"{ask}--zone={zone} --list-ports").split())
        for service in host.check_output(f"{ask}--zone={zone} --list-services").split():
            ports |= set(
                host.check_output(
                    f"firewall-cmd --permanent --service={service} --get-ports"
                ).split()
            )
        for policy in ("ptslink-ssh", "ptslink"):
            rules = host.check_output(f"{ask}--policy={policy} --list-rich-rules").splitlines()
            assert all(rule.endswith(" accept") for rule in rules)
            ports |= {
                "/".join(re.search(r'port port="(\d+)" protocol="(\w+)"', rule).groups())  # type: ignore[union-attr]
                for rule in rules
            }
        found.append(ports)
    assert found[0] == found[1], "what is in force is what a reboot brings"
    # Link-local, and from the distribution: addresses by DHCPv6.
    return found[0] - {"546/udp"}


def test_the_firewall_lets_in_ssh_and_the_link_only(host: Any, site: Any, firewall: str) -> None:
    allowed = {"ufw": ufw_lets_in, "firewalld": firewalld_lets_in}[firewall](host)
    assert allowed == {f"{port}/tcp" for port in (*site.ssh_ports, *site.link_ports)}


def test_the_firewall_is_on_after_a_reboot(host: Any, firewall: str) -> None:
    assert host.service(firewall).is_enabled
    rules = host.check_output("nft list ruleset 2>/dev/null || iptables-save")
    assert firewall in rules


def test_the_admin_port_is_shut_to_the_outside(site: Any) -> None:
    with pytest.raises(OSError, match=r"timed out|refused|No route to host"):
        socket.create_connection((site.address, 9180), timeout=2)


@pytest.mark.parametrize("way", ["direct", "through nginx"])
def test_a_controller_gets_in(site: Any, probe: Callable[..., Mapping[str, Any]], way: str) -> None:
    ports = (site.server_port,) if way == "direct" else site.link_ports[1:]
    for port in ports:
        report = probe(site.url(port))
        assert report["status"] == 101, report
        assert report["accept_ok"], report
        assert report["ok"], report["cause"]


@pytest.fixture
def address6(site: Any) -> str:
    if not site.address6:
        pytest.skip("no address to ask by IPv6 (no --public-host6)")
    return str(site.address6)


def test_a_controller_gets_in_by_ipv6(
    site: Any, address6: str, probe: Callable[..., Mapping[str, Any]]
) -> None:
    for port in site.link_ports:
        report = probe(site.url(port, address=address6))
        assert report["status"] == 101, report
        assert report["accept_ok"], report
        assert report["ok"], report["cause"]


def test_the_firewall_denies_the_rest_by_ipv6(address6: str) -> None:
    """Nothing listens there; where no firewall stands before it, the host itself says so."""
    with pytest.raises(OSError, match=r"timed out|Permission denied|No route") as error:
        socket.create_connection((address6, 9), timeout=2)
    assert error.value.errno != errno.ECONNREFUSED


def test_a_wrong_path_is_told_the_right_one(site: Any) -> None:
    for port in site.link_ports:
        status, body = answer(site, port, "/no/such/path")
        assert status == 404
        assert json.loads(body), "the body is JSON, whoever answered"
        assert f"/{site.path}" in body


def test_a_plain_get_is_told_to_upgrade(site: Any) -> None:
    for port in site.link_ports:
        status, _ = answer(site, port, f"/{site.path}")
        assert status == 426


def test_the_address_itself_is_enough(site: Any) -> None:
    """Controllers send the bare address as Host; no other site may answer for it."""
    for port in site.link_ports[1:]:
        _, body = answer(site, port, "/")
        assert "Welcome to nginx" not in body
