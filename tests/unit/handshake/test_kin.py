"""A head that differs from an earlier one in its key alone is read and judged as if it were new."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptslink.handshake import head as heads
from ptslink.handshake.accept import accept_value
from ptslink.handshake.head import Head, HeadError, parse_head
from ptslink.handshake.judge import Rules, judge
from ptslink.handshake.judge import _judge as judge_anew
from support.wire import request

RULES = Rules(path="ptsWebSocket")
KEYS = [base64.b64encode(bytes([number]) * 16).decode() for number in range(3)]


def read(raw: bytes, *, anew: bool = False) -> Head | HeadError:
    try:
        return heads._parse(raw) if anew else parse_head(raw)
    except HeadError as error:
        return error


def same(one: Head | HeadError, other: Head | HeadError) -> bool:
    if isinstance(one, HeadError) or isinstance(other, HeadError):
        return str(one) == str(other)
    return one == other and one._values == other._values


def with_key(key: str, **changes: str) -> bytes:
    return request(Sec_WebSocket_Key=key, **changes)


def test_a_controller_that_comes_again_is_known_by_all_but_its_key() -> None:
    first, again, other = (
        parse_head(with_key(key, X_Pts_Id=id_))
        for key, id_ in [
            (KEYS[0], "A1"),
            (KEYS[1], "A1"),
            (KEYS[1], "A2"),
        ]
    )
    assert first.kin is again.kin is not None
    assert other.kin is not first.kin
    assert again == heads._parse(with_key(KEYS[1], X_Pts_Id="A1"))


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(with_key("test"), id="no key of 16 bytes"),
        pytest.param(with_key("A" * 22 + "B="), id="one bit too many"),
        pytest.param(request(drop=("Sec-WebSocket-Key",)), id="no key"),
        pytest.param(
            with_key(KEYS[0]).replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Key: x\r\n\r\n"),
            id="two keys",
        ),
        pytest.param(b"\r\n" + with_key(KEYS[0]), id="an empty line before it"),
        pytest.param(with_key(KEYS[0], X_Long="x" * 1000), id="long"),
        pytest.param(with_key(KEYS[0]).replace(b"\r\n", b"\n"), id="lines ended by LF"),
    ],
)
def test_what_is_odd_or_long_is_not_remembered(raw: bytes) -> None:
    head = parse_head(raw)
    assert head.kin is None
    assert head == heads._parse(raw)


#: Lines that a head may have around its key, right and wrong ones.
LINES = st.lists(
    st.sampled_from(
        [
            *("Host: a", "Upgrade: websocket", "Upgrade: WebSocket", "Connection: Upgrade"),
            *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", "X-Pts-Id: ab12"),
            *("Authorization: Basic YTpi", "Sec-WebSocket-Protocol: a, b", "Content-Length: 1"),
            *("no colon", " folded: x", "X: \xe9", "sec-websocket-key: x", f"X: {KEYS[0]}"),
            f"Sec-WebSocket-Key: {KEYS[2]}",
        ]
    ),
    max_size=8,
)


@given(
    request_line=st.sampled_from(
        ["GET /ptsWebSocket HTTP/1.1", "GET / HTTP/1.0", "POST /pts HTTP/1.1", "GET  HTTP/1.1", ""]
    ),
    before=LINES,
    after=LINES,
    key=st.sampled_from([*KEYS, "test", ""]),
    profile=st.sampled_from(["lenient", "strict"]),
    users=st.sampled_from([{}, {"a": "b"}, {"a": "c"}]),
    secret=st.sampled_from(["", "secret"]),
)
def test_reading_and_judging_from_memory_is_reading_and_judging(
    request_line: str,
    before: list[str],
    after: list[str],
    key: str,
    profile: str,
    users: dict[str, str],
    secret: str,
) -> None:
    rules = Rules(path="ptsWebSocket", profile=profile, users=users, secret=secret)  # type: ignore[arg-type]
    for used in (KEYS[0], key):  # the first may be what is remembered
        lines = [request_line, *before, f"Sec-WebSocket-Key: {used}", *after, "", ""]
        raw = "\r\n".join(lines).encode("latin-1")
        found, anew = read(raw), read(raw, anew=True)
        assert same(found, anew)
        if isinstance(found, Head) and isinstance(anew, Head):
            assert judge(found, rules) == judge_anew(anew, rules)


def test_other_rules_are_another_verdict() -> None:
    head = parse_head(with_key(KEYS[0], X_Pts_Id="A1"))
    closed = replace(RULES, allowed=frozenset({"B2"}))
    assert [judge(head, rules).status for rules in (RULES, closed, RULES)] == [101, 403, 101]


def test_a_signature_is_verified_each_time() -> None:
    signed = Rules(path="ptsWebSocket", secret="secret")
    for key in KEYS:
        head = parse_head(with_key(key, X_DateTime="x", X_Data_Signature="y"))
        assert judge(head, signed).code == "signature-wrong"
        assert head.kin is not None
        assert head.kin.judged is None


@pytest.mark.parametrize("key", KEYS)
def test_each_key_has_its_own_answer(key: str) -> None:
    headers = dict(judge(parse_head(with_key(key)), RULES).headers)
    assert headers["Sec-WebSocket-Accept"] == accept_value(key)
