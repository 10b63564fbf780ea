"""Causes of the layer http-upgrade: what the controller asks for, and what the service accepts.

Facts used: attempts (:mod:`ptslink.doctor.attempts`), ``service.config``, ``nginx.config``,
``link.local``; from the client's side ``ws.accept`` ``expected``, ``got``, ``protocol``, and
``http.upgrade`` with ``variation`` true and ``tried`` (``path``, ``no-origin``, ``subprotocol``).
"""

from __future__ import annotations

import base64
import binascii
import difflib
from collections.abc import Mapping

from ptslink.doctor.admission import is_uri_path
from ptslink.doctor.attempts import PROBE_ID_PREFIX, Attempt, attempts
from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import (
    RETRY_AFTERMATH,
    by_nginx,
    by_service,
    every_failing,
    failing,
    match,
    nginx_answers,
    said,
    service_config,
    where,
)
from ptslink.doctor.commands import PROVISION_NGINX, PROVISION_SERVER, RELOAD, written
from ptslink.doctor.evidence import Case, Json, Status
from ptslink.doctor.pattern import current, link_location, near, timers
from ptslink.handshake.path import link_path

_URI_FIELD = "Server tab: 'Server request URI without starting slash'"


def _paths(case: Case) -> tuple[str, list[str]]:
    """The link's path, and every path the service accepts (all without a leading slash)."""
    listen = service_config(case, "listen")
    first = str(listen.get("path", "ptsWebSocket"))
    return first, [link_path("/" + str(p)) for p in (first, *listen.get("alternative_paths", []))]


def _wrong_path(case: Case) -> Match | None:
    path, accepted = _paths(case)

    def wrong(a: Attempt) -> bool:
        if a.status != 404 or a.path is None or not a.path.startswith("/"):
            return False
        if a.backend_path is not None and a.backend_path != a.path:
            return False
        told = _expected_path(a)
        if told is not None and link_path(a.path) == link_path("/" + told):
            return False  # it was asked for, and lost on the way
        if a.code == "wrong-path":
            return True
        return link_path(a.path) not in accepted or a.path.startswith("//")

    seen = failing(case, wrong)
    if seen is None:
        return None
    expected = _expected_path(seen) or path
    asked = str(seen.path).lstrip("/")
    lines = [f"Asked for {seen.path!r}; the link is at '/{expected}'."]
    if difflib.SequenceMatcher(None, asked.lower(), expected.lower()).ratio() > 0.7:
        lines.append("Close enough to be a typing error.")
    out = ("px-location-404", "px-path-rewrite")
    # A path that only the doctor was given may be a slip of whoever gave it.
    by_controller = any(_by_controller(one.root, case) and one.root.path == seen.path
                        for one in every_failing(case, wrong))  # fmt: skip
    if not by_controller:
        lines.append("Only the doctor's own tries asked for it, no controller.")
    # What needs an escape somewhere is no path that anybody meant.
    plain = is_uri_path(asked)
    accepted_too = ["pts", "websocket", "", asked]
    fix = Fix(
        f"Enter {expected} as the URI in the controller"
        + (f", or accept {asked} on the server as well." if plain else "."),
        "The upgrade is answered with 101.",
        Auto.YES if by_controller and plain else Auto.ASK,
        PROVISION_SERVER if plain else (),
        {"pts_server_alternative_paths": accepted_too} if plain else {},
        f"{_URI_FIELD} = {expected}",
    )
    sure = CERTAIN if seen.code == "wrong-path" or by_service(seen) else STRONG
    return match(seen, sure, *lines, ruled_out=out, fix=fix)


def _by_controller(a: Attempt, case: Case) -> bool:
    """Whether a controller came itself, not the doctor under its id."""
    posed = {
        piece.facts.get("controller_id")
        for probe in ("http.upgrade", "link.local")
        for piece in case.all(probe)
    }
    known = a.controller is not None and not a.controller.startswith(PROBE_ID_PREFIX)
    return known and a.source in ("nginx", "service", "capture") and a.controller not in posed


def _expected_path(seen: Attempt) -> str | None:
    marker = '"path":"/'
    if marker not in seen.body:
        return None
    return seen.body.split(marker, 1)[1].split('"', 1)[0]


def _no_slash(case: Case) -> Match | None:
    def bare(a: Attempt) -> bool:
        if a.path is not None and a.method is not None:
            return not a.path.startswith(("/", "http://", "https://", "*")) and a.status != 101
        first = a.first_bytes.split(b"\r", 1)[0].split(b" ")
        return (
            a.code == "malformed-target"
            and len(first) > 1
            and first[0].isalpha()
            and not first[1].startswith(b"/")
        )

    seen = failing(case, bare)
    if seen is None:
        return None
    asked = seen.path or "the path"
    line = (
        f"The request line names {asked!r} without a slash in front; it never got to the service."
    )
    return match(seen, CERTAIN, line, ruled_out=("hs-malformed-request", "hs-wrong-path"))


def _bad_key(case: Case) -> Match | None:
    def bad(a: Attempt) -> bool:
        return (a.code or "").startswith("key-") or (
            a.status == 400 and said(a, "Sec-WebSocket-Key")
        )

    seen = failing(case, bad)
    if seen is None:
        return None
    key = seen.request.get("sec-websocket-key")
    lines = [seen.reason] if seen.reason else []
    if key:
        lines.append(
            f"The key has {len(key)} characters, {_decoded(key)}; 24 are due for 16 bytes."
        )
    return match(seen, STRONG, *lines, ruled_out=("hs-bad-version", "hs-subprotocol"))


def _decoded(key: str) -> str:
    try:
        return f"{len(base64.b64decode(key, validate=True))} bytes"
    except (binascii.Error, ValueError):
        return "not base64"


def _bad_version(case: Case) -> Match | None:
    seen = failing(
        case,
        lambda a: (
            (a.code or "").startswith("version-")
            or (a.status in (400, 426) and said(a, "Sec-WebSocket-Version"))
        ),
    )
    if seen is None:
        return None
    lines = [seen.reason] if seen.reason else []
    out = ("hs-device-no-upgrade", "px-upgrade-headers-missing", "hs-bad-key")
    return match(seen, STRONG, *lines, ruled_out=out)


def _no_connection(case: Case) -> Match | None:
    def missing(a: Attempt) -> bool:
        if a.source == "nginx" and a.upgrade:
            return False  # nginx's map adds the header: what is lost behind it is nginx's fault
        return a.code == "connection-without-upgrade" or (
            a.status in (400, 426)
            and said(a, "missing Connection", "The Connection header does not")
        )

    seen = failing(case, missing)
    if seen is None or seen.hop == "nginx":
        return None
    sent = seen.request.get("connection")
    lines = [f"Connection as sent: {sent or 'none'}", "Upgrade itself is there."]
    out = ("px-upgrade-headers-missing", "hs-device-no-upgrade")
    return match(seen, STRONG, *lines, ruled_out=out)


def _no_upgrade(case: Case) -> Match | None:
    def without(a: Attempt) -> bool:
        if a.source not in ("nginx", "service") or a.upgrade is not False:
            return False
        if a.via or a.request.get("via") or a.method != "GET":
            return False
        known = bool(a.controller) and not str(a.controller).startswith(PROBE_ID_PREFIX)
        asked = a.code == "upgrade-header-missing"
        return a.status in (400, 426, 404) and (known or asked) and by_service(a)

    seen = failing(case, without)
    if seen is None:
        return None
    if seen.hop == "nginx" and seen.source == "service":
        return None  # only the service saw it: it may have been lost in nginx
    lines = ["The Upgrade header was not there when the request reached this server,",
             "and no proxy names itself in it."]  # fmt: skip
    out = ("px-upgrade-headers-missing", "px-forward-proxy", "hs-device-no-connection")
    return match(seen, STRONG, *lines, ruled_out=out)


def _http10(case: Case) -> Match | None:
    def old(a: Attempt) -> bool:
        return a.version == "1.0" and (
            a.status == 505 or a.code in ("http-1.0", "http-version") or said(a, "HTTP/1.0")
        )

    seen = failing(case, old)
    if seen is None or seen.via or seen.request.get("via") or seen.hop == "nginx":
        return None
    line = "The controller itself speaks HTTP/1.0; through nginx that is repaired."
    return match(seen, STRONG, line, ruled_out=("px-http10-upstream",))


def _post(case: Case) -> Match | None:
    def posted(a: Attempt) -> bool:
        refused = a.status in (404, 405, 411, 413, 426, 400, 501)
        # A server that knows nothing but upgrades ends the connection without a word.
        return a.method == "POST" and (refused or a.event("upstream-closed") is not None)

    seen = failing(case, posted)
    if seen is None:
        return None
    line = "The controller uploads over HTTP (POST) to the path of the WebSocket link."
    return match(seen, STRONG, line, ruled_out=("hs-wrong-path",))


_MALFORMED = frozenset(
    {
        "malformed-request-line",
        "malformed-method",
        "malformed-target",
        "malformed-version",
        "malformed-field-name",
        "blank-in-header-name",
        "malformed-field-value",
        "malformed-length",
        "field-without-colon",
        "folded-field",
        "bare-lf",
        "not-http",
        "handshake-with-body",
        "chunked-body",
        "repeated-host",
        "missing-host",
        "request-line-too-long",
        "head-too-large",
        "too-many-fields",
    }
)


def _malformed(case: Case) -> Match | None:
    _, served = _paths(case)

    def broken(a: Attempt) -> bool:
        if a.speaks_proxy_protocol:
            return False  # what a balancer puts before it
        asked = a.asked or ""
        if a.source == "nginx" and not a.method and asked[:1] == "/" and link_path(asked) in served:
            return True  # HTTP/0.9, or no HTTP at all, but it is the link's path
        if a.first_bytes[:2] == b"\x16\x03" or (a.path is not None and not a.path.startswith("/")):
            return False
        if a.code in _MALFORMED:
            # A path without its slash is another cause's.
            target = a.first_bytes.partition(b" ")[2]
            bare = a.first_bytes[:3].isalpha() and not target.startswith(b"/")
            return not (a.code == "malformed-target" and bare)
        if a.event("invalid-request") is not None and (a.method is None or a.status == 400):
            return True
        if a.status == 505 and by_nginx(a) and a.version not in ("1.0", "1.1"):
            return True
        return a.status == 400 and by_nginx(a) and a.method is None and bool(a.first_bytes)

    seen = failing(case, broken)
    if seen is None:
        return None
    lines = [seen.reason] if seen.reason else []
    if seen.first_bytes:
        lines.append(f"First bytes: {seen.first_bytes[:48]!r}")
    if seen.status == 505:
        lines.append(f"Its request line says HTTP/{seen.version or '?'}; nginx knows 1.0 and 1.1.")
    event = seen.event("invalid-request")
    lines += [f"nginx: {event['text']}"] if event else []
    # nginx repairs some requests that are sent to it: not one that it has refused itself.
    fix = None if by_service(seen) and seen.hop is None and not nginx_refuses(case) else Fix(
        "Let the controller connect to the service's own port, with the profile lenient, which "
        "leaves out a line it cannot read and notes it; nginx refuses this request. " + _FIRMWARE,
        _OK, Auto.ASK, PROVISION_SERVER, _LENIENT,
    )  # fmt: skip
    out = ("px-default-server", "hs-half-close-499")
    return match(seen, STRONG, *lines, ruled_out=out, fix=fix)


def nginx_refuses(case: Case) -> bool:
    """Whether nginx has answered somebody's malformed request itself."""
    return any(
        a.source == "nginx"
        and a.status == 400
        and not by_service(a)
        and not a.speaks_proxy_protocol
        for a in attempts(case)
    )


def _half_close(case: Case) -> Match | None:
    def left(a: Attempt) -> bool:
        return a.status == 499 and (a.seconds or 0.0) < 0.5

    seen = failing(case, left)
    if seen is None:
        return None
    place = link_location(case)
    ignoring = place[1]["settings"]["proxy_ignore_client_abort"] if place else None
    if ignoring == "on":
        return None
    lines = [
        f"nginx gave up after {seen.seconds or 0:.3f} s: the client had ended its sending side."
    ]
    return match(seen, STRONG, *lines, ruled_out=("px-upstream-timeout", "hs-malformed-request"))


def _origin(case: Case) -> Match | None:
    def refused(a: Attempt) -> bool:
        if a.status != 403 or by_nginx(a):
            return False
        return (a.code or "").startswith("origin") or said(a, "Origin header", "origin")

    seen = failing(case, refused)
    if seen is None:
        return None
    sent = seen.request.get("origin")
    lines = [seen.reason or seen.body[:120].strip(), f"Origin as sent: {sent or 'none'}"]
    return match(seen, STRONG, *lines, ruled_out=("px-access-denied", "hs-id-unknown"))


def _subprotocol(case: Case) -> Match | None:
    seen = failing(
        case,
        lambda a: (
            (a.code or "").startswith("subprotocol") or (a.status == 400 and said(a, "subprotocol"))
        ),
    )
    if seen is not None:
        sent = seen.request.get("sec-websocket-protocol")
        lines = [seen.reason or seen.body[:120].strip(), f"Offered: {sent or 'none'}"]
        return match(seen, STRONG, *lines, ruled_out=("hs-bad-key", "hs-bad-version"))
    for piece in case.all("ws.accept"):
        chosen = piece.facts.get("protocol")
        if chosen and not piece.facts.get("offered") and not piece.facts.get("variation"):
            lines = [f"The 101 names the sub-protocol {chosen!r}, which nobody offered.",
                     "RFC 6455 4.1: a client must fail such a connection."]  # fmt: skip
            return match(
                None, STRONG, *lines, ruled_out=("hs-bad-accept", "ws-deflate-unsupported")
            )
    return None


def _id_missing(case: Case) -> Match | None:
    def no_id(a: Attempt) -> bool:
        named = (a.code or "") in ("missing-controller-id", "malformed-controller-id")
        unlisted = a.code == "controller-not-allowed" and not a.controller
        told = (
            a.status in (400, 401, 403) and by_service(a) and said(a, "X-Pts-Id", "without an id")
        )
        return named or unlisted or told or _stripped(a)

    def _stripped(a: Attempt) -> bool:
        return bool(
            a.source == "nginx" and a.controller and a.request
            and "x-pts-id" not in a.request and a.status in (400, 401, 403)
        )  # fmt: skip

    seen = failing(case, no_id)
    if seen is None:
        return None
    place = link_location(case)
    emptied = place is not None and place[1]["settings"]["set_header"].get("x-pts-id") == ""
    lines = [seen.reason] if seen.reason else []
    fix = None
    if place is not None and emptied:
        lines.append(f'{where(*place)}: proxy_set_header X-Pts-Id "" takes the id away.')
        fix = Fix("Remove that line: nginx passes the header on by itself.",
                  "Requests reach the service with "
                  "X-Pts-Id.", Auto.YES, PROVISION_NGINX)  # fmt: skip
    return match(seen, STRONG, *lines, ruled_out=("hs-id-unknown", "hs-auth-mismatch"), fix=fix)


def _id_unknown(case: Case) -> Match | None:
    seen = failing(
        case,
        lambda a: (
            bool(a.controller)
            # A probe is no controller: an allow-list keeps it out of a healthy server as well.
            and not str(a.controller).startswith(PROBE_ID_PREFIX)
            and (
                a.code == "controller-not-allowed"
                or (a.status == 403 and said(a, "allow-list", "unknown id"))
            )
        ),
    )
    if seen is None:
        return None
    allowed = [str(item).upper() for item in service_config(case, "controllers").get("allowed", [])]
    near_ones = difflib.get_close_matches(str(seen.controller), allowed, 1, 0.8)
    lines = [f"{seen.controller} is not among the {len(allowed)} allowed ids."]
    lines += [f"The nearest one is {near_ones[0]}: a typing error?"] if near_ones else []
    fix = Fix(
        "Add the id to the allow-list, if this controller is yours.",
        "The upgrade of this id is answered with 101.",
        Auto.ASK,
        PROVISION_SERVER,
        {"pts_server_settings": {"controllers": {"allowed": [*allowed, seen.controller]}}},
    )
    return match(
        seen, CERTAIN, *lines, ruled_out=("px-access-denied", "hs-origin-rejected"), fix=fix
    )


def _auth(case: Case) -> Match | None:
    codes = ("wrong-credentials", "digest-credentials", "missing-credentials")
    seen = failing(
        case,
        lambda a: (
            a.code in codes
            or (a.code or "").startswith("signature-")
            or (a.status == 401 and by_service(a))
        ),
    )
    if seen is None:
        return None
    scheme = (seen.request.get("authorization") or "").split(" ")[0]
    lines = [seen.reason] if seen.reason else []
    if challenge := seen.header("WWW-Authenticate"):
        lines.append(f"Asked for: {challenge}")
    if scheme:
        lines.append(f"Sent: {scheme} credentials")
    if service_config(case, "controllers").get("users"):
        lines.append("The service's configuration has users in [controllers].")
    signed = (seen.code or "").startswith("signature-")
    if signed and (seen.hop == "nginx" or seen.source == "nginx"):
        lines.append("A proxy rewrites the head, so that no signature can match behind it.")
    fix = None
    if seen.code == "digest-credentials" or scheme.lower() == "digest":
        fix = Fix(
            "Set the controller to Basic authentication: it is set to Digest, and this server "
            "speaks Basic. Login and password may well be right.",
            "The upgrade is answered with 101.",
            Auto.NO,
            controller="Configuration switch 2 (Digest authentication) off",
        )
    if signed:
        fix = Fix(
            "Enter the same secret key on both sides; signatures need the direct port, not nginx.",
            "The upgrade is answered with 101.",
            Auto.ASK,
            PROVISION_SERVER,
            {"pts_server_settings": {"controllers": {"secret_required": False}}},
            "Server tab: 'Secret key' (at most 20 characters)",
        )
    return match(seen, STRONG, *lines, ruled_out=("px-auth-required",), fix=fix)


def _bad_accept(case: Case) -> Match | None:
    for piece in case.all("ws.accept"):
        facts = piece.facts
        if facts.get("variation") or piece.status is not Status.FAILED:
            continue
        if facts.get("expected") and facts.get("got") != facts.get("expected"):
            return _accept_match(case, str(facts["expected"]), facts.get("got"))
    seen = failing(case, lambda a: a.status == 101 and a.facts.get("accept_ok") is False)
    if seen is not None:
        return _accept_match(case, "another value", seen.header("Sec-WebSocket-Accept"))
    place = link_location(case)
    if place and not nginx_answers(case) and _hidden(place[1]["settings"]):
        short = [k for k in current(case) if k.seconds <= 1.5 and k.lost and not k.messages_in]
        lines = [f"{where(*place)}: proxy_hide_header Sec-WebSocket-Accept"]
        return match(None, STRONG if short else LIKELY, *lines, ruled_out=("px-header-case",))
    return None


def _hidden(settings: Mapping[str, Json]) -> bool:
    return any(str(h).lower() == "sec-websocket-accept" for h in settings["proxy_hide_header"])


def _accept_match(case: Case, expected: str, got: Json) -> Match:
    lines = [f"Sec-WebSocket-Accept is {got or 'missing'}; the key sent asks for {expected}."]
    place = link_location(case)
    if place and _hidden(place[1]["settings"]):
        lines.append(f"{where(*place)}: proxy_hide_header Sec-WebSocket-Accept")
    out = ("px-header-case", "app-first-message", "ws-deflate-unsupported")
    return match(None, CERTAIN, *lines, ruled_out=out)


def _slow(case: Case) -> Match | None:
    configured = timers(case)

    def late(a: Attempt) -> bool:
        return (
            a.code in ("request-timeout", "silent")
            or (a.code == "closed-before-request" and b"HTTP/1." in a.first_bytes)
            or a.event("header-slow") is not None
            or (a.status == 408 and not by_service(a))
        )

    seen = failing(case, late)
    if seen is None:
        return None
    lines = [seen.reason] if seen.reason else []
    if near(seen.seconds, configured.client_header):
        lines.append(f"Ended after client_header_timeout, {configured.client_header:g} s.")
    elif configured.head and seen.source == "service":
        lines.append(f"The service waits limits.head_seconds, {configured.head:g} s.")
    return match(seen, STRONG, *lines, ruled_out=("hs-malformed-request", "px-default-server"))


_OK = "The upgrade is answered with 101."
_FIRMWARE = "Update the firmware, or tell its maker: the request breaks RFC 6455."
_LENIENT = {"pts_server_handshake_profile": "lenient"}

CAUSES: tuple[Cause, ...] = (
    Cause(
        "hs-wrong-path",
        Layer.HTTP_UPGRADE,
        "The controller asks for a path that is not served",
        Fix(
            "Correct the URI in the controller, or accept this path on the server as well.",
            _OK,
            Auto.YES,
            PROVISION_SERVER,
            {"pts_server_alternative_paths": ["pts", "websocket", ""]},
            f"{_URI_FIELD} = ptsWebSocket",
        ),
        _wrong_path,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-uri-no-slash",
        Layer.HTTP_UPGRADE,
        "The request's path has no slash in front",
        Fix(
            "Enter the URI in the form this firmware needs: with its leading slash.",
            _OK,
            Auto.ASK,
            controller=f"{_URI_FIELD} = /ptsWebSocket",
        ),
        _no_slash,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-bad-key",
        Layer.HTTP_UPGRADE,
        "Sec-WebSocket-Key is missing or malformed",
        Fix(
            "Accept keys of other lengths (profile lenient); " + _FIRMWARE,
            _OK,
            Auto.ASK,
            PROVISION_SERVER,
            _LENIENT,
        ),
        _bad_key,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-bad-version",
        Layer.HTTP_UPGRADE,
        "Sec-WebSocket-Version is not 13",
        Fix(_FIRMWARE, _OK, Auto.NO),
        _bad_version,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-device-no-connection",
        Layer.HTTP_UPGRADE,
        "The controller sends no Connection: Upgrade",
        Fix(
            "Accept it (profile lenient), or connect through nginx, which adds the header.",
            _OK,
            Auto.YES,
            PROVISION_SERVER,
            _LENIENT,
        ),
        _no_connection,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-device-no-upgrade",
        Layer.HTTP_UPGRADE,
        "The request arrives without an Upgrade header",
        Fix(
            "Use TLS if something on the way removes it; else update the firmware.",
            "nginx's log shows upgrade websocket for this controller.",
            Auto.NO,
            controller="Server tab: 'Use full communication with server using Websocket'",
        ),
        _no_upgrade,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-http10-device",
        Layer.HTTP_UPGRADE,
        "The controller speaks HTTP/1.0",
        Fix(
            "Let it connect through nginx, or accept it (profile lenient).",
            _OK,
            Auto.YES,
            PROVISION_SERVER,
            _LENIENT,
        ),
        _http10,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-method-post",
        Layer.HTTP_UPGRADE,
        "HTTP uploads are aimed at the WebSocket path",
        Fix(
            "Accept uploads on this path, or switch the controller to WebSocket communication.",
            "POSTs are answered with 200, or GETs with 101.",
            Auto.YES,
            PROVISION_SERVER,
            {"pts_server_settings": {"listen": {"upload_paths": ["jsonPTS"]}}},
            "Server tab: 'Use full communication with server using Websocket'",
        ),
        _post,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-malformed-request",
        Layer.HTTP_UPGRADE,
        "What arrives is no well-formed HTTP request",
        Fix(
            "Let the controller connect through nginx, which repairs some of it; " + _FIRMWARE,
            _OK,
            Auto.ASK,
            controller="Server tab: the port of nginx (80)",
        ),
        _malformed,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-half-close-499",
        Layer.HTTP_UPGRADE,
        "The client ends its sending side after the request",
        Fix(
            "Set proxy_ignore_client_abort on; for the location of the link, in a file that "
            "provisioning leaves alone.",
            "No more 499 for this controller.",
            Auto.YES,
            # A file of its own: the next provisioning writes ptslink.conf anew.
            (
                written(
                    "/etc/nginx/conf.d/ptslink-half-close.conf", "proxy_ignore_client_abort on;"
                ),
                *RELOAD,
            ),
        ),
        _half_close,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-origin-rejected",
        Layer.HTTP_UPGRADE,
        "The server refuses the request's Origin",
        Fix(
            "Accept any Origin, and none: controllers send their own address. ptslink does.",
            _OK,
            Auto.YES,
            PROVISION_SERVER,
        ),
        _origin,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-subprotocol",
        Layer.HTTP_UPGRADE,
        "The sub-protocols do not agree",
        Fix(
            "Ask for no sub-protocol, and echo only what was offered.",
            _OK,
            Auto.YES,
            PROVISION_SERVER,
            {"pts_server_settings": {"listen": {"subprotocols": []}}},
        ),
        _subprotocol,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-id-missing",
        Layer.HTTP_UPGRADE,
        "X-Pts-Id is missing or unusable",
        Fix(
            "See that the header is passed on; else let the controller send its id as login.",
            "The service's record of the attempt names the controller.",
            Auto.YES,
            PROVISION_NGINX,
            controller="Server tab: 'Use device identifier as login'",
        ),
        _id_missing,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-id-unknown",
        Layer.HTTP_UPGRADE,
        "This controller is not on the allow-list",
        Fix(
            "Add its id to the allow-list, if it is yours.",
            _OK,
            Auto.ASK,
            PROVISION_SERVER,
            {"pts_server_settings": {"controllers": {"allowed": []}}},
        ),
        _id_unknown,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-auth-mismatch",
        Layer.HTTP_UPGRADE,
        "Login, password or secret key do not agree",
        Fix(
            "Enter the same login and password on both sides (at most 10 characters each).",
            _OK,
            Auto.ASK,
            PROVISION_SERVER,
            {"pts_server_settings": {"controllers": {"users": {"LOGIN": "PASSWORD"}}}},
            "Server tab: 'Server user', its login and password",
        ),
        _auth,
        RETRY_AFTERMATH,
    ),
    Cause(
        "hs-bad-accept",
        Layer.HTTP_UPGRADE,
        "The 101 lacks the right Sec-WebSocket-Accept",
        Fix(
            "Remove what takes or changes the header (proxy_hide_header, a cache, a fake).",
            "Sec-WebSocket-Accept matches the key.",
            Auto.YES,
            PROVISION_NGINX,
        ),
        _bad_accept,
        (*RETRY_AFTERMATH, "app-first-message"),
    ),
    Cause(
        "hs-slow-handshake",
        Layer.HTTP_UPGRADE,
        "The request comes too slowly or never whole",
        Fix(
            "Give slow links more time for the request, and look at the line of the site.",
            "The request is complete within the time limit.",
            Auto.YES,
            PROVISION_SERVER,
            {"pts_server_handshake_timeout_seconds": 30},
        ),
        _slow,
        RETRY_AFTERMATH,
    ),
)
