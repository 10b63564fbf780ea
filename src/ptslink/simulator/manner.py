"""How a controller goes about things. The default is the faithful controller; a deviation bends it.

Everything a deviation can reach is a field here, so that what a misbehaving controller may do
differently can be read in one place, and deviations combine by being applied one after the other.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from ptslink.doctor.probe.frames import Frame, decode_frame
from ptslink.doctor.probe.request import RequestHead
from ptslink.doctor.probe.target import Target
from ptslink.simulator.head import Identity

#: How a device leaves when it does not close in order: a FIN, a RST, nothing at all with later
#: segments answered by RST (it rebooted), nothing at all with nothing answered (it is gone).
Leave = Literal["fin", "rst", "reboot", "ghost"]


@dataclass(frozen=True)
class Manner:
    """Every way in which a controller can differ; seconds and bytes throughout."""

    # Where it dials to.
    #: False: it never dials.
    dials: bool = True
    target: tuple[Callable[[Target], Target], ...] = ()
    #: The target's host was changed, so an ``--address`` no longer counts.
    own_host: bool = False

    #: Fields of its RemoteServerConfiguration that differ, made from the target.
    remote: Callable[[Target], dict[str, Any]] | None = None
    #: Uploads its configuration over the first link, and from then on dials this host.
    moves_to: str | None = None

    # Who it is.
    identities: tuple[Callable[[tuple[Identity, ...]], tuple[Identity, ...]], ...] = ()
    #: What its clock reads when it is switched on; the real local time when ``None``.
    clock: datetime | None = None

    # TLS.
    tls: tuple[Callable[[ssl.SSLContext], None], ...] = ()
    sni: bool = True
    #: Ends the handshake by this fatal alert once the certificate has come.
    tls_alert: int | None = None
    #: Ends the connection at a TLS record above so many bytes ...
    tls_record_bytes: int | None = None
    #: ... and says so by the alert record_overflow.
    tls_record_alert: bool = True

    # The handshake.
    head: tuple[Callable[[RequestHead], RequestHead], ...] = ()
    #: Sends this part of the head, 0 to 1, and then nothing more.
    head_part: float = 1.0
    #: Ends its sending side behind the head.
    half_close: bool = False
    #: Looks for ``Sec-WebSocket-Accept`` in exactly this spelling.
    strict_case: bool = False
    #: Waits for a close after a refusal instead of closing.
    waits_after_refusal: bool = False

    # Frames.
    #: Each returns the bytes to send in a frame's place, or ``None`` to leave it alone.
    frames: tuple[Callable[[Frame], Iterable[bytes] | None], ...] = ()
    #: Sent behind the 101, in place of a first frame; made from the bytes of the head.
    prelude: Callable[[bytes], bytes] | None = None
    #: Messages go out whole, however long.
    whole: bool = False
    #: Goes away without a close frame when it cannot read the server's frames.
    abrupt: bool = False

    # Messages.
    #: Writes packet ids as strings.
    text_ids: bool = False
    content: tuple[Callable[[bytes], bytes], ...] = ()
    #: Why it goes away at a message of the server's, or ``None``.
    dislike: Callable[[bytes], str | None] | None = None
    #: Goes away when an upload was not confirmed in time, instead of sending it again.
    leaves_unconfirmed: bool = False

    # Coming and going.
    #: Goes away when the server was silent for so long.
    silence: float | None = None
    #: Goes away after being connected for so long...
    stay: float | None = None
    #: ... in this way.
    leave: Leave = "fin"
    #: Loses all state with the connection and uploads its configuration first, as after a boot.
    reboots: bool = False
    reconnects: bool = True
    reconnect_seconds: float | None = None

    def but(self, **changes: Any) -> Manner:
        """This manner with *changes*; callables given for a tuple field are added to it."""
        added: dict[str, Any] = {}
        for name, value in changes.items():
            old = getattr(self, name)
            added[name] = (*old, value) if isinstance(old, tuple) else value
        return replace(self, **added)

    @property
    def mangle(self) -> Callable[[bytes], Iterable[bytes]] | None:
        """The rewriting of outgoing frames, for the wire; ``None`` when there is none."""
        return self._rewrite if self.frames else None

    def _rewrite(self, data: bytes) -> Iterable[bytes]:
        found = decode_frame(data)
        if found is None:
            return [data]
        frame = replace(found[0], masked=False)
        for change in self.frames:
            changed = change(frame)
            if changed is not None:
                return changed
        return [data]


FAITHFUL = Manner()
