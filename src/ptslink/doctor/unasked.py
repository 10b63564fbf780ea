"""Why a fix may not be applied unasked in a case, whatever class its cause gives it. Pure.

Not class ``yes`` is what would cut other links, weaken a limit, start what runs, or repeat what is
in force already: it mends nothing, or it costs somebody something.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ptslink.doctor.cause import Fix
from ptslink.doctor.commands import PROVISION_NGINX
from ptslink.doctor.evidence import Case, Json

#: Variables of the role -> where the service's configuration has the same, as table and key.
_VARIABLES: Mapping[str, tuple[str, str]] = {
    "pts_server_alternative_paths": ("listen", "alternative_paths"),
    "pts_server_handshake_profile": ("listen", "handshake_profile"),
    "pts_server_handshake_timeout_seconds": ("limits", "head_seconds"),
    "pts_server_listen_addresses": ("listen", "addresses"),
    "pts_server_message_bytes_max": ("limits", "message_bytes"),
    "pts_server_ping_interval_seconds": ("keepalive", "ping_interval_seconds"),
    "pts_server_ping_timeout_seconds": ("keepalive", "ping_timeout_seconds"),
}
#: Settings of a drop-in by which a unit that is started does not start.
_KEEPS = re.compile(r"(?:Requires|Requisite|BindsTo|Conflicts|Condition|Assert|Refuse|Exec|Type)")
#: The usual ports of the link, and whose programs serve them.
_PORTS, _SERVING = (80, 443, 3000), (None, "", "nginx", "ptslink", "systemd")
#: A unit that somebody stopped: how it was loaded, its state, and how it ended.
_STOPPED = {("loaded", "inactive", "success"), (None, None, None)}
#: Limits that keep strangers out, by table and key of the service's configuration.
_LIMITS = {("limits", "failures_per_minute"), ("limits", "connections_per_address")}
_QUOTED = re.compile(r"(/etc/nginx/[^\s:]+)(?: line |:)\d+")
#: The files of nginx that provisioning writes.
_OURS = re.compile(r"/etc/nginx/(?:conf\.d/ptslink[^/]*\.conf|nginx\.conf)")


def why_asked(fix: Fix, evidence: tuple[str, ...], case: Case) -> str:
    """Why somebody is to be asked before *fix*; empty where nothing speaks against it.

    *evidence*: the lines that lead to it.
    """
    settings = list(_settings(fix.ansible))
    if any(where in _LIMITS for where, _ in settings) or ("ufw", "delete", "limit") in [
        command[:3] for command in fix.commands
    ]:
        return "It weakens a limit that keeps strangers out."
    config = case.fact("service.config", "config") or {}
    if settings and len(settings) == _known(fix.ansible) and all(
        _same(config.get(table, {}).get(key), value) for (table, key), value in settings
    ):  # fmt: skip
        return "It is in force already, so setting it again mends nothing."
    units = {piece.facts.get("unit"): piece.facts for piece in case.all("host.unit")}
    connected = case.fact("service.live", "controllers")
    for command in fix.commands:
        if command[0] != "systemctl" or len(command) < 3:
            continue
        unit = command[-1] if "." in command[-1] else f"{command[-1]}.service"
        facts = units.get(unit, {})
        running = facts.get("active") == "active"
        if "restart" in command and running and connected:
            return f"Restarting {unit} cuts the links of {len(connected)} controllers."
        if running and ("start" in command or ("--now" in command and "enable" in command)):
            return f"{unit} runs already."
        stopped = (facts.get("load"), facts.get("active"), facts.get("result"))
        starts = {"start", "restart", "enable"} & {*command}
        listeners = case.fact("net.listeners", "listeners") or ()
        foreign = [one for one in listeners if one.get("process") not in _SERVING]
        held = next((one for one in foreign if one["port"] in _PORTS), None)
        kept = next((path for path, line in facts.get("set") or () if _KEEPS.match(line)), None)
        if starts and not running and kept:
            return f"{kept} has a line that may keep {unit} from starting."
        if starts and not running and held is not None:
            return f"Port {held['port']} is held by {held['process']}, so {unit} cannot have it."
        if starts and not running and stopped not in _STOPPED:
            return f"{unit} did not end in good order: started again, it ends the same way."
    quoted = [file for line in evidence for file in _QUOTED.findall(line)]
    if fix.commands == PROVISION_NGINX and quoted and not any(map(_OURS.fullmatch, quoted)):
        return f"Provisioning leaves {quoted[0]} as it is: that line is for a person to change."
    return ""


def _settings(variables: Mapping[str, Json]) -> Iterator[tuple[tuple[str, str], Json]]:
    """What *variables* set in the service's configuration, as far as that is known."""
    for name, value in variables.items():
        if name in _VARIABLES:
            yield _VARIABLES[name], value
        elif name == "pts_server_settings":
            for table, keys in value.items():
                yield from (((table, key), one) for key, one in keys.items())


def _known(variables: Mapping[str, Json]) -> int:
    """How many settings there would be if all were known; more where one is not."""
    nested = variables.get("pts_server_settings", {})
    others = [name for name in variables if name != "pts_server_settings"]
    return len(others) + sum(len(keys) for keys in nested.values())


def _same(now: Json, then: Json) -> bool:
    return now == then or (isinstance(now, list | tuple) and list(now) == then)
