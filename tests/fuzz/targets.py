"""What must hold for any bytes at all, one function a reader.

Each target takes bytes, feeds them to one reader and raises when a promise is broken; what the
reader answers to bad input is its own business, and tested by tables elsewhere. The same functions
run under the fuzzer and, over the cases it found, with the unit tests.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast

from tests.fuzz.evidence import evidence
from tests.fuzz.reading import read_back
from tests.fuzz.sinks import log_sinks
from tests.fuzz.wire import converse, request

from ptslink.handshake.accept import accept_value
from ptslink.handshake.answer import document, explain, render
from ptslink.handshake.head import Head, HeadError, head_end, looks_wrong, parse_head
from ptslink.handshake.judge import Rules, judge
from ptslink.journal.entry import Clock, Entry, Transport
from ptslink.journal.filing import derive, file
from ptslink.journal.store import Store
from ptslink.jsonpts.confirmation import answers, expects_answer
from ptslink.jsonpts.content import Told
from ptslink.jsonpts.envelope import MAX_PACKETS, Packet, decode
from ptslink.jsonpts.natural import natural_key
from ptslink.server.config import ConfigError, load

#: The controller's input buffer (PTS-2 protocol 1.3).
INPUT_BYTES: Final = 16_384
#: Length that a repeated pattern is stretched to: the longest that is repaired.
STRETCHED_BYTES: Final = 128 * 1024

_RULES: Final = tuple(
    Rules("ptsWebSocket", ("pts", ""), profile=profile, users=users, secret=secret)
    for profile in ("lenient", "strict")
    for users, secret in (({}, ""), ({"admin": "pass"}, "secret"))
)


def head(data: bytes) -> None:
    """A head is read or refused by name, and every judgement on it can be put on the wire."""
    for raw in (data, data + b"\r\n\r\n", b"GET /pts HTTP/1.1\r\n" + data + b"\r\n\r\n"):
        wrong = looks_wrong(raw)
        assert wrong is None or wrong.status == 400
        end = head_end(raw)
        assert end == _head_end_in_pieces(raw), "the end depends on where segments are cut"
        if end < 0:
            continue
        found = _parsed(raw[:end])
        if isinstance(found, HeadError):
            assert found.status in (400, 414, 431, 505), found.status
            assert found.code
            assert found.reason
            continue
        assert raw[:end].endswith(found.raw), "bytes of the head were changed"
        _judged(found)


def _head_end_in_pieces(raw: bytes) -> int:
    buffer = bytearray()
    for at in range(0, len(raw), 7):
        scanned = len(buffer)
        buffer += raw[at : at + 7]
        end = head_end(buffer, scanned)
        if end >= 0:
            return end
    return -1


def _judged(found: Head) -> None:
    secrets = [found.get("authorization"), found.get("x-data-signature"), found.get("cookie")]
    shown = [value for _, value in found.redacted()]
    plain = [v for n, v in found.fields if n.lower() not in ("authorization", "x-data-signature")]
    assert all(s is None or s not in shown or s in plain or s == "<redacted>" for s in secrets)
    for rules in _RULES:
        verdict = judge(found, rules)
        assert verdict.status in (101, 400, 401, 403, 404, 405, 426, 505), verdict.status
        body = document(explain(verdict, rules, port=3000))
        answer = render(verdict.status, verdict.headers, body)
        lines = answer[: -len(body)].decode("latin-1").split("\r\n")
        assert lines[-2:] == ["", ""]
        assert not any("\n" in line or "\r" in line for line in lines), "a header was injected"
        if verdict.status == 101:
            key = found.get("sec-websocket-key")
            assert key is not None
            assert f"Sec-WebSocket-Accept: {accept_value(key)}" in lines


def envelope(data: bytes) -> None:
    """A message is decoded without raising, and each packet in it answered once, in valid JSON."""
    for payload in (data, b'{"Packets":[{"Id":1,"Type":"UploadX","Data":' + data + b"}]}"):
        _answered(payload)


def repetition(data: bytes) -> None:
    """A pattern repeated to the longest message takes no longer than its length warrants.

    Nothing is measured here: the fuzzer's own time limit for one input is the judge.
    """
    before, _, rest = data.partition(b"\xfe")
    unit, _, after = rest.partition(b"\xfe")
    unit = unit or b'"'
    count = max(STRETCHED_BYTES - len(before) - len(after), 0) // len(unit)
    stretched = before + unit * count + after
    _answered(stretched)
    natural_key(Packet(b"1", "UploadPumpTransaction", stretched))
    raw = b"GET /pts HTTP/1.1\r\n" + stretched[:INPUT_BYTES] + b"\r\n\r\n"
    found = _parsed(raw[: head_end(raw)])
    if not isinstance(found, HeadError):
        _judged(found)


def _parsed(raw: bytes) -> Head | HeadError:
    try:
        return parse_head(raw)
    except HeadError as error:
        return error


def _answered(payload: bytes) -> None:
    message = decode(payload)
    assert len(message.packets) <= MAX_PACKETS
    expected = [packet for packet in message.packets if expects_answer(packet)]
    for stored in (True, False):
        found: list[dict[str, Any]] = []
        for answer in answers(message.packets, stored=stored):
            read = json.loads(answer.decode("utf-8"))
            assert read["Protocol"] == "jsonPTS"
            found += read["Packets"]
        assert len(found) == len(expected), "not one answer a packet"
        for packet, given in zip(expected, found, strict=True):
            assert b'"Id":%b' % packet.id in b"".join(answers([packet], stored=stored))
            assert json.dumps(given["Id"]) == json.dumps(json.loads(packet.id))
            assert given.get("Error", False) is not stored
            if stored and packet.type == "RequestTagsInformation":
                assert all(tag["Valid"] is False for tag in given["Data"]["Tags"])
    filed = _entry(payload)
    assert filed.raw == payload, "what is kept is not what came"
    if filed.facts:
        Told(payload, "").content(filed.facts[-1].index)
    for fact in filed.facts:
        assert len(fact.digest) == 16
        if fact.local_time:
            fact.local_time.encode()


def _entry(payload: bytes, clock: Clock | None = None) -> Entry:
    entry = file(
        payload,
        controller="00112233445566778899AABB",
        clock=clock or Clock(),
        received=1_790_000_000_000,
        transport=Transport.WEBSOCKET,
        link=1,
        settled=_settled,
    )
    derive(entry)
    return entry


def _settled(entry: Entry) -> None:
    """Nobody waits for it."""


#: Type -> the members that tell one such fact from another (PTS-2 protocol 2.4).
MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "UploadPumpTransaction": (
        *("Pump", "Transaction", "DateTimeStart", "DateTime", "Volume", "TotalVolume"),
    ),
    "UploadTankMeasurement": ("Tank", "DateTime", "ProductHeight", "ProductVolume"),
    "UploadInTankDelivery": ("Tank",),
    "UploadGpsRecord": ("DateTime", "Latitude", "Longitude"),
    "UploadAlertRecord": ("DateTime", "DeviceType", "DeviceNumber", "State", "Code"),
    "UploadPayment": ("PaymentTransaction", "PaymentTransactionDateTime", "IsRefunded"),
    "UploadShift": ("Number", "DateTimeStart", "DateTimeEnd"),
    "UploadNovelty": ("DateTime", "Anything"),
}
_TYPES: Final = tuple(MEMBERS)
_UNSTABLE: Final = ("ConfigurationId", "PumpTransactionsUploaded", "PumpTransactionsTotal")


def natural(data: bytes) -> None:
    """Any Data has a key; copies share it; facts that differ in a member of the key do not.

    The first byte chooses the Type, the second a member to exchange, and what follows a 0xFE byte
    is what it is exchanged for.
    """
    type_ = _TYPES[data[0] % len(_TYPES)] if data else _TYPES[0]
    member = MEMBERS[type_][data[1] % len(MEMBERS[type_])] if len(data) > 1 else "DateTime"
    content, _, other = data[2:].partition(b"\xfe")
    key = _key(type_, content)
    assert len(key) == 16
    one = _plain(content)
    if not isinstance(one, dict) or any(name in one for name in _UNSTABLE):
        return
    written = _written(one)
    spaced = json.dumps(one, indent=2, ensure_ascii=False).encode()
    assert _key(type_, spaced) == _key(type_, written)
    shuffled = dict(reversed(one.items()))
    assert _key(type_, _written(shuffled)) == _key(type_, written)
    counted = {"PumpTransactionsTotal": 7, **one, "ConfigurationId": "1a", "XUploaded": 3}
    assert _key(type_, _written(counted)) == _key(type_, written)
    value = _plain(other)
    if value is None or isinstance(value, dict | list):
        return
    if _meaning(one.get(member)) != _meaning(value):
        changed = {**one, member: value}
        assert _key(type_, _written(changed)) != _key(type_, written), "two facts share a key"


def _key(type_: str, content: bytes) -> bytes:
    return natural_key(Packet(b"1", type_, content)).digest


def _plain(text: bytes) -> Any:
    """JSON whose values survive being written again, or None."""
    try:
        found = json.loads(text)
        again = json.dumps(found, allow_nan=False)
        again.encode()
        _written(found).decode("utf-8")
    except (ValueError, RecursionError, UnicodeError):
        return None
    return found


def _written(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def _meaning(value: object) -> object:
    """Values that a key may take for one another: a number and its text, absent and null."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, int | float):
        return str(Decimal(repr(value)).normalize())
    if isinstance(value, str):
        try:
            return str(Decimal(value).normalize())
        except ArithmeticError:
            return value
    return _written(value)


def journal(data: bytes) -> None:
    """A message can be stored, and storing it again adds no record; another one is kept as well.

    The first byte is where a byte is changed; what the change means is not looked at, but where the
    two tell something else, the bytes of both must be there.
    """
    with tempfile.TemporaryDirectory(prefix="ptslink-fuzz-", dir=_memory()) as directory:
        store = Store(Path(directory, "journal.db"))
        try:
            first = _entry(data)
            store.write([first], [])
            known = len({(fact.type, fact.local, fact.digest) for fact in first.facts})
            count = _records(store)
            assert count == known, f"{known} facts, {count} records"
            store.write([_entry(data)], [])
            assert _records(store) == count, "sent again, stored again"
            if data:
                _changed(store, data)
        finally:
            store.close()


def reading(data: bytes) -> None:
    """Whatever was stored is read back: every record once, by page and by file, within the budget.

    The first byte is the budget of a page in half kilobytes, 0xFE is between two messages.
    """
    with tempfile.TemporaryDirectory(prefix="ptslink-fuzz-", dir=_memory()) as directory:
        path = Path(directory, "journal.db")
        store = Store(path)
        try:
            clock = Clock()
            store.write([_entry(payload, clock) for payload in data[1:].split(b"\xfe")], [])
            read_back(path, page_bytes=(data[0] if data else 0) * 512)
        finally:
            store.close()


def _changed(store: Store, data: bytes) -> None:
    at = data[0] * len(data) // 256
    other = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    if _told(data) == _told(other):
        return
    entry = _entry(other)
    if entry.only_status:
        return
    store.write([entry], [])
    kept = store._connection.execute("SELECT 1 FROM messages WHERE raw = ?", (other,)).fetchone()
    assert kept, "another message was taken for a copy"


def _told(raw: bytes) -> object:
    """What a message says, judged apart from the code that keeps it: all but ids and counters."""
    try:
        content = json.loads(raw, parse_float=Decimal, parse_constant=_no_number)
        content.pop("PtsId", None)
        for packet in content["Packets"]:
            packet.pop("Id", None)
            packet.pop("ConfigurationId", None)
            if isinstance(packet.get("Data"), dict):
                for name in [*packet["Data"]]:
                    if name == "ConfigurationId" or name.endswith(("Uploaded", "Total")):
                        del packet["Data"][name]
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError, ArithmeticError):
        return raw.strip()
    return content


def _no_number(text: str) -> float:
    raise ValueError(text)


def _records(store: Store) -> int:
    (count,) = store._connection.execute("SELECT count(*) FROM records").fetchone()
    return int(count)


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def link(data: bytes) -> None:
    """Any bytes behind a 101 leave a link that answers rightly or is ended by one good close.

    The first byte is where the segments are cut; which messages arrive must not depend on it.
    """
    size = (data[0] if data else 0) % 61 + 1
    rest = data[1:]
    pieces = [rest[at : at + size] for at in range(0, len(rest), size)]
    heard = converse([request(), *pieces])
    at_once = converse([request() + rest])
    assert heard.opened == at_once.opened == 1
    assert heard.messages == at_once.messages, "messages depend on where segments are cut"


def connection(data: bytes) -> None:
    """Any bytes on a new connection are answered as HTTP, then as frames, or end it."""
    size = (data[0] if data else 0) * 4 + 1
    rest = data[1:]
    converse([rest[at : at + size] for at in range(0, len(rest), size)])


class _File:
    """As much of a path as reading a configuration takes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read_text(self, encoding: str) -> str:
        return self._content.decode(encoding)

    def __str__(self) -> str:
        return "ptslink.toml"


def configuration(data: bytes) -> None:
    """A configuration is read, or refused with mistakes that each are one readable line."""
    try:
        config = load(cast("Path", _File(data)))
    except ConfigError as error:
        refused = error.mistakes
    else:
        config.rules()
        config.zone()
        return
    assert refused
    assert all(mistake.strip() for mistake in refused)


#: Every target by its name.
TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "head": head,
    "envelope": envelope,
    "natural-key": natural,
    "link": link,
    "connection": connection,
    "configuration": configuration,
    "journal": journal,
    "reading": reading,
    "repetition": repetition,
    "log-sinks": log_sinks,
    "evidence": evidence,
}
