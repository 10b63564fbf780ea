"""What the rules of this layer share: the fix by provisioning, nginx's configuration, hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ptslink.doctor.attempts import Attempt
from ptslink.doctor.cause import Auto, Fix
from ptslink.doctor.causes.failing import service_config
from ptslink.doctor.collect.nginx_config import location_for, site_for
from ptslink.doctor.commands import PROVISION_NGINX
from ptslink.doctor.evidence import Case, Json
from ptslink.doctor.pattern import link_location
from ptslink.handshake.path import link_path

_WORKS = "The upgrade through nginx is answered with 101, and the link stays."


def nginx_fix(summary: str, expect: str = _WORKS, **more: Any) -> Fix:
    """A fix that provisioning nginx brings, unless *more* says other commands."""
    return Fix(
        summary, expect, more.pop("auto", Auto.YES), more.pop("commands", PROVISION_NGINX), **more
    )


def nginx_config(case: Case) -> Mapping[str, Json]:
    """The facts of ``nginx.config``, or {}."""
    piece = case.first("nginx.config")
    return piece.facts if piece is not None else {}


def direct_only(case: Case) -> bool:
    """Whether nothing shows that the link goes through nginx at all."""
    return not any(True for _ in case.all("nginx.config"))


def host_in(url: str) -> str:
    """The host of a URL or of a Host header, without port and brackets."""
    return re.sub(r":\d+$", "", url.split("://")[-1].split("/")[0]).strip("[]")


def host_of(a: Attempt) -> str:
    """The host that was asked for, or the address where no Host was told."""
    return host_in(a.host or str(a.facts.get("address") or ""))


def own_hosts(case: Case) -> list[str]:
    """The target's host and this machine's addresses."""
    return [host_in(case.target)] + [
        str(entry["address"]) for entry in case.fact("net.addresses", "addresses") or []
    ]


def wrong_site(a: Attempt, case: Case) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The site that answers for the Host sent, and the one that should have, if they differ."""
    config = nginx_config(case)
    if not config or a.port is None or not a.path:
        return None
    got = site_for(config, a.port, a.host or "")
    if got is None:
        return None
    taken = location_for(got, a.path)
    if taken is not None and taken["settings"]["proxy_pass"] and not got["settings"]["return"]:
        return None
    for site in config.get("sites", []):
        if site is got or all(entry["port"] != a.port for entry in site["listen"]):
            continue
        place = location_for(site, a.path)
        if place is not None and place["settings"]["proxy_pass"]:
            return got, site
    return None


def answering(a: Attempt, case: Case) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The site and the location of nginx that take a request, where they are not the link's."""
    config = nginx_config(case)
    if not config or a.port is None or not a.path:
        return None
    # Where no address is told, the host that was dialled is one or not: a name listens nowhere.
    address = str(a.facts.get("address") or host_of(a))
    site = site_for(config, a.port, a.host or "", address)
    place = location_for(site, a.path) if site is not None else None
    own = link_location(case)
    if site is None or place is None or (own is not None and own[1] is place):
        return None
    return site, place


def hung_up(a: Attempt, case: Case) -> bool:
    """Whether a ``return 444`` of the link's own site closed the connection without an answer."""
    site = site_for(nginx_config(case), a.port or 80, a.host or "")
    if a.status != 444 or site is None or not a.path or wrong_site(a, case) is not None:
        return False
    level = location_for(site, a.path) or site
    return any(rule["args"][:1] == ["444"] for rule in level["settings"]["return"])


def returning(case: Case, start: str) -> Iterator[tuple[str, list[str]]]:
    """``return`` lines of nginx's sites whose code starts so: (file and line, arguments)."""
    for site in case.fact("nginx.config", "sites") or []:
        for level in (site, *site["locations"]):
            for rule in level["settings"]["return"]:
                if rule["args"] and rule["args"][0].startswith(start):
                    when = f" if {rule['if']}" if rule["if"] else ""
                    yield f"{site['file']} line {rule['line']}{when}", rule["args"]


def _accepted_paths(case: Case) -> set[str]:
    listen = service_config(case, "listen")
    paths = [listen.get("path", "ptsWebSocket"), *listen.get("alternative_paths", [])]
    return {link_path("/" + str(path)) for path in paths}


def asks_link(a: Attempt, case: Case) -> bool:
    """Whether the path asked for is one the service serves."""
    return a.path is not None and link_path(a.path) in _accepted_paths(case)
