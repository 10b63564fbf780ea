"""What the infrastructure tests expect of a host; run them against any host over ssh.

    pytest tests/infra --hosts=ssh://root@203.0.113.7
    pytest tests/infra --hosts=paramiko://root@station-12 --ssh-config=...

They change nothing. Without options they expect the defaults of the roles.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ptslink", "what a forecourt server is expected to have")
    group.addoption("--public-host", help="address controllers use (default: the ssh host's)")
    group.addoption(
        "--public-host6", help="IPv6 address controllers use (none: nothing is asked by IPv6)"
    )
    group.addoption("--path", default="ptsWebSocket", help="request URI, without leading slash")
    group.addoption("--server-port", type=int, default=3000, help="the server's own port")
    group.addoption(
        "--proxy-port", type=int, action="append", help="a port of nginx (repeatable; default 80)"
    )
    group.addoption(
        "--tls-port", type=int, action="append", help="a port of nginx that speaks TLS (repeatable)"
    )
    group.addoption("--ca", help="authorities the certificates are verified against (PEM)")
    group.addoption("--server-name", help="name the certificates must cover (default: the address)")
    group.addoption(
        "--ssh-port", type=int, action="append", help="a port of sshd (repeatable; default 22)"
    )
    group.addoption(
        "--firewall", choices=["ufw", "firewalld"], default="ufw", help="the firewall of the host"
    )


@dataclass(frozen=True)
class Site:
    """One server as controllers are to find it."""

    address: str
    path: str
    server_port: int
    proxy_ports: tuple[int, ...]
    ssh_ports: tuple[int, ...]
    tls_ports: tuple[int, ...] = ()
    ca: str | None = None
    server_name: str = ""
    address6: str | None = None

    @property
    def link_ports(self) -> tuple[int, ...]:
        return (self.server_port, *self.proxy_ports, *self.tls_ports)

    def url(self, port: int, path: str | None = None, address: str | None = None) -> str:
        address = address or self.address
        host = f"[{address}]" if ":" in address else address
        scheme = "wss" if port in self.tls_ports else "ws"
        return f"{scheme}://{host}:{port}/{self.path if path is None else path}"

    def context(self) -> ssl.SSLContext:
        """A client that verifies: chain, dates, name."""
        return ssl.create_default_context(cafile=self.ca)


def resolved(name: str, ssh_config: str | None) -> str:
    """The address behind a name that may be one of an ssh configuration only."""
    command = ["ssh", "-G", *(["-F", ssh_config] if ssh_config else []), name]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next(line.split()[1] for line in answer.splitlines() if line.split()[:1] == ["hostname"])


@pytest.fixture(scope="module")
def site(host: Any, pytestconfig: pytest.Config) -> Site:
    address = pytestconfig.getoption("public_host")
    if not address:
        address = resolved(host.backend.host.name, pytestconfig.getoption("ssh_config"))
    return Site(
        address=address,
        path=pytestconfig.getoption("path"),
        server_port=pytestconfig.getoption("server_port"),
        proxy_ports=tuple(pytestconfig.getoption("proxy_port") or [80]),
        ssh_ports=tuple(pytestconfig.getoption("ssh_port") or [22]),
        tls_ports=tuple(pytestconfig.getoption("tls_port") or ()),
        ca=pytestconfig.getoption("ca"),
        server_name=pytestconfig.getoption("server_name") or address,
        address6=pytestconfig.getoption("public_host6"),
    )


@pytest.fixture(scope="module")
def probe(site: Site) -> Callable[..., Mapping[str, Any]]:
    """The project's probe, from here, as a program: the same one a technician runs."""

    trust = [f"--ca={site.ca}"] if site.ca else []

    def walk(url: str, *arguments: str) -> Mapping[str, Any]:
        if url.startswith("wss:"):
            arguments = (*arguments, f"--server-name={site.server_name}", *trust)
        done = subprocess.run(
            [sys.executable, "-m", "ptslink.doctor.probe", url, "--json", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        assert done.returncode in (0, 1), done.stderr
        report: Mapping[str, Any] = json.loads(done.stdout)
        return report

    return walk
