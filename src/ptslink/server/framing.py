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
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

try:
    from websockets.speedups import apply_mask
except ImportError:  # built without a C compiler
    from websockets.utils import apply_mask

_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY
_CONT: Final = Opcode.CONT
_PONG: Final = Opcode.PONG
_CLOSE: Final = Opcode.CLOSE
_OPEN: Final = State.OPEN
_UTF8 = codecs.getincrementaldecoder("utf-8")

#: A ping, as it goes over the wire.
PING: Final = b"\x89\x07ptslink"

#: First bytes of frames that stand alone (RFC 6455 section 5.2): FIN and the opcode.
_WHOLE_TEXT: Final = 0x81
_WHOLE_PONG: Final = 0x8A
#: Second bytes of masked frames: the length itself, or that two bytes of length follow.
_MASKED: Final = 0x80
_MASKED_LENGTH_16: Final = 0xFE

#: The library logs every close at INFO; the records here say more.
_SILENT = logging.getLogger("ptslink.framing")
_SILENT.setLevel(logging.ERROR)

Message = Callable[[bytes, bool], None]
"""Called with a whole message and whether it was binary."""


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


class _Wire(Protocol):
    """The library's protocol, handing each frame over while it parses.

    By default frames are collected until a whole segment is parsed. A protocol error in a later
    frame of the segment would then keep the messages before it from being answered.
    """

    def __init__(self, max_size: int, deliver: Callable[[Frame], None]) -> None:
        super().__init__(Side.SERVER, state=_OPEN, max_size=max_size, logger=_SILENT)
        self._deliver = deliver

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is _CLOSE:
            # A close may come between fragments (RFC 6455 section 5.5.1); the library takes that
            # for a protocol error. What was begun is void.
            self.current_size = None
        super().recv_frame(frame)
        self.events.clear()
        # Text that is not UTF-8 raises here, which the library answers with 1007.
        self._deliver(frame)


class Framing:
    """The frames of one link.

    The library's protocol is made when it is first needed. A controller that sends one whole frame
    of text at a time, and answers pings, never needs it (see `receive_whole`); that saves most of
    an idle link's memory and most of a message's time.

    Args:
        max_size: largest message in bytes; a larger one closes with 1009.
        tolerate_rsv1: called for each frame with a stray RSV1 bit, or None to close with 1002.
    """

    __slots__ = (
        "_behind",
        "_decoder",
        "_ended",
        "_max_size",
        "_message",
        "_parts",
        "_text",
        "_tolerate_rsv1",
        "_wire",
        "pongs",
    )

    def __init__(self, max_size: int, *, tolerate_rsv1: Callable[[], None] | None = None) -> None:
        self._max_size = max_size
        self._tolerate_rsv1 = tolerate_rsv1
        self._wire: _Wire | None = None
        self._message: Message | None = None
        self._parts: list[bytes] | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text = False
        # Bytes the library was given beyond the frames that came of them; 0 between two frames.
        self._behind = 0
        self._ended = False
        self.pongs = 0

    def _library(self) -> _Wire:
        wire = self._wire
        if wire is None:
            wire = self._wire = _Wire(self._max_size, self._frame)
            if self._tolerate_rsv1 is not None:
                wire.extensions.append(Rsv1Tolerance(self._tolerate_rsv1))
        return wire

    @property
    def open(self) -> bool:
        """Whether messages may still be sent."""
        wire = self._wire
        return not self._ended if wire is None else wire.state is _OPEN

    @property
    def close_sent(self) -> tuple[int, str] | None:
        """Code and reason of the closing frame we sent."""
        close = self._wire and self._wire.close_sent
        return (int(close.code), close.reason) if close else None

    @property
    def close_rcvd(self) -> tuple[int, str] | None:
        """Code and reason of the closing frame the peer sent; 1005 when it carried none."""
        close = self._wire and self._wire.close_rcvd
        return (int(close.code), close.reason) if close else None

    @property
    def closed_by_peer(self) -> bool:
        """Whether the peer's closing frame came before ours."""
        return bool(self._wire and self._wire.close_rcvd_then_sent)

    @property
    def error(self) -> str | None:
        """The protocol error that ended the link, in the library's words, or None."""
        error = self._wire and self._wire.parser_exc
        if not error or isinstance(error, EOFError):
            return None
        if isinstance(error, UnicodeDecodeError):
            return f"{error.reason} at position {error.start}"
        return str(error)

    def receive_whole(self, data: bytes | bytearray | memoryview, message: Message) -> bool:
        """Take a segment that is exactly one whole frame of ASCII text, or a pong.

        That is nearly every segment a controller sends, and the library spends several times as
        long on it. Whatever is unusual in any way is left to `receive`, which would do the same
        with such a segment.

        Returns:
            whether it was taken; if not, nothing has happened.
        """
        size = len(data)
        if size < 6 or self._behind or self._parts is not None or not self.open:
            return False
        first, second = data[0], data[1]
        if _MASKED <= second < _MASKED_LENGTH_16:
            start, length = 6, second - _MASKED
        elif second == _MASKED_LENGTH_16 and size >= 8:
            start, length = 8, data[2] << 8 | data[3]
        else:
            return False
        if start + length != size:
            return False
        if first == _WHOLE_TEXT and length <= self._max_size:
            payload = apply_mask(data[start:], bytes(data[start - 4 : start]))
            if payload.isascii():
                message(payload, False)
                return True
        elif first == _WHOLE_PONG and start == 6:
            self.pongs += 1
            return True
        return False

    def receive(self, data: bytes | bytearray | memoryview, message: Message) -> None:
        """Feed bytes; `message` is called for each whole message, in order, as it is found."""
        self._behind += len(data)
        self._message = message
        self._library().receive_data(data)  # type: ignore[arg-type]
        self._message = None

    def _frame(self, frame: Frame) -> None:
        self._behind -= _wire_size(len(frame.data))
        opcode = frame.opcode
        if opcode is _TEXT or opcode is _BINARY or opcode is _CONT:
            whole = self._whole(frame)
            if whole is not None:
                assert self._message is not None
                self._message(whole, not self._text)
        elif opcode is _PONG:
            self.pongs += 1

    def _whole(self, frame: Frame) -> bytes | None:
        """The message a frame completes, or None.

        Raises:
            UnicodeDecodeError: the text, as far as it came, is not UTF-8.
        """
        payload = bytes(frame.data)
        if self._parts is None:
            self._text = frame.opcode is _TEXT
            if frame.fin:
                if self._text and not payload.isascii():
                    payload.decode("utf-8")
                return payload
            self._parts = []
            self._decoder = _UTF8() if self._text else None
        if self._decoder is not None:
            self._decoder.decode(payload, final=frame.fin)
        self._parts.append(payload)
        if not frame.fin:
            return None
        whole = b"".join(self._parts)
        self._parts = self._decoder = None
        return whole

    def receive_eof(self) -> None:
        """The peer will send no more."""
        self._ended = True
        if self._wire is not None:
            self._wire.receive_eof()

    def message(self, payload: bytes, *, binary: bool = False) -> bytes | None:
        """The frame that carries a message, to be written after what `out` has; None when the link
        is closing."""
        if not self.open:
            return None
        first = 0x82 if binary else 0x81
        size = len(payload)
        if size < 126:
            return b"%c%c%b" % (first, size, payload)
        if size < 65_536:
            return b"%c\x7e%c%c%b" % (first, size >> 8, size & 255, payload)
        return b"%c\x7f%b%b" % (first, size.to_bytes(8, "big"), payload)

    def close(self, code: int, reason: str) -> None:
        """Queue a closing frame; nothing happens on a link that is closing."""
        if self.open:
            with contextlib.suppress(InvalidState):
                self._library().send_close(code, reason)

    def fail(self, code: int, reason: str) -> None:
        """Fail the link: closing frame, then the end of our stream."""
        if self._wire is not None or not self._ended:
            self._library().fail(code, reason)

    def out(self) -> list[bytes]:
        """What to write; an empty bytes object means: end our side of the stream."""
        return [] if self._wire is None else self._wire.data_to_send()


def _wire_size(length: int) -> int:
    """Bytes of a masked frame with a payload of this length (RFC 6455 section 5.2)."""
    return length + (6 if length < 126 else 8 if length < 65_536 else 14)


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
