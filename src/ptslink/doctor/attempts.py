"""Attempts to make the link, whoever saw them: one shape for probes, nginx's logs and our records.

The same attempt leaves traces in several places (an access line, an error line, a record of the
service); here they are put together again. Causes judge attempts, not log formats. Pure.

Facts read (``?`` = may be missing):

``http.upgrade`` (site, control) and ``link.local`` (server; also ``hop``: ``nginx`` or
``service``), one a try; those with a ``variation`` are no attempts of their own
    ``status``? int, ``headers``? {name: value} of the answer as received, ``body``? str (its
    start), ``first_bytes``? hex of an answer that is not HTTP, ``ended``? ``fin``/``rst``/
    ``timeout``, ``errno``? str, ``scheme`` ws/wss, ``port`` int, ``path``, ``host`` (the header as
    sent), ``expected``?/``got``? the Sec-WebSocket-Accept values, ``controller_id``, ``at``? epoch
    seconds
``nginx.access``, ``nginx.error``  see :mod:`ptslink.doctor.collect.nginx`
``service.records``                see :mod:`ptslink.doctor.collect.service`
``capture.stream``                 see :mod:`ptslink.doctor.capture`
``survey.window``? ``from``, ``to`` (epoch seconds): when a probe was trying variations
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from ptslink.doctor.evidence import Case, Evidence, Json, Status, once
from ptslink.doctor.probe_traces import (
    is_variation,
    still_trying,
    without_probes_handshakes,
)

#: Ids that begin so are a probe's, never a controller's.
PROBE_ID_PREFIX = "0" * 16
#: Traces of one attempt in two logs lie this close, in seconds (nginx's error log has whole ones).
SAME_SECONDS = 1.6
#: How addresses of this machine's own loopback begin.
_HERE = ("127.", "::1")
#: Who last tried longer ago than this, seen from the newest trace, is not trying now (seconds).
RECENT_SECONDS = 3600.0
#: So many failures of one kind in a row by a stranger (no id, no Upgrade), over so many seconds
#: at least, are taken seriously: a scanner tries one thing after the other, a controller one thing.
STRANGER_TRIES = 3
STRANGER_SECONDS = 1.5


#: Refusals of ours that a probe, which is no controller, gets from a service that is well.
_JUDGED = frozenset({"controller-not-allowed", "missing-credentials", "signature-missing"})


#: The doctor's own tries, by the place they came from.
_PROBES = ("site", "control", "local")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to make the link, as far as it was seen."""

    #: ``site``, ``control``, ``local`` (probes), ``nginx`` or ``service`` (traces).
    source: str
    #: Who tried: the controller's id, or the address, or the probe.
    subject: str
    #: When it ended, epoch seconds.
    at: float | None = None
    client: str | None = None
    controller: str | None = None
    #: HTTP status of the answer; None: no answer in HTTP.
    status: int | None = None
    #: Whose status it is: ``nginx``, ``backend`` or None (cannot be told).
    by: str | None = None
    #: Our service's name for the refusal, and its sentence.
    code: str | None = None
    reason: str = ""
    method: str | None = None
    path: str | None = None
    version: str | None = None
    host: str | None = None
    port: int | None = None
    tls: bool | None = None
    #: Whether an Upgrade header reached the place it was seen at; None: not known.
    upgrade: bool | None = None
    via: str | None = None
    #: Request headers as our service saw them, names in lower case.
    request: Mapping[str, str] = field(default_factory=dict)
    #: Headers of the answer, names as received.
    answer: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    #: The start of what was not HTTP, sent by the server (probes) or the client (traces).
    first_bytes: bytes = b""
    #: How the connection ended without an answer: ``fin``, ``rst``, ``timeout``.
    ended: str | None = None
    #: Request time in nginx, seconds.
    seconds: float | None = None
    #: The path as our service saw it, where nginx stood before it.
    backend_path: str | None = None
    #: The upstream nginx asked.
    upstream: str | None = None
    #: nginx's error events of this attempt.
    events: tuple[Mapping[str, Json], ...] = ()
    #: Which hop a local probe went to.
    hop: str | None = None
    #: The raw facts of a probe.
    facts: Mapping[str, Json] = field(default_factory=dict)

    @property
    def asked(self) -> str | None:
        """The path it asked for; where nobody could read the request, its second word."""
        words = self.first_bytes.split(b" ", 2)
        return self.path or (words[1].decode("latin-1") if len(words) > 1 else None)

    @property
    def stranger(self) -> bool:
        """Whether a probe was told, as it must be, that it is no controller of this server.

        One that came with a controller's own id speaks for that controller.
        """
        if self.source == "nginx" and self.by_probe and self.code is None:
            # nginx logs a try at once, the service some moments later: its answer is told already.
            return self.by == "backend" and self.status in (401, 403)
        if self.source not in _PROBES or self.code not in _JUDGED:
            return False
        return not self.controller or self.by_probe or self.code != "controller-not-allowed"

    @property
    def succeeded(self) -> bool:
        """Whether the link was made, or a probe was turned away as a stranger.

        An allow-list or passwords keep a probe out; that it was judged proves the way there.
        """
        return self.stranger or (self.status == 101 and self.facts.get("accept_ok") is not False)

    @property
    def limited(self) -> bool:
        """Whether a limit on attempts refused it, ours or nginx's."""
        return (
            self.status == 429
            or self.code == "rate-limited"
            or self.event("limit-req", "limit-conn") is not None
        )

    def event(self, *kinds: str) -> Mapping[str, Json] | None:
        """The first of nginx's events of one of *kinds*."""
        return next((event for event in self.events if event["kind"] in kinds), None)

    def header(self, name: str) -> str | None:
        """A header of the answer, whatever its letter case."""
        return next((v for k, v in self.answer.items() if k.lower() == name.lower()), None)

    @property
    def by_probe(self) -> bool:
        """Whether it came with an id that only probes have."""
        return (self.controller or "").startswith(PROBE_ID_PREFIX)

    @property
    def speaks_proxy_protocol(self) -> bool:
        """Whether it began with the PROXY protocol's line, of version 1 or 2 (its section 2).

        Of version 2 nginx skips the empty lines in front and logs up to the next one: a zero byte.
        """
        start = self.first_bytes.lstrip(b"\r\n")
        return (
            self.code == "proxy-protocol"
            or start.startswith((b"PROXY ", b"\0\r\nQUIT\n"))
            or (start == b"\0" and self.source == "nginx")
        )

    @property
    def handshake(self) -> Mapping[str, Json] | None:
        """The event of a TLS handshake that failed: before it, nobody says who he is."""
        return self.event("tls-failed", "tls-alert", "tls-rejected", "tls-closed")

    @property
    def kind(self) -> tuple[Json, ...]:
        """What is the same of two attempts that fail for the same reason."""
        event = self.events[0] if self.events else {}
        told = (event.get("kind"), event.get("reason"), event.get("alert"))
        return (self.port, self.status, self.code, *told)

    def shown(self) -> str:
        """One line for a person."""
        what = " ".join(part for part in (self.method, self.path) if part) or "a connection"
        if self.status is not None:
            whose = {"nginx": " by nginx itself", "backend": " by the service"}.get(
                self.by or "", ""
            )
            how = f"answered {self.status}{whose}"
        elif self.events:
            how = str(self.events[0]["text"])[:120]
        elif self.first_bytes and self.source in _PROBES:
            how = f"answered with no HTTP: {self.first_bytes[:16]!r}"
        else:
            how = {"fin": "closed without a byte", "rst": "reset"}.get(
                self.ended or "", self.reason or "no answer"
            )
        dialled = self.facts.get("address") or self.host if self.source in _PROBES else None
        port = f" on port {self.port}" if self.port else ""
        port = f" at {dialled}{port}" if dialled else port
        return f"{self.source}: {what}{port} from {self.subject}: {how}"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One who tries and does not get through: the failures since the last success, in order."""

    subject: str
    failures: tuple[Attempt, ...]

    @property
    def first(self) -> Attempt:
        """The first error of the burst."""
        return self.failures[0]

    @property
    def root(self) -> Attempt:
        """The fault that keeps this one out now.

        A controller that retries each second turns any fault into a refusal by some limit, so
        limits come last: the root is the latest failure that is not a limit's.
        """
        own = [attempt for attempt in self.failures if not attempt.limited]
        if not own:
            return self.first
        latest = own[-1]
        if latest.source == "service" and latest.hop == "nginx":
            # nginx's log was read before this one came: its line of one before tells more.
            logged = (a for a in reversed(own) if a.source == "nginx")
            told = (latest.status, latest.code)
            return next((a for a in logged if (a.status, a.code) == told), latest)
        return latest

    @property
    def limits(self) -> tuple[Attempt, ...]:
        """The failures that a limit made."""
        return tuple(attempt for attempt in self.failures if attempt.limited)


@once
def attempts(case: Case) -> list[Attempt]:
    """Every attempt of the case, each once, in order of time (probes, which have none, last)."""
    traces = _traced(case)
    probes = list(_probed(case))
    own = {a.controller for a in probes if a.controller}
    traces = without_probes_handshakes(traces, case)
    kept = [trace for trace in traces if not is_variation(trace, own, case)]
    return sorted(kept, key=lambda a: a.at or 0.0) + probes


@once
def troubles(case: Case) -> list[Trouble]:
    """Who does not get through now, probes first."""
    every = attempts(case)
    newest = max((a.at for a in every if a.at is not None), default=0.0)
    addresses = {a.client for a in every if a.client and a.controller and not a.by_probe}
    # What a client saw fail is no stranger's knocking.
    confirmed = any(
        piece.status is Status.FAILED and not piece.facts.get("variation")
        for probe in ("tls.handshake", "http.upgrade", "ws.accept", "capture.stream")
        for piece in case.all(probe)
    )
    by_subject: dict[str, list[Attempt]] = {}
    for attempt in every:
        by_subject.setdefault(attempt.subject, []).append(attempt)
    found = []
    for subject, tries in by_subject.items():
        last = tries[-1]
        if last.at is not None and newest - last.at > RECENT_SECONDS:
            continue
        failures: list[Attempt] = []
        for attempt in tries:
            failures = [] if attempt.succeeded else [*failures, attempt]
        # A page asked for is no try at the link, and says nothing of whether its fault is over.
        if not confirmed:
            failures = _serious(failures, addresses)
        if failures and not _over(failures, every, case):
            found.append(Trouble(subject, tuple(failures)))
    return sorted(found, key=lambda t: t.first.at is not None)


#: What nginx answers alike to everybody: one who gets through proves that it is over.
_FOR_ALL = frozenset({301, 302, 303, 307, 308, 404, 444, 500, 502, 504})


def _over(failures: Sequence[Attempt], every: Iterable[Attempt], case: Case) -> bool:
    """Whether somebody's later success shows that this fault is gone.

    Somebody without an id is known by the address alone; a controller with an id has to get
    through itself, unless what stopped it was the same for all. Behind one address there may be
    a controller whose TLS fails and a probe whose TLS does not.
    """
    last = failures[-1]
    if last.at is None:
        return False
    for_all = _for_all(last, case)
    for attempt in every:
        if not attempt.succeeded or attempt.hop == "service":
            continue
        if attempt.at is not None and attempt.at <= last.at:
            continue
        if for_all:
            same = last.path is None or attempt.path in (None, last.path)
            # A GET that gets through says nothing of a POST.
            same = same and (last.method is None or attempt.method in (None, last.method))
            if same and not (attempt.source == "nginx" and attempt.port != last.port):
                return True
        anonymous = not last.controller or last.by_probe
        if anonymous and attempt.client is not None and attempt.client == last.client:
            if attempt.by_probe and last.handshake and still_trying(last.at, attempt.at, case):
                continue
            return True
    return False


def _for_all(last: Attempt, case: Case) -> bool:
    """Whether what stopped *last* was nginx, in a way that would stop everybody.

    A rule for one address or one controller is not; but where nginx has taken in its configuration
    anew since, who gets through now speaks for the rules that are there now.
    """
    if last.limited or last.source not in ("nginx", "capture"):
        return False
    if last.by != "nginx":
        return _altered(last)
    reloaded = case.fact("nginx.process", "reloaded")
    since = reloaded is not None and last.at is not None and last.at < float(reloaded)
    return last.status in _FOR_ALL or (since and last.handshake is None)


def _altered(attempt: Attempt) -> bool:
    """Whether the service refused what nginx made of the request, not what came to nginx."""
    if attempt.backend_path not in (None, attempt.path):
        return True
    named = attempt.code in ("upgrade-header-missing", "upgrade-required")
    # 426 with another reason is an answer to the version, which nginx leaves as it is.
    unnamed = attempt.status == 426 and attempt.code is None
    lost = named or unnamed or "upgrade" not in (attempt.request or {"upgrade": ""})
    too_old = attempt.status == 505 or attempt.code in ("http-1.0", "http-version")
    return bool(attempt.upgrade and lost) or (attempt.version == "1.1" and too_old)


def _serious(failures: Sequence[Attempt], addresses: AbstractSet[str | None]) -> list[Attempt]:
    """Those that are known to be a controller's tries, or a probe's, and those of strangers that
    are many of one kind in a row."""
    found = []
    for _, run in groupby(failures, key=lambda attempt: attempt.kind):
        tries = [attempt for attempt in run if not _from_here(attempt)]
        times = [attempt.at or 0.0 for attempt in tries]
        steady = len(times) >= STRANGER_TRIES and times[-1] - times[0] >= STRANGER_SECONDS
        found += tries if steady else [a for a in tries if _known(a, addresses)]
    return found


def _known(attempt: Attempt, addresses: AbstractSet[str | None]) -> bool:
    """Whether it is a probe's or a controller's; *addresses*: where controllers come from."""
    return bool(
        attempt.source in _PROBES
        or attempt.controller
        or attempt.upgrade
        or attempt.speaks_proxy_protocol  # no scanner's, a balancer's
        or (attempt.client in addresses and attempt.handshake is None)
    )


def _from_here(attempt: Attempt) -> bool:
    """Whether it is this machine's own knocking: a proxy's, a monitor's, the doctor's."""
    return (
        (attempt.source == "service" or attempt.handshake is not None)
        and not attempt.controller
        and str(attempt.client).startswith(_HERE)
    )


def _probed(case: Case) -> Iterator[Attempt]:
    for piece in case.evidence:
        if piece.probe in ("http.upgrade", "link.local") and not piece.facts.get("variation"):
            attempt = of_probe(piece)
            if attempt is not None:
                yield attempt


def of_probe(piece: Evidence) -> Attempt | None:
    """The attempt a probe made, or None when it never got as far as sending its request."""
    facts = piece.facts
    if facts.get("errno") is not None and facts.get("status") is None and not facts.get("ended"):
        return None
    if not any(facts.get(k) is not None for k in ("status", "ended", "first_bytes")):
        return None
    headers = facts.get("headers") or {}
    answer = dict(headers)
    raw = str(facts.get("first_bytes") or "")
    hop = facts.get("hop")
    at_hop = f"{hop} ({facts['address']})" if facts.get("address") else hop
    source = "local" if piece.probe == "link.local" else piece.vantage
    status = facts.get("status")
    body = str(facts.get("body") or "")
    verdict = _own_answer(body)
    attempt = Attempt(
        source=source,
        subject=f"the probe at {at_hop}" if hop else f"the probe ({piece.vantage})",
        at=None,
        controller=facts.get("controller_id"),
        status=status,
        method="GET",
        path=facts.get("path"),
        version="1.1",
        host=facts.get("host"),
        port=facts.get("port"),
        tls=facts.get("scheme") == "wss",
        upgrade=True,
        answer=answer,
        body=body,
        code=verdict.get("error"),
        reason=str(verdict.get("message") or ""),
        first_bytes=_hex(raw),
        ended=facts.get("ended"),
        hop=hop,
        facts=facts,
    )
    return replace(attempt, by=_whose(attempt))


def _whose(attempt: Attempt) -> str | None:
    """Whose answer it is, judged by its body: nginx signs its own error pages."""
    if attempt.status is None:
        return None
    if attempt.code is not None or attempt.hop == "service":
        return "backend"
    if "<center>nginx" in attempt.body or "nginx/" in attempt.body:
        return "nginx"
    return "backend" if attempt.body and "<html" not in attempt.body.lower() else None


def _own_answer(body: str) -> dict[str, Any]:
    """The refusal our service explains in JSON, or {}."""
    if not body.startswith("{"):
        return {}
    try:
        content = json.loads(body)
    except ValueError:
        # Cut off by the probe: the name stands first.
        head = body[: body.find(",")] + "}" if "," in body else ""
        try:
            content = json.loads(head) if head else {}
        except ValueError:
            return {}
    return content if isinstance(content, dict) and "error" in content else {}


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


# --- Traces on the server ----------------------------------------------------------------------


def _traced(case: Case) -> list[Attempt]:
    events = [
        event
        for piece in case.all("nginx.error")
        for event in piece.facts["events"]
        if event["kind"] not in NOT_OF_AN_ATTEMPT
    ]
    proxied = [
        _of_access(line) for piece in case.all("nginx.access") for line in piece.facts["lines"]
    ]
    proxied = _with_events(proxied, events)
    recorded = [
        _of_record(record)
        for piece in case.all("service.records")
        for record in piece.facts.get("attempts", [])
    ]
    captured = [
        attempt
        for piece in case.all("capture.stream")
        if (attempt := _of_stream(piece.facts)) is not None
    ]
    return [*_with_records(proxied, recorded), *captured]


#: What an alert sent by a server means, in the words of nginx's log (RFC 8446 6.2).
_SERVER_ALERTS: Mapping[int, tuple[str, str | None]] = {
    40: ("tls-failed", "no shared cipher"),
    70: ("tls-failed", "unsupported protocol"),
    80: ("tls-failed", "no suitable signature algorithm"),
    112: ("tls-rejected", None),
}


def _of_stream(facts: Mapping[str, Json]) -> Attempt | None:
    """The attempt a captured connection was; None where TCP itself failed or nothing was tried."""
    http, tls, end = facts["http"] or {}, facts["tls"] or {}, facts["end"]
    first = {who: _hex(text) for who, text in facts["first_bytes"].items()}
    events = tuple(_alert_event(alert, facts) for alert in tls.get("alerts", []) if alert["number"])
    if not facts["established"] or not (http or events or first):
        return None
    if tls and not events:
        return None  # TLS that succeeded hides what came after
    headers = {str(k).lower(): str(v) for k, v in (http.get("request") or {}).items()}
    attempt = Attempt(
        source="capture",
        subject=str(http.get("controller") or facts["client"]),
        at=facts["began"] + facts["seconds"],
        client=facts["client"],
        controller=http.get("controller"),
        status=http.get("status"),
        method=http.get("method"),
        path=http.get("path"),
        version=http.get("version"),
        host=http.get("host"),
        port=facts["server_port"],
        tls=bool(tls),
        upgrade=bool(http.get("upgrade")) if http else None,
        via=http.get("via"),
        request=headers,
        answer=http.get("headers") or {},
        first_bytes=b"" if http else first.get("client", b""),
        ended=end["how"] if end and not http.get("status") else None,
        events=events,
        facts=facts,
    )
    server = attempt.header("Server") or ""
    return replace(attempt, by="nginx" if "nginx" in server else "backend")


def _alert_event(alert: Mapping[str, Json], facts: Mapping[str, Json]) -> Mapping[str, Json]:
    number = alert["number"]
    kind, reason = ("tls-alert", None)
    if alert["by"] == "server":
        kind, reason = _SERVER_ALERTS.get(number, ("tls-failed", None))
    return {
        "kind": kind,
        "alert": number,
        "reason": reason,
        "port": facts["server_port"],
        "text": f"TLS alert {number} from the {alert['by']}",
    }


#: Events that speak of nginx itself or of an open link.
NOT_OF_AN_ATTEMPT = frozenset(
    {
        "upgraded-timeout",
        "upgraded-client-timeout",
        "upgraded-reset",
        "reloading",
        "stopping",
        "started",
        "worker-leaving",
        "worker-died",
        "configuration",
        "too-many-files",
        "too-few-connections",
    }
)


#: How nginx answers a request that it cannot read.
_UNREAD = (400, 414, 494, 505)


def _of_access(line: Mapping[str, Json]) -> Attempt:
    controller = line.get("controller")
    client = line.get("client")
    ours = "upgrade" in line
    return Attempt(
        source="nginx",
        subject=str(controller or client or "unknown"),
        at=line.get("time"),
        client=client,
        controller=controller,
        status=line.get("status"),
        # What it cannot read it answers itself, in whatever format that is logged.
        by=line.get("by") or ("nginx" if line.get("status") in _UNREAD else None),
        method=line.get("method"),
        path=line.get("path"),
        version=line.get("version"),
        host=line.get("host"),
        port=line.get("port"),
        tls=line.get("tls") is not None if ours else None,
        upgrade=bool(line.get("upgrade")) if ours and line.get("method") else None,
        via=line.get("via"),
        first_bytes=b"" if line.get("method") else str(line["request"]).encode("utf-8", "replace"),
        seconds=line.get("request_seconds"),
        upstream=line.get("upstream"),
        facts=line,
    )


def _with_events(proxied: Sequence[Attempt], events: Iterable[Mapping[str, Json]]) -> list[Attempt]:
    """Access lines with their error events; events that left no access line stand alone."""
    joined = list(proxied)
    by_client: dict[str | None, list[tuple[float, int]]] = {}
    for index, attempt in enumerate(joined):
        if attempt.at is not None:
            by_client.setdefault(attempt.client, []).append((attempt.at, index))
    for times in by_client.values():
        times.sort()
    for event in events:
        times = by_client.setdefault(event.get("client"), [])
        first = bisect_left(times, (event["time"] - SAME_SECONDS, 0))
        last = bisect_right(times, (event["time"] + SAME_SECONDS, len(joined)))
        near = [
            (abs(at - event["time"]), index)
            for at, index in times[first:last]
            if _belongs(event, joined[index])
        ]
        if near:
            index = min(near)[1]
            joined[index] = replace(joined[index], events=(*joined[index].events, event))
        elif event.get("client"):
            insort(times, (event["time"], len(joined)))
            joined.append(_of_event(event))
    return joined


#: What nginx answers after an event: traces of one second belong together by this, too.
STATUSES_OF: Mapping[str, tuple[int, ...]] = {
    "connect-timeout": (504,),
    "header-timeout": (504,),
    "connect-refused": (502,),
    "connect-denied": (502,),
    "connect-failed": (502,),
    "no-live-upstreams": (502,),
    "upstream-tls": (502,),
    "upstream-closed": (502,),
    "upstream-header": (502,),
    "limit-req": (503, 429),
    "limit-conn": (503, 429),
    "denied-by-rule": (403,),
    "auth-required": (401,),
    "auth-wrong": (401,),
    "no-file": (404, 403),
    "plain-to-tls": (400, 301, 302, 307, 308),
    "no-client-certificate": (400,),
    "client-certificate-bad": (400,),
    "invalid-request": (400, 405, 414, 494, 505),
    "header-slow": (408,),
    "client-left": (499,),
}


def other_connection(event: Mapping[str, Json], serial: int | None) -> bool:
    """Whether an error is known to be of another connection than an access line's *serial*."""
    return serial is not None and event.get("connection") not in (None, serial)


def _belongs(event: Mapping[str, Json], attempt: Attempt) -> bool:
    if attempt.at is None or abs(attempt.at - event["time"]) > SAME_SECONDS:
        return False
    if event.get("client") != attempt.client or event.get("request") is None:
        return False
    if other_connection(event, attempt.facts.get("serial")):
        return False
    if attempt.status not in STATUSES_OF.get(str(event["kind"]), (attempt.status,)):
        return False
    request = str(attempt.facts.get("request"))
    # nginx escapes what it cannot print, each log in its own way.
    return request == event["request"] or attempt.method is None


def _of_event(event: Mapping[str, Json]) -> Attempt:
    parts = str(event.get("request") or "").split(" ")
    whole = len(parts) == 3
    return Attempt(
        source="nginx",
        subject=str(event.get("client")),
        at=event["time"],
        client=event.get("client"),
        by="nginx",
        method=parts[0] if whole else None,
        path=parts[1] if whole else None,
        host=event.get("host"),
        port=event.get("port"),
        upstream=event.get("upstream"),
        events=(event,),
    )


def _of_record(record: Mapping[str, Json]) -> Attempt:
    controller = record.get("controller") or None
    peer = record.get("peer") or None
    headers = {str(k).lower(): str(v) for k, v in _pairs(record.get("headers"))}
    first = record.get("first_bytes") or {}
    return Attempt(
        source="service",
        subject=str(controller or peer or "unknown"),
        at=record.get("at"),
        client=peer,
        controller=controller,
        status=record.get("status") or None,
        by="backend",
        code=record.get("code"),
        reason=str(record.get("reason") or ""),
        method=record.get("method") or _method(str(first.get("text", ""))),
        path=record.get("path"),
        version=record.get("http"),
        host=headers.get("host"),
        port=record.get("local_port"),
        upgrade="upgrade" in headers if headers else None,
        via=headers.get("via"),
        request=headers,
        first_bytes=_hex(str(first.get("hex", "")).replace(" ", "")),
        # No controller stands on this machine: what comes from itself, a proxy of its own sent.
        hop="nginx" if record.get("proxy") or str(peer).startswith(_HERE) else None,
        facts=record,
    )


def _method(text: str) -> str | None:
    """The method of a request whose line at least could be read."""
    found = re.match(r"([A-Z]{3,8}) /\S* HTTP/1\.[01]\.\.", text)
    return found[1] if found else None


def _pairs(headers: Json) -> Iterable[tuple[Any, Any]]:
    if isinstance(headers, Mapping):
        return list(headers.items())
    return [(pair[0], pair[1]) for pair in headers or []]


def _with_records(proxied: Sequence[Attempt], recorded: Sequence[Attempt]) -> list[Attempt]:
    """nginx's attempts with what the service said of them; direct attempts stand alone."""
    joined = list(proxied)
    free: dict[tuple[str, int | None], list[int]] = {}
    for index, attempt in enumerate(joined):
        if attempt.by == "backend":
            free.setdefault((attempt.subject, attempt.status), []).append(index)
    for record in recorded:
        found = None
        # Of a head that it could not read, the service knows nobody but nginx as the sender.
        unread = not record.controller and _from_here(record)
        for key in (
            [(record.subject, record.status)]
            if record.hop == "nginx"
            else [key for key in free if unread and record.status and key[1] == record.status]
        ):
            for index in free.get(key, []):
                # An accepted link is logged by nginx when it ends, by the service when it begins.
                began = (joined[index].at or 0.0) - (joined[index].seconds or 0.0)
                if abs(began - (record.at or 0.0)) <= SAME_SECONDS:
                    found = index
                    break
            if found is not None:
                free[key].remove(found)
                break
        if found is None:
            joined.append(record)
            continue
        joined[found] = replace(
            joined[found],
            code=record.code,
            reason=record.reason,
            request=record.request,
            backend_path=record.path,
            first_bytes=record.first_bytes or joined[found].first_bytes,
        )
    return joined
