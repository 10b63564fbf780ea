"""Certificates for the rows of the layer tls: an RSA and an ECDSA pair, wrong in one way.

    python -m support.faulty_pairs MAKE DIRECTORY AUTHORITY NAME...

*AUTHORITY* is the directory with the ``ca.pem`` and ``ca.key`` that controllers trust. Into
*DIRECTORY* go ``rsa.pem``, ``rsa.key``, ``ecdsa.pem``, ``ecdsa.key``, and ``ca.pem``: whom one has
to trust to accept them. Made anew each time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support.certificates import Party, certify

#: Kind of key -> the leaf and what is sent behind it.
Chains = Mapping[str, Sequence[Party]]
KINDS = ("rsa", "ecdsa")
#: Authorities between root and leaf of a long chain, and the size of each key, in bits.
LONG_CHAIN, LONG_KEY = 3, 4096


def authority(directory: Path) -> Party:
    """The authority kept in *directory*, its key unencrypted."""
    certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    return Party(certificate, key)


def leaves(issuer: Party, names: Sequence[str], days: tuple[int, int] = (-1, 90)) -> Chains:
    return {kind: [certify("ptslink", issuer, kind, names, days)] for kind in KINDS}


def fresh(root: Party, names: Sequence[str]) -> tuple[Party, Chains]:
    """A renewal: nothing is wrong with it."""
    return root, leaves(root, names)


def expired(root: Party, names: Sequence[str]) -> tuple[Party, Chains]:
    return root, leaves(root, names, (-90, -1))


def other_name(root: Party, _names: Sequence[str]) -> tuple[Party, Chains]:
    return root, leaves(root, ["elsewhere.example.test"])


def other_authority(_root: Party, names: Sequence[str]) -> tuple[Party, Chains]:
    root = certify("Another Root", kind="rsa")
    return root, leaves(root, names)


def authority_anew(root: Party, names: Sequence[str]) -> tuple[Party, Chains]:
    """Of the same name with a new key: what a lost ``ca.key`` leads to."""
    (name,) = root.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    root = certify(str(name.value))
    return root, leaves(root, names)


def long_chain(root: Party, names: Sequence[str]) -> tuple[Party, Chains]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=LONG_KEY)
    chain = [root]
    for number in range(LONG_CHAIN):
        chain.insert(0, certify(f"Intermediate {number}", chain[0], key=key))
    leaf = certify("ptslink", chain[0], names=names, key=key)
    return root, {"rsa": [leaf, *chain[:-1]], "ecdsa": leaves(root, names)["ecdsa"]}


MAKES: Mapping[str, Callable[[Party, Sequence[str]], tuple[Party, Chains]]] = {
    make.__name__.replace("_", "-"): make
    for make in (
        fresh, expired, other_name, other_authority, authority_anew, long_chain,
    )
}  # fmt: skip


def main(make: str, directory: Path, kept: Path, names: Sequence[str]) -> None:
    root, chains = MAKES[make](authority(kept), names)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ca.pem").write_text(root.pem)
    for kind, chain in chains.items():
        (directory / f"{kind}.pem").write_text("".join(party.pem for party in chain))
        (directory / f"{kind}.key").write_text(chain[0].key_pem)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
