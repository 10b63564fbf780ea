"""Answers to a server's requests over the socket (PTS-2 protocol 3): reading yes, control no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ptslink.simulator.forecourt import GRADES, Data, Forecourt, local
from ptslink.simulator.packets import (
    fuel_grades_configuration,
    probes_configuration,
    pump_nozzles_configuration,
    pumps_configuration,
    remote_server_configuration,
    tanks_configuration,
)

UNKNOWN_REQUEST, INVALID_JSON, TOO_LONG, NO_PERMISSION = 1, 2, 5, 6
TEXTS = {
    UNKNOWN_REQUEST: "UNKNOWN_REQUEST",
    INVALID_JSON: "INVALID_JSON",
    TOO_LONG: "JSON_REQUEST_IS_TOO_LONG",
    NO_PERMISSION: "NO_PERMISSION",
}

#: Requests that would change or move something; this controller's server user may not.
CONTROL = (
    "Set",
    "Clear",
    "Pump",
    "Restart",
    "Backup",
    "Restore",
    "Make",
    "File",
    "Lock",
    "Unlock",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the answers are made of."""

    now: datetime
    controller_id: str
    configuration_id: str
    firmware: str
    startup_seconds: int
    counters: Data
    #: Fields of RemoteServerConfiguration that differ from a faithful controller's.
    remote: Data


Answer = Callable[[Forecourt, Facts, Data], Data]

ANSWERS: dict[str, tuple[str, Answer]] = {
    "GetDateTime": (
        "DateTime",
        lambda _c, f, _d: {"DateTime": local(f.now), "AutoSynchronize": True, "UTCOffset": 120},
    ),
    "GetConfigurationIdentifier": (
        "ConfigurationIdentifier",
        lambda _c, f, _d: {"Id": f.configuration_id},
    ),
    "GetFirmwareInformation": ("FirmwareInformation", lambda _c, f, _d: {"DateTime": f.firmware}),
    "GetUniqueIdentifier": ("UniqueIdentifier", lambda _c, f, _d: {"Id": f.controller_id}),
    "GetControllerType": ("ControllerType", lambda _c, _f, _d: {"Type": "PTS-2 F427"}),
    "GetBatteryVoltage": ("BatteryVoltage", lambda _c, _f, _d: {"Voltage": 3187}),
    "GetCpuTemperature": ("CpuTemperature", lambda _c, _f, _d: {"Temperature": 36}),
    "GetSdInformation": ("SdInformation", lambda _c, _f, _d: {"Mounted": True, "FreeMb": 7400}),
    "GetSystemOperationInformation": (
        "SystemOperationInformation",
        lambda _c, f, _d: {"StartupSeconds": f.startup_seconds},
    ),
    "GetMeasurementUnits": (
        "MeasurementUnits",
        lambda _c, _f, _d: {"Volume": "Litres", "Temperature": "Celsius"},
    ),
    "GetRemoteServerConfiguration": (
        "RemoteServerConfiguration",
        lambda _c, f, _d: remote_server_configuration(f.remote),
    ),
    "GetRemoteServerLoggingConfiguration": (
        "RemoteServerLoggingConfiguration",
        lambda _c, _f, _d: {"Enabled": False},
    ),
    "GetUploadedRecordsInformation": ("UploadedRecordsInformation", lambda _c, f, _d: f.counters),
    "GetPumpsConfiguration": ("PumpsConfiguration", lambda c, _f, _d: pumps_configuration(c)),
    "GetProbesConfiguration": ("ProbesConfiguration", lambda c, _f, _d: probes_configuration(c)),
    "GetTanksConfiguration": ("TanksConfiguration", lambda c, _f, _d: tanks_configuration(c)),
    "GetFuelGradesConfiguration": (
        "FuelGradesConfiguration",
        lambda _c, _f, _d: fuel_grades_configuration(),
    ),
    "GetFuelGradesPrices": (
        "FuelGradesPrices",
        lambda _c, _f, _d: {
            "FuelGradesPrices": [{"FuelGradeId": g.number, "Price": g.price} for g in GRADES]
        },
    ),
    "GetPumpNozzlesConfiguration": (
        "PumpNozzlesConfiguration",
        lambda c, _f, _d: pump_nozzles_configuration(c),
    ),
    "PumpGetStatus": (
        "PumpIdleStatus",
        lambda _c, _f, d: {"Pump": d.get("Pump", 1), "NozzleUp": 0, "Request": "", "User": ""},
    ),
    "ProbeGetMeasurements": (
        "ProbeMeasurements",
        lambda c, f, d: {
            "DateTime": local(f.now),
            "Probe": d.get("Probe", 1),
            **c.contents(c.tank(min(max(int(d.get("Probe", 1)), 1), len(c.tanks)))),
        },
    ),
}


def error_packet(packet_id: object, kind: object, code: int) -> Data:
    packet: Data = {"Id": packet_id}
    if kind is not None:
        packet["Type"] = kind
    return packet | {"Error": True, "Code": code, "Message": TEXTS[code]}


def answer(request: Data, court: Forecourt, facts: Facts) -> Data:
    """The packet that answers *request*; an error packet for what is unknown or not allowed."""
    packet_id, kind = request.get("Id"), request.get("Type")
    data = request.get("Data")
    known = ANSWERS.get(kind) if isinstance(kind, str) else None
    if known is not None:
        noun, build = known
        body = build(court, facts, data if isinstance(data, dict) else {})
        return {"Id": packet_id, "Type": noun, "Data": body}
    control = isinstance(kind, str) and kind.startswith(CONTROL)
    return error_packet(packet_id, kind, NO_PERMISSION if control else UNKNOWN_REQUEST)
