"""The short way of the common frame gives what the library gives, whatever the bytes are."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ptslink.server.framing import PING, Framing

MASK = b"\x11\x22\x33\x44"
MAX_SIZE = 400


def frame(first: int, payload: bytes, *, mask: bytes = MASK, length_form: int = 0) -> bytes:
    """A masked frame; `length_form` 2 or 8 forces the long forms of the length."""
    size = len(payload)
    if length_form == 8 or size >= 65_536:
        head = bytes([first, 0xFF]) + size.to_bytes(8, "big")
    elif length_form == 2 or size >= 126:
        head = bytes([first, 0xFE]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0x80 | size])
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


class Seen:
    """What a link made of a sequence of segments."""

    def __init__(self, segments: Sequence[bytes], *, short_way: bool, rsv1: bool = False) -> None:
        stray: list[None] = []
        self.messages: list[tuple[bytes, bool]] = []
        self.wrote: list[bytes] = []
        self.taken = 0
        framing = Framing(MAX_SIZE, tolerate_rsv1=(lambda: stray.append(None)) if rsv1 else None)
        for segment in segments:
            if short_way and framing.receive_whole(memoryview(segment), self._message):
                self.taken += 1
            else:
                framing.receive(memoryview(segment), self._message)
            self.wrote += framing.out()
        self.wrote.append(framing.message(b"answer") or b"(refused)")
        self.end = (framing.open, framing.close_sent, framing.close_rcvd, framing.closed_by_peer)
        self.error, self.pongs, self.stray = framing.error, framing.pongs, len(stray)

    def _message(self, payload: bytes, binary: bool) -> None:
        self.messages.append((payload, binary))

    def all(self) -> object:
        return self.messages, self.wrote, self.end, self.error, self.pongs, self.stray


_payloads = st.one_of(
    st.text(max_size=60).map(str.encode),
    st.text("{}:,abc019", min_size=120, max_size=MAX_SIZE + 20).map(str.encode),
    st.binary(max_size=12),
)
_firsts = st.one_of(
    st.sampled_from([0x81, 0x81, 0x81, 0x8A, 0x01, 0x00, 0x80, 0x82, 0x89, 0x88, 0xC1, 0x83]),
    st.integers(0, 255),
)
_frames = st.builds(
    frame,
    _firsts,
    _payloads,
    mask=st.binary(min_size=4, max_size=4),
    length_form=st.sampled_from([0, 0, 0, 2, 8]),
)


@st.composite
def _segments(draw: st.DrawFn) -> list[bytes]:
    """Frames as the network brings them: whole, several at once, cut anywhere."""
    parts = draw(st.lists(_frames | st.binary(min_size=1, max_size=9), min_size=1, max_size=5))
    if draw(st.booleans()):
        return parts
    whole = b"".join(parts)
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return [piece for piece in pieces if piece]


@given(_segments(), st.booleans())
@example([frame(0x01, b"a"), frame(0x81, b"b")], False)
@example([frame(0x81, b"a")[:3], frame(0x81, b"a")[3:], frame(0x81, b"b")], False)
@example([frame(0x81, b"x" * 300)[:8], frame(0x81, b"x" * 300)[8:], frame(0x81, b"b")], False)
@example([b"\x82\x87" + bytes(4), frame(0x81, b"b"), frame(0x81, b"c")], False)
@example([frame(0x81, b"a", length_form=8), frame(0x81, b"b")], False)
@example([frame(0x81, b"a", length_form=2), frame(0x81, b"b")], False)
@example([frame(0x81, b"x" * (MAX_SIZE + 1))], False)
@example([frame(0x88, b""), frame(0x81, b"late")], False)
@example([frame(0xC1, b"a"), frame(0x81, b"b")], True)
def test_the_short_way_and_the_library_agree_on_any_bytes(
    segments: list[bytes], rsv1: bool
) -> None:
    short = Seen(segments, short_way=True, rsv1=rsv1)
    assert short.all() == Seen(segments, short_way=False, rsv1=rsv1).all()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, MAX_SIZE])
def test_a_whole_frame_of_text_takes_the_short_way(size: int) -> None:
    payload = b"{" * size
    seen = Seen([frame(0x81, payload, mask=os.urandom(4))], short_way=True)
    assert seen.taken == 1
    assert seen.messages == [(payload, False)]


def test_a_pong_takes_the_short_way() -> None:
    seen = Seen([frame(0x8A, b"ptslink")], short_way=True)
    assert (seen.taken, seen.pongs, seen.messages) == (1, 1, [])


def test_the_short_way_is_found_again_between_two_frames() -> None:
    cut = frame(0x81, b"second")
    segments = [frame(0x81, b"first"), cut[:4], cut[4:], frame(0x81, b"third")]
    assert Seen(segments, short_way=True).taken == 2


@pytest.mark.parametrize(
    "segment",
    [
        frame(0x81, "Дизель".encode()),
        frame(0x82, b"a"),
        frame(0x01, b"a"),
        frame(0xC1, b"a"),
        frame(0x89, b"a"),
        frame(0x81, b"a") + frame(0x81, b"b"),
        frame(0x81, b"abc")[:-1],
        frame(0x81, b"a" * (MAX_SIZE + 1)),
        b"\x81\x01a",
        b"\x81",
        b"",
    ],
)
def test_anything_else_is_left_to_the_library(segment: bytes) -> None:
    framing = Framing(MAX_SIZE)
    assert not framing.receive_whole(segment, lambda _payload, _binary: pytest.fail("taken"))
    assert framing.open


def test_a_message_before_a_protocol_error_in_one_segment_can_be_answered() -> None:
    framing = Framing(MAX_SIZE)
    answers: list[bytes | None] = []
    framing.receive(
        frame(0x81, b"a") + frame(0x83, b"b"),
        lambda payload, _binary: answers.append(framing.message(payload)),
    )
    assert answers == [b"\x81\x01a"]
    assert framing.close_sent is not None
    assert framing.close_sent[0] == 1002


NOT_UTF8 = "Дизель".encode() + b"\xf4\x90\x80\x80" + "ЕвроДТ".encode() * 30
OVERLONG = b"{" * 200 + b"\xc0" + b"}" * 90


@pytest.mark.parametrize(
    ("sent", "broken"),
    [
        (frame(0x81, NOT_UTF8), 8 + 14),
        (frame(0x81, OVERLONG), 8 + 201),
        (frame(0x81, NOT_UTF8[:40], length_form=2), 8 + 14),
        (frame(0x81, NOT_UTF8[:40], length_form=8), 14 + 14),
        (frame(0x01, b"{" * 20 + b"\xd0") + frame(0x80, b"\xb4\xb4" + b"x" * 99), 27 + 8),
        (frame(0x01, b"{}") + frame(0x89, b"\xff") + frame(0x00, b"\xff}"), 8 + 7 + 7),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_text_is_refused_as_soon_as_it_cannot_become_utf8(
    sent: bytes, broken: int, size: int
) -> None:
    segments = [sent[at : at + size] for at in range(0, len(sent), size)]
    needed = -(-broken // size)
    assert Seen(segments[: needed - 1], short_way=True).end[1] is None
    seen = Seen(segments[:needed], short_way=True)
    assert seen.end[1] is not None
    assert seen.end[1][0] == 1007
    assert seen.error is not None
    assert "at position" in seen.error
    assert seen.messages == []


@pytest.mark.parametrize(
    "sent",
    [
        frame(0x82, b"\xff" * 300),
        frame(0x02, b"\xff") + frame(0x00, b"\xff") + frame(0x80, b"\xff" * 9),
        frame(0x89, b"\xff" * 9),
        frame(0x81, "Дизель".encode() * 20, length_form=8),
        frame(0x01, b"\xd0") + frame(0x80, b"\xb4" * 1),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_what_need_not_be_text_and_what_is_stays_open(sent: bytes, size: int) -> None:
    segments = [sent[at : at + size] for at in range(0, len(sent), size)]
    cut, whole = Seen(segments, short_way=True), Seen([sent], short_way=False)
    assert cut.all()[0] == whole.all()[0]
    assert cut.end == whole.end == (True, None, None, False)


def test_bytes_that_are_not_utf8_pass_where_they_may() -> None:
    framing = Framing(MAX_SIZE, validate_utf8=False)
    seen: list[tuple[bytes, bool]] = []
    for segment in (frame(0x81, b"\xff")[:-1], frame(0x81, b"\xff")[-1:], frame(0x01, b"\xff")):
        framing.receive(segment, lambda payload, binary: seen.append((payload, binary)))
    framing.receive(frame(0x80, b"\xff"), lambda payload, binary: seen.append((payload, binary)))
    assert seen == [(b"\xff", False), (b"\xff\xff", False)]
    assert framing.open


def test_a_close_between_fragments_is_a_close_in_good_order() -> None:
    seen = Seen([frame(0x01, b"half"), frame(0x88, b"\x03\xe8")], short_way=True)
    assert seen.end == (False, (1000, ""), (1000, ""), True)
    assert seen.error is None


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize(("binary", "first"), [(False, 0x81), (True, 0x82)])
def test_a_sent_message_is_one_unmasked_frame(size: int, binary: bool, first: int) -> None:
    payload = b"x" * size
    sent = Framing(MAX_SIZE).message(payload, binary=binary)
    assert sent is not None
    masked = frame(first, payload, mask=bytes(4))
    head = len(masked) - size - 4
    assert sent == bytes([first, masked[1] & 0x7F]) + masked[2:head] + payload


def test_the_ping_is_a_frame_the_library_would_send() -> None:
    from websockets.frames import Frame, Opcode

    assert Frame(Opcode.PING, b"ptslink").serialize(mask=False) == PING


def test_a_link_whose_peer_left_sends_nothing_more() -> None:
    framing = Framing(MAX_SIZE)
    framing.receive_eof()
    framing.close(1012, "late")
    framing.fail(1011, "late")
    assert framing.message(b"x") is None
    assert framing.out() == []
    assert (framing.open, framing.close_sent, framing.error) == (False, None, None)
