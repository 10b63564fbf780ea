"""The controller without I/O: packets, counters, order, resends."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from ptslink.simulator.device import Device, default_periods
from ptslink.simulator.head import Identity
from ptslink.simulator.packets import COUNTERS, KINDS, RECORDS

CONTROLLER = "AABBCCDDEEFF001122334455"


def device(**options: Any) -> Device:
    options = {
        "seed": "s",
        "started": datetime.fromisoformat("2026-01-02T03:04:05"),
        "now": 0.0,
    } | options
    made = Device(Identity(CONTROLLER), **options)
    made.connect(0.0)
    return made


def sent(dev: Device, now: float = 0.0) -> list[dict[str, Any]]:
    """The packets due at *now*; each message must be an envelope of exactly one."""
    packets = []
    for message in dev.due(now):
        data = json.loads(message.text)
        assert list(data) == ["Protocol", "PtsId", "Packets"]
        assert (data["Protocol"], data["PtsId"]) == ("jsonPTS", CONTROLLER)
        [packet] = data["Packets"]
        assert list(packet)[:2] == ["Id", "Type"]
        packets.append(packet)
    return packets


def confirm(dev: Device, packet: dict[str, Any], now: float = 0.0, **changes: Any) -> None:
    answer = {"Id": packet["Id"], "Type": packet["Type"], "Message": "OK"} | changes
    dev.receive(json.dumps({"Protocol": "jsonPTS", "Packets": [answer]}), now)


#: The fields the reference gives for each kind (PTS-2 protocol 2.2), where there is no choice.
FIELDS = {
    "UploadPumpTransaction": "DateTimeStart DateTime Pump Nozzle Tank FuelGradeId FuelGradeName "
    "Transaction Volume TCVolume Price Amount TotalVolume TotalAmount Tag UserId",
    "UploadTankMeasurement": "DateTime Tank FuelGradeId FuelGradeName Status Alarms ProductHeight "
    "WaterHeight Temperature ProductVolume WaterVolume ProductUllage ProductTCVolume "
    "ProductDensity ProductMass TankFillingPercentage",
    "UploadInTankDelivery": "Tank FuelGradeId FuelGradeName StartValues EndValues AbsoluteValues",
    "UploadGpsRecord": "DateTime Latitude NorthSouthIndicator Longitude EastWestIndicator "
    "SpeedOverGround CourseOverGround Mode",
    "UploadAlertRecord": "DateTime DeviceType DeviceNumber State Code",
    "UploadPayment": "PaymentTransactionDateTime PaymentTransaction Pump PumpTransaction "
    "PumpTransactionDateTime Amount PaymentFormId PaymentFormName ShiftNumber IsRefunded",
    "UploadShift": "Number DateTimeStart DateTimeEnd UserId",
    "UploadStatus": "ConfigurationId DateTime UTCOffset FirmwareDateTime PtsStartupSeconds "
    "BatteryVoltage CpuTemperature PowerDownDetected SdMounted ShiftInformation Pumps Probes "
    "PriceBoards Readers Gps FuelGrades UploadedRecordsInformation",
    "RequestTagsInformation": "Tags",
}


@pytest.mark.parametrize("kind", FIELDS)
def test_a_packet_has_the_references_fields(kind: str) -> None:
    [packet] = sent(device(once=(kind,)))
    assert packet["Type"] == kind
    assert set(FIELDS[kind].split()) <= set(packet["Data"])
    if kind in RECORDS:
        name = COUNTERS[kind]
        assert packet["Data"][f"{name}Uploaded"] == packet["Data"][f"{name}Total"] - 1


def test_pump_states_are_parallel_arrays_and_empty_states_empty_objects() -> None:
    [packet] = sent(device(once=("UploadStatus",)))
    pumps = packet["Data"]["Pumps"]
    assert pumps["OfflineStatus"] == {}
    for state in ("IdleStatus", "FillingStatus", "EndOfTransactionStatus"):
        assert len({len(array) for array in pumps[state].values()}) == 1
    assert all(len(m) == 11 for m in packet["Data"]["Probes"]["OnlineStatus"]["Measurements"])


def test_the_configuration_sits_on_the_packet_and_is_as_large_as_a_real_one() -> None:
    dev = device(once=("UploadConfiguration",))
    [message] = dev.due(0)
    [packet] = json.loads(message.text)["Packets"]
    assert list(packet) == ["Id", "Type", "ConfigurationId", "Configuration"]
    assert 30_000 < len(message.text) < 64_000
    assert {"RemoteServerConfiguration", "TagsList", "Parameter"} <= {
        part["Type"] for part in packet["Configuration"]
    }


@pytest.mark.parametrize("kind", KINDS)
def test_times_are_local_without_a_zone(kind: str) -> None:
    [message] = device(once=(kind,)).due(0)

    def walk(value: Any, key: str = "") -> None:
        if isinstance(value, dict):
            for k, v in value.items():
                walk(v, k)
        elif isinstance(value, list):
            for v in value:
                walk(v, key)
        elif "DateTime" in key and isinstance(value, str):
            assert len(value) == 19
            datetime.strptime(value, "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007

    walk(json.loads(message.text))


def test_packet_ids_run_freely_through_sixteen_bits() -> None:
    dev = device()
    dev._packet_id = 65534
    ids = []
    for _ in range(3):
        dev.happen("UploadAlertRecord", 0)
        [packet] = sent(dev)
        ids.append(packet["Id"])
        confirm(dev, packet)
    assert ids == [65535, 1, 2]


def test_records_of_a_kind_go_one_at_a_time_and_in_order() -> None:
    dev = device()
    for _ in range(3):
        dev.happen("UploadPumpTransaction", 0)
    seen = []
    for _ in range(3):
        [packet] = sent(dev)
        assert sent(dev) == []
        seen.append(packet)
        confirm(dev, packet)
    uploaded = [p["Data"]["PumpTransactionsUploaded"] for p in seen]
    assert uploaded == [uploaded[0], uploaded[0] + 1, uploaded[0] + 2]
    assert dev.unconfirmed.total() == 0


def test_a_record_is_resent_after_the_response_timeout_and_not_before() -> None:
    dev = device(once=("UploadShift",), response_seconds=2.0)
    [first] = sent(dev, 0.0)
    assert sent(dev, 1.9) == []
    assert sent(dev, 2.0) == [first]
    assert dev.tally.resent.total() == 1
    assert dev.tally.sent.total() == 1


def test_an_error_reply_makes_it_resend() -> None:
    dev = device(once=("UploadShift",), response_seconds=2.0)
    [first] = sent(dev, 0.0)
    confirm(dev, first, 1.0, Error=True, Code=9, Message="no space")
    assert sent(dev, 2.9) == []
    assert sent(dev, 3.0) == [first]
    assert dev.tally.rejected == {"UploadShift": 1}


def test_a_second_confirmation_is_no_fault() -> None:
    dev = device(once=("UploadShift",))
    [packet] = sent(dev)
    confirm(dev, packet)
    confirm(dev, packet)
    assert dev.tally.confirmed == {"UploadShift": 1}
    assert not dev.tally.rejected


def test_status_is_replaced_not_queued() -> None:
    dev = device(periods={"UploadStatus": 1.0})
    ids = [p["Id"] for now in (0.0, 1.0, 2.0) for p in sent(dev, now)]
    assert len(ids) == 3
    assert dev.unconfirmed == {"UploadStatus": 1}


def test_what_happens_while_the_link_is_down_is_delivered_afterwards() -> None:
    dev = device(periods={"UploadPumpTransaction": 10.0, "UploadStatus": 1.0})
    dev.disconnect()
    for second in range(31):
        assert dev.due(float(second)) == []
    waiting = dev.unconfirmed["UploadPumpTransaction"]
    assert waiting == 3
    dev.stop()
    dev.connect(31.0)
    delivered = 0
    for _ in range(10):
        for packet in sent(dev, 31.0):
            delivered += packet["Type"] == "UploadPumpTransaction"
            confirm(dev, packet)
    assert delivered == waiting
    assert dev.unconfirmed.total() == 0


def test_a_stopped_device_plans_nothing() -> None:
    dev = device(periods=default_periods(1.0))
    dev.stop()
    assert dev.next_time() == float("inf")


def test_a_confirmation_may_ask_for_configuration_and_carry_a_request() -> None:
    dev = device(once=("UploadStatus",))
    [packet] = sent(dev)
    answer = {
        "Id": packet["Id"],
        "Type": "UploadStatus",
        "Message": "OK",
        "GetConfiguration": True,
        "SetRequestType": "GetDateTime",
    }
    [reply] = dev.receive(json.dumps({"Protocol": "jsonPTS", "Packets": [answer]}), 0)
    assert json.loads(reply.text)["Packets"][0]["Type"] == "DateTime"
    assert [p["Type"] for p in sent(dev)] == ["UploadConfiguration"]


def test_a_request_over_16_kb_is_refused_with_error_5() -> None:
    [reply] = device().receive(" " * 16385, 0)
    assert json.loads(reply.text)["Packets"][0]["Code"] == 5


def test_the_same_seed_makes_the_same_station() -> None:
    def texts(seed: str) -> list[str]:
        return [m.text for m in device(seed=seed, once=KINDS).due(0)]

    assert texts("a") == texts("a")
    assert texts("a") != texts("b")
