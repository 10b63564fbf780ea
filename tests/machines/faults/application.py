"""The service itself: ptslink with a bug or a starved dependency, and guides' servers in its place.

What a guide builds has none of ptslink's records; the doctor has nginx's log, the sockets and what
that server wrote to the journal.
"""

from __future__ import annotations

from machines.faults.bench import CARRIED, REMOTE_PYTHON, WASH
from machines.faults.fault import Fault, Step, controller, host, server, well_behaved
from machines.faults.http_upgrade import UNDO_CONFIG, config
from machines.faults.proxy import UNDO as UNDO_NGINX
from machines.faults.proxy import edit

_NGINX = "ws://{server}/ptsWebSocket"
_DIRECT = "ws://{server}:3000/ptsWebSocket"
_ONE = "00DA00000000000000000001"

_DROP_IN = "/etc/systemd/system/ptslink.service.d/fault.conf"


def drop_in(*lines: str) -> Step:
    """ptslink's unit with more lines in its [Service], in force."""
    written = " ".join(f"'{line}'" for line in ("[Service]", *lines))
    return server(
        f"mkdir -p $(dirname {_DROP_IN}) && printf '%s\\n' {written} > {_DROP_IN} && "
        "systemctl daemon-reload && systemctl restart ptslink && sleep 1"
    )


def bug(name: str) -> Step:
    """ptslink with a bug of ``bugs.py``."""
    return drop_in("ExecStart=", f"ExecStart={REMOTE_PYTHON} -P {CARRIED}/bugs.py {name} serve "
                   "--config /etc/ptslink/ptslink.toml")  # fmt: skip


UNDO_UNIT = (
    server(
        f"rm {_DROP_IN}; rmdir --ignore-fail-on-non-empty $(dirname {_DROP_IN}); "
        "systemctl daemon-reload && systemctl restart ptslink && sleep 1"
    ),
    WASH,
)
IN_PLACE = "systemctl stop ptslink.socket ptslink.service"
UNDO_GUIDE = (
    server("systemctl stop guide; systemctl reset-failed guide", may_fail=True),
    server("systemctl start ptslink.socket ptslink.service && sleep 1"),
    WASH,
)


def guide(manner: str) -> Step:
    """A server of ``guide.py`` on ptslink's port."""
    return server(
        f"{IN_PLACE} && systemd-run -q --unit=guide {REMOTE_PYTHON} {CARRIED}/guide.py {manner} && "
        "for n in $(seq 50); do ss -Hltn sport = :3000 | grep -q . && break; sleep 0.1; done"
    )


def uvicorn(words: str) -> Step:
    """``asgi.py`` under Debian's uvicorn, on ptslink's port."""
    return server(
        f"{IN_PLACE} && systemd-run -q --unit=guide uvicorn --host 0.0.0.0 --port 3000 "
        f"--app-dir {CARRIED} {words} asgi:app && "
        "for n in $(seq 50); do ss -Hltn sport = :3000 | grep -q . && break; sleep 0.1; done"
    )


def station(misbehave: str = "", more: str = "", url: str = _NGINX, seconds: int = 40) -> Step:
    """A controller that goes about its business, or one that misbehaves, in the background."""
    told = f"--misbehave {misbehave}" if misbehave else ""
    return controller(
        f"{{simulate}} {url} {told} --duration {seconds} --timeout 3 {more}", background=True
    )


def wait(seconds: float) -> Step:
    return host(f"sleep {seconds}")


_GOOD = well_behaved(_NGINX)

FAULTS = (
    # The opening handshake, as far as only another server refuses it.
    Fault("hs-origin-rejected", (guide("origins"),), UNDO_GUIDE),
    Fault("hs-subprotocol", (guide("subprotocols"),), UNDO_GUIDE, variant="asked for"),
    Fault("hs-subprotocol", (guide("names-protocol"),), UNDO_GUIDE, variant="named unasked"),
    Fault("hs-method-post",
          (station("hs-method-post"), wait(4)), (WASH,), vantages=("server",),
          setting=(guide("plain"),), clear=UNDO_GUIDE),
    # Frames.
    Fault("ws-deflate-unsupported",
          (guide("compressing"), station("ws-deflate-unsupported"), wait(5)), UNDO_GUIDE,
          twin=_GOOD),
    Fault("ws-server-frame-too-big",
          (guide("ask-much"), station("ws-server-frame-too-big"), wait(5)), UNDO_GUIDE,
          twin=_GOOD),
    # The service.
    Fault("app-dup-id-replaced",
          (station("app-dup-id-replaced", "-n 2"), wait(7)), (WASH,), vantages=("server",),
          twin=well_behaved(_NGINX, count=2)),
    Fault("app-ghost-blocks",
          (guide("first-come"), station("app-ghost-blocks=2"), wait(8)), UNDO_GUIDE,
          vantages=("server",), variant="closed with 4001"),
    Fault("app-ghost-blocks",
          (guide("one-each"), station("app-ghost-blocks=2"), wait(8)), UNDO_GUIDE,
          vantages=("server",), variant="refused with 409"),
    Fault("app-late-cleanup",
          (bug("late-cleanup"), station("dev-no-reconnect", f"--id {_ONE}"), wait(1),
           station(more=f"--id {_ONE}"), wait(6)), UNDO_UNIT, vantages=("server",)),
    Fault("app-rate-lockout",
          (config("limits", "failures_per_minute = 3"),
           # Failures are counted by the minute.
           host("second=$(date +%-S); [ $second -lt 45 ] || sleep $((61 - second))"),
           controller("for n in 1 2 3 4; do timeout 1 bash -c "
                      "'exec 3<>/dev/tcp/{server}/3000'; done"),
           station(url=_DIRECT), wait(4)),
          (UNDO_CONFIG, WASH), url=_DIRECT, twin=well_behaved(_DIRECT)),
    Fault("app-rate-lockout",
          (guide("limited"), station("dev-reconnect-storm=0.2", "--reconnect 1"), wait(7)),
          UNDO_GUIDE, vantages=("server",), variant="another server, 429"),
    Fault("app-rate-lockout",
          (guide("impatient"), station("dev-reconnect-storm=0.2", "--reconnect 1"), wait(7)),
          UNDO_GUIDE, vantages=("server",), variant="another server, 1013"),
    Fault("app-handler-exception",
          (bug("fails"), station(), wait(5)), UNDO_UNIT, vantages=("server",)),
    Fault("app-handler-exception",
          (station("app-handler-exception"), wait(5)), (WASH,),
          vantages=("server",), variant="another server",
          setting=(guide("plain"),), clear=UNDO_GUIDE),
    Fault("app-event-loop-blocked", (bug("blocks"), station(), wait(3)), UNDO_UNIT, twin=_GOOD),
    Fault("app-event-loop-blocked", (guide("block"), station(), wait(3)), UNDO_GUIDE,
          twin=_GOOD, variant="another server"),
    Fault("app-first-message",
          (guide("greet"), station("app-first-message"), wait(4)), UNDO_GUIDE, twin=_GOOD),
    Fault("app-no-confirmation",
          (bug("unconfirmed"), station("app-no-confirmation"), wait(9)), UNDO_UNIT,
          vantages=("server",)),
    Fault("app-no-confirmation",
          (guide("mute"), station("app-no-confirmation", "-n 4 --ramp 1"), wait(9)), UNDO_GUIDE,
          vantages=("server",), variant="another server"),
    Fault("app-no-ws-library", (uvicorn("--ws none"),), UNDO_GUIDE, needs=("uvicorn",)),
    Fault("app-wrong-worker", (uvicorn("--workers 3"), wait(1)), UNDO_GUIDE, needs=("uvicorn",)),
    Fault("app-proxy-ip-trust",
          (edit("/X-Real-IP/d"), station(), wait(3)), UNDO_NGINX, vantages=("server",)),
    Fault("app-proxy-ip-trust",
          (edit("s/server 127.0.0.1:3000;/server {server}:3000;/"), station(), wait(3)),
          UNDO_NGINX, vantages=("server",), variant="not on loopback"),
    Fault("app-no-graceful-stop",
          (drop_in("KillSignal=SIGKILL"), station(more="-n 4"), wait(4),
           server("systemctl restart ptslink && sleep 1"), wait(2)), UNDO_UNIT,
          vantages=("server",),
          twin=(*well_behaved(_NGINX, count=4), server("systemctl restart ptslink"), wait(3))),
    Fault("app-dependency-down",
          (server(f"systemd-run -q --unit=backup {REMOTE_PYTHON} -c 'import sqlite3, time; "
                  'd = sqlite3.connect("/var/lib/ptslink/journal.db", isolation_level=None); '
                  "d.execute(\"BEGIN IMMEDIATE\"); time.sleep(600)'"),
           station(), wait(8)),
          (server("systemctl stop backup; sleep 2"), WASH), vantages=("server",),
          variant="the journal is locked"),
    Fault("app-dependency-down",
          (guide("depend"), station(), wait(5)), UNDO_GUIDE, vantages=("server",),
          variant="another server, at a message"),
    Fault("app-dependency-down", (guide("look-up"), station(), wait(4)), UNDO_GUIDE, twin=_GOOD,
          variant="another server, at the handshake"),
)  # fmt: skip
