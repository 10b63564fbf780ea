"""The controller itself, without sockets and without a clock of its own.

Whoever drives a ``Device`` tells it the time (seconds, any monotonic origin) and hands over what
the server said; the device says what to send. Delivery is at least once and in order: one cursor
per kind of record, one message of a kind under way at a time, resent until it is confirmed
(PTS-2 protocol 2.4). UploadStatus is a snapshot: the next one replaces it.
"""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ptslink.simulator.commands import INVALID_JSON, TOO_LONG, Facts, answer, error_packet
from ptslink.simulator.confirmation import Verdict, is_confirmation, judge, same_id, shorten
from ptslink.simulator.forecourt import Data, Forecourt
from ptslink.simulator.head import Identity
from ptslink.simulator.packets import (
    CONFIGURATION,
    COUNTERS,
    PACKET_ID_MODULUS,
    RECORDS,
    STATUS,
    TAGS,
    configuration_body,
    envelope,
    packet,
    status_data,
)

#: What the controller's input buffer takes, in bytes (PTS-2 protocol 1.3).
INPUT_BYTES = 16384

#: What one run with ``--once`` uploads.
ONCE_KINDS = (STATUS, "UploadPumpTransaction", "UploadTankMeasurement", CONFIGURATION)


def default_periods(status_period: float) -> dict[str, float]:
    """Seconds between two messages of a kind at a station of ordinary business."""
    return {
        STATUS: status_period,
        "UploadPumpTransaction": 20.0,
        "UploadTankMeasurement": 30.0,
        "UploadPayment": 45.0,
        "UploadAlertRecord": 300.0,
        "UploadInTankDelivery": 600.0,
        "UploadGpsRecord": 600.0,
        "UploadShift": 3600.0,
        TAGS: 120.0,
    }


@dataclass(frozen=True, slots=True)
class Message:
    """One message to send. ``packet_id`` is ``None`` for an answer to the server."""

    kind: str
    text: str
    packet_id: int | str | None = None
    resent: bool = False


@dataclass(slots=True)
class Outstanding:
    """A message that waits for its confirmation."""

    message: Message
    body: Data
    sent_at: float
    tags: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """What was sent and what came of it, by kind. Resends count in ``resent`` alone."""

    sent: Counter[str] = field(default_factory=Counter)
    confirmed: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    resent: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    rejections: list[Verdict] = field(default_factory=list)


#: Packet ids by which a late or second confirmation is told from a foreign one.
REMEMBERED_IDS = 256
#: Rejections kept word for word; the counters go on.
MAX_REJECTIONS = 20


class Device:
    """One controller from power-on to power-off."""

    def __init__(
        self,
        identity: Identity,
        *,
        seed: str,
        started: datetime,
        now: float,
        periods: dict[str, float] | None = None,
        once: tuple[str, ...] = (),
        response_seconds: float = 2.0,
        text_ids: bool = False,
        remote: Data | None = None,
    ) -> None:
        """A controller switched on at *now*, when its own clock reads *started*.

        ``periods`` are seconds by kind; each kind of ``once`` is sent a single time. A message
        unconfirmed for ``response_seconds`` is sent again. ``text_ids`` writes ids as strings;
        ``remote`` are the fields of its RemoteServerConfiguration that differ from a faithful
        controller's.
        """
        self.identity = identity
        self.rng = random.Random(seed)
        self.court = Forecourt(self.rng)
        self.tally = Tally()
        self.periods = dict(periods or {})
        self.response_seconds = response_seconds
        self.text_ids = text_ids
        self.remote = dict(remote or {})
        self._started, self._power_on = started, now
        self._packet_id = self.rng.randrange(1, PACKET_ID_MODULUS + 1)
        self._due = {kind: now + self.rng.random() * p for kind, p in self.periods.items()}
        if STATUS in self._due:
            self._due[STATUS] = now
        self._queues: dict[str, deque[Data]] = {}
        self._outstanding: dict[str, Outstanding] = {}
        self._sent_ids: deque[int | str] = deque(maxlen=REMEMBERED_IDS)
        self._total: Counter[str] = Counter()
        self._uploaded: Counter[str] = Counter()
        for kind in RECORDS:
            self._total[kind] = self._uploaded[kind] = self.rng.randrange(0, 5000)
        self.connected = False
        for kind in once:
            self.happen(kind, now)

    # Time and counters.

    def local_time(self, now: float) -> datetime:
        """What the controller's own clock reads."""
        return self._started + timedelta(seconds=now - self._power_on)

    def counters(self) -> Data:
        """``UploadedRecordsInformation``: Uploaded and Total for each kind of record."""
        shown: Data = {}
        for kind, name in COUNTERS.items():
            shown[f"{name}Uploaded"] = self._uploaded[kind]
            shown[f"{name}Total"] = self._total[kind]
        return shown

    def _next_id(self) -> int | str:
        self._packet_id = self._packet_id % PACKET_ID_MODULUS + 1
        return str(self._packet_id) if self.text_ids else self._packet_id

    # What happens at the station.

    def happen(self, kind: str, now: float) -> None:
        """Something of *kind* happens at *now* and is to be uploaded."""
        moment = self.local_time(now)
        identifier = self.identity.configuration_id
        if kind == STATUS:
            body: Data = {}  # made when it is sent
        elif kind == CONFIGURATION:
            body = configuration_body(self.court, identifier, self.rng, self.remote)
        elif kind == TAGS:
            body = self.court.ask_tag(moment)
        else:
            body = {"ConfigurationId": identifier, **RECORDS[kind](self.court, moment)}
            self._total[kind] += 1
        self._queues.setdefault(kind, deque()).append(body)

    def connect(self, now: float) -> None:
        """The link is up: what was under way is to be sent again, under new ids."""
        self.connected = True
        for kind, pending in self._outstanding.items():
            if kind != STATUS:
                self._queues.setdefault(kind, deque()).appendleft(pending.body)
        self._outstanding.clear()
        del now

    def disconnect(self) -> None:
        """The link is down; records wait on the SD card."""
        self.connected = False

    def reboot(self, now: float) -> None:
        """Power on again: the clock goes on, the seconds since start begin anew, and the
        configuration is uploaded first."""
        self._started, self._power_on = self.local_time(now), now
        waiting = self._queues.pop(CONFIGURATION, None)
        if not waiting and CONFIGURATION not in self._outstanding:
            self.happen(CONFIGURATION, now)
            waiting = self._queues.pop(CONFIGURATION)
        self._queues = {CONFIGURATION: waiting or deque(), **self._queues}

    def stop(self) -> None:
        """Nothing new happens from here on; what waits is still delivered."""
        self.periods.clear()
        self._due.clear()

    # Sending.

    def due(self, now: float) -> list[Message]:
        """What is to be sent at *now*, in order. Empty while the link is down."""
        for kind, when in list(self._due.items()):
            if when <= now:
                self._due[kind] = max(when + self.periods[kind], now)
                if kind == STATUS:
                    self._queues.pop(STATUS, None)
                    self._outstanding.pop(STATUS, None)
                    if not self.connected:
                        continue
                self.happen(kind, now)
        if not self.connected:
            return []
        messages = []
        for kind, queue in self._queues.items():
            pending = self._outstanding.get(kind)
            if pending is not None:
                if kind != STATUS and pending.sent_at + self.response_seconds <= now:
                    pending.sent_at = now
                    self.tally.resent[kind] += 1
                    old = pending.message
                    messages.append(Message(kind, old.text, old.packet_id, resent=True))
            elif queue:
                messages.append(self._send(kind, queue.popleft(), now))
        return messages

    def _send(self, kind: str, body: Data, now: float) -> Message:
        packet_id = self._next_id()
        shown = body
        if kind == STATUS:
            shown = self._status(now)
        elif kind in COUNTERS:
            name = COUNTERS[kind]
            shown = {
                **body,
                f"{name}Uploaded": self._uploaded[kind],
                f"{name}Total": self._total[kind],
            }
        text = envelope([packet(kind, packet_id, shown)], self.identity.controller_id)
        message = Message(kind, text, packet_id)
        tags = [entry["Tag"] for entry in body["Tags"]] if kind == TAGS else []
        self._sent_ids.append(packet_id)
        self._outstanding[kind] = Outstanding(message, body, now, tags)
        self.tally.sent[kind] += 1
        return message

    def _status(self, now: float) -> Data:
        return status_data(
            self.court,
            now=self.local_time(now),
            configuration_id=self.identity.configuration_id,
            firmware=self.identity.firmware,
            startup_seconds=int(now - self._power_on),
            counters=self.counters(),
        )

    def next_time(self) -> float:
        """When ``due`` is worth asking again; infinity when nothing is planned."""
        times = list(self._due.values())
        if self.connected:
            times += [
                pending.sent_at + self.response_seconds
                for kind, pending in self._outstanding.items()
                if kind != STATUS
            ]
        return min(times, default=float("inf"))

    @property
    def unconfirmed(self) -> Counter[str]:
        """What waits for a confirmation or to be sent, by kind."""
        waiting = Counter({kind: len(queue) for kind, queue in self._queues.items() if queue})
        waiting.update(self._outstanding.keys())
        return waiting

    # Receiving.

    def receive(self, text: str, now: float) -> list[Message]:
        """Take a message of the server's; the answers to send, if it asked for something."""
        if len(text.encode("utf-8")) > INPUT_BYTES:
            return self._answers([error_packet(0, None, TOO_LONG)])
        try:
            message = json.loads(text)
        except ValueError:
            self._reject_foreign("not JSON", text)
            return self._answers([error_packet(0, None, INVALID_JSON)])
        packets = message.get("Packets") if isinstance(message, dict) else None
        if not isinstance(packets, list) or message.get("Protocol") != "jsonPTS":
            self._reject_foreign("not a jsonPTS message", text)
            return self._answers([error_packet(0, None, INVALID_JSON)])
        answers: list[Data] = []
        for entry in packets:
            if is_confirmation(entry):
                self._confirm(entry, now)
                answers += self._ride_along(entry, now)
            elif isinstance(entry, dict):
                answers.append(answer(entry, self.court, self._facts(now)))
        return self._answers(answers)

    def _facts(self, now: float) -> Facts:
        return Facts(
            now=self.local_time(now),
            controller_id=self.identity.controller_id,
            configuration_id=self.identity.configuration_id,
            firmware=self.identity.firmware,
            startup_seconds=int(now - self._power_on),
            counters=self.counters(),
            remote=self.remote,
        )

    def _answers(self, packets: list[Data]) -> list[Message]:
        if not packets:
            return []
        kinds = [str(p.get("Type", "error")) for p in packets]
        self.tally.answered.update(kinds)
        return [Message(kinds[0], envelope(packets))]

    def _ride_along(self, entry: dict[str, Any], now: float) -> list[Data]:
        """What a confirmation may ask for besides (PTS-2 protocol 2.3)."""
        if entry.get("GetStatus") is True:
            self._queues.setdefault(STATUS, deque()).append({})
        if entry.get("GetConfiguration") is True and not self._queues.get(CONFIGURATION):
            self.happen(CONFIGURATION, now)
        kind = entry.get("SetRequestType")
        if not isinstance(kind, str):
            return []
        request = {"Id": entry.get("Id"), "Type": kind, "Data": entry.get("Data")}
        return [answer(request, self.court, self._facts(now))]

    def _confirm(self, entry: dict[str, Any], now: float) -> None:
        pending = self._matching(entry.get("Id"))
        if pending is None:
            got = entry.get("Id")
            if not any(same_id(got, sent) for sent in self._sent_ids):
                self._reject_foreign("Id answers nothing that was sent", json.dumps(entry))
            return  # a second confirmation, or one for a status replaced since
        message = pending.message
        assert message.packet_id is not None
        verdict = judge(entry, message.kind, message.packet_id, pending.tags)
        if verdict.why is not None:
            self._reject(verdict)
            pending.sent_at = now  # resent after the usual pause, not at once
            return
        del self._outstanding[message.kind]
        self.tally.confirmed[message.kind] += 1
        if message.kind in COUNTERS:
            self._uploaded[message.kind] += 1

    def _matching(self, got: Any) -> Outstanding | None:
        """The waiting message that *got* means, by whatever JSON type it is written in."""
        for pending in self._outstanding.values():
            if not isinstance(got, bool) and str(got) == str(pending.message.packet_id):
                return pending
        return None

    def _reject(self, verdict: Verdict) -> None:
        self.tally.rejected[verdict.kind] += 1
        if len(self.tally.rejections) < MAX_REJECTIONS:
            self.tally.rejections.append(verdict)

    def _reject_foreign(self, why: str, came: str) -> None:
        self._reject(Verdict("unknown", 0, why, shorten(came)))
