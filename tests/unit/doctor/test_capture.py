"""A capture is read the way tshark dissected it: what each connection did, and how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ptslink.doctor import capture
from ptslink.doctor.capture import FIELDS, JOIN, CaptureError, evidence, failed, read_fields, told
from ptslink.doctor.evidence import Case, Status
from ptslink.doctor.verdict import judge

CAPTURED = (Path(__file__).parent / "captures" / "tshark-fields.tsv").read_text()
SITE, SERVER, ROUTER = "198.51.100.20", "192.0.2.7", "203.0.113.1"
SYN, SYN_ACK, ACK, PUSH, FIN, RST = 0x02, 0x12, 0x10, 0x18, 0x11, 0x14
REQUEST = {
    "http.request.method": "GET",
    "http.request.uri": "/ptsWebSocket",
    "http.request.version": "HTTP/1.1",
    "http.request.line": JOIN.join(
        ("Host: 192.0.2.7\\r\\n", "Upgrade: websocket\\r\\n", "Authorization: Basic Zm9v\\r\\n",
         "X-Pts-Id: AABB\\r\\n")
    ),
}  # fmt: skip
SWITCH = {"http.response.code": "101", "http.response.line": "Server: nginx\\r\\n"}


def up(at: float, flags: int, size: int = 0, **more: str) -> dict[str, str]:
    """A packet of the controller's."""
    return packet(at, flags, size, (SITE, 40001), (SERVER, 80), more)


def down(at: float, flags: int, size: int = 0, **more: str) -> dict[str, str]:
    """A packet of the server's."""
    return packet(at, flags, size, (SERVER, 80), (SITE, 40001), more)


def packet(
    at: float, flags: int, size: int, source: tuple[str, int], target: tuple[str, int],
    more: dict[str, str],
) -> dict[str, str]:  # fmt: skip
    return {
        "frame.time_epoch": f"{1_795_000_000 + at:.6f}",
        "tcp.stream": "0",
        "ip.src": source[0],
        "ip.dst": target[0],
        "tcp.srcport": str(source[1]),
        "tcp.dstport": str(target[1]),
        "tcp.flags": f"0x{flags:04x}",
        "tcp.len": str(size),
        "tcp.payload": "ab" * size,
        **more,
    }


def dissected(*packets: dict[str, str]) -> str:
    rows = ["\t".join(FIELDS)]
    rows += ["\t".join(row.get(name, "") for name in FIELDS) for row in packets]
    return "\n".join(rows) + "\n"


def stream(*packets: dict[str, str]) -> dict[str, Any]:
    (facts,), _ = read_fields(dissected(*packets))
    return facts


OPENING = [up(0.0, SYN), down(0.1, SYN_ACK), up(0.2, ACK)]
UPGRADED = [*OPENING, up(0.3, PUSH, 200, **REQUEST), down(0.4, PUSH, 120, **SWITCH)]


def close(code: str, reason: str = "") -> dict[str, str]:
    return {"websocket.opcode": "8", "websocket.payload.close.status_code": code,
            "websocket.payload.close.reason": reason}  # fmt: skip


# What a real tshark printed of nine connections to a real server -> what is told of each.
TOLD = [
    "RST first from the client",
    "FIN first from the client",
    "close 1002 reserved bits must be 0 from the server",
    "close 1002 incorrect masking from the server",
    "close 1000 from the client",
    "-> 404",
    "SYN answered by RST",
    "2 SYN, no answer",
    "TLS alert",
]


def test_every_connection_of_a_real_capture_is_told() -> None:
    streams, icmp = read_fields(CAPTURED)
    assert [words in told(facts) for facts, words in zip(streams, TOLD, strict=True)] == [True] * 9
    assert icmp == []


def test_only_a_link_closed_in_good_order_is_well() -> None:
    streams, _ = read_fields(CAPTURED)
    assert [failed(facts) for facts in streams] == [True] * 4 + [False] + [True] * 4


def test_a_real_captures_request_is_read_without_its_password() -> None:
    streams, _ = read_fields(CAPTURED)
    http = streams[0]["http"]
    assert (http["method"], http["path"], http["version"]) == ("GET", "/ptsWebSocket", "1.1")
    assert http["controller"] == "AABBCCDDEEFF001122334455"
    assert "Authorization" not in http["request"]
    assert stream(*UPGRADED)["http"]["request"] == {
        "Host": "192.0.2.7", "Upgrade": "websocket", "X-Pts-Id": "AABB"
    }  # fmt: skip


def test_frames_are_counted_by_side() -> None:
    streams, _ = read_fields(CAPTURED)
    assert (streams[2]["websocket"]["reserved"], streams[3]["websocket"]["unmasked"]) == (1, 1)
    two = {"websocket.opcode": f"9{JOIN}10", "websocket.mask": f"1{JOIN}1"}
    seen = stream(*UPGRADED, up(1.0, PUSH, 12, **two))["websocket"]
    assert (seen["frames"], seen["pings"], seen["pongs"], seen["unmasked"]) == (
        {"client": 2, "server": 0}, 1, 1, 0
    )  # fmt: skip


def test_the_time_since_the_101_ends_with_the_first_fin() -> None:
    facts = stream(*UPGRADED, down(60.4, FIN), up(60.5, ACK), up(75.0, FIN))
    assert facts["end"] == {"by": "server", "how": "fin", "at": 60.4}
    assert facts["since_101"] == pytest.approx(60.0)
    assert facts["quiet"] == {"client": pytest.approx(60.1), "server": pytest.approx(60.0)}


# packets -> whether the link failed
ENDS = [
    (UPGRADED, False),
    ([*UPGRADED, down(9.0, PUSH, 4, **close("1000")), down(9.1, FIN)], False),
    ([*UPGRADED, down(9.0, PUSH, 4, **close("1012")), down(9.1, FIN)], False),
    ([*UPGRADED, down(9.0, PUSH, 4, **close("1011")), down(9.1, FIN)], True),
    ([*UPGRADED, down(9.0, RST)], True),
    ([up(0.0, SYN), up(1.0, SYN), up(3.0, SYN)], True),
    ([*OPENING, up(0.3, PUSH, 200, **REQUEST), down(0.4, FIN)], True),
]


@pytest.mark.parametrize(("packets", "broken"), ENDS)
def test_a_link_that_did_not_close_in_good_order_failed(
    packets: list[dict[str, str]], broken: bool
) -> None:
    assert failed(stream(*packets)) is broken


def test_lost_packets_are_counted_with_the_size_of_the_largest() -> None:
    again = {"tcp.analysis.retransmission": "1"}
    facts = stream(*UPGRADED, up(1, PUSH, 1400, **again), up(2, PUSH, 90, **again))
    assert (facts["retransmits"], facts["largest_lost"]) == ({"client": 2, "server": 0}, 1400)
    assert "2 retransmissions, up to 1400 bytes" in told(facts)


def test_a_capture_that_begins_amid_a_link_knows_the_server_by_its_port() -> None:
    facts = stream(down(0.0, PUSH, 10), up(0.1, ACK))
    assert (facts["client"], facts["server"], facts["server_port"]) == (SITE, SERVER, 80)
    assert not facts["syn"]
    assert not failed(facts)


def test_an_icmp_error_says_who_sent_it_and_what_about() -> None:
    row = packet(0.5, 0, 0, (ROUTER, 40001), (SITE, 80), {"icmp.type": "3", "icmp.code": "13"})
    row |= {"ip.src": JOIN.join((ROUTER, SITE)), "ip.dst": JOIN.join((SITE, SERVER))}
    streams, icmp = read_fields(dissected(up(0.0, SYN), row))
    assert len(streams) == 1
    about = {"client": SITE, "server": SERVER, "port": 80}
    assert icmp == [{"family": "ipv4", "type": 3, "code": 13, "from": ROUTER, "about": about}]


def test_icmpv6_errors_are_told_and_neighbours_are_not() -> None:
    def icmpv6(kind: str, code: str) -> dict[str, str]:
        return {"icmpv6.type": kind, "icmpv6.code": code, "tcp.dstport": "80",
                "ipv6.src": f"2001:db8::1{JOIN}2001:db8::2", "tcp.stream": "0",
                "ipv6.dst": f"2001:db8::2{JOIN}2001:db8::3"}  # fmt: skip

    _, icmp = read_fields(dissected(icmpv6("1", "4"), icmpv6("135", "0"), icmpv6("128", "0")))
    assert icmp == [
        {"family": "ipv6", "type": 1, "code": 4, "from": "2001:db8::1",
         "about": {"client": "2001:db8::2", "server": "2001:db8::3", "port": 80}}
    ]  # fmt: skip


def test_evidence_has_a_summary_and_a_piece_for_each_connection() -> None:
    streams, icmp = read_fields(CAPTURED)
    summary, *pieces = evidence(streams, icmp, packets=82, name="link.pcap")
    assert summary.seen == "link.pcap: 82 packets, 9 connections, 0 ICMP errors"
    assert [piece.status for piece in pieces].count(Status.OK) == 1
    assert {piece.probe for piece in pieces} == {"capture.stream"}


# packets of a link whose fault nobody listed -> the layer that stands in, a word of the title
UNLISTED = [
    ([up(0.0, SYN), up(1.0, SYN)], "unlisted-tcp", "times out"),
    ([up(0.0, SYN), down(0.1, RST)], "unlisted-tcp", "refused at once"),
    ([*OPENING, up(1, PUSH, 9, **{"tls.alert_message.desc": "42"})], "unlisted-tls", "TLS"),
    ([*OPENING, up(0.3, PUSH, 200, **REQUEST), down(0.4, FIN)], "unlisted-http-upgrade", "answer"),
    ([*UPGRADED, down(9.0, PUSH, 4, **close("4321")), down(9.1, FIN)], "unlisted-ws-protocol",
     "does not last"),
    ([*UPGRADED, down(33.0, RST)], "unlisted-ws-protocol", "does not last"),
]  # fmt: skip


def judged(*packets: dict[str, str]) -> list[str]:
    streams, icmp = read_fields(dissected(*packets))
    found = judge(Case("capture", evidence(streams, icmp, packets=len(packets))), ())
    return [f"{finding.id}: {finding.title}" for finding in found.findings]


@pytest.mark.parametrize(("packets", "layer", "words"), UNLISTED)
def test_a_bad_end_nobody_listed_gets_its_layer(
    packets: list[dict[str, str]], layer: str, words: str
) -> None:
    (found,) = judged(*packets)
    assert found.startswith(layer)
    assert words in found


def test_who_connects_at_the_second_try_is_not_kept_out() -> None:
    missed = [packet(at - 20, flag, 0, (SITE, 40000), (SERVER, 80), {"tcp.stream": "7"})
              for at, flag in ((0.0, SYN), (1.0, SYN))]  # fmt: skip
    orderly = [*UPGRADED, down(9.0, PUSH, 4, **close("1000")), down(9.1, FIN)]
    assert judged(*missed, *orderly) == []
    assert len(judged(*missed)) == 1


def test_the_ports_that_speak_tls_are_told_from_the_others() -> None:
    rows = ["stream\tport\tflags\tpayload", "0\t443\t0x0002\t", "0\t443\t0x0018\t160301",
            "1\t3000\t0x0002\t", "1\t3000\t0x0018\t474554", "2\t40001\t0x0012\t"]  # fmt: skip
    assert capture._ports("\n".join(rows)) == {443: True, 3000: False}


def test_a_missing_tshark_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda _name, **_: None)
    with pytest.raises(CaptureError, match="tshark is not installed"):
        capture.gather(tmp_path / "a.pcap")


def test_the_ttl_of_a_reset_is_told_beside_that_of_the_answers() -> None:
    facts = stream(up(0.0, SYN, **{"ip.ttl": "60"}), down(0.1, SYN_ACK, **{"ip.ttl": "64"}),
                   up(0.2, RST, **{"ip.ttl": "249"}), up(0.3, RST, **{"ip.ttl": "60"}))  # fmt: skip
    assert facts["ttl"] == {"client": 60, "server": 64}
    assert facts["rst_ttl"] == {"client": 249}
