"""One row of the matrix: how a cause is injected, from where it is examined, how it is undone."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Where a command runs:
#: ``server``      inside the machine, past its sshd and firewall
#: ``server-net``  on this computer, in the machine's network namespace
#: ``router`` ``controller``  on this computer, in that namespace
#: ``host``        on this computer
PLACES = ("server", "server-net", "router", "controller", "host")


@dataclass(frozen=True, slots=True)
class Step:
    """A shell line run in one place. ``{server}``, ``{wan}``, ``{lan}``, ``{gateway}``, ``{site}``,
    ``{cable}`` (the machine's end of the bridge), ``{work}`` (a scratch directory of this
    computer) and the other names of :class:`machines.faults.bench.Bench` are filled in."""

    place: str
    line: str
    #: Keeps running until the case is over.
    background: bool = False
    #: Its failure is no failure of the case.
    may_fail: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """One injection of one cause."""

    id: str
    inject: tuple[Step, ...]
    undo: tuple[Step, ...] = ()
    url: str = "ws://{server}/ptsWebSocket"
    #: Which places are asked: ``site``, ``control``, ``server``.
    vantages: tuple[str, ...] = ("site", "server")
    #: Tells several injections of one cause apart.
    variant: str = ""
    #: Extra words for the doctor at the site, and on the server.
    site_options: tuple[str, ...] = ()
    server_options: tuple[str, ...] = ()
    #: Seconds between injecting and examining: what the fault needs to show itself.
    settle: float = 0.0
    #: Run once before the first row that names it, e.g. installing a package.
    needs: tuple[str, ...] = ()
    #: Places where a vantage point stands, when not the usual ones.
    places: dict[str, str] = field(default_factory=dict)
    #: The doctor must stay silent: a healthy twin.
    healthy: bool = False
    #: What has to be found healthy once it is undone, if not the plain link.
    afterwards: Fault | None = None

    @property
    def name(self) -> str:
        return f"{self.id}[{self.variant}]" if self.variant else self.id


def server(line: str, **more: bool) -> Step:
    """A line inside the machine."""
    return Step("server", line, **more)


def router(line: str, **more: bool) -> Step:
    """A line in the site router's namespace."""
    return Step("router", line, **more)


def controller(line: str, **more: bool) -> Step:
    """A line in the controllers' namespace."""
    return Step("controller", line, **more)


def host(line: str, **more: bool) -> Step:
    """A line on this computer."""
    return Step("host", line, **more)


def cable(line: str, **more: bool) -> Step:
    """A line of this computer's tools in the machine's network namespace."""
    return Step("server-net", line, **more)


#: Rules in the site router that a case adds go to this chain and are flushed after it.
ROUTER_CLEAN = router("nft flush chain ip site faults")


def router_rule(rule: str) -> Step:
    """A rule of the site router, before its own."""
    return router(f"nft 'add rule ip site faults {rule}'")


#: Causes that are not injected here, and why.
@dataclass(frozen=True, slots=True)
class NotInjected:
    """A listed cause without a row."""

    id: str
    reason: str
