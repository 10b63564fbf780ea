"""The admin surface: health, readiness, metrics, records, connected controllers, commands.

Implements `ptslink.server.seam.Handler` for the admin listeners. Records are read and commands
taken on the Unix socket alone, whose file permissions say who may.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from ptslink.handshake.answer import document
from ptslink.handshake.head import Head, HeadError
from ptslink.handshake.identity import controller_id
from ptslink.journal.reader import JournalMissing, open_reader
from ptslink.journal.records import MAX_PAGE, CursorRefused, read_page
from ptslink.server.app import JSON, App
from ptslink.server.downlink import ALLOWED, CommandRefused
from ptslink.server.metrics import CONTENT_TYPE, render_metrics
from ptslink.server.seam import Answer, Arrival, Caller, Ending, Peer
from ptslink.server.wheel import Wheel

_ROUTES: Final = {
    "GET /health": "is the journal keeping records",
    "GET /ready": "may controllers be sent here",
    "GET /metrics": "counters for Prometheus",
    "GET /controllers": "who is connected",
    "GET /records?after=N&limit=N&type=T&controller=ID&journal=J": (
        "records behind a cursor; Unix socket only"
    ),
    "GET /variants?after=N&limit=N&type=T&controller=ID&journal=J": (
        "other contents of records; Unix socket only"
    ),
    "POST /controllers/ID/command": 'ask a controller, {"Type": "GetDateTime"}; Unix socket only',
}


class AdminApp:
    """The behaviour behind the admin listeners.

    Args:
        app: the link server.
        wheel: for the loop's lag.
    """

    def __init__(self, app: App, wheel: Wheel) -> None:
        self._app = app
        self._wheel = wheel
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="records")
        self._reading: set[asyncio.Future[Answer]] = set()

    async def close(self, seconds: float) -> bool:
        """Wait for the readers that are under way, but no longer. Returns whether they ended."""
        if self._reading:
            await asyncio.wait(self._reading, timeout=seconds)
        self._readers.shutdown(wait=False, cancel_futures=True)
        return not self._reading

    # Handler.

    def arrived(self, peer: Arrival) -> Answer | None:  # noqa: ARG002
        return None

    def request(self, peer: Peer, head: Head, body: bytes) -> Answer | None:
        target = urlsplit(head.target)
        parts = [part for part in target.path.split("/") if part]
        reading = head.method in ("GET", "HEAD")
        match parts:
            case ["health"] if reading:
                health = self._app.health()
                return _answer(200 if health["status"] == "ok" else 503, health)
            case ["ready"] if reading:
                return self._ready()
            case ["metrics"] if reading:
                content = render_metrics(self._app, self._wheel)
                return Answer(200, (("Content-Type", CONTENT_TYPE),), content)
            case ["controllers"] if reading:
                return _answer(200, {"controllers": self._controllers()})
            case ["records" | "variants"] | ["controllers", _, "command"] if peer.local_port:
                return self._not_here(parts[0])
            case ["records" | "variants" as table] if reading:
                query = dict(parse_qsl(target.query))
                return self._records(peer, head, query, table == "variants")
            case ["controllers", name, "command"] if head.method == "POST":
                return self._command(peer, name, body)
        return _answer(
            404, {"error": "not-found", "message": f"No {head.method} here.", "routes": _ROUTES}
        )

    def failed(self, peer: Peer, head: Head, error: Exception) -> Answer:  # noqa: ARG002
        content = self._app.failure(head, error)
        self._app.evidence.event(
            "internal-error",
            f"A fault of the server at an admin request, {content['id']}: {content['fault']}",
        )
        return _answer(500, content)

    def unreadable(self, peer: Caller, error: HeadError, start: bytes) -> Answer | None:  # noqa: ARG002
        return _answer(error.status, {"error": error.code, "message": error.reason})

    def opened(self, peer: Peer) -> None:
        """Never: the admin surface has no links."""

    def message(self, peer: Peer, payload: bytes, binary: bool) -> None:
        """Never: the admin surface has no links."""

    def ended(self, peer: Peer, ending: Ending) -> None:
        """Never: the admin surface has no links."""

    def left(self, peer: Arrival) -> None:
        """Nothing is kept for a connection."""

    # Routes.

    def _ready(self) -> Answer:
        ready = self._app.health()["status"] == "ok"
        return _answer(200 if ready else 503, {"ready": ready})

    def _not_here(self, route: str) -> Answer:
        """A TCP port is open to every user of this machine; the Unix socket has permissions."""
        path = self._app.config.admin.socket or "(admin.socket is empty in the configuration)"
        if route == "controllers":
            how = "Commands are taken on the admin Unix socket alone: ptslink ask"
        else:
            how = (
                "Records are read on the admin Unix socket alone: "
                f"curl --unix-socket {path} 'http://localhost/{route}?after=0'"
            )
        message = f"{how}, as root or a member of the server's group."
        return _answer(403, {"error": "not-here", "message": message})

    def _controllers(self) -> list[dict[str, Any]]:
        return [
            {
                "id": session.controller,
                "remote": session.remote,
                "since": session.since,
                "firmware": session.identity.firmware,
                "configuration": session.identity.configuration,
                "packets": session.counts,
                "notes": [*session.identity.notes, *sorted(session.noted)],
            }
            for session in self._app.registry
        ]

    def _records(
        self, peer: Peer, head: Head, query: dict[str, str], variants: bool
    ) -> Answer | None:
        unknown = query.keys() - {"after", "limit", "type", "controller", "journal"}
        if unknown:
            return _bad(
                f"unknown parameter {min(unknown)!r}; accepted: after, limit, type, controller,"
                " journal"
            )
        numbers = {}
        for name, default, least, most in (("after", 0, 0, 2**62), ("limit", 100, 1, MAX_PAGE)):
            text = query.get(name, str(default))
            if not (text.isascii() and text.isdigit() and len(text) < 20) or not (
                least <= int(text) <= most
            ):
                return _bad(f"{name}={text[:40]!r} is not a whole number from {least} to {most}")
            numbers[name] = int(text)
        controller = query.get("controller")
        if controller is not None and controller_id(controller) is None:
            return _bad(f"controller={controller[:40]!r} is not 1 to 24 hexadecimal digits")
        loop = asyncio.get_running_loop()
        options = {
            **numbers,
            "type_": query.get("type"),
            "controller": controller.upper() if controller else None,
            "journal": query.get("journal"),
            "variants": variants,
            "code_page": self._app.config.controllers.code_page,
        }
        future = loop.run_in_executor(self._readers, self._read, options)
        self._reading.add(future)

        def done(finished: asyncio.Future[Answer]) -> None:
            self._reading.discard(finished)
            if finished.cancelled():
                return  # the server stops; the connection goes with it
            error = finished.exception()
            if isinstance(error, Exception):
                peer.answer(self.failed(peer, head, error))
            elif error is None:
                peer.answer(finished.result())

        future.add_done_callback(done)
        return None

    def _read(self, options: dict[str, Any]) -> Answer:
        """In a reader thread."""
        try:
            with open_reader(self._app.config.journal.path) as connection:
                content = read_page(connection, **options)
        except CursorRefused as refused:
            return _answer(409, {"error": refused.code, "message": str(refused)})
        except (sqlite3.Error, JournalMissing) as error:
            return _answer(503, {"error": "journal-unreadable", "message": str(error)})
        return Answer(200, JSON, content.json() + b"\n")

    def _command(self, peer: Peer, name: str, body: bytes) -> Answer | None:
        try:
            content = json.loads(body)
            type_ = content["Type"]
            if set(content) != {"Type"} or not isinstance(type_, str):
                raise ValueError
        except (ValueError, TypeError, KeyError):
            return _bad('the body must be {"Type": "..."}, one of ' + ", ".join(ALLOWED))
        session = self._app.registry.get(controller_id(name) or "")
        if session is None:
            return _answer(
                404, {"error": "not-connected", "message": f"Controller {name} is not connected."}
            )

        def done(outcome: dict[str, Any]) -> None:
            status = 504 if outcome.get("error") in ("no-reply", "link-lost") else 200
            peer.answer(_answer(status, outcome))

        try:
            size = self._app.downlink.send(session, type_, done)
        except CommandRefused as refused:
            return _answer(refused.status, {"error": refused.code, "message": str(refused)})
        self._app.evidence.event(
            "command-sent",
            f"Sent {type_} to PTS Controller {session.controller}.",
            controller=session.controller,
            type=type_,
            bytes=size,
        )
        return None


def _answer(status: int, content: dict[str, Any]) -> Answer:
    return Answer(status, JSON, document(content))


def _bad(message: str) -> Answer:
    return _answer(400, {"error": "bad-request", "message": message})
