"""Causes known from records, probes and processes: named by data, silent at their neighbours'.

``HARD`` are the pairs of the fault catalogue that look alike; each is judged on both sides.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from ptslink.doctor.cause import WORDS
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.evidence import Evidence, Status
from ptslink.doctor.probe.request import new_key, upgrade_head
from ptslink.doctor.verdict import Verdict, judge
from ptslink.handshake.head import HeadError, head_end, looks_wrong, parse_head
from ptslink.handshake.judge import Profile, Rules
from ptslink.handshake.judge import judge as judge_head
from ptslink.simulator.misbehave import bend
from unit.doctor.programs import assert_runnable
from unit.doctor.traces import (
    CONTROLLER,
    NOW,
    attempt,
    case,
    config_of,
    link,
    records,
    seen,
    service_config,
)


def verdict(*evidence: Evidence) -> Verdict:
    return judge(case(*evidence), CAUSES)


def named(*evidence: Evidence) -> list[str]:
    found = verdict(*evidence).findings
    for finding in found:
        assert_runnable(finding.fix)
        assert finding.match.confidence in WORDS
    return [finding.id for finding in found]


CONFIG = service_config(keepalive={"ping_interval_seconds": 20.0, "ping_timeout_seconds": 20.0})
HEADERS = attempt("x", 0)["headers"]


def without(name: str) -> list[list[str]]:
    return [pair for pair in HEADERS if pair[0] != name]


def refused(code: str, status: int, **more: Any) -> list[Evidence]:
    return [CONFIG, records([attempt(code, status, **more)])]


def ended(*links: dict[str, Any], config: Evidence = CONFIG) -> list[Evidence]:
    return [config, records(links=links)]


def thrice(code: str, seconds: float, gap: float = 1.0, **more: Any) -> list[dict[str, Any]]:
    """The same end three times, the last one now."""
    return [link(code, seconds, at=NOW - n * (seconds + gap), **more) for n in (2, 1, 0)]


def proxied(
    seconds: float, at: float = NOW, controller: str = CONTROLLER, **line: Any,
) -> dict[str, Any]:  # fmt: skip
    """An access line of a link that was made through nginx and ended."""
    return {
        "time": at, "client": "198.51.100.20", "port": 80, "request": "GET /ptsWebSocket HTTP/1.1",
        "method": "GET", "path": "/ptsWebSocket", "version": "1.1", "status": 101, "by": "backend",
        "upgrade": "websocket", "connection": "Upgrade", "controller": controller,
        "host": "192.0.2.7", "request_seconds": seconds, "upstream": "127.0.0.1:3000",
        "tls": None, "via": None,
        **line,
    }  # fmt: skip


def nginx(
    read_timeout: float = 300.0, lines: Any = (), events: Any = (), **config: Any
) -> list[Evidence]:
    """A healthy nginx with other timers, lines or events."""
    base = config_of(8000)
    (site,) = base["sites"]
    settings = {**site["locations"][0]["settings"], "proxy_read_timeout": read_timeout,
                "keepalive_timeout": 75.0, "client_header_timeout": 20.0,
                **config.pop("settings", {})}  # fmt: skip
    place = {**site["locations"][0], "settings": settings}
    site = {**site, "listen": [{**site["listen"][0], "port": 80}], "locations": [place]}
    facts = {**base, "sites": [site], "worker_shutdown_timeout": None, **config}
    return [
        seen("nginx.config", **facts),
        seen("nginx.access", file=[], lines=list(lines)),
        seen("nginx.error", file=[], hidden=False, events=list(events)),
    ]


def hung_up(when: str = "", *, by_another_site: bool = False) -> list[Evidence]:
    """nginx closed the connection as a ``return 444`` says, and nobody else told why."""
    rule = {"if": when, "args": ["444"], "line": 7}
    line = proxied(0.0, status=444, by="nginx", upstream=None)
    own, access, error = nginx(lines=[line], settings={} if by_another_site else {"return": [rule]})
    if by_another_site:
        (site,) = own.facts["sites"]
        (place,) = site["locations"]
        silent = {**place, "settings": {**place["settings"], "proxy_pass": None, "return": [rule]}}
        front = {**site, "listen": [{**site["listen"][0], "default": True}], "locations": [silent]}
        named = {**site, "names": ["pts.example.test"]}
        own = seen("nginx.config", **{**own.facts, "sites": [front, named]})
    return [own, access, error, CONFIG]


def event(kind: str, at: float = NOW, text: str = "", **more: Any) -> dict[str, Any]:
    return {"time": at, "level": "info", "kind": kind, "text": text or kind, "connection": 1,
            "pid": 7, "client": "198.51.100.20", "request": "GET /ptsWebSocket HTTP/1.1",
            "port": None, "alert": None, "reason": None, **more}  # fmt: skip


#: Not one packet of the link reached the server's card.
NOTHING_CAME: dict[str, Any] = {
    "syn_in": {}, "syn_ack_out": {}, "rst_out": {}, "rst_in": {}, "icmp_out": {}
}  # fmt: skip


def answer(status: int | None = None, **more: Any) -> Evidence:
    went = Status.OK if status == 101 else Status.FAILED
    facts = {"path": "/ptsWebSocket", "port": 80, "scheme": "ws", "host": "192.0.2.7",
             "controller_id": "0" * 16 + "ABCDEF01", **more}  # fmt: skip
    if status is not None:
        facts["status"] = status
    return seen("http.upgrade", "site", went, **facts)


CUT = event("upgraded-timeout", text="upstream timed out (110) while proxying upgraded connection")
REPLACED = {"closed_by": "server", "close_sent": (4000, "replaced by a newer connection")}
PINGLESS = {"closed_by": "server", "close_sent": (1011, "keepalive ping timeout"),
            "error": "keepalive ping timeout", "fault": "ping-timeout", "pings": 1,
            "last_ping_seconds_before_end": 20.0}  # fmt: skip
CLEAN = {"closed_by": "peer", "close_sent": (1000, ""), "close_rcvd": (1000, "")}
SOCKET = {"state": "ESTAB", "local": "192.0.2.7", "local_port": 9000, "peer": "198.51.100.20",
          "peer_port": 50000, "recv_q": 0, "send_q": 0, "timer": "keepalive", "retrans": 0,
          "backoff": 0}  # fmt: skip


def sockets(**more: Any) -> Evidence:
    return seen("net.sockets", sockets=[{**SOCKET, **more}], syn_recv=0)


def live(connected_for: float | None = None, **health: Any) -> Evidence:
    sessions = []
    if connected_for is not None:
        sessions.append({"id": CONTROLLER, "since": (NOW + 1 - connected_for) * 1000.0})
    body = {"status": "ok", "journal": {"ok": True, "reason": None}, **health}
    return seen("service.live", health=body, controllers=sessions, now=NOW + 1)


def flooded(address: str, reason: str = "no-controller-id", messages: int = 42_289) -> Any:
    """What health says of a client whose messages are refused."""
    sender = {"address": address, "messages": messages, "bytes": messages, "reason": reason}
    return {"messages": messages, "addresses": [{**sender, "controller": None}]}


def refused_message(peer: str, code: str) -> dict[str, Any]:
    return {"at": NOW, "peer": peer, "code": code, "controller": "", "message": "refused"}


def served(**certificate: Any) -> Evidence:
    facts = {"port": 443, "subject": "CN = pts", "issuer": "CN = R3, O = Let's Encrypt",
             "sans": ["DNS:pts.example.test"], "key": "rsa", "not_before": NOW - 1e6,
             "not_after": NOW + 1e6, "now": NOW, "ok": True, **certificate}  # fmt: skip
    return seen("tls.served", **facts)


def on_disk(
    issuers: list[str], keys: str = "AA", *, before: list[str] | None = None,
    old_keys: str = "AA", days_ago: float = 1.0, **certificate: Any,
) -> Evidence:  # fmt: skip
    """A certificate file whose chain has these issuers, and what it took the place of."""

    def chain(names: list[str], key: str) -> list[dict[str, Any]]:
        subjects = ["CN = pts", *names]
        dates = {"not_before": NOW - 1e6, "not_after": NOW + 1e6}
        return [{"subject": subject, "issuer": issuer, "authority_key": key, **dates}
                for subject, issuer in zip(subjects, names, strict=False)]  # fmt: skip

    old = None
    if before is not None:
        old = {"file": "old.pem", "until": NOW - days_ago * 86400, "chain": chain(before, old_keys)}
    facts = {"file": "live.pem", "chain": chain(issuers, keys), "before": old, **certificate}
    return seen("tls.disk", **{**served(issuer=issuers[0]).facts, **facts})


def shown(named: str, nameless: str) -> list[Evidence]:
    """The certificates shown to who names the server and to who does not, and the first of them."""
    offers = (("tls1.2", named), ("no-sni", nameless))
    return [served()] + [
        seen("tls.offer", port=443, name="pts.example.test", variant=variant, ok=True,
             variation=True, fingerprint=fingerprint)
        for variant, fingerprint in offers
    ]  # fmt: skip


def alert(number: int, client: str = "198.51.100.20", at: float = NOW) -> dict[str, Any]:
    return event("tls-alert", at, f"SSL alert number {number}", alert=number, port=443,
                 client=client, request=None)  # fmt: skip


def offer12() -> Evidence:
    return seen("tls.offer", port=443, variant="tls1.2", ok=True, variation=True)


HURT = seen("tls.handshake", "control", Status.FAILED)
GOOD_TLS = proxied(30.0, at=NOW - 60, tls="TLSv1.2", client="203.0.113.9", controller="CAFE01")


def log(*lines: tuple[str, str], at: float = NOW) -> Evidence:
    """What whatever serves the link wrote to its journal: (kind, text) each."""
    events = [{"at": at, "kind": kind, "text": text, "unit": "guide.service"}
              for kind, text in lines]  # fmt: skip
    return seen("service.log", events=events)


def young(seconds: float = 0.2, **line: Any) -> list[dict[str, Any]]:
    """Links through nginx to a server that is not ours, which keeps no records."""
    return [proxied(seconds, at=NOW - n * (1 + seconds), **line) for n in (2, 1, 0)]


def closed_at_the_site(code: int, reason: str) -> Evidence:
    return seen("ws.close", "site", Status.FAILED, code=code, reason=reason, after_seconds=0.01)


def waiting(sent: int, received: int = 9000, **more: Any) -> Evidence:
    """The service's end of an open link, and how much went either way."""
    return sockets(bytes_sent=sent, bytes_received=received, last_received_ms=400, **more)


def answering(hop: str, *more: tuple[str, str]) -> Evidence:
    """The 101 that is given here: 129 bytes from ptslink."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": "=" * 28}
    return seen("link.local", hop=hop, port=9000, status=101, headers=headers | dict(more))


HERE = [answering("service"), answering("nginx", ("Server", "nginx"), ("Date", "-" * 29))]
FAILED = ("handler-failed", "ERROR:websockets.server:connection handler failed")
NO_DATABASE = ("dependency", "ConnectionRefusedError: Connect call failed ('127.0.0.1', 5432)")
DEFLATE = "permessage-deflate; server_max_window_bits=12"

NAMED: list[tuple[str, list[Evidence]]] = [
    # http-upgrade
    ("hs-wrong-path", refused("wrong-path", 404, path="/ptswebsokcet", reason="not served")),
    ("hs-wrong-path", [answer(404, path="/nope", body='{"error":"wrong-path","message":"no"}')]),
    ("hs-bad-key", refused("key-not-16-bytes", 400, reason="Sec-WebSocket-Key is not 16 bytes")),
    ("hs-bad-version", refused("version-unsupported", 426, reason="Sec-WebSocket-Version 8")),
    (
        "hs-device-no-connection",
        refused("connection-without-upgrade", 400, headers=without("Connection")),
    ),
    ("hs-device-no-upgrade", refused("upgrade-header-missing", 426, headers=without("Upgrade"))),
    ("hs-http10-device", refused("http-1.0", 505, http="1.0", reason="needs HTTP/1.1, not 1.0.")),
    ("hs-method-post", refused("wrong-method", 405, method="POST")),
    (
        "hs-method-post",
        [
            *nginx(
                lines=[
                    proxied(
                        0.0,
                        status=502,
                        by="nginx",
                        method="POST",
                        upgrade=None,
                        request="POST /ptsWebSocket HTTP/1.1",
                    )
                ],
                events=[event("upstream-closed", request="POST /ptsWebSocket HTTP/1.1")],
            ),
            CONFIG,
            # That GETs get through says nothing of POSTs.
            seen("link.local", hop="nginx", port=80, path="/ptsWebSocket", status=101),
        ],
    ),
    ("hs-malformed-request", refused("bare-lf", 400, method=None, path=None, headers=None)),
    (
        "hs-uri-no-slash",
        refused(
            "malformed-target",
            400,
            method=None,
            path=None,
            headers=None,
            first_bytes={"hex": b"GET ptsWebSocket HTTP/1.1".hex(" ")},
        ),
    ),
    ("hs-origin-rejected", [answer(403, body="Failed: invalid Origin header: http://10.0.0.5\n")]),
    ("hs-subprotocol", [answer(400, body="Failed: missing subprotocol\n")]),
    ("hs-subprotocol", [seen("ws.accept", "site", protocol="chat", expected="a", got="a")]),
    (
        "hs-id-missing",
        refused(
            "controller-not-allowed",
            403,
            controller="",
            headers=without("X-Pts-Id"),
            reason="Controller without an id",
        ),
    ),
    ("hs-id-unknown", refused("controller-not-allowed", 403, reason="is not on the allow-list.")),
    ("hs-auth-mismatch", refused("wrong-credentials", 401)),
    ("hs-auth-mismatch", refused("signature-wrong", 401)),
    (
        "hs-bad-accept",
        [seen("ws.accept", "site", Status.FAILED, expected="abc=", got=None, protocol=None)],
    ),
    (
        "hs-slow-handshake",
        refused("request-timeout", 408, method=None, path=None, headers=None, peer="198.51.100.20"),
    ),
    # tls
    (
        "tls-client-to-plain-port",
        refused("tls-on-plain-port", 400, method=None, path=None, headers=None),
    ),
    ("tls-device-clock", [*nginx(lines=[GOOD_TLS], events=[alert(45)]), served(), HURT]),
    (
        "tls-root-rotated",
        [
            *nginx(lines=[GOOD_TLS], events=[alert(48), alert(48, "198.51.100.99")]),
            on_disk(["CN = R3", "CN = ISRG Root X1"], before=["CN = R3", "CN = DST Root CA X3"]),
            HURT,
        ],
    ),
    ("tls-record-too-large", [*nginx(events=[alert(22)]), served(), HURT]),
    (
        "tls-record-too-large",
        [
            *nginx(events=[event("tls-closed", request=None, port=443)]),
            served(chain_bytes=[1800, 2000, 1900]),
            HURT,
        ],
    ),
    # proxy
    (
        "px-map-missing",
        [
            seen(
                "nginx.process",
                "server",
                Status.FAILED,
                running=True,
                installed=True,
                test_ok=False,
                test_message='unknown "connection_upgrade" variable',
            )
        ],
    ),
    (
        "px-not-running-bad-config",
        [
            seen(
                "nginx.process",
                "server",
                Status.FAILED,
                running=False,
                installed=True,
                test_ok=False,
                active_state="failed",
                test_message='unknown directive "x" in /x.conf:1',
            )
        ],
    ),
    (
        "px-read-timeout-60",
        [
            *nginx(60.0, [proxied(60.0)], [CUT]),
            service_config(keepalive={"ping_interval_seconds": 0.0}),
        ],
    ),
    (
        "px-read-timeout-60",
        [
            *nginx(33.0, [proxied(33.02)], [CUT]),
            service_config(keepalive={"ping_interval_seconds": 40.0}),
        ],
    ),
    (
        "px-other-idle-timeout",
        [
            *nginx(),
            CONFIG,
            answer(101, headers={"cf-ray": "8a1", "Server": "cloudflare"}),
            seen("ws.idle", "site", Status.FAILED, after_seconds=100.0, seconds=120),
        ],
    ),
    (
        "px-reload-shutdown",
        [
            *nginx(
                lines=[proxied(500.0, at=NOW + 10.3)],
                events=[event("reloading", at=NOW, client=None)],
                worker_shutdown_timeout=10.0,
            ),
            CONFIG,
        ],
    ),
    (
        "px-restart",
        [
            *nginx(
                lines=[
                    proxied(500.0 + n, at=NOW + 0.1 * n, controller=f"CAFE0{n}") for n in range(4)
                ],
                events=[event("stopping", at=NOW, client=None)],
            ),
            CONFIG,
            seen("nginx.process", running=True, installed=True, test_ok=True, started=NOW + 1),
        ],
    ),
    (
        "px-emfile",
        [
            *nginx(
                events=[
                    event(
                        "too-many-files",
                        text="accept4() failed (24: Too many open files)",
                        client=None,
                    )
                ]
            ),
            CONFIG,
        ],
    ),
    (
        "px-header-case",
        [
            answer(101, headers={"sec-websocket-accept": "x", "upgrade": "websocket"}),
            *ended(*thrice("lost-fin", 0.1)),
        ],
    ),
    (
        "px-captive-portal",
        [
            answer(
                302,
                headers={"Location": "http://login.example/", "Server": "portal"},
                body="<html>pay</html>",
            ),
            *nginx(),
            CONFIG,
        ],
    ),
    (
        "px-https-redirect",
        [
            answer(
                301,
                headers={"Location": "https://192.0.2.7/ptsWebSocket", "Server": "nginx"},
                body="<center>nginx</center>",
            )
        ],
    ),
    (
        "px-error-held-open",
        [
            *nginx(),
            CONFIG,
            seen("http.upgrade", "site", status=503, variation=True, held_seconds=75.04),
        ],
    ),
    ("px-forward-proxy", [answer(407, headers={"Via": "1.1 squid"})]),
    # ws-protocol
    ("ws-rsv1-compressed", ended(*thrice("rsv1-on-frame", 0.01, first_bytes={"hex": "c1 82"}))),
    (
        "ws-rsv1-compressed",
        ended(*thrice("http-text-after-upgrade", 0.01, first_bytes={"hex": b"GET /pts".hex(" ")})),
    ),
    ("ws-unmasked", ended(*thrice("unmasked-frame", 20.02, error="incorrect masking"))),
    ("ws-invalid-utf8", ended(*thrice("not-utf8", 3.0, close_sent=(1007, "invalid start byte")))),
    ("ws-too-big", ended(*thrice("message-too-big", 3.0, close_sent=(1009, "over size limit")))),
    ("ws-bad-frame", ended(*thrice("invalid-opcode", 0.2, error="invalid opcode: 3"))),
    (
        "ws-ping-unanswered",
        [
            *ended(
                *thrice(
                    "ping-timeout", 40.02, **{**PINGLESS, "messages_in": 30, "messages_out": 30}
                )
            ),
            sockets(),
        ],
    ),
    (
        "ws-device-idle-timeout",
        ended(
            *thrice("lost-fin", 35.0),
            config=service_config(keepalive={"ping_interval_seconds": 0.0}),
        ),
    ),
    (
        "ws-deflate-unsupported",
        [seen("ws.accept", "site", extensions="permessage-deflate", expected="a", got="a")],
    ),
    (
        "ws-server-frame-too-big",
        [
            CONFIG,
            records(
                links=thrice("lost-fin", 30.0, gap=5.0, messages_in=4, messages_out=9),
                events=[
                    {
                        "at": NOW - n * 35.0 - 0.5,
                        "controller": CONTROLLER,
                        "peer": "",
                        "code": "command",
                        "type": "SetUsers",
                        "bytes": 15000,
                    }
                    for n in (2, 1, 0)
                ],
            ),
        ],
    ),
    ("ws-deflate-unsupported", [*nginx(lines=young(extensions=DEFLATE)), CONFIG]),
    (
        "ws-server-frame-too-big",
        [
            *nginx(lines=young(bytes_sent=8400.0)),
            CONFIG,
            seen(
                "ws.ping",
                "site",
                unasked=['{"Protocol":"jsonPTS","Packets":[{'],
                unasked_bytes=[8211],
            ),
        ],
    ),
    # application
    (
        "app-ghost-blocks",
        [
            *nginx(lines=young(0.01)),
            CONFIG,
            log(("already-connected", "PTS AABB is already connected, closing the new one")),
        ],
    ),
    (
        "app-ghost-blocks",
        [
            *nginx(lines=[proxied(0.0, status=409)]),
            CONFIG,
            log(("already-connected", "PTS AABB is already connected, refused")),
        ],
    ),
    (
        "app-rate-lockout",
        [*nginx(lines=young(0.01)), CONFIG, log(("rate-limited", "Rate limiting PTS AABB"))],
    ),
    ("app-rate-lockout", [closed_at_the_site(1013, "try again later"), CONFIG]),
    ("app-rate-lockout", [closed_at_the_site(1008, "Too many connections"), CONFIG]),
    ("app-handler-exception", [*nginx(lines=young(0.5)), CONFIG, log(FAILED)]),
    ("app-dependency-down", [*nginx(lines=young(0.5)), CONFIG, log(FAILED, NO_DATABASE)]),
    (
        "app-dependency-down",
        [*nginx(lines=[proxied(0.0, status=500)]), CONFIG, log(FAILED, NO_DATABASE)],
    ),
    (
        "app-no-confirmation",
        [*nginx(lines=young(2.0, bytes_sent=181.0)), CONFIG, *HERE, waiting(129, 2000)],
    ),
    ("app-no-confirmation", [*nginx(), CONFIG, *HERE, waiting(133)]),
    (
        "app-wrong-worker",
        [
            CONFIG,
            seen(
                "net.listeners",
                listeners=[
                    {
                        "port": 9000,
                        "process": "uvicorn",
                        "pid": 3,
                        "workers": [4, 5, 6],
                        "address": "0.0.0.0",
                    }
                ],
            ),
        ],
    ),
    (
        "app-proxy-ip-trust",
        # The link stands: nginx has logged nothing yet.
        [
            *nginx(),
            CONFIG,
            records([attempt("accepted", 101, peer="127.0.0.1", headers=HEADERS)]),
            sockets(local_port=80),
        ],
    ),
    (
        "app-late-cleanup",
        # The older link's beginning is not the newer one's.
        [
            CONFIG,
            records(
                [attempt("accepted", 101, NOW - n) for n in (10, 9)],
                [link("closed-4000-by-server", 1.0, NOW - 9, **REPLACED)],
            ),
            sockets(),
            live(),
        ],
    ),
    (
        "app-dup-id-replaced",
        [
            CONFIG,
            records(
                [
                    attempt("accepted", 101, NOW - n, peer=f"198.51.100.{20 + n % 4}")
                    for n in (6, 4, 2, 0)
                ],
                [link("closed-4000-by-server", 2.0, NOW - n, **REPLACED) for n in (4, 2, 0)],
            ),
        ],
    ),
    (
        "app-ghost-blocks",
        [
            answer(409, body="controller already connected"),
            CONFIG,
            sockets(state="FIN-WAIT-1", send_q=33, timer="on"),
        ],
    ),
    # However long the dead link has been dead: the controller is back, and kept out.
    (
        "app-ghost-blocks",
        [
            answer(409, body="controller already connected"),
            CONFIG,
            records([attempt("accepted", 101, NOW - 60)]),
            sockets(send_q=33, timer="on", backoff=4),
        ],
    ),
    (
        "app-late-cleanup",
        [CONFIG, records([attempt("accepted", 101, NOW - 60)]), sockets(), live()],
    ),
    ("app-rate-lockout", refused("rate-limited", 429, reason="more than 60 failed attempts")),
    (
        "app-handler-exception",
        ended(*thrice("closed-1011-by-server", 1.0, closed_by="server", close_sent=(1011, ""))),
    ),
    (
        "app-event-loop-blocked",
        [*nginx(60.0, [proxied(60.0)], [CUT]), CONFIG, sockets(recv_q=5000)],
    ),
    ("app-first-message", [seen("ws.idle", "site", unasked=["Welcome!"]), CONFIG]),
    ("app-no-confirmation", ended(*thrice("lost-fin", 2.0, messages_in=4, messages_out=0))),
    ("app-messages-refused", [CONFIG, live(refused_messages=flooded("198.51.100.9"))]),
    (
        "app-messages-refused",
        [
            *ended(*thrice("lost-fin", 2.0, messages_in=4, messages_out=0)),
            records(events=[refused_message("198.51.100.20", "not-jsonpts")]),
        ],
    ),
    (
        "app-no-ws-library",
        [
            answer(404, body="Not Found"),
            CONFIG,
            seen(
                "service.log",
                events=[
                    {
                        "at": NOW,
                        "kind": "no-websocket-library",
                        "text": "No supported WebSocket library detected",
                    }
                ],
            ),
        ],
    ),
    (
        "app-wrong-worker",
        [
            CONFIG,
            seen(
                "net.listeners",
                listeners=[
                    {"port": 9000, "process": "gunicorn", "pid": p, "address": "0.0.0.0"}
                    for p in (11, 12)
                ],
            ),
        ],
    ),
    (
        "app-proxy-ip-trust",
        [
            *nginx(lines=[proxied(5.0, at=NOW - 9)]),
            CONFIG,
            records([attempt("accepted", 101, peer="127.0.0.1", headers=HEADERS)]),
        ],
    ),
    (
        "app-no-graceful-stop",
        [
            *ended(
                *[link("lost-fin", 500.0, NOW + 0.1 * n, controller=f"CAFE0{n}") for n in range(3)]
            ),
            seen(
                "host.unit",
                unit="ptslink.service",
                started=NOW + 1.5,
                result="success",
                active="active",
            ),
        ],
    ),
    (
        "app-dependency-down",
        [CONFIG, records(), live(journal={"ok": False, "reason": "disk I/O error"})],
    ),
]


@pytest.mark.parametrize(("cause", "evidence"), NAMED, ids=[cause for cause, _ in NAMED])
def test_the_first_finding_is_the_cause_of_the_data(cause: str, evidence: list[Evidence]) -> None:
    assert named(*evidence)[:1] == [cause]


@pytest.mark.parametrize(("cause", "evidence"), NAMED, ids=[cause for cause, _ in NAMED])
def test_nothing_else_is_as_sure(cause: str, evidence: list[Evidence]) -> None:
    sure = {f.id for f in verdict(*evidence).findings if f.match.confidence >= 0.9}
    assert sure <= {cause}


# --- Pairs that look alike ---------------------------------------------------------------------

HARD: list[tuple[str, str, list[Evidence]]] = [
    # (right, wrong, evidence): both end after nginx's 60 s; only pings and Recv-Q tell them apart.
    (
        "px-read-timeout-60",
        "app-event-loop-blocked",
        [
            *nginx(60.0, [proxied(60.0)], [CUT]),
            service_config(keepalive={"ping_interval_seconds": 0.0}),
            sockets(recv_q=0),
        ],
    ),
    (
        "app-event-loop-blocked",
        "px-read-timeout-60",
        [*nginx(60.0, [proxied(60.0)], [CUT]), CONFIG, sockets(recv_q=9000)],
    ),
    # Both sent 1011 after ping interval + timeout; the kernel's queue tells life from death.
    (
        "ws-ping-unanswered",
        "tcp-half-open-ghost",
        [
            *ended(*thrice("ping-timeout", 40.02, **PINGLESS, messages_in=9, messages_out=9)),
            sockets(),
        ],
    ),
    (
        "",
        "ws-ping-unanswered",
        [
            *ended(*thrice("ping-timeout", 40.02, **{**PINGLESS, "transport": "aborted"})),
            sockets(send_q=33, timer="on", state="FIN-WAIT-1", retrans=3),
        ],
    ),
    # An idle end with nginx's line is nginx's; without it, behind another proxy, the other's.
    (
        "px-other-idle-timeout",
        "px-read-timeout-60",
        [
            *nginx(300.0),
            CONFIG,
            answer(101, headers={"Via": "1.1 front"}),
            seen("ws.idle", "site", Status.FAILED, after_seconds=60.0, seconds=90),
        ],
    ),
    # Somebody else's page: whoever answers for an address that nobody has is no port forward.
    (
        "px-captive-portal",
        "nat-forward-wrong-host",
        [
            seen("tcp.connect", "site", address="192.0.2.7", port=9000, errno=None),
            answer(200, headers={"Server": "lighttpd"}, body="<html>hello</html>"),
            seen("tcp.nobody", "site", address="192.0.2.1", port=9000, errno=None),
            seen("net.addresses", addresses=[{"address": "192.0.2.7", "scope": "global"}]),
            seen("net.watch", seconds=3.0, ports=[9000], **NOTHING_CAME),
            CONFIG,
        ],
    ),
    (
        "nat-forward-wrong-host",
        "px-captive-portal",
        [
            seen("tcp.connect", "site", address="192.0.2.7", port=9000, errno=None),
            answer(200, headers={"Server": "GoAhead"}, body="<html>hello</html>"),
            seen("tcp.nobody", "site", address="192.0.2.1", port=9000, errno="ETIMEDOUT"),
            seen("net.addresses", addresses=[{"address": "192.0.2.7", "scope": "global"}]),
            seen("net.watch", seconds=3.0, ports=[9000], **NOTHING_CAME),
            CONFIG,
        ],
    ),
    # Who lost the Upgrade header: the device, a site's proxy, nginx.
    (
        "hs-device-no-upgrade",
        "px-upgrade-headers-missing",
        [*nginx(lines=[proxied(0.0, status=426, upgrade=None)]), CONFIG],
    ),
    (
        "px-forward-proxy",
        "hs-device-no-upgrade",
        [*nginx(lines=[proxied(0.0, status=426, upgrade=None, via="1.1 site (squid)")]), CONFIG],
    ),
    (
        "px-upgrade-headers-missing",
        "px-forward-proxy",
        [*nginx(lines=[proxied(0.0, status=426)]), CONFIG],
    ),
    # The same alert 40: the key's kind decides.
    (
        "tls-ecdsa-cert-rsa-client",
        "tls-no-shared-cipher",
        [
            *nginx(events=[event("tls-failed", reason="no shared cipher", port=443, request=None)]),
            served(key="ecdsa"),
            HURT,
        ],
    ),
    (
        "tls-no-shared-cipher",
        "tls-ecdsa-cert-rsa-client",
        [
            *nginx(events=[event("tls-failed", reason="no shared cipher", port=443, request=None)]),
            served(key="rsa"),
            HURT,
        ],
    ),
    # The same alert 45: the certificate's own dates decide.
    (
        "tls-cert-expired",
        "tls-device-clock",
        [*nginx(events=[alert(45)]), served(not_after=NOW - 86400.0), HURT],
    ),
    (
        "tls-device-clock",
        "tls-cert-expired",
        [*nginx(lines=[GOOD_TLS], events=[alert(45)]), served(), HURT],
    ),
    # The same alert 48: did the chain lead elsewhere before, and just now?
    (
        "tls-root-rotated",
        "tls-untrusted-ca",
        [*nginx(events=[alert(48)]), on_disk(["CN = Own"], "BB", before=["CN = Own"]), HURT],
    ),
    (
        "tls-untrusted-ca",
        "tls-root-rotated",
        [*nginx(events=[alert(48)]), on_disk(["CN = Own"], before=["CN = Own"]), HURT],
    ),
    (
        "tls-untrusted-ca",
        "tls-root-rotated",
        [*nginx(events=[alert(48)]), on_disk(["CN = R3"], before=["CN = pts"]), HURT],
    ),
    # The same alert 48: is who names no server shown another's certificate?
    ("tls-sni-missing", "tls-untrusted-ca", [*nginx(events=[alert(48)]), *shown("AA", "BB"), HURT]),
    ("tls-untrusted-ca", "tls-sni-missing", [*nginx(events=[alert(48)]), *shown("AA", "AA"), HURT]),
    # The same alert 42: is the certificate of the name that is dialled?
    (
        "tls-device-clock",
        "tls-name-mismatch",
        [*nginx(events=[alert(42)]), served(sans=["IP Address:192.0.2.7"]), HURT],
    ),
    (
        "tls-name-mismatch",
        "tls-device-clock",
        [*nginx(events=[alert(42)]), served(sans=["DNS:pts.example.test"]), HURT],
    ),
    # Of a chain's certificates one above the leaf is over: whoever minds says so.
    (
        "tls-cert-expired",
        "tls-device-clock",
        [
            *nginx(events=[alert(45)]),
            served(
                chain=[
                    {"subject": "CN = pts", "not_after": NOW + 1e6},
                    {"subject": "CN = R3", "not_after": NOW - 1e6},
                ]
            ),
            HURT,
        ],
    ),
    # A record too large is acknowledged; a hole in the path is retransmitted into.
    (
        "",
        "tls-record-too-large",
        [
            *nginx(events=[event("tls-closed", request=None, port=443)]),
            served(chain_bytes=[5700]),
            sockets(retrans=4, backoff=3),
            HURT,
        ],
    ),
    # 404: who said it, and was it the path asked for?
    (
        "hs-wrong-path",
        "px-location-404",
        [*nginx(lines=[proxied(0.0, status=404, by="nginx", path="/typo")]), CONFIG],
    ),
    (
        "px-location-404",
        "hs-wrong-path",
        [*nginx(lines=[proxied(0.0, status=404, by="nginx")]), CONFIG],
    ),
    (
        "px-path-rewrite",
        "hs-wrong-path",
        [
            *nginx(
                lines=[proxied(0.0, status=404)],
                settings={"proxy_pass": "http://127.0.0.1:9000/x/"},
            ),
            CONFIG,
        ],
    ),
    # 444: the link's own location, or another site that answers for the address.
    ("px-access-denied", "px-default-server", hung_up()),
    ("px-access-denied", "px-default-server", hung_up(when='$http_user_agent = ""')),
    ("px-default-server", "px-access-denied", hung_up(by_another_site=True)),
    # 429 and 503: ours or nginx's.
    ("app-rate-lockout", "px-limit-req", refused("rate-limited", 429)),
    (
        "px-limit-req",
        "app-rate-lockout",
        [
            *nginx(
                lines=[proxied(0.0, status=503, by="nginx", upgrade="websocket")],
                events=[event("limit-req", text='limiting requests, excess: 0.8 by zone "r"')],
            ),
            CONFIG,
        ],
    ),
    # A handler that fails explains why its links end, whatever else was agreed.
    (
        "app-handler-exception",
        "ws-deflate-unsupported",
        [*nginx(lines=young(0.5, extensions=DEFLATE)), CONFIG, log(FAILED)],
    ),
    # Compression that is agreed to and lasts is no fault; nor is a first answer under way.
    (
        "",
        "ws-deflate-unsupported",
        [*nginx(lines=young(900.0, extensions=DEFLATE)), CONFIG],
    ),
    ("", "app-no-confirmation", [*nginx(), CONFIG, *HERE, waiting(210)]),
    ("", "app-no-confirmation", [*nginx(), CONFIG, *HERE, waiting(400, 34997)]),
    ("", "app-no-confirmation", [*nginx(), CONFIG, *HERE, waiting(129, 5000)]),
    # Much was said in all, but in no two links alike: confirmations, not one large request.
    (
        "",
        "ws-server-frame-too-big",
        [
            *nginx(
                lines=[proxied(5.0, at=NOW - 9 * n, bytes_sent=3000.0 * (n + 1)) for n in range(3)]
            ),
            CONFIG,
        ],
    ),
    # One process behind a listener that systemd opened, or under a master, is one.
    (
        "",
        "app-wrong-worker",
        [
            CONFIG,
            seen(
                "net.listeners",
                listeners=[
                    {
                        "port": 9000,
                        "process": "gunicorn",
                        "pid": 3,
                        "workers": [4],
                        "address": "0.0.0.0",
                    }
                ],
            ),
        ],
    ),
    # Where nobody runs, what waits at systemd's listener waits for a start.
    (
        "",
        "app-event-loop-blocked",
        [
            CONFIG,
            sockets(recv_q=390),
            seen("link.local", went=Status.FAILED, hop="service", port=9000, ended="timeout"),
            seen(
                "net.listeners",
                listeners=[
                    {
                        "port": 9000,
                        "process": "systemd",
                        "pid": 1,
                        "workers": [1],
                        "address": "0.0.0.0",
                        "queue": 2,
                    }
                ],
            ),
        ],
    ),
    # One id: two addresses quarrel; a rebooting unit comes from one.
    (
        "app-dup-id-replaced",
        "app-ghost-blocks",
        [
            CONFIG,
            records(
                [
                    attempt("accepted", 101, NOW - n, peer=f"198.51.100.{20 + n % 4}")
                    for n in (6, 4, 2, 0)
                ],
                [link("closed-4000-by-server", 2.0, NOW - n, **REPLACED) for n in (4, 2, 0)],
            ),
        ],
    ),
    (
        "",
        "app-dup-id-replaced",
        [
            CONFIG,
            records(
                [attempt("accepted", 101, NOW - n) for n in (6, 4, 2, 0)],
                [link("closed-4000-by-server", 2.0, NOW - n, **REPLACED) for n in (4, 2, 0)],
            ),
        ],
    ),
    # All at once: a reload, a restart of nginx, a stop of the service.
    (
        "px-reload-shutdown",
        "px-restart",
        [
            *nginx(
                lines=[proxied(500.0, at=NOW + 10.2)],
                events=[event("reloading", at=NOW, client=None)],
                worker_shutdown_timeout=10.0,
            ),
            CONFIG,
        ],
    ),
    (
        "",
        "px-reload-shutdown",
        [
            *nginx(
                lines=[proxied(500.0, at=NOW + 77.0)],
                events=[event("reloading", at=NOW, client=None)],
                worker_shutdown_timeout=10.0,
            ),
            CONFIG,
        ],
    ),
    (
        "",
        "app-no-graceful-stop",
        [
            *ended(
                link(
                    "closed-1012-by-server",
                    500.0,
                    NOW,
                    closed_by="server",
                    close_sent=(1012, "the server restarts"),
                    close_rcvd=(1012, ""),
                )
            ),
            seen("host.unit", unit="ptslink.service", started=NOW + 1.5, result="success"),
        ],
    ),
    (
        "",
        "app-no-graceful-stop",
        [
            *ended(link("lost-fin", 500.0, NOW)),
            seen("host.unit", unit="ptslink.service", started=NOW + 1.5, result="oom-kill"),
        ],
    ),
    # 1011 has two meanings; its words tell.
    (
        "",
        "app-handler-exception",
        ended(*thrice("ping-timeout", 40.0, **PINGLESS, messages_in=1, messages_out=1)),
    ),
    # Compression: the controller's bit, or ours.
    (
        "ws-rsv1-compressed",
        "ws-deflate-unsupported",
        ended(*thrice("rsv1-on-frame", 0.01, first_bytes={"hex": "c1"})),
    ),
    # A controller's own timer is a constant; chance is not.
    (
        "ws-device-idle-timeout",
        "px-other-idle-timeout",
        ended(
            *thrice("lost-fin", 35.0), config=service_config(keepalive={"ping_interval_seconds": 0})
        ),
    ),
    (
        "",
        "ws-device-idle-timeout",
        ended(
            link("lost-fin", 12.0, NOW - 99),
            link("lost-fin", 47.0, NOW - 50),
            link("lost-fin", 31.0),
            config=service_config(keepalive={"ping_interval_seconds": 0}),
        ),
    ),
    # A controller that hears pings every second and still leaves after 35 does not mind silence.
    (
        "",
        "ws-device-idle-timeout",
        ended(
            *thrice("lost-fin", 35.0),
            config=service_config(keepalive={"ping_interval_seconds": 1.0}),
        ),
    ),
    # A redirect to the server itself is nginx's; to somebody else a portal's.
    (
        "px-https-redirect",
        "px-captive-portal",
        [answer(302, headers={"Location": "https://192.0.2.7/", "Server": "nginx"})],
    ),
    (
        "px-captive-portal",
        "px-https-redirect",
        [answer(302, headers={"Location": "http://login.example/"}, body="<html>")],
    ),
]


@pytest.mark.parametrize(
    ("right", "wrong", "evidence"),
    HARD,
    ids=[f"{right or 'other'}-not-{w}" for right, w, _ in HARD],
)
def test_a_hard_pair_is_told_apart(right: str, wrong: str, evidence: list[Evidence]) -> None:
    found = named(*evidence)
    assert wrong not in found
    assert not right or found[:1] == [right]


# --- Health ------------------------------------------------------------------------------------

WORKING = [
    answer(101, headers={"Server": "nginx", "Sec-WebSocket-Accept": "x"}, accept_ok=True),
    seen("ws.accept", "site", expected="x", got="x", protocol=None, extensions=None),
    seen("ws.idle", "site", seconds=30, server_pings=1),
    seen("ws.close", "site", code=1000, reason=""),
    seen("tls.handshake", "site", version="TLSv1.3"),
    seen(
        "nginx.process",
        running=True,
        installed=True,
        test_ok=True,
        test_message="",
        started=NOW - 9e5,
        reloaded=NOW - 9e4,
        workers=[{"pid": 7, "files": 20, "files_limit": 1024}],
    ),
    seen("host.unit", unit="ptslink.service", started=NOW - 9e4, result="success", active="active"),
    seen(
        "net.listeners",
        listeners=[
            {
                "port": 9000,
                "process": "python3",
                "pid": 11,
                "queue": 0,
                "address": "0.0.0.0",
                "family": "ipv4",
            }
        ],
    ),
    sockets(),
    live(500.0),
    seen("link.local", hop="service", port=9000, status=101, accept_ok=True),
    seen("service.log", events=[]),
]
HISTORY = records(
    [attempt("wrong-path", 404, NOW - 900), attempt("accepted", 101, NOW - 500)],
    [link("closed-1000-by-peer", 300.0, NOW - 600, **CLEAN, messages_in=50, messages_out=50)],
)


@pytest.mark.parametrize("read_timeout", [65.0, 300.0, 3600.0])
@pytest.mark.parametrize("interval", [5.0, 20.0, 60.0])
@pytest.mark.parametrize("fronted", [True, False])
def test_a_healthy_system_gets_no_finding(
    read_timeout: float, interval: float, fronted: bool
) -> None:
    config = service_config(keepalive={"ping_interval_seconds": interval})
    own = [proxied(300.0, at=NOW - 600), proxied(0.001, at=NOW - 900, status=404, path="/old")]
    evidence = [*WORKING, config, HISTORY, served(verify=0)]
    evidence += nginx(read_timeout, own) if fronted else []
    assert named(*evidence) == []


@pytest.mark.parametrize(
    ("unattended", "code", "found"),
    [
        (True, "lost-fin", True),
        (True, "closed-1012-by-server", True),
        (False, "lost-fin", True),
        # An operator's own restart after his own packages.
        (False, "closed-1012-by-server", False),
    ],
)
def test_an_upgrade_is_blamed_for_the_links_that_a_restart_ended(
    unattended: bool, code: str, found: bool
) -> None:
    closing = {**CLEAN, "closed_by": "server"} if code.startswith("closed") else {}
    evidence = [
        CONFIG,
        records(links=[link(code, 300.0, NOW - 100.0, **closing)]),
        seen("host.clock", now=NOW),
        seen("host.upgrades", runs=[{"start": NOW - 140.0, "end": NOW - 130.0,
                                     "packages": ["nginx"], "unattended": unattended}]),
        seen("host.unit", unit="nginx.service", started=NOW - 99.0, result="success"),
    ]  # fmt: skip
    assert ("host-auto-upgrade" in named(*evidence)) is found
    elsewhen = [seen("host.unit", unit="nginx.service", started=NOW - 60.0, result="success")]
    assert "host-auto-upgrade" not in named(*evidence[:-1], *elsewhen)


def test_a_refused_version_is_not_over_when_somebody_else_gets_through_nginx() -> None:
    evidence = [
        *nginx(lines=[proxied(0.0, status=426)]),
        CONFIG,
        records([attempt("version-unsupported", 426, NOW, peer="127.0.0.1", proxy="127.0.0.1")]),
        seen("link.local", hop="nginx", port=80, status=101, accept_ok=True),
    ]
    assert named(*evidence)[:1] == ["hs-bad-version"]


def test_controllers_that_read_lower_case_header_names_are_healthy() -> None:
    lowered = answer(101, headers={"sec-websocket-accept": "x", "upgrade": "websocket"})
    (guess,) = verdict(lowered, CONFIG).findings
    assert (guess.id, guess.match.confidence < 0.5) == ("px-header-case", True)
    assert named(lowered, CONFIG, live(500.0)) == []


def test_a_controller_that_reconnects_now_and_then_is_healthy() -> None:
    links = [
        link("lost-rst", s, NOW - at, messages_in=9, messages_out=9)
        for s, at in ((86_000.0, 95_000.0), (3_000.0, 80_000.0))
    ]
    assert named(*WORKING, CONFIG, records(links=links)) == []


def handshakes(reasons: list[str], **more: Any) -> list[dict[str, Any]]:
    """Failed TLS handshakes of somebody nameless, a second apart, the last one now."""
    last = len(reasons) - 1
    return [
        event("tls-failed", NOW - (last - n), reason, reason=reason, port=443, request=None, **more)
        for n, reason in enumerate(reasons)
    ]


OLD = ["unsupported protocol"] * 6
STRANGE = ["unsupported protocol", "no shared cipher", "unsupported protocol", "bad key share"]


def probe_line(at: float, **line: Any) -> dict[str, Any]:
    return proxied(0.1, at, "0" * 16 + "ABCDEF01", **line)


@pytest.mark.parametrize(
    ("why", "lines", "events", "window"),
    [
        ("a controller", [], handshakes(OLD), None),
        ("a probe behind the same address", [probe_line(NOW + 1)], handshakes(OLD), None),
        ("a long probe", [probe_line(NOW + 70)], handshakes(OLD), (NOW + 3, NOW + 71)),
    ],
)
def test_a_nameless_controller_that_fails_at_tls_again_and_again_is_in_trouble(
    why: str, lines: Any, events: Any, window: tuple[float, float] | None
) -> None:
    probed = [answer(101)] if lines else []
    if window:
        probed.append(seen("survey.window", "site", **{"from": window[0], "to": window[1]}))
    found = named(*nginx(lines=lines, events=events), offer12(), *probed)
    assert found[:1] == ["tls-client-version-too-old"], why


@pytest.mark.parametrize(
    ("why", "lines", "events"),
    [
        ("a scanner", [], handshakes(STRANGE)),
        ("a burst", [], [{**one, "time": NOW} for one in handshakes(OLD)]),
        ("this machine", [], handshakes(OLD, client="127.0.0.1")),
        ("it gave up, and a probe gets in", [probe_line(NOW + 60)], handshakes(OLD)),
        ("it got in", [proxied(5.0, NOW + 6)], handshakes(OLD)),
        ("the kinds a probe tries", [probe_line(NOW - n) for n in range(4)], handshakes(OLD)),
        ("one who knows a controller's address", [proxied(5.0, NOW - 9)], handshakes(OLD[:1])),
    ],
)
def test_other_failing_handshakes_are_nobodys_trouble(why: str, lines: Any, events: Any) -> None:
    assert named(*nginx(lines=lines, events=events), offer12(), answer(101)) == [], why


def test_a_fault_that_is_over_is_not_reported() -> None:
    broken = thrice("rsv1-on-frame", 0.01, first_bytes={"hex": "c1"})
    assert named(CONFIG, records(links=broken), live(300.0)) == []
    assert named(CONFIG, records(links=broken), live(3.0))[:1] == ["ws-rsv1-compressed"]


def storm(later: dict[str, Any], told: Any = range(10)) -> list[Evidence]:
    """Twenty links in 40 s; the log tells of those with the numbers *told*, and the ten after its
    end ended as *later* says."""
    lines = [proxied(0.01, at=NOW - 40 + 2 * n, bytes_sent=226.0) for n in range(10)]
    lines += [proxied(0.01, at=NOW - 20 + 2 * n, **{"bytes_sent": 226.0, **later})
              for n in range(10)]  # fmt: skip
    events = [{"at": NOW - 40 + 2 * n, "kind": "rate-limited", "text": "Rate limiting PTS AABB",
               "unit": "guide.service"} for n in told]  # fmt: skip
    return [*nginx(lines=lines), CONFIG, seen("service.log", events=events)]


def test_a_log_that_falls_silent_spoke_of_the_links_that_went_on_to_end_alike() -> None:
    assert named(*storm({}))[:1] == ["app-rate-lockout"]


@pytest.mark.parametrize(
    ("later", "told"),
    [({"bytes_sent": 129.0}, range(10)), ({"path": "/other"}, range(10)), ({}, range(0, 10, 3))],
    ids=["ended otherwise", "asked for another path", "told of a few only"],
)
def test_a_log_that_falls_silent_says_nothing_of_other_ends(later: Any, told: Any) -> None:
    assert "app-rate-lockout" not in named(*storm(later, told))


def test_too_many_open_files_are_no_limit_on_attempts() -> None:
    closed = closed_at_the_site(1011, "too many open files")
    assert "app-rate-lockout" not in named(closed, CONFIG)


def test_nothing_is_inferred_from_what_was_skipped() -> None:
    skipped = [
        Evidence(p.probe, Status.SKIPPED, "no root", p.facts, 0, p.vantage)
        for _, evidence in NAMED
        for p in evidence
    ]
    assert named(*skipped) == []


def test_an_empty_case_has_no_finding() -> None:
    assert named() == []


UPPER = [
    cause
    for cause in CAUSES
    if cause.layer.value in ("tls", "proxy", "http-upgrade", "ws-protocol", "application")
]


@pytest.mark.parametrize("cause", UPPER, ids=[cause.id for cause in UPPER])
def test_every_cause_says_what_to_do_and_what_will_be_seen(cause: Any) -> None:
    assert cause.fix.summary.endswith((".", ";", "}"))
    assert cause.fix.expect.endswith(".")
    assert cause.fix.command or cause.fix.controller or cause.fix.ansible or cause.fix.auto != "yes"
    known = {other.id for other in CAUSES}
    assert set(cause.aftermath) <= known
    assert cause.id not in cause.aftermath


def broken_head(manner: str, profile: Profile) -> tuple[str, int] | None:
    """The refusal a simulated controller's malformed request gets; None: it is let in."""
    sent = upgrade_head(authority="192.0.2.7:3000", path="/ptsWebSocket", key=new_key(),
                        origin=None, controller_id=CONTROLLER)  # fmt: skip
    bent = bend([f"hs-malformed-request={manner}"])
    raw = reduce(lambda head, change: change(head), bent.head, sent).encode()
    rules = Rules(path="ptsWebSocket", profile=profile)
    if (early := looks_wrong(raw)) is not None:
        return early.code, early.status
    try:
        # The head ends where it ends; what follows is the body.
        answer = judge_head(parse_head(raw[: head_end(raw)]), rules)
    except HeadError as error:
        return error.code, error.status
    return (answer.code, answer.status) if answer.status != 101 else None


@pytest.mark.parametrize(
    ("manner", "profile"),
    [("lf", "strict"), ("body", "lenient"), ("body", "strict"), ("garbage", "lenient")],
)
def test_every_malformed_request_a_controller_can_send_is_named(
    manner: str, profile: Profile
) -> None:
    refusal = broken_head(manner, profile)
    assert refusal is not None
    code, status = refusal
    known = {} if manner != "garbage" else {"method": None, "path": None, "headers": None}
    assert named(*refused(code, status, **known))[0] == "hs-malformed-request"
    # Without an id it is a stranger's, until it comes again and again.
    tries = [attempt(code, status, NOW - n, controller="", **known) for n in (3, 2, 1, 0)]
    assert named(CONFIG, records(tries))[0] == "hs-malformed-request"


def test_line_feeds_alone_are_no_fault_for_a_lenient_server() -> None:
    assert broken_head("lf", "lenient") is None


def test_who_sends_messages_that_are_refused_is_named_with_what_would_let_controllers_in() -> None:
    too_many = flooded("203.0.113.0", "too-many-new-controllers", 7)
    limits = seen("service.config", config={"limits": {"new_controllers_per_address": 50}})
    [finding] = verdict(limits, live(refused_messages=too_many)).findings
    assert finding.match.evidence == ("203.0.113.0: 7 messages, too-many-new-controllers",)
    assert finding.fix.ansible == {
        "pts_server_settings": {"limits": {"new_controllers_per_address": 500}}
    }


def test_refused_messages_of_somebody_do_not_explain_why_a_link_fails() -> None:
    failed = answer(502, body="Bad Gateway")
    found = named(failed, CONFIG, live(refused_messages=flooded("198.51.100.9")))
    assert found[0].startswith("unlisted-")
    assert "app-messages-refused" in found


def test_a_server_that_refused_nothing_has_no_such_finding() -> None:
    assert named(CONFIG, live(refused_messages={"messages": 0, "addresses": []})) == []
