"""In the controller's own settings and state."""

from __future__ import annotations

from machines.faults.fault import Fault, controller, server, well_behaved

_URL = "ws://{server}/ptsWebSocket"
_CLEAN = (
    server(
        "systemctl stop ptslink.service && rm -f /var/lib/ptslink/journal.db* "
        "&& systemctl start ptslink.service && truncate -s0 /var/log/nginx/*.log"
    ),
)
_UPLOAD = (
    '{"Protocol":"jsonPTS","Packets":[{"Id":1,"Type":"UploadStatus","Data":{"DateTime":'
    '"2026-01-01T00:00:00"}}]}'
)

FAULTS = (
    Fault(
        "dev-ws-disabled",
        (
            controller(
                "for n in 1 2 3; do curl -s -o /dev/null -H 'X-Pts-Id: "
                f"00AA00000000000000000003' -H 'Content-Type: application/json' -d '{_UPLOAD}' "
                "http://{server}/ptsWebSocket; sleep 0.3; done"
            ),
        ),
        _CLEAN,
        vantages=("server",),
    ),
    Fault(
        "dev-reconnect-storm",
        (
            controller(
                f"{{simulate}} {_URL} --id 00AA00000000000000000004 "
                "--misbehave dev-reconnect-storm=0.3 --reconnect 0.3 --duration 9",
                may_fail=True,
            ),
        ),
        _CLEAN,
        vantages=("server",),
    ),
    Fault(
        "dev-reboot-loop",
        (
            controller(
                f"{{simulate}} {_URL} --id 00AA00000000000000000005 "
                "--misbehave dev-reboot-loop=2 --reconnect 0.3 --duration 60",
                background=True,
            ),
        ),
        _CLEAN,
        vantages=("server",),
        settle=14.0,
    ),
    Fault(
        "dev-no-reconnect",
        (
            controller(
                f"{{simulate}} {_URL} --id 00AA00000000000000000006 --duration 60", background=True
            ),
            controller(
                f"for n in 1 2 3 4; do {{simulate}} {_URL} --id 00AA00000000000000000007 "
                "--duration 0.5; done",
                may_fail=True,
            ),
        ),
        _CLEAN,
        vantages=("server",),
        settle=16.0,
    ),
    # It comes once, uploads what it is told to do, and dials its other target from then on.
    Fault(
        "dev-ip-vs-domain",
        (
            controller(
                f"{{simulate}} {_URL} --id 00AA00000000000000000008 "
                "--misbehave dev-ip-vs-domain --duration 60",
                background=True,
            ),
        ),
        _CLEAN,
        vantages=("server",),
        settle=8.0,
    ),
    Fault(
        "dev-site-shared-nat",
        (
            server(
                "printf '%s\\n' 'limit_conn_zone $binary_remote_addr zone=fault:1m;' "
                "'limit_conn fault 1;' > /etc/nginx/conf.d/fault.conf && nginx -t -q "
                "&& systemctl reload nginx && sleep 0.5"
            ),
            controller(f"{{simulate}} {_URL} -n 3 --duration 60", background=True),
        ),
        (
            server("rm /etc/nginx/conf.d/fault.conf && systemctl reload nginx && sleep 0.5"),
            *_CLEAN,
        ),
        vantages=("server",),
        settle=4.0,
        twin=well_behaved(_URL, count=3),
    ),
)
