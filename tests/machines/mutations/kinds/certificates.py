"""Certificates and keys: wrong ones in force, the files mixed up, chains in another order."""

from __future__ import annotations

from collections.abc import Iterator

from machines.faults.fault import host, server
from machines.faults.tls import make, put_back
from machines.mutations.mutation import (
    NGINX_AGAIN,
    SECURE,
    Mutation,
    Party,
    Truth,
    kind,
)
from machines.mutations.system import System
from support.faulty_pairs import MAKES

_TLS = "/etc/ptslink/tls"
_FRESH = f"{_TLS}/generations/mutated"
_FILES = ("rsa.pem", "rsa.key", "ecdsa.pem", "ecdsa.key")


def _in_force(kind_: str, what: str, made: str, line: str, *things: str) -> Mutation:
    """A generation of certificates made as *made* says, changed by *line*, in force."""
    bring = host(
        f"tar -C {{work}}/{made} -c {' '.join(_FILES)} | {{enter}} sh -c '"
        f"rm -rf {_FRESH}; mkdir -p {_FRESH} && tar -C {_FRESH} -x'"
    )
    use = server(
        f"test -e /run/doctor/live || readlink {_TLS}/live > /run/doctor/live; cd {_FRESH} && "
        f"{line} && ln -sfn generations/mutated {_TLS}/live"
    )
    return Mutation(
        kind_,
        what,
        Truth(
            (Party.CERTIFICATE, Party.FILE), (f"{_TLS}/live", f"{_TLS}/generations", *things), what
        ),
        (make(made), bring, use, server(NGINX_AGAIN.line, may_fail=True)),
        # A reload does not start what was refused.
        (
            server(
                f"ln -sfn $(cat /run/doctor/live) {_TLS}/live; {NGINX_AGAIN.line}", may_fail=True
            ),
            *put_back("mutated"),
        ),
        SECURE,
    )


@kind("certificate-wrong")
def wrong(system: System) -> Iterator[Mutation]:
    """Certificates of every fault that can be made, of both kinds of key or one of them."""
    del system
    for made in MAKES:
        for both in ("both", "rsa alone", "ecdsa alone"):
            other = {"rsa alone": "ecdsa", "ecdsa alone": "rsa"}.get(both)
            line = f"cp {_TLS}/$(cat /run/doctor/live)/{other}.* ." if other else "true"
            yield _in_force("certificate-wrong", f"{made}, {both}", made, line, "certificate")


@kind("certificate-mixed")
def mixed(system: System) -> Iterator[Mutation]:
    """Each file has what belongs into another, or a part of it, or more than it should."""
    del system
    for one in _FILES:
        for other in _FILES:
            if one != other:
                yield _in_force(
                    "certificate-mixed",
                    f"{one} holds {other}",
                    "fresh",
                    f"cp {_TLS}/$(cat /run/doctor/live)/{other} {one}",
                    one,
                )
        live = f"{_TLS}/$(cat /run/doctor/live)/{one}"
        for what, line in (
            ("of another pair", f"cp {live} {one}"),
            ("twice", f"cat {one} {one} > x && mv x {one}"),
            ("with text before it", f"sed -i '1i Subject: a comment' {one}"),
            (
                "in DER",
                f"openssl x509 -in {one} -outform DER -out x 2>/dev/null || "
                f"openssl pkey -in {one} -outform DER -out x; mv x {one}",
            ),
            (
                "with the authority before it",
                f"cat {_TLS}/live/ca.pem {one} > x 2>/dev/null; "
                f"cat /etc/ssl/certs/ca-certificates.crt | "
                f"sed '/END/q' | cat - {one} > x && mv x {one}",
            ),
            (
                "under a password",
                f"openssl pkey -in {one} -aes256 -passout pass:x -out x "
                f"2>/dev/null && mv x {one} || true",
            ),
        ):
            yield _in_force("certificate-mixed", f"{one} {what}", "fresh", line, one)
