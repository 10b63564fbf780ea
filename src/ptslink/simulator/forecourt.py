"""A petrol station that sells: pumps, nozzles, tanks, grades, and what happens at them.

Volumes in litres, heights in mm, temperatures in degrees C, masses in kg, densities in kg/m3, as
the protocol has them (PTS-2 protocol 2.2). Everything follows from the random generator given.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Data = dict[str, Any]

TRANSACTION_MODULUS = 65535
#: Thermal expansion of petrol per degree, to bring a volume to 15 degrees C.
EXPANSION = 0.00095


@dataclass(frozen=True, slots=True)
class Grade:
    number: int
    name: str
    price: float
    density: float


@dataclass(slots=True)
class Nozzle:
    number: int
    tank: int
    total_volume: float
    total_amount: float


@dataclass(slots=True)
class Pump:
    number: int
    nozzles: list[Nozzle]
    transaction: int


@dataclass(slots=True)
class Tank:
    number: int
    grade: Grade
    capacity: float
    height: float
    volume: float
    temperature: float
    water_height: float = 4.2
    water_volume: float = 9.1


GRADES = (
    Grade(1, "AI-92", 1.469, 735.0),
    Grade(2, "AI-95", 1.539, 745.0),
    Grade(3, "Diesel", 1.589, 832.0),
)
TAGS = ("", "", "", "A1B2C3D4", "0000000017F0F8C3", "5EA41E550FF1CE00")


def local(moment: datetime) -> str:
    """A moment as the protocol writes it: local, 19 characters, no zone."""
    return moment.isoformat(timespec="seconds")


def grade_fields(grade: Grade) -> Data:
    return {"FuelGradeId": grade.number, "FuelGradeName": grade.name}


def at_15_degrees(volume: float, temperature: float) -> float:
    return round(volume * (1 - EXPANSION * (temperature - 15)), 3)


@dataclass
class Forecourt:
    """The state of one station. Methods make one event happen and return its ``Data``."""

    rng: random.Random
    pumps: list[Pump] = field(default_factory=list)
    tanks: list[Tank] = field(default_factory=list)
    shift: int = 0
    payment: int = 0
    last_sale: Data = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = self.rng
        self.tanks = [
            Tank(
                number,
                grade,
                capacity=20000.0,
                height=round(rng.uniform(900, 1900), 1),
                volume=round(rng.uniform(7000, 16000), 1),
                temperature=round(rng.uniform(8, 22), 1),
            )
            for number, grade in enumerate(GRADES, start=1)
        ]
        self.pumps = [
            Pump(
                number,
                [
                    Nozzle(n, tank.number, round(rng.uniform(1e4, 9e5), 2), 0.0)
                    for n, tank in enumerate(self.tanks, start=1)
                ],
                transaction=rng.randrange(1, TRANSACTION_MODULUS + 1),
            )
            for number in range(1, 5)
        ]
        for pump in self.pumps:
            for nozzle in pump.nozzles:
                price = self.tank(nozzle.tank).grade.price
                nozzle.total_amount = round(nozzle.total_volume * price, 2)
        self.shift = rng.randrange(1, 900)
        self.payment = rng.randrange(1, 90000)

    def tank(self, number: int) -> Tank:
        return self.tanks[number - 1]

    def sell(self, now: datetime) -> Data:
        """A sale at a random nozzle that ended at *now*."""
        rng = self.rng
        pump = rng.choice(self.pumps)
        nozzle = rng.choice(pump.nozzles)
        tank = self.tank(nozzle.tank)
        volume = round(rng.uniform(4, 65), 2)
        amount = round(volume * tank.grade.price, 2)
        pump.transaction = pump.transaction % TRANSACTION_MODULUS + 1
        nozzle.total_volume = round(nozzle.total_volume + volume, 2)
        nozzle.total_amount = round(nozzle.total_amount + amount, 2)
        tank.volume = round(max(tank.volume - volume, 500.0), 3)
        tank.height = round(tank.volume / tank.capacity * 2200, 1)
        self.last_sale = {
            "DateTimeStart": local(now - timedelta(seconds=round(20 + volume * 1.5))),
            "DateTime": local(now),
            "Pump": pump.number,
            "Nozzle": nozzle.number,
            "Tank": tank.number,
            **grade_fields(tank.grade),
            "Transaction": pump.transaction,
            "Volume": volume,
            "TCVolume": at_15_degrees(volume, tank.temperature),
            "Price": tank.grade.price,
            "Amount": amount,
            "TotalVolume": nozzle.total_volume,
            "TotalAmount": nozzle.total_amount,
            "Tag": rng.choice(TAGS),
            "UserId": 1,
            "IsRemoteTag": False,
            "IsTest": False,
            "CustomData": "",
            "IsOffline": False,
            "ShiftNumber": self.shift,
            "FlowRate": round(rng.uniform(28, 42), 2),
            "IsPaid": True,
        }
        return dict(self.last_sale)

    def measure(self, now: datetime) -> Data:
        """A tank measurement at *now*."""
        tank = self.rng.choice(self.tanks)
        tank.temperature = round(tank.temperature + self.rng.uniform(-0.1, 0.1), 1)
        return {
            "DateTime": local(now),
            "Tank": tank.number,
            **grade_fields(tank.grade),
            "Status": "OK",
            "Alarms": ["LowProduct"] if tank.volume < 2000 else [],
            **self.contents(tank),
        }

    def contents(self, tank: Tank) -> Data:
        """What a probe reads in *tank*."""
        corrected = at_15_degrees(tank.volume, tank.temperature)
        return {
            "ProductHeight": tank.height,
            "WaterHeight": tank.water_height,
            "Temperature": tank.temperature,
            "ProductVolume": tank.volume,
            "WaterVolume": tank.water_volume,
            "ProductUllage": round(tank.capacity - tank.volume, 3),
            "ProductTCVolume": corrected,
            "ProductDensity": tank.grade.density,
            "ProductMass": round(corrected * tank.grade.density / 1000, 3),
            "TankFillingPercentage": round(tank.volume / tank.capacity * 100),
        }

    def deliver(self, now: datetime) -> Data:
        """A delivery of up to 3000 l into a random tank that ended at *now*."""
        names = (
            "ProductHeight",
            "WaterHeight",
            "Temperature",
            "ProductVolume",
            "ProductTCVolume",
            "ProductDensity",
            "ProductMass",
        )
        tank = self.rng.choice(self.tanks)
        start = {n: self.contents(tank)[n] for n in names}
        tank.volume = round(min(tank.volume + self.rng.uniform(800, 3000), tank.capacity * 0.95), 3)
        tank.height = round(tank.volume / tank.capacity * 2200, 1)
        end = {n: self.contents(tank)[n] for n in names}
        difference = {n: round(end[n] - start[n], 3) for n in names}
        return {
            "Tank": tank.number,
            **grade_fields(tank.grade),
            "StartValues": {"DateTime": local(now - timedelta(minutes=21)), **start},
            "EndValues": {"DateTime": local(now), **end},
            "AbsoluteValues": {**difference, "PumpsDispensedVolume": 0.0},
        }

    def locate(self, now: datetime) -> Data:
        """A GPS record, NMEA form."""
        minutes = self.rng.uniform(0, 60)
        return {
            "DateTime": local(now),
            "Latitude": f"47{minutes:07.4f}",
            "NorthSouthIndicator": "N",
            "Longitude": f"028{self.rng.uniform(0, 60):07.4f}",
            "EastWestIndicator": "E",
            "SpeedOverGround": 0.0,
            "CourseOverGround": round(self.rng.uniform(0, 359), 1),
            "Mode": "A",
        }

    def alert(self, now: datetime) -> Data:
        """An alert record: a pump goes offline or comes back, or the controller restarted."""
        device, number, state, code = self.rng.choice(
            [
                ("Pump", 1, "Started", 1),
                ("Pump", 1, "Finished", 1),
                ("Probe", 2, "Started", 5),
                ("PTS", 0, "Detected", 4),
            ]
        )
        return {
            "DateTime": local(now),
            "DeviceType": device,
            "DeviceNumber": number,
            "State": state,
            "Code": code,
        }

    def pay(self, now: datetime) -> Data:
        """A payment for the last sale."""
        if not self.last_sale:
            self.sell(now)
        self.payment += 1
        return {
            "PaymentTransactionDateTime": local(now),
            "PaymentTransaction": self.payment,
            "Pump": self.last_sale["Pump"],
            "PumpTransaction": self.last_sale["Transaction"],
            "PumpTransactionDateTime": self.last_sale["DateTime"],
            "Amount": self.last_sale["Amount"],
            "PaymentFormId": 1,
            "PaymentFormName": "Cash",
            "ShiftNumber": self.shift,
            "IsRefunded": False,
        }

    def close_shift(self, now: datetime) -> Data:
        """The open shift ends at *now* and the next begins."""
        data = {
            "Number": self.shift,
            "DateTimeStart": local(now - timedelta(hours=8)),
            "DateTimeEnd": local(now),
            "UserId": 1,
        }
        self.shift += 1
        return data

    def ask_tag(self, now: datetime) -> Data:
        """A customer holds a tag to a reader and waits."""
        del now
        tank = self.rng.choice(self.tanks)
        return {
            "Tags": [
                {
                    "Tag": "0000000017F0F8C3",
                    "Pump": self.rng.choice(self.pumps).number,
                    "Nozzle": tank.number,
                    **grade_fields(tank.grade),
                    "Price": tank.grade.price,
                }
            ]
        }
