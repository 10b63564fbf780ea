"""TLS under a connection, on memory buffers, so that a failed handshake leaves a record too.

asyncio's own TLS tells the application nothing about a handshake that fails; here it becomes an
attempt like any other, with the alert's name and the first bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any, Final

from ptslink.handshake.answer import document, render
from ptslink.handshake.head import PROXY_PROTOCOL, HeadError, looks_wrong
from ptslink.server.config import Tls
from ptslink.server.front import Front
from ptslink.server.seam import Handler
from ptslink.server.wheel import Wheel


class CertificateError(Exception):
    """A certificate or key that cannot be used; the text names the file."""


def make_context(tls: Tls) -> ssl.SSLContext:
    """A server context with every configured certificate; OpenSSL picks by what the client can.

    TLS 1.2 stays on: the controller's documentation mentions nothing newer (PTS-2 protocol 1.4).
    OpenSSL's own default ciphers, not Python's shorter list: a small device may know no ECDHE.

    Raises:
        CertificateError: there is none, a file is missing, unreadable, or the pair does not match.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT")
    loaded = 0
    pairs = ((tls.rsa_certificate, tls.rsa_key), (tls.ecdsa_certificate, tls.ecdsa_key))
    for certificate, key in pairs:
        if certificate is not None and key is not None:
            _load(context, certificate, key)
            loaded += 1
    if not loaded:
        # A context without one would fail every handshake, until somebody looks.
        raise CertificateError(
            "[tls] names no certificate; set tls.rsa_certificate and tls.rsa_key, or the ecdsa pair"
            " (to serve no TLS any more, restart instead: systemctl restart ptslink)"
        )
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for path in (certificate, key):
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise CertificateError(f"{path} cannot be read: {error.strerror}") from error
    try:
        # An encrypted key would ask on the terminal; an empty password makes it fail instead.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(f"{certificate} with {key}: {error}") from error


class Certificates:
    """The context in force; `reload` replaces it for connections made from then on."""

    def __init__(self, tls: Tls) -> None:
        self.context = make_context(tls)

    def reload(self, tls: Tls) -> None:
        """Read the files again, or others.

        Raises:
            CertificateError: they cannot be used; the former context stays in force.
        """
        self.context = make_context(tls)


class TlsLayer(asyncio.Protocol):
    """The TLS side of one connection; a transport to its front, a protocol to the socket.

    Args:
        certificates: whose context is in force when the connection begins.
        front: the connection itself.
        handler: told of handshakes that fail.
        wheel: for the time limit of the handshake.
        scratch: the shared receive buffer of the fronts.
        seconds: time for the handshake.
        loop: the event loop.
    """

    __slots__ = (
        "_deadline",
        "_done",
        "_front",
        "_handler",
        "_incoming",
        "_loop",
        "_outgoing",
        "_over",
        "_scratch",
        "_seconds",
        "_session",
        "_slot",
        "_start",
        "_transport",
        "_wheel",
        "address",
        "context",
        "local_port",
        "number",
    )

    def __init__(
        self,
        certificates: Certificates,
        front: Front,
        handler: Handler,
        wheel: Wheel,
        scratch: memoryview,
        seconds: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = certificates.context.wrap_bio(
            self._incoming, self._outgoing, server_side=True
        )
        self._front = front
        self._handler = handler
        self._wheel = wheel
        self._scratch = scratch
        self._seconds = seconds
        self._loop = loop
        self._transport: Any = None
        self._start = b""
        self._done = False
        self._over = False
        self._deadline = 0.0
        self._slot = 0
        self.context: Any = None
        self.number = front.number
        self.address = ""
        self.local_port = front.local_port

    # The socket's side.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.address = peer[0].removeprefix("::ffff:") if peer else ""
        self._deadline = self._loop.time() + self._seconds
        self._slot = self._wheel.add(self, self._deadline)
        # Counted from the start: a handshake that nobody ends takes a place like any connection.
        if self._handler.arrived(self) is not None:
            self._over = True  # there is no way to say why before the handshake
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if not self._done:
            self._start = (self._start + data)[:64]
        self._incoming.write(data)
        if self._done or self._handshake():
            self._read()

    def eof_received(self) -> bool:
        if self._done and not self._over:
            return self._front.eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._wheel.remove(self, self._slot)
        if self._done:
            self._front.connection_lost(exc)
        else:
            if not self._over:
                self._fail("tls-unfinished", "The peer left before the TLS handshake was complete.")
            self._handler.left(self)
        self._over = True

    def pause_writing(self) -> None:
        if self._done:
            self._front.pause_writing()

    def resume_writing(self) -> None:
        if self._done:
            self._front.resume_writing()

    def due(self, now: float) -> float | None:
        """The wheel's look: end a handshake that takes too long."""
        if self._done:
            return None
        if now < self._deadline:
            return self._deadline
        # One that failed is closed already, but for a peer that does not take the alert.
        self._transport.abort()
        if not self._over:
            self._fail("tls-timeout", "The TLS handshake was not complete within the time limit.")
        return None

    def give_way(self) -> bool:
        """End a handshake that another connection needs the place of."""
        if self._done:
            return False
        self._transport.abort()
        if not self._over:
            self._fail(
                "silent-gave-way",
                "Too many connections wait for a request; this one had waited longest.",
            )
        return True

    def _handshake(self) -> bool:
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError as error:
            self._flush()
            reason = (error.reason or "failed").lower().replace("_", "-")
            code, words = f"tls-{reason}", f"The TLS handshake failed: {error.reason or error}."
            wrong = looks_wrong(self._start)
            told = "http-on-tls-port", "This port speaks TLS."
            if wrong is not None and wrong.code == PROXY_PROTOCOL:
                told = code, words = wrong.code, wrong.reason
            elif reason == "http-request" or self._start[:4] in (b"GET ", b"POST"):
                code = "tls-http-request"
            else:
                told = "", ""
            if told[0]:
                body = document({"error": told[0], "message": told[1]})
                self._transport.write(
                    render(400, [("Content-Type", "application/json")], body, keep=False)
                )
            self._transport.close()
            self._fail(code, words)
            return False
        self._flush()
        self._done = True
        self._wheel.remove(self, self._slot)
        # From here on the front stands for the connection.
        self._handler.left(self)
        self._front.connection_made(self)
        return True

    def _read(self) -> None:
        while not self._over:
            try:
                # With a buffer, read() returns how much it put there.
                count: Any = self._session.read(len(self._scratch), self._scratch)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                count = 0
            except ssl.SSLError:
                self.abort()
                break
            if not count:
                # The peer's close_notify: it will send no more.
                if not self._front.eof_received():
                    self.close()
                break
            self._front.buffer_updated(count)
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._transport.write(self._outgoing.read())

    def _fail(self, code: str, reason: str) -> None:
        self._over = True
        self._handler.unreadable(self, HeadError(400, code, reason), self._start)

    # The front's side.

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if not self._over and not self._transport.is_closing():
            try:
                self._session.write(data)
            except ssl.SSLError:
                self.abort()
                return
            self._flush()

    def close(self) -> None:
        """Say that no more comes, then close."""
        if not self._over:
            self._over = True
            with contextlib.suppress(ssl.SSLError):
                self._session.unwrap()
            self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._over = True
        self._transport.abort()

    def can_write_eof(self) -> bool:
        """TLS has no half-close worth relying on."""
        return False

    def write_eof(self) -> None:
        """Not supported; see `can_write_eof`."""
        raise NotImplementedError

    def is_closing(self) -> bool:
        """Whether the connection is closing."""
        return self._over or bool(self._transport.is_closing())

    def pause_reading(self) -> None:
        """Stop reading from the socket."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the socket's transport has it, and the TLS session under ``ssl_object``."""
        if name == "ssl_object":
            return self._session
        return self._transport.get_extra_info(name, default)


HANDSHAKE_SECONDS: Final = 10.0
