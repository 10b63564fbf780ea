"""A process that has a port of the link: squatter.py ADDRESS PORT MANNER. Standard library only.

``http`` answers 404, ``upgrade`` answers 101 and then nothing, ``banner`` speaks first, ``silent``
never says a word, ``closes`` and ``resets`` end each connection, ``bound`` never accepts one.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time

_PAGE = b"HTTP/1.1 404 Not Found\r\nServer: shop\r\nContent-Length: 4\r\n\r\nshop"
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
)
#: How long a connection is kept that nothing is said on, seconds.
_KEPT_SECONDS = 60.0


def serve(link: socket.socket, manner: str) -> None:
    """Deal with one connection in *manner*."""
    with link:
        if manner == "resets":
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if manner in ("resets", "closes"):
            return
        if manner == "banner":
            link.sendall(b"220 shop ready\r\n")
        elif manner in ("http", "upgrade"):
            link.recv(4096)
            link.sendall(_PAGE if manner == "http" else _SWITCH)
            if manner == "http":
                return
        time.sleep(_KEPT_SECONDS)


def main() -> None:
    """Listen for ever."""
    address, port, manner = sys.argv[1:]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, int(port)))
        listener.listen(0 if manner == "bound" else 64)
        while True:
            if manner == "bound":
                time.sleep(_KEPT_SECONDS)
                continue
            link, _ = listener.accept()
            threading.Thread(target=serve, args=(link, manner), daemon=True).start()


if __name__ == "__main__":
    main()
