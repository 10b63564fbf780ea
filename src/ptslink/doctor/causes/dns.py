"""Causes between a name and an address."""

from __future__ import annotations

from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.reach import Reach, lines, listed, reach_of
from ptslink.doctor.evidence import Case, Evidence, Status

#: getaddrinfo's way to say that a server answered, and that the name is not there.
_NO_SUCH_NAME = ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
#: ... and that no server gave a usable answer.
_NO_ANSWER = ("EAI_AGAIN", "EAI_FAIL", "EAI_SYSTEM", "ETIMEDOUT")


def _failed(case: Case, errnos: tuple[str, ...]) -> Evidence | None:
    for piece in case.all("dns.resolve"):
        if piece.status is Status.FAILED and piece.facts.get("errno") in errnos:
            return piece
    return None


def _servers(case: Case, vantage: str) -> list[Evidence]:
    """What each name server of the place said of the name, where they were asked one by one."""
    return list(case.all("dns.server", vantage))


def _name_typo(case: Case) -> Match | None:
    piece = _failed(case, _NO_SUCH_NAME)
    if piece is None:
        return None
    host = piece.facts.get("host")
    other = next(
        (
            one
            for one in case.all("dns.resolve")
            if one.status is Status.OK and one.vantage != piece.vantage
        ),
        None,
    )
    if other is not None:
        # The name exists elsewhere: this site's resolver has its own idea of it.
        return None
    return Match(
        STRONG,
        lines(
            f"{piece.vantage}: the resolver says that {host} does not exist "
            f"({piece.facts.get('errno')}), after {piece.ms:.0f} ms: it was reached and answered",
            *(
                f"{piece.vantage}: {one.seen}"
                for one in _servers(case, piece.vantage)
                if one.facts.get("rcode") == "NXDOMAIN"
            ),
        ),
        ruled_out=("dns-resolver-unreachable", "fw-upstream-drop"),
    )


def _resolver_unreachable(case: Case) -> Match | None:
    piece = _failed(case, _NO_ANSWER)
    if piece is None:
        return None
    slow = piece.ms >= 1000
    told = _servers(case, piece.vantage)
    if any(one.facts.get("rcode") in ("SERVFAIL", "REFUSED", "NXDOMAIN") for one in told):
        return None  # it is reached, and says that it cannot or will not
    silent = bool(told) and all(one.facts.get("errno") for one in told)
    return Match(
        CERTAIN if silent else STRONG if slow else LIKELY,
        lines(
            f"{piece.vantage}: resolving {piece.facts.get('host')} gave "
            f"{piece.facts.get('errno')} after {piece.ms / 1000:.2f} s",
            "no resolver answered in that time; a name that does not exist is answered at once"
            if slow
            else "the resolver could not give an answer (no server reached, or it failed)",
            *(f"{piece.vantage}: {one.seen}" for one in told),
        ),
        ruled_out=("dns-name-typo",),
    )


def _stale(case: Case) -> Match | None:
    reach = reach_of(case)
    if not reach.target_is_name:
        return None
    site = case.first("dns.resolve", "site") or case.first("dns.resolve")
    if site is None or site.status is not Status.OK:
        return None
    here = set(site.facts.get("addresses") or ())
    if not here:
        return None
    control = case.first("dns.resolve", "control")
    there = set(control.facts.get("addresses") or ()) if control else set()
    if site.vantage != "control" and there and not here & there and reach.connects_elsewhere:
        return Match(
            CERTAIN,
            lines(
                f"site: {reach.target_host} is {listed(sorted(here))}",
                f"control: the same name is {listed(sorted(there))}, and there the link answers",
            ),
            ruled_out=("nat-forward-wrong-host", "l3-wrong-server-ip", "fw-upstream-drop"),
        )
    if not reach.server_addresses or any(reach.is_server(address) for address in here):
        return None
    if not reach.nothing_arrived:
        return None
    outcome = next((str(one) for one in reach.site), None)
    return Match(
        STRONG,
        lines(
            f"{site.vantage}: {reach.target_host} is {listed(sorted(here))}",
            f"server: its addresses are {listed(sorted(reach.server_addresses))}",
            outcome,
            "server: not one of these attempts reached its network card",
        ),
        ruled_out=(
            "nat-forward-wrong-host",
            "l3-wrong-server-ip",
            "fw-upstream-drop",
            "fw-site-egress-block",
        ),
    )


def _one_family(case: Case) -> Match | None:
    reach = reach_of(case)
    if not reach.target_is_name:
        return None
    bad = {"ECONNREFUSED", "ETIMEDOUT", "EHOSTUNREACH"}
    for broken, good in (("ipv6", "ipv4"), ("ipv4", "ipv6")):
        fails = [one for one in reach.site if one.family == broken and one.errno in bad]
        works = [one for one in reach.site if one.family == good and one.errno is None]
        if (
            fails
            and works
            and not any(one.errno is None for one in reach.site if one.family == broken)
        ):
            served = _families_served(reach, fails[0].port)
            return Match(
                CERTAIN if served is not None and broken not in served else STRONG,
                lines(
                    str(fails[0]),
                    str(works[0]),
                    f"server: port {fails[0].port} is served on {', '.join(sorted(served))} only"
                    if served is not None and broken not in served
                    else None,
                    "a controller takes the first address it gets and does not try the other",
                ),
                ruled_out=("tcp-service-down", "fw-ufw-drop", "l3-packet-loss"),
            )
    only = {one.family for one in reach.site}
    first = next(iter(reach.site), None)
    if only == {"ipv6"} and first is not None and first.errno is not None:
        served = _families_served(reach, first.port)
        no_way = first.errno == "ENETUNREACH"
        if (served is not None and "ipv6" not in served) or no_way:
            return Match(
                STRONG,
                lines(
                    f"{reach.target_host} has only IPv6 addresses",
                    str(first),
                    "this network has no IPv6" if no_way else "server: no IPv6 listener there",
                ),
                ruled_out=("tcp-service-down", "l3-device-no-default-route"),
            )
    return None


def _families_served(reach: Reach, port: int) -> set[str] | None:
    if reach.listeners is None:
        return None
    served: set[str] = set()
    for one in reach.listening(port):
        served |= {"ipv4", "ipv6"} if one["family"] == "both" else {str(one["family"])}
    return served


CAUSES: tuple[Cause, ...] = (
    Cause(
        "dns-name-typo",
        Layer.DNS,
        "The server's name does not exist: a typing mistake or a missing record",
        Fix(
            "Correct the name in the controller, or create the record at whoever runs the domain; "
            "the IP address works meanwhile.",
            "The name resolves from the site and the controller connects within its reconnect "
            "period.",
            Auto.NO,
            controller="RemoteServerConfiguration: DomainName (30 characters at most), or "
            "IpAddress with DomainName empty",
        ),
        _name_typo,
    ),
    Cause(
        "dns-resolver-unreachable",
        Layer.DNS,
        "The site's name server cannot be reached or gives no answer",
        Fix(
            "Give the controller name servers that answer (the router's, or a public pair), or "
            "let it dial the IP address; see that UDP port 53 may leave the site.",
            "Resolving takes well under a second.",
            Auto.NO,
            controller="Network settings: Dns1 and Dns2; or RemoteServerConfiguration: IpAddress",
        ),
        _resolver_unreachable,
    ),
    Cause(
        "dns-stale-or-wrong-ip",
        Layer.DNS,
        "The name leads to another machine: an old or wrong address record",
        Fix(
            "Correct the A/AAAA record (and any second view of the zone inside the site), then "
            "restart the controller: many keep an answer for ever.",
            "The name resolves to the server's address at the site, and the server sees the SYN.",
            Auto.NO,
        ),
        _stale,
        aftermath=("nat-forward-wrong-host", "tls-name-mismatch", "px-location-404"),
    ),
    Cause(
        "dns-aaaa-only-or-v6-first",
        Layer.DNS,
        "The name has an address of a family that is not served",
        Fix(
            "Serve both families (nginx listens on [::] and the firewall lets IPv6 in), or take "
            "the record of the unserved family away.",
            "Each address of the name answers on the link's port.",
            Auto.YES,
            ansible={"nginx_proxy_ipv6": True},
        ),
        _one_family,
        aftermath=("tcp-service-down", "fw-ufw-drop", "fw-reject-other", "fw-upstream-drop"),
    ),
)
