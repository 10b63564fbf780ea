"""Deviations in TLS: what the ClientHello offers, and which alert the server gets."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ptslink.doctor.probe.target import parse_target
from ptslink.simulator.misbehave import DeviationError, bend
from ptslink.simulator.result import SimulationResult
from ptslink.simulator.run import simulate
from ptslink.simulator.setup import Setup, new_identities


def self_signed(folder: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    """A PEM file of *key* and its own certificate for localhost."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture(scope="module")
def rsa_pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return self_signed(tmp_path_factory.mktemp("rsa"), key)


@pytest.fixture(scope="module")
def ecdsa_pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("ecdsa"), ec.generate_private_key(ec.SECP256R1()))


async def dial(
    pem: Path | None, *misbehave: str, host: str = "127.0.0.1", ca: Path | None = None
) -> tuple[str, bytes, SimulationResult]:
    """One controller against one TLS accept: what the server made of it, the ClientHello, the
    result. Without *pem* the server only reads the ClientHello."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def accept() -> tuple[str, bytes]:
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(5)
                hello = sock.recv(4096, socket.MSG_PEEK)
                if pem is None:
                    return "", hello
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(pem)
                try:
                    with context.wrap_socket(sock, server_side=True) as secure:
                        version = str(secure.version())
                        with contextlib.suppress(OSError):
                            secure.recv(4096)
                        return version, hello
                except ssl.SSLError as error:
                    return str(error.reason), hello

        served = asyncio.get_running_loop().run_in_executor(None, accept)
        target = parse_target(f"wss://{host}:{listener.getsockname()[1]}/x")
        identities = new_identities(1, "test")
        setup = Setup(target, identities, bend(misbehave), address="127.0.0.1", timeout=3, ca=ca)
        result = await simulate(setup)
        outcome, hello = await served
    return outcome, hello, result


def offered(hello: bytes) -> tuple[int, set[int], set[int]]:
    """Version, cipher suites and extensions of a ClientHello record (RFC 5246 7.4.1.2)."""
    body = hello[9:]
    version, at = int.from_bytes(body[:2], "big"), 34
    at += 1 + body[at]
    size = int.from_bytes(body[at : at + 2], "big")
    suites = {int.from_bytes(body[i : i + 2], "big") for i in range(at + 2, at + 2 + size, 2)}
    at += 2 + size
    at += 1 + body[at] + 2
    extensions = set()
    while at + 4 <= len(body):
        extensions.add(int.from_bytes(body[at : at + 2], "big"))
        at += 4 + int.from_bytes(body[at + 2 : at + 4], "big")
    return version, suites, extensions


SERVER_NAME, SUPPORTED_VERSIONS = 0, 43
TLS10, TLS11, TLS12 = 0x0301, 0x0302, 0x0303


async def test_the_faithful_controller_speaks_tls_1_2_and_trusts_anyone(rsa_pem: Path) -> None:
    outcome, hello, result = await dial(rsa_pem, host="localhost")
    version, _, extensions = offered(hello)
    assert outcome == "TLSv1.2"
    assert version == TLS12
    assert SUPPORTED_VERSIONS not in extensions
    assert SERVER_NAME in extensions
    assert "handshake: the server ended" in str(result.controllers[0].error)


async def test_with_a_ca_it_verifies(rsa_pem: Path, ecdsa_pem: Path) -> None:
    outcome, _, _ = await dial(rsa_pem, ca=rsa_pem)
    assert outcome == "TLSv1.2"
    outcome, _, result = await dial(rsa_pem, ca=ecdsa_pem)
    assert outcome == "TLSV1_ALERT_UNKNOWN_CA"
    assert "certificate not accepted" in str(result.controllers[0].error)


@pytest.mark.parametrize(
    ("wanted", "newest"), [("tls-client-version-too-old", TLS11), ("tls-seclevel-mismatch", TLS10)]
)
async def test_old_versions_are_all_it_offers(rsa_pem: Path, wanted: str, newest: int) -> None:
    outcome, hello, result = await dial(rsa_pem, wanted)
    version, _, extensions = offered(hello)
    assert version == newest
    assert SUPPORTED_VERSIONS not in extensions
    # Which of the two depends on the server's security policy.
    assert outcome in ("UNSUPPORTED_PROTOCOL", "NO_SUITABLE_SIGNATURE_ALGORITHM")
    error = str(result.controllers[0].error)
    assert "ALERT_PROTOCOL_VERSION" in error or "ALERT_INTERNAL_ERROR" in error


async def test_rsa_certificates_only(rsa_pem: Path, ecdsa_pem: Path) -> None:
    outcome, _, result = await dial(ecdsa_pem, "tls-ecdsa-cert-rsa-client")
    assert outcome == "NO_SHARED_CIPHER"
    assert "ALERT_HANDSHAKE_FAILURE" in str(result.controllers[0].error)
    assert (await dial(rsa_pem, "tls-ecdsa-cert-rsa-client"))[0] == "TLSv1.2"
    assert (await dial(ecdsa_pem))[0] == "TLSv1.2"


async def test_cbc_with_rsa_key_exchange_only() -> None:
    _, hello, _ = await dial(None, "tls-no-shared-cipher")
    renegotiation_signal = {0x00FF}
    assert offered(hello)[1] - renegotiation_signal == {0x002F, 0x0035}


@pytest.mark.parametrize("wanted", ["tls-untrusted-ca", "tls-root-rotated"])
async def test_an_unknown_issuer_is_alert_48(rsa_pem: Path, wanted: str) -> None:
    outcome, _, _ = await dial(rsa_pem, wanted)
    assert outcome == "TLSV1_ALERT_UNKNOWN_CA"


async def test_a_wrong_clock_is_alert_45(rsa_pem: Path) -> None:
    outcome, _, result = await dial(rsa_pem, "tls-device-clock")
    assert outcome == "SSLV3_ALERT_CERTIFICATE_EXPIRED"
    assert "sent TLS alert 45" in str(result.controllers[0].error)


async def test_no_server_name_is_sent(rsa_pem: Path) -> None:
    outcome, hello, _ = await dial(rsa_pem, "tls-sni-missing", host="localhost")
    assert SERVER_NAME not in offered(hello)[2]
    assert outcome == "TLSv1.2"


async def test_a_record_above_the_buffer_is_alert_22_and_one_below_is_not(rsa_pem: Path) -> None:
    outcome, _, result = await dial(rsa_pem, "tls-record-too-large=500")
    assert outcome == "TLSV1_ALERT_RECORD_OVERFLOW"
    assert "is too large" in str(result.controllers[0].error)
    outcome, _, result = await dial(rsa_pem, "tls-record-too-large=16384")
    assert outcome == "TLSv1.2"
    assert "handshake: the server ended" in str(result.controllers[0].error)


async def test_a_device_may_leave_at_a_large_record_without_a_word(rsa_pem: Path) -> None:
    outcome, _, result = await dial(rsa_pem, "tls-record-too-large=500,silent")
    assert "ALERT" not in outcome
    assert "is too large" in str(result.controllers[0].error)


def test_a_device_leaves_silently_or_by_an_alert() -> None:
    with pytest.raises(DeviationError, match=r"'rudely' is not 'silent'; accepted: BYTES"):
        bend(["tls-record-too-large=500,rudely"])
