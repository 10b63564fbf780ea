"""Who refused a connection, how far the way goes, and what name servers say."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ptslink.doctor.evidence import Status
from ptslink.doctor.probe import names, path, stream
from ptslink.doctor.probe import survey as survey_module
from ptslink.doctor.probe.names import ask, ask_all, question, read_answer, servers
from ptslink.doctor.probe.path import trace
from ptslink.doctor.probe.stream import Address, ConnectFailed, connect, refusal

TARGET = Address(socket.AF_INET, ("192.0.2.7", 80))


class Refused:
    """A socket whose connection ends with *code*, and the ICMP error the kernel keeps for it."""

    def __init__(self, code: int, kept: bytes | None) -> None:
        self.code, self.kept = code, kept

    def __call__(self, *_: object) -> Refused:
        return self

    def connect(self, _: object) -> None:
        raise OSError(self.code, "no")

    def recvmsg(self, *_: object) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        if self.kept is None:
            raise BlockingIOError
        return b"", [(0, 11, self.kept)], 0, None

    def settimeout(self, _: float) -> None: ...
    def setblocking(self, _: bool) -> None: ...
    def setsockopt(self, *_: object) -> None: ...
    def close(self) -> None: ...


def kept(sender: str, kind: int, code: int, origin: int = 2) -> bytes:
    """``struct sock_extended_err`` and the sender's address behind it (linux/errqueue.h)."""
    head = struct.pack("=IBBBBII", errno.EHOSTUNREACH, origin, kind, code, 0, 0, 0)
    if ":" in sender:
        return head + struct.pack("=HHI", socket.AF_INET6, 0, 0) + socket.inet_pton(
            socket.AF_INET6, sender) + b"\0" * 4  # fmt: skip
    return head + struct.pack("=HH", socket.AF_INET, 0) + socket.inet_aton(sender) + b"\0" * 8


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        (errno.ECONNREFUSED, None, {"errno": "ECONNREFUSED"}),
        (errno.EHOSTUNREACH, kept("192.0.2.1", 3, 13),
         {"errno": "EHOSTUNREACH", "icmp": {"from": "192.0.2.1", "type": 3, "code": 13}}),
        (errno.ECONNREFUSED, kept("2001:db8::7", 1, 4, origin=3),
         {"errno": "ECONNREFUSED", "icmp": {"from": "2001:db8::7", "type": 1, "code": 4}}),
        # An error of the machine's own (SO_EE_ORIGIN_LOCAL) names nobody.
        (errno.EHOSTUNREACH, kept("192.0.2.1", 0, 0, origin=1), {"errno": "EHOSTUNREACH"}),
        (errno.EHOSTUNREACH, b"short", {"errno": "EHOSTUNREACH"}),
    ],
)  # fmt: skip
def test_who_refused_is_told_apart_from_a_reset(
    monkeypatch: pytest.MonkeyPatch, code: int, error: bytes | None, told: dict[str, Any]
) -> None:
    monkeypatch.setattr(stream.socket, "socket", Refused(code, error))
    with pytest.raises(ConnectFailed) as failed:
        connect(TARGET, 1.0)
    assert refusal(failed.value) == told


def test_who_refused_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
        sock.settimeout(5.0)
        sock.connect(server.getsockname())
        began = time.monotonic()
        assert stream._icmp(sock) is None
        assert time.monotonic() - began < 2.0


def routed(way: list[str | None], last: OSError | None) -> Any:
    """A ``connect`` through routers: those of *way* (None: a silent one), then *last*."""

    def connecting(_address: Address, _timeout: float, ttl: int | None = None) -> Any:
        assert ttl is not None
        if ttl > len(way):
            if last is None:
                return socket.socket()
            raise last
        router = way[ttl - 1]
        if router is None:
            raise TimeoutError
        exceeded = {"from": router, "type": 11, "code": 0}
        raise ConnectFailed(OSError(errno.EHOSTUNREACH, "no route"), exceeded)

    return connecting


PROHIBITED = ConnectFailed(
    OSError(errno.EHOSTUNREACH, ""), {"from": "198.51.100.1", "type": 3, "code": 13}
)


@pytest.mark.parametrize(
    ("way", "last", "ended", "words"),
    [
        (["10.0.0.1", "198.51.100.1"], TimeoutError(), "silent",
         "10.0.0.1, 198.51.100.1; nothing answers behind that"),
        (["10.0.0.1", None, "198.51.100.1"], TimeoutError(), "silent", "10.0.0.1, ?, 198.51.100.1"),
        (["10.0.0.1"], PROHIBITED, "refused", "198.51.100.1; it sends ICMP 3/13"),
        (["10.0.0.1"], ConnectionRefusedError(errno.ECONNREFUSED, ""), "answered", "192.0.2.7"),
        (["10.0.0.1"], None, "answered", "10.0.0.1, 192.0.2.7"),
        ([], TimeoutError(), "silent", "no router on the way answers"),
    ],
)  # fmt: skip
def test_the_way_is_told_up_to_the_last_that_spoke(
    monkeypatch: pytest.MonkeyPatch,
    way: list[str | None],
    last: OSError | None,
    ended: str,
    words: str,
) -> None:
    monkeypatch.setattr(path, "connect", routed(way, last))
    piece = trace(TARGET)
    assert (piece.status, piece.facts["ended"]) == (Status.OK, ended)
    assert words in piece.seen


def test_a_way_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "connect", routed(["10.0.0.1"] * 99, TimeoutError()))
    assert len(trace(TARGET).facts["hops"]) == path.MOST_HOPS


@pytest.fixture
def name_server() -> Iterator[tuple[int, list[int]]]:
    """A name server on loopback: its port, and a list holding the code it answers with."""
    code = [0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)

        def serve() -> None:
            data, client = sock.recvfrom(512)
            number = struct.unpack_from("!H", data)[0]
            # A stray reply to somebody else's question comes first.
            for own in (number ^ 1, number):
                answers = 2 if code[0] == 0 else 0
                head = struct.pack("!6H", own, 0x8180 | code[0], 1, answers, 0, 0)
                sock.sendto(head + data[12:], client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield sock.getsockname()[1], code
        thread.join()


@pytest.mark.parametrize(
    ("code", "rcode", "answers"),
    [(0, "NOERROR", 2), (2, "SERVFAIL", 0), (3, "NXDOMAIN", 0), (5, "REFUSED", 0), (9, "9", 0)],
)
def test_a_name_servers_own_word_is_told(
    name_server: tuple[int, list[int]], code: int, rcode: str, answers: int
) -> None:
    port, served = name_server
    served[0] = code
    facts = ask("127.0.0.1", "pts.example.test", 2.0, port)
    assert (facts["rcode"], facts["answers"], facts["errno"]) == (rcode, answers, None)


def test_a_name_server_that_is_not_there_is_told_apart_from_one_that_is_silent() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        assert ask("127.0.0.1", "pts.example.test", 0.1, port)["errno"] == "ETIMEDOUT"
    assert ask("127.0.0.1", "pts.example.test", 1.0, port)["errno"] == "ECONNREFUSED"


def test_what_cannot_be_a_name_is_not_asked() -> None:
    assert ask("127.0.0.1", "pts..example", 1.0)["errno"] == "EINVAL"


def test_the_question_is_the_one_of_the_standard() -> None:
    expected = "1234 0100 0001 0000 0000 0000 03707473 026578 00 0001 0001"
    assert question("pts.ex.", 0x1234) == bytes.fromhex(expected)
    assert read_answer(b"short", 1) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# none\nsearch example.test\n", ["127.0.0.1"]),
        ("nameserver 192.0.2.1\nnameserver fe80::1%eth0\n", ["192.0.2.1", "fe80::1%eth0"]),
        ("nameserver nonsense\n" + "nameserver 192.0.2.1\n" * 5, ["192.0.2.1"] * 3),
    ],
)
def test_the_servers_are_those_the_c_library_asks(text: str, expected: list[str]) -> None:
    assert servers(text) == expected


def test_where_no_server_is_known_nothing_is_inferred(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(names, "RESOLV_CONF", tmp_path / "missing")
    [piece] = ask_all("pts.example.test", 0.1)
    assert piece.status is Status.SKIPPED


def test_name_servers_are_asked_where_resolving_failed_and_only_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\n")
    monkeypatch.setattr(names, "RESOLV_CONF", resolv)

    def fails(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(stream.socket, "getaddrinfo", fails)
    found = list(survey_module.survey("ws://pts.example.test/ptsWebSocket", timeout=0.2))
    [piece] = [p for p in found if p.probe == "dns.server"]
    assert piece.facts["server"] == "127.0.0.1"
    assert piece.facts["variation"] is True
