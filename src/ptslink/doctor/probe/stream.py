"""The thin socket edge: names to addresses, and a byte stream on which every wait is bounded."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from dataclasses import dataclass

from ptslink.doctor.probe.target import bracketed

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

    The C library's lookup takes no timeout, so it runs in a thread that is left behind when it
    takes longer than *timeout* seconds.

    Raises:
        socket.gaierror: the resolver said no.
        TimeoutError: no answer within *timeout*.
    """
    outcome: list[list[Address] | OSError] = []

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        except OSError as error:
            outcome.append(error)
        except UnicodeError as error:
            outcome.append(socket.gaierror(socket.EAI_NONAME, f"not a host name: {error}"))
        else:
            addresses = [Address(f, a) for f, _, _, _, a in found if len(a) in (2, 4)]  # type: ignore[arg-type]
            outcome.append(list(dict.fromkeys(addresses)))

    thread = threading.Thread(target=look_up, name=f"resolve {host}", daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise TimeoutError(f"no answer from the resolver within {timeout:g} s")
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


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


def connect(address: Address, timeout: float) -> Stream:
    """A TCP connection to *address* within *timeout* seconds; raises ``OSError``."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return Stream(sock)


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
