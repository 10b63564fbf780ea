"""What the server shows: read-only collectors, each bounded in time, yielding evidence.

A collector runs a command or reads a file (the thin edge, ``edge.py``) and hands the text to a pure
reader. Without root it says ``skipped`` and why. Each module's docstring names its evidence.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ptslink.doctor.collect.edge import LocalMachine, Machine, Stopwatch
from ptslink.doctor.evidence import Evidence

#: Module -> what is told while it works. The service's tries the link: nginx's logs, read after
#: that, say what became of each try.
_ROOMS = {
    "network": "looking at the network",
    "host": "looking at the host",
    "service": "looking at the service",
    "nginx": "looking at nginx",
    "tls": "looking at certificates",
}


def gather(
    *,
    ports: tuple[int, ...] = (),
    peers: tuple[str, ...] = (),
    watch: float = 0.0,
    until: Path | None = None,
    ask: bool = False,
    say: Callable[[str], None] = lambda _text: None,
    machine: Machine | None = None,
) -> Iterator[Evidence]:
    """Every collector once.

    With *watch*, packets are counted for that many seconds, or until the file *until* is there or
    its directory is gone. With *ask*, connected controllers are asked for their settings.

    The network is looked at before and after the watch, so that counters give a difference; the
    other rooms after it, so that they hold what the attempts left behind.
    """
    from ptslink.doctor.collect import network
    from ptslink.doctor.collect.watch import collect as watch_packets

    local = machine or LocalMachine()
    scope = network.Scope(ports, peers)
    if watch > 0:
        say(f"counting packets for {watch:g} s: try the link now")
        clock = Stopwatch()
        yield from clock.guarded("net.counters", lambda: network.counters(local))
        over = None if until is None else lambda: _over(until)
        for piece in clock.guarded(
            "net.watch", lambda: watch_packets(watch, _watched(local, ports), over)
        ):
            yield piece
            # Those who knocked: rules may be for them alone, and the way back is worth a look.
            scope = network.Scope(ports, tuple(dict.fromkeys((*peers, *knocking(piece)))))
    for name, words in _ROOMS.items():
        say(words)
        yield from _guarded(name, lambda name=name: _collect(name, local, scope, ask))  # type: ignore[misc]


def _watched(machine: Machine, ports: tuple[int, ...]) -> tuple[int, ...]:
    """The ports whose packets are counted: those asked for, else the link's."""
    from ptslink.doctor.collect import network

    listening = network.read_listeners(machine.run("ss", "-H", "-ltnpe").text)
    hidden = not machine.is_root() and network.owners_hidden(listening)
    return ports or network.link_ports(listening, network.configured_ports() if hidden else ())


def gather_records(
    *, say: Callable[[str], None] = lambda _text: None, machine: Machine | None = None
) -> Iterator[Evidence]:
    """What tells of links over time: records and logs, what happened to the host, and the sockets
    of links whose other side is gone."""
    from ptslink.doctor.collect import network

    local = machine or LocalMachine()
    scope = network.Scope()
    say("reading the connection records")
    yield from _guarded("service", lambda: _collect("service", local, scope, False))
    for name in ("nginx", "host"):
        say(_ROOMS[name])
        yield from _guarded(name, lambda name=name: _collect(name, local, scope, False))  # type: ignore[misc]
    yield from _guarded("network", lambda: network.sockets(local, scope))


def _over(until: Path) -> bool:
    """Whether the watch is to end: the file is there, or nobody can put it there any more."""
    return until.exists() or not until.parent.exists()


def knocking(watched: Evidence) -> list[str]:
    """Sources whose attempts on the link's ports were seen, those that were not answered first."""
    ports = {str(port) for port in watched.facts.get("ports", ())}
    answered = watched.facts.get("syn_ack_out", {})

    def left(source: str, row: Mapping[str, Any]) -> bool:
        return any(port in ports and port not in answered.get(source, {}) for port in row)

    came = watched.facts.get("syn_in", {})
    on_ports = [source for source, row in came.items() if ports & {*row}]
    return sorted(on_ports, key=lambda source: not left(source, came[source]))[:8]


def _collect(name: str, machine: Machine, scope: Any, ask: bool) -> Iterable[Evidence]:
    module = importlib.import_module(f"ptslink.doctor.collect.{name}")
    more = {"network": {"scope": scope}, "service": {"ask": ask}}.get(name, {})
    found: Iterable[Evidence] = module.collect(machine, **more)
    return found


def _guarded(name: str, collect: Callable[[], Iterable[Evidence]]) -> Iterator[Evidence]:
    return Stopwatch().guarded(f"{name}.collector", collect)


__all__ = ["LocalMachine", "Machine", "gather", "gather_records"]
