"""In the controller's own settings and state."""

from __future__ import annotations

from machines.faults.fault import Fault, NotInjected, controller, server

_CLEAN = (
    server("systemctl stop ptslink.service && rm -f /var/lib/ptslink/journal.db* "
           "&& systemctl start ptslink.service && truncate -s0 /var/log/nginx/*.log"),
)  # fmt: skip
_POST = (
    "POST /ptsWebSocket HTTP/1.1\\r\\nHost: {server}\\r\\nX-Pts-Id: 00AA00000000000000000003\\r\\n"
    "Content-Type: application/json\\r\\nContent-Length: 91\\r\\nConnection: close\\r\\n\\r\\n"
)
_UPLOAD = (
    '{"Protocol":"jsonPTS","Packets":[{"Id":1,"Type":"UploadStatus","Data":{"DateTime":'
    '"2026-01-01T00:00:00"}}]}'
)

FAULTS = (
    Fault(
        "dev-ws-disabled",
        (
            controller("for n in 1 2 3; do curl -s -o /dev/null -H 'X-Pts-Id: "
                       f"00AA00000000000000000003' -d '{_UPLOAD}' "
                       "http://{server}/ptsWebSocket; sleep 0.3; done"),
        ),
        _CLEAN,
        vantages=("server",),
    ),
    Fault(
        "dev-reconnect-storm",
        (
            controller(
                "{simulate} ws://{server}/ptsWebSocket --id 00AA00000000000000000004 "
                "--misbehave reconnect-storm --reconnect 0.2 --duration 8",
                may_fail=True,
            ),
        ),
        _CLEAN,
        vantages=("server",),
    ),
)  # fmt: skip

NOT_INJECTED: tuple[NotInjected, ...] = ()
