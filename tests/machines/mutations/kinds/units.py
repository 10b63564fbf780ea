"""systemd's units of the link: every setting removed or changed, and settings of a drop-in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from machines.faults.fault import server
from machines.mutations.mutation import (
    AGAIN,
    DIRECT,
    PLAIN,
    Edit,
    Mutation,
    Party,
    Truth,
    Way,
    kind,
)
from machines.mutations.system import Setting, System, replaced, settings

_LOCAL = "/etc/systemd/system"
#: Longer than what RuntimeMaxSec and the like are set to, seconds.
_QUIET = 5.0


def _ways(unit: str) -> Way:
    """A unit of the service's is looked at straight, one of nginx's through it."""
    return PLAIN if unit == "nginx.service" else DIRECT


def _edited(kind_: str, unit: str, one: Setting, text: str, told: str) -> Mutation:
    edit = Edit({f"{_LOCAL}/{unit}": text}, AGAIN[unit])
    return Mutation(kind_, f"{unit}: {told}"[:140],
                    Truth((Party.UNIT,), (one.key,), f"{_LOCAL}/{unit}: {told}"),
                    edit.apply, edit.undo, _ways(unit))  # fmt: skip


@kind("unit-removed")
def unit_removed(system: System) -> Iterator[Mutation]:
    """Each setting of each unit is taken out."""
    for unit, text in system.units.items():
        for one in settings(text):
            told = f"without {one.key}={one.value}"
            yield _edited("unit-removed", unit, one, replaced(text, one.start, one.end, ""), told)


def other_values(value: str) -> Iterator[str]:
    """What somebody could have written in place of *value*."""
    if value in ("yes", "no", "true", "false"):
        yield "false" if value in ("yes", "true") else "true"
    elif re.fullmatch(r"\d+", value):
        yield "0"
        yield "1"
    elif address := re.fullmatch(r"(\S+):(\d+)", value):
        yield f"{address[1]}:{int(address[2]) + 1}"
        yield f"127.0.0.1:{address[2]}"
        yield f"192.0.2.1:{address[2]}"
    elif value.startswith(("/", "-/")):
        program, _, rest = value.partition(" ")
        yield f"{program}.missing {rest}".strip()
        yield f"{program} --wrong"
    elif re.fullmatch(r"[a-z][\w-]*", value):
        yield "nobody"
        yield f"{value}x"


@kind("unit-value")
def unit_value(system: System) -> Iterator[Mutation]:
    """Each setting of each unit has another value."""
    for unit, text in system.units.items():
        for one in settings(text):
            if one.section == "Install" or one.key in ("Description", "Documentation"):
                continue
            for new in other_values(one.value):
                told = f"{one.key}={new} instead of {one.value}"
                yield _edited("unit-value", unit, one,
                              replaced(text, one.start, one.end, f"{one.key}={new}"),
                              told)  # fmt: skip


def _drop_in(kind_: str, unit: str, section: str, line: str, quiet: float = 0.0) -> Mutation:
    path = f"{_LOCAL}/{unit}.d/local.conf"
    edit = Edit({path: f"[{section}]\n{line}\n"}, AGAIN[unit])
    told = line.replace("\n", ", ")
    return Mutation(kind_, f"{unit}: {told}",
                    Truth((Party.UNIT,), (line.split("=")[0], path), f"{path}: {told}"),
                    edit.apply, edit.undo, _ways(unit), quiet)  # fmt: skip


#: Where nothing answers for what is switched on: the unit runs on, or is of another kind then.
_NOT_SWITCHES = re.compile(
    r"(Can|Need|Perpetual|Transient|Stop|Refuse|Default|OnSuccess|OnFailure|Condition|Assert|"
    r"Success|Freezer|Job|Guess|Remain|RootDirectoryStart|IO|Ignore|Send|TTY|CPU|Memory|IPAcc|"
    r"Tasks|Delegate|Nonblock)"
)


@kind("unit-switched")
def unit_switched(system: System) -> Iterator[Mutation]:
    """Each switch that ``systemctl show`` says is off is on."""
    for unit, shown in system.shown.items():
        for name, value in shown.items():
            if value == "no" and not _NOT_SWITCHES.match(name):
                yield _drop_in("unit-switched", unit, "Service", f"{name}=yes")


@kind("unit-limited")
def unit_limited(system: System) -> Iterator[Mutation]:
    """Each limit that ``systemctl show`` lists is next to nothing."""
    for unit, shown in system.shown.items():
        for name in shown:
            if name.startswith("Limit") and not name.endswith("Soft"):
                for value in (0, 1, 16):
                    yield _drop_in("unit-limited", unit, "Service", f"{name}={value}")


_SERVICE_LINES = (
    # An empty line forgets what the unit itself allows.
    "RestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX",
    "RestrictAddressFamilies=none",
    "RestrictAddressFamilies=~AF_INET",
    "RestrictAddressFamilies=AF_INET6 AF_UNIX AF_NETLINK",
    *(f"SystemCallFilter=~@{group}" for group in ("network-io", "io-event", "file-system",
                                                  "process", "signal", "basic-io", "timer")),
    *(f"SystemCallFilter=~{call}" for call in ("connect", "accept4", "bind", "listen", "openat",
                                               "setsockopt", "fsync", "fdatasync", "epoll_ctl",
                                               "sendto", "writev", "clone")),
    "PrivateNetwork=yes", "NetworkNamespacePath=/proc/1/ns/missing", "RootDirectory=/srv",
    "WorkingDirectory=/nonexistent", "User=nobody", "User=nosuchuser", "Group=nosuchgroup",
    "ExecStartPre=/bin/false", "ExecCondition=/bin/false", "ExecStartPre=/bin/sleep 30",
    "RuntimeMaxSec=2", "TimeoutStartSec=1us", "WatchdogSec=1ms", "Type=oneshot", "Type=forking",
    "Type=dbus", "Restart=no", "RestartSec=60", "SuccessExitStatus=1", "UMask=0777",
    "InaccessiblePaths=/etc", "InaccessiblePaths=/var/lib", "InaccessiblePaths=/opt",
    "InaccessiblePaths=/usr/lib", "ReadOnlyPaths=/var/lib", "TemporaryFileSystem=/var/lib",
    "TemporaryFileSystem=/etc", "TemporaryFileSystem=/opt", "NoExecPaths=/", "Environment=PATH=",
    "Environment=PYTHONHOME=/nonexistent", "Environment=LD_PRELOAD=/nonexistent.so",
    "StandardOutput=file:/nonexistent/log", "EnvironmentFile=/nonexistent",
    "BindPaths=/nonexistent:/var/lib/ptslink", "ProtectSystem=strict", "CapabilityBoundingSet=",
    "ReadWritePaths=/nonexistent", "LoadCredential=x:/nonexistent", "Nice=19",
)  # fmt: skip
_UNIT_LINES = (
    "ConditionPathExists=/nonexistent", "AssertPathExists=/nonexistent", "ConditionHost=elsewhere",
    "Requires=nosuch.service", "BindsTo=nosuch.service", "Requisite=nosuch.service",
    "Conflicts=multi-user.target", "RefuseManualStart=yes", "StartLimitBurst=1",
    "After=nosuch.target", "Wants=nosuch.service", "ConditionFirstBoot=yes",
)  # fmt: skip


@kind("unit-drop-in")
def unit_drop_in(system: System) -> Iterator[Mutation]:
    """Lines of systemd.exec, systemd.service and systemd.unit in a drop-in."""
    for unit in system.units:
        if unit.endswith(".service"):
            for line in _SERVICE_LINES:
                yield _drop_in("unit-drop-in", unit, "Service", line,
                               _QUIET if "Max" in line or "Watchdog" in line else 0.0)  # fmt: skip
        for line in _UNIT_LINES:
            yield _drop_in("unit-drop-in", unit, "Unit", line)


@kind("unit-state")
def unit_state(system: System) -> Iterator[Mutation]:
    """Each unit is stopped, masked, or its processes stand still."""
    for unit in system.units:
        start = AGAIN[unit].line
        main = f"$(systemctl show -p MainPID --value {unit})"
        for what, line, undo in (
            ("stopped", f"systemctl stop {unit}", "true"),
            ("masked", f"systemctl mask -q --runtime {unit}; systemctl stop {unit}",
             f"systemctl unmask -q --runtime {unit}"),
            ("main process standing still", f"kill -STOP {main}", f"kill -CONT {main}"),
            ("all processes standing still", f"systemctl kill -s STOP {unit}",
             f"systemctl kill -s CONT {unit}"),
            ("killed", f"systemctl kill -s KILL {unit}", "true"),
        ):  # fmt: skip
            if unit.endswith(".socket") and "process" in what:
                continue
            for way in (PLAIN, DIRECT):
                if unit == "nginx.service" and way is DIRECT:
                    continue
                yield Mutation(
                    "unit-state", f"{unit} {what}, {way.url.rpartition('{server}')[2]}",
                    Truth((Party.UNIT, Party.SERVICE if "ptslink" in unit else Party.NGINX),
                          (unit, unit.partition(".")[0]), f"{unit} {what}"),
                    (server(line, may_fail=True),),
                    (server(undo, may_fail=True), server(start, may_fail=True)), way,
                )  # fmt: skip
