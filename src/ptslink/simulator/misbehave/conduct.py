"""Deviations in what a controller says, and in how it comes and goes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import cast

from ptslink.simulator.head import Identity
from ptslink.simulator.manner import Leave, Manner
from ptslink.simulator.misbehave.deviation import Deviation, choose, seconds


def _same_id(identities: tuple[Identity, ...]) -> tuple[Identity, ...]:
    """One id for all; each keeps its own configuration."""
    first = identities[0].controller_id
    return tuple(replace(identity, controller_id=first) for identity in identities)


def _foreign(data: bytes) -> str | None:
    """Why a message is not jsonPTS, or ``None``."""
    try:
        message = json.loads(data)
    except ValueError:
        message = None
    if isinstance(message, dict) and message.get("Protocol") == "jsonPTS":
        return None
    return "a message that is not jsonPTS"


def _leaving(leave: Leave, **more: object) -> Callable[[Manner, str], Manner]:
    return lambda manner, value: manner.but(stay=seconds(value), leave=leave, **more)


def _broken_json(manner: Manner, value: str) -> Manner:
    def trailing_comma(data: bytes) -> bytes:
        return data[:-2] + b",]}"

    def missing_comma(data: bytes) -> bytes:
        return data.replace(b',"Type"', b' "Type"', 1)

    def truncated(data: bytes) -> bytes:
        return data[: len(data) * 2 // 3]

    def trailing_bytes(data: bytes) -> bytes:
        return data + b"\r\n\x00"

    choice = choose(
        value,
        truncated=truncated,
        trailing_comma=trailing_comma,
        missing_comma=missing_comma,
        trailing_bytes=trailing_bytes,
    )
    return manner.but(content=cast("Callable[[bytes], bytes]", choice))


def _no_id(data: bytes) -> bytes:
    return re.sub(rb'"PtsId":"[^"]*",', b"", data, count=1)


DEVIATIONS = (
    Deviation(
        "ws-device-idle-timeout",
        "goes away when the server was silent for so long",
        lambda manner, value: manner.but(silence=seconds(value)),
        "SECONDS",
        "35",
    ),
    Deviation(
        "app-dup-id-replaced",
        "shares one id among all controllers of the run (use --controllers 2 or more)",
        lambda manner, _: manner.but(identities=_same_id),
    ),
    Deviation(
        "tcp-half-open-ghost",
        "loses its power after so many seconds: no FIN, nothing is answered",
        _leaving("ghost", reconnects=False),
        "SECONDS",
        "3",
    ),
    Deviation(
        "app-ghost-blocks",
        "loses its link without a FIN after so many seconds and dials in again",
        _leaving("ghost"),
        "SECONDS",
        "3",
    ),
    Deviation(
        "app-first-message",
        "goes away when the server says something that is not jsonPTS",
        lambda manner, _: manner.but(dislike=_foreign),
    ),
    Deviation(
        "app-no-confirmation",
        "goes away when an upload is not confirmed in time",
        lambda manner, _: manner.but(leaves_unconfirmed=True),
    ),
    Deviation(
        "app-handler-exception",
        "sends JSON that no strict parser takes",
        _broken_json,
        "truncated|trailing-comma|missing-comma|trailing-bytes",
        "truncated",
    ),
    Deviation(
        "dev-reconnect-storm",
        "drops the link after so many seconds and dials in again at once",
        _leaving("fin", reconnect_seconds=0.0),
        "SECONDS",
        "0.5",
    ),
    Deviation(
        "dev-reboot-loop",
        "reboots every so many seconds: no FIN, and configuration first",
        _leaving("reboot", reboots=True),
        "SECONDS",
        "10",
    ),
    Deviation(
        "dev-no-reconnect",
        "does not dial in again once it lost the link",
        lambda manner, _: manner.but(reconnects=False),
    ),
    Deviation(
        "id-as-text",
        "writes packet ids as strings",
        lambda manner, _: manner.but(text_ids=True),
    ),
    Deviation(
        "no-ptsid",
        "leaves PtsId out of its messages",
        lambda manner, _: manner.but(content=_no_id),
    ),
    Deviation(
        "clock-reset",
        "has a dead clock battery: its time starts in the year 2000",
        lambda manner, value: manner.but(clock=datetime.fromisoformat(value).replace(tzinfo=None)),
        "YYYY-MM-DDThh:mm:ss",
        "2000-01-01T00:00:00",
    ),
)
