"""What controllers are told to do: their remote-server settings, as they gave them themselves.

Evidence ``controller.config`` (vantage ``server``), one a controller:
    ``controller``, ``as_of`` (epoch seconds), ``asked`` bool: told on being asked just now, or as
    last uploaded; ``connected`` bool; and of what it told ``ip_address``, ``domain_name``,
    ``websockets`` bool, ``port``, ``websockets_port``, ``uri``, ``tls`` bool, ``ping_seconds``

A controller uploads its configuration after each change, so the journal has it. Asking is left to
whoever wants it: a controller that trips over a request would be thrown out by our look at it.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ptslink.doctor.collect.edge import Stopwatch
from ptslink.doctor.evidence import Evidence, Json, Status

QUESTION = "GetRemoteServerConfiguration"
#: So many controllers are told of, and asked at once.
MOST, TOGETHER = 50, 8
ASK_SECONDS = 3.0
#: How far back in the journal uploads are looked for, in records: no index leads to them.
RECORDS = 100_000

_NEWEST = """
SELECT c.pts_id, max(m.received), m.raw, r.packet
FROM records r
JOIN messages m ON m.id = r.message
JOIN controllers c ON c.id = r.controller
WHERE r.type = (SELECT id FROM types WHERE name = 'UploadConfiguration')
  AND r.id >= (SELECT min(id) FROM (SELECT id FROM records ORDER BY id DESC LIMIT ?))
GROUP BY r.controller ORDER BY 2 DESC LIMIT ?
"""

#: Field of RemoteServerConfiguration (PTS-2 protocol 3) -> fact, where it is told as it is.
_FIELDS = {
    "DomainName": "domain_name",
    "UseWebsocketsCommunication": "websockets",
    "Port": "port",
    "WebsocketsPort": "websockets_port",
    "WebsocketsUri": "uri",
    "WebsocketsPingRequestsPeriodSeconds": "ping_seconds",
}


def read_settings(data: Mapping[str, Json]) -> dict[str, Json]:
    """RemoteServerConfiguration as facts; what was not told is missing. Never a secret."""
    facts = {fact: data[field] for field, fact in _FIELDS.items() if field in data}
    address = data.get("IpAddress")
    if isinstance(address, list) and len(address) == 4:
        facts["ip_address"] = ".".join(str(part) for part in address)
    if isinstance(data.get("ProtocolType"), str):
        facts["tls"] = data["ProtocolType"].upper() == "HTTPS"
    return facts


def from_upload(configuration: Json) -> dict[str, Json] | None:
    """The settings within the Configuration of an UploadConfiguration, or None."""
    for packet in configuration if isinstance(configuration, list) else ():
        if isinstance(packet, dict) and packet.get("Type") == "RemoteServerConfiguration":
            data = packet.get("Data")
            return read_settings(data) if isinstance(data, dict) else None
    return None


def collect(
    watch: Stopwatch, tables: Mapping[str, Json], connected: list[str], ask: bool
) -> Iterator[Evidence]:
    """The settings of every controller known; *ask*: of those *connected*, by asking them."""
    told = _uploaded(str(tables["journal"]["path"]))
    if ask:
        told |= _asked(str(tables["admin"]["socket"] or ""), connected)
    for controller, facts in sorted(told.items()):
        facts |= {"controller": controller, "connected": controller in connected}
        if trouble := facts.pop("trouble", None):
            seen = f"{controller}: {trouble}"
            yield watch.piece("controller.config", Status.UNKNOWN, seen, facts)
            continue
        where = facts.get("domain_name") or facts.get("ip_address") or "an address not told"
        what = f"dials {where} port {facts.get('websockets_port', '?')} /{facts.get('uri', '?')}"
        if facts.get("websockets") is False:
            what = "is told not to use WebSocket"
        how = "says that it" if facts["asked"] else "last uploaded that it"
        yield watch.piece("controller.config", Status.OK, f"{controller} {how} {what}", facts)


def _uploaded(path: str) -> dict[str, dict[str, Json]]:
    from ptslink.journal.reader import JournalMissing, open_reader
    from ptslink.jsonpts.envelope import decode

    found: dict[str, dict[str, Json]] = {}
    try:
        with open_reader(Path(path)) as connection:
            rows = connection.execute(_NEWEST, (RECORDS, MOST)).fetchall()
    except (JournalMissing, sqlite3.Error, OSError):
        return found  # service.records says so
    for controller, received, raw, packet in rows:
        packets = decode(raw).packets
        try:
            facts = from_upload(json.loads(packets[packet].data))
        except (IndexError, ValueError):
            continue
        if facts is not None:
            found[controller] = facts | {"as_of": received / 1000.0, "asked": False}
    return found


def _asked(socket: str, controllers: list[str]) -> dict[str, dict[str, Json]]:
    if not socket:
        return {}
    with ThreadPoolExecutor(TOGETHER) as pool:
        answers = pool.map(lambda controller: _ask(socket, controller), controllers[:MOST])
        return dict(zip(controllers, answers, strict=False))


def _ask(socket: str, controller: str) -> dict[str, Json]:
    from ptslink.server.ask_command import put_question

    facts: dict[str, Json] = {"asked": True, "as_of": time.time()}
    try:
        _, content = put_question(Path(socket), controller, QUESTION, ASK_SECONDS)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return facts | {"trouble": f"cannot be asked: {error}"}
    data = content.get("data")
    if not isinstance(data, dict):
        said = content.get("message") or content.get("error") or "nothing"
        return facts | {"trouble": f"asked for its settings, said: {said}"}
    return facts | read_settings(data)
