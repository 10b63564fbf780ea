"""Deviations in WebSocket framing (RFC 6455 5)."""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import cast

from ptslink.doctor.probe.frames import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    encode_frame,
    encode_masked,
)
from ptslink.doctor.probe.request import RequestHead
from ptslink.simulator.manner import Manner
from ptslink.simulator.misbehave.deviation import Deviation, choose, count

Rewrite = Callable[[Frame], "Iterable[bytes] | None"]


def deflated(payload: bytes) -> bytes:
    """A message as permessage-deflate sends it (RFC 7692 7.2.1)."""
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(b"\x00\x00\xff\xff")


def _rsv1(manner: Manner, value: str) -> Manner:
    def compressed(frame: Frame) -> Iterable[bytes] | None:
        if frame.opcode != TEXT or not frame.fin:
            return None
        return [encode_masked(replace(frame, rsv=4, payload=deflated(frame.payload)))]

    def bit(frame: Frame) -> Iterable[bytes] | None:
        return [encode_masked(replace(frame, rsv=4))] if frame.opcode == TEXT else None

    def noise(frame: Frame) -> Iterable[bytes] | None:
        if frame.opcode != TEXT:
            return None
        return [encode_masked(replace(frame, rsv=1 + secrets.randbelow(7)))]

    rewrite = cast("Rewrite", choose(value, compressed=compressed, bit=bit, noise=noise))
    return manner.but(frames=rewrite)


def _unmasked(manner: Manner, value: str) -> Manner:
    def control(frame: Frame) -> Iterable[bytes] | None:
        return [encode_frame(frame)] if frame.opcode in (PONG, CLOSE) else None

    def everything(frame: Frame) -> Iterable[bytes] | None:
        return [encode_frame(frame)]

    return manner.but(frames=cast("Rewrite", choose(value, control=control, all=everything)))


def _unanswered(frame: Frame) -> Iterable[bytes] | None:
    return [] if frame.opcode == PONG else None


def _bad_frame(manner: Manner, value: str) -> Manner:
    frames = {
        "opcode": [Frame(0x3, b"{}")],
        "continuation": [Frame(CONTINUATION, b"{}")],
        "interleaved": [Frame(TEXT, b"{", fin=False), Frame(TEXT, b"}")],
        "long_control": [Frame(PING, bytes(126))],
        "split_control": [Frame(PING, b"half", fin=False)],
    }
    chosen = cast("list[Frame]", choose(value, **frames))
    return manner.but(prelude=lambda _: b"".join(encode_masked(frame) for frame in chosen))


def _too_big(manner: Manner, value: str) -> Manner:
    size = count(value, 1, 1 << 28)

    def pad(data: bytes) -> bytes:
        if b'"Type":"UploadStatus"' not in data:
            return data
        return data[:-1] + b',"Padding":"' + b"x" * max(size - len(data) - 13, 0) + b'"}'

    return manner.but(content=pad, whole=True)


def _offer_deflate(head: RequestHead) -> RequestHead:
    return head.with_value("Sec-WebSocket-Extensions", "permessage-deflate")


def _small_buffer(manner: Manner, value: str) -> Manner:
    limit = count(value, 1, 1 << 20)

    def dislike(data: bytes) -> str | None:
        return (
            f"a message of {len(data)} bytes, the buffer holds {limit}"
            if (len(data) > limit)
            else None
        )

    return manner.but(dislike=dislike)


DEVIATIONS = (
    Deviation(
        "ws-rsv1-compressed",
        "sends compressed frames that were not negotiated, or reserved bits at random",
        _rsv1,
        "compressed|bit|noise",
        "compressed",
    ),
    Deviation(
        "ws-unmasked",
        "does not mask its pong and close frames, or any",
        _unmasked,
        "control|all",
        "control",
    ),
    Deviation(
        "ws-invalid-utf8",
        "writes a grade's name in CP1251",
        lambda manner, _: manner.but(
            content=lambda data: data.replace(b"Diesel", "Дизель".encode("cp1251"))
        ),
    ),
    Deviation(
        "ws-too-big",
        "sends its status in one frame of so many bytes",
        _too_big,
        "BYTES",
        "1200000",
    ),
    Deviation(
        "ws-bad-frame",
        "begins with a frame that RFC 6455 forbids",
        _bad_frame,
        "opcode|continuation|interleaved|long-control|split-control",
        "opcode",
    ),
    Deviation(
        "ws-ping-unanswered",
        "never answers a ping",
        lambda manner, _: manner.but(frames=_unanswered),
    ),
    Deviation(
        "ws-deflate-unsupported",
        "offers permessage-deflate and drops the link at a compressed frame",
        lambda manner, _: manner.but(head=_offer_deflate, abrupt=True),
    ),
    Deviation(
        "ws-server-frame-too-big",
        "drops the link at a message larger than its buffer",
        _small_buffer,
        "BYTES",
        "4096",
    ),
    Deviation(
        "ws-http-after-upgrade",
        "repeats its GET on the connection that was upgraded",
        lambda manner, _: manner.but(prelude=lambda head: head),
    ),
)
