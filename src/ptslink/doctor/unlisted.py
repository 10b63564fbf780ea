"""When no listed cause explains a failing step: the right layer, what was seen, sound advice. Pure.

The step that failed gives the layer first. What the server saw of the same link, and its own tries
hop by hop, narrow it down: what fails on the server as well is nobody's network, what the service
answers well when it is asked directly is broken before it. Where no place has looked that could
tell, the advice says which one to look from next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ptslink.doctor.admission import is_host, is_port
from ptslink.doctor.attempts import attempts
from ptslink.doctor.cause import LIKELY, Auto, Fix, Layer, Match
from ptslink.doctor.collect.nginx_config import location_for, site_for
from ptslink.doctor.commands import PROVISION_NGINX, RELOAD, Commands, journal
from ptslink.doctor.evidence import Case, Evidence, Json, Status
from ptslink.doctor.finding import Finding
from ptslink.doctor.pattern import link_location

#: The layer and what was seen are certain, the cause is not.
CONFIDENCE = LIKELY

_SERVER: Commands = (("sudo", "ptslink", "doctor", "--server"),)
_RECORDS: Commands = (("ptslink", "doctor", "--pattern"),)
_WORKS = "The upgrade is answered with 101, and pings are answered on the link."
#: Layers in which what the server's own tries show says more than the step that failed.
_NARROWED = (Layer.PROXY, Layer.HTTP_UPGRADE, Layer.WS_PROTOCOL, Layer.APPLICATION)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the link breaks, as far as the server's own view tells."""

    layer: Layer
    title: str
    fix: Fix
    #: What was seen that says so.
    seen: tuple[str, ...]


def unlisted(layer: Layer, failed: Evidence, case: Case) -> Finding:
    """The finding that stands in for a cause nobody listed.

    *failed* is the outermost failing step; *case* says what else was looked at.
    """
    place = _narrowed(failed, case) if layer in _NARROWED else None
    if place is None:
        title, fix = _ADVICE[layer](failed, case)
        place = Place(layer, title, fix, ())
    return Finding(
        id=f"unlisted-{place.layer.value}",
        layer=place.layer,
        title=place.title,
        match=Match(CONFIDENCE, tuple(_seen(failed, case, place))),
        fix=place.fix,
    )


# --- What was seen -----------------------------------------------------------------------------


def _seen(failed: Evidence, case: Case, place: Place) -> Iterator[str]:
    took = f" ({failed.ms / 1000:.1f} s)" if failed.ms >= 1000 else ""
    yield f"{failed.probe} from {failed.vantage}: {failed.seen}{took}"
    yield from (line for line in place.seen if line != failed.seen)
    yield from _answerer(failed)
    said = " ".join((failed.seen, *place.seen))
    others = [
        f"{piece.probe} from {piece.vantage}: {piece.seen}"
        for piece in case.evidence
        if piece.status is Status.FAILED
        and piece.seen not in said
        and not piece.facts.get("variation")
    ]
    yield from dict.fromkeys(others[:3])
    passing = [
        str(piece.facts.get("tried"))
        for piece in case.all("http.upgrade", failed.vantage)
        if piece.facts.get("variation") and piece.facts.get("status") == 101
    ]
    if passing and failed.probe == "http.upgrade":
        yield f"The same request is answered with 101 when changed so: {', '.join(passing)}"
    for piece in case.all("route.trace", failed.vantage):
        yield f"The way {piece.seen}"
    for piece in case.all("tcp.packets", failed.vantage):
        yield f"At the network card {piece.seen}"
    yield from dict.fromkeys(_logged(failed, case))
    before = None
    for piece in case.evidence:
        if piece is failed:
            break
        fine = piece.status is Status.OK and not piece.facts.get("variation")
        if piece.vantage == failed.vantage and fine:
            before = piece
    if before is not None:
        yield f"The step before it went well: {before.probe}: {before.seen}"


#: What nginx says when nothing is wrong.
_ROUTINE = ("reloading", "stopping", "started", "worker-leaving")


def _logged(failed: Evidence, case: Case) -> Iterator[str]:
    """What the logs say of the failing request; where none of them names it, their newest words."""
    who = failed.facts.get("controller_id") or failed.facts.get("controller")
    own = [a for a in attempts(case) if who and a.controller == who and a.source in _TRACES]
    told = [f"nginx's log: {event['text']}" for a in own[-3:] for event in a.events]
    told += [f"the service's record: {a.reason}" for a in own[-3:] if a.reason]
    if not told:
        since = float(case.fact("nginx.process", "reloaded") or 0.0)  # before, it was another one
        events = [
            event
            for piece in case.all("nginx.error")
            for event in piece.facts["events"]
            if event["kind"] not in _ROUTINE and event["time"] >= since - 1.0
        ]
        told = [f"nginx's log, the newest: {event['text']}" for event in events[-2:]]
    yield from told
    for piece in case.all("service.log"):
        yield from (f"the service's log: {event['text'][:160]}"
                    for event in piece.facts["events"][-1:])  # fmt: skip


#: Where a request leaves traces on the server.
_TRACES = ("nginx", "service")


def _answerer(failed: Evidence) -> Iterator[str]:
    """Who an answer in HTTP says it is from, and its first words."""
    headers = {str(k).lower(): v for k, v in (failed.facts.get("headers") or {}).items()}
    told = [f"{name}: {headers[name.lower()]}" for name in ("Server", "Via", "Location")
            if headers.get(name.lower())]  # fmt: skip
    body = " ".join(str(failed.facts.get("body") or "").split())
    if told or body:
        words = f'; it says: "{body[:100]}"' if body else ""
        yield f"The answer names {', '.join(told) or 'no server'}{words}"


def _other_side(case: Case, what: str) -> str:
    """What to look at next, depending on which vantage points are still missing."""
    if "server" not in case.vantages():
        return f"Run the doctor on the server while this is repeated: it tells whether {what}."
    if case.vantages() == ["server"]:
        return "Run `ptslink doctor URL` from the controller's network and join its evidence."
    return "Repeat it from a second network (a phone's hotspot) and compare."


def _next(case: Case) -> Commands:
    """The command for the place that has not looked yet."""
    return _SERVER if "server" not in case.vantages() else ()


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
    return told.get(key)


# --- Where it breaks, by what the server saw ---------------------------------------------------


def _narrowed(failed: Evidence, case: Case) -> Place | None:
    tries = {hop: [p for p in case.all("link.local") if p.facts.get("hop") == hop]
             for hop in ("service", "nginx")}  # fmt: skip
    broken = {hop: [p for p in found if p.status is Status.FAILED] for hop, found in tries.items()}
    if broken["service"]:
        return _in_service(broken["service"][0])
    if broken["nginx"] and tries["service"]:
        own = broken["nginx"][0]
        return _in_firewall(own, case) or _in_nginx(own, tries["service"][0], case)
    if tries["nginx"] and failed.vantage in ("site", "control"):
        return _in_firewall(failed, case) or _on_the_way(failed, tries["nginx"][0], case)
    return None


def _in_service(own: Evidence) -> Place:
    return Place(
        Layer.APPLICATION,
        "The service does not make the link, even when asked on the server itself",
        Fix(
            "The network and nginx are not to blame. Read the service's journal around this "
            "time; if it hangs, keep what the second command prints before it is restarted.",
            _WORKS,
            commands=(journal("ptslink"), ("systemctl", "status", "ptslink")),
        ),
        (f"asked directly, without nginx: {own.seen}",),
    )


def _in_nginx(own: Evidence, service: Evidence, case: Case) -> Place:
    facts, port = own.facts, own.facts.get("port")
    status = facts.get("status")
    what = f"answers {status}" if status not in (None, 101) else "does not make the link"
    seen = [f"asked on the server itself: {own.seen}",
            f"the service behind it, asked directly: {service.seen}"]  # fmt: skip
    seen += _directives(own, case)
    if facts.get("ended") == "timeout":
        return Place(
            Layer.PROXY,
            f"nginx takes connections on port {port} and does not answer",
            Fix(
                "Look whether its workers are stopped (T), stuck (D) or busy (R), and what the "
                "error log says last. A restart cuts every link that nginx holds.",
                _WORKS,
                Auto.ASK,
                commands=(
                    ("ps", "-C", "nginx", "-o", "pid,stat,wchan:20,etime,args"),
                    ("tail", "-n", "20", "/var/log/nginx/error.log"),
                ),
            ),
            tuple(seen),
        )
    return Place(
        Layer.PROXY,
        f"nginx on port {port} {what}; the service behind it works",
        Fix(
            "Something in nginx's configuration does it (lines above, or: nginx -T). "
            "Provisioning writes the site of the link anew and leaves other files alone.",
            _WORKS,
            Auto.ASK,
            commands=PROVISION_NGINX,
        ),
        tuple(seen),
    )


def _directives(own: Evidence, case: Case) -> list[str]:
    """Which site of nginx answered, where the link goes, and what is told to answer by itself."""
    facts, config = own.facts, case.first("nginx.config")
    lines = []
    levels: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    if config is not None and facts.get("port"):
        address = str(facts.get("address") or "")
        host = str(facts.get("host") or address)
        site = site_for(config.facts, int(facts["port"]), host, address)
        if site is not None:
            place = location_for(site, str(facts.get("path") or "/"))
            lines.append(f"{site['file']} line {site['line']} answers there")
            levels.append((site, place or site))
    found = link_location(case)
    if found is None:
        lines.append("no location of nginx passes the link's path on to the service")
    elif not any(site is found[0] for site, _ in levels):
        lines.append(f"the link's location is in {found[0]['file']} line {found[1]['line']}")
        levels.append(found)
    lines += [
        f"{site['file']} line {rule['line']}: return {' '.join(rule['args'])}"
        + (f", if {rule['if']}" if rule["if"] else "")
        for site, level in levels
        for rule in level["settings"].get("return") or ()
    ]
    return lines


def _in_firewall(failed: Evidence, case: Case) -> Place | None:
    """A rule that takes some packets of a connection that was let in."""
    if failed.facts.get("ended") not in ("rst", "timeout"):
        return None
    port = failed.facts.get("port") or _told(failed, "port")
    rules = sorted(
        {
            rule
            for piece in case.all("net.firewall")
            if piece.facts.get("family") == "ipv4" and port in (None, piece.facts.get("port"))
            for rule in piece.facts.get("maybe") or ()
        }
    )
    if not rules:
        return None
    return Place(
        Layer.TCP,
        f"Connections to port {port} are cut, and a firewall rule takes some of their packets",
        Fix(
            "Look at the rule: who put it there, what for, and whether its counter moves while "
            "the link is tried. Without it, or with an exception for the link's port, try again.",
            _WORKS,
            Auto.ASK,
            commands=(("nft", "-a", "list", "ruleset"), ("iptables-save", "-c")),
        ),
        tuple(f"net.firewall from server: may apply: {rule}" for rule in rules[:3]),
    )


def _on_the_way(failed: Evidence, own: Evidence, case: Case) -> Place:
    """The server is well by its own tries: what of this very request did it see?"""
    layer = Layer.HTTP_UPGRADE if failed.probe.startswith("http") else Layer.WS_PROTOCOL
    probe = next((p.facts.get("controller_id") for p in case.all("http.upgrade", failed.vantage)),
                 None)  # fmt: skip
    traces = [a for a in attempts(case) if probe and a.controller == probe]
    traces = [a for a in traces if a.source in _TRACES]
    seen = [f"asked on the server itself: {own.seen}"]
    if not traces and failed.facts.get("ended") == "timeout":
        return Place(
            Layer.L3,
            f"{failed.vantage} connects, and what it sends then does not arrive",
            Fix(
                "Packets of some size or kind are lost between there and the server: look at the "
                "MTU of every interface on the way (`ip link`), then at filters and tunnels.",
                _WORKS,
                commands=(("ip", "link"), ("tracepath", "-n", _host(case))),
            ),
            (*seen, "the connection is made; neither nginx nor the service has its request"),
        )
    if not traces:
        return Place(
            layer,
            f"Something else answers {failed.vantage}: the server works and saw nothing of it",
            Fix(
                "Compare the address that is dialled with the server's own; then look for a port "
                "forward to another machine, a proxy or a portal in between. Another port, or "
                "wss, often gets past a proxy.",
                _WORKS,
                controller="RemoteServerConfiguration: IpAddress or DomainName, WebsocketsPort",
            ),
            (*seen, "neither nginx nor the service has this request on record"),
        )
    return Place(
        layer,
        "The server makes this link, and something on the way breaks it",
        Fix(
            "A proxy, a filter or a security appliance between the site and the server changes "
            "what passes. Try another port or wss, which it cannot read, and " +
            _other_side(case, "it is the same there").lower(),
            _WORKS,
        ),
        (*seen, *(f"of this very request the server has: {a.shown()}" for a in traces[:2])),
    )  # fmt: skip


def _host(case: Case) -> str:
    """The host that was tried, fit for a command."""
    try:
        target = case.target if "://" in case.target else f"//{case.target}"
        host = urlsplit(target).hostname or ""
    except ValueError:
        host = ""
    return host if is_host(host) else "HOST"


# --- By the step alone -------------------------------------------------------------------------


def _dns(_failed: Evidence, case: Case) -> tuple[str, Fix]:
    said = [p for p in case.all("dns.server") if p.facts.get("rcode") not in (None, "NOERROR")]
    name = _host(case)
    if said:
        word, server = said[0].facts["rcode"], str(said[0].facts["server"])
        return f"The name server answers {word} for the server's name", Fix(
            f"{server} is reached and says {word}: SERVFAIL means that the domain's own name "
            "servers fail or its signatures (DNSSEC) are broken, REFUSED that this name server "
            "is not for this network. Ask whoever runs the domain, or the name server; until it "
            "is mended a controller can be given the IP address.",
            "The name resolves to the server's address within a fraction of a second.",
            commands=(("dig", name, f"@{server}"), ("dig", name, "@9.9.9.9")),
            controller="RemoteServerConfiguration: IpAddress instead of DomainName",
        )
    return "The server's name does not resolve here", Fix(
        "Compare the answer with that of another resolver and from another network; until it is "
        "mended a controller can be given the IP address instead of the name.",
        "The name resolves to the server's address within a fraction of a second.",
        commands=(("getent", "ahosts", name),),
        controller="RemoteServerConfiguration: IpAddress instead of DomainName",
    )


def _route(_failed: Evidence, case: Case) -> tuple[str, Fix]:
    return "No way through the network to the server", Fix(
        "Check address, mask and gateway of this network, then the path hop by hop. "
        + _other_side(case, "anything arrives at all"),
        "The server's address answers from here.",
        commands=(
            ("ip", "route", "get", "SERVER_ADDRESS"),
            ("tracepath", "-n", "SERVER_ADDRESS"),
        ),
    )


def _tcp(failed: Evidence, case: Case) -> tuple[str, Fix]:
    errno = _told(failed, "errno")
    port = _told(failed, "port") or "of the link"
    icmp: Mapping[str, Any] = _told(failed, "icmp") or {}
    if icmp and icmp["from"] != _told(failed, "address"):
        title = f"{icmp['from']}, a machine on the way, refuses what is sent to port {port}"
        what = f"anything arrives there past {icmp['from']}"
    elif icmp:
        title = f"The server's firewall rejects what is sent to port {port}"
        what = "which of its rules rejects it"
    elif errno == "ETIMEDOUT":
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
        commands=_next(case),
    )


def _tls(failed: Evidence, case: Case) -> tuple[str, Fix]:
    port, host = _told(failed, "port"), _host(case)
    named = f"[{host}]" if ":" in host else host
    where = f"{named}:{port if is_port(port) else 443}"
    return "The TLS handshake fails", Fix(
        "Compare what the server offers (versions, suites, certificate chain, names, dates) with "
        "what the controller can do, and look for the handshake in nginx's error log at level "
        "info. " + _other_side(case, "the handshake reaches nginx and how it ends there"),
        "A TLS 1.2 handshake with the server's name completes and the certificate verifies.",
        commands=(("openssl", "s_client", "-connect", where, "-servername", host, "-tls1_2"),),
    )


def _http(failed: Evidence, case: Case) -> tuple[str, Fix]:
    status, port = _told(failed, "status"), _told(failed, "port") or "of the link"
    look = _other_side(case, "the request reached nginx and the service, and who answered it")
    if status is not None:
        return f"The upgrade is answered with {status} instead of 101", Fix(
            "See who answered (Server and Via headers, the words of the body): nginx, the "
            "service, or somebody between. " + look,
            "The upgrade is answered with 101 and the right Sec-WebSocket-Accept.",
            commands=_next(case),
        )
    if failed.facts.get("first_bytes"):
        return f"What answers on port {port} does not speak HTTP", Fix(
            "Another program listens there, or the port forward leads to another machine. On "
            "the server see what has the port. " + look,
            "The upgrade is answered with 101 and the right Sec-WebSocket-Accept.",
            commands=(("ss", "-ltnp", *([f"sport = :{port}"] if is_port(port) else [])),),
        )
    ended = _told(failed, "ended")
    title = {
        "timeout": "The connection is taken, and the upgrade gets no answer",
        "rst": "The connection is reset when the upgrade is sent",
        "fin": "The connection is closed without a word when the upgrade is sent",
    }.get(str(ended), "The upgrade to WebSocket gets no answer")
    why = {
        "timeout": "Who took it hangs, or a firewall on the way takes what follows the first "
        "packets. ",
        "rst": "A filter that reads the request, or a program that dies of it. ",
        "fin": "A rule that refuses without an answer (another site of nginx, a filter), or a "
        "program that is no web server. ",
    }.get(str(ended), "")
    return title, Fix(
        why + look,
        "The upgrade is answered with 101 and the right Sec-WebSocket-Accept.",
        commands=_next(case),
    )


def _ws(failed: Evidence, case: Case) -> tuple[str, Fix]:
    if failed.probe.startswith("pattern."):
        return _loop(failed, case)
    after = failed.facts.get("after_seconds")
    when = f" after {float(after):.1f} s" if after is not None else ""
    code, reason = failed.facts.get("code"), str(failed.facts.get("reason") or "")
    look = _other_side(case, "the service ended it, and with which code and words")
    if code is not None:
        said = f" {reason!r}" if reason else ""
        return f"The server closes the link{when} with {code}{said}", Fix(
            "Those are its own words: look for them in the program that answers there, its "
            "configuration and its log. " + look,
            _WORKS,
            commands=_next(case) or _RECORDS,
        )
    how = {
        "rst": f"The link is made and then reset{when}",
        "fin": f"The link is made and then ended{when} without a closing frame",
        "timeout": f"The link is made, and then nothing passes any more{when}",
    }.get(str(failed.facts.get("ended")), "The WebSocket connection is made but does not last")
    return how, Fix(
        "Compare the time with the configured timers, and find out who ends it: the service, "
        "nginx, or a firewall or proxy on the way. " + look,
        "The connection outlives an idle period and pings are answered.",
        commands=_next(case) or _RECORDS,
    )


def _loop(failed: Evidence, case: Case) -> tuple[str, Fix]:
    """A controller whose links end again and again, by the records alone."""
    facts = failed.facts
    who, same = facts.get("controller"), facts.get("seconds")
    age = f" after {same:.1f} s each time" if same is not None else ""
    marks = facts.get("fingerprints") or ()
    timer = f"That is the mark of {', '.join(marks)}. " if marks else ""
    ender = {"peer": "The controller ends it. ", "server": "The service ends it. "}.get(
        str(facts.get("closed_by")), "Neither side says good-bye: the way between is cut. "
    )
    return f"Controller {who} loses its link{age} and comes back, over and over", Fix(
        timer + ender + "Take its packets for some minutes and read them. "
        + _other_side(case, "the site sees the same"),
        "The controller's link lasts; no new end of it is on record.",
        commands=(("ansible-playbook", "-i", "INVENTORY", "playbooks/capture.yml"),),
    )  # fmt: skip


def _proxy(failed: Evidence, _case: Case) -> tuple[str, Fix]:
    if failed.facts.get("running") is False:
        return "nginx does not run", Fix(
            "Start it; if it does not stay, its journal says why.",
            "nginx runs, and the upgrade is answered with 101 on its port.",
            Auto.ASK,
            commands=(("systemctl", "enable", "--now", "nginx"), journal("nginx", lines=20)),
        )
    return "nginx in front of the service is not as it should be", Fix(
        "Read the lines above, test the configuration and reload (never restart) once it passes.",
        "nginx -t passes, nginx runs, and the upgrade is answered with 101 on its port.",
        commands=RELOAD,
    )


def _application(failed: Evidence, _case: Case) -> tuple[str, Fix]:
    if failed.probe == "pattern.drop":
        return "Many controllers lost their links at the same moment, and are not back", Fix(
            "What is common to them broke: the service, nginx, this machine or its line. Read "
            "both journals around that moment.",
            "The controllers are connected again.",
            commands=(journal("ptslink", "nginx"),),
        )
    return "The ptslink service itself is not well", Fix(
        "Read the service's own journal around the time of the fault.",
        "The unit is active, /ready answers 200, and controllers stay connected.",
        commands=(journal("ptslink"),),
    )


def _host_check(failed: Evidence, case: Case) -> tuple[str, Fix]:
    unit = failed.facts.get("unit")
    failing = dict.fromkeys(
        f"{piece.vantage}:{piece.probe}"
        for piece in case.evidence
        if piece.status is Status.FAILED and not piece.facts.get("variation")
    )
    return f"Not healthy: these checks failed: {', '.join(failing)}", Fix(
        "Read what they say (above), and the journals around that time; then look again.",
        "No check fails.",
        commands=(journal(str(unit)) if unit else journal("ptslink", "nginx"),),
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
    Layer.HOST: _host_check,
}
