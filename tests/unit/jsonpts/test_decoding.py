"""The envelope: tolerant, exact about Ids, and never raising."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptslink.jsonpts import envelope
from ptslink.jsonpts.confirmation import answers
from ptslink.jsonpts.envelope import Packet, decode

CLEAN = '{"Protocol":"jsonPTS","PtsId":"AB","Packets":[{"Id":7,"Type":"UploadX","Data":{"a":1}}]}'


def seen(payload: str | bytes) -> tuple[list[tuple[bytes, str, bytes]], tuple[str, ...]]:
    message = decode(payload.encode() if isinstance(payload, str) else payload)
    return [(p.id, p.type, p.data) for p in message.packets], message.notes


def test_a_clean_message() -> None:
    assert seen(CLEAN) == ([(b"7", "UploadX", b'{"a":1}')], ())
    assert decode(CLEAN.encode()).controller == "AB"


@pytest.mark.parametrize(
    ("broken", "note"),
    [
        (CLEAN.replace('{"a":1}', '{"a":1,}'), "trailing-comma"),
        (CLEAN.replace("}]}", "},]}"), "trailing-comma"),
        (CLEAN[:-1] + " ,\r\n }", "trailing-comma"),
        (CLEAN.replace('7,"Type"', '7 "Type"'), "missing-comma"),
        (CLEAN.replace('"UploadX",', '"UploadX"\r\n'), "missing-comma"),
        (CLEAN.replace('{"a":1}', '{"a":1}').replace("AB", "A\tB"), "control-character-in-string"),
        (CLEAN + "\x00\x00", "trailing-bytes"),
        (CLEAN + "garbage", "trailing-bytes"),
        (CLEAN + CLEAN, "trailing-bytes"),
        ("\ufeff" + CLEAN, "leading-bytes"),
        ("abc" + CLEAN, "leading-bytes"),
        (CLEAN.encode().replace(b"AB", b"\xcf\xf0"), "not-utf8"),
    ],
)
def test_what_firmware_gets_wrong_is_mended_and_named(broken: str | bytes, note: str) -> None:
    packets, notes = seen(broken)
    assert [(id_, type_) for id_, type_, _ in packets] == [(b"7", "UploadX")]
    assert json.loads(packets[0][2]) == {"a": 1}
    assert notes == (note,)


@pytest.mark.parametrize("end", ["\r\n", "\n", "  ", "\r\n\r\n"])
def test_a_trailing_crlf_is_part_of_the_game(end: str) -> None:
    assert seen(CLEAN + end) == seen(CLEAN)


def test_text_in_strings_is_never_mended() -> None:
    inner = r'{"a":"x,} ,] \" {\"b\" \"c\":1 "}'
    packets, notes = seen(CLEAN.replace('{"a":1}', inner + ",").replace(",}]}", ",}]}"))
    assert packets[0][2] == inner.encode()
    assert notes == ("trailing-comma",)


@pytest.mark.parametrize(
    ("payload", "packets", "notes"),
    [
        ('{"Packets":[{"Id":"7","Type":"UploadX"}]}', [(b'"7"', "UploadX", b"")], ()),
        (
            '{"Packets":[{"Type":"UploadX","Id":7,"Data":null}]}',
            [(b"7", "UploadX", b"")],
            (),
        ),
        ('{"Packets":[{"Id":7}]}', [(b"7", "", b"")], ("packet-without-type",)),
        ('{"Packets":[{"Id":7,"Type":5}]}', [(b"7", "", b"")], ("packet-without-type",)),
        ('{"Packets":[{"Type":"UploadX"}]}', [(b"", "UploadX", b"")], ("packet-without-id",)),
        (
            '{"Packets":[{"Id":null,"Type":"UploadX"}]}',
            [(b"", "UploadX", b"")],
            ("packet-without-id",),
        ),
        (
            '{"Packets":[{"Id":[1],"Type":"UploadX"}]}',
            [(b"", "UploadX", b"")],
            ("packet-without-id",),
        ),
        (
            '{"Packets":{"Id":7,"Type":"UploadX"}}',
            [(b"7", "UploadX", b"")],
            ("packets-not-a-list",),
        ),
        (
            '{"Packets":[5,{"Id":7,"Type":"UploadX"}]}',
            [(b"7", "UploadX", b"")],
            ("packet-not-an-object",),
        ),
        ('{"Packets":[]}', [], ("no-packets",)),
        ('{"Packets":null}', [], ("no-packets",)),
        ('{"Protocol":"jsonPTS"}', [], ("no-packets",)),
        ('{"Protocol":"other","Packets":[]}', [], ("other-protocol", "no-packets")),
        ("{}", [], ("no-packets",)),
        ("", [], ("unreadable",)),
        ("hello", [], ("unreadable",)),
        ("[]", [], ("unreadable",)),
        (
            '{"Packets":[{"Id":7,"Type":"UploadX","Data":{"a":',
            [(b"7", "UploadX", b"")],
            ("fished",),
        ),
        (
            '"Type":"UploadX" what "Id" : 12',
            [(b"12", "UploadX", b"")],
            ("fished",),
        ),
    ],
)
def test_odd_shapes(payload: str, packets: list[object], notes: tuple[str, ...]) -> None:
    found, named = seen(payload)
    assert found == packets
    assert [note for note in named if note not in ("leading-bytes", "trailing-bytes")] == [*notes]


def test_nesting_beyond_reason_does_not_raise() -> None:
    decode(b'{"Packets":' + b"[" * 100_000)
    decode(b"{" * 100_000)


@given(st.binary(max_size=300))
def test_any_bytes_decode_without_raising(noise: bytes) -> None:
    decode(noise)
    decode(b'{"Packets":[{"Id":1,"Type":"UploadX","Data":' + noise + b"}]}")


@given(st.text(max_size=200), st.integers(0, 200), st.integers(0, 200))
def test_a_damaged_message_still_decodes_without_raising(text: str, at: int, cut: int) -> None:
    damaged = CLEAN[:at] + text + CLEAN[at + cut :]
    message = decode(damaged.encode("utf-8", "surrogatepass"))
    answers(message.packets, stored=True)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
_ids = st.integers(1, 2**31 - 1) | st.text("0123456789abc", min_size=1, max_size=10)


@given(st.lists(st.tuples(_ids, _json), min_size=1, max_size=8), st.booleans())
def test_every_upload_is_confirmed_once_with_its_own_id_in_order(packets, ascii_only) -> None:
    content = {
        "Packets": [
            {"Id": id_, "Type": f"UploadKind{at}", "Data": data}
            for at, (id_, data) in enumerate(packets)
        ]
    }
    payload = json.dumps(content, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    message = decode(payload)
    answered = [
        packet
        for answer in answers(message.packets, stored=True)
        for packet in json.loads(answer)["Packets"]
    ]
    assert answered == [
        {"Id": id_, "Type": f"UploadKind{at}", "Message": "OK"}
        for at, (id_, _) in enumerate(packets)
    ]


def test_many_confirmations_are_cut_to_the_controllers_buffer() -> None:
    packets = [Packet(b"%d" % n, "UploadPumpTransaction", b"{}") for n in range(1000)]
    found = answers(packets, stored=True)
    assert len(found) > 1
    assert all(len(answer) < 16_384 for answer in found)
    ids = [packet["Id"] for answer in found for packet in json.loads(answer)["Packets"]]
    assert ids == list(range(1000))


def test_a_confirmation_begins_with_the_id_and_is_compact() -> None:
    (found,) = answers([Packet(b'"7"', "UploadShift", b"{}")], stored=True)
    assert found == (
        b'{"Protocol":"jsonPTS","Packets":[{"Id":"7","Type":"UploadShift","Message":"OK"}]}'
    )


def tokens(content: object) -> int:
    """As the firmware counts them: every container, name and value is one."""
    if isinstance(content, dict):
        return 1 + sum(1 + tokens(value) for value in content.values())
    return 1 + sum(map(tokens, content)) if isinstance(content, list) else 1


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    "packet",
    [
        Packet(b"7", "UploadPumpTransaction", b"{}"),
        Packet(b'"%b"' % (b"7" * 60), "Upload" + "U" * 58, b"{}"),
        Packet(
            b"7", "RequestTagsInformation", b'{"Tags":[%b]}' % b",".join([b'{"Tag":"A1"}'] * 40)
        ),
        Packet(
            b"7",
            "RequestTagsInformation",
            b'{"Tags":[%b]}' % b",".join([b'{"Tag":"%b"}' % (b"A" * 90)] * 5000),
        ),
        Packet(b"7", "RequestTagsInformation", b'{"Tags":[{"Tag":"%b"}]}' % (b"A" * 20_000)),
    ],
)
def test_no_answer_is_more_than_the_controller_reads(packet: Packet, stored: bool) -> None:
    found = answers([packet] * 1000, stored=stored)
    read = [json.loads(answer) for answer in found]
    assert sum(len(message["Packets"]) for message in read) == 1000
    assert max(map(len, found)) < 16_384
    assert max(map(tokens, read)) <= 600


def test_no_tag_is_ever_authorised_by_default() -> None:
    data = b'{"Tags":[{"Tag":"A1","Pump":1},{"Tag":"B2"},{}]}'
    (found,) = answers([Packet(b"3", "RequestTagsInformation", data)], stored=True)
    assert json.loads(found)["Packets"] == [
        {
            "Id": 3,
            "Type": "TagsInformation",
            "Message": "OK",
            "Data": {
                "Tags": [
                    {"Tag": "A1", "Valid": False},
                    {"Tag": "B2", "Valid": False},
                    {"Tag": "", "Valid": False},
                ]
            },
        }
    ]


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"Tags":5}', b'{"Tags":[5]}'])
def test_a_tag_request_of_an_odd_shape_authorises_nothing(data: bytes) -> None:
    (found,) = answers([Packet(b"3", "RequestTagsInformation", data)], stored=True)
    assert json.loads(found)["Packets"][0]["Data"] == {"Tags": []}


@pytest.mark.parametrize("type_", ["DateTime", "RequestTagBalance", "Ping", "", "Confirmation"])
def test_what_is_no_upload_gets_no_confirmation(type_: str) -> None:
    assert answers([Packet(b"3", type_, b"{}")], stored=True) == []


_member = st.sampled_from(
    [
        b'"Id":7',
        b'"Id":"7"',
        b'"Id":-0',
        b'"Id":7.0',
        b'"Id":null',
        b'"Id":[1]',
        b'"Id":"' + b"9" * 80 + b'"',
        b'"Type":"UploadX"',
        b'"Type":"UploadPumpTransaction"',
        b'"Type":""',
        b'"Type":"' + b"T" * 70 + b'"',
        b'"Type":null',
        b'"Type":5',
        b'"Type":"Upload\\u0058"',
        b'"Data":{"A":1}',
        b'"Data":null',
        b'"Data":[]',
        b'"Error":true',
        b'"Error":false',
        b'"Error":null',
        b'"ConfigurationId":"1a"',
        b'"Configuration":[1]',
        b'"Unknown":{}',
    ]
)
_packet_text = st.lists(_member, max_size=5).map(lambda parts: b"{" + b",".join(parts) + b"}")
_packets_text = st.lists(
    _packet_text | st.just(b'{"Id":1,"Type":"UploadX","Data":{}}'), max_size=3
).map(lambda parts: b'"Packets":[' + b",".join(parts) + b"]")
_envelope_text = st.tuples(
    st.sampled_from([b'"Protocol":"jsonPTS"', b'"Protocol":"other"', b'"Protocol":null', b'"X":1']),
    _packets_text | st.sampled_from([b'"Packets":null', b'"Packets":{}', b'"Packets":[1]']),
    st.sampled_from([b'"PtsId":"00AB"', b'"PtsId":5', b'"PtsId":null', b'"PtsId":""', b'"Y":2']),
    st.sampled_from([b"", b"\r\n", b"}", b"x"]),
).map(lambda parts: b"{" + b",".join(parts[:3]) + b"}" + parts[3])


@given(_envelope_text)
def test_the_short_way_of_plain_messages_decodes_them_as_the_general_way_does(
    payload: bytes,
) -> None:
    assert decode(payload) == envelope._decode_any(payload, len(payload))


def test_an_id_that_is_not_utf8_is_not_echoed() -> None:
    message = decode(b'{"Protocol":"jsonPTS","Packets":[{"Id":"\xff","Type":"UploadX","Data":{}}]}')
    assert [packet.id for packet in message.packets] == [b""]


@pytest.mark.parametrize("noise", [b'"' * 131_072, b'{"' + b"\\" * 131_000, b"1" * 131_072])
def test_a_long_run_of_one_byte_is_decoded_at_once(noise: bytes) -> None:
    assert decode(noise).packets == []
