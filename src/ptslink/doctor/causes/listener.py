"""Causes at the listener: nobody listens, at another address or port, or takes no connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.reach import Reach, lines, listed, reach_of
from ptslink.doctor.causes.unit import state_lines
from ptslink.doctor.commands import journal, provision
from ptslink.doctor.evidence import Case, Status

#: The service and the proxy, and what starts them.
_UNITS = ("nginx.service", "ptslink.service")


def _service_down(case: Case) -> Match | None:
    reach = reach_of(case)
    if reach.listeners is None:
        return None
    failed = reach.failed("ECONNREFUSED", "ETIMEDOUT")
    if reach.site:
        if failed is None or reach.listening(failed.port, public=False):
            return None
        if reach.nothing_arrived and not reach.is_server(failed.address):
            return None
        unit = reach.unit_for(failed.port)
        if unit is None or unit["active"] == "active":
            return None
        reset = reach.resets(failed.port)
        return Match(
            CERTAIN,
            lines(
                str(failed),
                f"server: nothing listens on port {failed.port}",
                *state_lines(unit),
                f"server: its kernel refused {sum(reset.values())} attempts from {listed(reset)}"
                if reset
                else None,
            ),
            ruled_out=("fw-fail2ban-ban", "fw-reject-other", "tcp-bind-loopback",
                       "tcp-wrong-port", "fw-upstream-drop"),
            fix=_start(str(unit["unit"])),
        )  # fmt: skip
    down = [
        unit
        for name in _UNITS
        if (unit := reach.unit(name)) is not None
        and unit["active"] in ("inactive", "failed")
        and unit.get("enabled") in ("enabled", "disabled")
    ]
    front = reach.unit("nginx.service")
    if not down and (meant := _configured_nowhere(reach, case)) is not None:
        return meant
    if not down or (front is not None and front["active"] == "active"):
        # With nginx answering, a service that is down behind it is the proxy's fault to tell.
        return None
    first = next((unit for unit in down if unit["unit"] == "nginx.service"), down[0])
    return Match(
        STRONG,
        lines(
            *(line for unit in down for line in state_lines(unit)),
            f"server: listening are {_listening(reach)}",
        ),
        ruled_out=("tcp-bind-loopback",),
        fix=_start(str(first["unit"])),
    )


def _configured_nowhere(reach: Reach, case: Case) -> Match | None:
    """Server only: the service is configured, no unit of it is there, and nobody listens."""
    port = ((case.fact("service.config", "config") or {}).get("listen") or {}).get("port")
    asked = any(piece.facts.get("load") == "not-found" for piece in case.all("host.unit"))
    if not asked or case.first("http.upgrade") is not None:
        return None
    served = any(reach.listening(one) for one in reach.link_ports)
    if not port or served or reach.listening(int(port), public=False) or reach.server_has_unit:
        return None
    return Match(
        LIKELY,
        lines(
            f"server: the service is configured for port {port}, and has no unit that is known",
            f"server: listening are {_listening(reach)}",
        ),
        ruled_out=("tcp-bind-loopback",),
        fix=Fix(
            "Provision this server again, or start the service where it runs.",
            "Something listens on the link's port and the controller connects.",
            Auto.ASK,
            commands=provision(),
        ),
    )


def _start(unit: str) -> Fix:
    return Fix(
        f"Start {unit} and have it started at boot; then find out why it stopped.",
        "Something listens on the link's port and the controller connects.",
        Auto.YES,
        commands=(("systemctl", "enable", "--now", unit), journal(unit, lines=50)),
    )


def _listening(reach: Reach) -> str:
    found = [f"{one['address']}:{one['port']}" for one in reach.listeners or ()]
    return listed(found, 6) or "none"


#: Who serves a port of the link; anybody else who answers there is not the service.
_SERVING = (None, "nginx", "ptslink", "systemd")


def _foreign(listener: Mapping[str, Any]) -> bool:
    """Whether a listener is neither nginx nor the service. A socket that systemd opened and handed
    on is said to be init's."""
    return listener.get("process") not in _SERVING and not str(listener.get("unit")).startswith(
        ("nginx.", "ptslink.", "init.scope")
    )


def _port_taken(case: Case) -> Match | None:
    """Another program has a port of the link, and the link does not work there."""
    stopped = case.fact("nginx.process", "running") is False
    own = next((p for p in case.all("link.local") if p.status is Status.FAILED), None)
    if not stopped and (own is None or own.facts.get("hop") != "service"):
        return None
    reach = reach_of(case)
    failed = reach.failed("ECONNREFUSED", "ETIMEDOUT")
    tried = [p for p in case.all("http.upgrade") if p.status is Status.FAILED]
    if own is None and failed is None and not tried:
        return None  # another proxy in nginx's place, and the link works
    ports = {own.facts.get("port")} if own is not None else set()
    ports |= {failed.port} if failed is not None else set()
    if stopped and not ports:
        ports = {next(iter(case.fact("net.listeners", "ports") or ()), 80)}
    units = [reach.unit(name) or {} for name in _UNITS]
    ours = {unit.get("pid") for unit in units} - {None}
    holder = next(
        (
            one
            for one in reach.listeners or ()
            if one["port"] in ports
            and _foreign(one)
            and one.get("pid") not in ours
            # Without a unit Python may be the service, started by hand.
            and not (one["process"].startswith("python") and not one.get("unit") and not stopped)
        ),
        None,
    )
    if holder is None:
        return None
    whose = "ptslink" if own is not None and own.facts.get("hop") == "service" else "nginx"
    pid, unit = str(holder.get("pid") or "PID"), holder.get("unit")
    stop = ("systemctl", "disable", "--now", str(unit)) if unit else ("kill", pid)
    # Where the service was stopped, somebody may have put another server into its place.
    state = (units[1].get("active"), units[1].get("result"))
    meant = whose == "ptslink" and state == ("inactive", "success")
    return Match(
        LIKELY if meant else CERTAIN,
        lines(
            f"{own.probe} from {own.vantage}: {own.seen}" if own is not None else None,
            f"server: port {holder['port']} of {whose} is held by {holder['process']} (pid {pid}"
            + (f", {unit})" if unit else ")"),
            "server: nginx does not run" if stopped else None,
        ),
        ruled_out=("tcp-service-down", "tcp-wrong-port", "hs-bad-accept", "app-no-confirmation"),
        fix=Fix(
            f"Find out what it is and who needs it; give it another port or stop it, then start "
            f"{whose}.",
            f"{whose} listens on port {holder['port']}, and the upgrade is answered with 101.",
            Auto.ASK,
            commands=(("ps", "-fp", pid), stop, ("systemctl", "start", whose)),
        ),
    )


def _bind_loopback(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("ECONNREFUSED")
    if failed is None or reach.listening(failed.port):
        return None
    local = reach.listening(failed.port, public=False)
    # Without a unit it may be the service, started by hand.
    if not local or any(one.get("unit") and _foreign(one) for one in local):
        return None
    return Match(
        CERTAIN,
        lines(
            str(failed),
            f"server: port {failed.port} is served on {listed([one['address'] for one in local])} "
            f"only, by {local[0]['process'] or 'a process not shown'}",
        ),
        ruled_out=("tcp-service-down", "fw-fail2ban-ban", "fw-reject-other", "tcp-wrong-port"),
    )


def _wrong_port(case: Case) -> Match | None:
    reach = reach_of(case)
    failed = reach.failed("ECONNREFUSED", "ETIMEDOUT", "EHOSTUNREACH")
    if failed is None:
        return None
    if reach.listeners is not None:
        if reach.listening(failed.port, public=False) or not reach.link_ports:
            return None
        if reach.astray(failed):
            return None  # it does not even arrive: not the server's port is at fault
        if reach.server_addresses and not reach.is_server(failed.address) and reach.watch is None:
            return None
        down = reach.unit_for(failed.port)
        if down is not None and down["active"] != "active":
            return None
        if reach.dnat(failed.port):
            return None
        # Which ports were looked at, the caller may have said: those tried.
        served = reach.served or [port for port in reach.link_ports if port != failed.port]
        if not served:
            return None
        return Match(
            STRONG,
            lines(
                str(failed),
                f"server: nothing is meant to listen on {failed.port}; the link's ports are "
                f"{listed([str(port) for port in served])}, and they are served",
                reach.arrived(failed.port),
            ),
            ruled_out=("tcp-service-down", "fw-fail2ban-ban", "fw-ufw-drop", "tcp-bind-loopback",
                       "fw-firewalld-reject", "fw-site-egress-block"),
            fix=_use_port(served),
        )  # fmt: skip
    open_ones = reach.open_elsewhere(failed)
    links = reach.upgraded_elsewhere(failed)
    if not links or failed.errno == "ETIMEDOUT":
        # A port that is dropped while others answer may as well be closed on the way.
        return None
    return Match(
        LIKELY,
        lines(str(failed), f"the link answers on {listed([str(port) for port in links])}",
              f"also open: {listed([str(port) for port in open_ones])}" if open_ones else None),
        fix=_use_port(links),
    )  # fmt: skip


def _use_port(ports: list[int]) -> Fix:
    shown = listed([str(port) for port in ports])
    return Fix(
        f"Let the controller dial a port that is served ({shown}), or serve the one it dials.",
        "The controller's next attempt reaches a listener.",
        Auto.ASK,
        controller=f"RemoteServerConfiguration: WebsocketsPort = {ports[0]} (it is separate from "
        "the HTTP Port)",
    )


def _queue_full(case: Case) -> Match | None:
    """Connections that the kernel has made and nobody takes."""
    reach = reach_of(case)
    full = [
        one
        for one in reach.listeners or ()
        if one["port"] in (*reach.link_ports, reach.port)
        and one.get("process") != "systemd"
        and one["queue"] >= one["backlog"] > 0
    ]
    grew = reach.grew("TcpExtListenOverflows") or 0
    if not full or (reach.connected and not grew):
        return None
    return Match(
        STRONG,
        lines(
            *(f"server: port {one['port']} of {one['process']} (pid {one['pid']}): {one['queue']} "
              f"connections wait to be accepted, {one['backlog']} may" for one in full),
            f"server: {grew} connections were dropped for that meanwhile" if grew else None,
        ),
        ruled_out=("l3-packet-loss", "fw-upstream-drop", "tcp-service-down"),
    )  # fmt: skip


CAUSES: tuple[Cause, ...] = (
    Cause(
        "tcp-accept-queue-full",
        Layer.TCP,
        "Connections wait to be accepted: the program that listens does not take them",
        Fix(
            "Look whether it hangs or is stopped (STAT T, D) and what it waits for, then restart "
            "it. Take its stack first: after the restart nobody knows.",
            "Recv-Q of the listener is 0.",
            Auto.ASK,
            commands=(("ss", "-ltnp"), ("ps", "-eo", "pid,stat,wchan:20,etime,args")),
        ),
        _queue_full,
        aftermath=("px-upstream-timeout",),
    ),
    Cause(
        "tcp-port-taken",
        Layer.TCP,
        "Another program has a port of the link",
        Fix("Give that program another port.", "The service listens on its port.", Auto.ASK),
        _port_taken,
        aftermath=("tcp-service-down", "px-upstream-refused", "host-crash-loop"),
    ),
    Cause(
        "tcp-service-down",
        Layer.TCP,
        "Nothing listens on the link's port: the service or nginx is stopped",
        _start("nginx.service"),
        _service_down,
    ),
    Cause(
        "tcp-bind-loopback",
        Layer.TCP,
        "The service listens on the loopback address only, and the controller comes directly",
        Fix(
            "Let the service listen on every address, or let controllers come through nginx.",
            "The port is listed on 0.0.0.0 or the server's address.",
            Auto.YES,
            ansible={"pts_server_listen_addresses": ["0.0.0.0", "::"]},
        ),
        _bind_loopback,
    ),
    Cause(
        "tcp-wrong-port",
        Layer.TCP,
        "The controller dials a port that nobody serves",
        Fix(
            "Let the controller dial the port that is served, or serve the one it dials.",
            "The controller's next attempt reaches a listener.",
            Auto.ASK,
            controller="RemoteServerConfiguration: WebsocketsPort (separate from the HTTP Port)",
        ),
        _wrong_port,
        aftermath=("fw-ufw-drop", "fw-firewalld-reject", "fw-reject-other"),
    ),
)
