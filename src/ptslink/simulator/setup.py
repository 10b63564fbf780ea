"""What is simulated: the settings of one run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from ptslink.doctor.probe.target import Target
from ptslink.simulator.device import ONCE_KINDS
from ptslink.simulator.head import Credentials, Identity
from ptslink.simulator.manner import FAITHFUL, Manner


@dataclass(frozen=True)
class Setup:
    """Seconds and bytes throughout."""

    target: Target
    identities: tuple[Identity, ...]
    manner: Manner = FAITHFUL
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
                # Like a chip's serial number: never all zeros in front, where probes have theirs.
                controller_id=f"00{rng.randrange(16, 256):02X}{rng.getrandbits(80):020X}",
                configuration_id=f"{rng.getrandbits(32):x}",
                credentials=credentials,
                secret=secret,
            )
        )
    return tuple(found)
