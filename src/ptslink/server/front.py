"""One connection: HTTP until it is a WebSocket link, every byte in our own hands.

A front that owns the bytes can record every refused handshake, answer each exactly, verify a
signature over the raw head, and serve GET and POST on the same port. What requests and messages
mean is the `Handler`'s; what a head or a frame is, `ptslink.handshake` and
`ptslink.server.framing` know.
"""

from __future__ import annotations

import asyncio
import enum
import errno
from dataclasses import replace
from typing import Any, Final

from ptslink.handshake.answer import render
from ptslink.handshake.head import Head, HeadError, head_end, looks_wrong, parse_head
from ptslink.server.framing import PING, Framing, name_fault
from ptslink.server.seam import (
    HOLD_ANSWER,
    HOLD_WRITING,
    Answer,
    Ending,
    FrontLimits,
    Handler,
)
from ptslink.server.wheel import Wheel

#: Bytes received into at once. One buffer serves all connections: the loop hands each its bytes
#: and is done with them before it reads for the next.
SCRATCH_BYTES: Final = 65_536


class _State(enum.Enum):
    """Where a connection is. Every state ends by itself: what a peer may hold is one state's time
    and what waits to be sent to it then, which is no more than one answer, or the answers to the
    messages of a link that are under way, and the 64 KiB at which reading stops.

    ======== ============================================= ============== =======================
    state    what is heeded in it                          for so long    what happens then
    ======== ============================================= ============== =======================
    HEAD     bytes, the peer's end, `give_way`             head_seconds   close if silent, or 408
    BODY     as HEAD, whose time goes on                   head_seconds   408
    WAITING  `answer`; bytes are kept for later            answer_seconds 500
    SENDING  the peer takes its answer, `give_way`         send_seconds   abort
    LINK     frames, `send`, `close`, the peer's end       `_link_due`    CLOSING
    CLOSING  frames and the peer's end                     close_seconds  abort
    LAST     the peer takes its last answer, `give_way`    send_seconds   abort
    LINGER   the peer's end, `give_way`                    linger_seconds abort
    GONE     nothing
    ======== ============================================= ============== =======================
    """

    HEAD = ("head", "head_seconds", "_late")
    BODY = ("body", "head_seconds", "_late")
    WAITING = ("waiting", "answer_seconds", "_unanswered")
    SENDING = ("sending", "send_seconds", "_abort")
    LINK = ("link", "", "")
    CLOSING = ("closing", "close_seconds", "_abort")
    LAST = ("last", "send_seconds", "_abort")
    LINGER = ("linger", "linger_seconds", "_abort")
    GONE = ("gone", "", "")

    def __init__(self, _: str, limit: str, then: str) -> None:
        #: Which of `FrontLimits` it may last, and the method that is called then.
        self.limit = limit
        self.then = then


class Front(asyncio.BufferedProtocol):
    """One connection. Implements `ptslink.server.seam.Peer`.

    Args:
        handler: what requests and messages mean.
        limits: what this connection may take.
        wheel: the shared timer.
        scratch: the shared receive buffer.
        loop: the event loop.
        number: number of the connection, unique within the process.
        local_port: the port it came to, 0 on a Unix socket.
    """

    __slots__ = (
        "_buffer",
        "_bytes_in",
        "_bytes_out",
        "_cause",
        "_error",
        "_fault",
        "_first_bytes",
        "_framing",
        "_handler",
        "_head",
        "_holds",
        "_last_message",
        "_last_ping",
        "_last_pong",
        "_last_seen",
        "_limits",
        "_loop",
        "_messages_in",
        "_messages_out",
        "_need",
        "_opened_at",
        "_paused_at",
        "_pings",
        "_pongs_seen",
        "_scanned",
        "_scratch",
        "_since",
        "_slot",
        "_state",
        "_transport",
        "_watched",
        "_wheel",
        "address",
        "context",
        "local_port",
        "number",
    )

    def __init__(
        self,
        handler: Handler,
        limits: FrontLimits,
        wheel: Wheel,
        scratch: memoryview,
        loop: asyncio.AbstractEventLoop,
        number: int,
        local_port: int,
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._wheel = wheel
        self._scratch = scratch
        self._loop = loop
        self.number = number
        self.address = ""
        self.local_port = local_port
        self.context: Any = None
        self._transport: Any = None
        self._state = _State.HEAD
        self._buffer: bytearray | None = None
        self._scanned = 0
        self._head: Head | None = None
        self._need = 0
        self._framing: Framing | None = None
        self._since = 0.0
        self._holds = 0
        self._paused_at: float | None = None
        self._watched: float | None = None
        self._slot = 0
        self._bytes_in = self._bytes_out = 0
        self._messages_in = self._messages_out = 0
        self._opened_at = 0.0
        self._last_seen = self._last_message = 0.0
        self._last_ping: float | None = None
        self._last_pong: float | None = None
        self._pings = self._pongs_seen = 0
        self._cause: str | None = None
        self._error: str | None = None
        self._fault: str | None = None
        self._first_bytes = b""

    # What asyncio calls.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = peer[0].removeprefix("::ffff:")
        self._enter(_State.HEAD)
        refusal = self._handler.arrived(self)
        if refusal is not None:
            self._finish(render(refusal.status, refusal.headers, refusal.body, keep=False))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        self._bytes_in += nbytes
        if self._framing is not None:
            self._link_bytes(self._scratch[:nbytes])
        elif self._state in _REQUESTS:
            if self._buffer is None:
                self._buffer = bytearray()
            self._buffer += self._scratch[:nbytes]
            self._requests()

    def eof_received(self) -> bool:
        """The peer ended its side. True keeps ours open for what is still to be written."""
        if self._cause is None:
            self._cause = "fin"
        if self._framing is not None:
            self._framing.receive_eof()
            self._start_closing()
            return False
        if self._state in (_State.WAITING, _State.SENDING):
            # A client may end its side and still read the answer it is owed.
            return True
        if self._state in (_State.HEAD, _State.BODY):
            self._enter(_State.LINGER)
            self._unfinished(*_LEFT)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self._cause in (None, "fin"):
            self._cause = _name_loss(exc)
        before, self._state = self._state, _State.GONE
        self._watched = None
        self._wheel.remove(self, self._slot)
        try:
            if before in (_State.HEAD, _State.BODY):
                self._unfinished(*_LEFT)
            elif self._framing is not None:
                self._handler.ended(self, self._ending())
        finally:
            self._handler.left(self)
            self._framing = self._head = self._buffer = None
            self.context = None

    def pause_writing(self) -> None:
        """The peer does not read its answers: do not take more questions."""
        self._paused_at = self._loop.time()
        self.hold(HOLD_WRITING)
        self._watch(self._paused_at + self._limits.send_seconds)

    def resume_writing(self) -> None:
        self._paused_at = None
        self.go_on(HOLD_WRITING)
        if self._state is _State.LAST:
            self._enter(_State.LINGER)
        elif self._state is _State.SENDING:
            if self._cause is not None and not self._buffer:
                self._part()
                return
            self._enter(_State.HEAD)
            self._requests()

    # What the handler calls.

    def send(self, payload: bytes, *, binary: bool = False) -> bool:
        framing = self._framing
        if framing is None:
            return False
        frame = framing.message(payload, binary=binary)
        if frame is None:
            return False
        self._messages_out += 1
        if framing.unusual:
            self._flush()
        self._write(frame)
        return True

    def close(self, code: int, reason: str) -> None:
        if self._framing is None:
            if self._state in (_State.HEAD, _State.BODY):
                self._part()
            return
        self._framing.close(code, reason)
        self._start_closing()
        self._flush()

    def give_way(self) -> bool:
        if self._state in (_State.SENDING, _State.LAST, _State.LINGER):
            self._abort()
            return True
        if self._state not in (_State.HEAD, _State.BODY):
            return False
        reason = "Too many connections wait for a request; this one had waited longest."
        if self._buffer or self._head is not None:
            self._refuse(HeadError(503, "gave-way", reason))
        else:
            self._part("silent-gave-way", reason)
        return True

    def answer(self, answer: Answer) -> None:
        if self._state is not _State.WAITING:
            return
        self._respond(answer)
        self.go_on(HOLD_ANSWER)
        self._requests()

    def hold(self, why: int) -> None:
        before, self._holds = self._holds, self._holds | why
        if not before and not self._transport.is_closing():
            self._transport.pause_reading()

    def go_on(self, why: int) -> None:
        before, self._holds = self._holds, self._holds & ~why
        if before and not self._holds and not self._transport.is_closing():
            # What came while nothing was read is yet to be seen; the silence was ours.
            self._last_seen = self._loop.time()
            self._transport.resume_reading()

    # HTTP.

    def _requests(self) -> None:
        """Work through whatever whole requests are in the buffer."""
        while self._buffer and self._state in (_State.HEAD, _State.BODY):
            if self._state is _State.HEAD and not self._read_head(self._buffer):
                return
            if len(self._buffer) < self._need:
                return
            head, self._head = self._head, None
            assert head is not None
            body = bytes(self._buffer[: self._need])
            del self._buffer[: self._need]
            self._head = head
            self._enter(_State.WAITING)
            try:
                answer = self._handler.request(self, head, body)
            except Exception as error:
                # A fault of ours is no reason to leave the caller without an answer.
                answer = self._handler.failed(self, head, error)
            if answer is None:
                self.hold(HOLD_ANSWER)
                return
            self._respond(answer)

    def _read_head(self, buffer: bytearray) -> bool:
        """Take the head off the buffer; False if it is not complete or was refused."""
        end = head_end(buffer, self._scanned)
        try:
            if end < 0 or end > self._limits.head_bytes:
                wrong = looks_wrong(buffer)
                if wrong is not None:
                    raise wrong
                if max(end, len(buffer)) > self._limits.head_bytes:
                    raise _too_large(buffer, self._limits.head_bytes)
                self._scanned = len(buffer)
                return False
            head = parse_head(bytes(buffer[:end]))
            self._need = _body_length(head, self._limits.message_bytes)
        except HeadError as error:
            self._refuse(error)
            return False
        del buffer[:end]
        self._scanned = 0
        self._head = head
        self._state = _State.BODY
        if self._need > len(buffer) and "100-continue" in head.tokens("expect"):
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _respond(self, answer: Answer) -> None:
        head, self._head = self._head, None
        assert head is not None
        if answer.status == 101:
            self._open_link(answer)
            return
        keep = (
            not answer.close
            and head.version == "1.1"
            and "close" not in head.tokens("connection")
            and self._cause is None
        )
        rendered = render(
            answer.status,
            answer.headers,
            answer.body,
            keep=keep,
            with_body=head.method != "HEAD",
        )
        if not keep:
            self._finish(rendered)
            return
        self._write(rendered)
        self._enter(_State.HEAD if self._paused_at is None else _State.SENDING)

    def _refuse(self, error: HeadError) -> None:
        self._state = _State.WAITING
        answer = self._handler.unreadable(self, error, self._start())
        if answer is None:
            self._finish(b"")
        else:
            self._finish(render(answer.status, answer.headers, answer.body, keep=False))

    def _unfinished(self, code: str, reason: str) -> None:
        """Report a connection that ended without a whole request, unless one was served on it."""
        start = self._start()
        if start or self._bytes_out == 0:
            self._handler.unreadable(self, HeadError(400, code, reason), start)

    def _start(self) -> bytes:
        """The first bytes of a request that is not complete; none where none came."""
        head = self._head.raw[:64] if self._head is not None else b""
        return head + bytes(self._buffer[: 64 - len(head)]) if self._buffer else head

    def _finish(self, last: bytes) -> None:
        """Write the last answer, end our side, and read on for a while so that the answer is not
        lost in a reset."""
        self._buffer = None
        if last:
            self._write(last)
        self._enter(_State.LINGER if self._paused_at is None else _State.LAST)
        self.go_on(HOLD_ANSWER)
        if self._cause == "fin" or not self._transport.can_write_eof():
            self._transport.close()
        else:
            self._transport.write_eof()

    def _part(self, code: str = "", reason: str = "") -> None:
        """Close without an answer; with a code, where nothing was ever sent, on record."""
        self._enter(_State.LINGER)
        self._transport.close()
        if code and self._bytes_out == 0:
            self._unfinished(code, reason)

    # The link.

    def _open_link(self, answer: Answer) -> None:
        counters = self._limits.counters

        def stray_rsv1() -> None:
            counters["rsv1"] = counters.get("rsv1", 0) + 1

        self._framing = Framing(
            self._limits.message_bytes,
            tolerate_rsv1=stray_rsv1 if self._limits.tolerate_rsv1 else None,
            validate_utf8=self._limits.validate_utf8,
        )
        self._state = _State.LINK
        rest, self._buffer = self._buffer, None
        now = self._loop.time()
        self._opened_at = self._last_seen = self._last_message = now
        self._bytes_in = len(rest or b"")
        lines = "".join([f"{name}: {value}\r\n" for name, value in answer.headers])
        self._write(f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode("latin-1"))
        self._bytes_out = 0
        self._handler.opened(self)
        limits = self._limits
        self._watch(now + min(limits.ping_interval or 3600.0, limits.idle_seconds or 3600.0))
        if rest:
            # The first message may come in the same segment as the request.
            self._link_bytes(rest)

    def _link_bytes(self, data: memoryview | bytearray) -> None:
        framing = self._framing
        assert framing is not None
        self._last_seen = self._loop.time()
        if not framing.receive_whole(data, self._message):
            self._unusual_bytes(framing, data)
        if framing.pongs != self._pongs_seen:
            self._pongs_seen = framing.pongs
            self._last_pong = self._last_seen

    def _unusual_bytes(self, framing: Framing, data: memoryview | bytearray) -> None:
        was_open = framing.open
        framing.receive(data, self._message)
        if was_open and not framing.open:
            self._error = framing.error
            if self._error is not None:
                self._first_bytes = bytes(data[:64])
                self._fault = name_fault(self._error, self._first_bytes)
            self._start_closing()
        self._flush()

    def _message(self, payload: bytes, binary: bool) -> None:
        self._messages_in += 1
        self._last_message = self._last_seen
        try:
            self._handler.message(self, payload, binary)
        except Exception as error:
            # One message that trips the handler is not worth the process, nor silence.
            self._report(error, "a message could not be handled")
            self.close(1011, "internal error")

    def _report(self, error: Exception, what: str) -> None:
        self._loop.call_exception_handler({"message": what, "exception": error, "protocol": self})

    def _flush(self) -> None:
        assert self._framing is not None
        for chunk in self._framing.out():
            if chunk:
                self._write(chunk)
            elif self._framing.close_rcvd is not None or not self._transport.can_write_eof():
                # Both closing frames are through, or TLS has no half-close.
                self._transport.close()
            elif not self._transport.is_closing():
                # After an error: let the closing frame arrive before the connection goes.
                self._transport.write_eof()

    def _start_closing(self) -> None:
        if self._state is _State.LINK:
            self._enter(_State.CLOSING)

    def _write(self, data: bytes) -> None:
        self._bytes_out += len(data)
        self._transport.write(data)

    # Time.

    def _enter(self, state: _State) -> None:
        """Be in a state from now on, for as long as it may last."""
        self._state = state
        self._since = self._loop.time()
        self._watch(self._since + getattr(self._limits, state.limit))

    def _watch(self, when: float) -> None:
        """Be looked at no later than `when`."""
        if self._watched is None or when < self._watched:
            self._wheel.remove(self, self._slot)
            self._watched = when
            self._slot = self._wheel.add(self, when)

    def due(self, now: float) -> float | None:
        """Act on time passed. Called by the wheel."""
        if self._watched is None or now < self._watched:
            return None  # moved while its slot was worked through
        self._watched = None
        try:
            again = self._act(now)
        except Exception as error:
            self._report(error, "a connection's time limit could not be acted on")
            self._transport.abort()
            return None
        if again is not None:
            self._watch(again)
        return None

    def _act(self, now: float) -> float | None:
        state = self._state
        if state is _State.LINK:
            again = self._link_due(now)
            if again is not None and self._paused_at is not None:
                return min(again, self._paused_at + self._limits.send_seconds)
            return again
        left = self._since + float(getattr(self._limits, state.limit)) - now
        if left > 0:
            return now + left
        getattr(self, state.then)()
        return None

    def _late(self) -> None:
        if not self._buffer and self._head is None:
            self._part("silent", "Nothing was sent within the time for a request.")
            return
        self._refuse(
            HeadError(408, "request-timeout", "The request was not complete within the time limit.")
        )

    def _unanswered(self) -> None:
        assert self._head is not None
        error = TimeoutError(f"no answer within {self._limits.answer_seconds:g} seconds")
        self._respond(replace(self._handler.failed(self, self._head, error), close=True))

    def _abort(self) -> None:
        self._cause = self._cause or "aborted"
        self._transport.abort()

    def _link_due(self, now: float) -> float | None:
        limits = self._limits
        framing = self._framing
        assert framing is not None
        if self._paused_at is not None and now >= self._paused_at + limits.send_seconds:
            self._error = f"the peer read nothing for {limits.send_seconds:g} seconds"
            self._fault = "peer-reads-nothing"
            self._abort()
            return None
        if self._holds and self._paused_at is None:
            # Nothing is read while the journal is behind: its delay is no silence of the peer's.
            return now + (limits.ping_timeout or 1.0)
        idle_left = (
            self._last_message + limits.idle_seconds - now if limits.idle_seconds else 3600.0
        )
        if idle_left <= 0:
            self.close(1001, "idle")
            return None
        if not limits.ping_interval:
            return now + idle_left
        due = self._ping_due(framing, now)
        return None if due is None else min(due, now + idle_left)

    def _ping_due(self, framing: Framing, now: float) -> float | None:
        """Ping when it is time, fail a link that does not answer; when to look again."""
        limits = self._limits
        ping = self._last_ping
        if ping is not None and self._last_seen < ping:
            if now - ping < limits.ping_timeout:
                return ping + limits.ping_timeout
            self._error = self._error or "keepalive ping timeout"
            self._fault = "ping-timeout"
            framing.fail(1011, "keepalive ping timeout")
            self._start_closing()
            self._flush()
            return None
        next_ping = (self._opened_at if ping is None else ping) + limits.ping_interval
        if now < next_ping:
            return next_ping
        self._last_ping = now
        self._pings += 1
        if framing.open:
            self._write(PING)
        return now + min(limits.ping_interval, limits.ping_timeout)

    def _ending(self) -> Ending:
        framing = self._framing
        assert framing is not None
        sent, received = framing.close_sent, framing.close_rcvd
        if sent is None and received is None:
            closed_by = "transport"
        else:
            closed_by = "peer" if framing.closed_by_peer else "server"
        return Ending(
            seconds=self._loop.time() - self._opened_at,
            messages_in=self._messages_in,
            messages_out=self._messages_out,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            closed_by=closed_by,
            close_sent=sent,
            close_rcvd=received,
            transport=self._cause or "closed",
            error=self._error,
            fault=self._fault,
            first_bytes=self._first_bytes,
            pings=self._pings,
            pongs=self._pongs_seen,
            last_ping=self._last_ping,
            last_pong=self._last_pong,
        )


#: States in which what comes is, or begins, a request.
_REQUESTS: Final = (_State.HEAD, _State.BODY, _State.WAITING, _State.SENDING)
#: What is said of a peer that ended its side too early.
_LEFT: Final = ("closed-before-request", "The peer left before a request was complete.")


def _too_large(buffer: bytearray, limit: int) -> HeadError:
    if b"\n" not in buffer:
        return HeadError(414, "request-line-too-long", f"No line ended within {limit} bytes.")
    return HeadError(431, "head-too-large", f"The request head has more than {limit} bytes.")


def _body_length(head: Head, limit: int) -> int:
    """The length of the body that follows a head.

    Raises:
        HeadError: it cannot be told, or is more than is accepted.
    """
    if head.get("transfer-encoding") is not None:
        raise HeadError(
            411, "chunked-body", "A body must come with Content-Length, not Transfer-Encoding."
        )
    lengths = set(head.all("content-length"))
    if not lengths:
        if head.method == "POST":
            raise HeadError(411, "length-missing", "A POST must have a Content-Length.")
        return 0
    (text, *others) = lengths
    if others or not (text.isascii() and text.isdigit()):
        raise HeadError(400, "malformed-length", "Content-Length is not one whole number.")
    if len(text) > 12 or int(text) > limit:
        raise HeadError(413, "body-too-large", f"The body has more than {limit} bytes.")
    return int(text)


def _name_loss(exc: Exception) -> str:
    if isinstance(exc, ConnectionResetError | BrokenPipeError):
        return "rst"
    if isinstance(exc, TimeoutError) or getattr(exc, "errno", None) == errno.ETIMEDOUT:
        return "timeout"
    return "aborted"
