"""One row of the matrix: how a cause is injected, from where it is examined, how it is undone."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace

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
    """One injection of one cause, and its healthy twin.

    The twin is the same system, reached the same way, examined from the same places with the same
    options, without the fault: ``setting`` stands for both, ``inject`` is undone by ``undo``.
    """

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
    #: The doctor must stay silent in the row itself, beside a fault of another row.
    healthy: bool = False
    #: The system in which it happens, and how that is cleared away after the twin.
    setting: tuple[Step, ...] = ()
    clear: tuple[Step, ...] = ()
    #: What goes on while the twin is examined. Nothing said: a row that only the server is asked
    #: about has a well-behaved controller, which has to get through by itself.
    twin: tuple[Step, ...] | None = None
    #: How the twin is reached, where the way itself is the fault.
    twin_url: str = ""
    twin_options: tuple[str, ...] | None = None
    #: Which machine it needs: that of most rows, or one with firewalld.
    machine: str = "server"

    @property
    def name(self) -> str:
        return f"{self.id}[{self.variant}]" if self.variant else self.id

    @property
    def idle(self) -> float:
        """Seconds for which the doctor at the site stays connected without a word."""
        told = dict(zip(self.site_options, self.site_options[1:], strict=False))
        return float(told.get("--idle", 0))

    def healthy_twin(self) -> Fault:
        """The row without the fault, to be examined while ``setting`` stands."""
        url = self.twin_url or self.url
        alone = "site" not in self.vantages and "control" not in self.vantages
        steps = self.twin if self.twin is not None else well_behaved(url) if alone else ()
        options = self.site_options if self.twin_options is None else self.twin_options
        return replace(self, inject=steps, url=url, site_options=options, healthy=True)


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


def well_behaved(
    url: str, more: str = "", count: int = 1, seconds: float = 1.5
) -> tuple[Step, ...]:
    """Controllers that do everything right, and are connected and heard before the next step.

    *seconds*: how long they go about their business before somebody looks.
    """
    port = shlex.quote(str(_port(url)))
    return (
        controller(
            f"{{simulate}} {url} -n {count} --status-period 1 --duration 90 {more}", background=True
        ),
        server(
            f"for n in $(seq 75); do [ $(ss -Htn state established sport = :{port} | wc -l) -ge "
            f"{count} ] && exec sleep {seconds}; sleep 0.2; done; "
            "echo no controller got through >&2; exit 1"
        ),
    )


def _port(url: str) -> int:
    """The port of *url*, in which names are not filled in yet."""
    scheme, _, rest = url.partition("://")
    _, colon, port = rest.partition("/")[0].rpartition(":")
    return int(port) if colon else {"ws": 80, "wss": 443}[scheme]


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
