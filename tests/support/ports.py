"""A port that is known before anybody listens at it."""

from __future__ import annotations

import random
import socket

#: Below the ports that Linux gives of itself to whoever asks for any (ip_local_port_range begins
#: at 32768): what another test is given meanwhile is none of these.
_FIRST, _BEHIND = 10_000, 32_768
#: Tests set the seed of the common one, which would give two processes the same ports.
_RANDOM = random.SystemRandom()


def free_port() -> int:
    """A TCP port on loopback that nobody has, and that nobody is given by chance."""
    while True:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", _RANDOM.randrange(_FIRST, _BEHIND)))
            except OSError:
                continue
            return int(probe.getsockname()[1])
