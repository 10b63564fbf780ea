"""What explains the evidence: a cause is data with a predicate, and never probes."""

from __future__ import annotations

import enum
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ptslink.doctor.commands import Commands
from ptslink.doctor.evidence import Case, Json


class Layer(enum.StrEnum):
    """Where a cause sits, outermost first: the order in which a link is made."""

    DNS = "dns"
    L3 = "l3"
    TCP = "tcp"
    TLS = "tls"
    PROXY = "proxy"
    HTTP_UPGRADE = "http-upgrade"
    WS_PROTOCOL = "ws-protocol"
    APPLICATION = "application"
    HOST = "host-resources"
    CONTROLLER = "controller-config"


class Auto(enum.StrEnum):
    """Whether a fix may be applied unasked."""

    YES = "yes"
    ASK = "ask"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Fix:
    """The one thing to change, and how to know that it helped."""

    #: One sentence for a person.
    summary: str
    #: What will be seen once it is right.
    expect: str
    auto: Auto = Auto.NO
    #: The exact commands, where commands do it; what a person has to do is said in the summary.
    commands: Commands = ()
    #: Ansible variables to set, where provisioning does it.
    ansible: Mapping[str, Json] = field(default_factory=dict)
    #: The field in the controller's own pages, where the controller is to be changed.
    controller: str | None = None

    @property
    def command(self) -> str | None:
        """The commands as a person may enter them, a line each; None where there is none."""
        return "\n".join(map(shlex.join, self.commands)) or None


#: How sure a cause may be; nothing between. The evidence sets it apart from every neighbour that
#: is known, and neither the matrix nor a mutation has shown another one with it:
CERTAIN = 0.97
#: it sets it apart from its neighbours, but for one that nobody could look at.
STRONG = 0.92
#: One observation of several that it takes: a code alone (1006, 1007, 502, 3xx) is never more.
LIKELY = 0.75
#: Shown, and never ahead of what is known.
GUESS = 0.4
WORDS = {CERTAIN: "certain", STRONG: "strong", LIKELY: "likely", GUESS: "a guess"}


@dataclass(frozen=True, slots=True)
class Match:
    """That a cause explains a case."""

    #: One of the above.
    confidence: float
    #: What was seen, a line each, with the figures.
    evidence: tuple[str, ...]
    #: Ids of the neighbours that the evidence excludes.
    ruled_out: tuple[str, ...] = ()
    #: The fix with this case's own names and values, where the cause's general one can be bettered.
    fix: Fix | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """One root cause of a lost or never made link."""

    #: The id of the fault catalogue, e.g. ``px-read-timeout-60``.
    id: str
    layer: Layer
    title: str
    fix: Fix
    #: The predicate. Gets a case, gives a match or None. Pure: no I/O, no clock.
    judge: Callable[[Case], Match | None]
    #: Causes whose signs are only the aftermath of this one: named behind it where both match.
    aftermath: tuple[str, ...] = ()
