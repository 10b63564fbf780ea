from __future__ import annotations

import base64

import pytest

from ptslink.handshake import signature
from ptslink.handshake.head import parse_head
from ptslink.handshake.judge import Rules, Verdict, judge
from ptslink.handshake.path import link_path
from support.wire import request

RULES = Rules(path="ptsWebSocket", alternatives=("pts", "websocket", ""))
STRICT = Rules(path="ptsWebSocket", alternatives=("pts", "websocket", ""), profile="strict")


def verdict(raw: bytes, rules: Rules = RULES) -> Verdict:
    return judge(parse_head(raw), rules)


#: name of the deviation -> (request, status of the strict refusal or 101, leniency noted)
DEVIATIONS = {
    "the guide's key": (request(Sec_WebSocket_Key="test"), 400, "key-not-16-bytes"),
    "a key of 15 bytes": (
        request(Sec_WebSocket_Key=base64.b64encode(b"x" * 15).decode()),
        400,
        "key-not-16-bytes",
    ),
    "no Connection header": (request(drop=("Connection",)), 400, "connection-without-upgrade"),
    "Connection: close": (request(Connection="close"), 400, "connection-without-upgrade"),
    "HTTP/1.0": (request(http="HTTP/1.0"), 505, "http-1.0"),
    "lines ended by LF": (request().replace(b"\r\n", b"\n"), 400, "bare-lf"),
    "no Host": (request(drop=("Host",)), 400, "missing-host"),
    "Upgrade: WebSocket": (request(Upgrade="WebSocket"), 101, "upgrade-letter-case"),
    "Upgrade: WEBSOCKET": (request(Upgrade="WEBSOCKET"), 101, "upgrade-letter-case"),
}


@pytest.mark.parametrize("name", DEVIATIONS)
def test_lenient_accepts_the_deviation_and_names_it(name: str) -> None:
    raw, _, note = DEVIATIONS[name]
    found = verdict(raw)
    assert found.status == 101
    assert found.notes == (note,)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_strict_is_the_rfc_to_the_letter(name: str) -> None:
    raw, status, note = DEVIATIONS[name]
    found = verdict(raw, STRICT)
    assert found.status == status
    if status != 101:
        assert found.code == note


def test_a_faithful_handshake_needs_no_leniency() -> None:
    for rules in (RULES, STRICT):
        found = verdict(request(), rules)
        assert (found.status, found.notes) == (101, ())


@pytest.mark.parametrize(
    ("target", "accepted"),
    [
        ("/ptsWebSocket", True),
        ("/ptswebsocket", True),
        ("/PTSWEBSOCKET/", True),
        ("//ptsWebSocket", True),
        ("/ptsWebSocket//", True),
        ("/ptsWebSocket?x=1", True),
        ("/pts%57ebSocket", True),
        ("http://192.0.2.1:3000/ptsWebSocket", True),
        ("/pts", True),
        ("/websocket", True),
        ("/", True),
        ("//", True),
        ("/ptsWebSockets", False),
        ("/ptsWebSocket/x", False),
        ("/jsonPTS", False),
        ("*", False),
    ],
)
def test_paths_as_operators_type_them(target: str, accepted: bool) -> None:
    found = verdict(request(target))
    assert (found.status == 101) is accepted
    if not accepted:
        assert found.status == 404
        assert "/ptsWebSocket" in found.reason


def test_a_path_with_slashes_inside() -> None:
    rules = Rules(path="api/websocket")
    assert verdict(request("/api/websocket"), rules).status == 101
    assert link_path("/API//websocket/") == "api/websocket"


@pytest.mark.parametrize("origin", ["http://192.0.2.10", "https://192.0.2.10:443", "null", "x"])
def test_any_origin_and_none_is_accepted(origin: str) -> None:
    assert verdict(request(Origin=origin)).status == 101
    assert verdict(request(drop=("Origin",))).status == 101


def headers(found: Verdict) -> dict[str, str]:
    return dict(found.headers)


def test_a_subprotocol_is_answered_only_if_offered() -> None:
    assert "Sec-WebSocket-Protocol" not in headers(verdict(request()))
    offered = verdict(request(Sec_WebSocket_Protocol="chat, other"))
    assert headers(offered)["Sec-WebSocket-Protocol"] == "chat"
    only = Rules(path="ptsWebSocket", subprotocols=("other",))
    offered = verdict(request(Sec_WebSocket_Protocol="chat, other"), only)
    assert headers(offered)["Sec-WebSocket-Protocol"] == "other"
    offered = verdict(request(Sec_WebSocket_Protocol="chat"), only)
    assert "Sec-WebSocket-Protocol" not in headers(offered)


def test_compression_is_never_negotiated() -> None:
    found = verdict(request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits"))
    assert found.status == 101
    assert "Sec-WebSocket-Extensions" not in headers(found)


@pytest.mark.parametrize(
    ("sent", "id_", "notes"),
    [
        ("AABBCCDDEEFF001122334455", "AABBCCDDEEFF001122334455", ()),
        ("aabbccddeeff001122334455", "AABBCCDDEEFF001122334455", ()),
        ("7", "7", ()),
        ("AABBCCDDEEFF0011223344556", "", ("malformed-controller-id",)),
        ("../../etc/passwd", "", ("malformed-controller-id",)),
        (None, "", ("missing-controller-id",)),
    ],
)
def test_controller_ids_are_normalised_and_never_a_reason_to_refuse(sent, id_, notes) -> None:
    raw = request(drop=("X-Pts-Id",)) if sent is None else request(X_Pts_Id=sent)
    found = verdict(raw)
    assert found.status == 101
    assert found.identity.controller == id_
    assert found.notes == notes


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("25-01-06T23:59:14", "2025-01-06T23:59:14"),
        ("2025-01-06T23:59:14", "2025-01-06T23:59:14"),
        ("yesterday", None),
        (None, None),
    ],
)
def test_firmware_times_with_two_digit_years(sent, read) -> None:
    name = "X-Pts-Firmware-Version-DateTime"
    raw = request(drop=(name,)) if sent is None else request(**{name.replace("-", "_"): sent})
    assert verdict(raw).identity.firmware == read


@pytest.mark.parametrize(
    ("sent", "read"),
    [("699c8c2", "699c8c2"), ("0699C8C2", "699c8c2"), ("0", "0"), ("123456789", None), ("x", None)],
)
def test_configuration_ids_compare_without_leading_zeros(sent: str, read: str | None) -> None:
    raw = request(X_Pts_Configuration_Identifier=sent)
    assert verdict(raw).identity.configuration == read


def basic(login: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (basic("pump", "pass"), 101, "accepted"),
        (basic("pump", "wrong"), 401, "wrong-credentials"),
        (basic("nobody", ""), 401, "wrong-credentials"),
        ("Digest username=pump", 401, "digest-credentials"),
        ("digest", 401, "digest-credentials"),
        ("Basic \xe9\xe9==", 401, "wrong-credentials"),
        ("Basic ???", 401, "wrong-credentials"),
        (None, 401, "missing-credentials"),
    ],
)
def test_basic_credentials(sent: str | None, status: int, code: str) -> None:
    rules = Rules(path="ptsWebSocket", users={"pump": "pass"})
    raw = request() if sent is None else request(Authorization=sent)
    found = verdict(raw, rules)
    assert (found.status, found.code) == (status, code)
    if status == 401:
        assert headers(found)["WWW-Authenticate"].startswith("Basic ")
        assert "wrong" not in found.reason
        assert "pass" not in found.reason


def test_the_allow_list() -> None:
    rules = Rules(path="ptsWebSocket", allowed=frozenset({"AABBCCDDEEFF001122334455"}))
    assert verdict(request(X_Pts_Id="aabbccddeeff001122334455"), rules).status == 101
    assert verdict(request(X_Pts_Id="01"), rules).code == "controller-not-allowed"
    assert verdict(request(drop=("X-Pts-Id",)), rules).status == 403


SECRET = "unit-test-key"
SIGNED = (
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
    b"X-DateTime: 2026-01-02T03:04:06\r\n"
)
SIGNATURE = "AsT2Yts5GWKrFi91kWhu06iA3Fi1ODem2lncqmLb+sA="


def signed(text: str = SIGNATURE, part: bytes = SIGNED) -> bytes:
    return part + b"X-Data-Signature: " + text.encode() + b"\r\n\r\n"


def test_the_handshake_vector_of_the_reference() -> None:
    assert signature.sign(SECRET, SIGNED) == SIGNATURE
    assert signature.signed_part(signed()) == SIGNED


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (signed(), 101, "accepted"),
        (signed("AAAA"), 401, "signature-wrong"),
        (signed("\xff".encode("latin-1").decode("latin-1")), 401, "signature-wrong"),
        (signed(part=SIGNED.replace(b"Host: pts", b"Host: xts")), 401, "signature-wrong"),
        (signed(part=SIGNED.replace(b"Origin", b"origin")), 401, "signature-wrong"),
        (
            signed(part=SIGNED[: SIGNED.index(b"X-DateTime")]),
            401,
            "signature-without-datetime",
        ),
        (SIGNED + b"\r\n", 401, "signature-missing"),
    ],
)
def test_the_handshake_signature_covers_the_raw_head(raw: bytes, status: int, code: str) -> None:
    found = verdict(raw, Rules(path="ptsWebSocket", secret=SECRET))
    assert (found.status, found.code) == (status, code)


def test_an_unsigned_handshake_passes_where_it_may() -> None:
    rules = Rules(path="ptsWebSocket", secret=SECRET, secret_required=False)
    assert verdict(SIGNED + b"\r\n", rules).status == 101
    assert verdict(signed("AAAA"), rules).status == 401


BODY = (
    b'{"Protocol":"jsonPTS","PtsId":"AABBCCDDEEFF001122334455",'
    b'"Packets":[{"Id":7,"Type":"UploadStatus","Data":{}}]}'
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (BODY, "1840aSdVZAAZQIjgC7c8ckaxfsN1Q5b1+I6CEUzBNzQ="),
        (BODY + b"\r\n", "OrUoQyz9t/48on6oT1XUbHt1xga481WiOfGGoy5zVxw="),
    ],
)
def test_the_upload_vectors_of_the_reference(body: bytes, expected: str) -> None:
    assert signature.sign(SECRET, body) == expected
    assert signature.verify(SECRET, body, expected)


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"GET /pts HTTP/1.1\r\nHost: x\r\n\r\n", 426, "upgrade-required"),
        (request(drop=("Upgrade",)), 426, "upgrade-header-missing"),
        (request(Upgrade="h2c"), 426, "upgrade-header-missing"),
        (request(Sec_WebSocket_Version="8"), 426, "version-unsupported"),
        (request(Sec_WebSocket_Version="13, 8"), 426, "version-unsupported"),
        (request(drop=("Sec-WebSocket-Version",)), 426, "version-missing"),
        (request(drop=("Sec-WebSocket-Key",)), 400, "key-missing"),
        (request(Sec_WebSocket_Key=""), 400, "key-missing"),
        (request(method="PUT"), 405, "wrong-method"),
        (request(method="HEAD"), 405, "wrong-method"),
        (request(Content_Length="5"), 400, "handshake-with-body"),
    ],
)
def test_what_no_profile_accepts(raw: bytes, status: int, code: str) -> None:
    for rules in (RULES, STRICT):
        found = verdict(raw, rules)
        assert (found.status, found.code) == (status, code)
        if status == 426:
            assert headers(found)["Sec-WebSocket-Version"] == "13"


def test_repeated_headers_that_must_be_single() -> None:
    twice = request().replace(b"X-Pts-Id", b"Sec-WebSocket-Key: AAAA\r\nX-Pts-Id")
    assert verdict(twice).code == "key-repeated"
    twice = request().replace(b"X-Pts-Id", b"Host: y\r\nX-Pts-Id")
    assert verdict(twice).code == "repeated-host"


BLANKS = request().replace(b"X-Pts-Id:", b"X-Pts-Id :").replace(b"Origin:", b"Ori gin\t:")


def test_a_line_with_a_blank_in_its_name_is_left_out_and_noted() -> None:
    found = verdict(BLANKS)
    assert (found.status, found.identity.controller) == (101, "")
    assert "blank-in-header-name" in found.notes
    missing = verdict(request().replace(b"Upgrade:", b"Upgrade :"))
    assert (missing.code, missing.notes) == ("upgrade-header-missing", ("blank-in-header-name",))


def test_strict_names_the_line_with_a_blank_in_its_name() -> None:
    found = verdict(BLANKS, Rules(path="ptsWebSocket", profile="strict"))
    assert (found.status, found.code) == (400, "blank-in-header-name")
    assert "'X-Pts-Id '" in found.reason
    assert "'Ori gin\\t'" in found.reason


def test_digest_is_named() -> None:
    found = verdict(
        request(Authorization='Digest username="pump"'),
        Rules(path="ptsWebSocket", users={"pump": "pass"}),
    )
    assert "set to Digest authentication, this server speaks Basic" in found.reason
