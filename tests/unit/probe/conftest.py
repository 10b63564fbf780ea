"""``serve(script)``: a scripted server for the length of a test."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator

import pytest

from unit.probe.scripted import Script, ScriptedServer, right

Serve = Callable[..., ScriptedServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(script)`` starts a server that is stopped after the test."""
    with contextlib.ExitStack() as stack:

        def start(script: Script = right, tls: ssl.SSLContext | None = None) -> ScriptedServer:
            server = ScriptedServer(script, tls)
            stack.callback(server.stop)
            return server

        yield start
