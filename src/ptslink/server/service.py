"""The life of the server process: sockets, readiness, signals, draining."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
from collections.abc import Callable

from ptslink.journal.writer import JournalWriter, open_writer
from ptslink.server import systemd
from ptslink.server.app import App
from ptslink.server.config import Config
from ptslink.server.front import SCRATCH_BYTES, Front
from ptslink.server.listeners import listen_all
from ptslink.server.seam import FrontLimits, Handler
from ptslink.server.wheel import Wheel


def front_limits(config: Config) -> FrontLimits:
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
    )


class Fronts:
    """Makes a `Front` for each accepted connection of one handler."""

    def __init__(
        self, handler: Handler, limits: FrontLimits, wheel: Wheel, numbers: itertools.count[int]
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._wheel = wheel
        self._numbers = numbers
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> Front:
        return Front(
            self._handler,
            self._limits,
            self._wheel,
            self._scratch,
            self._loop,
            next(self._numbers),
        )


class Server:
    """A running server; made by `start_server`."""

    def __init__(
        self,
        app: App,
        journal: JournalWriter,
        wheel: Wheel,
        servers: list[asyncio.Server],
        port: int,
    ) -> None:
        self.app = app
        self.port = port
        self._journal = journal
        self._wheel = wheel
        self._servers = servers

    async def stop(self) -> None:
        """Stop accepting, settle what came, close every link with 1012, wait for the peers."""
        for server in self._servers:
            server.close()
        drained = asyncio.Event()
        self.app.on_empty = drained.set
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.app.config.limits.drain_seconds):
                self.app.hold_all()
                await self._journal.settled()
                self.app.close_all()
                if len(self.app.registry):
                    await drained.wait()
        await self._journal.close()
        self._wheel.stop()


async def start_server(
    config: Config,
    *,
    inherited: list[tuple[str, socket.socket]] | None = None,
    journal: JournalWriter | None = None,
) -> Server:
    """Open the journal, listen, and serve.

    Raises:
        ListenError: an address cannot be had.
        sqlite3.Error, OSError, ForeignDatabase: the journal cannot be opened.
    """
    loop = asyncio.get_running_loop()
    listeners = [item for _, item in inherited or ()]
    if not listeners:
        listeners = listen_all(config.listen.addresses, config.listen.port)
    if journal is None:
        try:
            journal = open_writer(
                config.journal.path, status_history_seconds=config.journal.status_history_seconds
            )
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
    journal.start()
    wheel = Wheel(loop)
    wheel.start()
    app = App(config, journal)
    fronts = Fronts(app, front_limits(config), wheel, itertools.count(1))
    servers = [await loop.create_server(fronts, sock=item, backlog=1024) for item in listeners]
    return Server(app, journal, wheel, servers, listeners[0].getsockname()[1])


async def run(config: Config, *, ready: Callable[[Server], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await start_server(config, inherited=systemd.inherited_sockets())
    systemd.notify("READY=1")
    if ready is not None:
        ready(server)
    await stop.wait()
    systemd.notify("STOPPING=1")
    await server.stop()
