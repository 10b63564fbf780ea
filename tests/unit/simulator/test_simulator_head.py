"""The handshake bytes of the faithful controller."""

from __future__ import annotations

import base64
import random
import struct
from datetime import datetime

import pytest

from ptslink.simulator.head import (
    Credentials,
    Identity,
    check_limit,
    handshake_head,
    random_key,
    weak_key,
)

IDENTITY = Identity(
    "AABBCCDDEEFF001122334455",
    firmware="2026-01-02T03:04:05",
    configuration_id="1a2b3c4d",
    credentials=Credentials("test", "test"),
)
PARTS = {
    "authority": "pts.example.test:3000",
    "path": "/ptsWebSocket",
    "own_address": "192.0.2.10",
    "key": "AAECAwQFBgcICQoLDA0ODw==",
    "local_time": datetime.fromisoformat("2026-01-02T03:04:06"),
}
UNSIGNED = (
    b"GET /ptsWebSocket HTTP/1.1\r\n"
    b"Host: pts.example.test:3000\r\n"
    b"Authorization: Basic dGVzdDp0ZXN0\r\n"
    b"Origin: http://192.0.2.10\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n"
    b"X-Pts-Id: AABBCCDDEEFF001122334455\r\n"
    b"X-Pts-Firmware-Version-DateTime: 2026-01-02T03:04:05\r\n"
    b"X-Pts-Configuration-Identifier: 1a2b3c4d\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
)


def test_the_head_is_the_references_byte_for_byte() -> None:
    assert handshake_head(IDENTITY, **PARTS).encode() == UNSIGNED + b"\r\n"  # type: ignore[arg-type]


def test_the_signature_is_the_references_test_vector() -> None:
    signed = Identity(
        IDENTITY.controller_id,
        IDENTITY.firmware,
        IDENTITY.configuration_id,
        IDENTITY.credentials,
        secret="unit-test-key",
    )
    assert (
        handshake_head(signed, **PARTS).encode()
        == (  # type: ignore[arg-type]
            UNSIGNED + b"X-DateTime: 2026-01-02T03:04:06\r\n"
            b"X-Data-Signature: AsT2Yts5GWKrFi91kWhu06iA3Fi1ODem2lncqmLb+sA=\r\n\r\n"
        )
    )


def test_without_a_server_user_there_is_no_authorization() -> None:
    head = handshake_head(Identity("AB"), **PARTS).encode()  # type: ignore[arg-type]
    assert b"Authorization" not in head


@pytest.mark.parametrize("make", [weak_key, random_key])
def test_a_key_is_sixteen_bytes(make) -> None:  # type: ignore[no-untyped-def]
    assert len(base64.b64decode(make(random.Random(1)), validate=True)) == 16


def test_the_usual_key_is_four_small_little_endian_words() -> None:
    words = struct.unpack("<4I", base64.b64decode(weak_key(random.Random(1))))
    assert all(word < 256 for word in words)


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("login", "a" * 10, None),
        ("login", "a" * 11, "login: 11 characters, the controller takes at most 10"),
        ("password", "a" * 11, "password: 11 characters, the controller takes at most 10"),
        ("secret", "a" * 20, None),
        ("secret", "a" * 21, "secret: 21 characters, the controller takes at most 20"),
        ("secret", "schlüssel", "secret: only printable ASCII can be entered in the controller"),
    ],
)
def test_what_a_controller_cannot_hold_is_named(name: str, value: str, wrong: str | None) -> None:
    assert check_limit(name, value) == wrong


def test_the_own_id_as_login_is_exempt() -> None:
    assert check_limit("login", "A" * 24, exempt=True) is None
