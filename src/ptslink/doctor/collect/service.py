"""The service itself: its configuration, its records of attempts and links, who is connected.

Evidence (vantage ``server``):

``service.config``
    ``file`` str, ``errors`` [str], ``config`` {table: {key: value}} with every default filled in;
    of ``controllers.users`` only the logins and of ``controllers.secret`` only whether it is set
``service.records``  from the journal's database, oldest first, times in epoch seconds
    ``attempts`` [{``at``, ``controller``, ``peer``, ``code``, ``status``, ``reason``, ``method``,
    ``path``, ``http``, ``headers``, ``proxy``?, ``notes``?, ``first_bytes``? {``hex``, ``text``}}]
    ``links`` [{``at`` (the end), ``controller``, ``peer``, ``code``, ``seconds``, ``closed_by``,
    ``close_sent``, ``close_rcvd``, ``transport``, ``error``?, ``messages_in``, ...}]
    ``events`` [{``at``, ``controller``, ``peer``, ``code``, ``message``, ...}]
    ``now`` float, ``journal`` str
``service.live``  from the admin listener
    ``health`` {...} of GET /health, ``controllers`` [{...}] of GET /controllers, ``now`` float
``service.log``  lines of the systemd journal that name a fault
    ``events`` [{``at``, ``kind``, ``text``, ``unit``}], kinds of :data:`LOG_KINDS`; of our unit
    and of whatever else listens on its port
``link.local``  one per hop, ``hop`` ``service`` or ``nginx``: the upgrade tried from this machine
    the facts of ``http.upgrade``, see :mod:`ptslink.doctor.attempts`
``controller.config``  see :mod:`ptslink.doctor.collect.controllers`
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptslink.doctor.collect import controllers
from ptslink.doctor.collect.edge import Machine, Stopwatch, journal_refused
from ptslink.doctor.collect.network import read_listeners
from ptslink.doctor.evidence import Evidence, Json, Status
from ptslink.doctor.probe.request import PROBE_ID_PREFIX

CONFIG = "/etc/ptslink/ptslink.toml"
UNIT = "ptslink.service"
#: Records of each kind, the newest.
RECORDS = 1000
#: How far back records and log lines are read, seconds.
HORIZON_SECONDS = 24 * 3600.0
ADMIN_SECONDS = 3.0

#: What a line of a service's log says -> the kind the causes know it by.
LOG_KINDS: tuple[tuple[str, str], ...] = (
    (
        "no-websocket-library",
        r"No supported WebSocket library detected|Unsupported upgrade request",
    ),
    (
        "handler-failed",
        r"connection handler failed|process_request failed|Exception in ASGI application",
    ),
    ("opening-failed", r"opening handshake failed"),
    (
        "dependency",
        r"(?:OperationalError|InterfaceError|ConnectionError|Connect call failed|"
        r"could not connect to server|Connection refused).*"
        r"|THE JOURNAL FAILS|database is locked|disk I/O error",
    ),
    ("too-many-files", r"\[Errno 24\]|out of system resource"),
    ("loop-blocked", r"Executing <.*> took [\d.]+ seconds|event loop (?:was )?blocked"),
    ("already-connected", r"(?i)already.connected|duplicate (?:connection|session|client)"),
    ("rate-limited", r"(?i)rate.?limit|too many (?:attempts|requests|connections)"),
    ("traceback", r"^Traceback \(most recent call last\)"),
)
#: The last line of a traceback that tells of nothing but a link that its peer dropped.
_LINK_LOST = re.compile(r"ConnectionClosed(?:Error|OK)?\b|WebSocketDisconnect|ClientDisconnected")
_LOG_KINDS = tuple((kind, re.compile(pattern, re.MULTILINE)) for kind, pattern in LOG_KINDS)


# --- Readers -----------------------------------------------------------------------------------


def read_records(rows: Iterable[Sequence[Any]]) -> dict[str, list[dict[str, Json]]]:
    """Rows ``(at, kind, controller, peer, code, detail)`` of the journal's evidence, by kind."""
    found: dict[str, list[dict[str, Json]]] = {"attempts": [], "links": [], "events": []}
    for at, kind, controller, peer, code, detail in rows:
        try:
            more = json.loads(detail)
        except (TypeError, ValueError):
            more = {}
        record = {
            **(more if isinstance(more, dict) else {}),
            "at": at / 1000.0,
            "controller": controller or "",
            "peer": peer or "",
            "code": code,
        }
        if f"{kind}s" in found:
            found[f"{kind}s"].append(record)
    return found


def read_log(text: str) -> list[dict[str, Json]]:
    """``journalctl -o json`` as the events that name a fault.

    A handler that "failed" because its link was dropped is none.
    """
    events: list[dict[str, Json]] = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        message = entry.get("MESSAGE") if isinstance(entry, dict) else None
        if not isinstance(message, str):
            continue
        if _LINK_LOST.search(message):
            _drop_failure(events, entry.get("_SYSTEMD_UNIT"))
            continue
        kind = next((kind for kind, pattern in _LOG_KINDS if pattern.search(message)), None)
        if kind is None:
            continue
        stamp = str(entry.get("__REALTIME_TIMESTAMP", ""))
        events.append(
            {
                "at": int(stamp) / 1e6 if stamp.isdecimal() else None,
                "kind": kind,
                "text": message[:300],
                "unit": entry.get("_SYSTEMD_UNIT"),
            }
        )
    return events


def _drop_failure(events: list[dict[str, Json]], unit: Json) -> None:
    """Take the last failure of a handler, and its traceback, away again."""
    while events and events[-1]["unit"] == unit and events[-1]["kind"] == "traceback":
        events.pop()
    if events and events[-1]["unit"] == unit and events[-1]["kind"] == "handler-failed":
        events.pop()


def shown_config(config: Any) -> dict[str, Json]:
    """A configuration as plain data without its secrets."""
    tables: dict[str, Json] = json.loads(json.dumps(asdict(config), default=str))
    controllers = tables["controllers"]
    controllers["users"] = sorted(controllers["users"])
    controllers["secret"] = bool(controllers["secret"])
    return tables


# --- The thin edge -----------------------------------------------------------------------------


def collect(
    machine: Machine,
    config: str = CONFIG,
    *,
    since: float | None = None,
    ask: bool = False,
) -> Iterator[Evidence]:
    """Everything about the service.

    *since*: leave out what is older (epoch seconds). *ask*: ask connected controllers, too.
    """
    watch = Stopwatch()
    horizon = max(since or 0.0, time.time() - HORIZON_SECONDS)
    try:
        config_seen = configured(watch, config)
    except ModuleNotFoundError as error:
        # A Python without the release's packages still reads the log.
        missing = f"{error.name} is not installed for this Python"
        for probe in ("service.config", "service.records", "service.live", "link.local"):
            yield watch.skipped(probe, missing)
        yield from watch.guarded("service.log", lambda: _log(machine, watch, horizon))
        return
    except Exception as error:  # of whatever somebody wrote into it
        why = f"{config} could not be read: {type(error).__name__}: {error}"
        config_seen = watch.skipped("service.config", why)
    yield config_seen
    tables = config_seen.facts.get("config") or shown_config(_defaults())
    guarded = watch.guarded
    path, port = str(tables["journal"]["path"]), int(tables["listen"]["port"])
    yield from guarded("service.records", lambda: _records(watch, path, horizon))
    (live,) = guarded("service.live", lambda: _live(watch, tables["admin"]))
    yield live
    listeners = read_listeners(machine.run("ss", "-H", "-ltnpe").text)
    yield from guarded("service.log", lambda: _log(machine, watch, horizon, port, listeners))
    addresses = own_addresses(machine)
    yield from guarded("link.local", lambda: _local(watch, tables, listeners, addresses))
    yield from guarded(
        "controller.config", lambda: controllers.collect(watch, tables, _connected(live), ask)
    )


def _connected(live: Evidence) -> list[str]:
    """The controllers that are connected, probes left out."""
    listed = [str(one.get("id")) for one in live.facts.get("controllers") or ()]
    return [controller for controller in listed if not controller.startswith(PROBE_ID_PREFIX)]


def _defaults() -> Any:
    from ptslink.server.config import Config

    return Config()


def configured(watch: Stopwatch, file: str = CONFIG) -> Evidence:
    """``service.config`` of this machine."""
    from ptslink.server.config import ConfigError, load

    if not Path(file).exists():
        return watch.skipped("service.config", f"there is no {file}")
    try:
        config = load(Path(file))
    except ConfigError as error:
        facts = {"file": file, "errors": error.mistakes, "config": None}
        if any("Permission denied" in mistake for mistake in error.mistakes):
            return watch.skipped("service.config", f"{file} may not be read; run as root")
        return watch.piece("service.config", Status.FAILED, error.mistakes[0], facts)
    shown = shown_config(config)
    seen = f"port {config.listen.port}, path /{config.listen.path}"
    return watch.piece(
        "service.config", Status.OK, seen, {"file": file, "errors": [], "config": shown}
    )


def _records(watch: Stopwatch, path: str, horizon: float) -> Evidence:
    from ptslink.journal.reader import JournalMissing, open_reader

    query = (
        "SELECT at, kind, controller, peer, code, detail FROM evidence"
        " WHERE kind = ? AND at >= ? ORDER BY at DESC LIMIT ?"
    )
    rows: list[Sequence[Any]] = []
    try:
        with open_reader(Path(path)) as connection:
            for kind in ("attempt", "link", "event"):
                rows += connection.execute(query, (kind, int(horizon * 1000), RECORDS)).fetchall()
    except (JournalMissing, sqlite3.Error, OSError) as error:
        return watch.skipped("service.records", f"{path}: {error}")
    records = read_records(sorted(rows, key=lambda row: row[0]))
    facts = {**records, "now": time.time(), "journal": path}
    counts = ", ".join(f"{len(listed)} {kind}" for kind, listed in records.items())
    return watch.piece("service.records", Status.OK, counts, facts)


def _live(watch: Stopwatch, admin: Mapping[str, Json]) -> Evidence:
    address, port = str(admin["address"]), int(admin["port"])
    try:
        status, health = _get(address, port, "/health")
        _, listed = _get(address, port, "/controllers")
    except (OSError, http.client.HTTPException, ValueError) as error:
        seen = f"the admin listener at {address}:{port} does not answer: {error}"
        facts = {"health": None, "controllers": None, "error": str(error), "now": time.time()}
        return watch.piece("service.live", Status.UNKNOWN, seen, facts)
    controllers = listed.get("controllers") if isinstance(listed, dict) else None
    facts = {"health": health, "controllers": controllers, "now": time.time()}
    state = health.get("status") if isinstance(health, dict) else None
    seen = f"health {state}; {len(controllers or [])} controllers connected"
    journal = health.get("journal") if isinstance(health, dict) else None
    replaced = journal.get("replaced") if isinstance(journal, dict) else None
    if replaced:
        seen += f"; CONFIRMED RECORDS ARE GONE: {replaced}"
    good = status == 200 and not replaced
    return watch.piece("service.live", Status.OK if good else Status.FAILED, seen, facts)


def _get(address: str, port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(address, port, timeout=ADMIN_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read(1 << 22))
    finally:
        connection.close()


def _log(
    machine: Machine,
    watch: Stopwatch,
    horizon: float,
    port: int = 0,
    listeners: Sequence[Mapping[str, Any]] = (),
) -> Evidence:
    units = [UNIT]
    units += [
        str(entry["unit"])
        for entry in listeners
        if entry["port"] == port and str(entry["unit"]).endswith(".service")
    ]
    chosen = [word for unit in dict.fromkeys(units) for word in ("-u", unit)]
    # With --since alone, journalctl (252) takes -n for the oldest lines; the newest are wanted.
    done = machine.run(
        "journalctl", *chosen, "-o", "json", "-r", "-n", "5000", "--no-pager",
        f"--since=@{int(horizon)}",
        seconds=8.0,
    )  # fmt: skip
    if why := journal_refused(done):
        return watch.skipped("service.log", why)
    events = read_log("\n".join(reversed(done.text.splitlines())))
    seen = f"{len(events)} lines that name a fault"
    return watch.piece("service.log", Status.OK, seen, {"events": events})


def own_addresses(machine: Machine) -> list[str]:
    """The machine's own IPv4 addresses beyond loopback, that of the default route first."""
    shown = machine.run("ip", "-j", "-4", "addr", "show", "scope", "global")
    routed = machine.run("ip", "-j", "-4", "route", "show", "default")
    try:
        links = json.loads(shown.text) if shown.ok else []
        devices = {one.get("dev") for one in json.loads(routed.text)} if routed.ok else set()
        found = [(link["ifname"] not in devices, one["local"])
                 for link in links for one in link.get("addr_info", [])]  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return [address for _, address in sorted(found, key=lambda pair: pair[0])]


def dialled(listeners: Sequence[Mapping[str, Any]], port: int, own: Sequence[str]) -> list[str]:
    """Where to try the link on *port*: at loopback and, as a controller does, at the machine's own
    address, as far as somebody listens there."""
    found: dict[str, None] = {}
    for entry in listeners:
        if entry["port"] != port or entry["family"] == "ipv6":
            continue
        address = _reachable(entry["address"])
        found[address] = None
        if address != entry["address"] and own:  # it listens on every address
            found[own[0]] = None
    return list(found)


def _local(
    watch: Stopwatch,
    tables: Mapping[str, Json],
    listeners: Sequence[Mapping[str, Any]],
    own: Sequence[str] = (),
) -> Iterator[Evidence]:
    """The upgrade, tried at the service itself and at nginx in front of it."""
    listen = tables["listen"]
    path = str(listen["path"])
    service = [entry for entry in listeners if entry["port"] == listen["port"]]
    if service:
        yield _try(watch, "service", _reachable(service[0]["address"]), listen["port"], path)
    for port, secure in _fronted(watch, listen).items():
        for address in dialled(listeners, port, own):
            yield _try(watch, "nginx", address, port, path, secure)


def _fronted(watch: Stopwatch, listen: Mapping[str, Json]) -> dict[int, bool]:
    """The ports on which nginx stands before the service, and whether they speak TLS."""
    from ptslink.doctor.collect import nginx
    from ptslink.doctor.collect.nginx_config import passes_to

    facts = nginx.configured(watch).facts
    return {
        entry["port"]: entry["ssl"]
        for site in facts.get("sites", [])
        if any(passes_to(facts, place, int(listen["port"])) for place in site["locations"])
        for entry in site["listen"]
        if entry["port"]
    }


def _reachable(address: str) -> str:
    """Where to connect to, for a listener's address."""
    try:
        listening = ipaddress.ip_address(address)
    except ValueError:
        return "127.0.0.1"
    if listening.is_unspecified:
        return "127.0.0.1"
    return str(listening)


def _try(
    watch: Stopwatch, hop: str, address: str, port: int, path: str, secure: bool = False
) -> Evidence:
    from ptslink.doctor.probe import probe_link

    host = f"[{address}]" if ":" in address else address
    scheme = "wss" if secure else "ws"
    url = f"{scheme}://{host}:{port}/{path}"
    # Only whether the hop answers is asked here; certificates have a collector of their own.
    result = probe_link(url, timeout=ADMIN_SECONDS, get=False, insecure=True)
    connect, upgrade = result.step("connect"), result.step("upgrade")
    facts: dict[str, Json] = {
        "hop": hop,
        "address": address,
        "port": port,
        "scheme": scheme,
        "path": f"/{path}",
        "host": f"{host}:{port}",
        "status": result.status,
        "headers": result.headers,
        "body": result.body,
        "accept_ok": result.accept_ok if result.status == 101 else None,
        "controller_id": result.controller_id,
        "seconds": upgrade.ms / 1000.0,
    }
    if connect.status == "failed":
        attempts = connect.facts.get("attempts") or [{}]
        facts["errno"] = attempts[-1].get("errno") or "unknown"
    elif upgrade.status == "failed" and result.status is None:
        facts["ended"] = "timeout" if upgrade.ms >= ADMIN_SECONDS * 900 else "fin"
        facts["seen"] = upgrade.seen
    for step in result.steps:
        if step.status == "failed" and result.status == 101:
            told = ("ended", "code", "reason", "after_seconds")
            facts |= {key: step.facts[key] for key in told if step.facts.get(key) is not None}
    seen = result.cause or "101, ping answered, closed in good order"
    status = Status.OK if result.ok else Status.FAILED
    return watch.piece("link.local", status, f"{hop} at {host}:{port}: {seen}", facts)
