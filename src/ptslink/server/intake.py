"""Which messages may become records: those of known controllers, and of a few new ones a day.

A confirmation promises that a record is kept for good. Were whatever a stranger sends kept for
good, anybody could fill the disk. So a message that names no controller, or comes from an id never
seen and is no upload, is answered with the protocol's error (PTS-2 protocol 2.3), which makes a
controller send again, and is kept as evidence only, of which there is a limited amount. Ids never
seen before are taken in up to a number per address and day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ptslink.journal.entry import Entry
from ptslink.jsonpts.confirmation import expects_answer
from ptslink.server.admission import counted_as
from ptslink.server.evidence import EvidenceLog

#: Bytes of evidence about refused messages per address and day, and of all addresses a day.
KEPT_BYTES_PER_ADDRESS: Final = 65_536
KEPT_BYTES: Final = 2_000_000
#: Addresses counted apart within a day; the messages of all others are only counted together.
MAX_ADDRESSES: Final = 10_000
#: New ids of all addresses a day. Beyond, each is told to send again.
MAX_NEW: Final = 100_000
#: Addresses that health names.
_NAMED: Final = 5

_DAY_MS: Final = 86_400_000


class Refusal(NamedTuple):
    """Why a message is not taken.

    Attributes:
        code: stable short name, under which evidence is kept.
        text: what the sender and a person are told.
    """

    code: str
    text: str


NO_CONTROLLER: Final = Refusal(
    "no-controller-id", "Not stored: neither X-Pts-Id nor PtsId names a controller"
)
NOT_JSONPTS: Final = Refusal(
    "not-jsonpts", "Not stored: no jsonPTS upload, and the controller is not known yet"
)


@dataclass(slots=True)
class _Address:
    """What was refused of one address (of IPv6, one /64) within a day.

    Attributes:
        messages, bytes: of all that was refused.
        kept: bytes of evidence about it.
        code: of the latest refusal.
        controller: id in the latest one, or "".
    """

    messages: int = 0
    bytes: int = 0
    kept: int = 0
    code: str = ""
    controller: str = ""


class Intake:
    """Decides whether a message is taken, and accounts for what is not.

    Args:
        known: whether a controller had a message stored before, or is on the allow-list.
        new_per_address: ids never seen before per address and day (UTC).
        evidence: where what is refused is recorded.
    """

    def __init__(
        self, known: Callable[[str], bool], new_per_address: int, evidence: EvidenceLog
    ) -> None:
        self._known = known
        self._new_per_address = new_per_address
        self._evidence = evidence
        self._day = 0
        #: Ids taken in today, by address.
        self._new: dict[str, set[str]] = {}
        self._new_count = 0
        self._addresses: dict[str, _Address] = {}
        self._kept = 0
        self._messages = 0
        #: Messages refused since start, by code.
        self.refused: dict[str, int] = {}

    def refusal(self, entry: Entry, remote: str) -> Refusal | None:
        """Why the message must not be stored or confirmed, or None when it is to be stored.

        A refused message is counted and recorded here; answering it is the caller's part.
        """
        if entry.controller and self._known(entry.controller):
            return None
        day = entry.received // _DAY_MS
        if day != self._day:
            self._begin_day(day)
        where = counted_as(remote)
        refusal = self._judge(entry, where)
        if refusal is not None:
            self._account(entry, remote, where, refusal)
        return refusal

    def _judge(self, entry: Entry, where: str) -> Refusal | None:
        if not entry.controller:
            return NO_CONTROLLER
        if not any(expects_answer(packet) for packet in entry.packets):
            return NOT_JSONPTS
        taken = self._new.get(where, ())
        if entry.controller in taken:
            return None
        if len(taken) >= self._new_per_address or self._new_count >= MAX_NEW:
            return Refusal(
                "too-many-new-controllers",
                "Not stored, please send again: more new controllers from this address today than"
                f" limits.new_controllers_per_address = {self._new_per_address}",
            )
        self._new.setdefault(where, set()).add(entry.controller)
        self._new_count += 1
        return None

    def _account(self, entry: Entry, remote: str, where: str, refusal: Refusal) -> None:
        size = len(entry.raw)
        self._messages += 1
        self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1
        address = self._addresses.get(where)
        if address is None:
            if len(self._addresses) >= MAX_ADDRESSES:
                return
            address = self._addresses[where] = _Address()
        address.messages += 1
        address.bytes += size
        address.code = refusal.code
        address.controller = entry.controller
        most = min(KEPT_BYTES_PER_ADDRESS - address.kept, KEPT_BYTES - self._kept)
        cost = self._evidence.refused(refusal.code, refusal.text, remote, entry, most=most)
        address.kept += cost
        self._kept += cost

    def _begin_day(self, day: int) -> None:
        self._day = day
        self._new.clear()
        self._addresses.clear()
        self._new_count = self._kept = self._messages = 0

    def health(self) -> dict[str, Any]:
        """What was refused since midnight UTC, and the addresses that sent the most of it."""
        worst = sorted(self._addresses.items(), key=lambda item: -item[1].messages)[:_NAMED]
        return {
            "messages": self._messages,
            "addresses": [
                {
                    "address": where,
                    "messages": one.messages,
                    "bytes": one.bytes,
                    "reason": one.code,
                    "controller": one.controller or None,
                }
                for where, one in worst
            ],
        }
