"""One connection of one controller, from dialling to parting."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from dataclasses import dataclass, field

from ptslink.doctor.probe.response import NotHttpError, ResponseHead, read_response_head
from ptslink.doctor.probe.stream import error_text
from ptslink.doctor.probe.target import Target
from ptslink.handshake.accept import accept_value
from ptslink.simulator.device import Device, Message
from ptslink.simulator.head import handshake_head, weak_key
from ptslink.simulator.link import Link, TlsLink
from ptslink.simulator.manner import Manner
from ptslink.simulator.packets import CONFIGURATION
from ptslink.simulator.result import ControllerResult
from ptslink.simulator.setup import Setup
from ptslink.simulator.wire import Wire

#: The longest a session sleeps before it looks whether it was told to stop, in seconds.
LOOK_UP_SECONDS = 1.0
#: How long the server's answer to a close, or its FIN behind one, is waited for, in seconds.
CLOSE_SECONDS = 2.0


class LinkFailed(Exception):
    """The connection did not come about, broke, or was left; the text says how."""


@dataclass
class Session:
    """One connection. ``ghosts`` takes links that must stay open to stay silent."""

    setup: Setup
    target: Target
    manner: Manner
    device: Device
    result: ControllerResult
    rng: random.Random
    stopping: asyncio.Event
    tls: ssl.SSLContext | None
    ghosts: list[Link]
    wire: Wire = field(init=False)

    def __post_init__(self) -> None:
        self.wire = Wire(self.manner.mangle)

    async def run(self) -> None:
        """From connect to close. Raises ``LinkFailed`` unless it ended as agreed."""
        link = await self._open()
        try:
            rest = await self._handshake(link)
            self.device.connect(time.monotonic())
            try:
                await self._converse(link, rest)
            finally:
                self.device.disconnect()
                self.result.ending = self.wire.ending()
        except OSError as error:
            raise LinkFailed(f"the connection broke: {error_text(error)}") from error
        finally:
            if link not in self.ghosts:
                await link.close()

    async def _open(self) -> Link:
        target, setup = self.target, self.setup
        host = target.host if self.manner.own_host else setup.address or target.host
        try:
            async with asyncio.timeout(setup.timeout):
                return await self._connect(host)
        except TimeoutError:
            raise LinkFailed(f"connect: no answer within {setup.timeout:g} s") from None
        except OSError as error:
            raise LinkFailed(f"connect: {error_text(error)}") from error

    async def _connect(self, host: str) -> Link:
        streams = await asyncio.open_connection(host, self.target.port)
        if self.tls is None:
            return Link(*streams)
        link = TlsLink(
            *streams,
            self.tls,
            self.target.host if self.manner.sni else None,
            alert=self.manner.tls_alert,
            record_bytes=self.manner.tls_record_bytes,
            record_alert=self.manner.tls_record_alert,
        )
        try:
            await link.handshake()
        except BaseException:
            await link.close()
            raise
        return link

    async def _handshake(self, link: Link) -> bytes:
        """Send the head and read the answer; what came behind it."""
        manner, start = self.manner, time.monotonic()
        key = weak_key(self.rng)
        head = handshake_head(
            self.device.identity,
            authority=self.target.authority,
            path=self.target.path,
            own_address=link.own_address,
            key=key,
            local_time=self.device.local_time(start),
            bends=manner.head,
        )
        data = head.encode()
        sent_key = next((v for n, v in head.headers if n == "Sec-WebSocket-Key"), "")
        self.result.connections += 1
        await link.write(data[: int(len(data) * manner.head_part)])
        if manner.half_close:
            link.half_close()
        try:
            async with asyncio.timeout(self.setup.timeout):
                answer = await self._answer(link, start)
        except TimeoutError:
            raise LinkFailed(f"handshake: no answer within {self.setup.timeout:g} s") from None
        except NotHttpError as error:
            raise LinkFailed(f"handshake: {error}") from error
        accept = answer.get("Sec-WebSocket-Accept")
        if manner.strict_case:
            accept = dict(answer.headers).get("Sec-WebSocket-Accept")
        self.result.status = answer.status
        self.result.accept_ok = accept == accept_value(sent_key)
        if answer.status != 101:
            if manner.waits_after_refusal:
                await self._sit_out(link, answer, start)
            raise LinkFailed(f"handshake: {answer.line}")
        if not self.result.accept_ok:
            raise LinkFailed(f"handshake: Sec-WebSocket-Accept is {accept}")
        if manner.half_close:
            raise LinkFailed("handshake: HTTP 101, but the sending side is closed")
        if manner.prelude is not None:
            await link.write(manner.prelude(data))
        return answer.rest

    async def _answer(self, link: Link, start: float) -> ResponseHead:
        data = b""
        while True:
            part = await link.read()
            if not part:
                began = f"after {len(data)} bytes" if data else "without a word"
                elapsed = time.monotonic() - start
                raise LinkFailed(
                    f"handshake: the server ended the connection {began}, {elapsed:.2f} s"
                )
            data += part
            head = read_response_head(data)
            if head is not None:
                return head

    async def _sit_out(self, link: Link, answer: ResponseHead, start: float) -> None:
        """Wait for the server to end a connection that it refused to upgrade."""
        try:
            async with asyncio.timeout(self.setup.timeout):
                while await link.read():
                    pass
        except TimeoutError:
            pass
        elapsed = time.monotonic() - start
        raise LinkFailed(f"handshake: {answer.line}, connection held for {elapsed:.2f} s")

    async def _converse(self, link: Link, rest: bytes) -> None:
        setup, device, wire, manner = self.setup, self.device, self.wire, self.manner
        start = heard_at = time.monotonic()
        leave_at = start + manner.stay if manner.stay is not None else float("inf")
        ping_at, pinged = start + setup.ping_period, False
        give_up_at = start + setup.timeout if setup.once and manner.stay is None else None
        close_by = float("inf")
        data: bytes | None = rest
        while True:
            now = time.monotonic()
            if data:
                heard_at = now
                for received in wire.feed(data):
                    pinged = pinged and received.what != "pong"
                    if received.what == "message":
                        self._hear(received.data, now)
                if wire.error:
                    if not manner.abrupt:
                        await self._flush(link)
                    raise LinkFailed(f"the server broke the protocol: {wire.error}")
            silent_at = heard_at + manner.silence if manner.silence is not None else float("inf")
            if wire.open:
                if now >= leave_at:
                    self._leave(link)
                if now >= silent_at:
                    raise LinkFailed(f"left: the server was silent for {manner.silence:g} s")
                if self.stopping.is_set() and give_up_at is None:
                    device.stop()
                    give_up_at = now + setup.timeout
                settled = give_up_at is not None and (self._settled() or now >= give_up_at)
                if settled or self._has_other_target():
                    wire.close(1000)
                else:
                    if now >= ping_at:
                        if pinged:
                            raise LinkFailed(f"no pong within {setup.ping_period:g} s")
                        wire.ping(b"")
                        ping_at, pinged = now + setup.ping_period, True
                    self._send(device.due(now))
            elif now >= close_by:
                if wire.ending().clean:
                    self._judge_ending()
                    return  # both close frames are there; only the server's FIN is missing
                raise LinkFailed(f"no answer to the close within {CLOSE_SECONDS:g} s")
            if await self._flush(link):
                self._judge_ending()
                return
            if wire.open:
                until = min(device.next_time(), ping_at, leave_at, silent_at)
                until = until if give_up_at is None else min(until, give_up_at)
            else:
                until = close_by = min(close_by, now + CLOSE_SECONDS)
            data = await self._wait(link, until)
            if data == b"":
                wire.feed(b"")
                await self._flush(link)
                self._judge_ending()
                return

    def _hear(self, data: bytes, now: float) -> None:
        if self.manner.dislike is not None:
            why = self.manner.dislike(data)
            if why is not None:
                raise LinkFailed(f"left: {why}")
        self._send(self.device.receive(data.decode(), now))

    def _has_other_target(self) -> bool:
        """Whether its configuration was taken and names another target than this one."""
        other = self.manner.moves_to
        told = self.device.tally.confirmed[CONFIGURATION] > 0
        return not self.setup.once and other not in (None, self.target.host) and told

    def _leave(self, link: Link) -> None:
        how = self.manner.leave
        if link.leave(how):
            self.ghosts.append(link)
        raise LinkFailed(f"left ({how}) after {self.manner.stay:g} s")

    async def _wait(self, link: Link, until: float) -> bytes | None:
        """Bytes from the server, b"" at its FIN, ``None`` when it is time for something else."""
        delay = min(max(until - time.monotonic(), 0.001), LOOK_UP_SECONDS)
        try:
            async with asyncio.timeout(delay):
                return await link.read()
        except TimeoutError:
            return None

    async def _flush(self, link: Link) -> bool:
        """Write what the wire has; whether the conversation is over with it."""
        data, ends = self.wire.to_send()
        if data:
            await link.write(data)
        return ends

    def _send(self, messages: list[Message]) -> None:
        fragment = None if self.manner.whole else self.setup.fragment_bytes
        for message in messages:
            if message.resent and self.manner.leaves_unconfirmed:
                wait = self.setup.response_seconds
                raise LinkFailed(f"left: {message.kind} was not confirmed within {wait:g} s")
            data = message.text.encode()
            for change in self.manner.content:
                data = change(data)
            if self.wire.open:
                self.wire.send_message(data, fragment)

    def _settled(self) -> bool:
        """Every message was either confirmed or rejected."""
        rejected = self.device.tally.rejected
        return all(kind in rejected for kind in self.device.unconfirmed) or "unknown" in rejected

    def _judge_ending(self) -> None:
        ending = self.wire.ending()
        if ending.sent == 1000 and ending.received in (1000, 1005):
            return
        if ending.sent == 1000 and ending.clean:
            words = f"the server answered our close with {ending.received} {ending.reason}"
            raise LinkFailed(words.rstrip())
        if ending.received is not None:
            words = f"the server closed with {ending.received} {ending.reason}".rstrip()
            raise LinkFailed(words)
        raise LinkFailed("the server ended the connection without a close frame")
