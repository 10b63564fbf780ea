"""The server's connection code with an echo handler: ``python -m tests.conformance.echo PORT``.

Everything below the seam is what `ptslink serve` runs: front, framing, handshake. Only the meaning
is another: every message goes back as it came.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

from ptslink.handshake.accept import accept_value
from ptslink.handshake.head import Head, HeadError
from ptslink.server import front
from ptslink.server.seam import Answer, Arrival, Caller, Ending, FrontLimits, Peer
from ptslink.server.wheel import Wheel

#: Section 9 of the suite sends messages of up to 16 MiB.
MESSAGE_BYTES = 32 * 1024 * 1024


class Echo:
    """A `ptslink.server.seam.Handler` that says everything back."""

    def arrived(self, peer: Arrival) -> Answer | None:  # noqa: ARG002
        return None

    def request(self, peer: Peer, head: Head, body: bytes) -> Answer | None:  # noqa: ARG002
        accept = accept_value(head.get("sec-websocket-key") or "")
        return Answer(
            101,
            (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)),
        )

    def failed(self, peer: Peer, head: Head, error: Exception) -> Answer:  # noqa: ARG002
        raise error

    def unreadable(self, peer: Caller, error: HeadError, start: bytes) -> Answer | None:  # noqa: ARG002
        return None

    def opened(self, peer: Peer) -> None:
        pass

    def message(self, peer: Peer, payload: bytes, binary: bool) -> None:
        peer.send(payload, binary=binary)

    def ended(self, peer: Peer, ending: Ending) -> None:
        pass

    def left(self, peer: Arrival) -> None:
        pass


async def serve(port: int) -> None:
    """Serve on loopback until cancelled."""
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    wheel.start()
    limits = FrontLimits(message_bytes=MESSAGE_BYTES)
    scratch = memoryview(bytearray(front.SCRATCH_BYTES))
    numbers = itertools.count(1)
    handler = Echo()

    def connection() -> front.Front:
        return front.Front(handler, limits, wheel, scratch, loop, next(numbers), port)

    server = await loop.create_server(connection, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
