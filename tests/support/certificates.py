"""Test certificates: a root, an intermediate, and an RSA and an ECDSA leaf.

python tests/support/certificates.py DIRECTORY NAME,NAME...

writes ``ca.pem`` (the root), and of each kind ``KIND.pem`` (leaf and intermediate),
``KIND-leaf.pem`` and ``KIND.key``. Made anew each time; for tests only.
"""

from __future__ import annotations

import datetime
import ipaddress
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Party:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()


def new_key(kind: str) -> PrivateKey:
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def certify(
    name: str,
    issuer: Party | None = None,
    kind: str = "ecdsa",
    names: Sequence[str] = (),
    days: tuple[int, int] = (-1, 90),
    key: PrivateKey | None = None,
) -> Party:
    """A party called ``name``, an authority unless it is for ``names``; ``days`` from now.

    The key is a new one of *kind* where none is given.
    """
    key = key or new_key(kind)
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=not names, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    if names:
        covered: list[x509.GeneralName] = []
        for one in names:
            try:
                covered.append(x509.IPAddress(ipaddress.ip_address(one)))
            except ValueError:
                covered.append(x509.DNSName(one))
        builder = builder.add_extension(x509.SubjectAlternativeName(covered), critical=False)
    else:
        builder = builder.add_extension(
            x509.KeyUsage(
                *(False, False, False, False, False, True, True, False, False)
            ),  # certificates and revocation lists
            critical=True,
        )
    return Party(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def main(directory: Path, names: Sequence[str]) -> None:
    root = certify("Test Root", kind="rsa")
    intermediate = certify("Test Intermediate", root, kind="rsa")
    (directory / "ca.pem").write_text(root.pem)
    for kind in ("rsa", "ecdsa"):
        leaf = certify(f"Test {kind}", intermediate, kind, names)
        (directory / f"{kind}-leaf.pem").write_text(leaf.pem)
        (directory / f"{kind}.pem").write_text(leaf.pem + intermediate.pem)
        (directory / f"{kind}.key").write_text(leaf.key_pem)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","))
