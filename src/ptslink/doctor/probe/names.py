"""What each name server of this machine says, where resolving a name failed. Linux and the like.

The C library tells "no answer" and "the server could not find out" apart poorly (both may be
EAI_AGAIN); the answer's own code (RFC 1035 4.1.1) tells who is at fault.

Evidence ``dns.server``, one a name server, ``variation``: ``server``, ``errno`` null|ETIMEDOUT|
ECONNREFUSED|..., ``rcode`` null|NOERROR|NXDOMAIN|SERVFAIL|REFUSED|number, ``answers`` int.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from ptslink.doctor.evidence import Evidence, Status
from ptslink.doctor.probe.stream import errno_name, milliseconds_since

RESOLV_CONF: Final = Path("/etc/resolv.conf")
#: What a C library takes from it (resolv.conf(5), MAXNS).
MOST_SERVERS: Final = 3
RCODES: Final = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}
_HEAD: Final = struct.Struct("!6H")
_RECURSE: Final = 0x0100
_A, _IN = 1, 1


def servers(text: str) -> list[str]:
    """The name servers in a resolv.conf, in order; a machine that names none asks itself."""
    words = [line.split() for line in text.splitlines()]
    named = [w[1] for w in words if len(w) >= 2 and w[0] == "nameserver" and _is_address(w[1])]
    return named[:MOST_SERVERS] or ["127.0.0.1"]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def question(name: str, number: int) -> bytes:
    """The message that asks for the IPv4 addresses of *name*; UnicodeError if it is no name."""
    labels = name.rstrip(".").encode("idna").split(b".")
    encoded = b"".join(bytes((len(label),)) + label for label in labels)
    return _HEAD.pack(number, _RECURSE, 1, 0, 0, 0) + encoded + struct.pack("!xHH", _A, _IN)


def read_answer(data: bytes, number: int) -> dict[str, Any] | None:
    """``rcode`` and ``answers`` of the reply to question *number*; None if it is another's."""
    if len(data) < _HEAD.size:
        return None
    own, flags, _, answers, _, _ = _HEAD.unpack_from(data)
    if own != number or not flags & 0x8000:
        return None
    code = flags & 0xF
    return {"rcode": RCODES.get(code, str(code)), "answers": answers}


def ask(server: str, name: str, timeout: float, port: int = 53) -> dict[str, Any]:
    """What *server* says of *name*: the facts of ``dns.server``, and ``ms``."""
    facts: dict[str, Any] = {"server": server, "errno": None, "rcode": None, "answers": 0}
    start, number = time.perf_counter(), secrets.randbelow(1 << 16)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    try:
        asked = question(name, number)
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((server, port))
            sock.send(asked)
            deadline = time.monotonic() + timeout
            told = None
            while told is None:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
                told = read_answer(sock.recv(4096), number)
        facts |= told
    except UnicodeError:
        facts["errno"] = "EINVAL"
    except OSError as error:
        facts["errno"] = errno_name(error)
    return facts | {"ms": milliseconds_since(start)}


def ask_all(name: str, timeout: float, vantage: str = "site") -> Iterator[Evidence]:
    """Ask every name server of this machine at the same time."""
    try:
        listed = servers(RESOLV_CONF.read_text())
    except OSError as error:
        yield Evidence("dns.server", Status.SKIPPED, f"{RESOLV_CONF}: {error.strerror}",
                       {"variation": True}, vantage=vantage)  # fmt: skip
        return
    with ThreadPoolExecutor(len(listed)) as pool:
        for facts in pool.map(lambda server: ask(server, name, timeout), listed):
            ms = facts.pop("ms")
            said = facts["rcode"] or facts["errno"]
            many = f" with {facts['answers']} answers" if facts["rcode"] == "NOERROR" else ""
            seen = f"name server {facts['server']}: {said}{many} after {ms:g} ms"
            yield Evidence("dns.server", Status.OK if facts["rcode"] else Status.UNKNOWN, seen,
                           {**facts, "variation": True}, ms, vantage)  # fmt: skip
