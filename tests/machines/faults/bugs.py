"""ptslink with a bug in it: ``bugs.py BUG serve --config FILE``. Runs on the machine.

Each bug replaces one method by what was once written there, here or elsewhere; the rest is the
release that is installed. Run it with ``python -P``: another ptslink lies beside this file.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from ptslink.cli import main
from ptslink.server.app import App
from ptslink.server.registry import Registry
from ptslink.server.uplink import Uplink


def late_cleanup() -> None:
    """A link that ends takes its id out of the registry, whoever has the id by then."""
    forget = Registry.remove

    def remove(self: Registry, session: Any) -> None:
        forget(self, session)
        newer = self._by_id.pop(session.controller, None)
        if newer is not None:
            self._all.pop(newer.peer.number, None)

    Registry.remove = remove  # type: ignore[method-assign]


def unconfirmed() -> None:
    """Records are kept, and nobody is told."""
    Uplink._settled = lambda *_: None  # type: ignore[method-assign]


def fails() -> None:
    """A message trips the handler."""

    def message(*_: Any) -> None:
        raise KeyError("Configuration")

    App.message = message  # type: ignore[method-assign]


def blocks() -> None:
    """A message waits for something outside, and everybody with it."""
    take = App.message

    def message(self: App, peer: Any, payload: bytes, binary: bool) -> None:
        time.sleep(25)
        take(self, peer, payload, binary)

    App.message = message  # type: ignore[method-assign]


BUGS = {"late-cleanup": late_cleanup, "unconfirmed": unconfirmed, "fails": fails, "blocks": blocks}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    main()
