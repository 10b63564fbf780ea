"""All a client can see of a link: the link itself, and where it breaks, what its surroundings say.

A healthy link is walked once, its TLS looked at, and a large message pushed through it: few
connections, nothing a server would hold against us. Only where the walk fails is more tried:
deviations of the request, other paths and ports. What tries something else than the link asked
for carries ``variation: true``; nothing here concludes.

Evidence beyond that of ``ptslink.doctor.probe_evidence``:

``tcp.connect``     with ``variation``: the addresses the walk had no need of
``tcp.port``        another port of the same address; where it answers, ``http.upgrade`` with
    ``tried`` ``port``: the upgrade there, with TLS where that is usual for the port
``tcp.nobody``      an address of :data:`NOBODY`: where it answers, something on the way answers for
    every address; only tried where somebody else than our service answered
``tcp.again``       ``port``, ``attempts`` [{``errno``, ``ms``}]: several connects at once
``tcp.banner``      ``text``, ``hex``, ``ended``: what came unasked
``tls.certificate`` of the certificate served: see ``certificate.read_certificate``, and ``chain``,
    ``chain_bytes``, ``now``, ``name``, ``port``; ``verify`` and ``verify_text`` when refused
``tls.offer``       ``variant`` (see ``secure.OFFERS``; ``tls-on-plain`` on a ws:// port), ``ok``,
    ``version``, ``cipher``, ``alert``, ``reason``, ``ended``, ``first_bytes``, ``largest_record``,
    ``fingerprint``
``ws.close``        of a connection that ended before its time: ``code`` and ``reason``, or
    ``ended``; ``after_seconds`` since the 101
``http.upgrade``    with ``variation`` and ``tried``: a name of ``trial.DEVIATIONS``, ``path``,
    ``host`` (another name in ``Host``: one the server is known by), or ``plain-on-tls``
``dns.server``      see ``names.ask_all``; ``route.trace``: see ``path.trace``
``ws.large``        see ``trial.send_large``
``tcp.packets``     see ``packets``: where it may, what all this looks like at the network card
``survey.window``   ``from``, ``to``: epoch seconds during which it tried things
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ptslink.doctor.evidence import Evidence, Status
from ptslink.doctor.probe import names, surroundings
from ptslink.doctor.probe.link import LinkProbe, ProbeOptions, refused
from ptslink.doctor.probe.packets import Packets
from ptslink.doctor.probe.path import trace
from ptslink.doctor.probe.response import shown
from ptslink.doctor.probe.result import LinkResult
from ptslink.doctor.probe.secure import OFFERS, Handshake, Offer, client_context, shake_hands
from ptslink.doctor.probe.stream import Address, bounded, resolve
from ptslink.doctor.probe.target import Target, is_address, parse_target
from ptslink.doctor.probe.trial import (
    DEVIATIONS,
    PATHS,
    PORTS,
    TLS_PORTS,
    Bend,
    Door,
    hear_banner,
    host_value,
    send_large,
    try_connect,
    try_upgrade,
)
from ptslink.doctor.probe_evidence import link_evidence

#: Answers that speak of the path alone, whatever the headers were.
ELSEWHERE_STATUSES = frozenset({301, 302, 307, 308, 404, 410})
#: Other answers after which another path may be the one that is served.
PATH_STATUSES = frozenset({200, 400, 403, 405})
#: Bound on each try beside the link, in seconds; the link itself has the caller's.
TRIAL_SECONDS = 3.0
#: Documentation addresses (RFC 5737, RFC 3849): no host has them, no route leads there.
NOBODY = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
#: Bound on connecting there: what intercepts is near.
NOBODY_SECONDS = 1.0
#: So many names of the server are tried in ``Host``.
MOST_NAMES = 3
#: Bound on asking for the name of an address.
NAME_SECONDS = 1.0
#: An upgrade answered so late is not tried in other forms.
LATE_SECONDS = 3.0
#: A connection that took this long lost its first SYN: it is sent again after 1 s (RFC 6298 2.1).
SLOW_CONNECT_MS = 900.0


def survey(
    url: str,
    *,
    vantage: str = "site",
    idle: float = 0.0,
    timeout: float = 5.0,
    ca: Path | None = None,
    address: str | None = None,
    controller_id: str | None = None,
    credentials: str | None = None,
    thorough: bool = False,
) -> Iterator[Evidence]:
    """Everything there is to see from here, piece by piece as it is found.

    ``thorough`` tries deviations, paths and ports even where the link works; the rest is as in
    ``link.ProbeOptions``.

    Raises:
        TargetError: *url* is not a ws:// or wss:// URL.
        OSError: the file *ca* cannot be read.
    """
    target = parse_target(url)
    began = time.time()
    options = ProbeOptions(
        address=address, timeout=timeout, idle=idle, ca=ca,
        controller_id=controller_id, credentials=credentials,
    )  # fmt: skip
    with Packets() as packets:
        result = LinkProbe(target, options).run()
        walked = link_evidence(result, vantage)
        yield from (piece for piece in walked if piece.probe == "dns.resolve")
        if result.step("resolve").status == "failed":
            yield from names.ask_all(target.host, min(timeout, TRIAL_SECONDS), vantage)
        routes = list(surroundings.before(_tried(result), vantage))
        yield from routes
        yield from (piece for piece in walked if piece.probe != "dns.resolve")
        yield from _ended(result, vantage)
        yield from surroundings.after(routes)
        tried = _tried(result)
        for piece in _around(target, result, options, thorough):
            if piece.probe == "tcp.connect":
                tried.append(piece.facts["address"])
            yield replace(piece, vantage=vantage)
        yield from packets.evidence(tried, {target.port, *PORTS}, vantage)
    window = {"from": round(began, 3), "to": round(time.time(), 3)}
    seen = f"tried for {window['to'] - window['from']:.1f} s"
    yield Evidence("survey.window", Status.OK, seen, window, vantage=vantage)


def _ended(result: LinkResult, vantage: str) -> Iterator[Evidence]:
    """How a WebSocket connection ended that was to go on, as what a close would have shown."""
    for name in ("ping", "echo", "idle"):
        step = result.step(name)
        keys = ("code", "reason", "ended", "after_seconds")
        facts = {key: step.facts[key] for key in keys if step.facts.get(key) is not None}
        if step.status == "failed" and facts:
            yield Evidence("ws.close", Status.FAILED, step.seen, facts, step.ms, vantage)


def _tried(result: LinkResult) -> list[str]:
    """The addresses the walk connected to, or tried to."""
    attempts = result.step("connect").facts.get("attempts", [])
    return [attempt["address"] for attempt in attempts]


def _around(
    target: Target, result: LinkResult, options: ProbeOptions, thorough: bool
) -> Iterator[Evidence]:
    timeout = min(options.timeout, TRIAL_SECONDS)
    addresses: list[Address] = []
    with contextlib.suppress(OSError):
        addresses = resolve(options.address or target.host, target.port, timeout)
    if not addresses:
        yield Evidence("tcp.port", Status.SKIPPED, "no address to try")
        return
    yield from _other_addresses(target, result, addresses, timeout)
    used = next((a for a in addresses if a.host == result.address), addresses[0])
    context = client_context() if target.tls else None
    door = Door(
        target, used, timeout, context, target.host, options.controller_id, options.credentials
    )
    if result.address is None:
        yield from _no_connection(door)
        return
    if thorough:
        yield from _other_ports(door)
    seen = list(_tls(door, options, result)) if target.tls else []
    yield from seen
    if not result.ok or thorough:
        yield from _http(door, result, thorough)
    if result.status in ELSEWHERE_STATUSES | PATH_STATUSES or _cut_off(result):
        yield from _other_names(door, result, seen)
    if result.ok:
        large = _large(door)
        yield large
        slow = result.step("connect").ms >= SLOW_CONNECT_MS
        if slow or large.facts.get("ended") == "timeout" or large.facts.get("errno"):
            # Lost packets and lost big packets look alike until small ones are counted.
            yield _again(door, 8)
    else:
        yield Evidence("ws.large", Status.SKIPPED, "the link does not work")


def _other_addresses(
    target: Target, result: LinkResult, addresses: list[Address], timeout: float
) -> Iterator[Evidence]:
    """Connect to the addresses that the walk had no need of: a controller may take any."""
    tried = _tried(result)
    for address in addresses:
        if address.host in tried:
            continue
        facts = try_connect(Door(target, address, timeout), target.port)
        yield _connected("tcp.connect", facts)


def _connected(probe: str, facts: dict[str, Any]) -> Evidence:
    ms = facts.pop("ms")
    errno = facts["errno"]
    how = refused(facts) if errno else "connected"
    seen = f"{facts['address']} port {facts['port']}: {how} after {ms:g} ms"
    status = Status.OK if errno is None else Status.UNKNOWN
    return Evidence(probe, status, seen, {**facts, "variation": True}, ms)


def _no_connection(door: Door) -> Iterator[Evidence]:
    """Where the way ends, and what else answers at that address."""
    with ThreadPoolExecutor(1) as pool:
        traced = pool.submit(trace, door.address)
        yield from _other_ports(door)
        yield traced.result()


def _other_ports(door: Door) -> Iterator[Evidence]:
    # At the same time: where everything is dropped each of them takes its whole bound.
    ports = [port for port in PORTS if port != door.target.port]
    with ThreadPoolExecutor(len(ports)) as pool:
        for found in pool.map(lambda port: _other_port(door, port), ports):
            yield from found


def _other_port(door: Door, port: int) -> list[Evidence]:
    """One other port, and where it answers the upgrade there: that a port is open says little."""
    facts = try_connect(door, port)
    connected = _connected("tcp.port", facts)
    if facts["errno"] is not None:
        return [connected]
    scheme = "wss" if port in TLS_PORTS else "ws"
    there = replace(
        door,
        target=replace(door.target, scheme=scheme, port=port),
        address=door.at_port(port),
        context=client_context() if scheme == "wss" else None,
    )
    piece = _upgraded(there, "port")
    return [connected, replace(piece, seen=f"{scheme} on port {port} in {piece.seen}")]


# TLS.


def _tls(door: Door, options: ProbeOptions, result: LinkResult) -> Iterator[Evidence]:
    name = options.server_name or door.target.host
    sni = None if is_address(name) else name
    plain = shake_hands(door.address, client_context(OFFERS[0]), sni, door.timeout)
    if plain.ended == "timeout" or plain.first_bytes:
        why = f"no TLS is spoken there: {plain.text()}"
        why = "a TLS handshake got no answer in time" if plain.ended == "timeout" else why
        yield Evidence("tls.offer", Status.SKIPPED, why)
    else:
        if not plain.chain:
            plain = shake_hands(door.address, client_context(), sni, door.timeout)
        context = client_context(ca=options.ca, verify=True)
        yield _certificate(
            door, name, shake_hands(door.address, context, name, door.timeout), plain
        )
        for offer in OFFERS:
            yield _offer(door, sni, offer)
    if result.step("tls").status == "failed":
        plainly = replace(door, target=replace(door.target, scheme="ws"), context=None)
        yield _upgraded(plainly, "plain-on-tls")


def _certificate(door: Door, name: str, verified: Handshake, plain: Handshake) -> Evidence:
    facts = plain.certificate_facts()
    if not facts:
        seen = f"no certificate was seen: {plain.text()}"
        return Evidence("tls.certificate", Status.UNKNOWN, seen, plain.facts(), plain.ms)
    facts |= {
        "port": door.target.port,
        "name": name,
        "now": round(time.time(), 1),
        "verify": 0 if verified.ok else verified.verify,
        "verify_text": verified.verify_text,
    }
    days = (facts["not_after"] - facts["now"]) / 86400
    seen = f"{facts['subject']}, {facts['key']}, " + (
        f"{days:.0f} days left" if days > 0 else f"expired {-days:.0f} days ago"
    )
    if verified.verify:
        seen += f"; {verified.verify_text}"
    return Evidence("tls.certificate", Status.OK, seen, facts, plain.ms)


def _offer(door: Door, sni: str | None, offer: Offer) -> Evidence:
    common = {"variant": offer.variant, "port": door.target.port, "variation": True}
    try:
        context = client_context(offer)
    except (ValueError, ssl.SSLError) as error:
        return Evidence("tls.offer", Status.SKIPPED, f"not possible here: {error}", common)
    if not offer.sni and sni is None:
        seen = "no-sni: no name is sent for an address anyway"
        return Evidence("tls.offer", Status.SKIPPED, seen, common)
    shaken = shake_hands(door.address, context, sni if offer.sni else None, door.timeout)
    facts = common | shaken.facts()
    facts["fingerprint"] = shaken.certificate_facts().get("fingerprint")
    status = Status.OK if shaken.ok else Status.UNKNOWN
    return Evidence("tls.offer", status, f"{offer.variant}: {shaken.text()}", facts, shaken.ms)


# HTTP.


def _http(door: Door, result: LinkResult, thorough: bool) -> Iterator[Evidence]:
    """What a slightly different upgrade sees: where it failed, or wherever *thorough*."""
    if result.step("tls").status == "failed":
        yield Evidence("http.upgrade", Status.SKIPPED, "TLS fails before it", {"variation": True})
        return
    answered = result.status is not None
    if answered and result.status != 101 and not result.body.startswith('{"error"'):
        yield from _nobody(door)
    if not answered:
        yield _banner(door)
        yield _again(door)
        if not door.target.tls:
            yield _tls_on_plain(door)
    if _waited(result):
        seen = "the upgrade was long waited for; each bent one would have to be as well"
        yield Evidence("http.upgrade", Status.SKIPPED, seen, {"variation": True})
        return
    if result.status not in ELSEWHERE_STATUSES:
        for name, bend in DEVIATIONS.items():
            yield _upgraded(door, name, bend)
    if result.status in ELSEWHERE_STATUSES | PATH_STATUSES or thorough:
        for path in PATHS:
            if path != door.target.path:
                yield _upgraded(door, "path", path=path)


def _waited(result: LinkResult) -> bool:
    """Whether the upgrade got no answer, or a late one: that of a proxy that waited itself."""
    upgrade = result.step("upgrade")
    seconds = upgrade.ms / 1000 - upgrade.facts.get("held_seconds", 0.0)
    return upgrade.facts.get("ended") == "timeout" or seconds >= LATE_SECONDS


def _nobody(door: Door) -> Iterator[Evidence]:
    """Whether an address that nobody has answers, as it does behind a captive portal."""
    if ip_address(door.address.host.partition("%")[0]).is_loopback:
        return
    family, port = door.address.family, door.target.port
    sockaddr = (NOBODY[family], port) if family == socket.AF_INET else (NOBODY[family], port, 0, 0)
    nobody = Door(door.target, Address(family, sockaddr), NOBODY_SECONDS)
    yield _connected("tcp.nobody", try_connect(nobody, port))


def _cut_off(result: LinkResult) -> bool:
    """Whether the upgrade was answered with nothing but the end of the connection."""
    return result.step("upgrade").facts.get("ended") in ("fin", "rst")


def _other_names(door: Door, result: LinkResult, seen: list[Evidence]) -> Iterator[Evidence]:
    """The upgrade under the names the server is known by: it may be another site's of the same
    address."""
    sans = [name for piece in seen for name in piece.facts.get("sans") or ()]
    served = [n.removeprefix("DNS:") for n in sans if n.startswith("DNS:") and "*" not in n]
    pointed = urlsplit(result.headers.get("Location", "")).hostname
    with contextlib.suppress(OSError):
        found = bounded(
            lambda: socket.getnameinfo(door.address.sockaddr, socket.NI_NAMEREQD)[0], NAME_SECONDS
        )
        served.append(found)
    known = [n for n in dict.fromkeys([*served, pointed]) if n and not is_address(n)]
    for name in [n for n in known if n != door.target.host][:MOST_NAMES]:
        piece = _upgraded(door, "host", host_value(f"{name}:{door.target.port}"))
        yield replace(piece, seen=f"{name} in {piece.seen}")


def _upgraded(
    door: Door, deviation: str, bend: Bend | None = None, path: str | None = None
) -> Evidence:
    start = time.perf_counter()
    facts = try_upgrade(door, bend, path)
    ms = round((time.perf_counter() - start) * 1000, 1)
    facts |= {"variation": True, "tried": deviation}
    what = f"{deviation} {facts['path']}" if path else deviation
    if "status" in facts:
        seen = f"{what}: HTTP {facts['status']}"
    elif facts.get("first_bytes"):
        seen = f"{what}: no HTTP but {shown(bytes.fromhex(facts['first_bytes']))}"
    else:
        seen = f"{what}: {facts.get('ended') or facts['errno']}"
    status = Status.OK if facts.get("status") == 101 else Status.UNKNOWN
    return Evidence("http.upgrade", status, seen, facts, ms)


def _banner(door: Door) -> Evidence:
    facts = hear_banner(door) | {"variation": True}
    seen = f"unasked: {facts['text']}" if facts["hex"] else "nothing comes unasked"
    return Evidence("tcp.banner", Status.OK, seen, facts)


def _again(door: Door, times: int = 3) -> Evidence:
    with ThreadPoolExecutor(times) as pool:
        tries = list(pool.map(lambda _: try_connect(door, door.target.port), range(times)))
    attempts = [{"errno": one["errno"], "ms": one["ms"]} for one in tries]
    seen = ", ".join(str(one["errno"] or "connected") for one in tries)
    facts = {"port": door.target.port, "attempts": attempts, "variation": True}
    return Evidence("tcp.again", Status.OK, f"{times} connects at once: {seen}", facts)


def _tls_on_plain(door: Door) -> Evidence:
    host = door.target.host
    name = None if is_address(host) else host
    shaken = shake_hands(door.address, client_context(), name, door.timeout)
    facts = shaken.facts() | {"variant": "tls-on-plain", "port": door.target.port}
    facts["variation"] = True
    status = Status.OK if shaken.ok else Status.UNKNOWN
    return Evidence("tls.offer", status, f"TLS on this port: {shaken.text()}", facts, shaken.ms)


def _large(door: Door) -> Evidence:
    start = time.perf_counter()
    facts = send_large(door)
    ms = round((time.perf_counter() - start) * 1000, 1)
    done = [step["bytes"] for step in facts["steps"]]
    if done == facts["wanted"]:
        return Evidence("ws.large", Status.OK, f"{done[-1]} bytes get through", facts, ms)
    why = facts.get("ended") or facts.get("code") or facts.get("errno") or facts.get("status")
    seen = f"{facts.get('at_bytes')} bytes do not get through: {why}"
    return Evidence("ws.large", Status.FAILED, seen, facts, ms)
