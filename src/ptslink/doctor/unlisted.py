"""When no listed cause explains a failing step: the right layer, what was seen, sound advice. Pure.

The advice narrows the search: which vantage point is missing, and what to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ptslink.doctor.cause import Fix, Layer, Match
from ptslink.doctor.evidence import Case, Evidence, Json, Status
from ptslink.doctor.finding import Finding

#: The layer and what was seen are certain, the cause is not.
CONFIDENCE = 0.6

_SERVER = "ptslink doctor --server"


def unlisted(layer: Layer, failed: Evidence, case: Case) -> Finding:
    """The finding that stands in for a cause nobody listed.

    *failed* is the outermost failing step; *case* says what else was looked at.
    """
    title, fix = _ADVICE[layer](failed, case)
    return Finding(
        id=f"unlisted-{layer.value}",
        layer=layer,
        title=title,
        match=Match(CONFIDENCE, tuple(_seen(failed, case))),
        fix=fix,
    )


def _seen(failed: Evidence, case: Case) -> list[str]:
    took = f" ({failed.ms / 1000:.2f} s)" if failed.ms >= 1 else ""
    lines = [f"{failed.probe} from {failed.vantage}: {failed.seen}{took}"]
    lines += [
        f"{piece.probe} from {piece.vantage}: {piece.seen}"
        for piece in case.evidence
        if piece.status is Status.FAILED and piece is not failed
    ][:3]
    before = None
    for piece in case.evidence:
        if piece is failed:
            break
        if piece.vantage == failed.vantage and piece.status is Status.OK:
            before = piece
    if before is not None:
        lines.append(f"The step before it went well: {before.probe}: {before.seen}")
    return lines


def _other_side(case: Case, what: str) -> str:
    """What to look at next, depending on which vantage points are still missing."""
    if "server" not in case.vantages():
        return f"Run the doctor on the server while this is repeated: it tells whether {what}."
    if case.vantages() == ["server"]:
        return "Run `ptslink doctor URL` from the controller's network and join its evidence."
    return "Repeat it from a second network (a phone's hotspot) and compare."


def _told(failed: Evidence, key: str) -> Json:
    """A fact of a failed step; of a captured connection, what its client was told."""
    if failed.probe != "capture.stream":
        return failed.facts.get(key)
    reset = (failed.facts["end"] or {}).get("by") == "server"
    told: dict[str, Json] = {
        "port": failed.facts["server_port"],
        "status": (failed.facts["http"] or {}).get("status"),
        "errno": "ECONNREFUSED" if reset else "ETIMEDOUT",
    }
    return told[key]


def _dns(_failed: Evidence, case: Case) -> tuple[str, Fix]:
    return "The server's name does not resolve here", Fix(
        "Compare the answer with that of another resolver and from another network; until it is "
        "mended a controller can be given the IP address instead of the name.",
        "The name resolves to the server's address within a fraction of a second.",
        command=f"getent ahosts {case.target.partition('://')[2].partition('/')[0]}",
        controller="RemoteServerConfiguration: IpAddress instead of DomainName",
    )


def _route(_failed: Evidence, case: Case) -> tuple[str, Fix]:
    return "No way through the network to the server", Fix(
        "Check address, mask and gateway of this network, then the path hop by hop. "
        + _other_side(case, "anything arrives at all"),
        "The server's address answers from here.",
        command="ip route get SERVER_ADDRESS; tracepath -n SERVER_ADDRESS",
    )


def _tcp(failed: Evidence, case: Case) -> tuple[str, Fix]:
    errno = _told(failed, "errno")
    port = _told(failed, "port") or "of the link"
    if errno == "ETIMEDOUT":
        title = f"Something drops what is sent to port {port}: connecting times out"
        what = "the packets arrive there and which rule drops them, or never arrive"
    elif errno == "ECONNREFUSED":
        title = f"Port {port} is refused at once: no listener, or a rule that rejects"
        what = "something listens on that port and whether a rule or a ban rejects it"
    elif errno in ("EHOSTUNREACH", "ENETUNREACH"):
        title = f"The network says that port {port} of the server cannot be reached"
        what = "its own firewall says so"
    else:
        title = f"No TCP connection to port {port}"
        what = "the attempts arrive"
    return title, Fix(
        _other_side(case, what)
        + " Check that the port the controller dials is the one that is served.",
        f"TCP port {port} accepts a connection from the controller's network.",
        command=_SERVER,
    )


def _tls(_failed: Evidence, case: Case) -> tuple[str, Fix]:
    return "The TLS handshake fails", Fix(
        "Compare what the server offers (versions, suites, certificate chain, names, dates) with "
        "what the controller can do, and look for the handshake in nginx's error log at level "
        "info. " + _other_side(case, "the handshake reaches nginx and how it ends there"),
        "A TLS 1.2 handshake with the server's name completes and the certificate verifies.",
        command="openssl s_client -connect HOST:PORT -servername HOST -tls1_2 </dev/null",
    )


def _http(failed: Evidence, case: Case) -> tuple[str, Fix]:
    status = _told(failed, "status")
    title = (
        f"The upgrade is answered with {status} instead of 101"
        if status is not None
        else "The upgrade to WebSocket gets no answer"
    )
    return title, Fix(
        "See who answered (Server header, body; in nginx's log upstream_status '-' is nginx's own "
        "answer) and what of the request reached it. "
        + _other_side(case, "the request reached nginx and the service"),
        "The upgrade is answered with 101 and the right Sec-WebSocket-Accept.",
        command=_SERVER,
    )


def _ws(_failed: Evidence, case: Case) -> tuple[str, Fix]:
    return "The WebSocket connection is made but does not last", Fix(
        "Look at the close code and reason, who ended it and after how long, and compare the time "
        "with the configured timers. "
        + _other_side(case, "the service closed it and with which code it did"),
        "The connection outlives an idle period and pings are answered.",
        command="ptslink doctor --pattern",
    )


def _proxy(_failed: Evidence, _case: Case) -> tuple[str, Fix]:
    return "nginx in front of the service is not as it should be", Fix(
        "Read the lines above, test the configuration and reload (never restart) once it passes.",
        "nginx -t passes, nginx runs, and the upgrade is answered with 101 on its port.",
        command="nginx -t && systemctl reload nginx",
    )


def _application(_failed: Evidence, _case: Case) -> tuple[str, Fix]:
    return "The ptslink service itself is not well", Fix(
        "Read the service's own journal around the time of the fault.",
        "The unit is active, /ready answers 200, and controllers stay connected.",
        command="journalctl -u ptslink -n 100 --no-pager",
    )


_ADVICE: Mapping[Layer, Callable[[Evidence, Case], tuple[str, Fix]]] = {
    Layer.DNS: _dns,
    Layer.L3: _route,
    Layer.TCP: _tcp,
    Layer.TLS: _tls,
    Layer.PROXY: _proxy,
    Layer.HTTP_UPGRADE: _http,
    Layer.WS_PROTOCOL: _ws,
    Layer.APPLICATION: _application,
}
