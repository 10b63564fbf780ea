"""``serve(script)``: a scripted server for the length of a test; certificates made for it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from unit.probe.scripted import Script, ScriptedServer, right

Serve = Callable[..., ScriptedServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(script)`` starts a server that is stopped after the test."""
    with contextlib.ExitStack() as stack:

        def start(script: Script = right, tls: ssl.SSLContext | None = None) -> ScriptedServer:
            server = ScriptedServer(script, tls)
            stack.callback(server.stop)
            return server

        yield start


@dataclass(frozen=True)
class Pair:
    """A key and its own certificate in one PEM file, and the certificate's DER bytes."""

    pem: Path
    der: bytes

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pem)
        return context


def self_signed(
    folder: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, days: tuple[int, int]
) -> Pair:
    """A certificate for pts.example.test and 127.0.0.1, valid from and to *days* from now."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Station"),
            x509.NameAttribute(NameOID.COMMON_NAME, "pts.example.test"),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("pts.example.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(0x1234)
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "pair.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return Pair(pem, certificate.public_bytes(serialization.Encoding.DER))


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def rsa_pair(tmp_path_factory: pytest.TempPathFactory, rsa_key: rsa.RSAPrivateKey) -> Pair:
    return self_signed(tmp_path_factory.mktemp("rsa"), rsa_key, (-1, 30))


@pytest.fixture(scope="session")
def expired_pair(tmp_path_factory: pytest.TempPathFactory, rsa_key: rsa.RSAPrivateKey) -> Pair:
    return self_signed(tmp_path_factory.mktemp("old"), rsa_key, (-30, -1))


@pytest.fixture(scope="session")
def ecdsa_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("ecdsa")
    return self_signed(folder, ec.generate_private_key(ec.SECP256R1()), (-1, 30))
