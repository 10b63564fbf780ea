"""Where nginx speaks TLS, controllers of every kind get in, verified, and keys are root's alone."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

# Not websockets.sync, which may hang on TLS 1.3 before Python 3.13: see tests/support/hold.py.
from websockets.asyncio.client import connect

from ptslink.doctor.probe.certificate import read_certificate

LIVE = "/etc/ptslink/tls/live"


@dataclass(frozen=True)
class Client:
    """What a controller may be able to do, and the certificate it must be shown."""

    name: str
    version: ssl.TLSVersion
    ciphers: str | None
    shown: str | None
    sni: bool = True


CLIENTS = [
    Client("RSA only", ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-GCM-SHA256", "rsa"),
    Client("RSA only, CBC", ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA", "rsa"),
    Client("RSA key exchange", ssl.TLSVersion.TLSv1_2, "AES128-SHA", "rsa"),
    Client("RSA key exchange, GCM", ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256", "rsa"),
    Client("ECDSA only", ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", "ecdsa"),
    Client("TLS 1.2", ssl.TLSVersion.TLSv1_2, None, None),
    Client("TLS 1.2 without SNI", ssl.TLSVersion.TLSv1_2, None, None, sni=False),
    Client("TLS 1.3", ssl.TLSVersion.TLSv1_3, None, None),
]


@pytest.fixture
def tls_ports(site: Any) -> Iterator[int]:
    if not site.tls_ports:
        pytest.skip("this host speaks no TLS (no --tls-port)")
    return iter(site.tls_ports)


def context_of(site: Any, client: Client) -> ssl.SSLContext:
    context: ssl.SSLContext = site.context()
    context.minimum_version = context.maximum_version = client.version
    if client.ciphers:
        context.set_ciphers(client.ciphers)
    if not client.sni:  # then no name can be checked either; the chain still is
        context.check_hostname = False
    return context


async def ping_through(url: str, context: ssl.SSLContext, name: str | None) -> None:
    """Open a link, be answered a ping. websockets checks the 101 and the Accept hash; the pong
    comes from behind nginx."""
    async with (
        asyncio.timeout(20),
        connect(url, ssl=context, server_hostname=name, compression=None) as link,
    ):
        await (await link.ping())


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_controller_gets_in_whatever_its_tls(
    site: Any, tls_ports: Iterator[int], client: Client
) -> None:
    for port in tls_ports:
        raw = socket.create_connection((site.address, port), timeout=10)
        name = site.server_name if client.sni else None
        with context_of(site, client).wrap_socket(raw, server_hostname=name) as secured:
            assert secured.version() == client.version.name.replace("_", ".")
            leaf = secured.getpeercert(binary_form=True)
            assert leaf
            if client.shown:
                assert read_certificate(leaf)["key"] == client.shown
        asyncio.run(ping_through(site.url(port), context_of(site, client), name))


def test_a_controller_that_comes_back_resumes_its_session(
    site: Any, tls_ports: Iterator[int]
) -> None:
    for port in tls_ports:
        context = context_of(site, Client("TLS 1.2", ssl.TLSVersion.TLSv1_2, None, None))
        session = None
        for reused in (False, True):
            raw = socket.create_connection((site.address, port), timeout=10)
            with context.wrap_socket(
                raw, server_hostname=site.server_name, session=session
            ) as secured:
                assert secured.session_reused is reused
                session = secured.session
                # A worker keeps a session once its handshake is over, which an answer shows.
                secured.sendall(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
                assert secured.recv(1)


def test_plain_http_on_a_tls_port_is_told_so(site: Any, tls_ports: Iterator[int]) -> None:
    for port in tls_ports:
        connection = http.client.HTTPConnection(site.address, port, timeout=10)
        try:
            connection.request("GET", f"/{site.path}")
            response = connection.getresponse()
            assert response.status == 400
            assert b"plain HTTP request was sent to HTTPS port" in response.read(4096)
        finally:
            connection.close()


def test_nobody_is_sent_from_plain_to_tls(site: Any) -> None:
    """Controllers follow no redirect, and a browser's memory of HSTS would cut plain pages off."""
    for port in site.link_ports:
        connection = http.client.HTTPConnection(site.address, port, timeout=10)
        if port in site.tls_ports:
            connection.connect()
            connection.sock = site.context().wrap_socket(
                connection.sock, server_hostname=site.server_name
            )
        try:
            connection.request("GET", f"/{site.path}")
            response = connection.getresponse()
            assert response.getheader("Strict-Transport-Security") is None
            assert response.getheader("Location") is None
            assert response.status == 426
        finally:
            connection.close()


@pytest.mark.usefixtures("tls_ports")
def test_private_keys_are_roots_alone(host: Any) -> None:
    assert host.file(LIVE).is_symlink
    for kind in ("rsa", "ecdsa"):
        key = host.file(f"{LIVE}/{kind}.key")
        assert (key.user, key.group, key.mode) == ("root", "root", 0o600)
