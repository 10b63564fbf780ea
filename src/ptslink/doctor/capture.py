"""Reading a capture: tshark dissects it, this tells what each connection did. Parsing is pure.

Evidence (vantage ``server``, or wherever the capture was taken):

``capture.file``   ``streams`` int, ``packets`` int, ``icmp`` [{"family", "type", "code",
    "from", "about"}]
``capture.stream`` one a TCP connection
    ``client``, ``client_port``, ``server``, ``server_port``, ``began`` (epoch seconds), ``seconds``
    ``syn``, ``syn_ack``, ``established`` bool; ``syn_retries`` int
    ``end``          {"by": client|server, "how": fin|rst, "at": seconds} of the first end, or None
    ``retransmits``  {"client": n, "server": n}; ``largest_lost`` bytes of the largest one
    ``bytes``        {"client": n, "server": n}; ``quiet`` the same: seconds of silence at the end
    ``ttl``          {"client": n, "server": n} of the first packet but a RST, as it arrived;
    ``rst_ttl``      the same of the first RST: another way or another sender where they differ
    ``first_bytes``  {"client": hex, "server": hex}
    ``tls``          {"version": offered, "name", "alerts": [{"by", "number", "at"}]} or None
    ``http``         {"method", "path", "version", "host", "upgrade", "connection", "via",
                     "controller", "status", "headers", "phrase"} or None
    ``websocket``    {"frames": {"client": n, "server": n}, "unmasked": n, "reserved": n,
                     "close": [{"by", "code", "reason", "at"}], "pings", "pongs"} or None
    ``since_101``    seconds from the 101 to the end, or None

wss cannot be read without keys: then only what TCP and TLS alerts show is told.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ptslink.doctor.evidence import Evidence, Json, Status
from ptslink.doctor.search_path import search_path

#: Between the values of one field that occurs more than once (ASCII unit separator).
JOIN = "\x1f"
TSHARK_SECONDS = 120.0
#: At most so many connections are told of, the newest.
STREAMS = 500

FIELDS = (
    "frame.time_epoch",
    "tcp.stream",
    "ip.src",
    "ipv6.src",
    "ip.dst",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.flags",
    "tcp.len",
    "tcp.payload",
    "tcp.analysis.retransmission",
    "tls.handshake.version",
    "tls.handshake.extensions.supported_version",
    "tls.handshake.extensions_server_name",
    "tls.alert_message.desc",
    "http.request.method",
    "http.request.uri",
    "http.request.version",
    "http.host",
    "http.upgrade",
    "http.connection",
    "http.request.line",
    "http.response.code",
    "http.response.phrase",
    "http.response.line",
    "websocket.opcode",
    "websocket.rsv",
    "websocket.mask",
    "websocket.payload.close.status_code",
    "websocket.payload.close.reason",
    "icmp.type",
    "icmp.code",
    "icmpv6.type",
    "icmpv6.code",
    "ipv6.dst",
    "ip.ttl",
    "ipv6.hlim",
)
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10


class CaptureError(Exception):
    """The file cannot be dissected; the text says why and what to do."""


@dataclass
class Stream:
    """One connection while its packets are read."""

    client: str
    client_port: int
    server: str
    server_port: int
    began: float
    last: float
    syn: bool = False
    syn_retries: int = 0
    syn_ack: bool = False
    established: bool = False
    end: dict[str, Json] | None = None
    retransmits: dict[str, int] = field(default_factory=lambda: {"client": 0, "server": 0})
    largest_lost: int = 0
    bytes: dict[str, int] = field(default_factory=lambda: {"client": 0, "server": 0})
    heard: dict[str, float] = field(default_factory=dict)
    ttl: dict[str, int] = field(default_factory=dict)
    rst_ttl: dict[str, int] = field(default_factory=dict)
    first_bytes: dict[str, str] = field(default_factory=dict)
    tls: dict[str, Json] | None = None
    http: dict[str, Json] | None = None
    websocket: dict[str, Json] | None = None
    switched: float | None = None

    def facts(self, number: int) -> dict[str, Json]:
        over = self.end["at"] + self.began if self.end else self.last
        return {
            "stream": number,
            "client": self.client,
            "client_port": self.client_port,
            "server": self.server,
            "server_port": self.server_port,
            "began": self.began,
            "seconds": round(over - self.began, 6),
            "syn": self.syn,
            "syn_retries": self.syn_retries,
            "syn_ack": self.syn_ack,
            "established": self.established,
            "end": self.end,
            "retransmits": self.retransmits,
            "largest_lost": self.largest_lost,
            "bytes": self.bytes,
            "quiet": {who: round(over - at, 6) for who, at in self.heard.items()},
            "ttl": self.ttl,
            "rst_ttl": self.rst_ttl,
            "first_bytes": self.first_bytes,
            "tls": self.tls,
            "http": self.http,
            "websocket": self.websocket,
            "since_101": round(over - self.switched, 6) if self.switched else None,
        }


def read_fields(text: str) -> tuple[list[dict[str, Json]], list[dict[str, Json]]]:
    """``tshark -T fields -E header=y`` (tab separated) as (facts of each stream, ICMP errors)."""
    lines = text.split("\n")
    names = lines[0].split("\t")
    return read_rows(dict(zip(names, line.split("\t"), strict=False)) for line in lines[1:] if line)


def read_rows(
    rows: Iterable[Mapping[str, str]],
) -> tuple[list[dict[str, Json]], list[dict[str, Json]]]:
    """Packets in the order they were seen, by the names of :data:`FIELDS`, as the same."""
    streams: dict[int, Stream] = {}
    icmp: list[dict[str, Json]] = []
    for row in rows:
        if row.get("icmp.type"):
            icmp.append(_icmp(row, "icmp", "ip"))
            continue
        if row.get("icmpv6.type"):
            # From 128 on they are no errors but pings, and how neighbours find each other.
            if (_number(row["icmpv6.type"]) or 0) < 128:
                icmp.append(_icmp(row, "icmpv6", "ipv6"))
            continue
        if row.get("tcp.stream"):
            _packet(streams, row)
    return [stream.facts(number) for number, stream in streams.items()], icmp


def _icmp(row: Mapping[str, str], protocol: str, layer: str) -> dict[str, Json]:
    """An error, and the packet it is about, whose addresses stand behind its own."""
    sources = row.get(f"{layer}.src", "").split(JOIN)
    targets = row.get(f"{layer}.dst", "").split(JOIN)
    ports = row.get("tcp.dstport", "").split(JOIN)[-1]
    return {
        "family": "ipv6" if layer == "ipv6" else "ipv4",
        "type": _number(row[f"{protocol}.type"]),
        "code": _number(row[f"{protocol}.code"]),
        "from": sources[0],
        "about": {"client": sources[-1], "server": targets[-1], "port": _number(ports)},
    }


def _packet(streams: dict[int, Stream], row: Mapping[str, str]) -> None:
    number, at = int(row["tcp.stream"].split(JOIN)[0]), float(row["frame.time_epoch"])
    source = row["ip.src"] or row["ipv6.src"]
    target = row["ip.dst"] or row.get("ipv6.dst", "")
    sport, dport = int(row["tcp.srcport"]), int(row["tcp.dstport"])
    flags, size = int(row["tcp.flags"], 16), int(row["tcp.len"] or 0)
    stream = streams.get(number)
    if stream is None:
        # Where the SYN is missing the lower port is taken for the server's.
        from_client = bool(flags & _SYN and not flags & _ACK) or (
            not flags & _SYN and dport < sport
        )
        ends = (source, sport, target, dport) if from_client else (target, dport, source, sport)
        stream = streams[number] = Stream(*ends, began=at, last=at)
    who = "client" if (source, sport) == (stream.client, stream.client_port) else "server"
    stream.last = at
    _tcp(stream, who, at, flags, size, row)
    if size and row.get("tcp.payload"):
        stream.bytes[who] += size
        stream.heard[who] = at
        stream.first_bytes.setdefault(who, row["tcp.payload"].replace(":", "")[:128])
    _tls(stream, who, at, row)
    _http(stream, who, at, row)
    _websocket(stream, who, at, row)


def _tcp(
    stream: Stream, who: str, at: float, flags: int, size: int, row: Mapping[str, str]
) -> None:
    hops = _number(row.get("ip.ttl") or row.get("ipv6.hlim") or "")
    if hops is not None:
        (stream.rst_ttl if flags & _RST else stream.ttl).setdefault(who, hops)
    if flags & _SYN:
        if who == "client":
            stream.syn_retries += stream.syn
            stream.syn = True
        else:
            stream.syn_ack = True
    elif flags & _ACK and who == "client" and stream.syn_ack:
        stream.established = True
    if row.get("tcp.analysis.retransmission"):
        stream.retransmits[who] += 1
        stream.largest_lost = max(stream.largest_lost, size)
    if flags & (_FIN | _RST) and stream.end is None:
        how = "rst" if flags & _RST else "fin"
        stream.end = {"by": who, "how": how, "at": round(at - stream.began, 6)}


def _tls(stream: Stream, who: str, at: float, row: Mapping[str, str]) -> None:
    version, alerts = row.get("tls.handshake.version"), row.get("tls.alert_message.desc")
    if not version and not alerts:
        return
    if stream.tls is None:
        stream.tls = {"version": None, "name": None, "alerts": []}
    if version and who == "client" and stream.tls["version"] is None:
        offered = row.get("tls.handshake.extensions.supported_version", "").split(JOIN)
        real = [v for v in (*offered, version.split(JOIN)[0]) if _tls_version(v)]
        stream.tls["version"] = max((_tls_version(v) or "" for v in real), default=None)
        stream.tls["name"] = row.get("tls.handshake.extensions_server_name") or None
    for alert in (alerts or "").split(JOIN):
        if alert:
            told = {"by": who, "number": int(alert), "at": round(at - stream.began, 6)}
            stream.tls["alerts"].append(told)


def _tls_version(text: str) -> str | None:
    return {"0x0301": "TLS 1.0", "0x0302": "TLS 1.1", "0x0303": "TLS 1.2", "0x0304": "TLS 1.3"}.get(
        text.lower()
    )


def _http(stream: Stream, who: str, at: float, row: Mapping[str, str]) -> None:
    if row.get("http.request.method") and stream.http is None:
        lines = _lines(row.get("http.request.line", ""))
        known = {name.lower(): value for name, value in lines}
        stream.http = {
            "method": row["http.request.method"],
            "path": row.get("http.request.uri"),
            "version": row.get("http.request.version", "").removeprefix("HTTP/"),
            "request": dict(lines),
            "host": known.get("host"),
            "upgrade": known.get("upgrade"),
            "connection": known.get("connection"),
            "via": known.get("via"),
            "controller": known.get("x-pts-id"),
            "status": None,
            "phrase": None,
            "headers": {},
        }
    code = row.get("http.response.code")
    if code and stream.http is not None and stream.http["status"] is None and who == "server":
        stream.http["status"] = int(code.split(JOIN)[0])
        stream.http["phrase"] = row.get("http.response.phrase")
        stream.http["headers"] = dict(_lines(row.get("http.response.line", "")))
        if stream.http["status"] == 101:
            stream.switched = at


def _lines(text: str) -> list[tuple[str, str]]:
    """Header lines; the secret ones are not kept."""
    found = []
    for line in text.split(JOIN):
        name, colon, value = line.replace("\\r\\n", "").partition(":")
        if colon and name.lower() not in ("authorization", "x-data-signature"):
            found.append((name.strip(), value.strip()))
    return found


def _websocket(stream: Stream, who: str, at: float, row: Mapping[str, str]) -> None:
    opcodes = [_number(value) for value in row.get("websocket.opcode", "").split(JOIN) if value]
    if not opcodes:
        return
    if stream.websocket is None:
        stream.websocket = {
            "frames": {"client": 0, "server": 0},
            "unmasked": 0,
            "reserved": 0,
            "pings": 0,
            "pongs": 0,
            "close": [],
        }
    seen = stream.websocket
    seen["frames"][who] += len(opcodes)
    seen["pings"] += opcodes.count(9)
    seen["pongs"] += opcodes.count(10)
    if who == "client":
        masks = [
            value in ("1", "True") for value in row.get("websocket.mask", "").split(JOIN) if value
        ]
        seen["unmasked"] += masks.count(False)
        seen["reserved"] += sum(
            bool(_number(v)) for v in row.get("websocket.rsv", "").split(JOIN) if v
        )
    if 8 in opcodes:
        code = row.get("websocket.payload.close.status_code", "").split(JOIN)[-1]
        reason = row.get("websocket.payload.close.reason", "").split(JOIN)[-1]
        seen["close"].append(
            {
                "by": who,
                "code": _number(code) or 1005,
                "reason": reason,
                "at": round(at - stream.began, 6),
            }
        )


def _number(text: str) -> int | None:
    try:
        return int(text.split(JOIN)[0], 0)
    except ValueError:
        return None


def told(facts: Mapping[str, Json]) -> str:
    """One line for a person on what a connection did."""
    head = f"{facts['client']} -> {facts['server']}:{facts['server_port']}"
    if not facts["syn_ack"] and facts["syn"]:
        tries = facts["syn_retries"] + 1
        if facts["end"] and facts["end"]["by"] == "server":
            return f"{head}: SYN answered by RST"
        return f"{head}: {tries} SYN, no answer"
    http, websocket, end = facts["http"], facts["websocket"], facts["end"]
    parts = []
    if http:
        parts.append(f"{http['method']} {http['path']} -> {http['status'] or 'no answer'}")
    parts += [
        f"TLS alert {alert['number']} from the {alert['by']}"
        for alert in (facts["tls"] or {}).get("alerts", [])
    ]
    parts += [
        f"close {close['code']} {close['reason']}".strip() + f" from the {close['by']}"
        for close in (websocket or {}).get("close", [])
    ]
    if end:
        parts.append(
            f"{end['how'].upper()} first from the {end['by']} after {facts['seconds']:.2f} s"
        )
    lost = sum(facts["retransmits"].values())
    if lost:
        parts.append(f"{lost} retransmissions, up to {facts['largest_lost']} bytes")
    return f"{head}: {', '.join(parts) or 'nothing sent'}"


def failed(facts: Mapping[str, Json]) -> bool:
    """Whether a connection was not made, not upgraded, or ended without closing frames."""
    if not facts["established"] and facts["syn"]:
        return True
    http, websocket = facts["http"], facts["websocket"]
    if (facts["tls"] or {}).get("alerts"):
        return any(alert["number"] != 0 for alert in facts["tls"]["alerts"])
    if http and http["upgrade"] and http["status"] != 101:
        return True
    if http and http["status"] == 101 and facts["end"]:
        closes = (websocket or {}).get("close", [])
        return not closes or any(close["code"] not in (1000, 1001, 1012) for close in closes)
    return False


def gather(file: Path) -> list[Evidence]:
    """What a capture file shows.

    Raises:
        CaptureError: tshark is missing, or cannot read the file.
    """
    ports = _ports(_tshark(file, ("tcp.stream", "tcp.dstport", "tcp.flags", "tcp.payload"), ()))
    decode = [f"tcp.port=={port},{'tls' if tls else 'http'}" for port, tls in ports.items()]
    text = _tshark(file, FIELDS, decode)
    streams, icmp = read_fields(text)
    return evidence(streams, icmp, packets=text.count("\n") - 1, name=file.name)


def evidence(
    streams: Sequence[Mapping[str, Json]],
    icmp: Sequence[Mapping[str, Json]],
    *,
    packets: int,
    name: str = "capture",
) -> list[Evidence]:
    """The facts of a capture as evidence."""
    summary = {"streams": len(streams), "packets": packets, "icmp": list(icmp)}
    seen = f"{name}: {packets} packets, {len(streams)} connections, {len(icmp)} ICMP errors"
    found = [Evidence("capture.file", Status.OK, seen, summary, 0, "server")]
    for facts in list(streams)[-STREAMS:]:
        status = Status.FAILED if failed(facts) else Status.OK
        found.append(Evidence("capture.stream", status, told(facts), dict(facts), 0, "server"))
    return found


def _ports(text: str) -> dict[int, bool]:
    """The server ports of a capture, and whether TLS is spoken on them."""
    ports: dict[int, bool] = {}
    served: dict[str, int] = {}
    for line in text.split("\n")[1:]:
        row = line.split("\t")
        if len(row) < 4 or not row[0]:
            continue
        stream, port, flags, payload = row
        if int(flags, 16) & (_SYN | _ACK) == _SYN:
            served[stream] = int(port)
            ports.setdefault(int(port), False)
        elif served.get(stream) == int(port) and payload.startswith(("1603", "16:03")):
            ports[int(port)] = True
    return ports


def _tshark(file: Path, fields: Iterable[str], decode: Iterable[str]) -> str:
    program = shutil.which("tshark", path=search_path())
    if program is None:
        raise CaptureError("tshark is not installed; install it: apt-get install tshark")
    command = [program, "-n", "-r", str(file), "-T", "fields", "-E", "header=y"]
    command += ["-E", f"aggregator={JOIN}", "-E", "separator=/t", "-Y", "tcp or icmp or icmpv6"]
    for rule in decode:
        command += ["-d", rule]
    for name in fields:
        command += ["-e", name]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TSHARK_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise CaptureError(f"tshark did not finish with {file} in {TSHARK_SECONDS:g} s") from None
    if done.returncode != 0 and not done.stdout:
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CaptureError(f"{file}: {why[-1] if why else 'tshark failed'}")
    return done.stdout.decode("utf-8", "replace")


__all__: Sequence[str] = (
    "CaptureError",
    "evidence",
    "failed",
    "gather",
    "read_fields",
    "read_rows",
    "told",
)
