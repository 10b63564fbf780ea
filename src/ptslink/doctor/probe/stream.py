"""The thin socket edge: names to addresses, and a byte stream on which every wait is bounded."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ptslink.doctor.probe.target import bracketed

T = TypeVar("T")

#: OpenSSL's word for an alert received, and the alert's number (RFC 5246 7.2, RFC 8446 6).
ALERTS = {
    "SSLV3_ALERT_UNEXPECTED_MESSAGE": 10,
    "TLSV1_ALERT_RECORD_OVERFLOW": 22,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": 40,
    "SSLV3_ALERT_BAD_CERTIFICATE": 42,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": 45,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": 46,
    "TLSV1_ALERT_UNKNOWN_CA": 48,
    "TLSV1_ALERT_ACCESS_DENIED": 49,
    "TLSV1_ALERT_DECODE_ERROR": 50,
    "TLSV1_ALERT_PROTOCOL_VERSION": 70,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": 71,
    "TLSV1_ALERT_INTERNAL_ERROR": 80,
    "TLSV1_UNRECOGNIZED_NAME": 112,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": 116,
}


@dataclass(frozen=True, slots=True)
class Address:
    """One resolved address: the socket family and what ``connect`` takes."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]

    @property
    def host(self) -> str:
        return self.sockaddr[0]

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.sockaddr[1]}"


def resolve(host: str, port: int, timeout: float, family: int = socket.AF_UNSPEC) -> list[Address]:
    """The addresses of *host* in the resolver's order, without repeats.

    Raises:
        socket.gaierror: the resolver said no.
        TimeoutError: no answer within *timeout*.
    """

    def look_up() -> list[Address]:
        try:
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, f"not a host name: {error}") from error
        addresses = [Address(f, a) for f, _, _, _, a in found if len(a) in (2, 4)]  # type: ignore[arg-type]
        return list(dict.fromkeys(addresses))

    return bounded(look_up, timeout)


def bounded(look_up: Callable[[], T], timeout: float) -> T:
    """What a question to the resolver gives, or ``TimeoutError`` after *timeout* seconds.

    The C library's lookups take no timeout, so it is asked in a thread that is left behind when
    it takes longer. The OSError of *look_up* is raised here.
    """
    outcome: list[T | OSError] = []

    def run() -> None:
        try:
            outcome.append(look_up())
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="resolver", daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise TimeoutError(f"no answer from the resolver within {timeout:g} s")
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


def refusal(error: OSError) -> dict[str, Any]:
    """What a failed connection tells: ``errno``, and ``icmp`` where a machine said so."""
    told = getattr(error, "icmp", None)
    return {"errno": errno_name(error), **({"icmp": told} if told else {})}


def errno_name(error: BaseException) -> str | None:
    """``ECONNREFUSED``, ``EAI_NONAME``, ... or ``None`` for an error that has no such name."""
    if isinstance(error, TimeoutError):
        return "ETIMEDOUT"
    if isinstance(error, socket.gaierror):
        codes = {v: k for k, v in vars(socket).items() if k.startswith("EAI_")}
        return codes.get(error.errno)
    if isinstance(error, ssl.SSLError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno)
    return None


def error_text(error: BaseException) -> str:
    """An error in a few words, with the name programs and manuals know it by."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message} (verify code {error.verify_code})"
    if isinstance(error, ssl.SSLEOFError):
        return "the connection ended in the middle of the TLS handshake"
    if isinstance(error, ssl.SSLError):
        return f"TLS error {error.reason or error.strerror or error}"
    if isinstance(error, TimeoutError) and error.errno is None:
        return str(error) or "timed out"
    name = errno_name(error)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{name} ({text})" if name else text


class Ended(OSError):
    """The other side ended the stream with a FIN."""


class Stream:
    """A connected socket and the bytes that arrived but were not yet taken.

    Every wait ends at a deadline, ``time.monotonic()`` seconds; passing it raises
    ``TimeoutError``.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pending = b""
        self.received = 0

    @property
    def local_host(self) -> str:
        return str(self.sock.getsockname()[0])

    def send(self, data: bytes, deadline: float) -> None:
        self.sock.settimeout(_left(deadline))
        self.sock.sendall(data)

    def fill(self, deadline: float) -> None:
        """Wait for more bytes and append them to ``pending``.

        Raises:
            Ended: the stream ended.
            TimeoutError: nothing came before *deadline*.
            OSError: the connection broke.
        """
        self.sock.settimeout(_left(deadline))
        try:
            data = self.sock.recv(65536)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            data = b""
        if not data:
            raise Ended("the connection was closed")
        self.received += len(data)
        self.pending += data

    def close(self) -> None:
        self.sock.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


#: (level, IP_RECVERR of Linux, IP_TTL) and the same of IPv6. Python has no names for the second.
_OPTIONS = {
    socket.AF_INET: (socket.IPPROTO_IP, 11, socket.IP_TTL),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25, socket.IPV6_UNICAST_HOPS),
}
_MSG_ERRQUEUE = 0x2000
#: linux/errqueue.h: ``struct sock_extended_err``, and whose error it is.
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_FROM_ICMP = (2, 3)


class ConnectFailed(OSError):
    """No TCP connection; ``icmp`` is the error message of a machine on the way, where one came:
    ``from`` (its address), ``type``, ``code``."""

    def __init__(self, error: OSError, icmp: dict[str, Any] | None) -> None:
        super().__init__(error.errno, error.strerror or str(error))
        self.icmp = icmp


def connect(address: Address, timeout: float, ttl: int | None = None) -> Stream:
    """A TCP connection to *address* within *timeout* seconds.

    *ttl*: through how many routers at most, less one.

    Raises:
        TimeoutError: nobody answered.
        ConnectFailed: refused or unreachable.
    """
    level, receive_errors, hops = _OPTIONS[address.family]
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":  # elsewhere the number means something else
            sock.setsockopt(level, receive_errors, 1)
        if ttl is not None:
            sock.setsockopt(level, hops, ttl)
        try:
            sock.connect(address.sockaddr)
        except TimeoutError:
            raise
        except OSError as error:
            raise ConnectFailed(error, _icmp(sock)) from error
        if sys.platform == "linux":  # on an open connection it would make a passing error fatal
            sock.setsockopt(level, receive_errors, 0)
    except BaseException:
        sock.close()
        raise
    return Stream(sock)


def _icmp(sock: socket.socket) -> dict[str, Any] | None:
    """The ICMP error the kernel keeps for *sock* (ip(7), IP_RECVERR), or None."""
    sock.setblocking(False)  # else Python waits for the socket where nothing was sent
    try:
        _, ancillary, _, _ = sock.recvmsg(0, 512, _MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except (OSError, AttributeError):
        return None
    for _, _, data in ancillary:
        if len(data) < _EXTENDED_ERROR.size + 8:
            continue
        _, origin, kind, code, *_ = _EXTENDED_ERROR.unpack_from(data)
        if origin not in _FROM_ICMP:
            continue
        # The address of who sent it follows as a struct sockaddr_in or sockaddr_in6.
        sender = data[_EXTENDED_ERROR.size :]
        family = struct.unpack_from("=H", sender)[0]
        raw = sender[4:8] if family == socket.AF_INET else sender[8:24]
        return {"from": str(ipaddress.ip_address(raw)), "type": kind, "code": code}
    return None


def start_tls(
    stream: Stream, context: ssl.SSLContext, server_name: str | None, timeout: float
) -> ssl.SSLSocket:
    """Turn *stream* into a TLS one; raises ``OSError`` (``ssl.SSLError`` among them)."""
    stream.sock.settimeout(timeout)
    secure = context.wrap_socket(stream.sock, server_hostname=server_name)
    stream.sock = secure
    return secure


def milliseconds_since(start: float) -> float:
    """Milliseconds since the ``time.perf_counter()`` value *start*, to 0.1."""
    return round((time.perf_counter() - start) * 1000, 1)
