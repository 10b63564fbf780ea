"""WebSocket framing: the ``websockets`` library's sans-I/O protocol, entered after our handshake.

RFC 6455 sections 5 to 7 are the library's; whole messages, their text and the naming of what went
wrong are decided here.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from websockets.exceptions import InvalidState
from websockets.extensions import Extension
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State

_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY
_CONT: Final = Opcode.CONT
_PONG: Final = Opcode.PONG
_UTF8 = codecs.getincrementaldecoder("utf-8")

#: The library logs every close at INFO; the records here say more.
_SILENT = logging.getLogger("ptslink.framing")
_SILENT.setLevel(logging.ERROR)


class Rsv1Tolerance(Extension):
    """Clears a stray RSV1 bit and counts it, for firmware that sets it without compressing."""

    def __init__(self, seen: Callable[[], None]) -> None:
        self._seen = seen

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:  # noqa: ARG002
        if frame.rsv1:
            frame.rsv1 = False
            self._seen()
        return frame

    def encode(self, frame: Frame) -> Frame:
        return frame


class Framing:
    """The frames of one link.

    Args:
        max_size: largest message in bytes; a larger one closes with 1009.
        tolerate_rsv1: called for each frame with a stray RSV1 bit, or None to close with 1002.
    """

    __slots__ = ("_decoder", "_parts", "_protocol", "_text", "fault_text", "pongs")

    def __init__(self, max_size: int, *, tolerate_rsv1: Callable[[], None] | None = None) -> None:
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=max_size, logger=_SILENT)
        if tolerate_rsv1 is not None:
            self._protocol.extensions.append(Rsv1Tolerance(tolerate_rsv1))
        self._parts: list[bytes] | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text = False
        self.pongs = 0
        self.fault_text: str | None = None

    @property
    def open(self) -> bool:
        """Whether messages may still be sent."""
        return self._protocol.state is State.OPEN

    @property
    def close_sent(self) -> tuple[int, str] | None:
        """Code and reason of the closing frame we sent."""
        close = self._protocol.close_sent
        return None if close is None else (int(close.code), close.reason)

    @property
    def close_rcvd(self) -> tuple[int, str] | None:
        """Code and reason of the closing frame the peer sent; 1005 when it carried none."""
        close = self._protocol.close_rcvd
        return None if close is None else (int(close.code), close.reason)

    @property
    def closed_by_peer(self) -> bool:
        """Whether the peer's closing frame came before ours."""
        return bool(self._protocol.close_rcvd_then_sent)

    @property
    def error(self) -> str | None:
        """The protocol error that ended the link, in the library's words, or None."""
        if self.fault_text is not None:
            return self.fault_text
        error = self._protocol.parser_exc
        if error is None or isinstance(error, EOFError):
            return None
        return str(error)

    def receive(
        self, data: bytes | bytearray | memoryview, message: Callable[[bytes], None]
    ) -> None:
        """Feed bytes; `message` is called for each whole message, in order."""
        protocol = self._protocol
        protocol.receive_data(data)  # type: ignore[arg-type]
        for frame in protocol.events_received():
            opcode = frame.opcode  # type: ignore[union-attr]
            if opcode is _TEXT or opcode is _BINARY or opcode is _CONT:
                whole = self._data(frame)  # type: ignore[arg-type]
                if whole is not None:
                    message(whole)
                elif self.fault_text is not None:
                    return
            elif opcode is _PONG:
                self.pongs += 1

    def _data(self, frame: Frame) -> bytes | None:
        """The message a frame completes, or None. Text that is not UTF-8 fails the link (1007)."""
        payload = bytes(frame.data)
        if self._parts is None:
            text = frame.opcode is _TEXT
            if frame.fin:
                if text and not payload.isascii():
                    try:
                        payload.decode("utf-8")
                    except UnicodeDecodeError as error:
                        self._fail_text(error)
                        return None
                return payload
            self._parts, self._text = [], text
            self._decoder = _UTF8() if text else None
        if self._decoder is not None:
            try:
                self._decoder.decode(payload, final=frame.fin)
            except UnicodeDecodeError as error:
                self._fail_text(error)
                return None
        self._parts.append(payload)
        if not frame.fin:
            return None
        whole = b"".join(self._parts)
        self._parts = self._decoder = None
        return whole

    def _fail_text(self, error: UnicodeDecodeError) -> None:
        self.fault_text = f"{error.reason} at position {error.start}"
        self._protocol.fail(CloseCode.INVALID_DATA, self.fault_text[:100])

    def receive_eof(self) -> None:
        """The peer will send no more."""
        self._protocol.receive_eof()

    def send(self, payload: bytes) -> bool:
        """Queue a text message; False if the link is closing."""
        try:
            self._protocol.send_text(payload)
        except InvalidState:
            return False
        return True

    def ping(self) -> None:
        """Queue a ping; nothing happens on a closed link."""
        with contextlib.suppress(InvalidState):
            self._protocol.send_ping(b"ptslink")

    def close(self, code: int, reason: str) -> None:
        """Queue a closing frame; nothing happens on a link that is closing."""
        with contextlib.suppress(InvalidState):
            self._protocol.send_close(code, reason)

    def fail(self, code: int, reason: str) -> None:
        """Fail the link: closing frame, then the end of our stream."""
        self._protocol.fail(code, reason)

    def out(self) -> list[bytes]:
        """What to write; an empty bytes object means: end our side of the stream."""
        return self._protocol.data_to_send()


def name_fault(error: str, start: bytes) -> str:
    """A stable short name for a protocol error, from its words and the bytes that caused it."""
    if start[:4] in (b"GET ", b"POST", b"HTTP", b"HEAD"):
        return "http-text-after-upgrade"
    if start[:1] in (b"{", b"["):
        return "json-text-without-frame"
    if "reserved bits" in error:
        return "rsv1-on-frame" if start and start[0] & 0x70 == 0x40 else "reserved-bits"
    for words, name in (
        ("incorrect masking", "unmasked-frame"),
        ("invalid opcode", "invalid-opcode"),
        ("exceeds", "message-too-big"),
        ("over size limit", "message-too-big"),
        ("bytes, limit", "message-too-big"),
        ("control frame too long", "control-frame-too-long"),
        ("fragmented control frame", "fragmented-control-frame"),
        ("continuation frame", "broken-fragmentation"),
        ("incomplete fragmented", "broken-fragmentation"),
        ("at position", "not-utf8"),
        ("close", "malformed-close"),
    ):
        if words in error:
            return name
    return "protocol-error"
