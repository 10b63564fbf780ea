"""What a journal must hold after a crash, judged apart from the code that wrote it.

Nothing here uses the server's decoding or its natural keys: the simulator's messages are clean JSON
and are read as such, and what makes two packets one fact is listed anew from the protocol reference
(PTS-2 protocol 2.4). Reads by plain SQL, writes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

STATUS: Final = "UploadStatus"
TAGS: Final = "RequestTagsInformation"
#: Kinds of which no record is made: a snapshot that the next one replaces, and a question.
UNRECORDED: Final = frozenset({STATUS, TAGS})

_PUMP = ("Pump", "Transaction", "DateTimeStart", "DateTime", "Volume", "TotalVolume")
#: Type -> the members that make a fact; None where it is all of them.
FACT_MEMBERS: Final[Mapping[str, tuple[str, ...] | None]] = {
    "UploadPumpTransaction": _PUMP,
    "UploadTankMeasurement": None,
    "UploadInTankDelivery": ("Tank", "StartValues.DateTime", "EndValues.DateTime"),
    "UploadGpsRecord": None,
    "UploadAlertRecord": ("DateTime", "DeviceType", "DeviceNumber", "State", "Code"),
    "UploadPayment": ("PaymentTransaction", "PaymentTransactionDateTime", "IsRefunded"),
    "UploadShift": ("Number", "DateTimeStart", "DateTimeEnd"),
    "UploadConfiguration": ("ConfigurationId",),
}


@dataclass(frozen=True, slots=True)
class Sent:
    """One uploaded packet.

    Attributes:
        controller: who sent it.
        kind: its Type.
        content: all it says but what differs from copy to copy, in canonical JSON.
        fact: the members that make it a fact, in canonical JSON.
        time: controller-local time in it, or "".
    """

    controller: str
    kind: str
    content: str
    fact: str
    time: str


@dataclass(slots=True)
class Findings:
    """What is wrong with a journal; empty lists when nothing is.

    Attributes:
        lost: confirmed and not there.
        doubled: facts that have more than one record, with their number.
        damage: what PRAGMA integrity_check or the structure complained about.
    """

    lost: list[Sent] = field(default_factory=list)
    doubled: list[tuple[Sent, int]] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.damage)

    def describe(self, most: int = 5) -> Iterator[str]:
        """Each fault as a line, the first few of a kind."""
        for sent in self.lost[:most]:
            yield f"lost: {sent.controller} {sent.kind} {sent.fact[:200]}"
        for sent, count in self.doubled[:most]:
            yield f"{count} records of one fact: {sent.controller} {sent.kind} {sent.fact[:200]}"
        yield from (f"damage: {words}" for words in self.damage[:most])
        more = sum(max(len(found) - most, 0) for found in (self.lost, self.doubled, self.damage))
        if more:
            yield f"... and {more} more"


def packets(text: str | bytes, controller: str) -> list[Sent]:
    """The packets of a message as the simulator writes it."""
    return [_sent(packet, controller) for packet in json.loads(text)["Packets"]]


def _sent(packet: Mapping[str, Any], controller: str) -> Sent:
    kind = str(packet["Type"])
    data = packet if kind == "UploadConfiguration" else packet["Data"]
    stable = {
        name: value
        for name, value in data.items()
        if name not in ("Id", "Type")
        and not name.endswith(("Uploaded", "Total"))
        and (name != "ConfigurationId" or kind == "UploadConfiguration")
    }
    members = FACT_MEMBERS.get(kind)
    chosen = stable if members is None else {name: _member(stable, name) for name in members}
    return Sent(
        controller, kind, _canonical(stable), _canonical(chosen), stable.get("DateTime", "")
    )


def _member(data: Mapping[str, Any], path: str) -> Any:
    value: Any = data
    for name in path.split("."):
        value = value[name]
    return value


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@contextmanager
def reading(journal: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection beside the server."""
    uri = journal.resolve().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
        yield connection


class Audit:
    """Reads a journal again and again while it grows.

    `since_last` looks at what is new since the last time, which is quick enough for every restart;
    `whole` forgets what it saw and reads all of it.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._forget()

    def _forget(self) -> None:
        self._message = self._record = 0
        self._kept: set[tuple[str, str, str]] = set()
        self._records: Counter[tuple[str, str, str]] = Counter()

    def whole(self, confirmed: Iterable[Sent]) -> Findings:
        """Judge the whole journal by all that was confirmed."""
        self._forget()
        return self.since_last(confirmed)

    def since_last(self, confirmed: Iterable[Sent]) -> Findings:
        """Judge the journal by what was confirmed since the last call (or by all, if the first)."""
        found = Findings()
        # What was confirmed is taken down before the journal is read, never after.
        wanted = list(confirmed)
        with reading(self._journal) as connection:
            found.damage += [
                str(row[0])
                for row in connection.execute("PRAGMA integrity_check(10)")
                if row[0] != "ok"
            ]
            self._read(connection, found)
            latest = dict(
                connection.execute(
                    "SELECT c.pts_id, json_extract(CAST(s.data AS TEXT), '$.DateTime')"
                    " FROM status_latest s JOIN controllers c ON c.id = s.controller"
                )
            )
        for sent in wanted:
            if sent.kind == STATUS:
                there = latest.get(sent.controller, "") >= sent.time
            else:
                there = (sent.controller, sent.kind, sent.content) in self._kept
                if sent.kind not in UNRECORDED:
                    there = there and self._records[_identity(sent)] > 0
            if not there:
                found.lost.append(sent)
        return found

    def _read(self, connection: sqlite3.Connection, found: Findings) -> None:
        rows = connection.execute(
            "SELECT m.id, c.pts_id, m.raw FROM messages m JOIN controllers c ON c.id = m.controller"
            " WHERE m.id > ? ORDER BY m.id",
            (self._message,),
        )
        for id_, controller, raw in rows:
            self._message = id_
            self._kept.update((s.controller, s.kind, s.content) for s in packets(raw, controller))
        rows = connection.execute(
            "SELECT r.id, c.pts_id, t.name, m.raw, r.packet FROM records r"
            " LEFT JOIN messages m ON m.id = r.message"
            " JOIN controllers c ON c.id = r.controller JOIN types t ON t.id = r.type"
            " WHERE r.id > ? ORDER BY r.id",
            (self._record,),
        )
        for id_, controller, type_, raw, packet in rows:
            self._record = id_
            if raw is None:
                found.damage.append(f"record {id_} has no message")
                continue
            sent = packets(raw, controller)[packet]
            if sent.kind != type_:
                found.damage.append(f"record {id_} is a {type_}, its packet a {sent.kind}")
            self._records[_identity(sent)] += 1
            if self._records[_identity(sent)] == 2:
                found.doubled.append((sent, 2))

    @property
    def records(self) -> int:
        """Records read."""
        return self._records.total()


def _identity(sent: Sent) -> tuple[str, str, str]:
    return sent.controller, sent.kind, sent.fact
