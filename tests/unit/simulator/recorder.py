"""A server that keeps every byte it gets, however bent, and plays along so that a run ends soon."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from dataclasses import dataclass, field

from ptslink.doctor.probe.frames import CLOSE, TEXT, Frame, decode_frame, encode_frame
from ptslink.handshake.accept import accept_value


@dataclass
class Taken:
    """One connection as it arrived."""

    data: bytes = b""
    head: bytes = b""
    ended: str = ""
    opened_at: float = field(default_factory=time.monotonic)
    ended_at: float = 0.0

    @property
    def frames(self) -> list[Frame]:
        """Every frame behind the head that can be read."""
        found, rest = [], self.data[len(self.head) :]
        while (decoded := decode_frame(rest)) is not None:
            frame, rest = decoded
            found.append(frame)
        return found


@dataclass
class Recorder:
    """``says`` is sent behind the 101; ``answer`` replaces the 101; ``confirms`` as it can."""

    says: bytes = b""
    answer: bytes | None = None
    accept_name: str = "Sec-WebSocket-Accept"
    confirms: bool = True
    taken: list[Taken] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken = Taken()
        self.taken.append(taken)
        answered = 0
        try:
            while True:
                data = await reader.read(65536)
                if not data:
                    taken.ended = "fin"
                    return
                taken.data += data
                if not taken.head:
                    self._maybe_answer(taken, writer)
                for frame in taken.frames[answered:] if taken.head else ():
                    answered += 1
                    writer.write(self._reply(frame))
        except ConnectionResetError:
            taken.ended = "rst"
        finally:
            taken.ended_at = time.monotonic()

    def _maybe_answer(self, taken: Taken, writer: asyncio.StreamWriter) -> None:
        for end in (b"\r\n\r\n", b"\n\n"):
            if end in taken.data:
                taken.head = taken.data[: taken.data.index(end) + len(end)]
                break
        else:
            return
        if self.answer is not None:
            writer.write(self.answer)
            return
        key = taken.head.partition(b"Sec-WebSocket-Key: ")[2].split(b"\r\n")[0].decode()
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"{self.accept_name}: {accept_value(key)}\r\n\r\n".encode()
            + self.says
        )

    def _reply(self, frame: Frame) -> bytes:
        """A confirmation as far as the message can be made out, and a close for a close."""
        if frame.opcode == CLOSE and self.confirms:
            return encode_frame(Frame(CLOSE, frame.payload))
        if frame.opcode != TEXT or not self.confirms:
            return b""
        payload = frame.payload
        if frame.rsv == 4 and not payload.startswith(b"{"):
            payload = zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")
        found = re.search(rb'"Id":"?(\d+)"?,? ?"Type":"(\w+)"', payload)
        if found is None:
            return b""
        packet = b'{"Id":%s,"Type":"%s","Message":"OK"}' % found.groups()
        message = b'{"Protocol":"jsonPTS","Packets":[%s]}' % packet
        return encode_frame(Frame(TEXT, message))
