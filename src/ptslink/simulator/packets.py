"""The packets a controller sends: names, envelope, status and configuration (PTS-2 protocol 2)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ptslink.simulator.forecourt import GRADES, Data, Forecourt, local

PACKET_ID_MODULUS = 65535

#: What happens at the forecourt for each kind of record.
RECORDS: dict[str, Callable[[Forecourt, datetime], Data]] = {
    "UploadPumpTransaction": Forecourt.sell,
    "UploadTankMeasurement": Forecourt.measure,
    "UploadInTankDelivery": Forecourt.deliver,
    "UploadGpsRecord": Forecourt.locate,
    "UploadAlertRecord": Forecourt.alert,
    "UploadPayment": Forecourt.pay,
    "UploadShift": Forecourt.close_shift,
}

#: The names of the counters each kind of record carries (``...Uploaded`` and ``...Total``).
COUNTERS = {
    "UploadPumpTransaction": "PumpTransactions",
    "UploadTankMeasurement": "TankMeasurements",
    "UploadInTankDelivery": "InTankDeliveries",
    "UploadGpsRecord": "GpsRecords",
    "UploadAlertRecord": "AlertRecords",
    "UploadPayment": "Payments",
    "UploadShift": "Shifts",
}

STATUS, CONFIGURATION, TAGS = "UploadStatus", "UploadConfiguration", "RequestTagsInformation"

#: Every kind of message a controller sends on its own.
KINDS = (STATUS, *RECORDS, CONFIGURATION, TAGS)

#: What the confirmation's ``Type`` must be; the same as the upload's but for tags.
CONFIRMATION_TYPE = {kind: kind for kind in KINDS} | {TAGS: "TagsInformation"}


def envelope(packets: list[Data], controller_id: str | None = None) -> str:
    """One message as it goes on the wire: compact JSON, ``PtsId`` only on what is uploaded."""
    message: Data = {"Protocol": "jsonPTS"}
    if controller_id is not None:
        message["PtsId"] = controller_id
    message["Packets"] = packets
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def packet(kind: str, packet_id: int | str, body: Data) -> Data:
    """A packet; a configuration's parts sit on the packet itself, not in ``Data``."""
    if kind == CONFIGURATION:
        return {"Id": packet_id, "Type": kind, **body}
    return {"Id": packet_id, "Type": kind, "Data": body}


def status_data(
    court: Forecourt,
    *,
    now: datetime,
    configuration_id: str,
    firmware: str,
    startup_seconds: int,
    counters: Data,
) -> Data:
    """``Data`` of UploadStatus: pump states as parallel arrays, empty states as ``{}``."""
    idle = [pump.number for pump in court.pumps[:-2]]
    busy = court.pumps[-2]
    sale = court.last_sale
    done = court.pumps[-1]
    measured = [[tank.number, *court.contents(tank).values()] for tank in court.tanks]
    return {
        "ConfigurationId": configuration_id,
        "DateTime": local(now),
        "UTCOffset": 120,
        "FirmwareDateTime": "20" + firmware if len(firmware) == 17 else firmware,
        "PtsStartupSeconds": startup_seconds,
        "BatteryVoltage": 3187,
        "CpuTemperature": 36,
        "PowerDownDetected": False,
        "SdMounted": True,
        "ShiftInformation": {
            "Number": court.shift,
            "DateTimeStart": local(now.replace(hour=6, minute=0, second=0)),
            "UserId": 1,
        },
        "Pumps": {
            "IdleStatus": {
                "Ids": idle,
                "NozzlesUp": [0] * len(idle),
                "LastNozzles": [1] * len(idle),
                "LastVolumes": [10.0] * len(idle),
                "LastPrices": [GRADES[0].price] * len(idle),
                "LastAmounts": [round(10 * GRADES[0].price, 2)] * len(idle),
                "LastTransactions": [court.pumps[i - 1].transaction for i in idle],
                "LastUsers": ["admin"] * len(idle),
                "Requests": [""] * len(idle),
            },
            "FillingStatus": {
                "Ids": [busy.number],
                "Nozzles": [1],
                "Transactions": [busy.transaction % 65535 + 1],
                "Volumes": [round(startup_seconds % 60 * 0.61, 2)],
                "Prices": [GRADES[0].price],
                "Amounts": [round(startup_seconds % 60 * 0.61 * GRADES[0].price, 2)],
                "Users": ["admin"],
                "Tags": [""],
            },
            "EndOfTransactionStatus": {
                "Ids": [done.number],
                "Nozzles": [2],
                "Transactions": [done.transaction],
                "Volumes": [sale.get("Volume", 20.0)],
                "Prices": [sale.get("Price", GRADES[1].price)],
                "Amounts": [sale.get("Amount", 30.78)],
                "Users": ["admin"],
                "Tags": [sale.get("Tag", "")],
            },
            "OfflineStatus": {},
            "Users": ["admin"] * len(court.pumps),
        },
        "Probes": {
            "OnlineStatus": {
                "Ids": [tank.number for tank in court.tanks],
                "CriticalHighProductAlarms": [],
                "HighProductAlarms": [],
                "LowProductAlarms": [],
                "CriticalLowProductAlarms": [],
                "HighWaterAlarms": [],
                "TankLeakageAlarms": [],
                "Errors": [],
                "Measurements": measured,
            },
            "OfflineStatus": {},
        },
        "PriceBoards": {"OnlineStatus": {}, "OfflineStatus": {}},
        "Readers": {"OnlineStatus": {}, "OfflineStatus": {}, "ErrorStatus": {}},
        "Gps": None,
        "FuelGrades": [
            {"Id": g.number, "Name": g.name, "Price": g.price, "ExpansionCoefficient": 0.00095}
            for g in GRADES
        ],
        "UploadedRecordsInformation": counters,
    }


def configuration_body(
    court: Forecourt, configuration_id: str, rng: random.Random, remote: Data | None = None
) -> Data:
    """``ConfigurationId`` and ``Configuration`` of a whole station, more than 30 KB of JSON.

    A real one is 13 to 35 KB, most of it Parameter packets and the tags list (PTS-2 protocol 1.3).
    """
    parts: list[tuple[str, Any]] = [
        (
            "PtsNetworkSettings",
            {
                "IpAddress": [192, 168, 1, 117],
                "NetMask": [255, 255, 255, 0],
                "Gateway": [192, 168, 1, 1],
                "HttpPort": 80,
                "HttpsPort": 443,
                "Dns1": [192, 168, 1, 1],
                "Dns2": [0, 0, 0, 0],
            },
        ),
        ("RemoteServerConfiguration", remote_server_configuration(remote)),
        ("PumpsConfiguration", pumps_configuration(court)),
        ("ProbesConfiguration", probes_configuration(court)),
        ("FuelGradesConfiguration", fuel_grades_configuration()),
        ("TanksConfiguration", tanks_configuration(court)),
        ("PumpNozzlesConfiguration", pump_nozzles_configuration(court)),
        ("PriceBoardsConfiguration", {"Ports": [], "PriceBoards": []}),
        ("ReadersConfiguration", {"Ports": [], "Readers": []}),
        ("DateTime", {"AutoSynchronize": True, "UTCOffset": 120}),
        ("DailyProcessingTime", {"Time": "00:00"}),
        ("WirelessDevicesConfiguration", {"Devices": []}),
    ]
    for device in ("Pump", "Probe", "PriceBoard", "Reader"):
        parts += [
            (
                "Parameter",
                {
                    "Device": device,
                    "Number": number,
                    "Address": address,
                    "Value": "".join(rng.choice("0123456789ABCDEF") for _ in range(8)),
                },
            )
            for number in range(1, 7)
            for address in range(1, 11)
        ]
    parts.append(
        (
            "TagsList",
            {
                "Tags": [
                    {"Tag": f"{rng.getrandbits(64):016X}", "Name": f"Driver {n}", "Valid": True}
                    for n in range(1, 121)
                ]
            },
        )
    )
    configuration = [{"Type": kind, "Data": data} for kind, data in parts]
    return {"ConfigurationId": configuration_id, "Configuration": configuration}


def remote_server_configuration(changed: Data | None = None) -> Data:
    """Where the controller is told to upload to; *changed* fields differ from a faithful one's."""
    return {
        "IpAddress": [0, 0, 0, 0],
        "DomainName": "pts.example.test",
        "UserId": 1,
        "ProtocolType": "HTTP",
        "ServerResponseTimeoutSeconds": 2,
        "UseDeviceIdentifierAsLogin": False,
        "WebsocketsUri": "ptsWebSocket",
        "WebsocketsPort": 3000,
        "WebsocketsUploadPumpTransactions": True,
        "WebsocketsUploadTankMeasurements": True,
        "WebsocketsUploadInTankDeliveries": True,
        "WebsocketsUploadGpsRecords": True,
        "WebsocketsUploadStatus": True,
        "WebsocketsUploadConfiguration": True,
        "WebsocketsUploadStatusRequestsPeriodSeconds": 1,
        "WebsocketsPingRequestsPeriodSeconds": 30,
        "WebsocketsRequestTagsInformation": True,
        "UseWebsocketsCommunication": True,
        "IsConnectionSuccessful": True,
        "IsUploadSuccessful": True,
        "IsWebsocketsCommunicationSuccessful": True,
        **(changed or {}),
    }


def pumps_configuration(court: Forecourt) -> Data:
    return {
        "Ports": [{"Id": 1, "Protocol": 1, "BaudRate": 9600}],
        "Pumps": [{"Id": p.number, "Port": 1, "Address": p.number} for p in court.pumps],
    }


def probes_configuration(court: Forecourt) -> Data:
    return {
        "Ports": [{"Id": "DISP", "Protocol": 3, "BaudRate": 9600}],
        "Probes": [{"Id": t.number, "Port": "DISP", "Address": t.number} for t in court.tanks],
    }


def fuel_grades_configuration() -> Data:
    return {
        "FuelGrades": [
            {"Id": g.number, "Name": g.name, "Price": g.price, "ExpansionCoefficient": 0.00095}
            for g in GRADES
        ]
    }


def tanks_configuration(court: Forecourt) -> Data:
    return {
        "Tanks": [
            {
                "Id": t.number,
                "FuelGradeId": t.grade.number,
                "Height": 2200,
                "Volume": t.capacity,
                "LowProductAlarm": 200,
                "HighProductAlarm": 2000,
                "StopPumpsAtCriticalLowProductHeight": False,
            }
            for t in court.tanks
        ]
    }


def pump_nozzles_configuration(court: Forecourt) -> Data:
    return {
        "PumpNozzles": [
            {
                "PumpId": p.number,
                "FuelGradeIds": [court.tank(n.tank).grade.number for n in p.nozzles],
                "TankIds": [n.tank for n in p.nozzles],
            }
            for p in court.pumps
        ]
    }
