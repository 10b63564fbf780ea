"""The edge: sockets, the clock, and one coroutine a controller."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ptslink.doctor.probe.response import NotHttpError, ResponseHead, read_response_head
from ptslink.doctor.probe.stream import error_text
from ptslink.doctor.probe.target import Target
from ptslink.handshake.accept import accept_value
from ptslink.simulator.device import ONCE_KINDS, Device, Message, default_periods
from ptslink.simulator.head import Credentials, Identity, handshake_head, weak_key
from ptslink.simulator.result import ControllerResult, SimulationResult, progress_line
from ptslink.simulator.wire import Wire

#: The longest a session sleeps before it looks whether it was told to stop, in seconds.
LOOK_UP_SECONDS = 1.0
PROGRESS_SECONDS = 5.0
#: How long the server's answer to a close is waited for, in seconds.
CLOSE_SECONDS = 2.0


@dataclass(frozen=True)
class Setup:
    """What is simulated. Seconds and bytes throughout."""

    target: Target
    identities: tuple[Identity, ...]
    #: Connect here instead of resolving the target's host.
    address: str | None = None
    #: One upload of each of ``kinds``, then a close; otherwise a station's ordinary business.
    once: bool = True
    kinds: tuple[str, ...] = ONCE_KINDS
    status_period: float = 1.0
    duration: float | None = None
    #: Bound on connecting, on the handshake, and on the confirmations that are still open.
    timeout: float = 10.0
    #: Silence after which an unconfirmed message is sent again ("Timeout of server response").
    response_seconds: float = 2.0
    ping_period: float = 30.0
    reconnect_seconds: float = 1.0
    #: A message above this goes out in continuation frames.
    fragment_bytes: int = 4096
    #: New controllers switched on in a second.
    ramp: float = 200.0
    seed: str = "0"
    ca: Path | None = None


def new_identities(
    count: int, seed: str, credentials: Credentials | None = None, secret: str | None = None
) -> tuple[Identity, ...]:
    """*count* controllers that follow from *seed*: ids of 24 upper-case hex digits."""
    found = []
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        found.append(
            Identity(
                # A chip's serial number: never all zeros at the front, where probes have theirs.
                controller_id=f"00{rng.randrange(16, 256):02X}{rng.getrandbits(80):020X}",
                configuration_id=f"{rng.getrandbits(32):x}",
                credentials=credentials,
                secret=secret,
            )
        )
    return tuple(found)


def controller_tls(ca: Path | None) -> ssl.SSLContext:
    """TLS as a controller has it: 1.2, certificates not verified unless *ca* is given.

    Raises:
        OSError: *ca* cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(str(ca))
    return context


class LinkFailed(Exception):
    """The connection did not come about, or broke; the text says how."""


@dataclass
class Session:
    """One connection of one controller."""

    setup: Setup
    device: Device
    result: ControllerResult
    rng: random.Random
    stopping: asyncio.Event
    tls: ssl.SSLContext | None
    wire: Wire = field(default_factory=Wire)

    async def run(self) -> None:
        """From connect to close. Raises ``LinkFailed`` unless it ended as agreed."""
        reader, writer = await self._open()
        try:
            rest = await self._handshake(reader, writer)
            self.device.connect(time.monotonic())
            try:
                await self._converse(reader, writer, rest)
            finally:
                self.device.disconnect()
                self.result.ending = self.wire.ending()
        except OSError as error:
            raise LinkFailed(f"the connection broke: {error_text(error)}") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        target, setup = self.setup.target, self.setup
        host = setup.address or target.host
        try:
            async with asyncio.timeout(setup.timeout):
                return await asyncio.open_connection(
                    host,
                    target.port,
                    ssl=self.tls,
                    server_hostname=target.host if self.tls else None,
                )
        except TimeoutError:
            raise LinkFailed(f"connect: no answer within {setup.timeout:g} s") from None
        except OSError as error:
            raise LinkFailed(f"connect: {error_text(error)}") from error

    async def _handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        key = weak_key(self.rng)
        head = handshake_head(
            self.device.identity,
            authority=self.setup.target.authority,
            path=self.setup.target.path,
            own_address=writer.get_extra_info("sockname")[0],
            key=key,
            local_time=self.device.local_time(time.monotonic()),
        )
        writer.write(head.encode())
        self.result.connections += 1
        try:
            async with asyncio.timeout(self.setup.timeout):
                answer = await read_answer(reader)
        except TimeoutError:
            raise LinkFailed(f"handshake: no answer within {self.setup.timeout:g} s") from None
        except NotHttpError as error:
            raise LinkFailed(f"handshake: {error}") from error
        self.result.status = answer.status
        self.result.accept_ok = answer.get("Sec-WebSocket-Accept") == accept_value(key)
        if answer.status != 101:
            raise LinkFailed(f"handshake: {answer.line}")
        if not self.result.accept_ok:
            raise LinkFailed("handshake: wrong Sec-WebSocket-Accept")
        return answer.rest

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: bytes
    ) -> None:
        setup, device, wire = self.setup, self.device, self.wire
        ping_at = time.monotonic() + setup.ping_period
        pinged = False
        give_up_at: float | None = time.monotonic() + setup.timeout if setup.once else None
        close_by = float("inf")
        data: bytes | None = rest
        while True:
            now = time.monotonic()
            if data:
                for received in wire.feed(data):
                    pinged = pinged and received.what != "pong"
                    if received.what == "message":
                        self._send(device.receive(received.data.decode(), now))
                if wire.error:
                    await self._flush(writer)
                    raise LinkFailed(f"the server broke the protocol: {wire.error}")
            if wire.open:
                if self.stopping.is_set() and give_up_at is None:
                    device.stop()
                    give_up_at = now + setup.timeout
                done = give_up_at is not None and (self._settled() or now >= give_up_at)
                if done:
                    wire.close(1000)
                    close_by = now + CLOSE_SECONDS
                else:
                    if now >= ping_at:
                        if pinged:
                            raise LinkFailed(f"no pong within {setup.ping_period:g} s")
                        wire.ping(b"")
                        ping_at, pinged = now + setup.ping_period, True
                    self._send(device.due(now))
            elif now >= close_by:
                if self.wire.ending().clean:
                    self._judge_ending()
                    return  # both close frames are there; only the server's FIN is missing
                raise LinkFailed(f"no answer to the close within {CLOSE_SECONDS:g} s")
            if await self._flush(writer):
                self._judge_ending()
                return
            if not wire.open:
                until = close_by = min(close_by, now + CLOSE_SECONDS)
            else:
                until = min(device.next_time(), ping_at)
                until = until if give_up_at is None else min(until, give_up_at)
            data = await self._wait(reader, until)
            if data == b"":
                wire.feed(b"")
                await self._flush(writer)
                self._judge_ending()
                return

    async def _wait(self, reader: asyncio.StreamReader, until: float) -> bytes | None:
        """Bytes from the server, b"" at its FIN, ``None`` when it is time for something else."""
        delay = min(max(until - time.monotonic(), 0.001), LOOK_UP_SECONDS)
        try:
            async with asyncio.timeout(delay):
                return await reader.read(65536)
        except TimeoutError:
            return None

    async def _flush(self, writer: asyncio.StreamWriter) -> bool:
        """Write what the wire has; whether the conversation is over with it."""
        data, ends = self.wire.to_send()
        if data:
            writer.write(data)
            await writer.drain()
        return ends

    def _send(self, messages: list[Message]) -> None:
        if self.wire.open:
            for message in messages:
                self.wire.send_message(message.text.encode(), self.setup.fragment_bytes)

    def _settled(self) -> bool:
        """Every message was either confirmed or rejected."""
        rejected = self.device.tally.rejected
        return all(kind in rejected for kind in self.device.unconfirmed) or "unknown" in rejected

    def _judge_ending(self) -> None:
        ending = self.wire.ending()
        if ending.sent == 1000 and ending.clean:
            return
        if ending.received is not None:
            words = f"the server closed with {ending.received} {ending.reason}".rstrip()
            raise LinkFailed(words)
        raise LinkFailed("the server ended the connection without a close frame")


async def read_answer(reader: asyncio.StreamReader) -> ResponseHead:
    """The response head; what came behind it is in ``rest``.

    Raises:
        NotHttpError: something else came.
        LinkFailed: the connection ended first.
    """
    data = b""
    while True:
        part = await reader.read(65536)
        if not part:
            began = f" after {len(data)} bytes" if data else " without a word"
            raise LinkFailed(f"handshake: the server ended the connection{began}")
        data += part
        head = read_response_head(data)
        if head is not None:
            return head


class Simulation:
    """All controllers of one run."""

    def __init__(self, setup: Setup, progress: Callable[[str], None] | None = None) -> None:
        """Raises ``OSError`` when the CA file cannot be read."""
        self.setup = setup
        self.progress = progress
        self.stopping = asyncio.Event()
        self.results: list[ControllerResult] = []
        self.devices: list[Device] = []
        self._tls = controller_tls(setup.ca) if setup.target.tls else None

    async def run(self) -> SimulationResult:
        """Simulate until everything is done, the duration is over, or ``stopping`` is set."""
        allow_descriptors(len(self.setup.identities) + 64)
        async with asyncio.TaskGroup() as group:
            told = group.create_task(self._tell())
            controllers = []
            for number, identity in enumerate(self.setup.identities):
                controllers.append(group.create_task(self._controller(number, identity)))
            if self.setup.duration is not None and not self.setup.once:
                timer = group.create_task(self._stop_after(self.setup.duration))
                await asyncio.wait(controllers)
                timer.cancel()
            else:
                await asyncio.wait(controllers)
            told.cancel()
        return SimulationResult(self.setup.target.url, self.setup.seed, tuple(self.results))

    async def _stop_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.stopping.set()

    async def _tell(self) -> None:
        while self.progress is not None:
            await asyncio.sleep(PROGRESS_SECONDS)
            connected = sum(device.connected for device in self.devices)
            self.progress(progress_line(self.results, connected))

    async def _controller(self, number: int, identity: Identity) -> None:
        setup = self.setup
        await asyncio.sleep(number / setup.ramp)
        seed = f"{setup.seed}/{number}"
        device = Device(
            identity,
            seed=seed,
            started=datetime.now(),  # noqa: DTZ005  (a controller knows no zone)
            now=time.monotonic(),
            periods=None if setup.once else default_periods(setup.status_period),
            once=setup.kinds if setup.once else (),
            response_seconds=setup.response_seconds,
        )
        result = ControllerResult(identity.controller_id, device.tally)
        self.devices.append(device)
        self.results.append(result)
        rng = random.Random(seed + "/keys")
        while True:
            session = Session(setup, device, result, rng, self.stopping, self._tls)
            try:
                await session.run()
                result.error = None
            except LinkFailed as failed:
                result.fail(str(failed))
            result.unconfirmed = device.unconfirmed
            if setup.once or self.stopping.is_set():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(setup.reconnect_seconds):
                    await self.stopping.wait()
                    return


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit on open files to *wanted*, as far as the hard one lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        ceiling = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))


def new_seed() -> str:
    """A seed no other run has."""
    return os.urandom(6).hex()


async def simulate(setup: Setup, progress: Callable[[str], None] | None = None) -> SimulationResult:
    """Run *setup* to its end; raises ``OSError`` when the CA file cannot be read."""
    return await Simulation(setup, progress).run()
