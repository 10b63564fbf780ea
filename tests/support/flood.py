"""Opens connections to one port from this one address, first as a large site does, then too many.

python tests/support/flood.py ADDRESS PORT RATE

Prints JSON: ``refused``, of a site of RATE controllers that all come back every second, how many
connections were not open at once, and ``asked`` of how many; ``let_in``, of a flood of many more,
how many were open when it ended, after ``seconds``; ``afterwards``, whether a connection opened
two seconds later was.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import sys
import time

SITE_SECONDS = 3
FLOOD = 12
#: Less than the second after which the kernel sends a dropped SYN again.
ANSWER_SECONDS = 0.9


def opened(address: str, port: int, count: int) -> int:
    """How many of ``count`` connections, all begun now, were open at once."""
    waiting = selectors.DefaultSelector()
    sockets = []
    try:
        for _ in range(count):
            one = socket.socket()
            one.setblocking(False)
            if one.connect_ex((address, port)) in (0, errno.EINPROGRESS):
                waiting.register(one, selectors.EVENT_WRITE)
            sockets.append(one)
        found = 0
        end = time.monotonic() + ANSWER_SECONDS
        while found < count:
            # Whatever is open by the end counts, however late this program is looked after.
            ready = waiting.select(max(0.0, end - time.monotonic()))
            if not ready:
                break
            for key, _ in ready:
                waiting.unregister(key.fileobj)
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                found += connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        return found
    finally:
        waiting.close()
        for one in sockets:
            one.close()


def main(address: str, port: int, rate: int) -> dict[str, float]:
    refused = 0
    for _ in range(SITE_SECONDS):
        began = time.monotonic()
        refused += rate - opened(address, port, rate)
        time.sleep(max(0.0, 1 - (time.monotonic() - began)))
    began = time.monotonic()
    let_in = opened(address, port, FLOOD * rate)
    seconds = time.monotonic() - began
    time.sleep(2)
    afterwards = opened(address, port, 1)
    return {
        "asked": SITE_SECONDS * rate,
        "refused": refused,
        "flood": FLOOD * rate,
        "let_in": let_in,
        "seconds": round(seconds, 2),
        "afterwards": afterwards,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
