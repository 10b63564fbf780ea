"""Frames, pings and idle timers: simulators that deviate on an open link."""

from __future__ import annotations

from machines.faults.bench import WASH
from machines.faults.fault import Fault, Step, controller, host, well_behaved
from machines.faults.http_upgrade import DIRECT, UNDO_CONFIG, config, pinged_every, station

#: Pings every two seconds, and two for an answer: the timers are short, not the causes.
QUICK = pinged_every(2)
NEVER = pinged_every(0)
#: A controller that has nothing to say.
QUIET = "--status-period 3600 --ping-period 3600"


def row(
    misbehaviour: str, *setting: Step, wait: int = 4, more: str = "", variant: str = ""
) -> Fault:
    """A deviating controller, seen from the server while it tries; its twin has as much to say."""
    told = misbehaviour.partition("=")[0]
    named = {"ws-http-after-upgrade": "ws-rsv1-compressed"}.get(told, told)
    return Fault(
        named,
        (station(misbehaviour, seconds=wait + 8, more=more), host(f"sleep {wait}")),
        (WASH,),
        url=DIRECT,
        vantages=("server",),
        variant=variant,
        setting=setting,
        clear=(UNDO_CONFIG, WASH) if setting else (),
        twin=well_behaved(DIRECT, more, seconds=6 if setting else 1.5),
    )


def device(id_: str, words: str, wait: int) -> Fault:
    """A known controller, of :mod:`machines.mutations.device`, that does one thing otherwise."""
    known = "{simulate} ws://{server}:3000/ptsWebSocket --id 00BB00000000000000000001 --once"
    line = f"{{python}} {{mutations}}/device.py {{server}} 3000 {words}"
    steps = (controller(known), controller(line, background=True), host(f"sleep {wait}"))
    return Fault(id_, steps, (WASH,), url=DIRECT, vantages=("server",))


FAULTS = (
    device("ws-message-unreadable", "text 'not JSON'", 12),
    device("ws-closed-by-controller", "frame 'close code' 1000", 7),
    row("ws-rsv1-compressed"),
    row("ws-http-after-upgrade", variant="HTTP text"),
    row("ws-unmasked", QUICK, wait=8),
    row("ws-invalid-utf8", config("listen", "validate_utf8 = true")),
    row("ws-too-big"),
    row("ws-bad-frame"),
    row("ws-ping-unanswered", QUICK, wait=17, more=QUIET),
    # As provisioned: a ping after 20 s of silence, another 20 s for the answer.
    Fault(
        "ws-ping-unanswered",
        (
            controller(
                "{python} {faults}/helpers.py mute {server} 3000 00AA0000000000000000000A",
                background=True,
            ),
            host("sleep 86"),
        ),
        (WASH,),
        url=DIRECT,
        vantages=("server",),
        variant="timers as provisioned",
    ),
    row("ws-device-idle-timeout=3", NEVER, wait=17, more=QUIET),
)  # fmt: skip
