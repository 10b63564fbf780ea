"""Whether a case shows a link at all: a machine that has none is not a healthy one. Pure.

A clock that is right and a disk that has room say nothing of a link. Evidence of one is a try from
a client, a captured connection, a listener on its ports, or something of the service: its unit,
configuration, records, a try at it. nginx counts where it passes the link on, or where its
configuration may not be read.
"""

from __future__ import annotations

from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.pattern import link_location

#: What only the service can show.
_OF_SERVICE = ("service.config", "service.live", "service.records", "link.local", "capture.stream")
#: A client's evidence that is no try: when it tried, and what its machine looks like.
_NO_TRY = ("survey.window", "place.reached", "capture.file")


def unexamined(case: Case) -> str:
    """Why nothing can be said of a link; empty where something can."""
    told = [piece for piece in case.evidence if piece.status in (Status.OK, Status.FAILED)]
    if not told:
        return "No place could look, or none was asked to"
    if any(_shows_link(piece, case) for piece in case.evidence):
        return ""
    captured = case.first("capture.file")
    if captured is not None:
        return f"The capture holds no connection: {captured.seen}"
    missing = ["no service (ptslink.service, its configuration or its records)"]
    looked = case.first("nginx.config") is not None
    missing.append("no nginx that passes one on" if looked else "no nginx")
    if case.first("net.listeners") is not None:
        missing.append("nobody who listens on a port of a link")
    here = f"No link was found on this machine: {', '.join(missing)}"
    return f"{here}. Run it on the server of the link, or name its port: --port N"


def _shows_link(piece: Evidence, case: Case) -> bool:
    facts = piece.facts
    if piece.probe == "host.unit":
        ours = str(facts.get("unit", "")).startswith("ptslink.")
        return ours and facts.get("load") not in (None, "not-found")
    if piece.status not in (Status.OK, Status.FAILED):
        return piece.probe == "service.records" and bool(facts.get("links"))
    if piece.probe == "service.live":
        return facts.get("health") is not None
    if piece.vantage != "server":
        return piece.probe not in _NO_TRY
    if piece.probe in _OF_SERVICE:
        return True
    if piece.probe == "net.listeners":
        return _listens(piece, case)
    if piece.probe == "nginx.config":
        return piece.status is Status.FAILED or link_location(case) is not None
    if piece.probe == "nginx.process":
        # Processes alone may be those of a container.
        active = facts.get("active_state") == "active"
        return active and case.first("nginx.config") is None
    return False


def _listens(piece: Evidence, case: Case) -> bool:
    """Whether somebody listens on the link's ports: nginx only where it may pass a link on."""
    listeners = piece.facts.get("listeners") or ()
    if "ports" not in piece.facts:
        return bool(listeners)
    found = [one for one in listeners if one["port"] in piece.facts["ports"]]
    if case.first("nginx.config") is not None:
        found = [one for one in found if one.get("process") != "nginx"]
    return bool(found)
