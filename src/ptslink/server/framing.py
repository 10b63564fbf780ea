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
#: First bytes of frames that begin a text, and that go on with one.
_BEGUN_TEXT: Final = (0x01, 0x81)
_MORE_TEXT: Final = (0x00, 0x80)
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


class _UnfinishedText:
    """Reads the text of a frame that is still coming, as far as it has come.

    Args:
        before: the decoder of the fragments before this frame, or None for the first.
    """

    __slots__ = ("_decoder", "_head", "_mask")

    def __init__(self, before: codecs.IncrementalDecoder | None) -> None:
        self._decoder = _UTF8()
        if before is not None:
            self._decoder.setstate(before.getstate())
        self._head = b""
        self._mask = b""  # turned so that its first byte is for the next byte of the payload

    def read(self, data: bytes) -> None:
        """Take what came of the frame.

        Raises:
            UnicodeDecodeError: whatever may follow, the text is not UTF-8.
        """
        if not self._mask:
            data = self._head = self._head + data
            # Where the payload of a masked frame begins (RFC 6455 section 5.2).
            start = {126: 8, 127: 14}.get(data[1] & 0x7F, 6) if len(data) > 1 else 6
            if len(data) < start:
                return
            self._mask, data = data[start - 4 : start], data[start:]
        self._decoder.decode(apply_mask(data, self._mask))
        turn = len(data) % 4
        self._mask = self._mask[turn:] + self._mask[:turn]


class Framing:
    """The frames of one link.

    The library's protocol is made when it is first needed. A controller that sends one whole frame
    of text at a time, and answers pings, never needs it (see `receive_whole`); that saves most of
    an idle link's memory and most of a message's time.

    Args:
        max_size: largest message in bytes; a larger one closes with 1009.
        tolerate_rsv1: called for each frame with a stray RSV1 bit, or None to close with 1002.
        validate_utf8: close with 1007 when text is not UTF-8; otherwise it is passed on.
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
        "_unfinished",
        "_validate_utf8",
        "_wire",
        "pongs",
    )

    def __init__(
        self,
        max_size: int,
        *,
        tolerate_rsv1: Callable[[], None] | None = None,
        validate_utf8: bool = True,
    ) -> None:
        self._max_size = max_size
        self._tolerate_rsv1 = tolerate_rsv1
        self._validate_utf8 = validate_utf8
        self._wire: _Wire | None = None
        self._message: Message | None = None
        self._parts: list[bytes] | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self._text = False
        # Bytes the library has of a frame that is not whole; 0 between two frames.
        self._behind = 0
        self._unfinished: _UnfinishedText | None = None
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
    def unusual(self) -> bool:
        """Whether anything came or went that may leave bytes in `out`."""
        return self._wire is not None

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
        """Take a segment that is exactly one whole frame of text, or a pong. Where text is checked,
        it must be ASCII.

        That is nearly every segment a controller sends, and the library spends several times as
        long on it. Whatever is unusual in any way is left to `receive`, which would do the same
        with such a segment.

        Returns:
            whether it was taken; if not, nothing has happened.
        """
        size = len(data)
        if size < 6 or self._behind or self._parts is not None:
            return False
        if self._ended or (self._wire is not None and self._wire.state is not _OPEN):
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
            if not self._validate_utf8 or payload.isascii():
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
        wire = self._library()
        wire.receive_data(data)  # type: ignore[arg-type]
        self._message = None
        if self._behind and self._validate_utf8 and wire.state is _OPEN:
            self._look_ahead(wire, data)

    def _look_ahead(self, wire: _Wire, data: bytes | bytearray | memoryview) -> None:
        """Close as soon as the text of a frame that is still coming cannot become UTF-8: whoever
        sends a megabyte of it need not send it all (RFC 6455 section 8.1)."""
        if self._behind <= len(data):  # it began in this segment
            data = data[-self._behind :]
            expected = _BEGUN_TEXT if self._parts is None else _MORE_TEXT if self._decoder else ()
            self._unfinished = _UnfinishedText(self._decoder) if data[0] in expected else None
        if self._unfinished is None:
            return
        try:
            self._unfinished.read(bytes(data))
        except UnicodeDecodeError as error:
            wire.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
            wire.parser_exc = error

    def _frame(self, frame: Frame) -> None:
        assert self._wire is not None
        self._behind = len(self._wire.reader.buffer)
        self._unfinished = None
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
            checked = self._text and self._validate_utf8
            if frame.fin:
                if checked and not payload.isascii():
                    payload.decode("utf-8")
                return payload
            self._parts = []
            self._decoder = _UTF8() if checked else None
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
