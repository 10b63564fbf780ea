"""Holds a link open until a file appears, and says whether it lived that long.

python tests/support/hold.py URL FILE

Writes ``FILE.open`` once the link is open. Exit 0: it was open all the time and then answered a
ping; 1: it ended before. For tests only: any certificate will do.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path

# Not websockets.sync: its reading thread takes in the session tickets of TLS 1.3 while the request
# is written, and Python's ssl has no lock around that before 3.13: one link in some 400 then hangs.
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LONGEST_SECONDS = 900
ANSWER_SECONDS = 10


async def hold(url: str, until: Path) -> int:
    context = None
    if url.startswith("wss:"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    async with connect(url, ssl=context, compression=None, ping_interval=None) as link:
        until.with_name(f"{until.name}.open").touch()
        for _ in range(LONGEST_SECONDS):
            if await asyncio.to_thread(until.exists):
                break
            try:
                async with asyncio.timeout(1):
                    await link.recv()
            except TimeoutError:
                continue
            except ConnectionClosed as closed:
                print(f"The link ended: {closed}", file=sys.stderr)
                return 1
        async with asyncio.timeout(ANSWER_SECONDS):
            await (await link.ping())
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(hold(sys.argv[1], Path(sys.argv[2]))))
