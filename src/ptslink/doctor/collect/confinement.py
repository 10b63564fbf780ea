"""What may forbid a unit the network: SELinux, and systemd's sandboxing of the unit.

Vantage ``server``, read-only. The evidence and its facts (left out where not to be read):

``host.selinux``  ``mode`` enforcing|permissive|disabled, ``booleans`` {name: bool} of
    :data:`BOOLEANS`, ``denials`` [str]: AVC lines of nginx, newest last
``host.sandbox``  one per unit that is loaded: ``unit``, ``effective`` {setting: value} as systemd
    has it in force, ``settings`` [{``file``, ``line``, ``name``, ``value``}]: where the unit's
    file and its drop-ins set one of :data:`SETTINGS`, in the order they are read
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from ptslink.doctor.collect.edge import Machine, Stopwatch, journal_refused
from ptslink.doctor.evidence import Evidence, Status

#: Settings of systemd.exec(5) and systemd.resource-control(5) that can cut a unit off the network.
SETTINGS = (
    "IPAddressDeny",
    "IPAddressAllow",
    "RestrictAddressFamilies",
    "PrivateNetwork",
    "SystemCallFilter",
    "SystemCallErrorNumber",
)
BOOLEANS = ("httpd_can_network_connect",)
_SELINUX = "/sys/fs/selinux"
_AUDIT = "/var/log/audit/audit.log"
_AVC = re.compile(r"avc:\s+denied.*(?:comm=\"nginx\"|httpd_t)")


def read_settings(file: str, text: str) -> list[dict[str, Any]]:
    """The :data:`SETTINGS` in a unit file or drop-in, with their lines."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if equals and name.strip() in SETTINGS:
            setting = {"file": file, "line": number, "name": name.strip(), "value": value.strip()}
            found.append(setting)
    return found


def collect(machine: Machine, watch: Stopwatch, units: Sequence[str]) -> Iterator[Evidence]:
    """Everything of this module."""
    yield from watch.guarded("host.selinux", lambda: _selinux(machine, watch))
    for unit in units:
        yield from watch.guarded(
            "host.sandbox",
            lambda unit=unit: _sandbox(machine, watch, unit),  # type: ignore[misc]
        )


def _selinux(machine: Machine, watch: Stopwatch) -> Evidence:
    enforce = machine.read(f"{_SELINUX}/enforce")
    if enforce is None:
        if machine.names(_SELINUX):
            return watch.skipped("host.selinux", f"{_SELINUX}/enforce may not be read")
        return watch.piece("host.selinux", Status.OK, "no SELinux here", {"mode": "disabled"})
    mode = "enforcing" if enforce.strip() == "1" else "permissive"
    facts: dict[str, Any] = {"mode": mode}
    seen = f"SELinux is {mode}"
    told = machine.run("getsebool", *BOOLEANS)
    if told.ok:
        pairs = re.findall(r"^(\w+) --> (on|off)", told.text, re.MULTILINE)
        facts["booleans"] = {name: state == "on" for name, state in pairs}
        seen += "".join(f", {name} {state}" for name, state in pairs)
    denials = _denials(machine)
    if denials is not None:
        facts["denials"] = denials
        seen += f", {len(denials)} denials of nginx on record"
    return watch.piece("host.selinux", Status.OK, seen, facts)


def _denials(machine: Machine) -> list[str] | None:
    """AVC lines of nginx, from the audit log or, without auditd, the journal."""
    text = machine.read(_AUDIT, tail=True)
    if text is None:
        told = machine.run(
            "journalctl", "-b", "--no-pager", "-o", "cat", "-n", "200", "-g", "avc: +denied"
        )
        if journal_refused(told):
            return None
        text = told.text
    return [line.strip()[:300] for line in text.splitlines() if _AVC.search(line)][-10:]


def _sandbox(machine: Machine, watch: Stopwatch, unit: str) -> Iterator[Evidence]:
    keys = ("LoadState", "FragmentPath", "DropInPaths", *SETTINGS)
    output = machine.run("systemctl", "show", "-p", ",".join(keys), unit)
    if not output.ok:
        yield watch.skipped("host.sandbox", output.why)
        return
    shown = dict(line.split("=", 1) for line in output.text.splitlines() if "=" in line)
    if shown.get("LoadState") != "loaded":
        return
    files = [shown.get("FragmentPath", ""), *shown.get("DropInPaths", "").split()]
    settings = [
        setting
        for file in files
        if file
        for setting in read_settings(file, machine.read(file) or "")
    ]
    # What a filter of system calls expands to is long, and what was written says it better.
    effective = {name: shown[name] for name in SETTINGS[:4] if name in shown}
    facts = {"unit": unit, "effective": effective, "settings": settings}
    told = ", ".join(dict.fromkeys(str(one["name"]) for one in settings))
    seen = f"{unit}: {told or 'nothing that restricts its network'}"
    yield watch.piece("host.sandbox", Status.OK, seen, facts)
