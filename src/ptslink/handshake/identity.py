"""Who is calling: the X-Pts-* headers of a controller (PTS-2 protocol 1.1, quirks 5 and 6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ptslink.handshake.head import Head

#: Note: the caller sent no X-Pts-Id.
MISSING_ID: Final = "missing-controller-id"
#: Note: X-Pts-Id is not 1 to 24 hexadecimal digits.
MALFORMED_ID: Final = "malformed-controller-id"

#: First digits of the ids that link probes call themselves by; no real controller has them.
PROBE_ID_PREFIX: Final = "0" * 16
#: Note: the caller is a link probe.
PROBE: Final = "probe"

_ID = re.compile(r"[0-9A-Fa-f]{1,24}")
_FIRMWARE = re.compile(r"(\d{2}|\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)")
_CONFIGURATION = re.compile(r"[0-9A-Fa-f]{1,8}")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a controller says about itself.

    Attributes:
        controller: the id in upper case, or "" when none usable was sent.
        firmware: ``YYYY-MM-DDThh:mm:ss``, a two-digit year completed to 20xx; None when absent or
            unreadable.
        configuration: the configuration identifier, lower case without leading zeros; None when
            absent or unreadable.
        notes: names of what was odd.
    """

    controller: str
    firmware: str | None = None
    configuration: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def probe(self) -> bool:
        """Whether a link probe calls: 16 zeros and 8 further digits."""
        return len(self.controller) == 24 and self.controller.startswith(PROBE_ID_PREFIX)


def controller_id(text: str) -> str | None:
    """The normal form of a controller id (upper case hexadecimal), or None if it is not one."""
    return text.upper() if _ID.fullmatch(text) else None


def firmware_moment(text: str) -> str | None:
    """Firmware build time with a four-digit year; real units send two digits."""
    matched = _FIRMWARE.fullmatch(text)
    if matched is None:
        return None
    return text if len(matched[1]) == 4 else f"20{text}"


def configuration_id(text: str) -> str | None:
    """A configuration identifier as it is compared: lower case, leading zeros dropped."""
    return (text.lower().lstrip("0") or "0") if _CONFIGURATION.fullmatch(text) else None


def identify(head: Head) -> Identity:
    """Read the X-Pts-* headers of a request; nothing in them is ever a reason to refuse."""
    notes: tuple[str, ...] = ()
    sent = head.get("x-pts-id")
    controller = controller_id(sent) if sent else None
    if controller is None:
        notes = (MALFORMED_ID if sent else MISSING_ID,)
    elif len(controller) == 24 and controller.startswith(PROBE_ID_PREFIX):
        notes = (PROBE,)
    return Identity(
        controller=controller or "",
        firmware=firmware_moment(head.get("x-pts-firmware-version-datetime") or ""),
        configuration=configuration_id(head.get("x-pts-configuration-identifier") or ""),
        notes=notes,
    )
