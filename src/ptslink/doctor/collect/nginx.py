"""nginx in front of the service: its configuration, its processes, its log lines of the link.

Evidence (vantage ``server``):

``nginx.config``
    ``files``        [str]   every file read
    ``errors``       [str]   what crossplane could not parse
    ``sites``        [dict]  the server blocks, see :func:`.nginx_config.sites`
    ``upstreams``    {name: [address]}
    ``maps``         [str]   variables defined by ``map``, with their ``$``
    ``zones``        {zone: limit}  of limit_req_zone and limit_conn_zone
    ``worker_shutdown_timeout``, ``worker_connections``, ``worker_rlimit_nofile``  number or None
    ``unread``       [str]   files beside the configuration that no include names and that pass on
        to an upstream
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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ptslink.doctor.collect.edge import Machine, Output, Stopwatch
from ptslink.doctor.collect.nginx_config import read_config
from ptslink.doctor.collect.nginx_log import read_access, read_error
from ptslink.doctor.evidence import Evidence, Json, Status

CONFIG = Path("/etc/nginx/nginx.conf")
#: How many lines of a log are kept, the last ones.
LINES = 2000

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


def collect(machine: Machine, config: Path = CONFIG) -> Iterator[Evidence]:
    """Everything about nginx on this machine; skipped where there is none."""
    watch = Stopwatch()
    config_seen = configured(watch, config)
    (process,) = watch.guarded("nginx.process", lambda: _process(machine, watch))
    skipped = Status.SKIPPED
    if process.facts.get("installed") is False and config_seen.status is skipped:
        for probe in ("nginx.config", "nginx.process"):
            yield watch.skipped(probe, "nginx is not installed here")
        return
    yield from (config_seen, process)
    logs = log_files(config_seen.facts)
    hidden = info_hidden(config_seen.facts)
    yield from watch.guarded("nginx.access", lambda: _access(machine, watch, logs["access_log"]))
    yield from watch.guarded(
        "nginx.error", lambda: _error(machine, watch, logs["error_log"], hidden)
    )


def configured(watch: Stopwatch, config: Path = CONFIG) -> Evidence:
    """``nginx.config`` of this machine."""
    try:
        import crossplane  # type: ignore[import-untyped]  # only the edge needs it
    except ModuleNotFoundError:
        return watch.skipped("nginx.config", "crossplane is not installed for this Python")
    if not config.is_file():
        return watch.skipped("nginx.config", f"there is no {config}")
    if not os.access(config, os.R_OK):
        return watch.skipped("nginx.config", f"{config} may not be read; run as root")
    try:
        facts = read_config(crossplane.parse(str(config), catch_errors=True, combine=True))
    except Exception as error:  # of whatever somebody wrote into it
        why = f"{config} could not be read: {type(error).__name__}: {error}"
        return watch.skipped("nginx.config", why)
    changed = [Path(f).stat().st_mtime for f in facts["files"] if Path(f).exists()]
    facts["unread"] = unread(config.parent, facts["files"])
    facts["changed"] = max(changed, default=None)
    if facts["errors"]:
        return watch.piece("nginx.config", Status.FAILED, facts["errors"][0], facts)
    proxied = sum(
        1 for s in facts["sites"] for loc in s["locations"] if loc["settings"]["proxy_pass"]
    )
    seen = f"{len(facts['sites'])} server blocks, {proxied} proxying locations"
    return watch.piece("nginx.config", Status.OK, seen, facts)


def unread(directory: Path, files: Sequence[str]) -> list[str]:
    """Configuration files in the usual places that pass requests on and that nginx does not read.

    *files*: those it reads.
    """
    read = {Path(file).resolve() for file in files}
    usual = {*directory.glob("conf.d/*.conf"), *directory.glob("sites-enabled/*")}
    # Elsewhere, or under a name that no include fits, only what is the link's.
    named = {*directory.glob("conf.d/*"), *directory.glob("sites-available/*")}
    found = []
    for file in sorted(usual | named):
        if not file.is_file() or file.resolve() in read:
            continue
        text = file.read_text("utf-8", "replace")
        passes = re.search(r"^[^#\n]*\bproxy_pass\s", text, re.MULTILINE)
        if passes and (file in usual or "ptslink" in text):
            found.append(str(file))
    return found


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
