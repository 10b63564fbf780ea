"""The SYN, RST and ICMP packets at this machine's interfaces: before its firewall drops what comes
in, behind it for what goes out. Linux; root or CAP_NET_RAW.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Iterator
from typing import Final

#: The kind of address ``recvfrom`` gives with a packet of our own.
OUTGOING: Final = 4

_ETH_P_ALL: Final = 3
_SO_ATTACH_FILTER: Final = 26
_SYN, _RST = 0x02, 0x04

#: Classic BPF for a packet socket without link header: TCP with SYN or RST, ICMP errors. Made by
#: hand from the kernel's own documentation (Documentation/networking/filter.rst).
_FILTER: Final = (
    (0x30, 0, 0, 0),  #  0 ldb  [0]
    (0x54, 0, 0, 0xF0),  #  1 and  #0xf0
    (0x15, 0, 9, 0x40),  #  2 jeq  #0x40 else 12
    (0x30, 0, 0, 9),  #  3 ldb  [9] protocol
    (0x15, 13, 0, 1),  #  4 jeq  ICMP -> 18 accept
    (0x15, 0, 13, 6),  #  5 jeq  TCP else 19 drop
    (0x28, 0, 0, 6),  #  6 ldh  [6]
    (0x45, 11, 0, 0x1FFF),  #  7 jset later fragment -> 19 drop
    (0xB1, 0, 0, 0),  #  8 ldxb 4*([0]&0xf)
    (0x50, 0, 0, 13),  #  9 ldb  [x+13] flags
    (0x45, 7, 0, _SYN | _RST),  # 10 jset -> 18 accept
    (0x06, 0, 0, 0),  # 11 drop
    (0x15, 0, 6, 0x60),  # 12 jeq  #0x60 else 19
    (0x30, 0, 0, 6),  # 13 ldb  [6] next header
    (0x15, 3, 0, 58),  # 14 jeq  ICMPv6 -> 18
    (0x15, 0, 3, 6),  # 15 jeq  TCP else 19
    (0x30, 0, 0, 53),  # 16 ldb  [40+13]
    (0x45, 0, 1, _SYN | _RST),  # 17 jset -> 18 else 19
    (0x06, 0, 0, 128),  # 18 accept, 128 bytes of it
    (0x06, 0, 0, 0),  # 19 drop
)


def _attach_filter(sock: socket.socket) -> None:
    """Let the kernel drop everything else: a busy server is not slowed by being watched."""
    code = b"".join(struct.pack("HBBI", *line) for line in _FILTER)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(_FILTER), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


@contextlib.contextmanager
def packet_socket() -> Iterator[socket.socket]:
    """A packet socket on all interfaces with our filter; OSError when not allowed."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as sock:
        _attach_filter(sock)
        # What came in between opening and filtering is not what we watch for.
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(10_000):
                sock.recv(1)
        yield sock
