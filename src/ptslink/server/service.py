"""The life of the server process: sockets, readiness, signals, draining."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from ptslink.journal.logfiles import Line, LogFiles
from ptslink.journal.store import ENDED_UNCLEAN
from ptslink.journal.writer import CLOSE_SECONDS, JournalWriter, open_writer
from ptslink.server import systemd
from ptslink.server.admin import AdminApp
from ptslink.server.app import App
from ptslink.server.config import Config, ConfigError, load
from ptslink.server.downlink import Downlink
from ptslink.server.evidence import EvidenceLog
from ptslink.server.front import SCRATCH_BYTES, Front
from ptslink.server.listeners import BACKLOG, Listeners, obtain
from ptslink.server.seam import FrontLimits, Handler
from ptslink.server.stream import Acceptor
from ptslink.server.tls import HANDSHAKE_SECONDS, CertificateError, Certificates, TlsLayer
from ptslink.server.vitals import JOURNAL, LOGS, TIMERS, Vitals
from ptslink.server.wheel import Wheel

#: New objects between two looks of the garbage collector.
GC_THRESHOLD: Final = 20_000
#: Seconds for readers of the journal to end when the server stops.
READERS_SECONDS: Final = 1.0
#: Seconds between two signs of life while the journal is opened, between two lines of the log, and
#: what systemd grants on each sign.
TELL_SECONDS: Final = 1.0
LOG_SECONDS: Final = 10.0
EXTEND_SECONDS: Final = 60.0


def front_limits(config: Config, counters: dict[str, int]) -> FrontLimits:
    """What one connection may take under this configuration."""
    return FrontLimits(
        head_bytes=config.limits.head_bytes,
        head_seconds=config.limits.head_seconds,
        message_bytes=config.limits.message_bytes,
        idle_seconds=config.limits.idle_seconds,
        close_seconds=config.limits.close_seconds,
        ping_interval=config.keepalive.ping_interval_seconds,
        ping_timeout=config.keepalive.ping_timeout_seconds,
        tolerate_rsv1=config.listen.tolerate_rsv1,
        validate_utf8=config.listen.validate_utf8,
        counters=counters,
    )


class Fronts:
    """Makes a `Front` for each accepted connection of one handler."""

    def __init__(
        self,
        handler: Handler,
        limits: FrontLimits,
        wheel: Wheel,
        numbers: itertools.count[int],
        certificates: Certificates | None = None,
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._wheel = wheel
        self._numbers = numbers
        self._certificates = certificates
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._loop = asyncio.get_running_loop()

    def plain(self, local_port: int) -> Front:
        """A plain connection to the port."""
        return Front(
            self._handler,
            self._limits,
            self._wheel,
            self._scratch,
            self._loop,
            next(self._numbers),
            local_port,
        )

    def with_tls(self, local_port: int) -> TlsLayer:
        """A connection under TLS."""
        assert self._certificates is not None
        return TlsLayer(
            self._certificates,
            self.plain(local_port),
            self._handler,
            self._wheel,
            self._scratch,
            HANDSHAKE_SECONDS,
            self._loop,
        )


def _line(message: str) -> Line:
    """A line about the server itself, for when the journal cannot have it."""
    return Line(time.time_ns() // 1_000_000, ("Server",), message)


class _Opening:
    """Tells systemd and the log that the journal is still being opened, as long as it works.

    Args:
        logs: where a line goes now and then.
    """

    def __init__(self, logs: LogFiles) -> None:
        self._logs = logs
        self._told = self._logged = time.monotonic()
        self.over = False

    def working(self, what: str) -> None:
        """It works on this; cheap enough to be called often."""
        now = time.monotonic()
        if self.over or now - self._told < TELL_SECONDS:
            return
        self._told = now
        systemd.notify(
            f"EXTEND_TIMEOUT_USEC={int(EXTEND_SECONDS * 1e6)}\nSTATUS=Opening the journal: {what}"
        )
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            self._logs.put(_line(f"Opening the journal: {what}"))


class Server:
    """A running server; made by `start_server`.

    Attributes:
        port, tls_port, admin_port: where it listens; 0 where it does not.
    """

    def __init__(
        self,
        app: App,
        journal: JournalWriter,
        logs: LogFiles,
        wheel: Wheel,
        certificates: Certificates | None,
    ) -> None:
        self.app = app
        app.vitals = Vitals(
            {
                TIMERS: lambda: wheel.ticked,
                JOURNAL: lambda: journal.ticked,
                LOGS: lambda: logs.ticked,
            }
        )
        self.admin = AdminApp(app, wheel)
        self.port = self.tls_port = self.admin_port = 0
        self._journal = journal
        self._logs = logs
        self._wheel = wheel
        self._certificates = certificates
        self._servers: list[asyncio.Server | Acceptor] = []
        self._admin_servers: list[asyncio.Server] = []

    async def listen(self, listeners: Listeners) -> None:
        """Begin to accept connections."""
        loop = asyncio.get_running_loop()
        numbers = itertools.count(1)
        limits = front_limits(self.app.config, self.app.rsv1)
        fronts = Fronts(self.app, limits, self._wheel, numbers, self._certificates)
        # A back office may take its time over a page of records.
        admins = Fronts(self.admin, FrontLimits(send_seconds=600), self._wheel, numbers)

        self.port, self.tls_port, self.admin_port = listeners.ports()
        # A connection asked for its own port costs a system call each.
        plain, admin = partial(fronts.plain, self.port), partial(admins.plain, self.admin_port)
        for item in listeners.link:
            if isinstance(loop, asyncio.SelectorEventLoop):
                self._servers.append(Acceptor(loop, item, plain))
            else:  # uvloop has fast transports of its own
                self._servers.append(await loop.create_server(plain, sock=item, backlog=BACKLOG))
        for item in listeners.tls:
            layer = partial(fronts.with_tls, self.tls_port)
            self._servers.append(await loop.create_server(layer, sock=item, backlog=BACKLOG))
        for item in listeners.admin:
            self._admin_servers.append(await loop.create_server(admin, sock=item, backlog=BACKLOG))
        if listeners.unix is not None:
            self._admin_servers.append(
                await loop.create_unix_server(
                    partial(admins.plain, 0), sock=listeners.unix, backlog=16
                )
            )

    def reload(self, path: Path) -> None:
        """Take over certificates, allow-list, users and secret from the file (SIGHUP).

        A mistake changes nothing and is logged. Other settings need a restart.
        """
        evidence = self.app.evidence
        try:
            config = load(path)
            if self._certificates is not None:
                self._certificates.reload(config.tls)
        except (ConfigError, CertificateError) as error:
            evidence.event("reload-refused", f"Reload refused, nothing changed: {error}")
            return
        self.app.change_rules(config.rules())
        evidence.event("reloaded", "Certificates, allow-list, users and secret were read again.")

    async def _let_in(self) -> None:
        """Give requests of connections that were just accepted a moment to arrive."""
        for _ in range(20):
            if self.app.admission.open <= len(self.app.registry):
                return
            await asyncio.sleep(0.005)

    async def stop(self) -> bool:
        """Stop accepting, settle what came, close every link with 1012, wait for the peers.

        Returns:
            Whether all ended within its limits; if not, a disk stalls, and a thread waits for it.
        """
        for server in self._servers:
            server.close()
        drained = asyncio.Event()
        self.app.on_empty = drained.set
        links = len(self.app.registry)
        seconds = self.app.config.limits.drain_seconds
        last = asyncio.get_running_loop().time() + seconds
        await self._let_in()
        self.app.hold_all()
        # A disk that stalls may cost the confirmations, not the 1012.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(last - seconds / 2):
                await self._journal.settled()
        self.app.close_all()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(last):
                if len(self.app.registry):
                    await drained.wait()
        left = len(self.app.registry)
        self.app.evidence.event(
            "stopped",
            f"Stopped; {links - left} links were closed with 1012"
            + (f", {left} did not answer it in time." if left else "."),
        )
        for server in self._admin_servers:
            server.close()
        read = await self.admin.close(READERS_SECONDS)
        kept = await self._journal.close()
        if not kept:
            self._logs.put(_line(f"The journal was not closed within {CLOSE_SECONDS:g} seconds"))
        self._wheel.stop()
        await asyncio.to_thread(self._logs.close)
        return read and kept


async def start_server(
    config: Config,
    *,
    inherited: list[tuple[str, socket.socket]] | None = None,
    journal: JournalWriter | None = None,
    out: BinaryIO | None = None,
) -> Server:
    """Open the journal, listen, and serve.

    Args:
        inherited: listening sockets handed over by systemd.
        journal: another journal than the configured one, for tests.
        out: stream for JSON lines.

    Raises:
        CertificateError, ListenError: what it says.
        sqlite3.Error, OSError, JournalRefused: the journal cannot be opened.
    """
    loop = asyncio.get_running_loop()
    certificates = Certificates(config.tls) if config.tls.port else None
    listeners = obtain(config, inherited or [])
    logs = LogFiles(
        config.logs.directory,
        keep_days=config.logs.keep_days,
        keep_bytes=config.logs.keep_megabytes * 1_000_000,
        out=out,
    )
    logs.start()
    opening = _Opening(logs)
    try:
        if journal is None:
            journal = open_writer(
                config.journal.path,
                status_history_seconds=config.journal.status_history_seconds,
                retention=config.retention(),
                waiting_bytes=config.journal.waiting_megabytes * 1_000_000,
                working=opening.working,
            )
    except BaseException:
        listeners.close()
        logs.close()
        raise
    opening.over = True
    evidence = EvidenceLog(journal, logs, short_seconds=config.logs.short_connection_seconds)
    journal.on_health = evidence.health
    journal.start()
    wheel = Wheel(loop)
    wheel.start()
    try:
        app = App(
            config,
            journal,
            evidence=evidence,
            downlink=Downlink(wheel, config.admin.command_seconds, loop.time),
            logs=logs,
            offsets=journal.offsets,
        )
        server = Server(app, journal, logs, wheel, certificates)
        await server.listen(listeners)
    except BaseException:
        # Threads that nobody ends would keep a process alive that serves nobody.
        listeners.close()
        wheel.stop()
        await journal.close()
        await asyncio.to_thread(logs.close)
        raise
    evidence.replaced(journal.health)
    if links := journal.health.unclean:
        evidence.event(
            ENDED_UNCLEAN,
            f"The server before this one ended unclean; {links} links that were open are on record"
            " as ended with it.",
            links=links,
        )
    evidence.event("started", f"Listening on port {server.port}, path /{config.listen.path}.")
    return server


async def run(config: Config, path: Path) -> None:
    """Serve until SIGTERM or SIGINT, then drain. SIGHUP reloads.

    Args:
        path: the configuration file, read again on SIGHUP.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    # A message leaves nothing that refers to itself, and a link is taken apart when it ends, so the
    # collector finds next to nothing however often it looks.
    gc.set_threshold(GC_THRESHOLD)
    server = await start_server(
        config, inherited=systemd.inherited_sockets(), out=sys.stdout.buffer
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def reload() -> None:
        # RELOADING and MONOTONIC_USEC are what Type=notify-reload waits for.
        systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={systemd.monotonic_microseconds()}")
        server.reload(path)
        systemd.notify("READY=1")

    loop.add_signal_handler(signal.SIGHUP, reload)
    watchdog = systemd.Watchdog(
        loop,
        systemd.watchdog_seconds(),
        server.app.vitals,
        partial(server.app.evidence.event, "silence"),
    )
    systemd.notify(f"READY=1\nMAINPID={os.getpid()}")
    watchdog.start()
    await stop.wait()
    # As long as everything that has a limit may take together, and some.
    seconds = config.limits.drain_seconds + READERS_SECONDS + CLOSE_SECONDS + 15
    systemd.notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")
    ended = await server.stop()
    watchdog.stop()
    if not ended:
        # A thread waits for a disk that stalls; the interpreter would wait for the thread.
        sys.stdout.flush()
        os._exit(1)
