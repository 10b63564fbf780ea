"""Lines of nginx's access and error logs, as facts. Pure.

Read are our own format (JSON), nginx's ``combined``, and the error log's lines of known kinds.
"""

from __future__ import annotations

import datetime as dt
import json
import re

from ptslink.doctor.evidence import Json

_COMBINED = re.compile(
    r'(?P<client>\S+) \S+ \S+ \[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" '
    r"(?P<status>\d{3}) (?P<sent>\d+)"
)
_NUMBERS = (
    "request_seconds",
    "upstream_connect_seconds",
    "upstream_header_seconds",
    "upstream_seconds",
    "bytes_sent",
)


def read_access(text: str) -> list[dict[str, Json]]:
    """Access log lines, ours (JSON) or nginx's ``combined``; anything else is left out.

    Each: ``time`` (epoch seconds, when the request *ended*), ``client``, ``request``, ``method``,
    ``path``, ``version``, ``status``, and of our format also ``port``, ``upgrade``, ``connection``,
    ``upstream``, ``upstream_status``, ``request_seconds`` and the other times, ``bytes_sent`` (the
    answer's head included), ``extensions`` (of the answer), ``host``, ``via``,
    ``controller``, ``firmware``, ``tls``, ``cipher``, ``serial`` (int, of the connection: an
    error's ``connection``, until nginx is restarted; None in older formats). What nginx
    logs as empty or ``-`` is None.
    ``by`` says whose status it is: ``backend`` once the upstream's header was read, else
    ``nginx`` (an own 502 also has an upstream_status; only the header time tells).
    """
    lines = []
    for line in text.splitlines():
        try:
            entry = _json_line(line) if line.startswith("{") else _combined_line(line)
        except ValueError:  # a number that is none, or longer than any
            continue
        if entry is not None:
            lines.append(entry)
    return lines


def _json_line(line: str) -> dict[str, Json] | None:
    try:
        raw = json.loads(line)
    except ValueError:
        return None
    if not isinstance(raw, dict) or "status" not in raw or "request" not in raw:
        return None
    entry: dict[str, Json] = {
        key: None if value in ("", "-") else value for key, value in raw.items()
    }
    entry["time"] = _iso(str(raw.get("time", "")))
    for name in _NUMBERS:
        entry[name] = _last_number(raw.get(name))
    entry["port"] = int(raw["port"]) if str(raw.get("port", "")).isdecimal() else None
    serial = str(raw.get("serial", ""))
    entry["serial"] = int(serial) if serial.isdecimal() else None
    # Several upstreams tried are several values, comma separated; the last one answered.
    entry["upstream_status"] = _last_status(raw.get("upstream_status"))
    entry["by"] = "backend" if entry["upstream_header_seconds"] is not None else "nginx"
    return _with_request(entry, str(raw["request"]), str(raw["status"]))


def _combined_line(line: str) -> dict[str, Json] | None:
    match = _COMBINED.match(line)
    if match is None:
        return None
    try:
        when = dt.datetime.strptime(match["time"], "%d/%b/%Y:%H:%M:%S %z").timestamp()
    except ValueError:
        return None
    entry: dict[str, Json] = {"time": when, "client": match["client"], "by": None}
    # What cannot be printed stands there as \\x16.
    request = re.sub(r"\\x([0-9A-F]{2})", lambda code: chr(int(code[1], 16)), match["request"])
    return _with_request(entry, request, match["status"])


def _with_request(entry: dict[str, Json], request: str, status: str) -> dict[str, Json]:
    parts = request.split(" ")
    whole = len(parts) == 3 and parts[2].startswith("HTTP/")
    entry["request"] = request
    entry["method"] = parts[0] if whole else None
    entry["path"] = parts[1] if whole else None
    entry["version"] = parts[2][5:] if whole else None
    entry["status"] = int(status) if status.isdecimal() else None
    return entry


def _iso(text: str) -> float | None:
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _last_number(value: Json) -> float | None:
    found = re.findall(r"[\d.]+|-", str(value or ""))
    return None if not found or found[-1] == "-" else float(found[-1])


def _last_status(value: Json) -> int | None:
    found = re.findall(r"\d{3}|-", str(value or ""))
    return None if not found or found[-1] == "-" else int(found[-1])


_ERROR_HEAD = re.compile(
    r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>\w+)\] (?P<pid>\d+)#\d+: "
    r"(?:\*(?P<connection>\d+) )?"
)
_FIELD = re.compile(
    r', (client|server|request|upstream|host|subrequest|referrer): ("(?:[^"\\]|\\.)*"|[^,]*)'
)

#: What a line says -> the kind of event the causes know it by. The first that fits.
KINDS: tuple[tuple[str, str], ...] = (
    ("upgraded-timeout", r"upstream timed out .* while proxying upgraded connection"),
    ("upgraded-client-timeout", r"client timed out .* while proxying upgraded connection"),
    ("upgraded-reset", r"recv\(\) failed \(104.*while proxying upgraded connection"),
    ("connect-timeout", r"upstream timed out .* while connecting to upstream"),
    ("header-timeout", r"upstream timed out .* while reading response header"),
    ("connect-refused", r"connect\(\).* failed \(111"),
    ("connect-denied", r"connect\(\).* failed \(13[:)]"),
    ("connect-denied", r"socket\(\).* failed \(13[:)].* while connecting to upstream"),
    ("connect-failed", r"connect\(\).* failed \(\d+"),
    ("connect-failed", r"socket\(\).* failed \(\d+.* while connecting to upstream"),
    ("no-live-upstreams", r"no live upstreams"),
    ("upstream-tls", r"while SSL handshaking to upstream"),
    ("upstream-closed", r"upstream prematurely closed connection"),
    ("upstream-header", r"upstream sent (?:invalid|too big|no valid)"),
    ("limit-req", r"(?:limiting|delaying) requests?, "),
    ("limit-conn", r"limiting connections by zone"),
    ("denied-by-rule", r"access forbidden by rule"),
    ("auth-required", r"no user/password was provided"),
    ("auth-wrong", r"user \"[^\"]*\".*(?:password mismatch|was not found)"),
    ("no-file", r"open\(\) .* failed \(2:|is not found \(2:"),
    ("plain-to-tls", r"client sent plain HTTP request to HTTPS port"),
    ("no-client-certificate", r"client sent no required SSL certificate"),
    ("client-certificate-bad", r"client SSL certificate verify error"),
    ("tls-rejected", r"handshake rejected while SSL handshaking"),
    ("tls-closed", r"peer closed connection in SSL handshake"),
    ("tls-alert", r"SSL alert number \d+"),
    ("tls-failed", r"SSL_do_handshake\(\) failed"),
    ("http2-preface", r"invalid connection preface while processing HTTP/2"),
    ("proxy-protocol", r"broken header: .* while reading PROXY protocol"),
    (
        "invalid-request",
        r"client sent (?:invalid|duplicate|too|unsupported|HTTP/\S+ request without) ",
    ),
    ("header-slow", r"client timed out .* while reading client (?:request|PROXY)"),
    ("client-left", r"client prematurely closed connection"),
    ("too-many-files", r"failed \(24: Too many open files\)"),
    ("too-few-connections", r"worker_connections are not enough"),
    ("reloading", r"reconfiguring$"),
    ("stopping", r"signal (?:15|3|2) \(SIG\w+\) received from \d+, (?:exiting|shutting down)"),
    ("started", r"^start worker processes$"),
    ("worker-leaving", r"^gracefully shutting down$"),
    ("worker-died", r"worker process \d+ exited on signal"),
    ("configuration", r"^(?:host not found|unknown |cannot load certificate|bind\(\) to|invalid)"),
)
_KINDS = tuple((kind, re.compile(pattern, re.DOTALL)) for kind, pattern in KINDS)
_ALERT = re.compile(r"SSL alert number (\d+)")
_OPENSSL = re.compile(r"SSL: error:([0-9A-F]{8}):[^:]*:[^:]*:([^:)]+)")


def read_error(text: str, utc_offset: float = 0.0) -> list[dict[str, Json]]:
    """Error log lines that are of a known kind, in order.

    *utc_offset*: seconds the log's local time is ahead of UTC. Each event: ``time`` (epoch
    seconds), ``level``, ``kind`` (of :data:`KINDS`), ``text``, ``connection``, ``pid``, and where
    nginx names them ``client``, ``server``, ``port``, ``request``, ``upstream``, ``host``,
    ``alert`` (TLS alert number), ``openssl`` (code), ``reason`` (OpenSSL's words).
    """
    events = []
    heads = list(_ERROR_HEAD.finditer(text))
    for head, following in zip(heads, [*heads[1:], None], strict=False):
        end = len(text) if following is None else following.start()
        message = text[head.end() : end].rstrip("\n")
        kind = next((kind for kind, pattern in _KINDS if pattern.search(message)), None)
        if kind is None:
            continue
        told = message.split(", client: ")[0]
        event: dict[str, Json] = {
            "time": _log_time(head["time"], utc_offset),
            "level": head["level"],
            "pid": int(head["pid"]),
            "connection": int(head["connection"]) if head["connection"] else None,
            "kind": kind,
            "text": told[:300],
        }
        for name, value in _FIELD.findall(message):
            event[name] = value.strip('"') or None
        port = re.search(r":(\d+)$", str(event.get("server") or ""))
        event["port"] = int(port[1]) if port else None
        alert, openssl = _ALERT.search(message), _OPENSSL.search(message)
        event["alert"] = int(alert[1]) if alert else None
        event["openssl"] = openssl[1] if openssl else None
        event["reason"] = openssl[2] if openssl else None
        events.append(event)
    return events


def _log_time(text: str, utc_offset: float) -> float:
    naive = dt.datetime.strptime(text, "%Y/%m/%d %H:%M:%S").replace(tzinfo=dt.UTC)
    return naive.timestamp() - utc_offset
