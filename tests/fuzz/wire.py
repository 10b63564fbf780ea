"""A connection without sockets: our front on a transport, clock and journal made of lists."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from ptslink.handshake.head import Head, HeadError
from ptslink.journal.entry import Entry, Evidence, Health
from ptslink.server.app import App
from ptslink.server.config import parse
from ptslink.server.downlink import Downlink
from ptslink.server.evidence import EvidenceLog
from ptslink.server.front import SCRATCH_BYTES, Front
from ptslink.server.seam import Answer, Arrival, Caller, Ending, FrontLimits, Peer
from ptslink.server.wheel import Wheel

CONTROLLER = "AABBCCDDEEFF001122334455"


def request(path: str = "/ptsWebSocket") -> bytes:
    """A controller's handshake."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 192.0.2.1:3000\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n"
        f"X-Pts-Id: {CONTROLLER}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


class Loop:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        self._timers.append((self.now + delay, callback))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What the server would report and survive is a finding here."""
        raise context["exception"]

    def run_until(self, when: float) -> None:
        """Let time pass up to `when`, calling what is due on the way."""
        while self._timers and self._timers[0][0] <= when:
            self.now, callback = self._timers.pop(0)
            callback()
        self.now = when


#: Bytes that the peer has not taken at which the front is told to pause.
_MUCH = 2000


class Transport:
    """What the front writes to. Raises where asyncio would lose or refuse something."""

    def __init__(self) -> None:
        self.front: Front | None = None
        self.written = bytearray()
        self._untaken = 0
        self._full = False
        self.paused = False
        self.ended = False
        self.closing = False
        self.aborted = False

    def get_extra_info(self, name: str) -> object:
        return {"peername": ("192.0.2.10", 40000), "sockname": ("192.0.2.1", 3000)}.get(name)

    def write(self, data: bytes) -> None:
        assert not self.ended, "written after the end of our side"
        if not self.closing:
            self.written += data
            self._untaken += len(data)
            if self._untaken > _MUCH and not self._full:
                self._full = True
                assert self.front is not None
                self.front.pause_writing()

    def take(self) -> bool:
        """The peer takes what waits, where it is so much that the front pauses; whether it was."""
        if not self._full or self.closing:
            return False
        self._full, self._untaken = False, 0
        assert self.front is not None
        self.front.resume_writing()
        return True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        assert not self.paused, "paused twice"
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused, "resumed without a pause"
        self.paused = False


class MemoryJournal:
    """Keeps entries in a list; settles them when told."""

    def __init__(self) -> None:
        self.health = Health()
        self.entries: list[Entry] = []
        self.evidence: list[Evidence] = []
        self._waiting: list[Entry] = []

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._waiting.append(entry)

    def record(self, evidence: Evidence) -> None:
        json.dumps(evidence.detail).encode()
        self.evidence.append(evidence)

    def knows(self, controller: str) -> bool:
        return bool(controller)

    def settle(self) -> bool:
        """Settle everything; whether there was anything."""
        any_ = bool(self._waiting)
        # An answer may let the next request in, and that is settled too.
        while self._waiting:
            entry = self._waiting.pop(0)
            entry.stored = True
            if entry.settled is not None:
                entry.settled(entry)
        return any_


class Watched:
    """Passes everything on to the application and keeps count."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.methods: list[str] = []
        self.refused = 0
        self.opened_count = self.ended_count = self.left_count = 0
        self.endings: list[Ending] = []

    def arrived(self, peer: Arrival) -> Answer | None:
        return self._app.arrived(peer)

    def request(self, peer: Peer, head: Head, body: bytes) -> Answer | None:
        self.methods.append(head.method)
        return self._app.request(peer, head, body)

    def failed(self, peer: Peer, head: Head, error: Exception) -> Answer:  # noqa: ARG002
        # The server would answer 500 and go on.
        raise error

    def unreadable(self, peer: Caller, error: HeadError, start: bytes) -> Answer | None:
        answer = self._app.unreadable(peer, error, start)
        self.refused += answer is not None
        return answer

    def opened(self, peer: Peer) -> None:
        self.opened_count += 1
        self._app.opened(peer)

    def message(self, peer: Peer, payload: bytes, binary: bool) -> None:
        assert self.opened_count == 1
        assert not self.ended_count, "a message after the end"
        self._app.message(peer, payload, binary)

    def ended(self, peer: Peer, ending: Ending) -> None:
        self.ended_count += 1
        self.endings.append(ending)
        self._app.ended(peer, ending)

    def left(self, peer: Arrival) -> None:
        self.left_count += 1
        self._app.left(peer)


@dataclass
class Heard:
    """What came of a conversation: how often a link opened, and the messages taken."""

    opened: int
    messages: list[bytes] = field(default_factory=list)


_CONFIG = parse({"journal": {"path": "/nowhere"}, "logs": {"directory": ""}})


def converse(pieces: Sequence[bytes]) -> Heard:
    """Bring the pieces as segments, let time pass, end the connection, and check every answer."""
    loop = Loop()
    wheel = Wheel(cast("asyncio.AbstractEventLoop", loop), tick=2.5)
    wheel.start()
    kept = MemoryJournal()
    app = App(
        _CONFIG,
        kept,
        evidence=EvidenceLog(kept, None, short_seconds=5.0),
        downlink=Downlink(wheel, 15.0, loop.time),
    )
    watched = Watched(app)
    scratch = memoryview(bytearray(SCRATCH_BYTES))
    limits = FrontLimits(message_bytes=65_536)
    front = Front(watched, limits, wheel, scratch, cast("asyncio.AbstractEventLoop", loop), 1, 3000)
    transport = Transport()
    transport.front = front
    front.connection_made(transport)
    for piece in pieces:
        for at in range(0, len(piece), SCRATCH_BYTES):
            if transport.closing:
                break
            part = piece[at : at + SCRATCH_BYTES]
            front.get_buffer(-1)[: len(part)] = part
            front.buffer_updated(len(part))
            while kept.settle() or transport.take():
                pass
            assert transport.closing or not transport.paused, "held for ever"
    loop.run_until(loop.now + 15)
    if not transport.closing and not front.eof_received():
        transport.closing = True
    front.connection_lost(None)
    loop.run_until(loop.now + 60)
    kept.settle()
    assert watched.left_count == 1
    assert watched.ended_count == watched.opened_count <= 1
    assert len(app.registry) == 0
    assert app.admission.open == 0
    _check_written(bytes(transport.written), watched)
    return Heard(watched.opened_count, [entry.raw for entry in kept.entries])


def _check_written(written: bytes, watched: Watched) -> None:
    methods = iter(watched.methods)
    while written:
        head, found, rest = written.partition(b"\r\n\r\n")
        assert found, f"no whole answer: {written[:80]!r}"
        line, *fields = head.decode("latin-1").split("\r\n")
        assert line.startswith("HTTP/1.1 "), line
        status = int(line.split(" ")[1])
        if status == 100:
            written = rest
            continue
        method = next(methods, "")
        if status == 101:
            _check_frames(rest)
            return
        (length,) = (f.split(": ")[1] for f in fields if f.startswith("Content-Length: "))
        body = b"" if method == "HEAD" else rest[: int(length)]
        written = rest[len(body) :]
        assert method == "HEAD" or len(body) == int(length), "a body cut short"
        if body:
            json.loads(body)


def _check_frames(data: bytes) -> None:
    """Frames of a server: whole, unmasked, text in UTF-8 and JSON, nothing behind a close."""
    closed = False
    while data:
        assert not closed, "a frame after the closing frame"
        first, length = data[0], data[1]
        assert first & 0x70 == 0, "reserved bits"
        assert first & 0x80, "a fragment"
        assert length < 128, "masked"
        opcode, at = first & 15, 2
        if length == 126:
            (length,), at = struct.unpack_from("!H", data, 2), 4
        elif length == 127:
            (length,), at = struct.unpack_from("!Q", data, 2), 10
        payload, data = data[at : at + length], data[at + length :]
        assert len(payload) == length, "a frame cut short"
        if opcode == 1:
            content: Any = json.loads(payload.decode("utf-8"))
            assert content["Packets"]
            continue
        assert opcode in (8, 9, 10), f"opcode {opcode}"
        assert len(payload) <= 125
        if opcode == 8:
            closed = True
            assert len(payload) != 1
            if payload:
                (code,) = struct.unpack_from("!H", payload)
                assert 1000 <= code < 5000
                assert code not in (1004, 1005, 1006, 1015)
                payload[2:].decode("utf-8")
