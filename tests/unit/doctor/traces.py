"""Evidence for the tests of the upper layers, built from what a real nginx 1.22 logged.

``captures/nginx.conf`` has one faulty server block per port; the two logs beside it hold what that
nginx wrote when a controller's request came to each. A case is one port's share of them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import crossplane

from ptslink.doctor.collect.nginx_config import read_config
from ptslink.doctor.collect.nginx_log import read_access, read_error
from ptslink.doctor.collect.service import shown_config
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.server.config import parse

CAPTURES = Path(__file__).parent / "captures"
NOW = 1_795_000_000.0
CONTROLLER = "AABBCCDDEEFF001122334455"


def seen(probe: str, vantage: str = "server", went: Status = Status.OK, **facts: Any) -> Evidence:
    """A piece of evidence whose text does not matter."""
    return Evidence(probe, went, f"{probe} as seen", facts, 1.0, vantage)


def case(*evidence: Evidence, target: str = "ws://192.0.2.7:80/ptsWebSocket") -> Case:
    return Case(target, evidence)


@cache
def captured_config() -> dict[str, Any]:
    return read_config(crossplane.parse(str(CAPTURES / "nginx.conf"), combine=True))


@cache
def captured_access() -> tuple[dict[str, Any], ...]:
    text = (CAPTURES / "nginx-access.log").read_text(errors="replace")
    return tuple(read_access(text))


@cache
def captured_error() -> tuple[dict[str, Any], ...]:
    return tuple(read_error((CAPTURES / "nginx-error.log").read_text(errors="replace")))


def config_of(port: int, upstreams: tuple[int, ...] = ()) -> dict[str, Any]:
    """The captured configuration, cut down to the server blocks of some ports."""
    facts = captured_config()
    kept = [
        site
        for site in facts["sites"]
        if any(entry["port"] in (port, *upstreams) for entry in site["listen"])
    ]
    return {**facts, "sites": kept}


def on_port(port: int, line: int = -1, **service: Any) -> list[Evidence]:
    """What nginx wrote of one request to *port*: its *line*-th access line, the events around it,
    and the configuration of that port. Where there is no access line, the events of the port."""
    lines = [entry for entry in captured_access() if entry["port"] == port]
    chosen = [lines[line]] if lines else []
    around = [
        event
        for event in captured_error()
        if (event["port"] == port)
        or any(
            abs(event["time"] - entry["time"]) <= 1.6 and event.get("request") == entry["request"]
            for entry in chosen
        )
    ]
    return [
        seen("nginx.config", **config_of(port)),
        seen("nginx.access", file=["access.log"], lines=chosen),
        seen("nginx.error", file=["error.log"], hidden=False, events=around),
        service_config(**service),
    ]


def service_config(**tables: Any) -> Evidence:
    """``service.config`` with the defaults but for *tables*; the captured backend's port."""
    listen = {"port": 9000, **tables.pop("listen", {})}
    # The captured nginx cuts after 2 s; pings must come before that.
    keepalive = {"ping_interval_seconds": 1.0, **tables.pop("keepalive", {})}
    config = parse({"listen": listen, "keepalive": keepalive, **tables})
    return seen("service.config", file="/etc/ptslink/ptslink.toml", errors=[],
                config=shown_config(config))  # fmt: skip


def attempt(code: str, status: int, at: float = NOW, **more: Any) -> dict[str, Any]:
    """A record of an attempt as our service writes it."""
    return {
        "at": at,
        "controller": CONTROLLER,
        "peer": "198.51.100.20",
        "code": code,
        "status": status,
        "reason": f"{code}.",
        "local_port": 3000,
        "method": "GET",
        "path": "/ptsWebSocket",
        "http": "1.1",
        "headers": [["Host", "192.0.2.7:3000"], ["Upgrade", "websocket"],
                    ["Connection", "Upgrade"], ["X-Pts-Id", CONTROLLER]],
        **more,
    }  # fmt: skip


def link(code: str, seconds: float, at: float = NOW, **more: Any) -> dict[str, Any]:
    """A record of an ended link as our service writes it."""
    return {
        "at": at,
        "controller": CONTROLLER,
        "peer": "198.51.100.20",
        "code": code,
        "seconds": seconds,
        "messages_in": 0,
        "messages_out": 0,
        "closed_by": "transport",
        "close_sent": None,
        "close_rcvd": None,
        "transport": "fin",
        "pings": 0,
        "pongs": 0,
        "types": {},
        **more,
    }


def records(
    attempts: Any = (), links: Any = (), events: Any = (), now: float = NOW + 1.0
) -> Evidence:
    return seen("service.records", attempts=list(attempts), links=list(links), events=list(events),
                now=now, journal="/var/lib/ptslink/journal.db")  # fmt: skip
