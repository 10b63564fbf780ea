"""Single tries beside the link itself: one Upgrade bent in one way, one port, one large message."""

from __future__ import annotations

import base64
import contextlib
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ptslink.doctor.probe import frames
from ptslink.doctor.probe.frames import Frame, decode_frame, encode_masked
from ptslink.doctor.probe.request import RequestHead, new_key, new_probe_id, upgrade_head
from ptslink.doctor.probe.response import NotHttpError, read_response_head, shown
from ptslink.doctor.probe.stream import (
    Address,
    Ended,
    Stream,
    connect,
    errno_name,
    milliseconds_since,
    refusal,
    start_tls,
)
from ptslink.doctor.probe.target import Target
from ptslink.handshake.accept import accept_value

#: How long an error body or an unasked banner is waited for, in seconds.
TAIL_SECONDS = 0.5
BODY_BYTES = 512
#: What is sent of a message that is never finished, in bytes; 64 KB is above every configuration
#: a controller is known to upload (PTS-2 protocol 1.3).
LARGE_BYTES = (4096, 65536)

Bend = Callable[[RequestHead], RequestHead]


def _lower_case(head: RequestHead) -> RequestHead:
    return replace(head, headers=tuple((name.lower(), value) for name, value in head.headers))


#: Deviations of controllers in the field that a server or a proxy may trip over, one at a time.
#: What every firewall or jail takes for an attack (garbage, floods) is left to the simulator.
DEVIATIONS: Mapping[str, Bend] = {
    "lower-case-headers": _lower_case,
    "connection-keep-alive": lambda h: h.with_value("Connection", "keep-alive, Upgrade"),
    "no-connection": lambda h: h.without("Connection"),
    "no-origin": lambda h: h.without("Origin"),
    "subprotocol-chat": lambda h: h.with_value("Sec-WebSocket-Protocol", "chat"),
    "no-pts-headers": lambda h: h.without(
        "X-Pts-Id", "X-Pts-Firmware-Version-DateTime", "X-Pts-Configuration-Identifier"
    ),
    "user-agent": lambda h: h.with_value("User-Agent", "Mozilla/5.0"),
    "key-test": lambda h: h.with_value("Sec-WebSocket-Key", "test"),
    "key-32-bytes": lambda h: h.with_value(
        "Sec-WebSocket-Key", base64.b64encode(bytes(range(32))).decode()
    ),
    "http-1.0": lambda h: replace(h, version="HTTP/1.0"),
    "lf-only": lambda h: replace(h, line_end="\n"),
}


def host_value(name: str) -> Bend:
    """The same request for another site of the server: *name* in ``Host``."""
    return lambda head: head.with_value("Host", name)


#: URIs that official examples and other servers use (PTS-2 protocol 1.1).
PATHS = ("/ptsWebSocket", "/jsonPtsWebsockets", "/jsonPTSWebsockets", "/jsonPTS", "/ws", "/")
#: Ports such servers are found on.
PORTS = (80, 443, 3000, 8080, 8083, 8443)
#: Those of them where TLS is spoken.
TLS_PORTS = frozenset({443, 8443})


@dataclass(frozen=True, slots=True)
class Door:
    """Where to knock: one address, and how to speak once it opens."""

    target: Target
    address: Address
    timeout: float
    context: ssl.SSLContext | None = None
    server_name: str | None = None
    #: Who to be: see ``link.ProbeOptions``.
    controller_id: str | None = None
    credentials: str | None = None

    def at_port(self, port: int) -> Address:
        first, _, *rest = self.address.sockaddr
        return Address(self.address.family, (first, port, *rest))  # type: ignore[arg-type]

    def open(self, port: int | None = None) -> Stream:
        """A connection, with TLS where the target has it; raises ``OSError``."""
        where = self.address if port is None else self.at_port(port)
        stream = connect(where, self.timeout)
        if self.context is not None:
            try:
                start_tls(stream, self.context, self.server_name, self.timeout)
            except BaseException:
                stream.close()
                raise
        return stream

    def head(self, key: str, own_address: str, path: str | None = None) -> RequestHead:
        """A controller's exact Upgrade, under a reserved id unless one was given."""
        host = f"[{own_address}]" if ":" in own_address else own_address
        return upgrade_head(
            authority=self.target.authority,
            path=path or self.target.path,
            key=key,
            origin=f"http://{host}",
            controller_id=self.controller_id or new_probe_id(),
            credentials=self.credentials,
        )


def try_connect(door: Door, port: int) -> dict[str, Any]:
    """Connect to another port of the same address: ``address``, ``family``, ``port``, ``errno``,
    ``icmp``? and ``ms``."""
    start = time.perf_counter()
    told: dict[str, Any] = {"errno": None}
    try:
        connect(door.at_port(port), door.timeout).close()
    except OSError as error:
        told = refusal(error)
    family = "ipv6" if ":" in door.address.host else "ipv4"
    return {
        "address": door.address.host,
        "family": family,
        "port": port,
        **told,
        "ms": milliseconds_since(start),
    }


def hear_banner(door: Door, seconds: float = TAIL_SECONDS) -> dict[str, Any]:
    """What a server says without being asked: ``text``, ``hex`` ("" if nothing), ``errno``."""
    facts: dict[str, Any] = {"address": door.address.host, "port": door.target.port}
    data, ended, errno = b"", None, None
    try:
        stream = connect(door.address, door.timeout)
    except OSError as error:
        return facts | {"text": "", "hex": "", "ended": None, "errno": errno_name(error)}
    try:
        stream.fill(time.monotonic() + seconds)
    except TimeoutError:
        pass  # a server that waits to be asked, as it should
    except OSError as error:
        ended = "fin" if isinstance(error, Ended) else "rst"
    finally:
        data = stream.pending[:64]
        stream.close()
    return facts | {"text": shown(data), "hex": data.hex(), "ended": ended, "errno": errno}


def try_upgrade(door: Door, bend: Bend | None = None, path: str | None = None) -> dict[str, Any]:
    """One Upgrade, bent by *bend* or to another *path*, closed in order if it was accepted.

    The facts are those of ``http.upgrade``: ``status``, ``headers``, ``body``, ``first_bytes``
    (hex), ``ended`` fin|rst|timeout, ``errno``, ``expected``, ``got``, ``accept_ok``, ``scheme``,
    ``port``, ``path``, ``host``, ``at``; what was not seen is left out.
    """
    key = new_key()
    facts: dict[str, Any] = {
        "scheme": "ws" if door.context is None else "wss",
        "port": door.target.port,
        "path": path or door.target.path,
        "host": door.target.authority,
        "at": round(time.time(), 3),
        "errno": None,
    }
    try:
        stream = door.open()
    except OSError as error:
        return facts | {"errno": errno_name(error) or "TLS", "reason": str(error)}
    try:
        head = door.head(key, stream.local_host, path)
        head = bend(head) if bend is not None else head
        key = next((v for n, v in head.headers if n.lower() == "sec-websocket-key"), key)
        facts["path"] = head.path
        facts["host"] = next((v for n, v in head.headers if n.lower() == "host"), None)
        return facts | _exchange(stream, head, key, door.timeout)
    finally:
        stream.close()


def _exchange(stream: Stream, head: RequestHead, key: str, timeout: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    try:
        stream.send(head.encode(), deadline)
        while (answer := read_response_head(stream.pending) if stream.pending else None) is None:
            stream.fill(deadline)
    except NotHttpError as error:
        return {"first_bytes": error.data[:64].hex()}
    except OSError as error:
        ended = "fin" if isinstance(error, Ended) else "rst"
        ended = "timeout" if isinstance(error, TimeoutError) else ended
        left = {"first_bytes": stream.pending[:64].hex()} if stream.pending else {}
        return {"ended": ended, **left}
    expected, got = accept_value(key), answer.get("Sec-WebSocket-Accept")
    facts: dict[str, Any] = {
        "status": answer.status,
        "headers": dict(answer.headers),
        "expected": expected,
        "got": got,
        "accept_ok": got == expected,
    }
    stream.pending = answer.rest
    with contextlib.suppress(OSError):
        if answer.status == 101:
            close = Frame(frames.CLOSE, frames.close_payload(1000))
            stream.send(encode_masked(close), deadline)
            stream.fill(min(deadline, time.monotonic() + TAIL_SECONDS))
        else:
            length = answer.get("Content-Length") or ""
            wanted = min(int(length), BODY_BYTES) if length.isdecimal() else BODY_BYTES
            tail = min(deadline, time.monotonic() + TAIL_SECONDS)
            while len(stream.pending) < wanted:
                stream.fill(tail)
    if answer.status != 101:
        facts["body"] = stream.pending[:BODY_BYTES].decode("utf-8", "replace")
    return facts


def send_large(door: Door, sizes: tuple[int, ...] = LARGE_BYTES) -> dict[str, Any]:
    """Whether bytes in bulk get through: parts of one message that is never finished.

    After each of *sizes* (bytes so far) a ping asks for a pong, which can only come when all that
    went before it arrived. As the message is never whole, no server takes it for an upload.

    Facts: ``steps`` [{``bytes``, ``ms``}] that got through, ``wanted``, ``status``, and on failure
    ``at_bytes``, ``ended``, or ``code`` and ``reason`` of the server's close.
    """
    facts: dict[str, Any] = {"steps": [], "wanted": list(sizes)}
    key = new_key()
    try:
        stream = door.open()
    except OSError as error:
        return facts | {"at_bytes": 0, "errno": errno_name(error)}
    sent = 0
    try:
        deadline = time.monotonic() + door.timeout
        stream.send(door.head(key, stream.local_host).encode(), deadline)
        while (answer := read_response_head(stream.pending) if stream.pending else None) is None:
            stream.fill(deadline)
        facts["status"] = answer.status
        if answer.status != 101:
            return facts | {"at_bytes": 0}
        stream.pending = answer.rest
        for size in sizes:
            start, deadline = time.perf_counter(), time.monotonic() + door.timeout
            opcode = frames.TEXT if sent == 0 else frames.CONTINUATION
            part = Frame(opcode, b" " * (size - sent), fin=False)
            mark = str(size).encode()
            stream.send(encode_masked(part) + encode_masked(Frame(frames.PING, mark)), deadline)
            closed = _await_pong(stream, mark, deadline)
            if closed is not None:
                return facts | {"at_bytes": size, "code": closed[0], "reason": closed[1]}
            sent = size
            facts["steps"].append({"bytes": size, "ms": milliseconds_since(start)})
        close = Frame(frames.CLOSE, frames.close_payload(1000))
        with contextlib.suppress(OSError):
            stream.send(encode_masked(close), deadline)
            stream.fill(min(deadline, time.monotonic() + TAIL_SECONDS))
    except NotHttpError as error:
        return facts | {"at_bytes": sent, "first_bytes": error.data[:64].hex()}
    except OSError as error:
        ended = "fin" if isinstance(error, Ended) else "rst"
        ended = "timeout" if isinstance(error, TimeoutError) else ended
        following = next((size for size in sizes if size > sent), sent)
        return facts | {"at_bytes": following, "ended": ended}
    finally:
        stream.close()
    return facts


def _await_pong(stream: Stream, mark: bytes, deadline: float) -> tuple[int, str] | None:
    """Read until the pong of *mark*; code and reason of a close that came instead."""
    while True:
        while (found := decode_frame(stream.pending)) is None:
            stream.fill(deadline)
        frame, stream.pending = found
        if frame.opcode == frames.PONG and frame.payload == mark:
            return None
        if frame.opcode == frames.PING:
            stream.send(encode_masked(Frame(frames.PONG, frame.payload)), deadline)
        if frame.opcode == frames.CLOSE:
            return frames.read_close(frame.payload)
