"""nginx in front of the service: its configuration, its processes, its log lines of the link.

Evidence (vantage ``server``):

``nginx.config``
    ``files``        [str]   every file read
    ``errors``       [str]   what crossplane could not parse
    ``sites``        [dict]  the server blocks, see :func:`sites`
    ``upstreams``    {name: [address]}
    ``maps``         [str]   variables defined by ``map``, with their ``$``
    ``zones``        {zone: limit}  of limit_req_zone and limit_conn_zone
    ``worker_shutdown_timeout``, ``worker_connections``, ``worker_rlimit_nofile``  number or None
    ``changed``      float   newest modification time of any file, epoch seconds
``nginx.process``
    ``installed``, ``running``  bool
    ``active_state``, ``sub_state``, ``result``  str, of nginx.service
    ``started``      float   epoch seconds the master started, or None
    ``reloaded``     float   epoch seconds the newest worker started, or None
    ``workers``      [{"pid", "started", "shutting_down", "files", "files_limit"}]
    ``test_ok``      bool or None, of ``nginx -t``
    ``test_message`` str     its [emerg] line, or ""
``nginx.access``
    ``file``, ``lines``  see :func:`.nginx_log.read_access`; the last ones only
``nginx.error``
    ``file``, ``level``, ``events``  see :func:`.nginx_log.read_error`; the last ones
    ``hidden``       bool    whether the configured level hides what is told at ``info``
``nginx.tls``
    see :mod:`ptslink.doctor.collect.tls`

An effective setting of a location is what nginx would use there: ``proxy_set_header`` and the
like are inherited only by a level that has none of its own (nginx documentation, "Module
ngx_http_proxy_module").
"""

from __future__ import annotations

import datetime as dt
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptslink.doctor.collect.edge import Machine, Output, Stopwatch
from ptslink.doctor.collect.nginx_log import read_access, read_error
from ptslink.doctor.evidence import Evidence, Json, Status

CONFIG = Path("/etc/nginx/nginx.conf")
#: How many lines of a log are kept, the last ones.
LINES = 2000

Directive = dict[str, Any]

# --- Configuration -----------------------------------------------------------------------------

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
    files = [str(item["file"]) for item in parsed.get("config", [])]
    top: list[Directive] = [d for item in parsed.get("config", []) for d in item["parsed"]]
    http = [d for block in top if block["directive"] == "http" for d in block["block"]]
    events = [d for block in top if block["directive"] == "events" for d in block["block"]]
    return {
        "files": files,
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


def sites(http: Sequence[Directive], top: Sequence[Directive] = ()) -> list[dict[str, Json]]:
    """The server blocks of an http block.

    Each: ``file``, ``line``, ``listen`` [{"address", "port", "ssl", "http2", "proxy_protocol",
    "default"}], ``names`` [str], ``settings`` (those of :func:`_settings`, at server level) and
    ``locations`` [{"modifier", "match", "line", "settings"}] with effective settings each.
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
                "listen": [_listen(d["args"], ssl) for d in block if d["directive"] == "listen"]
                or [_listen(["80"], ssl)],
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


def site_for(config: Mapping[str, Json], port: int, host: str) -> dict[str, Any] | None:
    """The server block nginx picks for a port and the Host a client sends (its port cut off).

    Order of nginx: exact name, wildcard at the start, wildcard at the end, regular expression,
    default server of the port.
    """
    listening: list[tuple[dict[str, Any], bool]] = []
    for site in config.get("sites", []):
        here = [entry for entry in site["listen"] if entry["port"] == port]
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


# --- Processes ---------------------------------------------------------------------------------


def read_processes(text: str, now: float, main_pid: int | None = None) -> dict[str, Json]:
    """``ps -C nginx -o pid=,ppid=,etimes=,args=`` as facts: master and workers.

    *now*: epoch seconds at which ps ran. *main_pid*: the master of nginx.service; containers of
    this host may have others.
    """
    master: tuple[int, float] | None = None
    workers: list[dict[str, Json]] = []
    for line in text.splitlines():
        parts = line.split(None, 3)
        if len(parts) < 4 or not parts[2].isdecimal():
            continue
        pid, started, args = int(parts[0]), now - float(parts[2]), parts[3]
        if "master process" in args and (master is None or pid == main_pid):
            master = (pid, started)
        elif "worker process" in args:
            leaving = "shutting down" in args
            worker = {"pid": pid, "started": started, "shutting_down": leaving}
            workers.append({**worker, "parent": int(parts[1])})
    if master is not None:
        workers = [worker for worker in workers if worker.pop("parent") == master[0]]
    fresh = [w["started"] for w in workers if not w["shutting_down"]]
    return {
        "running": master is not None,
        "master": master[0] if master else None,
        "started": master[1] if master else None,
        "reloaded": max(fresh, default=None),
        "workers": workers,
    }


def read_test(code: int, text: str) -> dict[str, Json]:
    """``nginx -t``: whether it passed, and the line that says why not."""
    emerg = [line for line in text.splitlines() if "[emerg]" in line]
    message = re.sub(r"^.*\[emerg\] (?:\d+#\d+: )?", "", emerg[0]) if emerg else ""
    return {"test_ok": code == 0, "test_message": message or ("" if code == 0 else text[-300:])}


# --- The thin edge -----------------------------------------------------------------------------


def collect(machine: Machine, config: Path = CONFIG) -> list[Evidence]:
    """Everything about nginx on this machine; skipped where there is none."""
    watch = Stopwatch()
    config_seen = configured(watch, config)
    process = _process(machine, watch)
    if not process.facts.get("installed") and config_seen.status is Status.SKIPPED:
        gone = "nginx is not installed here"
        return [watch.skipped(probe, gone) for probe in ("nginx.config", "nginx.process")]
    logs = log_files(config_seen.facts)
    hidden = info_hidden(config_seen.facts)
    return [
        config_seen,
        process,
        _access(machine, watch, logs["access_log"]),
        _error(machine, watch, logs["error_log"], hidden),
    ]


def configured(watch: Stopwatch, config: Path = CONFIG) -> Evidence:
    """``nginx.config`` of this machine."""
    import crossplane  # type: ignore[import-untyped]  # only the edge needs it

    if not config.is_file():
        return watch.skipped("nginx.config", f"there is no {config}")
    if not os.access(config, os.R_OK):
        return watch.skipped("nginx.config", f"{config} may not be read; run as root")
    parsed = crossplane.parse(str(config), catch_errors=True, combine=True)
    facts = read_config(parsed)
    changed = [Path(f).stat().st_mtime for f in facts["files"] if Path(f).exists()]
    facts["changed"] = max(changed, default=None)
    if facts["errors"]:
        return watch.piece("nginx.config", Status.FAILED, facts["errors"][0], facts)
    proxied = sum(
        1 for s in facts["sites"] for loc in s["locations"] if loc["settings"]["proxy_pass"]
    )
    seen = f"{len(facts['sites'])} server blocks, {proxied} proxying locations"
    return watch.piece("nginx.config", Status.OK, seen, facts)


def _process(machine: Machine, watch: Stopwatch) -> Evidence:
    listed = machine.run("ps", "-C", "nginx", "-o", "pid=,ppid=,etimes=,args=")
    properties = "LoadState,ActiveState,SubState,Result,NRestarts,MainPID"
    unit = machine.run("systemctl", "show", "nginx.service", "-p", properties)
    shown = dict(line.split("=", 1) for line in unit.text.splitlines() if "=" in line)
    known = unit.ok and shown.get("LoadState") != "not-found"
    main_pid = shown.get("MainPID", "0")
    facts = read_processes(listed.text, time.time(), int(main_pid) or None)
    for worker in facts["workers"]:
        worker.update(_files(machine, worker["pid"]))
    facts["active_state"] = shown.get("ActiveState") if known else None
    facts["sub_state"] = shown.get("SubState") if known else None
    facts["result"] = shown.get("Result") if known else None
    facts["test_ok"], facts["test_message"] = None, ""
    tested = machine.run("nginx", "-t", "-q", seconds=10.0) if machine.is_root() else Output("", 0)
    facts["installed"] = facts["running"] or known or (machine.is_root() and not tested.missing)
    if machine.is_root() and tested.code is not None:
        facts.update(read_test(tested.code, tested.text + tested.error))
    if not facts["running"]:
        seen = f"nginx does not run ({facts['active_state'] or 'no unit'})"
        if facts["test_message"]:
            seen += f"; {facts['test_message']}"
        return watch.piece("nginx.process", Status.FAILED, seen, facts)
    if facts["test_ok"] is False:
        seen = f"nginx runs, but its configuration on disk is refused: {facts['test_message']}"
        return watch.piece("nginx.process", Status.FAILED, seen, facts)
    seen = f"nginx runs with {len(facts['workers'])} workers"
    leaving = sum(1 for worker in facts["workers"] if worker["shutting_down"])
    seen += f", {leaving} of them on their way out" if leaving else ""
    return watch.piece("nginx.process", Status.OK, seen, facts)


def _files(machine: Machine, pid: int) -> dict[str, Json]:
    """Open files and their limit of a process, as far as this user may see."""
    names = machine.names(f"/proc/{pid}/fd")
    limits = re.search(r"Max open files\s+(\d+)", machine.read(f"/proc/{pid}/limits") or "")
    return {
        "files": None if names is None else len(names),
        "files_limit": int(limits[1]) if limits else None,
    }


def log_files(config: Mapping[str, Json]) -> dict[str, list[str]]:
    """The log files of the sites, then nginx's own, by directive."""
    found: dict[str, list[str]] = {"access_log": [], "error_log": []}
    for site in config.get("sites", []):
        for level in [*site["locations"], site]:
            for kind, paths in found.items():
                for text in level["settings"][kind]:
                    path = text.split(" ")[0]
                    if path.startswith("/") and path not in paths:
                        paths.append(path)
    for kind, paths in found.items():
        default = "/var/log/nginx/" + kind.replace("_", ".")
        if default not in paths:
            paths.append(default)
    return found


def info_hidden(config: Mapping[str, Json]) -> bool | None:
    """Whether every proxying site's error log leaves out what nginx tells at ``info``."""
    levels = [
        (*text.split(" "), "error")[1]
        for site in config.get("sites", [])
        for location in site["locations"]
        if location["settings"]["proxy_pass"]
        for text in (location["settings"]["error_log"] or ["default"])
    ]
    return all(level not in ("info", "debug") for level in levels) if levels else None


def _access(machine: Machine, watch: Stopwatch, paths: Sequence[str]) -> Evidence:
    texts = {path: text for path in paths if (text := machine.read(path, tail=True)) is not None}
    if not texts:
        return watch.skipped("nginx.access", f"cannot read {', '.join(paths)}")
    lines = [line for text in texts.values() for line in read_access(text)]
    lines = sorted(lines, key=lambda line: line["time"] or 0.0)[-LINES:]
    seen = f"{len(lines)} requests in {', '.join(texts)}"
    return watch.piece("nginx.access", Status.OK, seen, {"file": list(texts), "lines": lines})


def _error(
    machine: Machine, watch: Stopwatch, paths: Sequence[str], hidden: bool | None
) -> Evidence:
    texts = {path: text for path in paths if (text := machine.read(path, tail=True)) is not None}
    if not texts:
        return watch.skipped("nginx.error", f"cannot read {', '.join(paths)}")
    offset = (dt.datetime.now().astimezone().utcoffset() or dt.timedelta()).total_seconds()
    events = [event for text in texts.values() for event in read_error(text, offset)]
    events = sorted(events, key=lambda event: event["time"])[-LINES:]
    seen = f"{len(events)} events in {', '.join(texts)}"
    if hidden:
        seen += "; the level hides handshake failures and idle cuts"
    facts = {"file": list(texts), "hidden": hidden, "events": events}
    return watch.piece("nginx.error", Status.OK, seen, facts)
