"""Servers on loopback that are right, or wrong in exactly one way."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable

from ptslink.doctor.probe import frames
from ptslink.doctor.probe.frames import Frame, decode_frame, encode_frame
from ptslink.handshake.accept import accept_value

TLS_HANDSHAKE = b"\x16\x03"

Script = Callable[["Peer"], None]


class Peer:
    """The server's side of one connection; closed when the script returns."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = b""
        self.pending = b""

    def read_head(self) -> str:
        """The request head, as text without the empty line; "" when the client went away."""
        while b"\r\n\r\n" not in self.pending and b"\n\n" not in self.pending:
            data = self.sock.recv(65536)
            if not data or data.startswith(TLS_HANDSHAKE):
                return ""
            self.pending += data
        end = b"\r\n\r\n" if b"\r\n\r\n" in self.pending else b"\n\n"
        self.head, _, self.pending = self.pending.partition(end)
        return self.head.decode()

    def header(self, name: str) -> str | None:
        for line in self.head.decode().split("\r\n")[1:]:
            n, _, value = line.partition(": ")
            if n.lower() == name.lower():
                return value
        return None

    @property
    def is_upgrade(self) -> bool:
        return self.header("Upgrade") is not None

    def send(self, data: bytes | str) -> None:
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def send_frame(self, frame: Frame, mask: bytes | None = None) -> None:
        self.send(encode_frame(frame, mask))

    def accept(self, *, value: str | None = None, extra: str = "") -> None:
        accept = accept_value(self.header("Sec-WebSocket-Key") or "") if value is None else value
        self.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n{extra}\r\n"
        )

    def next_frame(self) -> Frame | None:
        while (found := decode_frame(self.pending)) is None:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.pending += data
        frame, self.pending = found
        return frame

    def serve_frames(self) -> None:
        """Answer pings and the close, until the client is gone."""
        while (frame := self.next_frame()) is not None:
            assert frame.masked, "a client must mask (RFC 6455 5.1)"
            if frame.opcode == frames.PING:
                self.send_frame(Frame(frames.PONG, frame.payload))
            elif frame.opcode == frames.CLOSE:
                self.send_frame(Frame(frames.CLOSE, frame.payload))
                return

    def answer(self, status: str, body: str = "", extra: str = "") -> None:
        self.send(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{extra}"
            f"Connection: close\r\n\r\n{body}"
        )

    def reset(self) -> None:
        """Go away with a RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def right(peer: Peer) -> None:
    """A server as it should be: 426 for a GET, 101 and pongs for a controller."""
    if not peer.read_head():
        return
    if not peer.is_upgrade:
        peer.answer("426 Upgrade Required", "connect a controller here\n", "Upgrade: websocket\r\n")
        return
    peer.accept()
    peer.serve_frames()


def upgraded(script: Script) -> Script:
    """Right until the 101 is sent; then *script*."""

    def run(peer: Peer) -> None:
        if not peer.read_head():
            return
        if not peer.is_upgrade:
            peer.answer("426 Upgrade Required")
            return
        peer.accept()
        script(peer)

    return run


class ScriptedServer:
    """Runs a script for each connection, in threads that are joined at the end."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None) -> None:
        self.script, self.tls = script, tls
        self.heads: list[str] = []
        self.failures: list[BaseException] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.sockets: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    @property
    def url(self) -> str:
        scheme = "wss" if self.tls else "ws"
        return f"{scheme}://127.0.0.1:{self.port}/ptsWebSocket"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,))
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        try:
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            peer = Peer(sock)
            try:
                self.script(peer)
            finally:
                if peer.head:
                    self.heads.append(peer.head.decode("latin-1"))
        except OSError:
            pass  # the client went away, or we were told to stop
        except BaseException as error:
            self.failures.append(error)
        finally:
            sock.close()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)
        if self.failures:
            raise self.failures[0]
