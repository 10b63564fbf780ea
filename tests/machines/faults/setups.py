"""What some rows need on the machine beforehand, by name."""

from __future__ import annotations

from collections.abc import Mapping

from machines.faults.fault import Step, server

_APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install"

SETUPS: Mapping[str, tuple[Step, ...]] = {
    "uvicorn": (
        server(f"command -v uvicorn >/dev/null || {_APT} uvicorn python3-websockets >/dev/null"),
    ),
    "fail2ban": (
        server(f"command -v fail2ban-client >/dev/null || {_APT} fail2ban >/dev/null 2>&1 || true"),
        server(
            "printf '%s\\n' '[DEFAULT]' 'backend = auto' '[sshd]' 'enabled = false' "
            "'[nginx-limit-req]' 'enabled = true' 'logpath = /var/log/nginx/error.log' "
            "> /etc/fail2ban/jail.local && touch /var/log/nginx/error.log "
            "&& systemctl restart fail2ban && sleep 1 && fail2ban-client status nginx-limit-req"
        ),
    ),
    "haproxy": (
        server(f"command -v haproxy >/dev/null || {_APT} haproxy >/dev/null 2>&1; "
               "systemctl disable -q --now haproxy && haproxy -v >/dev/null"),
    ),
}  # fmt: skip
