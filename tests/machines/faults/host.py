"""In the host itself: memory, crashes, disks, descriptors, upgrades."""

from __future__ import annotations

from machines.faults.bench import WASH
from machines.faults.fault import Fault, NotInjected, Step, controller, server

_DROP_IN = "/run/systemd/system/ptslink.service.d"
_DIRECT = "ws://{server}:3000/ptsWebSocket"


def _drop_in(*lines: str) -> Step:
    quoted = " ".join(f"'{line}'" for line in lines)
    return server(
        f"mkdir -p {_DROP_IN} && printf '%s\\n' '[Service]' {quoted} > {_DROP_IN}/fault.conf "
        "&& systemctl daemon-reload"
    )


_NO_DROP_IN = (
    server(f"rm -rf {_DROP_IN}; systemctl daemon-reload; systemctl reset-failed ptslink.service "
           "ptslink.socket; systemctl stop ptslink.service; "
           "systemctl start ptslink.socket ptslink.service"),
    server("journalctl -q --rotate --vacuum-time=1s"),
)  # fmt: skip

FAULTS = (
    Fault(
        "host-crash-loop",
        (
            _drop_in("ExecStart=", "ExecStart=/bin/false"),
            server("systemctl restart ptslink.service", may_fail=True),
        ),
        _NO_DROP_IN,
        settle=4.0,
    ),
    Fault(
        "host-crash-loop",
        (
            _drop_in("ExecStart=", "ExecStart=/bin/false", "Restart=no"),
            server(
                f"printf '%s\\n' '[Unit]' 'StartLimitIntervalSec=30' 'StartLimitBurst=2' "
                f">> {_DROP_IN}/fault.conf && systemctl daemon-reload; for n in 1 2 3 4; do "
                "systemctl restart ptslink.service; done",
                may_fail=True,
            ),
        ),
        _NO_DROP_IN,
        vantages=("server",),
        variant="gave up",
    ),
    Fault(
        "host-disk-full",
        (
            server("systemctl stop ptslink.socket ptslink.service && mount -t tmpfs -o "
                   "size=2m,mode=0750 fault /var/lib/ptslink && chown ptslink: /var/lib/ptslink "
                   "&& systemctl start ptslink.socket ptslink.service"),
            server("dd if=/dev/zero of=/var/lib/ptslink/filler bs=4k 2>/dev/null; true"),
        ),
        (
            server("systemctl stop ptslink.socket ptslink.service; umount -l /var/lib/ptslink; "
                   "systemctl start ptslink.socket ptslink.service"),
            server("journalctl -q --rotate --vacuum-time=1s"),
        ),
        settle=1.0,
    ),
    Fault(
        "host-disk-full",
        (
            server("systemctl stop ptslink.socket ptslink.service && mount -t tmpfs -o "
                   "size=8m,nr_inodes=12,mode=0750 fault /var/lib/ptslink "
                   "&& chown ptslink: /var/lib/ptslink "
                   "&& systemctl start ptslink.socket ptslink.service"),
            server("n=0; while touch /var/lib/ptslink/filler$n 2>/dev/null; do n=$((n+1)); done"),
        ),
        (
            server("systemctl stop ptslink.socket ptslink.service; umount -l /var/lib/ptslink; "
                   "systemctl start ptslink.socket ptslink.service"),
            server("journalctl -q --rotate --vacuum-time=1s"),
        ),
        settle=1.0,
        variant="inodes",
    ),
    Fault(
        "host-journal-forgets",
        (
            server("systemctl stop ptslink.socket ptslink.service && mount -t tmpfs -o mode=0750 "
                   "fault /var/lib/ptslink && chown ptslink: /var/lib/ptslink "
                   "&& systemctl start ptslink.socket ptslink.service"),
            WASH,
        ),
        (
            server("systemctl stop ptslink.socket ptslink.service; umount -l /var/lib/ptslink; "
                   "systemctl start ptslink.socket ptslink.service"),
        ),
        settle=1.0,
    ),
    Fault(
        "host-directory-closed",
        (
            server("chmod 750 /opt/ptslink; systemctl restart ptslink.service", may_fail=True),
        ),
        (
            server("chmod 755 /opt/ptslink; systemctl reset-failed ptslink.service ptslink.socket; "
                   "systemctl start ptslink.socket; systemctl restart ptslink.service"),
        ),
        settle=2.0,
    ),
    Fault(
        "tcp-accept-queue-full",
        (
            server("systemctl kill -s STOP --kill-whom=main ptslink.service"),
            controller("{python} -c 'import resource, socket, time; "
                       "resource.setrlimit(resource.RLIMIT_NOFILE, (8000, 8000)); held = []\n"
                       "for n in range(4200):\n"
                       " held.append(socket.socket()); held[-1].setblocking(False); "
                       "held[-1].connect_ex((\"{server}\", 3000)); time.sleep(0.0005)\n"
                       "time.sleep(60)\n'", background=True),
        ),
        (server("systemctl kill -s CONT --kill-whom=main ptslink.service; "
                "systemctl restart ptslink.service"), WASH),
        url=_DIRECT,
        settle=6.0,
    ),
    Fault(
        "host-emfile-backend",
        (
            _drop_in("LimitNOFILE=40"),
            server("systemctl stop ptslink.service; systemctl start ptslink.service"),
            controller(
                "{python} -c 'import socket, time; "
                'held = [socket.create_connection(("{server}", 3000)) for _ in range(60)]; '
                "time.sleep(60)'",
                background=True,
            ),
        ),
        _NO_DROP_IN,
        url=_DIRECT,
        settle=3.0,
    ),
    Fault(
        "host-auto-upgrade",
        (
            controller("{simulate} ws://{server}/ptsWebSocket -n 3 --duration 60", background=True),
            server("cp /var/log/apt/history.log /run/doctor/history.log; sleep 3; "
                   "now=$(date '+%Y-%m-%d  %H:%M:%S'); systemctl restart nginx; printf "
                   "'\\nStart-Date: %s\\nCommandline: /usr/bin/unattended-upgrade\\n"
                   "Upgrade: nginx:amd64 (1.22.1-9+deb12u2, 1.22.1-9+deb12u3)\\nEnd-Date: %s\\n' "
                   "\"$now\" \"$now\" >> /var/log/apt/history.log"),
        ),
        (
            server("cat /run/doctor/history.log > /var/log/apt/history.log"),
            WASH,
        ),
        vantages=("server",),
        settle=2.0,
    ),
)  # fmt: skip

_SHARED = "not in this lab, whose machines share the kernel of the computer: "

NOT_INJECTED = (
    NotInjected(
        "host-oom-kill",
        _SHARED + "systemd there has no memory controller to bound a unit by, and the kernel log "
        "that tells of a kill is the computer's",
    ),
    NotInjected("host-clock-wrong", _SHARED + "a machine has no clock of its own"),
    NotInjected(
        "host-cpu-starved",
        _SHARED + "systemd there has no processor controller, so what starves one machine starves "
        "the computer",
    ),
)
