"""A controller that is itself the mutation: one deviation of a faithful one, byte by byte.

    device.py [--once] ADDRESS PORT OPERATION [ARGUMENT...]

It shakes hands, uploads a status, waits for the confirmation and stays; where it is cut it tries
again each second. With ``--once`` it tries once, as a controller of another id: exit status 0 where
its upload was confirmed and the link then stood for a moment, else 1 and what it saw.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "src"))

from ptslink.doctor.probe.frames import Frame, close_payload, decode_frame, encode_frame
from ptslink.doctor.probe.request import RequestHead, new_key, upgrade_head
from ptslink.simulator.packets import envelope, packet

CONTROLLER, ONCE = "00BB00000000000000000001", "00BB00000000000000000003"
#: How long an answer is waited for, and how long the link then has to stand, seconds.
ANSWER_SECONDS, STANDING_SECONDS = 3.0, 0.5


class Lost(Exception):
    """The device did not get in, or was cut; says where."""


def head_of(address: str, port: int, controller: str = CONTROLLER) -> RequestHead:
    """A faithful controller's request."""
    return upgrade_head(
        authority=address if port == 80 else f"{address}:{port}", path="/ptsWebSocket",
        key=new_key(), origin="http://192.0.2.10", controller_id=controller,
        firmware="25-01-06T23:59:14", configuration="699c8c2",
    )  # fmt: skip


def request(head: RequestHead, operation: Sequence[str]) -> list[bytes]:
    """The bytes of the request with *operation* applied, in the parts in which they are sent."""
    match operation:
        case ["header", what, name]:
            return [header(head, what, name)]
        case ["line", old, new]:
            return [head.encode().replace(old.encode(), new.encode().decode("unicode_escape")
                                          .encode("latin-1"), 1)]  # fmt: skip
        case ["ends", how]:
            return [head.encode().replace(b"\r\n", {"lf": b"\n", "cr": b"\r"}[how])]
        case ["before", text]:
            return [text.encode().decode("unicode_escape").encode("latin-1") + head.encode()]
        case ["after", text]:
            return [head.encode() + text.encode().decode("unicode_escape").encode("latin-1")]
        case ["split", size]:
            data, step = head.encode(), int(size)
            return [data[at : at + step] for at in range(0, len(data), step)]
    return [head.encode()]


def header(head: RequestHead, what: str, name: str) -> bytes:
    """The request with the header *name* changed in one way."""
    value = dict(head.headers)[name]
    line = f"{name}: {value}\r\n".encode()
    new = {
        "removed": b"",
        "doubled": line + line,
        "contradicted": line + f"{name}: other\r\n".encode(),
        "wrong": f"{name}: other\r\n".encode(),
        "empty": f"{name}:\r\n".encode(),
        "oversized": f"{name}: {value}{'x' * 40_000}\r\n".encode(),
        "spaced": f"{name.replace('-', ' - ')} : {value}\r\n".encode(),
        "folded": f"{name}:\r\n {value}\r\n".encode(),
        "control": f"{name}: {value}\x01\r\n".encode(),
        "nul": f"{name}: {value}\0\r\n".encode(),
        "latin": f"{name}: {value}\xe9\r\n".encode("latin-1"),
        "lower": f"{name.lower()}: {value.lower()}\r\n".encode(),
        "no colon": f"{name} {value}\r\n".encode(),
    }[what]
    return head.encode().replace(line, new, 1)


def frames(payload: bytes, operation: Sequence[str]) -> list[bytes]:
    """The upload as frames, with *operation* applied."""
    mask = secrets.token_bytes(4)
    plain = encode_frame(Frame(1, payload), mask)
    match operation:
        case ["frame", "unmasked"]:
            return [encode_frame(Frame(1, payload))]
        case ["frame", "zero mask"]:
            return [encode_frame(Frame(1, payload), bytes(4))]
        case ["frame", "rsv", bits]:
            return [encode_frame(Frame(1, payload, rsv=int(bits)), mask)]
        case ["frame", "opcode", number]:
            return [encode_frame(Frame(int(number), payload), mask)]
        case ["frame", "not final"]:
            return [encode_frame(Frame(1, payload, fin=False), mask)]
        case ["frame", "continuation first"]:
            return [encode_frame(Frame(0, payload), mask)]
        case ["frame", "two parts"]:
            half = len(payload) // 2
            return [encode_frame(Frame(1, payload[:half], fin=False), mask),
                    encode_frame(Frame(0, payload[half:]), mask)]  # fmt: skip
        case ["frame", "new message within"]:
            return [encode_frame(Frame(1, payload, fin=False), mask), plain]
        case ["frame", "long length"]:
            return [b"\x81\xff" + struct.pack("!Q", len(payload)) + plain[-len(payload) - 4 :]]
        case ["frame", "length bit 63"]:
            return [b"\x81\xff" + struct.pack("!Q", 1 << 63 | len(payload)) + plain[2:]]
        case ["frame", "too big"]:
            return [encode_frame(Frame(1, payload + b" " * (2 << 20)), mask)]
        case ["frame", "long ping"]:
            return [encode_frame(Frame(9, b"x" * 126), mask), plain]
        case ["frame", "ping in parts"]:
            return [encode_frame(Frame(9, b"x", fin=False), mask), plain]
        case ["frame", "close code", code]:
            return [encode_frame(Frame(8, struct.pack("!H", int(code))), mask)]
        case ["frame", "close of one byte"]:
            return [encode_frame(Frame(8, b"\3"), mask)]
        case ["frame", "byte by byte"]:
            return [plain[at : at + 1] for at in range(len(plain))]
        case ["frame", "http again"]:
            return [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]
        case ["frame", "garbage"]:
            return [b"\xff" * 64]
    return [plain]


def text(operation: Sequence[str], controller: str = CONTROLLER) -> bytes:
    """The upload, with *operation* applied to its text."""
    status = packet("UploadStatus", 1, {"DateTime": "2026-01-01T00:00:00"})
    told = envelope([status], controller).encode()
    match operation:
        case ["text", "cut"]:
            return told[:-5]
        case ["text", "not JSON"]:
            return b"hello"
        case ["text", "cp1251"]:
            return told.replace(b"jsonPTS", "jsonPTS\u0414".encode("cp1251"))
        case ["text", "other protocol"]:
            return told.replace(b"jsonPTS", b"jsonPTX")
        case ["text", "no packets"]:
            return json.dumps({"Protocol": "jsonPTS", "PtsId": controller}).encode()
        case ["text", "empty"]:
            return b""
        case ["text", "array"]:
            return b"[" + told + b"]"
        case ["text", "deep"]:
            return b"[" * 5000
        case ["text", "byte order mark"]:
            return b"\xef\xbb\xbf" + told
        case ["text", "nul after it"]:
            return told + b"\0"
        case ["text", "other id"]:
            return told.replace(controller.encode(), b"00CC00000000000000000002")
    return told


def stops(link: socket.socket, how: str) -> None:
    """The device ends its part in one way."""
    if how == "reset":
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.close()
    elif how == "fin":
        link.close()
    elif how == "half":
        link.shutdown(socket.SHUT_WR)
    elif how == "stall":
        time.sleep(ANSWER_SECONDS + 12)
    raise Lost(f"the device itself did this: {how}")


def trial(address: str, port: int, operation: Sequence[str], once: bool) -> None:
    """One connection, held where it is good and not tried *once*.

    Raises:
        Lost, OSError: the upload was not confirmed, or the link did not stand.
    """
    controller = ONCE if once else CONTROLLER
    moment = [*operation[1:]] if operation[:1] == ["moment"] else ["", ""]
    with socket.create_connection((address, port), ANSWER_SECONDS) as link:
        link.settimeout(ANSWER_SECONDS)
        if moment[0] == "connected":
            stops(link, moment[1])
        parts = request(head_of(address, port, controller), operation)
        if moment[0] == "half a request":
            link.sendall(parts[0][:60])
            stops(link, moment[1])
        for part in parts:
            link.sendall(part)
        if moment[0] == "request sent":
            stops(link, moment[1])
        head, rest = answered(link)
        if moment[0] == "answer read":
            stops(link, moment[1])
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise Lost(head.partition(b"\r\n")[0].decode("latin-1"))
        upload = frames(text(operation, controller), operation)
        if moment[0] == "half a frame":
            link.sendall(upload[0][:10])
            stops(link, moment[1])
        for part in upload:
            link.sendall(part)
        if moment[0] == "upload sent":
            stops(link, moment[1])
        confirmed(link, rest, once)


def answered(link: socket.socket) -> tuple[bytes, bytes]:
    """The answer's head, and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = link.recv(65536)
        if not part:
            raise Lost(f"closed after {len(data)} bytes of the answer")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def confirmed(link: socket.socket, data: bytes, once: bool) -> None:
    """Wait for the confirmation, and then see the link stand: for a moment, or for good."""
    heard = False
    link.settimeout(ANSWER_SECONDS)
    while True:
        while (found := decode_frame(data)) is not None:
            frame, data = found
            if frame.name == "ping":
                link.sendall(encode_frame(Frame(10, frame.payload), secrets.token_bytes(4)))
            if frame.name == "close":
                raise Lost(f"closed by the server: {frame.payload!r}")
            if frame.name == "text" and b"UploadStatus" in frame.payload:
                if b'"Error":true' in frame.payload.replace(b" ", b""):
                    raise Lost(f"refused: {frame.payload!r}")
                heard = True
                link.settimeout(STANDING_SECONDS if once else None)
        try:
            part = link.recv(65536)
        except TimeoutError:
            if heard:
                leave(link)
                return
            raise Lost("no confirmation") from None
        if not part:
            raise Lost("the server closed")
        data += part


def leave(link: socket.socket) -> None:
    """Close in good order, as a controller does that is switched off."""
    link.settimeout(ANSWER_SECONDS)
    link.sendall(encode_frame(Frame(8, close_payload(1000)), secrets.token_bytes(4)))
    with contextlib.suppress(OSError):
        while link.recv(65536):
            pass


def main() -> int:
    words = sys.argv[1:]
    once = words[0] == "--once"
    address, port, *operation = words[once:]
    while True:
        try:
            trial(address, int(port), operation, once)
        except (Lost, OSError) as error:
            if once:
                print(f"{type(error).__name__}: {error}")
                return 1
        else:
            if once:
                return 0
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main())
