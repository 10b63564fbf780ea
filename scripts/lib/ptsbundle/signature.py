"""Signatures made and judged by ssh-keygen -Y, so that an ordinary SSH key is enough."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ptsbundle import BundleError, Refused, layout


def _keygen(arguments: Sequence[str | Path], stdin: bytes = b"") -> tuple[int, str]:
    try:
        done = subprocess.run(
            ["ssh-keygen", "-Y", *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise BundleError(
            "there is no ssh-keygen here: install OpenSSH's client (openssh-client)"
        ) from error
    return done.returncode, done.stdout.decode(errors="replace").strip()


def sign(content: bytes, key: Path) -> bytes:
    """Sign with a private key, or with a public key whose private half an agent holds."""
    if not key.is_file():
        raise BundleError(f"--sign {key}: no such file; make a key with: ssh-keygen -t ed25519")
    with tempfile.TemporaryDirectory(prefix="ptslink-bundle-") as directory:
        message = Path(directory) / layout.SUMS
        message.write_bytes(content)
        status, said = _keygen(["sign", "-f", key, "-n", layout.NAMESPACE, message])
        if status != 0:
            raise BundleError(f"--sign {key}: ssh-keygen could not sign: {said}")
        return (Path(directory) / layout.SIGNATURE).read_bytes()


def signer(content: bytes, signature: bytes, signers: Path) -> str:
    """The principal in ``signers`` (ssh-keygen(1), ALLOWED SIGNERS) that signed; else Refused."""
    if not signers.is_file():
        raise Refused(f"the file of those who may sign, {signers}, is not there")
    with tempfile.TemporaryDirectory(prefix="ptslink-bundle-") as directory:
        detached = Path(directory) / layout.SIGNATURE
        detached.write_bytes(signature)
        status, said = _keygen(["find-principals", "-s", detached, "-f", signers])
        principals = said.splitlines() if status == 0 else []
        for principal in principals:
            status, said = _keygen(
                ["verify", "-f", signers, "-I", principal, "-n", layout.NAMESPACE, "-s", detached],
                content,
            )
            if status == 0:
                return principal
    if principals:
        raise Refused(f"its signature is not of its content: {said.splitlines()[-1]}")
    raise Refused(f"it is signed by a key that {signers} does not name ({said or 'no match'})")


def signers_line(key: Path) -> str:
    """What goes into a signers file to trust ``key``."""
    public = key if key.suffix == ".pub" else key.with_name(f"{key.name}.pub")
    if public.is_file():
        text = public.read_text()
    else:
        done = subprocess.run(
            ["ssh-keygen", "-y", "-f", key], capture_output=True, text=True, check=False
        )
        text = done.stdout
    kind, blob, *comment = [*text.split(None, 2), "", ""]
    principal = re.sub(r"[^\w.@-]+", "-", comment[0].strip()) or "ptslink"
    return f'{principal} namespaces="{layout.NAMESPACE}" {kind} {blob}'
