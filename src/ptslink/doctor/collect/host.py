"""What the host itself suffers from: units, memory, processor, disks, clock, upgrades.

Vantage ``server``, read-only. The evidence and its facts (left out where not to be read):

``host.unit``  one per unit: ``unit``, ``load`` loaded|not-found|masked, ``active``, ``sub``,
    ``result`` success|exit-code|signal|oom-kill|start-limit-hit|watchdog|..., ``exit_code``,
    ``exit_status``, ``restarts`` since it was started, ``enabled`` (unit file state), ``pid``,
    ``since`` and ``started``: epoch seconds of becoming active and of the main process,
    ``drop_ins``: [path], ``set``: of one that is not active [[path, line]] of those,
    ``stock``: {setting: value} of those that can cut a link off (IPAddressDeny,
    IPAddressAllow, RestrictAddressFamilies, PrivateNetwork, CPUQuotaPerSecUSec,
    MemoryMax, LimitNOFILE, StartLimitIntervalUSec, RestartUSec), ``start_limit``: bool, the
    journal says "Start request repeated too quickly", ``last_lines``: its last five, ``denied``:
    those of the last fifty that tell of a call that was not permitted (errno 1, 13, 97),
    ``closed``: [{``directory``, ``mode``, ``owner``, ``user``}] on the way to its program that the
    unit's user may not enter
``host.descriptors``  one per unit with a main process: ``unit``, ``pid``, ``open``, ``limit``
``host.selinux``, ``host.sandbox``  see :mod:`ptslink.doctor.collect.confinement`
``host.oom``  ``kills``: [{``at``, ``process``, ``unit``, ``line``}] since boot, newest last
``host.trouble``  ``lines``: {ENOSPC|EMFILE|ENFILE: [{``at``, ``unit``, ``message``}]} of our
    units in the last hour, newest last
``host.memory``  ``total``, ``available``, ``swap_total``, ``swap_free``, bytes
``host.cpu``  ``cpus``, ``load``: [1, 5, 15 min], ``some10``: PSI cpu "some" avg10 in percent,
    ``steal``: percent over the sample, ``throttled``: {unit: share of periods throttled}
``host.disk``  ``file_systems``: [{``path``, ``mount``, ``size``, ``free`` for the service,
    ``inodes``, ``inodes_free``, ``read_only``, ``type``, ``largest``? [str] directories of a
    full one, the largest first}] one a file system the link writes to
``host.clock``  ``now`` epoch seconds, ``synchronized``, ``can_sync``, ``ntp``: bool,
    ``virtual`` (a container cannot set its clock), ``newest_seen``: newest time found in our own
    files, epoch seconds: a clock behind it has gone backwards
``host.upgrades``  ``runs``: [{``start``, ``end``, ``packages``: [str], ``unattended``: bool}]
    newest last, epoch seconds; ``timers``: unattended upgrades switched on
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from ptslink.doctor.collect import confinement
from ptslink.doctor.collect.edge import Machine, Stopwatch, journal_refused
from ptslink.doctor.evidence import Evidence, Status

UNITS = ("ptslink.service", "ptslink.socket", "nginx.service")
#: Where the link writes: a full file system under any of them is a lost record.
WRITTEN = ("/var/lib/ptslink", "/var/log/ptslink", "/var/log/nginx", "/run", "/tmp", "/")
#: Under this a file system is full: SQLite cannot grow its log by one page group. Bytes.
FULL_BYTES = 1 << 20
STOCK = (
    "IPAddressDeny",
    "IPAddressAllow",
    "RestrictAddressFamilies",
    "PrivateNetwork",
    "CPUQuotaPerSecUSec",
    "MemoryMax",
    "LimitNOFILE",
    "StartLimitIntervalUSec",
    "RestartUSec",
)
_UNIT_KEYS = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainCode",
    "ExecMainStatus",
    "ExecMainStartTimestamp",
    "ActiveEnterTimestamp",
    "NRestarts",
    "UnitFileState",
    "MainPID",
    "ControlGroup",
    "DropInPaths",
    "User",
    "ExecStart",
    *STOCK,
)

_DENIED = re.compile(r"\b(?:socket|connect|bind)\(\).*\((?:1|13|97): |Errno (?:1|13|97)\b")
_TROUBLE = {
    "ENOSPC": re.compile(r"Errno 28\b|No space left on device|database or disk is full|ENOSPC"),
    "EMFILE": re.compile(r"Errno 24\b|Too many open files|EMFILE"),
    "ENFILE": re.compile(r"Errno 23\b|Too many open files in system|ENFILE"),
}


# Readers: text in, typed facts out.


def read_show(text: str) -> list[dict[str, str]]:
    """``systemctl show A B ...``: one dictionary a unit, blank lines between them."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in blocks if block]  # fmt: skip


def read_timestamp(text: str) -> float | None:
    """systemd's ``Sun 2026-11-22 20:16:40 UTC`` as epoch seconds; None for n/a and other zones."""
    found = re.search(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", text)
    if found is None:
        return None
    moment = dt.datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=dt.UTC)
    return moment.timestamp()


def read_unit(show: Mapping[str, str]) -> dict[str, Any]:
    """One block of ``systemctl show`` -> the facts of ``host.unit``."""

    def number(key: str) -> int | None:
        value = show.get(key, "")
        return int(value) if value.isdecimal() else None

    return {
        "unit": show.get("Id", ""),
        "load": show.get("LoadState"),
        "active": show.get("ActiveState"),
        "sub": show.get("SubState"),
        "result": show.get("Result"),
        "exit_code": number("ExecMainCode"),
        "exit_status": number("ExecMainStatus"),
        "restarts": number("NRestarts"),
        "enabled": show.get("UnitFileState") or None,
        "pid": number("MainPID") or None,
        "since": read_timestamp(show.get("ActiveEnterTimestamp", "")),
        "started": read_timestamp(show.get("ExecMainStartTimestamp", "")),
        "drop_ins": show.get("DropInPaths", "").split(),
        "stock": {key: show[key] for key in STOCK if key in show},
        "control_group": show.get("ControlGroup") or None,
    }


def read_journal(text: str) -> list[dict[str, Any]]:
    """``journalctl -o json`` -> [{at, unit, message}]; lines that are no entry are left out."""
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            message = entry.get("MESSAGE")
            if isinstance(message, list):  # journald gives bytes that are not UTF-8 as numbers
                message = bytes(message).decode("utf-8", "replace")
            stamp = int(entry.get("__REALTIME_TIMESTAMP") or 0)
        except (ValueError, TypeError, AttributeError):
            continue
        found.append(
            {
                "at": stamp / 1e6 if stamp else None,
                "unit": entry.get("UNIT") or entry.get("_SYSTEMD_UNIT"),
                "message": str(message or ""),
                "identifier": entry.get("SYSLOG_IDENTIFIER"),
            }
        )
    return found


_KILLED = re.compile(r"Killed process \d+ \((?P<process>[^)]*)\)|oom-kill:.*task=(?P<task>[^,]*)")
_CGROUP = re.compile(r"task_memcg=\S*/(?P<unit>[^/,\s]+\.service)")


def read_oom(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """OOM kills in journal entries: the kernel's own lines, and systemd's word about a unit."""
    kills = []
    for entry in entries:
        message = entry["message"]
        found, group = _KILLED.search(message), _CGROUP.search(message)
        by_systemd = "killed by the OOM killer" in message or "result 'oom-kill'" in message
        if found is None and not by_systemd:
            continue
        kills.append(
            {
                "at": entry["at"],
                "process": (found["process"] or found["task"]) if found else None,
                "unit": group["unit"] if group else (entry["unit"] if by_systemd else None),
                "line": message[:200],
            }
        )
    return kills


def read_trouble(entries: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Lines that tell of an exhausted resource, by errno."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        for name, pattern in _TROUBLE.items():
            if pattern.search(entry["message"]):
                line = {"at": entry["at"], "unit": entry["unit"],
                        "message": entry["message"][:300]}  # fmt: skip
                found.setdefault(name, []).append(line)
    return {name: lines[-10:] for name, lines in found.items()}


def read_meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo -> bytes."""
    names = {"MemTotal": "total", "MemAvailable": "available",
             "SwapTotal": "swap_total", "SwapFree": "swap_free"}  # fmt: skip
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in names:
            found[names[name]] = int(value.split()[0]) * 1024
    return found


def read_mounts(text: str) -> dict[str, str]:
    """The mount points of /proc/self/mountinfo and the types of their file systems; blanks are
    written as octal numbers there."""
    found = {}
    for line in text.splitlines():
        words, _, rest = line.partition(" - ")
        if len(point := words.split()) > 4:
            name = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point[4])
            found[name] = rest.partition(" ")[0]
    return found


def mount_of(path: str, mounts: Iterable[str]) -> str | None:
    """The mount point that *path* lies under, None where none is known."""
    above = [one for one in mounts if path == one or path.startswith(one.rstrip("/") + "/")]
    return max(above, key=len, default=None)


def read_pressure(text: str) -> float | None:
    """``some avg10`` of /proc/pressure/*, percent of the last ten seconds."""
    found = re.search(r"^some avg10=([\d.]+)", text, re.MULTILINE)
    return float(found[1]) if found else None


def read_steal(before: str, after: str) -> float | None:
    """Share of stolen time between two readings of /proc/stat, percent."""

    def ticks(text: str) -> list[int]:
        line = next((line for line in text.splitlines() if line.startswith("cpu ")), "")
        return [int(word) for word in line.split()[1:9]]

    first, second = ticks(before), ticks(after)
    if len(first) < 8 or len(second) < 8:
        return None
    passed = [b - a for a, b in zip(first, second, strict=True)]
    return round(100 * passed[7] / sum(passed), 1) if sum(passed) > 0 else None


def read_cpu_stat(text: str) -> float | None:
    """Share of a control group's periods in which its quota ran out, 0 to 1."""
    values = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    periods = int(values.get("nr_periods", 0))
    return round(int(values.get("nr_throttled", 0)) / periods, 3) if periods else None


def read_timedate(text: str) -> dict[str, bool]:
    """``timedatectl show`` -> synchronized, can_sync, ntp."""
    (show,) = read_show(text) or [{}]
    names = {"NTPSynchronized": "synchronized", "CanNTP": "can_sync", "NTP": "ntp"}
    return {new: show[old] == "yes" for old, new in names.items() if old in show}


def read_apt_history(text: str) -> list[dict[str, Any]]:
    """/var/log/apt/history.log -> the runs; its times are local time without a zone."""
    runs = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "Start-Date" not in lines:
            continue
        packages = []
        for kind in ("Upgrade", "Install", "Reinstall"):
            packages += re.findall(r"([a-z0-9][a-z0-9+.-]*):\w+ \(", lines.get(kind, ""))
        runs.append(
            {
                "start": _local_time(lines["Start-Date"]),
                "end": _local_time(lines.get("End-Date", lines["Start-Date"])),
                "packages": packages,
                "unattended": "unattended-upgrade" in lines.get("Commandline", ""),
            }
        )
    return runs


def _local_time(text: str) -> float | None:
    try:
        moment = dt.datetime.strptime(" ".join(text.split()), "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007
    except ValueError:
        return None
    return moment.astimezone().timestamp()


# Collectors: the thin edges.


def collect(machine: Machine, units: Sequence[str] = UNITS) -> Iterator[Evidence]:
    """Everything of this module, in the order of its docstring."""
    watch = Stopwatch()
    guarded = watch.guarded
    stat = machine.read("/proc/stat") or ""
    shown = list(guarded("host.unit", lambda: _units(machine, watch, units)))
    yield from shown
    for facts in [piece.facts for piece in shown if piece.facts.get("pid")]:
        yield from guarded(
            "host.descriptors",
            lambda facts=facts: _descriptors(machine, watch, facts),  # type: ignore[misc]
        )
    yield from confinement.collect(machine, watch, [unit for unit in units if ".service" in unit])
    yield from guarded("host.oom", lambda: _oom(machine, watch))
    yield from guarded("host.trouble", lambda: _trouble(machine, watch, units))
    yield from guarded("host.memory", lambda: _memory(machine, watch))
    yield from guarded("host.cpu", lambda: _cpu(machine, watch, stat, shown))
    yield from guarded("host.disk", lambda: _disk(machine, watch))
    yield from guarded("host.clock", lambda: _clock(machine, watch))
    yield from guarded("host.upgrades", lambda: _upgrades(machine, watch))


def _units(machine: Machine, watch: Stopwatch, units: Sequence[str]) -> list[Evidence]:
    output = machine.run("systemctl", "show", "-p", ",".join(_UNIT_KEYS), *units)
    if not output.ok:
        return [watch.skipped("host.unit", output.why)]
    pieces = []
    for show in read_show(output.text):
        facts = read_unit(show)
        if facts["load"] == "not-found":
            seen = f"{facts['unit']}: no such unit"
            pieces.append(watch.piece("host.unit", Status.UNKNOWN, seen, facts))
            continue
        if facts["active"] != "active":
            log = machine.run("journalctl", "-u", facts["unit"], "-n", "50", "-o", "cat",
                              "--no-pager")  # fmt: skip
            if not journal_refused(log):
                lines = [line[:200] for line in log.text.splitlines()]
                facts["start_limit"] = "repeated too quickly" in log.text
                facts["last_lines"] = last_words(lines)
                facts["closed"] = closed(machine, show)
                facts["set"] = [
                    [path, line.strip()[:120]]
                    for path in facts["drop_ins"]
                    for line in (machine.read(path) or "").splitlines()
                    if re.match(r"\s*[A-Z]\w+\s*=", line)
                ][:30]
                facts["denied"] = [line for line in lines if _DENIED.search(line)][-3:]
        seen = f"{facts['unit']}: {facts['active']} ({facts['sub']}), result {facts['result']}"
        if facts["restarts"]:
            seen += f", restarted {facts['restarts']} times"
        status = Status.OK if facts["active"] == "active" else Status.FAILED
        if facts["active"] != "active" and facts["enabled"] in ("disabled", None):
            status = Status.UNKNOWN  # nobody meant it to run
        pieces.append(watch.piece("host.unit", status, seen, facts))
    return pieces


#: What systemd says of every unit that ends, whatever the process said before.
_SYSTEMDS = re.compile(
    r"(?:Start(?:ed|ing)|Stopp(?:ed|ing)|Scheduled restart|Failed to start)\b"
    r"|\S+\.(?:service|socket): (?!Failed at step|Unable to locate)"
)


def last_words(lines: Sequence[str]) -> list[str]:
    """The last five of a unit's lines that are the process's own; systemd's where there are none
    (why it could not even run the program is systemd's to say)."""
    own = [line for line in lines if line.strip() and not _SYSTEMDS.match(line)]
    return (own or list(lines))[-5:]


def closed(machine: Machine, show: Mapping[str, str]) -> list[dict[str, Any]]:
    """The directories on the way to a unit's program that its user may not enter."""
    user = show.get("User") or "root"
    program = re.search(r"path=(\S+)", show.get("ExecStart", ""))
    if user == "root" or program is None:
        return []
    real = machine.run("readlink", "-f", program[1]).text.strip()
    ways = {str(one) for path in (program[1], real) if path for one in PurePath(path).parents}
    groups = machine.run("id", "-Gn", user).text.split()
    told = machine.run("stat", "-L", "-c", "%a %U %G %n", *sorted(ways))
    found = []
    for line in told.text.splitlines():
        mode, owner, group, directory = line.split(" ", 3)
        shift = 6 if owner == user else 3 if group in groups else 0
        if not int(mode, 8) >> shift & 1:
            found.append({"directory": directory, "mode": mode, "owner": owner, "user": user})
    return found


def _descriptors(machine: Machine, watch: Stopwatch, unit: Mapping[str, Any]) -> Evidence:
    pid = unit["pid"]
    names, limits = machine.names(f"/proc/{pid}/fd"), machine.read(f"/proc/{pid}/limits")
    if names is None or limits is None:
        return watch.skipped("host.descriptors", f"/proc/{pid} is shown to root only")
    found = re.search(r"^Max open files\s+(\d+)", limits, re.MULTILINE)
    limit = int(found[1]) if found else None
    facts = {"unit": unit["unit"], "pid": pid, "open": len(names), "limit": limit}
    seen = f"{unit['unit']}: {len(names)} of {limit} descriptors open"
    return watch.piece("host.descriptors", Status.OK, seen, facts)


def _oom(machine: Machine, watch: Stopwatch) -> Evidence:
    kernel = machine.run(
        "journalctl", "-b", "-o", "json", "--no-pager", "-n", "200",
        "-g", "Killed process|oom-kill|OOM killer",
    )  # fmt: skip
    if why := journal_refused(kernel):
        return watch.skipped("host.oom", why)
    kills = read_oom(read_journal(kernel.text))
    seen = kills[-1]["line"] if kills else "none since boot"
    return watch.piece("host.oom", Status.OK, seen, {"kills": kills})


def _trouble(machine: Machine, watch: Stopwatch, units: Sequence[str]) -> Evidence:
    wanted = [word for unit in units for word in ("-u", unit)]
    ours = machine.run(
        "journalctl", *wanted, "--since", "-1h", "-o", "json", "--no-pager", "-n", "500",
        "-g", "Errno 2[348]|No space left|disk is full|Too many open files",
    )  # fmt: skip
    if why := journal_refused(ours):
        return watch.skipped("host.trouble", why)
    lines = read_trouble(read_journal(ours.text))
    shown = ", ".join(f"{name} {len(found)} times" for name, found in lines.items())
    return watch.piece(
        "host.trouble", Status.OK, shown or "no exhausted resource told of", {"lines": lines}
    )


def _memory(machine: Machine, watch: Stopwatch) -> Evidence:
    facts = read_meminfo(machine.read("/proc/meminfo") or "")
    if "total" not in facts:
        return watch.skipped("host.memory", "/proc/meminfo cannot be read")
    share = facts.get("available", 0) / facts["total"]
    return watch.piece("host.memory", Status.OK, f"{share:.0%} available", facts)


def _cpu(machine: Machine, watch: Stopwatch, stat: str, units: Sequence[Evidence]) -> Evidence:
    load = (machine.read("/proc/loadavg") or "").split()[:3]
    if not load:
        return watch.skipped("host.cpu", "/proc/loadavg cannot be read")
    throttled = {}
    for piece in units:
        group = piece.facts.get("control_group")
        text = machine.read(f"/sys/fs/cgroup{group}/cpu.stat") if group else None
        share = read_cpu_stat(text) if text else None
        if share is not None:
            throttled[piece.facts["unit"]] = share
    facts = {
        "cpus": os.cpu_count(),
        "load": [float(word) for word in load],
        "some10": read_pressure(machine.read("/proc/pressure/cpu") or ""),
        "steal": read_steal(stat, machine.read("/proc/stat") or ""),
        "throttled": throttled,
    }
    seen = f"load {load[0]} on {facts['cpus']} processors, waiting {facts['some10']} % of 10 s"
    return watch.piece("host.cpu", Status.OK, seen, facts)


def _disk(machine: Machine, watch: Stopwatch) -> Evidence:
    seen: dict[int, dict[str, Any]] = {}
    mounts = read_mounts(machine.read("/proc/self/mountinfo") or "")
    for path in WRITTEN:
        try:
            device, space = os.stat(path).st_dev, os.statvfs(path)  # noqa: PTH116
        except OSError:
            continue
        seen.setdefault(
            device,
            {
                "path": path,
                "mount": mount_of(path, mounts),
                "size": space.f_blocks * space.f_frsize,
                "free": space.f_bavail * space.f_frsize,
                "inodes": space.f_files,
                "inodes_free": space.f_favail,
                "read_only": bool(space.f_flag & os.ST_RDONLY),
                "type": mounts.get(mount_of(path, mounts) or ""),
            },
        )
    for one in seen.values():
        if one["mount"] and one["free"] < min(FULL_BYTES, one["size"] // 100 + 1):
            one["largest"] = _largest(machine, one["mount"])
    shown = ", ".join(
        f"{one['path']} {one['free'] / one['size']:.0%} free"
        for one in seen.values()
        if one["size"]
    )
    return watch.piece("host.disk", Status.OK, shown, {"file_systems": list(seen.values())})


def _largest(machine: Machine, mount: str) -> list[str]:
    """What fills a file system, the largest first, as far as it can be counted in time."""
    told = machine.run("du", "-x", "-k", "--max-depth=3", mount, seconds=8.0)
    sizes = [line.split("\t", 1) for line in told.text.splitlines() if "\t" in line]
    found = sorted(((int(size), path) for size, path in sizes if path != mount), reverse=True)
    return [f"{path} {size >> 10} MiB" for size, path in found[:5]]


def _clock(machine: Machine, watch: Stopwatch) -> Evidence:
    output = machine.run("timedatectl", "show")
    facts: dict[str, Any] = {"now": time.time()}
    if output.ok:
        facts |= read_timedate(output.text)
    virtual = machine.run("systemd-detect-virt", "--container")
    facts["virtual"] = virtual.ok
    newest = 0.0
    for path in ("/var/lib/ptslink/journal.db", "/var/lib/ptslink/journal.db-wal",
                 "/var/log/nginx/ptslink.access.log", "/var/lib/apt/lists",
                 "/var/lib/systemd/timesync/clock"):  # fmt: skip
        try:
            newest = max(newest, os.stat(path).st_mtime)  # noqa: PTH116
        except OSError:
            continue
    facts["newest_seen"] = newest or None
    if "synchronized" not in facts:
        return watch.piece("host.clock", Status.UNKNOWN, output.why, facts)
    word = "synchronized" if facts["synchronized"] else "not synchronized"
    moment = dt.datetime.fromtimestamp(facts["now"], dt.UTC)
    return watch.piece("host.clock", Status.OK, f"{moment:%Y-%m-%d %H:%M:%S} UTC, {word}", facts)


def _upgrades(machine: Machine, watch: Stopwatch) -> Evidence:
    text = machine.read("/var/log/apt/history.log", tail=True)
    if text is None:
        return watch.skipped("host.upgrades", "no history of package upgrades to read")
    runs = read_apt_history(text)[-50:]
    timer = machine.run("systemctl", "is-enabled", "apt-daily-upgrade.timer")
    periodic = machine.read("/etc/apt/apt.conf.d/20auto-upgrades") or ""
    facts = {
        "runs": runs,
        "timers": timer.text.strip() == "enabled" and 'Unattended-Upgrade "1"' in periodic,
    }
    unattended = sum(run["unattended"] for run in runs)
    return watch.piece(
        "host.upgrades", Status.OK, f"{len(runs)} runs on record, {unattended} unattended", facts
    )
