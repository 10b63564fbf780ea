from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptslink.handshake.head import Head, HeadError, head_end, looks_wrong, parse_head

PLAIN = b"GET /ptsWebSocket HTTP/1.1\r\nHost: x:3000\r\nX-Pts-Id: AB\r\n\r\n"


def test_every_byte_of_the_head_is_kept() -> None:
    assert parse_head(PLAIN).raw == PLAIN


def test_names_are_matched_without_regard_to_case_and_keep_theirs() -> None:
    head = parse_head(b"GET / HTTP/1.1\r\nhOsT: a\r\n\r\n")
    assert head.get("host") == "a"
    assert head.fields == (("hOsT", "a"),)


def test_secrets_do_not_reach_a_log() -> None:
    head = parse_head(
        b"GET / HTTP/1.1\r\nAuthorization: Basic c2VjcmV0\r\nX-Data-Signature: sig\r\n"
        b"X-Pts-Id: AB\r\n\r\n"
    )
    assert head.redacted() == [
        ("Authorization", "<redacted>"),
        ("X-Data-Signature", "<redacted>"),
        ("X-Pts-Id", "AB"),
    ]


def test_of_a_line_that_was_left_out_a_log_has_the_name() -> None:
    head = parse_head(b"GET / HTTP/1.1\r\nHost: a b:c\r\nAuthorization : Basic c2VjcmV0\r\n\r\n")
    assert head.get("authorization") is None
    assert head.redacted() == [("Host", "a b:c"), ("Authorization ", "<left out>")]


@pytest.mark.parametrize(
    ("raw", "flaws"),
    [
        (PLAIN, ()),
        (PLAIN.replace(b"\r\n", b"\n"), ("bare-lf",)),
        (b"\r\n\r\n" + PLAIN, ("leading-empty-lines",)),
        (b"GET / HTTP/1.1\r\nHost: caf\xe9\r\n\r\n", ("non-ascii-value",)),
        (b"GET / HTTP/1.1\r\nHo st: x\r\n\r\n", ("blank-in-header-name",)),
    ],
)
def test_tolerated_flaws_are_named(raw: bytes, flaws: tuple[str, ...]) -> None:
    assert parse_head(raw).flaws == flaws


@pytest.mark.parametrize(
    ("start", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", "tls-on-plain-port"),
        (b"\x81\x85abcd", "not-http"),
        (b"\x00\x00", "not-http"),
        (b"{}", "not-http"),
        (b"PROXY UNKNOWN\r\n", "proxy-protocol"),
        (b"\r\n\r\n\x00\r\nQUIT\n\x20", "proxy-protocol"),
        (b"PROXY", None),
        (b"GET", None),
        (b"\r\n", None),
        (b"", None),
    ],
)
def test_the_first_bytes_tell_what_cannot_become_a_request(start: bytes, code: str | None) -> None:
    error = looks_wrong(start)
    assert (error.code if error else None) == code


@given(st.lists(st.integers(1, 40), max_size=12), st.sampled_from([PLAIN, b"\r\n" + PLAIN]))
def test_the_end_is_found_wherever_the_segments_are_cut(cuts: list[int], raw: bytes) -> None:
    data = raw + b"rest"
    buffer = bytearray()
    scanned = 0
    found = -1
    at = 0
    for cut in [*cuts, len(data)]:
        buffer += data[at : at + cut]
        at += cut
        found = head_end(buffer, scanned)
        if found >= 0:
            break
        scanned = len(buffer)
    assert found == len(raw)


@given(st.binary(max_size=400))
def test_any_bytes_either_parse_or_are_refused_by_name(noise: bytes) -> None:
    for raw in (noise + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + noise + b"\r\n\r\n"):
        end = head_end(raw)
        assert end >= 0 or not raw.strip(b"\r\n")
        if end < 0:
            continue
        outcome = parsed_or_refused(raw[:end])
        if isinstance(outcome, HeadError):
            assert outcome.status in (400, 414, 431, 505)
            assert outcome.code
            assert str(outcome)
        else:
            assert outcome.raw in raw
            assert all(name and "\r" not in value for name, value in outcome.fields)


def parsed_or_refused(raw: bytes) -> Head | HeadError:
    try:
        return parse_head(raw)
    except HeadError as error:
        return error


_token = st.text("abcdefghijklmnopqrstuvwxyzABCDEFXYZ-", min_size=1, max_size=20)
_value = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)


@given(st.lists(st.tuples(_token, _value), max_size=20))
def test_what_is_written_is_read(fields: list[tuple[str, str]]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    raw = f"GET /a HTTP/1.1\r\n{lines}\r\n".encode()
    assert head_end(raw) == len(raw)
    assert parse_head(raw).fields == tuple(fields)
