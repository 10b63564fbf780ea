"""A controller's end of the wire for tests: raw bytes in, raw bytes out, nothing helpful added."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ptslink.doctor.probe.frames import apply_mask

#: Seconds until an answer that does not come is a failure; a busy computer takes its time.
PATIENCE = 30.0
CONTROLLER = "AABBCCDDEEFF001122334455"


def request(
    path: str = "/ptsWebSocket",
    *,
    method: str = "GET",
    http: str = "HTTP/1.1",
    body: bytes = b"",
    drop: tuple[str, ...] = (),
    **headers: str,
) -> bytes:
    """A controller's handshake; headers by keyword (underscores for dashes) replace or add."""
    fields = {
        "Host": "192.0.2.1:3000",
        "Origin": "http://192.0.2.10",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "AAECAwQFBgcICQoLDA0ODw==",
        "X-Pts-Id": CONTROLLER,
        "X-Pts-Firmware-Version-DateTime": "25-01-06T23:59:14",
        "X-Pts-Configuration-Identifier": "699c8c2",
        "Sec-WebSocket-Version": "13",
    }
    for name, value in headers.items():
        wire = name.replace("_", "-")
        found = next((known for known in fields if known.lower() == wire.lower()), wire)
        fields[found] = value
    for name in drop:
        fields.pop(name, None)
    lines = [f"{method} {path} {http}", *(f"{k}: {v}" for k, v in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def frame(
    payload: bytes = b"",
    opcode: int = 1,
    *,
    fin: bool = True,
    rsv: int = 0,
    masked: bool = True,
) -> bytes:
    """One client frame."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, bit | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, bit | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(payload))
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + apply_mask(payload, mask)


def close_frame(code: int = 1000, reason: str = "") -> bytes:
    return frame(struct.pack("!H", code) + reason.encode(), 8)


def message(*packets: dict[str, Any], **extra: Any) -> bytes:
    """A jsonPTS message in compact JSON."""
    content = {"Protocol": "jsonPTS", "PtsId": CONTROLLER, "Packets": list(packets), **extra}
    return json.dumps(content, separators=(",", ":")).encode()


def sale(number: int, *, id_: Any = None, **data: Any) -> dict[str, Any]:
    """An UploadPumpTransaction packet; number tells sales apart."""
    content = {
        "DateTimeStart": "2026-03-01T10:00:00",
        "DateTime": "2026-03-01T10:01:00",
        "Pump": 1,
        "Nozzle": 1,
        "Transaction": number % 65535 + 1,
        "Volume": 10.5,
        "TCVolume": 10.4,
        "Price": 1.5,
        "Amount": 15.75,
        "TotalVolume": 1000 + number,
        "TotalAmount": 15000.25,
        "Tag": "",
        "UserId": 1,
        "ConfigurationId": "699c8c2",
        **data,
    }
    return {"Id": number if id_ is None else id_, "Type": "UploadPumpTransaction", "Data": content}


@dataclass
class Reply:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Wire:
    """One TCP connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    closed: tuple[int, str] | None = None
    pings: list[bytes] = field(default_factory=list)

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> Wire:
        reader, writer = await asyncio.open_connection(host, port)
        return cls(reader, writer)

    @classmethod
    async def link(cls, port: int, path: str = "/ptsWebSocket", **options: Any) -> Wire:
        """Connect and perform the handshake."""
        wire = await cls.connect(port)
        reply = await wire.ask(request(path, **options))
        assert reply.status == 101, (reply.status, reply.body)
        return wire

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def ask(self, data: bytes) -> Reply:
        self.write(data)
        return await self.reply()

    async def reply(self) -> Reply:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        headers = {name.lower(): value for name, value in headers.items()}
        body = b""
        if "content-length" in headers and "head" not in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Reply(int(first.split(" ")[1]), headers, body)

    def send(self, payload: bytes) -> None:
        self.write(frame(payload))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: (opcode, payload)."""
        head = await asyncio.wait_for(self.reader.readexactly(2), PATIENCE)
        length = head[1] & 127
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return head[0] & 15, await self.reader.readexactly(length)

    async def text(self) -> bytes:
        """The next text message; pings are answered on the way."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 9:
                self.pings.append(payload)
                self.write(frame(payload, 10))
                continue
            assert opcode == 1, (opcode, payload)
            return payload

    async def upload(self, *packets: dict[str, Any]) -> Any:
        """Send one message, return the answer decoded."""
        self.send(message(*packets))
        return json.loads(await self.text())

    async def until_close(self) -> tuple[int, str]:
        """Read up to a closing frame and return its code and reason."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                if not payload:
                    return 1005, ""
                return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    async def eof(self, seconds: float = PATIENCE) -> bytes:
        """Everything up to the end of the stream."""
        return await asyncio.wait_for(self.reader.read(-1), seconds)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing to be told by
            await asyncio.sleep(0.01)
