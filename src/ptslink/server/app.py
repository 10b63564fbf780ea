"""The link server's behaviour: what a request, a message and an ending mean.

Implements `ptslink.server.seam.Handler`. No sockets, no threads: it can be driven by a test.
"""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ptslink import version
from ptslink.handshake.answer import document, explain
from ptslink.handshake.head import BLANK_IN_NAME, Head, HeadError
from ptslink.handshake.identity import PROBE, identify
from ptslink.handshake.judge import Rules, asks_to_upgrade, judge, refuse_blanks, refuse_identity
from ptslink.handshake.path import link_path
from ptslink.journal.entry import Clock, Entry, Journal
from ptslink.journal.filing import OTHER_CONTROLLER
from ptslink.journal.logfiles import LogFiles, PacketLine
from ptslink.jsonpts.columns import COLUMNS
from ptslink.jsonpts.confirmation import is_upload
from ptslink.jsonpts.envelope import UNREADABLE, fault
from ptslink.jsonpts.repair import NOT_UTF8
from ptslink.server import upload
from ptslink.server.admission import SILENT_TIMES, Admission, counted_as
from ptslink.server.config import Config
from ptslink.server.downlink import ALLOWED, Downlink
from ptslink.server.evidence import EvidenceLog, ending_label
from ptslink.server.intake import Intake
from ptslink.server.registry import Registry, Session
from ptslink.server.seam import HOLD_STOPPING, Answer, Arrival, Caller, Ending, Peer
from ptslink.server.uplink import Uplink
from ptslink.server.vitals import LOGS, Vitals

JSON: Final = (("Content-Type", "application/json"),)

#: Close codes (RFC 6455 section 7.4 and its registry).
SERVICE_RESTART: Final = 1012
RESTART_REASON: Final = "the server restarts"
REPLACED: Final = 4000

#: Controllers whose clock offset is remembered between links.
_MAX_CLOCKS: Final = 100_000
#: Names of packet Types that get counters and log files of their own at most, besides those that a
#: controller is known to use (PTS-2 protocol 2.3 and 2.4); the rest share one.
_MAX_TYPES: Final = 64
_KNOWN_TYPES: Final = frozenset(
    {
        *COLUMNS,
        "UploadStatus",
        "UploadConfiguration",
        "RequestTagsInformation",
        *(type_.removeprefix("Get") for type_ in ALLOWED),
    }
)


class App:
    """The behaviour behind every connection of the public listeners.

    Args:
        config: the configuration in force.
        journal: where messages and evidence go.
        evidence: where attempts and endings are recorded.
        downlink: where replies to commands go.
        logs: for the per-type logs of messages, or None.
        offsets: UTCOffset in minutes by controller, as far as known from earlier runs.
    """

    def __init__(
        self,
        config: Config,
        journal: Journal,
        *,
        evidence: EvidenceLog,
        downlink: Downlink,
        logs: LogFiles | None = None,
        offsets: Mapping[str, int] | None = None,
    ) -> None:
        self.config = config
        self.journal = journal
        self.evidence = evidence
        self.downlink = downlink
        self.registry = Registry()
        self.rules: Rules = config.rules()
        self.stopping = False
        self.started = time.time()
        # Of the code that runs, and looking it up takes milliseconds.
        self.version = version()
        self.admission = Admission(
            connections=config.limits.connections,
            per_address=config.limits.connections_per_address,
            failures=config.limits.failures_per_minute,
            proxies=config.listen.trusted_proxies,
        )
        self.attempts: dict[str, int] = {}
        self.endings: dict[str, int] = {}
        self.leniencies: dict[str, int] = {}
        self.packets: dict[str, int] = {}
        self.rsv1: dict[str, int] = {}
        self.on_empty: Callable[[], None] | None = None
        self.vitals = Vitals({})
        self._logs = logs
        self.intake = Intake(self._known, config.limits.new_controllers_per_address, evidence)
        self._uplink = Uplink(journal, self.intake)
        self._zone = config.zone()
        self._invented = 0
        self._newcomers: set[str] = set()
        self._clocks = {id_: Clock(offset, self._zone) for id_, offset in (offsets or {}).items()}
        self._upload_paths = frozenset(link_path("/" + p) for p in config.listen.upload_paths)
        self._message_text = config.logs.message_text
        self._sample_ms = config.journal.status_history_seconds * 1000

    # Handler.

    def arrived(self, peer: Arrival) -> Answer | None:
        reason = self.admission.arrive(peer)
        if reason is None:
            return None
        return self._no_room(peer, peer.address, None, reason)

    def _no_room(
        self, peer: Caller, remote: str, head: Head | None, reason: str, controller: str = ""
    ) -> Answer:
        self._attempt(peer, remote, head, 503, "too-many-connections", reason, controller)
        content = {"error": "too-many-connections", "message": reason}
        return Answer(503, (*JSON, ("Retry-After", "10")), document(content), close=True)

    def request(self, peer: Peer, head: Head, body: bytes) -> Answer | None:
        path = link_path(head.target)
        if path == "health" and head.method in ("GET", "HEAD") and not asks_to_upgrade(head):
            # Whoever can reach the link may know whether it works, and no more.
            status = self.health()["status"]
            return Answer(200 if status == "ok" else 503, JSON, document({"status": status}))
        remote = self.admission.remote(peer.address, head)
        if head.method == "POST" and (path in self.rules.paths or path in self._upload_paths):
            return self._upload(peer, remote, head, body)
        return self._upgrade(peer, remote, head)

    def failed(self, peer: Peer, head: Head, error: Exception) -> Answer:
        content = self.failure(head, error)
        remote = self.admission.remote(peer.address, head)
        reason = f"A fault of the server, {content['id']}: {content['fault']}"
        controller = identify(head).controller
        self._attempt(peer, remote, head, 500, "internal-error", reason, controller)
        return Answer(500, JSON, document(content), close=True)

    def failure(self, head: Head, error: Exception) -> dict[str, str]:
        """What is said about a fault of ours: enough to find it, nothing of what was asked.

        The id is in the log with it.
        """
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return {
            "error": "internal-error",
            "message": f"The server failed at this {head.method} request. It is recorded there.",
            "fault": f"{type(error).__name__}{place}",
            "id": secrets.token_hex(4),
        }

    def unreadable(self, peer: Caller, error: HeadError, start: bytes) -> Answer | None:
        answered = error.code not in ("closed-before-request", "silent", "silent-gave-way")
        status = error.status if answered else 0
        self.admission.fail(peer.address, time.time())
        self._attempt(peer, peer.address, None, status, error.code, error.reason, start=start)
        if not start and self.admission.silent(peer.address) == SILENT_TIMES:
            self.evidence.event(
                "silent-caller",
                f"{counted_as(peer.address)} connected {SILENT_TIMES} times and sent not one byte:"
                " a health check, or it waits for the server to speak.",
                peer=peer.address,
            )
        if not answered:
            return None
        content = {
            "error": error.code,
            "message": error.reason,
            "expected": {"method": "GET", "path": f"/{self.rules.path}"},
        }
        return Answer(error.status, JSON, document(content), close=True)

    def opened(self, peer: Peer) -> None:
        session: Session = peer.context
        self._uplink.opened(session)
        self.admission.link(peer, session.remote)
        self._take_over(session)
        if self.stopping:
            # It was on its way in when the order came. A refusal would look like a fault.
            peer.close(SERVICE_RESTART, RESTART_REASON)

    def message(self, peer: Peer, payload: bytes, binary: bool) -> None:  # noqa: ARG002
        session: Session = peer.context
        if session.identity.probe:
            return  # it proves the link; what it says is nobody's record
        entry, taken = self._uplink.message(session, payload)
        if taken and not session.controller:
            self._adopt(session, entry.controller)
        self._note(
            session.counts, session.noted, entry, session, remote=session.remote, taken=taken
        )

    def ended(self, peer: Peer, ending: Ending) -> None:
        session: Session = peer.context
        self._uplink.ended(session)
        self.downlink.ended(session)
        self.registry.remove(session)
        self.admission.unlink(session.remote)
        _count(self.endings, ending_label(ending))
        self.evidence.link(session, ending)
        if not len(self.registry) and self.on_empty is not None:
            self.on_empty()

    def left(self, peer: Arrival) -> None:
        self.admission.leave(peer)

    # Upgrades.

    def _upgrade(self, peer: Peer, remote: str, head: Head) -> Answer:
        verdict = judge(head, self.rules)
        identity = verdict.identity
        now = time.time()
        # Who guesses at passwords is counted whatever id is named, and an id that is known only
        # since it was met here takes as many links of its address as a stranger.
        stranger = (
            not self._known_of_old(identity.controller)
            and self.registry.get(identity.controller) is None  # else it replaces its own
        )
        excess = self.admission.too_much(
            remote,
            now,
            failures=verdict.status == 401 or not self._known(identity.controller),
            links=stranger,
        )
        if excess is not None:
            self._attempt(peer, remote, head, 429, "rate-limited", excess, identity.controller)
            content = {"error": "rate-limited", "message": f"Too many attempts: {excess}."}
            return Answer(429, (*JSON, ("Retry-After", "60")), document(content), close=True)
        crowded = self.admission.crowded() if stranger and verdict.status == 101 else None
        if crowded is not None:
            return self._no_room(peer, remote, head, crowded, identity.controller)
        for note in verdict.notes:
            if note != PROBE:
                _count(self.leniencies, note)
        self._attempt(
            peer,
            remote,
            head,
            verdict.status,
            verdict.code,
            verdict.reason,
            identity.controller,
            verdict.notes,
            link=peer.number if verdict.status == 101 else 0,
        )
        if verdict.status != 101:
            self.admission.fail(remote, now)
            content = explain(verdict, self.rules, port=self.config.listen.port)
            return Answer(verdict.status, (*JSON, *verdict.headers), document(content))
        peer.context = Session(
            peer,
            identity,
            time.time_ns() // 1_000_000,
            self._clock(identity.controller),
            remote,
            identity.controller,
            time.monotonic(),
        )
        return Answer(101, verdict.headers)

    def _known(self, controller: str) -> bool:
        return bool(controller) and (
            controller in self.rules.allowed or self.journal.knows(controller)
        )

    def _known_of_old(self, controller: str) -> bool:
        """Whether the controller was known before this server met it: anybody may name an id and
        have a message stored."""
        if self._known(controller):
            return controller in self.rules.allowed or controller not in self._newcomers
        if controller and len(self._newcomers) < _MAX_CLOCKS:
            self._newcomers.add(controller)
        return False

    def _take_over(self, session: Session) -> None:
        replaced = self.registry.add(session)
        if replaced is not None:
            self.evidence.event(
                "replaced",
                f"PTS Controller {session.controller} connected again from {session.remote}; "
                f"its older connection from {replaced.remote} is closed.",
                controller=session.controller,
                peer=session.remote,
                older_peer=replaced.remote,
            )
            replaced.peer.close(REPLACED, "replaced by a newer connection")

    def _adopt(self, session: Session, controller: str) -> None:
        """A link without X-Pts-Id named its controller in a message."""
        session.controller = controller
        self._known_of_old(controller)
        session.clock = self._clock(controller)
        self._take_over(session)

    def _clock(self, controller: str) -> Clock:
        clock = self._clocks.get(controller)
        if clock is None:
            clock = Clock(zone=self._zone)
            if controller and len(self._clocks) < _MAX_CLOCKS:
                self._clocks[controller] = clock
        return clock

    # Uploads over HTTP.

    def _upload(self, peer: Peer, remote: str, head: Head, body: bytes) -> Answer | None:
        identity = identify(head)
        controller = identity.controller
        if BLANK_IN_NAME in head.flaws:
            _count(self.leniencies, BLANK_IN_NAME)
        fault = refuse_blanks(head, self.rules) or refuse_identity(head, identity, self.rules)
        if fault is None:
            wrong = upload.signature_fault(head, body, self.rules)
            fault = (401, *wrong) if wrong is not None else None
        if fault is not None:
            status, code, reason = fault
            self.admission.fail(remote, time.time())
            self._attempt(peer, remote, head, status, code, reason, controller)
            challenge = (("WWW-Authenticate", 'Basic realm="ptslink"'),) if status == 401 else ()
            return upload.refusal(status, code, reason, *challenge)
        if not self._known_of_old(controller):
            excess = self.admission.too_much(
                remote, time.time(), failures=not self._known(controller)
            )
            if excess is not None:
                self._attempt(peer, remote, head, 429, "rate-limited", excess, controller)
                return upload.refusal(429, "rate-limited", excess, ("Retry-After", "60"))
        if identity.probe:
            return upload.nothing_taken(self.rules.secret)
        entry, refused = upload.take(
            peer,
            identity,
            body,
            journal=self.journal,
            intake=self.intake,
            remote=remote,
            clock=self._clock(controller),
            secret=self.rules.secret,
        )
        self._note({}, set(), entry, None, remote=remote, taken=refused is None)
        return refused

    # Notes.

    def _attempt(
        self,
        peer: Caller,
        remote: str,
        head: Head | None,
        status: int,
        code: str,
        reason: str,
        controller: str = "",
        notes: tuple[str, ...] = (),
        start: bytes = b"",
        link: int = 0,
    ) -> None:
        _count(self.attempts, PROBE if PROBE in notes else code)
        self.evidence.attempt(
            peer,
            remote,
            head,
            status=status,
            code=code,
            reason=reason,
            controller=controller,
            notes=notes,
            start=start,
            link=link,
        )

    def _note(
        self,
        counts: dict[str, int],
        noted: set[str],
        entry: Entry,
        session: Session | None,
        *,
        remote: str,
        taken: bool,
    ) -> None:
        """Count packets and hand replies to whoever asked; of a message that was taken, remember
        oddities and leave a line in the per-type logs."""
        for note in entry.notes if taken else ():
            if note not in noted:
                noted.add(note)
                self.evidence.event(
                    note,
                    f"PTS Controller {entry.controller or '(no id)'} at {remote} sent a message "
                    f"with: {note}{_explained(note, entry)}.",
                    controller=entry.controller,
                    peer=remote,
                )
        known = self.packets
        for packet in entry.packets:
            type_ = packet.type
            if type_ not in known and type_ not in _KNOWN_TYPES:
                if self._invented >= _MAX_TYPES:
                    type_ = "Other"
                else:
                    self._invented += 1
            counts[type_] = counts.get(type_, 0) + 1
            known[type_] = known.get(type_, 0) + 1
            if not is_upload(packet.type):
                if session is not None and not packet.type.startswith("Request"):
                    self.downlink.reply(session, packet)
                continue
            if self._logs is None or not taken:
                continue
            if type_ == "UploadStatus" and session is not None:
                if 0 <= entry.received - session.status_logged < self._sample_ms:
                    continue
                session.status_logged = entry.received
            data = packet.data
            text = data if self._message_text else None
            self._logs.put(
                PacketLine(entry.received, entry.controller, type_, packet.id, len(data), text)
            )

    def change_rules(self, rules: Rules) -> None:
        """Take over allow-list, users and secret for handshakes and uploads to come. Open links,
        paths and profile stay as they are."""
        self.rules = replace(
            self.rules,
            allowed=rules.allowed,
            users=rules.users,
            secret=rules.secret,
            secret_required=rules.secret_required,
        )

    # Stopping.

    def hold_all(self) -> None:
        """Take no more messages, so that what came can be settled and confirmed."""
        self.stopping = True
        for session in self.registry:
            session.peer.hold(HOLD_STOPPING)

    def close_all(self) -> None:
        """Close every link with 1012, which tells a controller to come back."""
        self.stopping = True
        for session in self.registry:
            session.peer.close(SERVICE_RESTART, RESTART_REASON)
            session.peer.go_on(HOLD_STOPPING)

    # Answers.

    def health(self) -> dict[str, Any]:
        """What ``GET /health`` says on the admin address; on the link's it is the status alone."""
        journal = self.journal.health
        silent = self.vitals.silent()
        # Logs that stand still are told; they are no reason to send controllers away.
        failing = not journal.ok or any(part != LOGS for part in silent)
        status = "stopping" if self.stopping else "failing" if failing else "ok"
        logs = self._logs
        return {
            "status": status,
            "version": self.version,
            "uptime_seconds": int(time.time() - self.started),
            "controllers": self.registry.links,
            "connections": self.admission.open,
            "journal": {
                "ok": journal.ok,
                "reason": journal.reason or None,
                "failing_since": journal.since,
                "replaced": journal.replaced or None,
            },
            "logs": {
                "ok": not logs.failure and LOGS not in silent,
                "reason": logs.failure or None,
                "dropped": logs.dropped,
            }
            if logs
            else None,
            "refused_messages": self.intake.health(),
            "silent": silent,
            "path": f"/{self.rules.path}",
        }


def _explained(note: str, entry: Entry) -> str:
    """What else is told with a note."""
    if note == OTHER_CONTROLLER:
        return "; the handshake's id is believed"
    if note == NOT_UTF8:
        return "; it is kept as it came, and controllers.code_page says how it is shown"
    return f", {fault(entry.raw)}" if note == UNREADABLE else ""


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
