"""Frames, pings and idle timers: simulators that deviate on an open link."""

from __future__ import annotations

from machines.faults.bench import WASH
from machines.faults.fault import Fault, Step, host, server
from machines.faults.http_upgrade import UNDO_CONFIG, station

_TOML = "/etc/ptslink/ptslink.toml"
#: Pings every two seconds, and two for an answer: the timers are short, not the causes.
QUICK = server(
    f"cp {_TOML} /run/doctor/toml.kept && sed -i -e 's/ping_interval_seconds = .*/"
    "ping_interval_seconds = 2/' -e 's/ping_timeout_seconds = .*/ping_timeout_seconds = 2/' "
    f"{_TOML} && systemctl restart ptslink && sleep 1"
)
SILENT = server(
    f"cp {_TOML} /run/doctor/toml.kept && sed -i 's/ping_interval_seconds = .*/"
    f"ping_interval_seconds = 0/' {_TOML} && systemctl restart ptslink && sleep 1"
)


def row(
    misbehaviour: str, *before: Step, wait: int = 4, more: str = "", variant: str = ""
) -> Fault:
    """A deviating controller, seen from the server while it tries."""
    told = misbehaviour.partition("=")[0]
    named = {"ws-http-after-upgrade": "ws-rsv1-compressed"}.get(told, told)
    return Fault(
        named,
        (*before, station(misbehaviour, seconds=wait + 8, more=more), host(f"sleep {wait}")),
        (UNDO_CONFIG, WASH) if before else (WASH,),
        vantages=("server",),
        variant=variant,
    )


FAULTS = (
    row("ws-rsv1-compressed"),
    row("ws-http-after-upgrade", variant="HTTP text"),
    row("ws-unmasked", QUICK, wait=8),
    row("ws-invalid-utf8"),
    row("ws-too-big"),
    row("ws-bad-frame"),
    row("ws-ping-unanswered", QUICK, wait=17, more="--status-period 3600 --ping-period 3600"),
    row("ws-device-idle-timeout=3", SILENT, wait=17,
        more="--status-period 3600 --ping-period 3600"),
)  # fmt: skip
