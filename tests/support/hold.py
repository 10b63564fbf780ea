"""Holds a link open until a file appears, and says whether it lived that long.

python tests/support/hold.py URL FILE

Writes ``FILE.open`` once the link is open. Exit 0: it was open all the time and then answered a
ping; 1: it ended before. For tests only: any certificate will do.
"""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

LONGEST_SECONDS = 900
#: Opening may wait for a busy disk: how fast it is, is proven elsewhere.
OPENING_SECONDS = 25


def main(url: str, until: Path) -> int:
    context = None
    if url.startswith("wss:"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with connect(url, ssl=context, compression=None, open_timeout=OPENING_SECONDS) as link:
        until.with_name(f"{until.name}.open").touch()
        for _ in range(LONGEST_SECONDS):
            if until.exists():
                break
            try:
                link.recv(timeout=1)
            except TimeoutError:
                continue
            except ConnectionClosed as closed:
                print(f"The link ended: {closed}", file=sys.stderr)
                return 1
        return 0 if link.ping().wait(10) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
