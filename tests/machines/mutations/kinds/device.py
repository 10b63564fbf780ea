"""The controller: headers and byte classes of its handshake and frames, and when it stops."""

from __future__ import annotations

from collections.abc import Iterator

from machines.faults.bench import WASH
from machines.mutations.mutation import DIRECT, PLAIN, Mutation, Party, Truth, kind
from machines.mutations.system import System

_HEADERS = ("Host", "Origin", "Upgrade", "Connection", "Sec-WebSocket-Key", "X-Pts-Id",
            "X-Pts-Firmware-Version-DateTime", "X-Pts-Configuration-Identifier",
            "Sec-WebSocket-Version")  # fmt: skip
_WAYS = ((80, PLAIN), (3000, DIRECT))


def _mutation(kind_: str, port: int, operation: tuple[str, ...], *things: str) -> Mutation:
    told = " ".join(operation)
    return Mutation(
        kind_, f"{port}: {told}", Truth((Party.DEVICE,), things, f"the device: {told}"),
        (), (WASH,), dict(_WAYS)[port], device=("{server}", str(port), *operation),
    )  # fmt: skip


@kind("header-changed")
def header_changed(system: System) -> Iterator[Mutation]:
    """Each header of the handshake is removed, doubled, wrong, oversized, or spelt otherwise."""
    del system
    for port, _ in _WAYS:
        for name in _HEADERS:
            for what in ("removed", "doubled", "contradicted", "wrong", "empty", "oversized",
                         "spaced", "folded", "control", "nul", "latin", "lower",
                         "no colon"):  # fmt: skip
                yield _mutation("header-changed", port, ("header", what, name), name)


@kind("request-line")
def request_line(system: System) -> Iterator[Mutation]:
    """The request line, the ends of lines, and what stands before or behind the request."""
    del system
    for port, _ in _WAYS:
        for old, new, thing in (
            ("GET", "POST", "POST"), ("GET", "get", "get"), ("GET", "PUT", "PUT"),
            ("GET ", "", "GET"),
            ("HTTP/1.1", "HTTP/1.0", "HTTP/1.0"), ("HTTP/1.1", "HTTP/2.0", "HTTP/2.0"),
            (" HTTP/1.1", "", "HTTP/0.9"), ("HTTP/1.1", "http/1.1", "http/1.1"),
            ("/ptsWebSocket", "/nowhere", "/nowhere"), ("/ptsWebSocket", "ptsWebSocket", "slash"),
            ("/ptsWebSocket", "/pts WebSocket", "path"),
            ("/ptsWebSocket", "/" + "x" * 9000, "long"),
            ("/ptsWebSocket", "/%zz", "%zz"), ("/ptsWebSocket", "/ptsWebSocket/", "path"),
            ("/ptsWebSocket", "//ptsWebSocket", "path"),
            ("/ptsWebSocket", "/ptsWebSocket?x=1", "path"),
            ("/ptsWebSocket", "/\\xff", "path"), ("/ptsWebSocket", "http://x/ptsWebSocket", "path"),
        ):  # fmt: skip
            yield _mutation("request-line", port, ("line", old, new), thing, "request line",
                            "request target")  # fmt: skip
        for how in ("lf", "cr"):
            yield _mutation("request-line", port, ("ends", how), how, "line ends", "CRLF")
        for text in ("\\r\\n", "\\r\\n\\r\\n", " ", "\\x16\\x03\\x01", "\\xef\\xbb\\xbf",
                     "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\\r\\n", "\\0"):  # fmt: skip
            yield _mutation(
                "request-line", port, ("before", text), "before", "PROXY", "TLS", "bytes"
            )
        for text in ("hello", "\\x81", "\\0\\0"):
            yield _mutation("request-line", port, ("after", text), "behind", "after", "body",
                            "First bytes")  # fmt: skip
        for size in ("1", "7", "100"):
            yield _mutation("request-line", port, ("split", size), "split")


_FRAMES = (
    ("unmasked",), ("zero mask",), *(("rsv", bits) for bits in ("1", "2", "4", "7")),
    *(("opcode", str(number)) for number in (2, 3, 4, 7, 11, 15)), ("not final",),
    ("continuation first",), ("two parts",), ("new message within",), ("long length",),
    ("length bit 63",), ("too big",), ("long ping",), ("ping in parts",),
    *(("close code", str(code)) for code in (1000, 1001, 1002, 1005, 1006, 999, 5000)),
    ("close of one byte",), ("byte by byte",), ("http again",), ("garbage",),
)  # fmt: skip
_WORDS = {"rsv": "reserved", "unmasked": "mask", "opcode": "opcode", "too big": "byte"}


@kind("frame-changed")
def frame_changed(system: System) -> Iterator[Mutation]:
    """The bytes of a frame: mask, reserved bits, opcode, length, parts, closing."""
    del system
    for port, _ in _WAYS:
        for words in _FRAMES:
            thing = _WORDS.get(words[0], words[0].split()[0])
            yield _mutation("frame-changed", port, ("frame", *words), thing, "frame")


@kind("text-changed")
def text_changed(system: System) -> Iterator[Mutation]:
    """The text of an upload: cut, of another encoding, of another shape."""
    del system
    for port, _ in _WAYS:
        for what in ("cut", "not JSON", "cp1251", "other protocol", "no packets", "empty", "array",
                     "deep", "byte order mark", "nul after it", "other id"):  # fmt: skip
            yield _mutation("text-changed", port, ("text", what), "JSON", "UTF-8", "jsonPTS",
                            "Packets", "message")  # fmt: skip


@kind("peer-moment")
def peer_moment(system: System) -> Iterator[Mutation]:
    """The device stops, resets, half-closes or stalls at each moment of a connection."""
    del system
    for port, _ in _WAYS:
        for moment in ("connected", "half a request", "request sent", "answer read", "half a frame",
                       "upload sent"):  # fmt: skip
            for how in ("fin", "reset", "half", "stall"):
                yield _mutation("peer-moment", port, ("moment", moment, how), "FIN", "RST", "reset",
                                "closed", "silent", "ends its sending")  # fmt: skip
