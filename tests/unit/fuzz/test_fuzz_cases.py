"""What the fuzzer found stays found: every case, and every seed, through its target again.

The promises themselves are in tests/fuzz/targets.py; `scripts/bench fuzz` looks for more.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

#: Eight hundred packets of one fact, each with other content, and a comma too many.
_COPIES = b",".join(
    b'{"Id":%d,"Type":"UploadAlertRecord","Data":{"DateTime":"2026-03-01T10:01:00","Code":1,'
    b'"DeviceType":"Pump","DeviceNumber":1,"State":"Started","New":%d}}' % (number, number)
    for number in range(800)
)
#: Target -> name -> input. Each made its target fail once.
CASES: dict[str, dict[str, bytes]] = {
    "head": {
        "credentials that are not ASCII": (
            b"GET /pts HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xff\xfe\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ),
    },
    "envelope": {
        "an Id that is not UTF-8": b'{"Packets":[{"Id":"\xff","Type":"UploadX"}]}',
        "an Id that is not UTF-8, fished": b'{{"Id":"\xff","Type":"UploadX"',
        "an Id with a leading zero, fished": b'{{"Id":05,"Type":"UploadX"',
        "a tag that is not UTF-8": (
            b'{"Packets":[{"Id":8,"Type":"RequestTagsInformation",'
            b'"Data":{"Tags":[{"Tag":"F0\x893"}]}}]}'
        ),
        "a time with a zone": (
            b'{"Packets":[{"Id":1,"Type":"UploadPumpTransaction",'
            b'"Data":{"DateTime":"2026-03-01T10:01+02"}}]}'
        ),
    },
    "natural-key": {
        "a time with a zone": b'\x03\x00{"DateTime":"2026-03-01T10:01+02"}\xfe"x"',
        "a time with a zone and no minutes": b'\x00\x00{"DateTime":"2026-03-01T10+02:00"}',
        "a week": b'\x00\x00{"DateTime":"2026-W10-1T10:00:00"}',
    },
    "journal": {
        "a message of copies": b'{"Packets":[' + _COPIES + b",]}",
    },
    "repetition": {
        "quotes that never end": b'{"a":"\xfe\\"\xfe',
        "digits that never end": b'{"a":\xfe1\xfex',
        "signs that never end": b'{"a":\xfe1-\xfe"',
        "packets without end, fished": b'{"Packets\0[\xfe{"Id":1,"Type":"UploadX"},\xfe]}',
        "strings without commas": b'{"a":\xfe"b" \xfe',
    },
    "log-sinks": {"a Type that no log file may be named after": b"9J"},
}

#: Far above what any input needs; what one of these took before it was mended was minutes.
HANG_SECONDS = 30


@contextmanager
def no_hang() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError("an input that takes so long holds up every controller")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    ("target", "case"),
    [
        pytest.param(target, case, id=f"{target}: {name}")
        for target, cases in CASES.items()
        for name, case in cases.items()
    ],
)
def test_what_was_found_is_mended(target: str, case: bytes) -> None:
    with no_hang():
        TARGETS[target](case)


@pytest.mark.parametrize("target", list(TARGETS))
def test_every_seed_holds(target: str) -> None:
    with no_hang():
        for seed in SEEDS[target]:
            TARGETS[target](seed)


@pytest.mark.parametrize("target", list(TARGETS))
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 9, b'"', b"{", b"\r\n"])
def test_next_to_nothing_holds(target: str, data: bytes) -> None:
    with no_hang():
        TARGETS[target](data)
