"""Which of nginx's sites, locations and protocols answers the link's request."""

from __future__ import annotations

import re

from ptslink.doctor.attempts import Attempt
from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import (
    RETRY_AFTERMATH,
    by_nginx,
    by_service,
    failing,
    match,
    where,
)
from ptslink.doctor.causes.proxy.common import (
    asks_link,
    host_in,
    host_of,
    hung_up,
    nginx_config,
    nginx_fix,
    own_hosts,
    returning,
    wrong_site,
)
from ptslink.doctor.collect.nginx_config import site_for
from ptslink.doctor.commands import RELOAD
from ptslink.doctor.evidence import Case
from ptslink.doctor.pattern import link_location


def _https_redirect(case: Case) -> Match | None:
    def redirected(a: Attempt) -> bool:
        if a.status not in (301, 302, 303, 307, 308):
            return False
        target = a.header("Location") or ""
        if target:
            same = host_in(target) in (host_of(a), "", *own_hosts(case))
            return target.startswith("https://") and same and not a.tls
        return by_nginx(a) and a.source == "nginx" and not a.tls

    seen = failing(case, redirected)
    if seen is None:
        return None
    target = seen.header("Location")
    rules = list(returning(case, "30"))
    lines = [f"Location: {target}"] if target else []
    lines += [f"{file}: return {' '.join(args)}" for file, args in rules]
    lines.append("A controller does not follow redirects.")
    sure = STRONG if target or rules else LIKELY
    return match(seen, sure, *lines, ruled_out=("px-captive-portal", "px-default-server"))


def _path_rewrite(case: Case) -> Match | None:
    place = link_location(case)
    target = str(place[1]["settings"]["proxy_pass"]) if place else ""
    uri = target.split("://")[-1].partition("/")[2]
    with_uri = "/" in target.split("://")[-1]
    rewrites = place[1]["settings"]["rewrite"] if place else []

    def rewritten(a: Attempt) -> bool:
        if not (a.status == 404 and by_service(a) and a.hop != "service"):
            return False
        if a.source == "service":
            return False
        if a.backend_path is not None:
            return a.backend_path != a.path and asks_link(a, case)
        return asks_link(a, case) and (with_uri or bool(rewrites))

    seen = failing(case, rewritten)
    if seen is None:
        return None
    lines = []
    if seen.backend_path is not None:
        lines.append(f"nginx was asked for {seen.path}, the service for {seen.backend_path}.")
    if place and with_uri:
        lines.append(f"{where(*place)}: proxy_pass {target} replaces the path by /{uri}.")
    lines += [f"{where(*place)}: rewrite {rule}" for rule in rewrites] if place else []
    return match(seen, CERTAIN, *lines, ruled_out=("px-location-404", "hs-wrong-path"))


def _location_404(case: Case) -> Match | None:
    def nowhere(a: Attempt) -> bool:
        if not (a.status == 404 and by_nginx(a)):
            return False
        return asks_link(a, case) and wrong_site(a, case) is None

    seen = failing(case, nowhere)
    if seen is None:
        return None
    lines = ["nginx's own page: no location of this site passes the path on to the service."]
    site = site_for(nginx_config(case), seen.port or 80, seen.host or "")
    if site:
        listed = ", ".join(f"{p['modifier']} {p['match']}".strip() for p in site["locations"])
        lines.append(f"{site['file']} line {site['line']} has the locations: {listed or 'none'}.")
    return match(seen, STRONG, *lines, ruled_out=("px-path-rewrite", "hs-wrong-path"))


def _default_server(case: Case) -> Match | None:
    def elsewhere(a: Attempt) -> bool:
        if a.status == 101 or by_service(a):
            return False
        if wrong_site(a, case) is not None:
            return True
        return a.status == 444 and not hung_up(a, case)

    seen = failing(case, elsewhere)
    if seen is None:
        named = _works_by_name(case)
        if named is None:
            return None
        seen = failing(case, lambda a: a.source in ("site", "control"))
        line = f"With Host: {named} the link is made; with the address it is not."
        return match(seen, STRONG, line)
    wrong = wrong_site(seen, case)
    lines = [f"The request's Host is {seen.host!r}."]
    if wrong:
        got, right = wrong
        lines.append(
            f"{got['file']} line {got['line']} answers it ({' '.join(got['names']) or 'default'})."
        )
        names = " ".join(right["names"])
        lines.append(
            f"The link is in {right['file']} line {right['line']} "
            + (f"(server_name {names})." if names else "(it has no server_name).")
        )
    out = ("px-location-404", "px-https-redirect", "hs-malformed-request")
    return match(seen, STRONG if wrong else LIKELY, *lines, ruled_out=out)


def _works_by_name(case: Case) -> str | None:
    for piece in case.all("http.upgrade"):
        if piece.facts.get("tried") == "host" and piece.facts.get("status") == 101:
            return str(piece.facts.get("host"))
    return None


def _h2_only(case: Case) -> Match | None:
    def settings_frame(a: Attempt) -> bool:
        head = a.first_bytes
        served = len(head) >= 9 and head[0] == 0 and head[3] == 4 and a.source != "service"
        return (served and a.method is not None) or a.event("http2-preface") is not None

    seen = failing(case, settings_frame)
    if seen is None:
        return None
    lines = ["The server's first bytes are an HTTP/2 SETTINGS frame: the port speaks HTTP/2 only."]
    for site in nginx_config(case).get("sites", []):
        plain = [e["port"] for e in site["listen"] if e["http2"] and not e["ssl"]]
        if plain:
            lines.append(f"{site['file']} line {site['line']}: listen {plain[0]} http2 without ssl")
    return match(seen, CERTAIN, *lines, ruled_out=("hs-malformed-request",))


def _proxy_protocol_expected(case: Case) -> Match | None:
    config = nginx_config(case)
    lines = [
        f"{site['file']} line {entry.get('line') or site['line']}: listen {entry['port']} with "
        "proxy_protocol, which holds for every site on that address and port"
        for site in config.get("sites", [])
        for entry in site["listen"]
        if entry["proxy_protocol"]
    ]
    ports = {e["port"] for s in config.get("sites", []) for e in s["listen"]
             if e["proxy_protocol"]}  # fmt: skip
    told = [
        event
        for piece in case.all("nginx.error")
        for event in piece.facts["events"]
        if event["kind"] == "proxy-protocol"
    ]
    closed = failing(
        case, lambda a: a.port in ports and a.status is None and a.ended in ("fin", "rst")
    )
    broken = failing(case, lambda a: a.event("proxy-protocol") is not None)
    if closed is None and (broken is None or (config and not lines)):
        return None
    lines += [f"nginx: {told[-1]['text']}"] if told else []
    out = ("px-default-server", "hs-malformed-request", "px-access-denied", "hs-slow-handshake")
    sure = CERTAIN if told and config else STRONG if lines else LIKELY
    return match(closed or broken, sure, *dict.fromkeys(lines), ruled_out=out)


def _proxy_protocol_sent(case: Case) -> Match | None:
    seen = failing(case, lambda a: a.speaks_proxy_protocol)
    if seen is None:
        return None
    lines = [seen.reason] if seen.reason else []
    lines += [f"First bytes: {seen.first_bytes[:60]!r}"] if seen.first_bytes else []
    lines.append(f"{seen.client or 'Who connects'} is a balancer or proxy, not the controller.")
    out = ("hs-malformed-request", "px-default-server")
    return match(seen, CERTAIN, *lines, ruled_out=out)


def _include_missing(case: Case) -> Match | None:
    """A file that passes the link on lies where nginx does not look."""
    config = nginx_config(case)
    files = [str(file) for file in config.get("unread") or ()]
    made = any(piece.facts.get("status") == 101 and not piece.facts.get("variation")
               for piece in case.all("http.upgrade"))  # fmt: skip
    if not files or made or link_location(case) is not None:
        return None
    lines = [f"{file} passes requests on, and nginx does not read it." for file in files[:3]]
    lines.append("No include of nginx.conf names it, so nginx has no location for the link.")
    out = ("px-location-404", "px-default-server", "hs-wrong-path")
    return match(None, STRONG, *lines, ruled_out=out, fix=_included_again(files[0]))


def _included_again(file: str) -> Fix:
    """Give *file* the name and the place that nginx reads, or have nginx read it."""
    expect = "nginx -T shows the file, and the upgrade is answered with 101."
    folder, _, name = file.rpartition("/")
    by_name = folder.endswith("conf.d")
    if folder.endswith("sites-available"):
        right = f"{folder.removesuffix('available')}enabled/{name}"
    elif by_name and not re.fullmatch(r"[^.].*\.conf", name):
        right = f"{folder}/{name.strip('.').partition('.')[0]}.conf"
    else:
        pattern = f"{folder}/*.conf" if by_name else f"{folder}/*"
        return Fix(
            f"Put `include {pattern};` into the block http of /etc/nginx/nginx.conf again.",
            expect,
            Auto.ASK,
            (
                ("sed", "-i", "-E", f"s|^http \\{{|&\\n    include {pattern};|",
                 "/etc/nginx/nginx.conf"),
                *RELOAD,
            ),
        )  # fmt: skip
    return Fix(
        f"Give that file the name that nginx reads, {right}; find out why it was taken away.",
        expect,
        Auto.ASK,
        (("mv", file, right), *RELOAD),
    )


CAUSES: tuple[Cause, ...] = (
    Cause(
        "px-include-missing",
        Layer.PROXY,
        "nginx does not read the file that passes the link on",
        Fix("Include the file again.", "nginx -T shows the file.", Auto.ASK),
        _include_missing,
        (*RETRY_AFTERMATH, "px-location-404", "px-default-server"),
    ),
    Cause(
        "px-proxy-protocol-expected",
        Layer.PROXY,
        "nginx expects the PROXY protocol on the link's port, and controllers do not speak it",
        Fix(
            "Take proxy_protocol off that listen line, or give the balancer behind it a port of "
            "its own.",
            "The upgrade is answered with 101.",
            Auto.ASK,
            RELOAD,
        ),
        _proxy_protocol_expected,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-proxy-protocol-sent",
        Layer.PROXY,
        "A balancer in front sends the PROXY protocol, which is not spoken here",
        Fix(
            "Switch it off in the balancer (HAProxy: send-proxy; nginx: proxy_protocol; cloud "
            "balancers: PROXY protocol); X-Real-IP tells the controller's address instead.",
            "The first bytes of its connections are those of the controller's own request.",
            Auto.NO,
        ),
        _proxy_protocol_sent,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-https-redirect",
        Layer.PROXY,
        "The plain port redirects everything to https",
        nginx_fix(
            "Exempt the link's path from the redirect on port 80, or give the controller the "
            "TLS port.",
            "The plain port answers the upgrade with 101.",
            controller="Server tab: protocol HTTPS and port 443, where TLS is wanted",
        ),
        _https_redirect,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-path-rewrite",
        Layer.PROXY,
        "nginx changes the path on the way to the service",
        nginx_fix("Write proxy_pass without a path (http://ptslink;), and no rewrite."),
        _path_rewrite,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-location-404",
        Layer.PROXY,
        "nginx has no location for the link's path",
        nginx_fix(
            "Let the location of the link take every path: location / { proxy_pass "
            "http://ptslink; }"
        ),
        _location_404,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-default-server",
        Layer.PROXY,
        "Another site of nginx answers: the Host does not match",
        nginx_fix(
            "Make the site of the link the one for bare addresses: no names, or the address among "
            "them.",
            "A request with the address as its Host is answered with 101.",
            ansible={"nginx_proxy_server_names": [], "nginx_proxy_default_site": "absent"},
        ),
        _default_server,
        RETRY_AFTERMATH,
    ),
    Cause(
        "px-h2-only",
        Layer.PROXY,
        "The plain port speaks HTTP/2 only",
        nginx_fix("Take http2 off the plain listener."),
        _h2_only,
        RETRY_AFTERMATH,
    ),
)
