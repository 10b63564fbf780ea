"""What the causes of this layer share: handshakes, offers and certificates of a case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ptslink.doctor.attempts import Attempt, troubles
from ptslink.doctor.evidence import Case, Evidence, Status
from ptslink.doctor.probe.target import is_address

SHAKES = "The TLS handshake of the controller completes."

#: Alerts by which clients refuse a certificate (RFC 8446 6.2).
BAD, EXPIRED, UNKNOWN, NO_ISSUER = 42, 45, 46, 48
REFUSES_CERTIFICATE = (BAD, EXPIRED, UNKNOWN, NO_ISSUER)


def client(case: Case) -> Iterator[Evidence]:
    """The client side's own handshakes: those of the link, not its variations."""
    for piece in case.all("tls.handshake"):
        if not piece.facts.get("variation"):
            yield piece


def client_failed(case: Case) -> Evidence | None:
    return next((p for p in client(case) if p.status is Status.FAILED), None)


def reason(piece: Evidence | None) -> str:
    return str(piece.facts.get("reason") or "").upper().replace(" ", "_") if piece else ""


def offered(case: Case, port: int | None = None) -> dict[str, bool]:
    """Which variants the server accepted, asked from anywhere."""
    found: dict[str, bool] = {}
    for piece in (*case.all("tls.offer"), *case.all("tls.handshake")):
        variant, ok = piece.facts.get("variant"), piece.facts.get("ok")
        if variant is None or ok is None:
            continue
        if port is None or piece.facts.get("port") in (None, port):
            found.setdefault(str(variant), bool(ok))
    return found


def served_certificates(case: Case) -> Iterator[Evidence]:
    """Certificates as served: seen by a client first, then by the server itself."""
    yield from case.all("tls.certificate")
    yield from case.all("tls.served")


def alerts(case: Case, *numbers: int) -> list[Attempt]:
    """Handshakes that a client broke off with one of these alerts, and still does."""
    found = []
    for trouble in troubles(case):
        event = trouble.root.event("tls-alert")
        if event is not None and event.get("alert") in numbers:
            found.append(trouble.root)
    return found


def tls_sites(case: Case) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """nginx's TLS listeners: (site, settings)."""
    for site in case.fact("nginx.config", "sites") or []:
        if any(entry["ssl"] for entry in site["listen"]):
            yield site, site["settings"]


def target_host(case: Case) -> str | None:
    """The host of the URL that was tried, None where no URL was."""
    return urlsplit(case.target).hostname if "://" in case.target else None


def dials_an_address(case: Case) -> bool:
    """Whether the URL that was tried has an address for a host: then no name is sent (SNI)."""
    host = target_host(case)
    return host is not None and is_address(host)
