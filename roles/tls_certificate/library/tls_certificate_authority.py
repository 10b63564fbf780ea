#!/usr/bin/python
"""A certificate authority of one's own, kept on the control node; signs what hosts ask for."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
except ImportError:  # ansible-core needs it, so only an odd interpreter lacks it
    x509 = None  # type: ignore[assignment]

DOCUMENTATION = r"""
module: tls_certificate_authority
short_description: An own certificate authority on the control node
description:
  - >-
    Makes C(ca.key) (0600, in a directory of 0700) and C(ca.pem) if there are none, and signs
    requests. Never replaces an authority: controllers may have loaded it.
  - >-
    RSA, because that is what the smallest clients can verify. Returns C(certificate) (PEM, to be
    loaded into controllers; empty in a dry run before there is one), C(certificates) (kind to
    PEM) and C(moved), whether it came from C(former).
options:
  directory: {type: path, required: true, description: Where the authority is kept.}
  former:
    type: path
    description: Where it was kept before; one that is there and not in C(directory) is moved.
  name: {type: str, default: ptslink, description: Common name of a new authority.}
  passphrase: {type: str, description: What the key is encrypted with.}
  days: {type: int, default: 825, description: How long signed certificates are valid.}
  requests: {type: dict, default: {}, description: Kind to signing request in PEM.}
author: ptslink authors
"""

AUTHORITY_DAYS = 20 * 365
#: Controllers' clocks are often a little slow; a certificate must not be from their future.
BACKDATED = datetime.timedelta(days=2)


class Refused(Exception):
    """The authority cannot be made or used; the message says why."""


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def write(path: Path, content: bytes, mode: int) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def key_usage(**used: bool) -> x509.KeyUsage:
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
        *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{use: used.get(use, False) for use in every})


def prepare(directory: Path) -> None:
    """A directory for its owner alone, and so the one it is in where that has to be made."""
    for place in (directory.parent, directory):
        if not place.exists():
            place.mkdir(mode=0o700, parents=True)
    directory.chmod(0o700)


def move(former: Path, directory: Path) -> None:
    """The authority from one place to another; key first, as when it is made."""
    prepare(directory)
    for name in ("ca.key", "ca.pem"):
        if (former / name).exists():
            shutil.move(former / name, directory / name)
    # What else a person keeps there stays.
    with contextlib.suppress(OSError):
        former.rmdir()


def make(directory: Path, name: str, passphrase: bytes | None) -> None:
    """A new authority: key first, so that a certificate is never without one."""
    prepare(directory)
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - BACKDATED)
        .not_valid_after(now() + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    encryption: Any = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    write(directory / "ca.key", content, 0o600)
    write(directory / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def load(directory: Path, passphrase: bytes | None) -> tuple[Any, x509.Certificate]:
    """Key and certificate of the authority. Raises Refused."""
    try:
        certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), passphrase)
    except (OSError, TypeError, ValueError) as error:
        raise Refused(
            f"the authority in {directory} cannot be used ({error}); "
            "is tls_certificate_ca_passphrase the one it was made with?"
        ) from error
    if key.public_key() != certificate.public_key():
        raise Refused(f"{directory}/ca.key does not belong to {directory}/ca.pem")
    return key, certificate


def sign(key: Any, authority: x509.Certificate, request: str, days: int) -> str:
    """A certificate for what a host asks for, never longer valid than the authority."""
    asked = x509.load_pem_x509_csr(request.encode())
    if not asked.is_signature_valid:
        raise Refused("a signing request is not signed with its own key")
    until = min(now() + datetime.timedelta(days=days), authority.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(asked.subject)
        .issuer_name(authority.subject)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now() - BACKDATED, authority.not_valid_before_utc))
        .not_valid_after(until)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(asked.public_key()), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
    )
    for extension in asked.extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            raise Refused("a signing request asks to be an authority itself")
        builder = builder.add_extension(extension.value, extension.critical)
    certificate = builder.sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "former": {"type": "path", "default": ""},
            "name": {"type": "str", "default": "ptslink"},
            "passphrase": {"type": "str", "no_log": True},
            "days": {"type": "int", "default": 825},
            "requests": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    if x509 is None:
        module.fail_json(msg="The Python that runs Ansible lacks cryptography")
    directory = Path(module.params["directory"])
    passphrase = (module.params["passphrase"] or "").encode() or None
    missing = not (directory / "ca.pem").exists()
    former = Path(module.params["former"] or directory)
    moved = missing and (former / "ca.pem").exists()
    try:
        if moved and module.check_mode:
            certificate = (former / "ca.pem").read_text()
            module.exit_json(changed=True, certificate=certificate, certificates={}, moved=True)
        if moved:
            move(former, directory)
        elif missing and module.check_mode:
            module.exit_json(changed=True, certificate="", certificates={}, moved=False)
        elif missing:
            make(directory, module.params["name"], passphrase)
        certificates = {}
        if module.params["requests"]:
            key, authority = load(directory, passphrase)
            certificates = {
                kind: sign(key, authority, request, module.params["days"])
                for kind, request in module.params["requests"].items()
            }
    except Refused as refused:
        module.fail_json(msg=str(refused))
    except OSError as error:
        module.fail_json(msg=f"The authority cannot be kept in {directory}: {error}")
    module.exit_json(
        changed=missing,
        certificate=(directory / "ca.pem").read_text(),
        certificates=certificates,
        moved=moved,
    )


if __name__ == "__main__":
    main()
