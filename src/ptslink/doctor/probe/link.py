"""The link probe: walk the way a controller walks, one step after the other.

resolve, connect, tls, get, upgrade, accept, ping, echo, idle, close. The first step that fails
ends the walk (except ``get``, which no controller sends); the steps behind it are skipped.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from ptslink.doctor.probe import frames
from ptslink.doctor.probe.frames import Frame, decode_frame, encode_masked
from ptslink.doctor.probe.request import (
    RequestHead,
    new_key,
    new_probe_id,
    plain_get_head,
    upgrade_head,
)
from ptslink.doctor.probe.response import (
    NotHttpError,
    ResponseHead,
    dechunk,
    read_response_head,
    shown,
)
from ptslink.doctor.probe.result import STEPS, LinkResult, Step, StepStatus
from ptslink.doctor.probe.stream import (
    ALERTS,
    Address,
    Ended,
    Stream,
    connect,
    errno_name,
    error_text,
    milliseconds_since,
    refusal,
    resolve,
    start_tls,
)
from ptslink.doctor.probe.target import Target, is_address, parse_target
from ptslink.handshake.accept import accept_value

#: How much of an error body is kept.
BODY_BYTES = 512
#: How long the rest of an error body, or the FIN after a close, is waited for, in seconds.
TAIL_SECONDS = 1.0
#: The most a control frame may carry (RFC 6455 5.5).
LARGEST_CONTROL = 125
#: How many of the server's messages are kept.
MAX_UNASKED = 3
#: The smallest frame over 64 KiB that a server has no reason to send to a probe.
MAX_FRAME_BYTES = 1 << 20


class StepFailed(Exception):
    """A step failed: what was seen, and the sentence about it."""

    def __init__(self, seen: str, cause: str, facts: dict[str, Any] | None = None) -> None:
        super().__init__(cause)
        self.seen, self.cause, self.facts = seen, cause, facts or {}


class StepSkipped(Exception):
    """A step has nothing to do here; the text says why."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a step that went well saw."""

    text: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How to probe. Seconds throughout; ``None`` takes the default said beside it."""

    #: Connect here instead of resolving the host; ``Host`` stays the URL's.
    address: str | None = None
    #: Bound on each step.
    timeout: float = 10.0
    #: Stay connected this long without sending anything; 0 leaves the step out.
    idle: float = 0.0
    #: ``http://`` and the own address, as a controller does; "" sends none.
    origin: str | None = None
    #: A fresh id from the range reserved for probes.
    controller_id: str | None = None
    #: ``user:password`` for Basic.
    credentials: str | None = None
    #: The certificates to trust instead of the system's (a PEM file).
    ca: Path | None = None
    #: Accept any certificate.
    insecure: bool = False
    #: The name to ask for and to verify in TLS; the host.
    server_name: str | None = None
    #: Also send a plain GET, on a connection of its own.
    get: bool = True


def probe_link(
    url: str,
    *,
    address: str | None = None,
    timeout: float = 10.0,
    idle: float = 0.0,
    origin: str | None = None,
    controller_id: str | None = None,
    credentials: str | None = None,
    ca: Path | None = None,
    insecure: bool = False,
    server_name: str | None = None,
    get: bool = True,
) -> LinkResult:
    """Walk the link to *url* once; see ``ProbeOptions`` for the rest.

    Raises:
        TargetError: *url* is not a ws:// or wss:// URL.
        OSError: the file *ca* cannot be read.
    """
    options = ProbeOptions(
        address=address,
        timeout=timeout,
        idle=idle,
        origin=origin,
        controller_id=controller_id,
        credentials=credentials,
        ca=ca,
        insecure=insecure,
        server_name=server_name,
        get=get,
    )
    return LinkProbe(parse_target(url), options).run()


def tls_context(ca: Path | None, insecure: bool) -> ssl.SSLContext:
    """A client context; raises ``OSError`` when *ca* cannot be read or holds no certificate."""
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class LinkProbe:
    """One walk. Holds what a later step needs of an earlier one."""

    def __init__(self, target: Target, options: ProbeOptions) -> None:
        self.target = target
        self.options = options
        self.controller_id = options.controller_id or new_probe_id()
        self.context = tls_context(options.ca, options.insecure) if target.tls else None
        self.addresses: list[Address] = []
        self.address: Address | None = None
        self.stream: Stream | None = None
        self.head: ResponseHead | None = None
        self.key = new_key()
        self.body = b""
        self.accept_ok = False
        self.messages = 0
        #: The first messages the server sent, which no probe ever asks for.
        self.unasked: list[str] = []
        #: How long they were.
        self.unasked_bytes: list[int] = []
        #: When the 101 came, ``time.monotonic()`` seconds.
        self.opened_at: float | None = None

    def run(self) -> LinkResult:
        """Walk all steps and tell what was seen. Opens and closes its own sockets."""
        steps: list[Step] = []
        cause: str | None = None
        try:
            for name in STEPS:
                if cause is not None:
                    steps.append(Step(name, "skipped", 0.0, "an earlier step failed"))
                    continue
                action: Callable[[], Seen] = getattr(self, "_" + name)
                step, failure = self._walk(name, action)
                steps.append(step)
                if name != "get":
                    cause = failure
        finally:
            if self.stream is not None:
                self.stream.close()
        headers: dict[str, str] = {}
        for header, value in self.head.headers if self.head else ():
            headers[header] = f"{headers[header]}, {value}" if header in headers else value
        return LinkResult(
            url=self.target.url,
            ok=cause is None,
            status=self.head.status if self.head else None,
            accept_ok=self.accept_ok,
            cause=cause,
            steps=tuple(steps),
            headers=headers,
            body=self.body[:BODY_BYTES].decode("utf-8", "replace"),
            address=self.address.host if self.address else None,
            controller_id=self.controller_id,
        )

    def _walk(self, name: str, action: Callable[[], Seen]) -> tuple[Step, str | None]:
        start = time.perf_counter()
        status: StepStatus
        cause: str | None = None
        try:
            seen = action()
            status, text, facts = "ok", seen.text, seen.facts
        except StepSkipped as skipped:
            status, text, facts = "skipped", str(skipped), {}
        except StepFailed as failed:
            status, text, facts, cause = "failed", failed.seen, failed.facts, failed.cause
        except OSError as error:
            text = self._break_text(error)
            status, facts = "failed", {"errno": errno_name(error), "ended": how_ended(error)}
            facts |= self._about(name) | self._life()
            ms = milliseconds_since(start)
            cause = f"During {name} {text} after {ms:g} ms."
        return Step(name, status, milliseconds_since(start), text, facts), cause

    def _about(self, name: str) -> dict[str, Any]:
        """What is true of the upgrade however it goes."""
        if name != "upgrade":
            return {}
        target = self.target
        return {
            "scheme": target.scheme,
            "port": target.port,
            "path": target.path,
            "host": target.authority,
            "at": round(time.time(), 3),
        }

    def _life(self) -> dict[str, Any]:
        """What the WebSocket connection was until now, once there was one."""
        if self.opened_at is None:
            return {}
        return {
            "after_seconds": round(time.monotonic() - self.opened_at, 2),
            **self._told(),
        }

    def _told(self) -> dict[str, Any]:
        """What the server said of its own accord."""
        if not self.unasked:
            return {}
        return {"unasked": self.unasked, "unasked_bytes": self.unasked_bytes}

    def _break_text(self, error: OSError) -> str:
        if isinstance(error, Ended):
            return "the server closed the connection (FIN)"
        if isinstance(error, ConnectionResetError):
            return "the server reset the connection (RST)"
        if isinstance(error, TimeoutError):
            return f"nothing came within {self.options.timeout:g} s"
        return error_text(error)

    def _deadline(self) -> float:
        return time.monotonic() + self.options.timeout

    # The steps.

    def _resolve(self) -> Seen:
        host, port = self.target.host, self.target.port
        told = self.options.address
        if told is not None:
            self.addresses = resolve(told, port, self.options.timeout)
            raise StepSkipped(f"told to connect to {told}")
        try:
            self.addresses = resolve(host, port, self.options.timeout)
        except OSError as error:
            text = error_text(error)
            raise StepFailed(
                text, f"Resolving {host}: {text}.", {"errno": errno_name(error)}
            ) from error
        listed = [a.host for a in self.addresses]
        if is_address(host):
            return Seen(f"{host} is an address", {"addresses": listed})
        return Seen(f"{host} is {', '.join(listed)}", {"addresses": listed})

    def _connect(self) -> Seen:
        attempts: list[dict[str, Any]] = []
        for address in self.addresses:
            start = time.perf_counter()
            try:
                self.stream = connect(address, self.options.timeout)
            except OSError as error:
                ms = milliseconds_since(start)
                attempts.append({"address": address.host, "ms": ms, **refusal(error)})
                continue
            ms = milliseconds_since(start)
            attempts.append({"address": address.host, "errno": None, "ms": ms})
            self.address = address
            facts = {"attempts": attempts, "source": self.stream.local_host}
            return Seen(f"{address} from {self.stream.local_host}", facts)
        text = ", ".join(f"{a['address']} {refused(a)} after {a['ms']:g} ms" for a in attempts)
        raise StepFailed(
            text, f"Connecting to port {self.target.port}: {text}.", {"attempts": attempts}
        )

    def _tls(self) -> Seen:
        if self.context is None:
            raise StepSkipped("ws:// has no TLS")
        assert self.stream is not None
        try:
            facts = self._secure(self.stream)
        except OSError as error:
            text = error_text(error)
            raise StepFailed(
                text,
                f"The TLS handshake with {self.address}: {text}.",
                {
                    "errno": errno_name(error),
                    "ended": how_ended(error),
                    "port": self.target.port,
                    "alert": ALERTS.get(getattr(error, "reason", None) or ""),
                    "reason": getattr(error, "reason", None),
                    "verify_code": getattr(error, "verify_code", None),
                },
            ) from error
        return Seen(f"{facts['version']} {facts['cipher']}", facts)

    def _secure(self, stream: Stream) -> dict[str, Any]:
        assert self.context is not None
        name = self.options.server_name or self.target.host
        secure = start_tls(stream, self.context, name, self.options.timeout)
        cipher = secure.cipher()
        return {"version": secure.version(), "cipher": cipher[0] if cipher else None, "name": name}

    def _get(self) -> Seen:
        if not self.options.get:
            raise StepSkipped("not asked for")
        stream = self._second_connection()
        try:
            head, body = self._ask(stream, plain_get_head(self.target.authority, self.target.path))
        except NotHttpError as error:
            raise StepFailed(str(error), f"The server's answer to GET is {error}.") from error
        finally:
            stream.close()
        facts = {
            "status": head.status,
            "server": head.get("Server"),
            "location": head.get("Location"),
            "date_offset_s": date_offset(head.get("Date")),
            "body": body.decode("utf-8", "replace"),
        }
        note = "" if head.status == 426 else " (426 is usual here)"
        return Seen(head.line + note, facts)

    def _second_connection(self) -> Stream:
        assert self.address is not None
        stream = connect(self.address, self.options.timeout)
        try:
            if self.context is not None:
                self._secure(stream)
        except BaseException:
            stream.close()
            raise
        return stream

    def _upgrade(self) -> Seen:
        assert self.stream is not None
        try:
            self.head, self.body = self._ask(self.stream, self._upgrade_head(self.stream))
        except NotHttpError as error:
            facts = {"first_bytes": error.data[:64].hex(), **self._about("upgrade")}
            raise StepFailed(str(error), f"The answer to the upgrade is {error}.", facts) from error
        facts = {"status": self.head.status, **self._about("upgrade")}
        if self.head.status != 101:
            cause = f"The server answered the upgrade with {self.head.line}"
            location = self.head.get("Location")
            cause += f", Location {location}." if location else "."
            facts |= self._held()
            raise StepFailed(self.head.line, cause, facts)
        self.opened_at = time.monotonic()
        return Seen(self.head.line, facts)

    def _held(self) -> dict[str, Any]:
        """How long the server keeps a connection open that it refused, where asked to wait."""
        if self.options.idle <= 0:
            return {}
        assert self.stream is not None
        start, ended = time.monotonic(), None
        try:
            while True:
                self.stream.pending = b""
                self.stream.fill(start + self.options.idle)
        except OSError as error:
            ended = how_ended(error)
        return {"held_seconds": round(time.monotonic() - start, 2), "held_ended": ended}

    def _upgrade_head(self, stream: Stream) -> RequestHead:
        origin = self.options.origin
        if origin is None:
            host = stream.local_host
            origin = f"http://[{host}]" if ":" in host else f"http://{host}"
        return upgrade_head(
            authority=self.target.authority,
            path=self.target.path,
            key=self.key,
            origin=origin or None,
            controller_id=self.controller_id,
            credentials=self.options.credentials,
        )

    def _ask(self, stream: Stream, request: RequestHead) -> tuple[ResponseHead, bytes]:
        """Send *request*; the head of the answer, and the start of its body unless it is a 101."""
        deadline = self._deadline()
        stream.send(request.encode(), deadline)
        while True:
            head = read_response_head(stream.pending) if stream.pending else None
            if head is not None:
                break
            try:
                stream.fill(deadline)
            except Ended:
                if stream.pending:
                    text = f"cut off: {shown(stream.pending)}"
                    raise NotHttpError(text, stream.pending) from None
                raise
        stream.pending = head.rest
        if head.status == 101:
            return head, b""
        return head, self._body(stream, head, min(deadline, time.monotonic() + TAIL_SECONDS))

    def _body(self, stream: Stream, head: ResponseHead, deadline: float) -> bytes:
        length = head.get("Content-Length") or ""
        wanted = min(int(length), BODY_BYTES) if length.isdecimal() else BODY_BYTES
        chunked = head.has_token("Transfer-Encoding", "chunked")
        try:
            while len(stream.pending) < (wanted * 2 if chunked else wanted):
                if chunked and stream.pending.endswith(b"0\r\n\r\n"):
                    break
                stream.fill(deadline)
        except OSError:
            pass  # what has come is what there is to show
        body = dechunk(stream.pending) if chunked else stream.pending
        return body[:BODY_BYTES]

    def _accept(self) -> Seen:
        assert self.head is not None
        expected, got = accept_value(self.key), self.head.get("Sec-WebSocket-Accept")
        self.accept_ok = got == expected
        facts: dict[str, Any] = {
            "expected": expected,
            "got": got,
            "protocol": self.head.get("Sec-WebSocket-Protocol"),
            "extensions": self.head.get("Sec-WebSocket-Extensions"),
            # A controller offers neither a sub-protocol nor an extension, and so does the probe.
            "offered": "",
        }
        if got is None:
            text = "no Sec-WebSocket-Accept header"
            raise StepFailed(text, f"The server answered 101 with {text}.", facts)
        if not self.accept_ok:
            raise StepFailed(
                f"{got}, expected {expected}",
                f"The server's Sec-WebSocket-Accept is {got}; the key sent asks for {expected}.",
                facts,
            )
        for name, token in (("Upgrade", "websocket"), ("Connection", "upgrade")):
            if not self.head.has_token(name, token):
                value = self.head.get(name)
                text = f"no {name} header" if value is None else f"{name}: {value}"
                raise StepFailed(text, f"The server answered 101 with {text}.", facts)
        if facts["extensions"]:
            text = f"extensions that were not offered: {facts['extensions']}"
            raise StepFailed(text, f"The server answered 101 with {text}.", facts)
        note = f"; subprotocol {facts['protocol']!r} not asked for" if facts["protocol"] else ""
        return Seen(f"{got} is right{note}", facts)

    def _ping(self) -> Seen:
        return self._exchange_ping(b"ptslink")

    def _echo(self) -> Seen:
        payload = bytes(range(0x20, 0x20 + LARGEST_CONTROL))
        return self._exchange_ping(payload)

    def _exchange_ping(self, payload: bytes) -> Seen:
        deadline = self._deadline()
        self._send_frame(Frame(frames.PING, payload), deadline)
        others = 0
        while True:
            frame = self._next_frame(deadline)
            if frame.opcode == frames.PONG and frame.payload == payload:
                break
            if frame.opcode == frames.PONG:
                others += 1
        note = f"; {others} other pong(s) before it" if others else ""
        note += f"; {self.messages} message(s) came unasked" if self.messages else ""
        facts: dict[str, Any] = {
            "bytes": len(payload),
            "other_pongs": others,
            "messages": self.messages,
        }
        facts |= self._told()
        return Seen(f"{len(payload)} bytes came back in a pong{note}", facts)

    def _idle(self) -> Seen:
        seconds = self.options.idle
        if seconds <= 0:
            raise StepSkipped("not asked for")
        start = time.monotonic()
        pings = 0
        try:
            while True:
                if self._next_frame(start + seconds).opcode == frames.PING:
                    pings += 1
        except TimeoutError:
            pass  # the idle period is over and the connection still stands
        except (OSError, StepFailed) as error:
            after = time.monotonic() - start
            seen = error.seen if isinstance(error, StepFailed) else self._break_text(error)
            raise StepFailed(
                f"after {after:.2f} s {seen}",
                f"After {after:.2f} s of idle {seen}.",
                {
                    "seconds": seconds,
                    "ended": how_ended(error),
                    **(error.facts if isinstance(error, StepFailed) else {}),
                    "after_seconds": round(after, 2),
                    "server_pings": pings,
                },
            ) from error
        self._exchange_ping(b"after idle")
        facts = {"seconds": seconds, "server_pings": pings}
        return Seen(f"alive after {seconds:g} s; the server pinged {pings} times", facts)

    def _close(self) -> Seen:
        assert self.stream is not None
        deadline = self._deadline()
        self._send_frame(Frame(frames.CLOSE, frames.close_payload(1000)), deadline)
        while (frame := self._take_frame(deadline)).opcode != frames.CLOSE:
            pass
        code, reason = frames.read_close(frame.payload)
        facts: dict[str, Any] = {"code": code, "reason": reason, "fin": True}
        text = f"1000 was answered with {code} {reason}".rstrip()
        if code not in (1000, 1005):
            raise StepFailed(text, f"Our close {text}.", facts)
        try:
            self.stream.fill(min(deadline, time.monotonic() + TAIL_SECONDS))
        except TimeoutError:
            facts["fin"] = False
            text += "; the connection was left open"
        except OSError:
            pass  # FIN, or a reset after the close frame: the link is down as agreed
        return Seen(text, facts)

    # Frames.

    def _send_frame(self, frame: Frame, deadline: float) -> None:
        assert self.stream is not None
        self.stream.send(encode_masked(frame), deadline)

    def _take_frame(self, deadline: float) -> Frame:
        assert self.stream is not None
        while (found := decode_frame(self.stream.pending)) is None:
            if len(self.stream.pending) > MAX_FRAME_BYTES:
                raise StepFailed("a frame over 1 MiB", "The server sends a frame over 1 MiB.")
            self.stream.fill(deadline)
        frame, self.stream.pending = found
        if frame.masked:
            text = f"a masked {frame.name} frame"
        elif frame.rsv:
            text = f"a {frame.name} frame with reserved bits set"
        else:
            text = "" if frame.opcode in frames.NAMES else f"a frame of unknown {frame.name}"
        if text:
            raise StepFailed(text, f"The server sent {text}.", {"payload": shown(frame.payload)})
        return frame

    def _next_frame(self, deadline: float) -> Frame:
        """The next frame; a ping is answered, a message counted, a close is the end."""
        frame = self._take_frame(deadline)
        if frame.opcode == frames.PING:
            self._send_frame(Frame(frames.PONG, frame.payload), deadline)
        elif frame.opcode in (frames.TEXT, frames.BINARY, frames.CONTINUATION):
            self.messages += 1
            if len(self.unasked) < MAX_UNASKED:
                self.unasked.append(frame.payload[:200].decode("utf-8", "replace"))
                self.unasked_bytes.append(len(frame.payload))
        elif frame.opcode == frames.CLOSE:
            code, reason = frames.read_close(frame.payload)
            text = f"the server closed with {code} {reason}".rstrip()
            facts = {"code": code, "reason": reason, **self._life()}
            raise StepFailed(text, f"{text[0].upper()}{text[1:]}.", facts)
        return frame


def refused(attempt: dict[str, Any]) -> str:
    """The errno of a connection attempt, and who said so where that is known."""
    icmp = attempt.get("icmp")
    who = f" (ICMP {icmp['type']}/{icmp['code']} from {icmp['from']})" if icmp else ""
    return f"{attempt['errno']}{who}"


def how_ended(error: BaseException) -> str | None:
    """``fin``, ``rst`` or ``timeout``, when *error* is one of them."""
    if isinstance(error, Ended):
        return "fin"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "rst"
    return "timeout" if isinstance(error, TimeoutError) else None


def date_offset(date: str | None) -> float | None:
    """How many seconds the server's ``Date`` is ahead of the clock here; None without one."""
    try:
        then = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return round(then.timestamp() - time.time(), 1)
