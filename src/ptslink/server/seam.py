"""The seam between bytes and meaning: request, message, close, send.

`ptslink.server.front` owns the bytes of one connection and calls a `Handler`; a handler owns the
meaning and never sees a socket.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ptslink.handshake.head import Head, HeadError

#: Why nothing is read from a peer. Each reason holds it once, however often it is given.
HOLD_WRITING: Final = 1  # it does not read what is sent to it
HOLD_ANSWER: Final = 2  # its request is being answered
HOLD_JOURNAL: Final = 4  # its messages wait for the disk
HOLD_STOPPING: Final = 8  # the server stops


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer to a request.

    Attributes:
        status: HTTP status; 101 turns the connection into a WebSocket link.
        headers: (name, value); Content-Length and Connection are added.
        body: the whole body.
        close: end the connection after it even if the client would go on.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    close: bool = False


@dataclass(slots=True)
class Ending:
    """How a link ended.

    A close code alone says little: after an error the peer's closing frame may never come. So what
    was sent and what was received are kept apart, with the transport's own end.

    Attributes:
        seconds: from the 101 to the end.
        messages_in, messages_out, bytes_in, bytes_out: payloads and bytes on the wire.
        closed_by: ``peer``, ``server`` or ``transport``.
        close_sent, close_rcvd: (code, reason) or None.
        transport: ``fin``, ``rst``, ``timeout``, ``closed`` (by us, in good order) or ``aborted``
            (by us, after waiting).
        error: the protocol error, or None.
        fault: short name of the error, such as ``http-text-after-upgrade``; or None.
        first_bytes: up to 64 bytes of the segment that broke the protocol.
        pings, pongs: how many were sent and answered.
        last_ping, last_pong: loop times, or None.
    """

    seconds: float = 0.0
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    closed_by: str = "transport"
    close_sent: tuple[int, str] | None = None
    close_rcvd: tuple[int, str] | None = None
    transport: str = "closed"
    error: str | None = None
    fault: str | None = None
    first_bytes: bytes = b""
    pings: int = 0
    pongs: int = 0
    last_ping: float | None = None
    last_pong: float | None = None


class Caller(Protocol):
    """Whoever is at the other end, as far as the socket tells.

    Attributes:
        address: the peer's address, "" on a Unix socket.
        local_port: the port it came to.
    """

    address: str
    local_port: int


class Arrival(Caller, Protocol):
    """A connection that may not have brought a request yet.

    Attributes:
        number: unique within the process.
    """

    number: int

    def give_way(self) -> bool:
        """Make room for another connection if no whole request has come; whether it does."""
        ...


class Peer(Arrival, Protocol):
    """One connection, as a handler sees it.

    Attributes:
        context: whatever the handler keeps with it.
    """

    context: Any

    def send(self, payload: bytes, *, binary: bool = False) -> bool:
        """Send a message, text by default; False if the link is closing or gone."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        ...

    def answer(self, answer: Answer) -> None:
        """Answer a request for which `Handler.request` returned None."""
        ...

    def hold(self, why: int) -> None:
        """Stop reading from the peer until `go_on`, for one of the ``HOLD_`` reasons."""
        ...

    def go_on(self, why: int) -> None:
        """The reason is no more: read again, unless another one holds."""
        ...


class Handler(Protocol):
    """What a connection calls. Every method runs on the event loop and must not block."""

    def arrived(self, peer: Arrival) -> Answer | None:
        """A connection was accepted by the kernel; an answer refuses it unread."""
        ...

    def request(self, peer: Peer, head: Head, body: bytes) -> Answer | None:
        """A whole request is there. None means that `Peer.answer` is called later."""
        ...

    def failed(self, peer: Peer, head: Head, error: Exception) -> Answer:
        """`request` raised: what to answer. Recording it is the handler's business too."""
        ...

    def unreadable(self, peer: Caller, error: HeadError, start: bytes) -> Answer | None:
        """The bytes are no request; ``start`` is what came first. None closes without an answer."""
        ...

    def opened(self, peer: Peer) -> None:
        """The link is open: the 101 was just written, and nothing was read yet."""
        ...

    def message(self, peer: Peer, payload: bytes, binary: bool) -> None:
        """A whole message, and whether it came as binary; a controller sends text."""
        ...

    def ended(self, peer: Peer, ending: Ending) -> None:
        """An open link is gone."""
        ...

    def left(self, peer: Arrival) -> None:
        """The connection is gone, link or not; always the last call."""
        ...


@dataclass(frozen=True, slots=True)
class FrontLimits:
    """What one connection may take: ``[limits]``, ``[keepalive]`` and more of a configuration.

    Attributes:
        send_seconds: time for a peer to take what is sent to it, where more waits than 64 KiB.
        linger_seconds: time for the peer to close after the last answer.
        answer_seconds: time for the answer to a request; more than any command may take.
    """

    head_bytes: int = 16_384
    head_seconds: float = 10.0
    message_bytes: int = 1_048_576
    idle_seconds: float = 0.0
    close_seconds: float = 10.0
    send_seconds: float = 60.0
    linger_seconds: float = 2.0
    answer_seconds: float = 180.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    tolerate_rsv1: bool = False
    validate_utf8: bool = True
    counters: dict[str, int] = field(default_factory=dict)
