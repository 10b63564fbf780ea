"""Whatever two messages differ in, both are kept; the same message again is not."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ptslink.journal.records import read
from ptslink.journal.store import Store
from support.journals import put as put_of

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def journal() -> Iterator[Store]:
    with tempfile.TemporaryDirectory(prefix="ptslink-test-", dir=MEMORY) as directory:
        store = Store(Path(directory, "j.db"))
        try:
            yield store
        finally:
            store.close()


put = partial(put_of, controller="AB")


def kept(store: Store) -> list[bytes]:
    return [raw for (raw,) in store._connection.execute("SELECT raw FROM messages ORDER BY id")]


def number_of(store: Store, table: str) -> int:
    (count,) = store._connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


def envelope(*packets: bytes, beside: bytes = b"") -> bytes:
    return b'{"Protocol":"jsonPTS","PtsId":"AB",%b"Packets":[%b]}' % (beside, b",".join(packets))


def sale(data: bytes, id_: int = 1, beside: bytes = b"") -> bytes:
    return b'{"Id":%d,"Type":"UploadPumpTransaction","Data":%b%b}' % (id_, data, beside)


GOOD = b'{"DateTime":"2026-03-01T10:01:00","Transaction":5,"Volume":1.5,"TotalVolume":9}'
LONG = b'{"Pump":%d,"Volume":nan,"Filler":"' + b"x" * 140_000 + b'"}'

#: What two messages differ in.
PAIRS: dict[str, tuple[bytes, bytes]] = {
    "fished: not a number": (
        envelope(sale(b'{"Pump":1,"Volume":nan}')),
        envelope(sale(b'{"Pump":2,"Volume":nan}', 2)),
    ),
    "fished: a number without an end": (
        envelope(sale(b'{"Pump":1,"Volume":1.}')),
        envelope(sale(b'{"Pump":1,"Volume":2.}')),
    ),
    "fished: an escape that is none": (
        envelope(sale(rb'{"Pump":1,"Tag":"\q"}')),
        envelope(sale(rb'{"Pump":2,"Tag":"\q"}')),
    ),
    "fished: cut": (envelope(sale(GOOD))[:90], envelope(sale(GOOD))[:110]),
    "fished: too long to repair": (envelope(sale(LONG % 1)), envelope(sale(LONG % 2))),
    "fished: one packet of two": (
        envelope(sale(GOOD), sale(b'{"Pump":1,"Volume":nan}')),
        envelope(sale(GOOD), sale(b'{"Pump":2,"Volume":nan}')),
    ),
    "content beside missing Data": (
        envelope(b'{"Id":1,"Type":"UploadNew","Thing":[1]}'),
        envelope(b'{"Id":2,"Type":"UploadNew","Thing":[2]}'),
    ),
    "members of a sale on the packet": (
        envelope(b'{"Id":1,"Type":"UploadPumpTransaction","Pump":1,"Transaction":1}'),
        envelope(b'{"Id":1,"Type":"UploadPumpTransaction","Pump":1,"Transaction":2}'),
    ),
    "content beside Data": (
        envelope(sale(GOOD, beside=b',"More":1')),
        envelope(sale(GOOD, beside=b',"More":2')),
    ),
    "content beside Packets": (
        envelope(sale(GOOD), beside=b'"More":1,'),
        envelope(sale(GOOD), beside=b'"More":2,'),
    ),
    "a packet without a Type beside a copy": (
        envelope(sale(GOOD), b'{"Id":2,"Data":{"DateTime":"2026-01-01T00:00:00"}}'),
        envelope(sale(GOOD), b'{"Id":2,"Data":{"DateTime":"2026-02-02T00:00:00"}}'),
    ),
    "a packet that is no object beside a copy": (
        envelope(sale(GOOD), b'"one"'),
        envelope(sale(GOOD), b'"two"'),
    ),
    "a reply beside a copy": (
        envelope(sale(GOOD), b'{"Id":2,"Type":"DateTime","Data":{"UTCOffset":1}}'),
        envelope(sale(GOOD), b'{"Id":2,"Type":"DateTime","Data":{"UTCOffset":2}}'),
    ),
    "a reply beside a status": (
        envelope(b'{"Id":1,"Type":"UploadStatus","Data":{}}', b'{"Id":2,"Type":"A","Data":{}}'),
        envelope(b'{"Id":1,"Type":"UploadStatus","Data":{}}', b'{"Id":2,"Type":"B","Data":{}}'),
    ),
    "packets beyond the thousand": (
        envelope(*[sale(GOOD)] * 1000, sale(b'{"Transaction":7}')),
        envelope(*[sale(GOOD)] * 1000, sale(b'{"Transaction":8}')),
    ),
    "bytes behind the message": (
        envelope(sale(GOOD)) + envelope(sale(b'{"Transaction":7}')),
        envelope(sale(GOOD)) + envelope(sale(b'{"Transaction":8}')),
    ),
    "a member that comes twice": (
        envelope(sale(b'{"Volume":1,' + GOOD[1:])),
        envelope(sale(b'{"Volume":2,' + GOOD[1:])),
    ),
    "a name that only looks like a counter": (
        envelope(b'{"Id":1,"Type":"UploadNew","Data":{"GrandTotal":1}}'),
        envelope(b'{"Id":1,"Type":"UploadNew","Data":{"GrandTotal":2}}'),
    ),
    "values that read alike when joined": (
        envelope(b'{"Id":1,"Type":"UploadNew","Data":{"a":"1,b:2"}}'),
        envelope(b'{"Id":1,"Type":"UploadNew","Data":{"a":1,"b":2}}'),
    ),
    "a text and a word": (
        envelope(b'{"Id":1,"Type":"UploadNew","Data":{"a":null}}'),
        envelope(b'{"Id":1,"Type":"UploadNew","Data":{"a":"null"}}'),
    ),
    "a volume beyond the precision of a float": (
        envelope(sale(GOOD.replace(b"1.5", b"1.50000000000000000001"))),
        envelope(sale(GOOD.replace(b"1.5", b"1.50000000000000000002"))),
    ),
    "a configuration under the same id": (
        envelope(b'{"Id":1,"Type":"UploadConfiguration","ConfigurationId":"1","Configuration":[]}'),
        envelope(
            b'{"Id":1,"Type":"UploadConfiguration","ConfigurationId":"1","Configuration":[1]}'
        ),
    ),
    "no JSON at all": (b"one", b"two"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_messages_that_differ_are_both_kept(name: str) -> None:
    one, other = PAIRS[name]
    with journal() as store:
        put(store, one, other)
        assert kept(store) == [one, other]
        told = number_of(store, "records"), number_of(store, "variants")
        put(store, one, other)
        assert (number_of(store, "records"), number_of(store, "variants")) == told


def test_what_was_fished_is_read_as_it_came() -> None:
    one, other = PAIRS["fished: not a number"]
    with journal() as store:
        put(store, one, other)
        records = read(store._connection)
    assert [record.message for record in records] == [one.decode(), other.decode()]
    assert [record.data for record in records] == [None, None]
    assert all("fished" in record.flags for record in records)


def test_a_broken_message_that_is_replayed_is_no_further_record() -> None:
    data = b'{"Pump":1,"Volume":nan,"PumpTransactionsTotal":%d,"ConfigurationId":"%d"}'
    with journal() as store:
        put(store, *(envelope(sale(data % (n, n), id_=n)) for n in range(1, 4)))
        assert number_of(store, "records") == 1
        assert len(kept(store)) == 3


@pytest.mark.parametrize(
    "again",
    [
        envelope(sale(GOOD, id_=9)),
        envelope(sale(GOOD)) + b"\r\n",
        envelope(sale(GOOD)).replace(b'"PtsId":"AB",', b""),
        json.dumps(json.loads(envelope(sale(GOOD))), indent=1).encode(),
        envelope(sale(GOOD.replace(b"1.5", b"1.500"))),
        envelope(sale(GOOD[:-1] + b',"ConfigurationId":"1a"}')),
        envelope(sale(GOOD[:-1] + b',"SalesTotal":7,"SalesUploaded":6}')),
    ],
)
def test_what_is_no_part_of_a_fact_makes_no_variant(again: bytes) -> None:
    with journal() as store:
        put(store, envelope(sale(GOOD)), again)
        assert kept(store) == [envelope(sale(GOOD))]


def test_a_status_that_cannot_be_read_is_the_latest_and_no_record() -> None:
    messages = [
        envelope(b'{"Id":%d,"Type":"UploadStatus","Data":{"Second":%d,"V":nan}}' % (n, n))
        for n in range(1, 50)
    ]
    with journal() as store:
        put(store, *messages)
        (latest,) = store._connection.execute("SELECT data FROM status_latest").fetchone()
        assert latest == messages[-1]
        assert number_of(store, "records") == number_of(store, "messages") == 0


_scalar = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.25, "", "a", "1", "é"])
)
_names = st.sampled_from(
    [
        *("DateTime", "DateTimeStart", "Pump", "Transaction", "Volume", "TotalVolume", "Amount"),
        *("Tank", "Code", "Number", "XTotal", "XUploaded", "ConfigurationId", "Id", "Data", "New"),
    ]
)
_members = st.dictionaries(_names, _scalar | st.lists(_scalar, max_size=2), max_size=4)
_packets = st.fixed_dictionaries(
    {},
    optional={
        "Id": st.integers(1, 3) | st.sampled_from(["1", ""]),
        "Type": st.sampled_from(
            ["UploadPumpTransaction", "UploadAlertRecord", "UploadNew", "UploadConfiguration", "A"]
        ),
        "Data": _members | _scalar,
        "ConfigurationId": st.sampled_from(["1", "2"]),
        "Configuration": st.lists(_scalar, max_size=1),
        "More": _scalar,
    },
)
_envelopes = st.builds(
    lambda packets, beside: {"Packets": packets, **beside},
    st.lists(_packets | _scalar, max_size=3) | _packets,
    st.dictionaries(st.sampled_from(["Protocol", "PtsId", "More"]), _scalar, max_size=2),
)


def damaged(text: bytes, at: int, how: int) -> bytes:
    """As firmware damages a message: cut, with bytes behind it, or with a number that is none."""
    if how == 1:
        return text[: max(at % (len(text) + 1), 1)]
    if how == 2:
        return text + b"x" * (at % 3)
    if how == 3:
        return text.replace(b"1.25", b"1.", 1).replace(b"0.5", b"nan", 1)
    return text


_messages = st.builds(
    lambda content, at, how: damaged(json.dumps(content).encode(), at, how),
    _envelopes,
    st.integers(0, 400),
    st.integers(0, 4),
)


def facts(raw: bytes) -> Any:
    """A message without what the reference leaves out of a fact, judged apart from our code."""
    try:
        content = json.loads(raw, parse_constant=lambda text: f"no number {text}")
        packets = content["Packets"]
        assert isinstance(packets, list)
        for packet in packets:
            packet.pop("Id", None)
            if packet.get("Type") == "UploadConfiguration":
                continue
            packet.pop("ConfigurationId", None)
            data = packet.get("Data")
            if isinstance(data, dict):
                data.pop("ConfigurationId", None)
                if "XTotal" in data and "XUploaded" in data:
                    del data["XTotal"], data["XUploaded"]
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError):
        return raw.strip()
    if content.get("PtsId") == "AB":
        del content["PtsId"]
    if content.get("Protocol") == "jsonPTS":
        del content["Protocol"]
    return json.dumps(content, sort_keys=True)


@settings(max_examples=80, deadline=None)
@given(_messages, _messages)
@example(b'{"Packets":[]}', b'{"Packets":[{}]}')
def test_any_two_messages_that_say_something_else_are_both_kept(one: bytes, other: bytes) -> None:
    with journal() as store:
        put(store, one, other)
        raws = kept(store)
        assert one in raws
        if facts(one) != facts(other):
            assert other in raws
        told = number_of(store, "records"), number_of(store, "variants")
        put(store, one, other)
        assert (number_of(store, "records"), number_of(store, "variants")) == told
