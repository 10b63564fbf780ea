"""Deviations in the opening handshake: what the head says and how it is sent."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from ptslink.doctor.probe.request import RequestHead, basic
from ptslink.simulator.head import Identity
from ptslink.simulator.manner import Manner
from ptslink.simulator.misbehave.deviation import Deviation, choose

Change = Callable[[RequestHead], RequestHead]

#: What HTTP upload mode sends where an Upgrade is expected (PTS-2 protocol 2.5).
POST_BODY = (
    b'{"Protocol":"jsonPTS","PtsId":"%s","Packets":'
    b'[{"Id":1,"Type":"UploadStatus","Data":{"DateTime":"2026-01-02T03:04:05"}}]}\r\n'
)


def _bent(change: Change) -> Callable[[Manner, str], Manner]:
    return lambda manner, _: manner.but(head=change)


def _value(name: str) -> Callable[[Manner, str], Manner]:
    """The value given becomes that of header *name*."""
    return lambda manner, value: manner.but(head=lambda head: head.with_value(name, value))


def _without(*names: str) -> Callable[[Manner, str], Manner]:
    return _bent(lambda head: head.without(*names))


def _path(manner: Manner, value: str) -> Manner:
    if not value.isascii() or " " in value or not value:
        raise ValueError("not a path of ASCII characters without spaces")
    return manner.but(head=lambda head: replace(head, path=value))


def _double_slash(manner: Manner, value: str) -> Manner:
    if value == "//":
        return manner.but(head=lambda head: replace(head, path="/" + head.path))
    return _path(manner, value)


def _key(manner: Manner, value: str) -> Manner:
    keys = {
        "test": "test",
        "short": base64.b64encode(b"8 bytes!").decode(),
        "long": base64.b64encode(bytes(range(32))).decode(),
        "missing": None,
    }
    key = cast("str | None", choose(value, **keys))

    def change(head: RequestHead) -> RequestHead:
        if key is None:
            return head.without("Sec-WebSocket-Key")
        return head.with_value("Sec-WebSocket-Key", key)

    return manner.but(head=change)


def _version(manner: Manner, value: str) -> Manner:
    if value == "missing":
        return _without("Sec-WebSocket-Version")(manner, "")
    return _value("Sec-WebSocket-Version")(manner, value)


def _connection(manner: Manner, value: str) -> Manner:
    if value == "missing":
        return _without("Connection")(manner, "")
    return _value("Connection")(manner, value)


def _post(head: RequestHead) -> RequestHead:
    identifier = next((v for n, v in head.headers if n == "X-Pts-Id"), "")
    body = POST_BODY % identifier.encode()
    bare = head.without("Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version")
    more = (
        ("Content-Type", "application/json; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    )
    return replace(bare, method="POST", headers=(*bare.headers, *more), body=body)


def _malformed(manner: Manner, value: str) -> Manner:
    def line_feeds(head: RequestHead) -> RequestHead:
        return replace(head, line_end="\n")

    def with_body(head: RequestHead) -> RequestHead:
        return replace(head.with_value("Content-Length", "5"), body=b"hello")

    def garbage(head: RequestHead) -> RequestHead:
        return replace(head, method="\x02PTS\x03", headers=(), version="\x7f")

    change = cast("Change", choose(value, lf=line_feeds, body=with_body, garbage=garbage))
    return manner.but(head=change)


def _origin(manner: Manner, value: str) -> Manner:
    if value == "none":
        return _without("Origin")(manner, "")
    return _value("Origin")(manner, value)


def _other_id(manner: Manner, value: str) -> Manner:
    def change(identities: tuple[Identity, ...]) -> tuple[Identity, ...]:
        return tuple(replace(identity, controller_id=value) for identity in identities)

    return manner.but(identities=change)


def _id_missing(manner: Manner, value: str) -> Manner:
    def absent(head: RequestHead) -> RequestHead:
        return head.without("X-Pts-Id")

    def blank(head: RequestHead) -> RequestHead:
        return head.with_value("X-Pts-Id", "")

    def long(head: RequestHead) -> RequestHead:
        return head.with_value("X-Pts-Id", "0123456789ABCDEF" * 3)

    return manner.but(head=cast("Change", choose(value, absent=absent, blank=blank, long=long)))


def _auth(manner: Manner, value: str) -> Manner:
    def wrong(head: RequestHead) -> RequestHead:
        return _authorized(head, basic("station:mistyped"))

    def digest(head: RequestHead) -> RequestHead:
        text = f'Digest username="station", realm="", nonce="", uri="{head.path}", response=""'
        return _authorized(head, text)

    def none(head: RequestHead) -> RequestHead:
        return head.without("Authorization")

    if value == "signature":
        return manner.but(identities=_wrong_secret)
    choice = choose(value, wrong=wrong, digest=digest, none=none, signature=None)
    return manner.but(head=cast("Change", choice))


def _wrong_secret(identities: tuple[Identity, ...]) -> tuple[Identity, ...]:
    return tuple(replace(identity, secret="mistyped") for identity in identities)


def _authorized(head: RequestHead, value: str) -> RequestHead:
    """*head* with ``Authorization`` where a controller has it: behind ``Host``."""
    bare = head.without("Authorization").headers
    return replace(head, headers=(*bare[:1], ("Authorization", value), *bare[1:]))


def _forward_proxy(head: RequestHead) -> RequestHead:
    bare = head.without("Upgrade", "Connection")
    more = (("Via", "1.0 proxy.site.invalid (squid)"), ("Connection", "close"))
    return replace(bare, version="HTTP/1.0", headers=(*bare.headers, *more))


DEVIATIONS = (
    Deviation(
        "hs-wrong-path",
        "asks for a path that is not served: //... or the one given",
        _double_slash,
        "PATH",
        "//",
    ),
    Deviation(
        "hs-uri-no-slash",
        "leaves the slash in front of the URI out",
        _bent(lambda head: replace(head, path=head.path.removeprefix("/"))),
    ),
    Deviation(
        "hs-bad-key",
        "sends a key that is not 16 bytes in base64",
        _key,
        "test|short|long|missing",
        "test",
    ),
    Deviation(
        "hs-bad-version",
        "asks for another version of the protocol",
        _version,
        "VERSION|missing",
        "8",
    ),
    Deviation(
        "hs-device-no-connection",
        "sends no Connection: Upgrade",
        _connection,
        "TEXT|missing",
        "missing",
    ),
    Deviation("hs-device-no-upgrade", "sends no Upgrade header", _without("Upgrade")),
    Deviation(
        "hs-http10-device",
        "speaks HTTP/1.0",
        _bent(lambda head: replace(head, version="HTTP/1.0")),
    ),
    Deviation("hs-method-post", "is in HTTP upload mode and posts", _bent(_post)),
    Deviation(
        "hs-malformed-request",
        "ends lines with LF alone, sends a body, or no HTTP at all",
        _malformed,
        "lf|body|garbage",
        "lf",
    ),
    Deviation(
        "hs-half-close-499",
        "ends its sending side right behind the request",
        lambda manner, _: manner.but(half_close=True),
    ),
    Deviation(
        "hs-origin-rejected",
        "sends no Origin, or the one given",
        _origin,
        "none|ORIGIN",
        "none",
    ),
    Deviation(
        "hs-subprotocol",
        "offers a subprotocol",
        _value("Sec-WebSocket-Protocol"),
        "NAME",
        "chat",
    ),
    Deviation(
        "hs-id-missing",
        "sends no X-Pts-Id, an empty or an overlong one",
        _id_missing,
        "absent|blank|long",
        "absent",
    ),
    Deviation(
        "hs-id-unknown",
        "sends an id nobody registered",
        _other_id,
        "HEX",
        "0BADC0DE0BADC0DE0BADC0DE",
    ),
    Deviation(
        "hs-auth-mismatch",
        "sends wrong, no, or Digest credentials, or a wrong signature",
        _auth,
        "wrong|none|digest|signature",
        "wrong",
    ),
    Deviation(
        "hs-slow-handshake",
        "sends half of the request and then nothing more",
        lambda manner, _: manner.but(head_part=0.5),
    ),
    Deviation(
        "px-forward-proxy",
        "dials through a site proxy that speaks HTTP/1.0 and drops the Upgrade",
        _bent(_forward_proxy),
    ),
    Deviation(
        "px-header-case",
        "finds Sec-WebSocket-Accept in exactly this spelling only",
        lambda manner, _: manner.but(strict_case=True),
    ),
    Deviation(
        "px-error-held-open",
        "waits for a close after a refusal instead of closing",
        lambda manner, _: manner.but(waits_after_refusal=True),
    ),
)
