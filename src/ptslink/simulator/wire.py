"""Frames to and from the server, without I/O; the framing is the websockets library's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from websockets.frames import Frame, Opcode
from websockets.protocol import SEND_EOF, Protocol, Side, State

#: Rewrites the bytes of one outgoing frame; how a deviation bends the framing.
Mangle = Callable[[bytes], Iterable[bytes]]

#: What a client keeps of a message from the server at most, in bytes.
MAX_MESSAGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Received:
    """Something whole that came: a message, a ping (answered already), a pong."""

    what: Literal["message", "ping", "pong"]
    data: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended: the codes of both close frames, ``None`` where there was none."""

    sent: int | None
    received: int | None
    reason: str

    @property
    def clean(self) -> bool:
        return self.sent is not None and self.received is not None

    def as_json(self) -> dict[str, object]:
        return {
            "sent": self.sent,
            "received": self.received,
            "reason": self.reason,
            "clean": self.clean,
        }


class Wire:
    """The client's side of one WebSocket connection, entered after the handshake."""

    def __init__(self, mangle: Mangle | None = None) -> None:
        self._protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=MAX_MESSAGE)
        self._mangle = mangle
        self._parts: list[bytes] = []

    @property
    def open(self) -> bool:
        return self._protocol.state is State.OPEN

    @property
    def error(self) -> str | None:
        """What was wrong with the server's frames, when something was."""
        error = self._protocol.parser_exc
        return None if error is None or isinstance(error, EOFError) else str(error)

    def send_message(self, data: bytes, fragment_bytes: int | None = None) -> None:
        """A text message; in fragments of at most *fragment_bytes* when it is longer."""
        if fragment_bytes is None or len(data) <= fragment_bytes:
            self._protocol.send_text(data)
            return
        starts = range(0, len(data), fragment_bytes)
        for start in starts:
            part, last = data[start : start + fragment_bytes], start == starts[-1]
            if start == 0:
                self._protocol.send_text(part, fin=last)
            else:
                self._protocol.send_continuation(part, fin=last)

    def ping(self, payload: bytes) -> None:
        self._protocol.send_ping(payload)

    def close(self, code: int = 1000, reason: str = "") -> None:
        if self.open:
            self._protocol.send_close(code, reason)

    def feed(self, data: bytes) -> list[Received]:
        """Bytes from the server; what became whole by them. Empty bytes are its FIN."""
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        found = []
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                received = self._take(event)
                if received is not None:
                    found.append(received)
        return found

    def _take(self, frame: Frame) -> Received | None:
        if frame.opcode is Opcode.PING:
            return Received("ping", bytes(frame.data))
        if frame.opcode is Opcode.PONG:
            return Received("pong", bytes(frame.data))
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._parts.append(bytes(frame.data))
            if frame.fin:
                data, self._parts = b"".join(self._parts), []
                return Received("message", data)
        return None

    def to_send(self) -> tuple[bytes, bool]:
        """The bytes to write, and whether the connection is to be ended behind them."""
        written, ends = [], False
        for chunk in self._protocol.data_to_send():
            if chunk == SEND_EOF:
                ends = True
            elif self._mangle is None:
                written.append(chunk)
            else:
                written += self._mangle(bytes(chunk))
        return b"".join(written), ends

    def ending(self) -> Ending:
        sent, received = self._protocol.close_sent, self._protocol.close_rcvd
        return Ending(
            int(sent.code) if sent else None,
            int(received.code) if received else None,
            (received or sent).reason if received or sent else "",  # type: ignore[union-attr]
        )
