"""What a probe from the client side is called as evidence, and the plain link probe's as such.

The names a cause may rely on, vantage ``site`` (a controller's network) or ``control``. A key that
could not be found out is left out; FAILED is only what breaks the link asked for, and whatever
tries something else (another port, path, family of deviation) carries ``variation: true``.

``dns.resolve``   ``host``, ``is_address`` bool, ``addresses`` [str], ``errno`` null|EAI_*|ETIMEDOUT
``route.to``      ``address``, ``source``, ``gateway``, ``interface``, ``errno``
``tcp.connect``   one per address tried: ``address``, ``family`` ipv4|ipv6, ``port``, ``errno``
    null|ECONNREFUSED|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH, ``icmp``? {``from``, ``type``, ``code``}:
    who said so, other than by a RST; ``source``; ``ms`` is this attempt's
``tcp.port``      the same for another port of the same address, ``variation``
``tcp.again``     ``port``, ``attempts`` [{``errno``, ``ms``}]: quick connects in a row
``tcp.banner``    ``address``, ``port``, ``text``, ``hex``: bytes that came unasked, "" if none
``tls.handshake`` ``errno``, ``reason``, ``verify_code``, ``version``, ``cipher``, ``name``
``http.get``      ``status``, ``server``, ``location``, ``body``, ``date_offset_s``
``http.upgrade``  ``status``, ``headers``, ``body``, ``controller_id``, ``scheme``, ``port``,
    ``path``, ``host``, ``at``, ``errno``, ``ended``, ``first_bytes``; ``held_seconds``? how long
    the connection stayed open after another answer than 101, and ``held_ended`` fin|rst|timeout
``ws.accept``     ``expected``, ``got``, ``protocol``, ``extensions``, ``offered``
``ws.ping`` ``ws.large`` ``ws.idle`` ``ws.close``  see the probe
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ptslink.doctor.evidence import Evidence, Status
from ptslink.doctor.probe import LinkResult, Step
from ptslink.doctor.probe.link import refused
from ptslink.doctor.probe.target import is_address, parse_target

_NAMES = {
    "resolve": "dns.resolve",
    "connect": "tcp.connect",
    "tls": "tls.handshake",
    "get": "http.get",
    "upgrade": "http.upgrade",
    "accept": "ws.accept",
    "ping": "ws.ping",
    "echo": "ws.echo",
    "idle": "ws.idle",
    "close": "ws.close",
}


def link_evidence(result: LinkResult, vantage: str = "site") -> list[Evidence]:
    """The steps of a link probe as evidence, seen from *vantage*."""
    return [piece for step in result.steps for piece in _step(step, result, vantage)]


def _step(step: Step, result: LinkResult, vantage: str) -> Iterator[Evidence]:
    target = parse_target(result.url)
    facts: dict[str, Any] = dict(step.facts)
    match step.name:
        case "resolve":
            facts |= {"host": target.host, "is_address": is_address(target.host)}
            facts.setdefault("errno", None)
        case "connect" if facts.get("attempts"):
            source = facts.get("source")
            for attempt in facts["attempts"]:
                yield _attempt(attempt, target.port, source, vantage)
            return
        case "get":
            # No controller sends a plain GET: how it is answered says who is there, not more.
            facts["variation"] = True
        case "upgrade":
            facts |= {"controller_id": result.controller_id, "path": target.path}
            if step.status != "skipped":
                facts |= {"headers": dict(result.headers), "body": result.body}
    yield Evidence(_NAMES[step.name], Status(step.status), step.seen, facts, step.ms, vantage)


def _attempt(attempt: dict[str, Any], port: int, source: str | None, vantage: str) -> Evidence:
    address, errno, ms = attempt["address"], attempt["errno"], attempt["ms"]
    facts = {
        "address": address,
        "family": "ipv6" if ":" in address else "ipv4",
        "port": port,
        "errno": errno,
    }
    if errno is None and source:
        facts["source"] = source
    if attempt.get("icmp"):
        facts["icmp"] = attempt["icmp"]
    how = refused(attempt) if errno else "connected"
    seen = f"{address} port {port}: {how} after {ms:g} ms"
    status = Status.OK if errno is None else Status.FAILED
    return Evidence("tcp.connect", status, seen, facts, ms, vantage)
