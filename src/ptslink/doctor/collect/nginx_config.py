"""nginx's configuration as nginx means it: effective settings, chosen site and location. Pure.

Works on what crossplane parsed; the facts are those of ``nginx.config`` (see :mod:`.nginx`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptslink.doctor.evidence import Json

Directive = dict[str, Any]

#: nginx's own defaults for what the causes compare, in seconds (nginx 1.22 documentation).
DEFAULT_SECONDS: Mapping[str, float] = {
    "proxy_read_timeout": 60.0,
    "proxy_send_timeout": 60.0,
    "proxy_connect_timeout": 60.0,
    "keepalive_timeout": 75.0,
    "client_header_timeout": 60.0,
}

#: One value, taken from the nearest level that has it.
_SINGLE = (
    "proxy_http_version",
    "proxy_buffering",
    "proxy_ignore_client_abort",
    "auth_basic",
    "auth_request",
    "ssl_protocols",
    "ssl_ciphers",
    "ssl_verify_client",
    "ssl_reject_handshake",
    "ssl_buffer_size",
    "ssl_client_certificate",
    "merge_slashes",
    "root",
)
#: Lists taken whole from the nearest level that has any.
_LISTS = ("limit_req", "limit_conn", "proxy_hide_header", "access_log", "error_log")
_CERTIFICATES = ("ssl_certificate", "ssl_certificate_key")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def seconds(text: str) -> float | None:
    """nginx's time notation (``1h 30m``, ``60``, ``500ms``) in seconds; None if it is none."""
    parts = re.findall(r"(\d+)(ms|[smhdw]?)", text.strip())
    if not parts or "".join(n + u for n, u in parts) != re.sub(r"\s+", "", text):
        return None
    return sum(int(number) * _UNITS[unit or "s"] for number, unit in parts)


def read_config(parsed: Mapping[str, Any]) -> dict[str, Json]:
    """crossplane's payload (``combine=True``) as the facts of ``nginx.config``."""
    errors = [
        f"{Path(str(item.get('file', ''))).name}: {item.get('error')}"
        for item in parsed.get("errors", [])
    ]
    top: list[Directive] = [d for item in parsed.get("config", []) for d in item["parsed"]]
    http = [d for block in top if block["directive"] == "http" for d in block["block"]]
    events = [d for block in top if block["directive"] == "events" for d in block["block"]]
    main = [str(item["file"]) for item in parsed.get("config", [])]
    return {
        "files": list(dict.fromkeys((*main, *_files(top)))),
        "errors": errors,
        "sites": sites(http, top),
        "upstreams": {
            d["args"][0]: [s["args"][0] for s in d["block"] if s["directive"] == "server"]
            for d in http
            if d["directive"] == "upstream"
        },
        "maps": [d["args"][1] for d in http if d["directive"] == "map" and len(d["args"]) > 1],
        "zones": dict(_zones(http)),
        "worker_shutdown_timeout": _seconds_of(top, "worker_shutdown_timeout"),
        "worker_connections": _number_of(events, "worker_connections") or 512,
        "worker_rlimit_nofile": _number_of(top, "worker_rlimit_nofile"),
    }


def _files(directives: Iterable[Directive]) -> Iterator[str]:
    """The files that directives stand in: all that are included, but for empty ones."""
    for one in directives:
        if one.get("file"):
            yield str(one["file"])
        yield from _files(one.get("block") or ())


def sites(http: Sequence[Directive], top: Sequence[Directive] = ()) -> list[dict[str, Json]]:
    """The server blocks of an http block.

    Each: ``file``, ``line``, ``listen`` [{"address", "port", "ssl", "http2", "proxy_protocol",
    "default", "line"}], ``names`` [str], ``settings`` (those of :func:`_settings`, at server level)
    and ``locations`` [{"modifier", "match", "line", "settings"}] with effective settings each.
    """
    found = []
    for server in http:
        if server["directive"] != "server":
            continue
        block: list[Directive] = server["block"]
        levels = [list(top), list(http), block]
        ssl = any(d["directive"] == "ssl" and d["args"] == ["on"] for d in block)
        found.append(
            {
                "file": str(server.get("file", "")),
                "line": server.get("line", 0),
                "listen": [
                    {**_listen(d["args"], ssl), "line": d.get("line", 0)}
                    for d in block
                    if d["directive"] == "listen"
                ]
                or [{**_listen(["80"], ssl), "line": server.get("line", 0)}],
                "names": [a for d in block if d["directive"] == "server_name" for a in d["args"]],
                "settings": _settings(levels),
                "locations": list(_locations(block, levels)),
            }
        )
    return found


def _locations(
    block: Sequence[Directive], levels: Sequence[Sequence[Directive]]
) -> Iterator[dict[str, Json]]:
    for d in block:
        if d["directive"] != "location":
            continue
        args = d["args"]
        modifier, match = (args[0], args[1]) if len(args) > 1 else ("", args[0])
        inner = [*levels, d["block"]]
        yield {
            "modifier": modifier,
            "match": match,
            "line": d.get("line", 0),
            "settings": _settings(inner),
        }
        yield from _locations(d["block"], inner)


def _settings(levels: Sequence[Sequence[Directive]]) -> dict[str, Json]:
    """What holds at the innermost of *levels* (outermost first)."""
    settings: dict[str, Json] = {}
    for name, default in DEFAULT_SECONDS.items():
        value = _nearest(levels, name)
        settings[name] = default if not value else seconds(str(value[0]["args"][0]))
    for name in _SINGLE:
        value = _nearest(levels, name)
        settings[name] = " ".join(value[-1]["args"]) if value else None
    for name in _LISTS:
        settings[name] = [" ".join(d["args"]) for d in _nearest(levels, name)]
    for name in _CERTIFICATES:
        settings[name] = [d["args"][0] for d in _nearest(levels, name)]
    settings["set_header"] = {
        d["args"][0].lower(): d["args"][1] if len(d["args"]) > 1 else ""
        for d in _nearest(levels, "proxy_set_header")
    }
    settings["access"] = [
        f"{d['directive']} {' '.join(d['args'])}" for d in _nearest_of(levels, ("allow", "deny"))
    ]
    # These are not inherited: they act where they stand, and on the way there.
    own = levels[-1]
    passes = [d["args"][0] for d in own if d["directive"] == "proxy_pass"]
    settings["proxy_pass"] = passes[0] if passes else None
    settings["return"] = _returns(levels[2:]) if len(levels) > 2 else []
    settings["rewrite"] = [
        " ".join(d["args"]) for level in levels[2:] for d in level if d["directive"] == "rewrite"
    ]
    return settings


def _returns(levels: Sequence[Sequence[Directive]]) -> list[dict[str, Json]]:
    """Every ``return`` on the way, each with the condition of the ``if`` it stands in, or ""."""
    found: list[dict[str, Json]] = []
    for level in levels:
        for d in level:
            if d["directive"] == "return":
                found.append({"if": "", "args": d["args"], "line": d.get("line", 0)})
            elif d["directive"] == "if":
                found += [
                    {"if": " ".join(d["args"]), "args": i["args"], "line": i.get("line", 0)}
                    for i in d["block"]
                    if i["directive"] == "return"
                ]
    return found


def _nearest(levels: Sequence[Sequence[Directive]], name: str) -> list[Directive]:
    return _nearest_of(levels, (name,))


def _nearest_of(levels: Sequence[Sequence[Directive]], names: Sequence[str]) -> list[Directive]:
    for level in reversed(levels):
        found = [d for d in level if d["directive"] in names]
        if found:
            return found
    return []


def _listen(args: Sequence[str], ssl: bool) -> dict[str, Json]:
    where = args[0]
    address, _, port = where.rpartition(":")
    if where.startswith("unix:"):
        address, port = where, "0"
    elif where.endswith("]"):
        address, port = where, "80"
    elif not address and not port.isdecimal():
        address, port = port, "80"
    options = set(args[1:])
    return {
        "address": address or "*",
        "port": int(port) if port.isdecimal() else 80,
        "ssl": ssl or "ssl" in options,
        "http2": "http2" in options,
        "proxy_protocol": "proxy_protocol" in options,
        "default": "default_server" in options or "default" in options,
    }


def _zones(http: Sequence[Directive]) -> Iterator[tuple[str, str]]:
    for d in http:
        if d["directive"] in ("limit_req_zone", "limit_conn_zone"):
            name = next((a[5:].split(":")[0] for a in d["args"] if a.startswith("zone=")), "")
            yield name, " ".join([d["directive"], *d["args"]])


def _seconds_of(block: Sequence[Directive], name: str) -> float | None:
    return next((seconds(d["args"][0]) for d in block if d["directive"] == name), None)


def _number_of(block: Sequence[Directive], name: str) -> int | None:
    return next(
        (
            int(d["args"][0])
            for d in block
            if d["directive"] == name and d["args"] and d["args"][0].isdecimal()
        ),
        None,
    )


def site_for(
    config: Mapping[str, Json], port: int, host: str, address: str = ""
) -> dict[str, Any] | None:
    """The server block nginx picks for a port and the Host a client sends (its port cut off).

    A block that listens on the very *address* dialled goes before those that listen on all. Then,
    in nginx's order: exact name, wildcard at the start, wildcard at the end, regular expression,
    default server of the port.
    """
    listening: list[tuple[dict[str, Any], bool]] = []
    exact = any(
        (entry["address"], entry["port"]) == (address, port)
        for site in config.get("sites", [])
        for entry in site["listen"]
    )
    for site in config.get("sites", []):
        here = [
            entry
            for entry in site["listen"]
            if entry["port"] == port and (not exact or entry["address"] == address)
        ]
        if here:
            listening.append((site, any(entry["default"] for entry in here)))
    host = re.sub(r":\d+$", "", host).lower()

    def first(matches: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
        return next(iter(matches), None)

    every = [site for site, _ in listening]
    picked = first(s for s in every if host in (n.lower() for n in s["names"]))
    for start in (True, False):
        picked = picked or first(
            s for s in every if any(_wildcard(n.lower(), host, start) for n in s["names"])
        )
    picked = picked or first(s for s in every if any(_expression(n, host) for n in s["names"]))
    picked = picked or first(site for site, default in listening if default)
    return picked or first(every)


def _wildcard(name: str, host: str, start: bool) -> bool:
    if start:
        if name.startswith("*."):
            return host.endswith(name[1:])
        return name.startswith(".") and (host == name[1:] or host.endswith(name))
    return name.endswith(".*") and host.startswith(name[:-1])


def _expression(name: str, host: str) -> bool:
    return name.startswith("~") and _matches(name[1:], host)


def _matches(pattern: str, text: str, ignore_case: bool = False) -> bool:
    try:
        # Named groups are written alike in PCRE and Python but for the P.
        pattern = re.sub(r"\(\?<(?![=!])", "(?P<", pattern)
        return re.search(pattern, text, re.IGNORECASE if ignore_case else 0) is not None
    except re.error:
        return False


def passes_to(config: Mapping[str, Json], location: Mapping[str, Json], port: int) -> bool:
    """Whether a location passes requests on to a server of ours on *port*."""
    target = location["settings"]["proxy_pass"]
    if not target:
        return False
    name = str(target).split("://")[-1].split("/")[0]
    servers = (config.get("upstreams") or {}).get(name, [name])
    return any(str(server).endswith(f":{port}") for server in servers)


def location_for(site: Mapping[str, Json], path: str) -> dict[str, Any] | None:
    """The location nginx picks for a path within a server block, or None."""
    path = re.sub(r"//+", "/", path.split("?")[0])
    locations: list[dict[str, Any]] = site["locations"]
    for location in locations:
        if location["modifier"] == "=" and location["match"] == path:
            return location
    prefixes = [
        loc for loc in locations if loc["modifier"] in ("", "^~") and path.startswith(loc["match"])
    ]
    longest = max(prefixes, key=lambda loc: len(loc["match"]), default=None)
    if longest is not None and longest["modifier"] == "^~":
        return longest
    for location in locations:
        if location["modifier"] in ("~", "~*") and _matches(
            location["match"], path, ignore_case=location["modifier"] == "~*"
        ):
            return location
    return longest
