"""Small strangers of the network: a banner, a web page, a site's old HTTP proxy, DNS records, and
connections enough to fill a firewall's memory."""

from __future__ import annotations

import functools
import socket
import struct
import sys
import threading
from pathlib import Path


def banner(port: int, text: str) -> None:
    """Say *text* to whoever connects, like an SSH server."""
    with socket.create_server(("", port)) as listener:
        while True:
            link, _ = listener.accept()
            with link:
                link.sendall(text.encode() + b"\r\n")
                link.settimeout(1)
                try:
                    link.recv(4096)
                except OSError:
                    continue


def http(port: int, server: str, status: str = "404 Not Found", *headers: str) -> None:
    """Answer every request the same way: a router's pages, a captive portal, a proxy's refusal."""
    body = f"<html><body><h1>{status}</h1></body></html>".encode()
    told = (f"Server: {server}", *headers, f"Content-Length: {len(body)}")
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{line}\r\n" for line in told)
    with socket.create_server(("", port)) as listener:
        while True:
            link, _ = listener.accept()
            threading.Thread(
                target=_answer, args=(link, head.encode() + b"\r\n" + body), daemon=True
            ).start()


def _answer(link: socket.socket, data: bytes) -> None:
    with link:
        link.settimeout(2)
        try:
            link.recv(4096)
            link.sendall(data)
        except OSError:
            return


#: What a proxy does not pass on (RFC 9110 7.6.1): one that knows no WebSocket drops these.
HOP_BY_HOP = ("connection:", "upgrade:", "keep-alive:", "proxy-connection:")


def relay(port: int, host: str, host_port: int) -> None:
    """A site's transparent proxy that knows no WebSocket: passes requests on, less the Upgrade."""
    with socket.create_server(("", port)) as listener:
        while True:
            link, _ = listener.accept()
            threading.Thread(target=_relay, args=(link, host, host_port), daemon=True).start()


def _relay(link: socket.socket, host: str, port: int) -> None:
    via = b"Via: 1.1 site-gateway (squid/5.7)"
    try:
        with link, socket.create_connection((host, port), 5) as onward:
            link.settimeout(5)
            head = b""
            while b"\r\n\r\n" not in head and (part := link.recv(4096)):
                head += part
            request, *lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")
            kept = [line for line in lines if not line.decode().lower().startswith(HOP_BY_HOP)]
            onward.sendall(b"\r\n".join([request, *kept, via, b"Connection: close", b"", b""]))
            answer = b""
            while part := onward.recv(4096):
                answer += part
            status, _, rest = answer.partition(b"\r\n")
            link.sendall(b"\r\n".join([status, via, rest]))
    except OSError:
        return


def names(address: str, *records: str) -> None:
    """A name server on *address*: ``name=ADDRESS`` records; other names do not exist."""
    table: dict[str, list[str]] = {}
    for record in records:
        name, _, value = record.partition("=")
        table.setdefault(name.lower(), []).append(value)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))
        while True:
            query, peer = sock.recvfrom(512)
            sock.sendto(reply(query, table), peer)


def reply(query: bytes, table: dict[str, list[str]]) -> bytes:
    """The DNS answer to *query* (RFC 1035 4.1)."""
    labels, position = [], 12
    while (length := query[position]) != 0:
        labels.append(query[position + 1 : position + 1 + length].decode("ascii", "replace"))
        position += length + 1
    kind = struct.unpack_from("!H", query, position + 1)[0]
    question = query[12 : position + 5]
    values = table.get(".".join(labels).lower())
    answers = b""
    count = 0
    for value in values or ():
        family, code = (socket.AF_INET6, 28) if ":" in value else (socket.AF_INET, 1)
        if code == kind:
            packed = socket.inet_pton(family, value)
            answers += struct.pack("!HHHIH", 0xC00C, code, 1, 5, len(packed)) + packed
            count += 1
    flags = 0x8180 if values is not None else 0x8183
    return query[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + question + answers


def mute(host: str, port: int, controller: str) -> None:
    """A controller that makes the link and says no word, not even a pong. It comes again."""
    request = (
        f"GET /ptsWebSocket HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Pts-Id: {controller}\r\n\r\n"
    )
    while True:
        with socket.create_connection((host, port)) as link:
            link.sendall(request.encode())
            while link.recv(4096):
                pass


#: ctnetlink (linux/netfilter/nfnetlink_conntrack.h): subsystem 1, messages "new" and "delete".
_NEW, _DELETE = 1 << 8, 1 << 8 | 2
_REQUEST, _CREATE = 0x001, 0x400
_NESTED = 0x8000
#: Seen in both directions, assured, confirmed: not given up for a newcomer.
_ASSURED = 1 << 1 | 1 << 2 | 1 << 3
_TCP, _ESTABLISHED = 6, 3
_NETFILTER_SYSTEM = 12
_SYSCTL = Path("/proc/sys/net/netfilter")
#: More than a computer's default is not filled.
MOST_TRACKED = 300_000


def fill(seconds: int) -> None:
    """Fill the firewall's memory of this network namespace with connections nobody has, between
    documentation addresses (RFC 5737), which it forgets after *seconds*."""
    most = int((_SYSCTL / "nf_conntrack_max").read_text())
    if most > MOST_TRACKED:
        raise SystemExit(f"nf_conntrack_max is {most}: more than {MOST_TRACKED} are not filled")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER_SYSTEM) as sock:
        for number in range(0, most, 100):
            sock.send(b"".join(tracked(one, seconds) for one in range(number, number + 100)))
    print((_SYSCTL / "nf_conntrack_count").read_text().strip(), "of", most)


def forget() -> None:
    """Empty the firewall's memory of this network namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER_SYSTEM) as sock:
        sock.send(struct.pack("=IHHIIBBH", 20, _DELETE, _REQUEST, 0, 0, 0, 0, 0))


def tracked(number: int, seconds: int) -> bytes:
    """The message that makes the kernel remember an established TCP connection; each *number* is
    another one."""
    subnet, port = divmod(number, 60_000)
    return struct.pack("!H", 1024 + port).join(_around_port(subnet, seconds))


@functools.cache
def _around_port(subnet: int, seconds: int) -> list[bytes]:
    """The parts of the message between which a port stands."""
    port = 0xFFFF  # occurs nowhere else in it
    source, target = socket.inet_aton(f"192.0.2.{subnet}"), socket.inet_aton("198.51.100.1")
    body = struct.pack("!BBH", socket.AF_INET, 0, 0)
    body += _nested(1, *_ends(source, target, port, 9))
    body += _nested(2, *_ends(target, source, 9, port))
    body += _attribute(3, struct.pack("!I", _ASSURED))
    body += _nested(4, _nested(1, _attribute(1, bytes([_ESTABLISHED]))))
    body += _attribute(7, struct.pack("!I", seconds))
    head = struct.pack("=IHHII", 16 + len(body), _NEW, _REQUEST | _CREATE, 0, 0)
    return (head + body).split(port.to_bytes(2, "big"))


def _ends(source: bytes, target: bytes, port: int, to: int) -> tuple[bytes, bytes]:
    protocol = _attribute(1, bytes([_TCP])), _attribute(2, struct.pack("!H", port))
    return (
        _nested(1, _attribute(1, source), _attribute(2, target)),
        _nested(2, *protocol, _attribute(3, struct.pack("!H", to))),
    )


def _nested(kind: int, *parts: bytes) -> bytes:
    return _attribute(kind | _NESTED, b"".join(parts))


def _attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "banner":
        banner(int(words[0]), words[1])
    elif verb == "http":
        http(int(words[0]), *words[1:])
    elif verb == "fill":
        fill(int(words[0]))
    elif verb == "mute":
        mute(words[0], int(words[1]), words[2])
    elif verb == "forget":
        forget()
    elif verb == "relay":
        relay(int(words[0]), words[1], int(words[2]))
    else:
        names(*words)
