"""Controller-local times (PTS-2 protocol 2.1, quirk 13)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

#: Flag: the text is not a date and time that exists.
IMPOSSIBLE: Final = "impossible-time"
#: Flag: the clock was reset; a dead battery restarts it at 2000-01-01.
CLOCK_RESET: Final = "clock-reset"
#: Flag: later than the server's clock by more than a day.
FUTURE: Final = "future-time"
#: Flag: no time in the packet.
MISSING: Final = "no-time"

#: A controller at UTC+14 with an unknown offset is 14 hours ahead at most.
_TOLERANCE: Final = 86_400
_FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", re.ASCII)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - controller-local times carry no zone
#: Seconds since 1970 of the first and the last moment that ISO 8601 has four digits for.
_FIRST: Final = -62_135_596_800
_LAST: Final = 253_402_300_799


def local_seconds(text: str) -> int | None:
    """Seconds from 1970-01-01T00:00:00 to the text, both read in the same (unknown) zone.

    Args:
        text: ``YYYY-MM-DDThh:mm:ss``; anything else gives None.
    """
    # fromisoformat reads more than the protocol writes: weeks, shortened times, zones.
    if not _FORM.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment - _EPOCH) // timedelta(seconds=1)


def to_utc(local: int, *, offset_minutes: int | None, zone: ZoneInfo | None) -> int | None:
    """Best-effort UTC seconds of a local time; None also outside the years 1 to 9999.

    Args:
        offset_minutes: the controller's own UTCOffset, which wins, or None if it never told.
        zone: the configured zone of the site, or None.
    """
    if offset_minutes is not None:
        utc = local - offset_minutes * 60
        return utc if _FIRST <= utc <= _LAST else None
    if zone is not None:
        naive = _EPOCH + timedelta(seconds=local)
        try:
            return int(naive.replace(tzinfo=zone).astimezone(UTC).timestamp())
        except (OverflowError, ValueError):
            return None
    return None


def flags(local: int | None, *, now: int) -> tuple[str, ...]:
    """Doubts about a local time.

    Args:
        local: as from `local_seconds`.
        now: the server's clock, seconds since 1970 UTC.
    """
    if local is None:
        return (IMPOSSIBLE,)
    if local < 978_307_200:  # 2001-01-01: no controller of this kind is older
        return (CLOCK_RESET,)
    if local > now + _TOLERANCE:
        return (FUTURE,)
    return ()
