"""Where the fuzzer starts: one good example of each kind, from which it learns the shapes."""

from __future__ import annotations

import json
import random
from datetime import datetime
from pathlib import Path
from typing import Final

from tests.fuzz.targets import MEMBERS
from tests.fuzz.wire import CONTROLLER, request
from tests.security.hard import HARD
from tests.support.hostile import HOSTILE

from ptslink.simulator.forecourt import Data, Forecourt
from ptslink.simulator.packets import (
    CONFIGURATION,
    RECORDS,
    STATUS,
    TAGS,
    configuration_body,
    envelope,
    packet,
    status_data,
)

_INJECTED = Path(__file__).parents[1] / "unit" / "doctor" / "injected"
_NOW = datetime(2026, 3, 1, 10, 1)  # noqa: DTZ001 - controller-local times carry no zone


def _messages() -> list[bytes]:
    rng = random.Random(7)
    court = Forecourt(rng)
    bodies = {kind: make(court, _NOW) for kind, make in RECORDS.items()}
    bodies[TAGS] = court.ask_tag(_NOW)
    bodies[STATUS] = status_data(
        court,
        now=_NOW,
        configuration_id="1a2b",
        firmware="25-01-06T23:59:14",
        startup_seconds=9,
        counters={},
    )
    bodies[CONFIGURATION] = configuration_body(court, "1a2b", rng)
    bodies[CONFIGURATION]["Configuration"] = bodies[CONFIGURATION]["Configuration"][:3]
    packets = [packet(kind, at, body) for at, (kind, body) in enumerate(bodies.items(), 1)]
    single = [envelope([one], CONTROLLER).encode() for one in packets]
    small: list[Data] = [
        {"Id": "7", "Type": "UploadNovelty"},
        {"Id": 8, "Type": "DateTime", "Data": {}},
    ]
    sale = single[0]
    return [
        *single,
        envelope(small, CONTROLLER).encode(),
        # What firmware is known to get wrong.
        sale.replace(b"}}]}", b",}}]}"),
        sale + b"\r\n",
        sale.replace(b',"Pump"', b'"Pump"'),
        sale[: len(sale) // 2],
        sale.replace(b"AI-9", b"\xc0\xc8-9"),
        sale.replace(b"AI-9", b"AI\n9"),
        b'{"Packets":{"Id":1,"Type":"UploadX","Data":null},"Protocol":"other"}',
    ]


def _frame(payload: bytes, opcode: int = 1, *, fin: bool = True) -> bytes:
    """A masked frame with the mask 0, so that the fuzzer can see and change what is in it."""
    first = bytes([(0x80 if fin else 0) | opcode])
    if len(payload) < 126:
        length = bytes([0x80 | len(payload)])
    else:
        length = b"\xfe" + len(payload).to_bytes(2, "big")
    return first + length + bytes(4) + payload


_MESSAGES: Final = _messages()
_SMALL: Final = b'{"Packets":[{"Id":1,"Type":"UploadX"}]}'

_FRAMES: Final = [
    _frame(_SMALL),
    _frame(_SMALL) * 3,
    _frame(_SMALL, 2),
    _frame(_SMALL[:9], fin=False) + _frame(b"p", 9) + _frame(_SMALL[9:], 0),
    _frame(b"", 9) + _frame(b"ptslink", 10) + _frame(b"\x03\xe8bye", 8),
    _frame("AI-95 é".encode()) + _frame(b"\xc3", fin=False) + _frame(b"\xa9", 0),
    _frame(_MESSAGES[0]),
    b"\xc1\x80\0\0\0\0" + _frame(b"\xff"),
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x81\x05hello",
]

_POST: Final = (
    b"POST /jsonPTS HTTP/1.1\r\nHost: x\r\nX-Pts-Id: AABB\r\nContent-Length: %d\r\n\r\n%b"
)
_CONNECTIONS: Final = [
    request() + _frame(_SMALL),
    request("/wrong") + request("//pts/"),
    _POST % (len(_SMALL), _SMALL) * 2,
    (_POST % (len(_SMALL), _SMALL)).replace(
        b"Host: x", b"Connection: close\r\nExpect: 100-continue"
    ),
    b"GET /health HTTP/1.1\r\n\r\n" * 2 + b"HEAD /health HTTP/1.0\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\nHost: x\n\n",
    b"\x16\x03\x01\x02\x00",
    b"POST /pts HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]

_TOML: Final = [
    b'[listen]\naddresses = ["127.0.0.1", "::1"]\nport = 3000\npath = "pts"\n'
    b'alternative_paths = ["", "x"]\nhandshake_profile = "strict"\n'
    b'trusted_proxies = ["10.0.0.0/8"]\n',
    b'[controllers]\nallowed = ["AABB"]\nusers = {admin = "x"}\nsecret = "s"\n'
    b'time_zone = "Europe/Kyiv"\nsecret_required = false\n',
    b"[limits]\nidle_seconds = 1.5\nmessage_bytes = 65_536\n"
    b"[keepalive]\nping_interval_seconds = 0\n",
    b'[tls]\nport = 443\nrsa_certificate = "/a.pem"\nrsa_key = "/b.pem"\n'
    b"[unknown]\nkey = [[1], {a = 1}]\n",
    b'[logs]\ndirectory = ""\nkeep_days = 0x1F\n[journal]\npath = "relative"\n'
    b"[[admin]]\nport = inf\n"
    b"when = 2026-03-01T10:00:00Z\n",
]


def _facts() -> list[bytes]:
    rng = random.Random(8)
    court = Forecourt(rng)
    found = []
    for at, type_ in enumerate(MEMBERS):
        make = RECORDS.get(type_)
        body = make(court, _NOW) if make else {"DateTime": "2026-03-01T10:01:00", "Anything": 1.50}
        text = json.dumps(body, separators=(",", ":")).encode()
        found.append(bytes([at, at]) + text + b"\xfe" + b'"2026-03-01T10:01:01"')
    return found


#: Target -> where it starts from.
def _evidence() -> list[bytes]:
    """What the doctor saw on two machines."""
    names = ("fw-site-egress-block.control-gets-in", "tcp-service-down.from-the-server")
    return [
        json.dumps(json.loads((_INJECTED / f"{name}.json").read_text())["evidence"]).encode()
        for name in names
    ]


SEEDS: Final[dict[str, list[bytes]]] = {
    "head": [request(), request("//pts/?x=1"), *_CONNECTIONS[2:]],
    "envelope": _MESSAGES,
    "natural-key": _facts(),
    "link": [bytes([at]) + frames for at, frames in enumerate(_FRAMES)],
    "connection": [bytes([at * 9]) + data for at, data in enumerate(_CONNECTIONS)],
    "configuration": _TOML,
    "journal": _MESSAGES,
    "reading": [b"\x01" + b"\xfe".join(HARD.values()), b"\xff" + b"\xfe".join(_MESSAGES)],
    "evidence": _evidence(),
    "repetition": [
        b'{"a":\xfe"b" \xfe}',
        b'{"a":"\xfe\\n\xfe"}',
        b'{"Packets":[\xfe{"Id":1,"Type":"UploadX"},\xfe]}',
        b'{"a":\xfe1.5,\xfe',
        b"X: \xfea\t\xfe",
    ],
    "log-sinks": [
        *(text.encode("utf-8", "surrogatepass") for text in HOSTILE.values()),
        *_MESSAGES[-3:],
        b"=HYPERLINK(1)",
    ],
}

#: Words the fuzzer may put in: what it would take long to guess.
WORDS: Final = (
    *('"Id":', '"Type":', '"Data":', '"Packets":', '"PtsId":', '"Protocol":', "UploadStatus"),
    *("UploadPumpTransaction", "UploadConfiguration", "RequestTagsInformation", "ConfigurationId"),
    *('"DateTime":"', "2026-03-01T10:01:00", "2026-03-01T10:01+02", "\\u0000", "\\ud800", "1e999"),
    *("Content-Length: ", "Connection: ", "Upgrade: ", "HTTP/1.1", "\\r\\n", "Sec-WebSocket-"),
    *("Expect: 100-continue", "X-Pts-Id: ", "Authorization: Basic ", "X-Data-Signature: "),
    *("[limits]", "[controllers]", '"""', "'''", "UTCOffset"),
)
