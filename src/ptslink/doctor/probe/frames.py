"""WebSocket frames as bytes, the little a probe needs (RFC 6455 5.2), without a library.

The probe must run on hosts that have nothing but Python, and it must be able to show a frame that
a strict library would refuse.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NAMES = {0x0: "continuation", 0x1: "text", 0x2: "binary", 0x8: "close", 0x9: "ping", 0xA: "pong"}


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, unmasked. ``rsv`` holds RSV1..3 as the bits 4, 2, 1."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = False

    @property
    def name(self) -> str:
        return NAMES.get(self.opcode, f"opcode {self.opcode:#x}")


def apply_mask(payload: bytes, key: bytes) -> bytes:
    """XOR with the four bytes of *key* (RFC 6455 5.3); its own inverse."""
    if not payload:
        return b""
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return mixed.to_bytes(len(payload), "big")


def encode_frame(frame: Frame, mask: bytes | None = None) -> bytes:
    """The bytes of *frame*, masked with *mask* (four bytes) when given."""
    size = len(frame.payload)
    first = (0x80 if frame.fin else 0) | frame.rsv << 4 | frame.opcode
    bit = 0 if mask is None else 0x80
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65536:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    if mask is None:
        return head + frame.payload
    return head + mask + apply_mask(frame.payload, mask)


def encode_masked(frame: Frame) -> bytes:
    """The bytes of *frame* as a client must send it: masked with a fresh key."""
    return encode_frame(frame, secrets.token_bytes(4))


def decode_frame(data: bytes) -> tuple[Frame, bytes] | None:
    """The first frame in *data* and what follows it, or ``None`` while it is not complete."""
    if len(data) < 2:
        return None
    size, at = data[1] & 0x7F, 2
    if size >= 126:
        width = 2 if size == 126 else 8
        size, at = int.from_bytes(data[2 : 2 + width], "big"), 2 + width
    masked = bool(data[1] & 0x80)
    end = at + (4 if masked else 0) + size
    if len(data) < end or at > len(data):
        return None
    payload = data[end - size : end]
    if masked:
        payload = apply_mask(payload, data[at : at + 4])
    frame = Frame(data[0] & 0xF, payload, bool(data[0] & 0x80), data[0] >> 4 & 7, masked)
    return frame, data[end:]


def close_payload(code: int, reason: str = "") -> bytes:
    return code.to_bytes(2, "big") + reason.encode("utf-8")


def read_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; 1005 when it names none (RFC 6455 7.1.5)."""
    if len(payload) < 2:
        return 1005, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode("utf-8", "replace")
