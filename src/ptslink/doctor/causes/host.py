"""Causes in the host itself: memory, crashes, disks, descriptors, processor, clock, upgrades."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ptslink.doctor.admission import is_uri_path
from ptslink.doctor.cause import CERTAIN, GUESS, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.reach import lines, listed
from ptslink.doctor.causes.unit import state_lines
from ptslink.doctor.collect.host import FULL_BYTES, mount_of
from ptslink.doctor.commands import journal, written
from ptslink.doctor.evidence import Case, Status
from ptslink.doctor.pattern import links

_OURS = ("ptslink.service", "nginx.service")
#: A kill or an exhausted resource is news for this long, seconds.
_RECENT_SECONDS = 3600.0
#: Where the service keeps its journal, and where systemd keeps its own.
_JOURNAL, _SYSTEMD_JOURNAL = "/var/lib/ptslink", "/var/log/journal"
#: File systems that forget, and those whose locks SQLite cannot rely on.
_FORGET = ("tmpfs", "ramfs")
_NO_LOCKS = re.compile(r"nfs\d?|cifs|smb\d?|9p|fuse\.sshfs")
#: Two clocks further apart than this are not both right; preflight refuses the same, seconds.
_CLOCK_SECONDS = 60.0
#: A quota that stops the service in more than this share of its periods starves it.
_THROTTLED = 0.3
#: Links end up to this long before their unit is up again: limits.drain_seconds and some. Seconds.
_DRAIN_SECONDS = 15.0
#: Waiting for the processor this much of the time (PSI "some", percent) is starvation.
_PRESSURE = 60.0

_WHAT_FOLLOWS = (
    "tcp-service-down",
    "px-upstream-refused",
    "px-upstream-timeout",
    "app-no-graceful-stop",
    "app-handler-exception",
    "app-dependency-down",
    "dev-reconnect-storm",
)


def _units(case: Case) -> list[Mapping[str, Any]]:
    return [
        piece.facts
        for piece in case.all("host.unit")
        if piece.facts.get("unit") in _OURS and piece.facts.get("load") != "not-found"
    ]


def _now(case: Case) -> float | None:
    found = case.fact("host.clock", "now")
    return float(found) if found is not None else None


def _recent(case: Case, at: float | None) -> bool:
    now = _now(case)
    return at is None or now is None or 0 <= now - at <= _RECENT_SECONDS


def _oom(case: Case) -> Match | None:
    by_result = [unit for unit in _units(case) if unit.get("result") == "oom-kill"]
    kills = [
        kill
        for kill in case.fact("host.oom", "kills") or ()
        if (kill.get("unit") in _OURS or kill.get("process") in ("ptslink", "nginx"))
        and _recent(case, kill.get("at"))
    ]
    if not by_result and not kills:
        return None
    limits = [
        f"server: {unit['unit']} may use {int(unit['stock']['MemoryMax']) >> 20} MiB (MemoryMax)"
        for unit in _units(case)
        if str(unit.get("stock", {}).get("MemoryMax", "")).isdecimal()
    ]
    memory = next((piece.seen for piece in case.all("host.memory")), None)
    return Match(
        CERTAIN,
        lines(
            *(f"server: {unit['unit']}: result oom-kill" for unit in by_result),
            f"server: {kills[-1]['line']}" if kills else None,
            *limits,
            f"server: memory {memory}" if memory else None,
        ),
        ruled_out=("host-crash-loop", "app-handler-exception", "px-restart", "host-auto-upgrade"),
    )


def _crash_loop(case: Case) -> Match | None:
    for unit in _units(case):
        looping = unit.get("active") == "activating" and unit.get("sub") == "auto-restart"
        restarts = unit.get("restarts") or 0
        gave_up = unit.get("result") == "start-limit-hit" or (
            unit.get("active") == "failed" and unit.get("start_limit")
        )
        if (
            not gave_up
            and not (looping and restarts >= 2)
            and not (restarts >= 5 and unit.get("active") != "active")
        ):
            continue
        if unit.get("result") == "oom-kill":
            continue
        return Match(
            CERTAIN,
            lines(
                *state_lines(unit),
                "server: systemd gave up ('Start request repeated too quickly')" if gave_up
                else None,
            ),
            ruled_out=("tcp-service-down", "host-oom-kill"),
            fix=Fix(
                "Mend what the last words of the unit complain of, then clear the counter and "
                "start it.",
                f"{unit['unit']} is active and its restart counter stays.",
                Auto.YES,
                commands=(
                    journal(str(unit["unit"]), lines=30),
                    ("systemctl", "reset-failed", str(unit["unit"])),
                    ("systemctl", "restart", str(unit["unit"])),
                ),
            ),
        )  # fmt: skip
    return None


def _disk(case: Case) -> Match | None:
    full, spent, filled = [], [], []
    for one in case.fact("host.disk", "file_systems") or ():
        size = one.get("size") or 0
        if size and one["free"] < min(FULL_BYTES, size // 100 + 1):
            filled.append(one)
            full.append(f"server: {one['path']}: {one['free'] >> 10} KiB of {size >> 10} KiB free")
        if one.get("inodes") and one["inodes_free"] == 0:
            spent.append(f"server: {one['path']}: no inode of {one['inodes']} free")
    told = [
        line
        for line in (case.fact("host.trouble", "lines") or {}).get("ENOSPC", ())
        if _recent(case, line.get("at"))
    ]
    health = (case.fact("service.live", "health") or {}).get("journal") or {}
    failing = health.get("ok") is False
    if not full and not spent:
        return None
    return Match(
        CERTAIN,
        lines(
            *full,
            *spent,
            *(f"server: the most is in {', '.join(one['largest'][:3])}" for one in filled
              if one.get("largest")),
            f"server: {told[-1]['unit']}: {told[-1]['message'][:120]}" if told else None,
            f"the journal says: {health.get('reason')}" if failing else None,
        ),
        ruled_out=("app-dependency-down", "app-handler-exception", "app-no-confirmation"),
        fix=_room(case, filled),
    )  # fmt: skip


def _room(case: Case, filled: Sequence[Mapping[str, Any]]) -> Fix | None:
    """What makes room where systemd's journal lies elsewhere: vacuuming it frees nothing there."""
    mounts = [one["mount"] for one in case.fact("host.disk", "file_systems") or ()
              if one.get("mount")]  # fmt: skip
    systemds = mount_of(_SYSTEMD_JOURNAL, mounts)
    if not filled or any(one.get("mount") in (None, systemds) for one in filled):
        return None
    where = listed([str(one["mount"]) for one in filled])
    return Fix(
        f"Make room on {where} itself: what fills it is named above. Nothing of the "
        "service's journal may be deleted by hand. Or enlarge the disk.",
        "At least some hundred MiB are free there, and the service's health says ok.",
        Auto.ASK,
        tuple(("du", "-xh", "--max-depth=3", str(one["mount"])) for one in filled
              if is_uri_path(str(one["mount"]))),
    )  # fmt: skip


def _journal_forgets(case: Case) -> Match | None:
    for one in case.fact("host.disk", "file_systems") or ():
        kind = str(one.get("type"))
        if one["path"] != _JOURNAL or not (kind in _FORGET or _NO_LOCKS.fullmatch(kind)):
            continue
        what = "which forgets everything at the next restart" if kind in _FORGET else (
            "whose locks SQLite cannot rely on")  # fmt: skip
        line = (
            f"server: {_JOURNAL} lies on {one.get('mount')}, a file system of type {kind}, {what}"
        )
        return Match(CERTAIN, (line,), ("app-dependency-down",))
    return None


def _directory_closed(case: Case) -> Match | None:
    for unit in _units(case):
        for one in unit.get("closed") or ():
            return Match(
                CERTAIN,
                lines(
                    f"server: {unit['unit']} runs as {one['user']}, who may not enter "
                    f"{one['directory']} (mode {one['mode']}, of {one['owner']})",
                    f"server: {unit['unit']} is {unit['active']}, exit status "
                    f"{unit.get('exit_status')}",
                ),
                ruled_out=("tcp-service-down", "host-crash-loop"),
                fix=Fix(
                    f"Let everybody enter {one['directory']} again (x is enough; nothing in it "
                    "can be listed or read by that), then start the unit.",
                    f"{unit['unit']} is active.",
                    Auto.ASK,
                    (("chmod", "o+x", one["directory"]),
                     ("systemctl", "reset-failed", str(unit["unit"])),
                     ("systemctl", "restart", str(unit["unit"]))),
                ),
            )  # fmt: skip
    return None


def _emfile(case: Case) -> Match | None:
    told = [
        line
        for line in (case.fact("host.trouble", "lines") or {}).get("EMFILE", ())
        if line.get("unit") == "ptslink.service" and _recent(case, line.get("at"))
    ]
    used = next(
        (
            piece.facts
            for piece in case.all("host.descriptors")
            if piece.facts.get("unit") == "ptslink.service"
        ),
        None,
    )
    spent = used is not None and used.get("limit") and used["open"] >= 0.95 * used["limit"]
    if not spent and not told:
        return None
    if used is not None and not spent and used["open"] < 0.5 * (used.get("limit") or 1):
        return None  # the lines are of a time when there was less; now there is enough
    waiting = [
        one
        for one in case.fact("net.listeners", "listeners") or ()
        if one.get("unit") in ("ptslink.service", "ptslink.socket") and one["queue"] > 0
    ]
    return Match(
        CERTAIN if spent and (told or waiting) else STRONG,
        lines(
            f"server: ptslink has {used['open']} of {used['limit']} descriptors open"
            if used is not None
            else None,
            f"server: {told[-1]['message'][:120]}" if told else None,
            f"server: {waiting[0]['queue']} connections wait to be accepted on port "
            f"{waiting[0]['port']}"
            if waiting
            else None,
        ),
        ruled_out=("px-emfile", "app-event-loop-blocked", "px-upstream-timeout"),
    )


def _cpu(case: Case) -> Match | None:
    facts = next((piece.facts for piece in case.all("host.cpu")), None)
    if facts is None:
        return None
    throttled = {
        unit: share
        for unit, share in (facts.get("throttled") or {}).items()
        if unit in _OURS and share >= _THROTTLED
    }
    pressed = (facts.get("some10") or 0) >= _PRESSURE
    stolen = (facts.get("steal") or 0) >= 25.0
    slow = [
        piece
        for piece in case.all("http.upgrade")
        if not piece.facts.get("variation") and piece.ms >= 1000 and piece.status is not Status.OK
    ] + [
        piece
        for piece in case.all("http.upgrade")
        if not piece.facts.get("variation") and piece.ms >= 1000 and piece.status is Status.OK
    ]
    # A busy processor alone is nobody's fault: the link has to suffer from it.
    if not throttled and not ((pressed or stolen) and slow):
        return None
    # A busy machine answers late. One that others share is busy at any time: where no answer
    # came at all, its pressure is a circumstance and not the cause.
    late = any(piece.status is Status.OK for piece in slow)
    return Match(
        STRONG if throttled else LIKELY if late and not _upstream_silent(case) else GUESS,
        lines(
            *(
                f"server: {unit} had to wait in {share:.0%} of its periods for its CPU quota"
                for unit, share in throttled.items()
            ),
            f"server: somebody waits for a processor {facts['some10']:.0f} % of the time"
            if pressed
            else None,
            f"server: {facts['steal']:.0f} % of the time is stolen by the hypervisor"
            if stolen
            else None,
            f"{slow[0].vantage}: the upgrade took {slow[0].ms / 1000:.1f} s" if slow else None,
        ),
        ruled_out=("app-event-loop-blocked",) if throttled else (),
    )


def _upstream_silent(case: Case) -> bool:
    """Whether nginx waited for the service until its own patience ended."""
    return any(
        event["kind"] in ("connect-timeout", "header-timeout")
        for piece in case.all("nginx.error")
        for event in piece.facts["events"]
    )


def _clock(case: Case) -> Match | None:
    apart = {
        piece.vantage: float(piece.facts["date_offset_s"])
        for piece in (*case.all("http.get"), *case.all("http.upgrade"), *case.all("clock.compare"))
        if piece.vantage != "server"
        and piece.facts.get("date_offset_s") is not None
        and not piece.facts.get("foreign")
    }
    wrong = {place: offset for place, offset in apart.items() if abs(offset) > _CLOCK_SECONDS}
    now, newest = _now(case), case.fact("host.clock", "newest_seen")
    back = newest is not None and now is not None and newest - now > _CLOCK_SECONDS
    synchronized = case.fact("host.clock", "synchronized")
    if not back and (not wrong or len(wrong) < len(apart)):
        return None
    if not back and synchronized is True:
        return None  # the other place's clock is the one that is off
    if not back and synchronized is None and len(wrong) < 2:
        return None
    return Match(
        STRONG if back or len(wrong) > 1 else LIKELY,
        lines(
            *(
                f"{place}: the server's clock differs from the one here by {offset:+.0f} s"
                for place, offset in wrong.items()
            ),
            f"server: it has files from {newest - now:.0f} s in its own future"
            if back and newest is not None and now is not None
            else None,
            "server: the clock is not synchronized" if synchronized is False else None,
        ),
        ruled_out=("tls-device-clock",),
    )


def _upgrade(case: Case) -> Match | None:
    for run in reversed(case.fact("host.upgrades", "runs") or ()):
        if not run.get("start") or not _recent_day(case, run["start"]):
            continue
        # needrestart works after the packages: services restart in the minute behind the run.
        begin, end = run["start"] - 5, (run.get("end") or run["start"]) + 90
        restarted = [
            unit for unit in _units(case) if unit.get("started") and begin <= unit["started"] <= end
        ]
        # Who upgrades by hand may well restart the service for reasons of his own: closed in good
        # order its links are no loss.
        hit = [
            link
            for link in links(case)
            if (link.lost or (run.get("unattended") and link.closed_by != "peer"))
            and any(-_DRAIN_SECONDS <= link.at - u["started"] <= 3.0 for u in restarted)
        ]
        if not hit:
            continue
        who = "unattended-upgrades" if run.get("unattended") else "a package upgrade"
        return Match(
            STRONG if run.get("unattended") else LIKELY,
            lines(
                f"server: {who} ran, packages {listed(list(run.get('packages') or ['?']))}",
                *(f"server: {unit['unit']} was restarted in that time" for unit in restarted),
                f"{len({link.controller for link in hit})} controllers lost their link then; "
                f"the last: {hit[-1].shown()}",
            ),
            ruled_out=("px-restart", "app-no-graceful-stop", "px-reload-shutdown"),
        )
    return None


def _recent_day(case: Case, at: float) -> bool:
    now = _now(case)
    return now is None or 0 <= now - at <= 86400.0


CAUSES: tuple[Cause, ...] = (
    Cause(
        "host-oom-kill",
        Layer.HOST,
        "The kernel killed the service for want of memory",
        Fix(
            "Give the service the memory it needs (or the machine more), and find what grows; it "
            "is restarted by systemd.",
            "No more 'Killed process' lines, and the unit's result stays 'success'.",
            Auto.YES,
            commands=(
                ("systemctl", "restart", "ptslink"),
                ("systemctl", "show", "ptslink", "-p", "MemoryMax,Result"),
            ),
        ),
        _oom,
        aftermath=(*_WHAT_FOLLOWS, "host-crash-loop"),
    ),
    Cause(
        "host-crash-loop",
        Layer.HOST,
        "The service dies as soon as it is started, again and again",
        Fix(
            "Mend what its last words complain of, then clear the counter and start it.",
            "The unit is active and its restart counter stays.",
            Auto.YES,
            commands=(
                ("systemctl", "reset-failed", "ptslink"),
                ("systemctl", "restart", "ptslink"),
            ),
        ),
        _crash_loop,
        aftermath=_WHAT_FOLLOWS,
    ),
    Cause(
        "host-journal-forgets",
        Layer.HOST,
        "The service's journal lies on a file system that cannot keep it",
        Fix(
            "Put /var/lib/ptslink onto a local disk: stop the service, copy the journal aside, "
            "unmount what covers it. Until then what is confirmed may be lost.",
            "findmnt -T /var/lib/ptslink names ext4, xfs or btrfs.",
            Auto.NO,
            commands=(("findmnt", "-T", "/var/lib/ptslink"),),
        ),
        _journal_forgets,
    ),
    Cause(
        "host-directory-closed",
        Layer.HOST,
        "The service's user may not enter a directory that it needs",
        Fix("Let it enter.", "The unit is active.", Auto.ASK),
        _directory_closed,
        aftermath=(*_WHAT_FOLLOWS, "host-crash-loop"),
    ),
    Cause(
        "host-disk-full",
        Layer.HOST,
        "A file system the link writes to is full",
        Fix(
            "Make room at once (old logs, the journal of systemd), then limit what grows.",
            "At least some hundred MiB are free, the service's health says ok, and controllers "
            "get their confirmations.",
            Auto.YES,
            commands=(("journalctl", "--vacuum-size=200M"), ("df", "-h"), ("df", "-i")),
        ),
        _disk,
        aftermath=(*_WHAT_FOLLOWS, "host-crash-loop", "app-no-confirmation", "px-emfile"),
    ),
    Cause(
        "host-emfile-backend",
        Layer.HOST,
        "The service has no file descriptor left for another connection",
        Fix(
            "Raise the service's limit of open files, and find what keeps descriptors open.",
            "Open descriptors stay well below the limit and connections are accepted at once.",
            Auto.YES,
            ansible={"pts_server_open_files": 65536},
        ),
        _emfile,
        aftermath=(*_WHAT_FOLLOWS, "app-event-loop-blocked", "tcp-accept-queue-full"),
    ),
    Cause(
        "host-cpu-starved",
        Layer.HOST,
        "The service does not get the processor time it needs",
        Fix(
            "Lift the quota, move what else eats the processor, or take a bigger machine.",
            "Nobody waits for a processor; handshakes take milliseconds.",
            Auto.ASK,
            commands=(
                ("systemctl", "show", "ptslink", "nginx", "-p", "CPUQuotaPerSecUSec"),
                ("cat", "/proc/pressure/cpu"),
            ),
        ),
        _cpu,
        aftermath=("app-event-loop-blocked", "px-upstream-timeout", "ws-ping-unanswered"),
    ),
    Cause(
        "host-clock-wrong",
        Layer.HOST,
        "The server's clock is wrong",
        Fix(
            "Let the server synchronize its clock.",
            "timedatectl says 'System clock synchronized: yes' and the difference is below a "
            "second.",
            Auto.YES,
            commands=(
                ("timedatectl", "set-ntp", "true"),
                ("timedatectl", "show", "-p", "NTPSynchronized"),
            ),
        ),
        _clock,
        aftermath=("tls-cert-expired",),
    ),
    Cause(
        "host-auto-upgrade",
        Layer.HOST,
        "A package upgrade restarted nginx or the service while controllers were connected",
        Fix(
            "Put upgrades into a quiet hour and leave nginx and the service out of automatic "
            "restarts; upgrade them by the playbook, which drains first.",
            "No link ends at the time of the next upgrade run.",
            Auto.YES,
            commands=(
                written(
                    "/etc/needrestart/conf.d/ptslink.conf",
                    "$nrconf{override_rc}{qr(^(nginx|ptslink))} = 0;",
                ),
            ),
        ),
        _upgrade,
        aftermath=("px-restart", "px-reload-shutdown", "app-no-graceful-stop"),
    ),
)
