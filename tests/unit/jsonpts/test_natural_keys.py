"""What makes two packets the same fact (PTS-2 protocol 2.4)."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ptslink.journal import schema
from ptslink.jsonpts import moment
from ptslink.jsonpts.envelope import Packet
from ptslink.jsonpts.natural import fished_key, fished_whole, natural_key

SALE = {
    "DateTimeStart": "2026-03-01T10:00:00",
    "DateTime": "2026-03-01T10:01:00",
    "Pump": 1,
    "Transaction": 500,
    "Volume": 10.5,
    "TotalVolume": 1000.25,
    "Amount": 15,
}
TANK = {"DateTime": "2026-03-01T10:01:00", "Tank": 1, "ProductHeight": 1200.5, "Temperature": 9.1}
DELIVERY = {
    "Tank": 1,
    "StartValues": {"DateTime": "2026-03-01T10:00:00", "ProductHeight": 1},
    "EndValues": {"DateTime": "2026-03-01T10:30:00", "ProductHeight": 2},
}
GPS = {"DateTime": "2026-03-01T10:01:00", "Latitude": "5027.1", "Longitude": "03031.2"}
ALERT = {
    "DateTime": "2026-03-01T10:01:00",
    "DeviceType": "Pump",
    "DeviceNumber": 1,
    "State": "Started",
    "Code": 1,
}
PAYMENT = {"PaymentTransaction": 5, "PaymentTransactionDateTime": "2026-03-01T10:01:00"}
SHIFT = {"Number": 3, "DateTimeStart": "2026-03-01T06:00:00"}


def key(type_: str, data: Any, configuration: bytes = b"") -> bytes:
    packet = Packet(b"1", type_, json.dumps(data).encode() if data is not None else b"")
    packet.configuration = configuration
    return natural_key(packet).digest


@pytest.mark.parametrize(
    ("type_", "data", "changed"),
    [
        ("UploadPumpTransaction", SALE, {"Pump": 2}),
        ("UploadPumpTransaction", SALE, {"Transaction": 501}),
        ("UploadPumpTransaction", SALE, {"DateTime": "2026-03-01T10:02:00"}),
        ("UploadPumpTransaction", SALE, {"DateTimeStart": "2026-03-01T10:00:01"}),
        ("UploadPumpTransaction", SALE, {"Volume": 10.51}),
        ("UploadPumpTransaction", SALE, {"TotalVolume": 1010.75}),
        ("UploadTankMeasurement", TANK, {"Tank": 2}),
        ("UploadTankMeasurement", TANK, {"ProductHeight": 1200.6}),
        ("UploadInTankDelivery", DELIVERY, {"Tank": 2}),
        ("UploadInTankDelivery", DELIVERY, {"StartValues": {"DateTime": "2026-03-01T10:00:01"}}),
        ("UploadInTankDelivery", DELIVERY, {"EndValues": {"DateTime": "2026-03-01T10:30:01"}}),
        ("UploadGpsRecord", GPS, {"Latitude": "5027.2"}),
        ("UploadAlertRecord", ALERT, {"State": "Finished"}),
        ("UploadAlertRecord", ALERT, {"Code": 20}),
        ("UploadAlertRecord", ALERT, {"DeviceNumber": 2}),
        ("UploadPayment", PAYMENT, {"IsRefunded": True}),
        ("UploadPayment", PAYMENT, {"PaymentTransaction": 6}),
        ("UploadShift", SHIFT, {"DateTimeEnd": "2026-03-01T14:00:00"}),
        ("UploadShift", SHIFT, {"Number": 4}),
        ("UploadNovelty", {"DateTime": "2026-03-01T10:01:00", "X": 1}, {"X": 2}),
    ],
)
def test_another_fact_has_another_key(type_: str, data: Any, changed: Any) -> None:
    assert key(type_, data) != key(type_, {**data, **changed})


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        ("UploadPumpTransaction", SALE),
        ("UploadTankMeasurement", TANK),
        ("UploadInTankDelivery", DELIVERY),
        ("UploadGpsRecord", GPS),
        ("UploadAlertRecord", ALERT),
        ("UploadPayment", PAYMENT),
        ("UploadShift", SHIFT),
        ("UploadNovelty", {"DateTime": "2026-03-01T10:01:00", "X": 1}),
    ],
)
def test_a_copy_has_the_same_key(type_: str, data: Any) -> None:
    again = dict(reversed(list(data.items())))
    again |= {"ConfigurationId": "1234", "SomethingUploaded": 5, "SomethingTotal": 9}
    assert key(type_, data) == key(type_, again)
    spaced = json.dumps(data, indent=2).encode()
    assert natural_key(Packet(b'"9"', type_, spaced)).digest == key(type_, data)


def test_a_wrapped_transaction_number_is_another_sale() -> None:
    later = {**SALE, "DateTime": "2027-01-01T00:00:00", "DateTimeStart": "2026-12-31T23:59:00"}
    assert key("UploadPumpTransaction", SALE) != key("UploadPumpTransaction", later)


def test_dates_that_repeat_after_a_clock_reset_do_not_swallow_measurements() -> None:
    first = {**TANK, "DateTime": "2000-01-01T00:00:02"}
    second = {**first, "ProductHeight": 900}
    assert key("UploadTankMeasurement", first) != key("UploadTankMeasurement", second)


@pytest.mark.parametrize("missing", ["Transaction", "DateTime"])
def test_a_sale_without_its_number_or_time_is_matched_by_all_it_says(missing: str) -> None:
    poor = {name: value for name, value in SALE.items() if name != missing}
    assert key("UploadPumpTransaction", poor) != key(
        "UploadPumpTransaction", {**poor, "Amount": 16}
    )
    assert key("UploadPumpTransaction", poor) == key("UploadPumpTransaction", dict(poor))


def test_one_number_has_one_spelling() -> None:
    texts = ["10.5", "10.50", "10.500", '"10.5"']
    data = json.dumps(SALE)
    spellings = [data.replace("10.5", text) for text in texts]
    packets = [Packet(b"1", "UploadPumpTransaction", text.encode()) for text in spellings]
    assert len({natural_key(packet).digest for packet in packets}) == 1


def test_a_configuration_is_known_by_its_id() -> None:
    first = key("UploadConfiguration", [{"Type": "A"}], b'"1a2b"')
    assert first == key("UploadConfiguration", [{"Type": "B"}], b'"1a2b"')
    assert first != key("UploadConfiguration", [{"Type": "A"}], b'"1a2c"')


def test_types_do_not_share_keys() -> None:
    assert key("UploadGpsRecord", GPS) != key("UploadNovelty", GPS)


_value = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.lists(st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.integers(), max_size=3)
)
_names = st.sampled_from(sorted({*SALE, *TANK, *DELIVERY, *ALERT, *PAYMENT, *SHIFT, "New"}))
_types = st.sampled_from(
    [
        "UploadPumpTransaction",
        "UploadTankMeasurement",
        "UploadInTankDelivery",
        "UploadGpsRecord",
        "UploadAlertRecord",
        "UploadPayment",
        "UploadShift",
        "UploadConfiguration",
        "UploadNew",
    ]
)


@given(_types, st.dictionaries(_names, _value, max_size=10))
def test_any_members_of_any_type_have_a_stable_key(type_: str, data: dict[str, Any]) -> None:
    shuffled = dict(sorted(data.items(), reverse=True))
    assert key(type_, data) == key(type_, shuffled)
    assert len(key(type_, data)) == 16


_numbers = st.integers(0, 65_535) | st.floats(0, 1e7).map(lambda value: round(value, 3))
_measured = st.fixed_dictionaries(
    {"DateTime": st.sampled_from(["2026-03-01T10:01:00", "2000-01-01T00:00:02"])},
    optional=dict.fromkeys(
        (
            *("Tank", "ProductHeight", "WaterHeight", "Temperature", "ProductVolume"),
            *("WaterVolume", "ProductUllage", "ProductTCVolume", "ProductDensity"),
            *("ProductMass", "TankFillingPercentage", "FuelGradeId"),
        ),
        _numbers,
    )
    | {"Alarms": st.lists(st.sampled_from(["CriticalHighProduct", "TankLeakage"]), max_size=2)}
    | {"Status": st.sampled_from(["OK", "Error"]), "FuelGradeName": st.text(max_size=10)},
)


@given(_measured, _measured)
@example(TANK, {**TANK, "Temperature": 9.2})
def test_measurements_have_one_key_exactly_if_they_say_the_same(one: Any, other: Any) -> None:
    same = key("UploadTankMeasurement", one) == key("UploadTankMeasurement", other)
    assert same == (one == other)


@pytest.mark.parametrize(
    "odd",
    [
        {"Pump": True},
        {"Pump": "one"},
        {"Transaction": None},
        {"DateTime": ""},
        {"DateTime": "yesterday"},
        {"DateTime": 5},
        {"Volume": [1]},
        {"Volume": "10,5"},
    ],
)
def test_a_sale_of_an_odd_shape_has_a_key_of_its_own(odd: dict[str, Any]) -> None:
    sale = {**SALE, **odd}
    assert key("UploadPumpTransaction", sale) == key("UploadPumpTransaction", dict(sale))
    assert key("UploadPumpTransaction", sale) != key("UploadPumpTransaction", SALE)
    assert key("UploadPumpTransaction", sale) != key("UploadPumpTransaction", {**sale, "Pump": 7})


@given(_types, st.binary(max_size=60))
def test_any_bytes_have_a_key(type_: str, noise: bytes) -> None:
    natural_key(Packet(b"1", type_, noise))


@given(st.floats(0, 1e6).map(lambda v: round(v, 3)), st.floats(0, 1e6).map(lambda v: round(v, 3)))
def test_volumes_that_differ_make_different_sales(one: float, other: float) -> None:
    keys = [key("UploadPumpTransaction", {**SALE, "Volume": volume}) for volume in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00", 0),
        ("2026-03-01T10:01:00", 1772359260),
        ("2026-02-30T10:01:00", None),
        ("2026-03-01T24:01:00", None),
        ("2026-03-01 10:01:00", None),
        ("2026-03-01T10:01:00Z", None),
        ("0000-00-00T00:00:00", None),
        ("2026-W10-7T10:01:00", None),
        ("20260301T1001:00.00", None),
        ("", None),
    ],
)
def test_local_times(text: str, seconds: int | None) -> None:
    assert moment.local_seconds(text) == seconds


#: Version of the journal -> the digests of that version.
DIGESTS = {
    3: [
        ("UploadPumpTransaction", SALE, "124207dd39c5d23e251b2741d4a97018"),
        (
            "UploadPumpTransaction",
            {**SALE, "Transaction": None},
            "c0e5c19912dcc72cf67607ce5b25dea3",
        ),
        ("UploadTankMeasurement", TANK, "d3ab7ab53260643cef84e40ee4c3617e"),
        ("UploadInTankDelivery", DELIVERY, "f5657203f372a995c3618c76f4aad225"),
        ("UploadGpsRecord", GPS, "ff1d027e8d5dd2dede7d639c7e40a16f"),
        ("UploadAlertRecord", ALERT, "6d0769be6ed05b53824f522b13f8337d"),
        ("UploadPayment", PAYMENT, "3fffb4ae19e46b7a38dc0335458556f7"),
        ("UploadShift", SHIFT, "daf3bc114102ad347b270d5d4647f2de"),
        ("UploadNovelty", SHIFT, "9edee047324fff1797c84bf791abeadc"),
        ("UploadX", None, "ddc1fbc19aad6782a8d379e3b5c7f9a5"),
    ]
}


#: Keys of broken messages, in the same way.
FISHED = {3: "2f4bc3fd13adefaf3d4d30b8d0a72f13"}


def test_another_digest_is_another_version_of_the_journal() -> None:
    for type_, data, digest in DIGESTS[schema.VERSION]:
        found = key(type_, data).hex()
        assert found == digest, f"{type_}: raise schema.VERSION, or older journals let copies in"
    assert (
        fished_key("UploadX", fished_whole(b'{"Id":1,"Type":"UploadX"'), 0).digest.hex()
        == (FISHED[schema.VERSION])
    )


def test_utc_is_the_controllers_offset_first_then_the_zone() -> None:
    local = moment.local_seconds("2026-07-01T12:00:00")
    assert local is not None
    zone = ZoneInfo("Europe/Kyiv")
    assert moment.to_utc(local, offset_minutes=120, zone=zone) == local - 7200
    assert moment.to_utc(local, offset_minutes=None, zone=zone) == local - 3 * 3600
    assert moment.to_utc(local, offset_minutes=None, zone=None) is None


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("2026-03-01T10:01:00", ()),
        ("2000-01-01T00:00:02", ("clock-reset",)),
        ("2026-13-01T00:00:02", ("impossible-time",)),
        ("2031-01-01T00:00:00", ("future-time",)),
    ],
)
def test_doubtful_times_are_flagged(text: str, flags: tuple[str, ...]) -> None:
    assert moment.flags(moment.local_seconds(text), now=1_800_000_000) == flags
