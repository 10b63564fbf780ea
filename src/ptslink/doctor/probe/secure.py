"""TLS handshakes with the bytes in view: alert numbers, the chain as sent, and what is no TLS.

``ssl`` alone tells neither the number of an alert nor the chain of a server it does not trust. So
the handshake is driven through memory, and what arrives is read on the way: up to TLS 1.2 alerts
and certificates are sent in clear (RFC 5246 7.2, 7.4.2).
"""

from __future__ import annotations

import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptslink.doctor.probe.certificate import (
    NotACertificateError,
    read_certificate,
    read_chain,
)
from ptslink.doctor.probe.response import shown
from ptslink.doctor.probe.stream import (
    Address,
    Ended,
    connect,
    errno_name,
    error_text,
    milliseconds_since,
)

_ALERT_RECORD, _HANDSHAKE_RECORD = 21, 22
_CERTIFICATE_MESSAGE = 11


@dataclass(frozen=True, slots=True)
class Offer:
    """One kind of client to be: what is offered, and whether the server's name is sent."""

    variant: str
    newest: ssl.TLSVersion | None = None
    oldest: ssl.TLSVersion | None = None
    ciphers: str | None = None
    sni: bool = True


#: What a controller may be like (PTS-2 protocol 1.4), and what sets one cause from another.
OFFERS = (
    Offer("tls1.2", newest=ssl.TLSVersion.TLSv1_2, oldest=ssl.TLSVersion.TLSv1_2),
    Offer("tls1.3", oldest=ssl.TLSVersion.TLSv1_3),
    Offer("no-sni", newest=ssl.TLSVersion.TLSv1_2, sni=False),
    Offer("rsa", newest=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-RSA-AES128-GCM-SHA256"),
    Offer("ecdsa", newest=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"),
    Offer("legacy", newest=ssl.TLSVersion.TLSv1_2, ciphers="AES128-SHA"),
    Offer(
        "tls1.0",
        newest=ssl.TLSVersion.TLSv1,
        oldest=ssl.TLSVersion.TLSv1,
        ciphers="ALL:@SECLEVEL=0",
    ),
)


@dataclass(slots=True)
class Handshake:
    """How one handshake went. ``chain`` are DER certificates as sent, the leaf first."""

    ok: bool = False
    version: str | None = None
    cipher: str | None = None
    #: The number of the fatal alert the server sent.
    alert: int | None = None
    reason: str | None = None
    errno: str | None = None
    #: ``fin``, ``rst`` or ``timeout``, when it ended so.
    ended: str | None = None
    verify: int | None = None
    verify_text: str | None = None
    #: The first bytes of an answer that is no TLS.
    first_bytes: bytes = b""
    chain: list[bytes] = field(default_factory=list)
    #: The largest TLS record the server sent, in bytes.
    largest_record: int = 0
    ms: float = 0.0

    def facts(self) -> dict[str, Any]:
        """Plain JSON data; of the certificate see ``certificate_facts``."""
        return {
            "ok": self.ok,
            "version": self.version,
            "cipher": self.cipher,
            "alert": self.alert,
            "reason": self.reason,
            "errno": self.errno,
            "ended": self.ended,
            "verify": self.verify,
            "verify_text": self.verify_text,
            "first_bytes": self.first_bytes.hex(),
            "chain_bytes": [len(der) for der in self.chain],
            "largest_record": self.largest_record,
        }

    def certificate_facts(self) -> dict[str, Any]:
        """The leaf's fields and the chain's; empty when no certificate was seen."""
        if not self.chain:
            return {}
        try:
            leaf, chain = read_certificate(self.chain[0]), read_chain(self.chain)
        except NotACertificateError:
            return {}
        return {**leaf, "chain": chain, "chain_bytes": [len(der) for der in self.chain]}

    def text(self) -> str:
        if self.ok:
            return f"{self.version} {self.cipher}"
        if self.alert is not None:
            return f"alert {self.alert}, {self.reason}"
        if self.first_bytes:
            return f"no TLS but {shown(self.first_bytes)}"
        return self.reason or self.errno or "no handshake"


def client_context(
    offer: Offer | None = None, *, ca: Path | None = None, verify: bool = False
) -> ssl.SSLContext:
    """A client context for *offer*.

    Raises:
        OSError: *ca* cannot be read.
        ValueError, ssl.SSLError: this Python's TLS cannot make such an offer.
    """
    if verify:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    else:
        # Without the system's authorities: to read a hundred of them takes as long as a handshake.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if offer is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old versions are probed too
            if offer.oldest is not None:
                context.minimum_version = offer.oldest
            if offer.newest is not None:
                context.maximum_version = offer.newest
        if offer.ciphers is not None:
            context.set_ciphers(offer.ciphers)
    return context


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 5:
        size = int.from_bytes(data[3:5], "big")
        if len(data) < 5 + size:
            return
        yield data[0], data[5 : 5 + size]
        data = data[5 + size :]


def looks_like_tls(data: bytes) -> bool:
    """Whether *data* begins like a TLS record."""
    return not data or (20 <= data[0] <= 23 and data[1:2] in (b"", b"\x03"))


def read_flight(data: bytes, seen: Handshake) -> None:
    """Note the alert, the chain and the record sizes in what a server sent in clear."""
    handshake = b""
    for kind, part in _records(data):
        seen.largest_record = max(seen.largest_record, len(part))
        if kind == _ALERT_RECORD and len(part) == 2 and part[0] == 2:
            seen.alert = part[1]
        elif kind == _HANDSHAKE_RECORD:
            handshake += part
        elif kind not in (_ALERT_RECORD, _HANDSHAKE_RECORD):
            break  # change cipher spec or data: what follows is encrypted
    while len(handshake) >= 4:
        size = int.from_bytes(handshake[1:4], "big")
        body = handshake[4 : 4 + size]
        if handshake[0] == _CERTIFICATE_MESSAGE and len(body) == size >= 3:
            seen.chain = list(_chain(body[3:]))
            return
        handshake = handshake[4 + size :]


def _chain(data: bytes) -> Iterator[bytes]:
    while len(data) >= 3:
        size = int.from_bytes(data[:3], "big")
        yield data[3 : 3 + size]
        data = data[3 + size :]


def shake_hands(
    address: Address, context: ssl.SSLContext, server_name: str | None, timeout: float
) -> Handshake:
    """Connect to *address*, do the handshake, and hang up. Raises nothing of the network's."""
    seen, start = Handshake(), time.perf_counter()
    try:
        stream = connect(address, timeout)
    except OSError as error:
        seen.errno, seen.reason = errno_name(error), error_text(error)
        seen.ms = milliseconds_since(start)
        return seen
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    flight, deadline = b"", time.monotonic() + timeout
    try:
        while True:
            more = _step(client.do_handshake)
            written = outgoing.read()
            if written:
                stream.send(written, deadline)
            if not more:
                break
            stream.fill(deadline)
            flight += stream.pending
            incoming.write(stream.pending)
            stream.pending = b""
            if not looks_like_tls(flight):
                seen.first_bytes = flight[:64]
                break
        seen.ok = not seen.first_bytes
    except OSError as error:
        written = outgoing.read()
        if written:
            _hand_over(lambda: stream.send(written, deadline))
        _note(seen, error)
    finally:
        stream.close()
    read_flight(flight, seen)
    if seen.ok:
        cipher = client.cipher()
        seen.version, seen.cipher = client.version(), cipher[0] if cipher else None
        if not seen.chain:  # encrypted since TLS 1.3: the leaf is all there is
            leaf = client.getpeercert(binary_form=True)
            seen.chain = [leaf] if leaf else []
    seen.ms = milliseconds_since(start)
    return seen


def _step(shake: Callable[[], None]) -> bool:
    """Go on with the handshake; whether it needs more bytes."""
    try:
        shake()
    except ssl.SSLWantReadError:
        return True
    return False


def _hand_over(send: Callable[[], None]) -> None:
    """Send our own alert, if the other side is still there to take it."""
    try:
        send()
    except OSError:
        return


def _note(seen: Handshake, error: OSError) -> None:
    if isinstance(error, Ended):
        seen.ended, seen.reason = "fin", "the server closed the connection (FIN)"
    elif isinstance(error, ConnectionError):
        seen.ended, seen.errno, seen.reason = "rst", errno_name(error), error_text(error)
    elif isinstance(error, TimeoutError):
        seen.ended, seen.errno, seen.reason = "timeout", "ETIMEDOUT", "nothing came in time"
    elif isinstance(error, ssl.SSLCertVerificationError):
        seen.verify, seen.verify_text = error.verify_code, error.verify_message
        seen.reason = error_text(error)
    elif isinstance(error, ssl.SSLError):
        seen.reason = error.reason or str(error)
    else:
        seen.errno, seen.reason = errno_name(error), error_text(error)
