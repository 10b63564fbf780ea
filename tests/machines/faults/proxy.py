"""nginx before the service: its handshake, its limits, its timers, its life."""

from __future__ import annotations

from machines.faults.bench import WASH
from machines.faults.fault import Fault, NotInjected, Step, controller, host, server

SITE = "/etc/nginx/conf.d/ptslink.conf"
MAIN = "/etc/nginx/nginx.conf"
_KEPT = "/run/doctor/nginx.kept"
#: Old workers answer until the new ones do.
_RELOAD = "systemctl reload nginx && sleep 0.7"

#: The site and the main file as they were, in force.
UNDO = (
    server(
        f"cp {_KEPT}.site {SITE} && cp {_KEPT}.main {MAIN} && nginx -t -q && "
        "systemctl reset-failed nginx; systemctl is-active -q nginx && "
        f"{_RELOAD} || systemctl restart nginx"
    ),
    WASH,
)


def edit(*scripts: str, file: str = SITE, then: str = f"nginx -t -q && {_RELOAD}") -> Step:
    """A line that keeps both files, edits one by sed scripts, and puts it in force."""
    edits = " && ".join(f"sed -i '{script}' {file}" for script in scripts)
    return server(f"cp {SITE} {_KEPT}.site && cp {MAIN} {_KEPT}.main && {edits} && {then}")


def in_location(lines: str) -> str:
    """A sed script that adds lines to the location of the link."""
    return f"/proxy_pass http/i {lines}"


STATION = "{simulate} ws://{server}/ptsWebSocket --status-period 1"

FAULTS = (
    Fault("px-upgrade-headers-missing",
          (edit("/proxy_set_header Upgrade/d", "/proxy_set_header Connection/d"),), UNDO),
    Fault("px-upgrade-headers-missing",
          (edit("/proxy_set_header Upgrade/d", "/proxy_set_header Connection/d"),), UNDO,
          vantages=("server",), variant="from the server"),
    Fault("px-http10-upstream",
          (edit("s/proxy_http_version 1.1/proxy_http_version 1.0/"),
           server("cp /etc/ptslink/ptslink.toml /run/doctor/toml.kept && "
                  "sed -i 's/\"lenient\"/\"strict\"/' /etc/ptslink/ptslink.toml && "
                  "systemctl restart ptslink && sleep 1")),
          (*UNDO, server("cat /run/doctor/toml.kept > /etc/ptslink/ptslink.toml && "
                         "systemctl restart ptslink && sleep 1"))),
    Fault("px-map-missing",
          (edit("/^map /,/^}/d", then="! systemctl reload nginx"),), UNDO, vantages=("server",)),
    Fault("px-read-timeout-60", (edit("s/proxy_read_timeout .*/proxy_read_timeout 3s;/"),), UNDO,
          site_options=("--idle", "8")),
    Fault("px-upstream-refused", (server("systemctl stop ptslink.socket ptslink.service"),),
          (server("systemctl start ptslink.socket ptslink.service && sleep 1"),)),
    Fault("px-upstream-timeout",
          (server("nft add table inet fault && nft add chain inet fault i "
                  "'{ type filter hook input priority -10; }' && "
                  "nft add rule inet fault i iif lo tcp dport 3000 drop"),),
          (server("nft delete table inet fault"),), site_options=("--timeout", "8"),
          variant="dropped on loopback"),
    Fault("px-https-redirect", (edit(in_location("return 301 https://$host$request_uri;")),), UNDO),
    Fault("px-path-rewrite",
          (edit("s#proxy_pass http://ptslink;#proxy_pass http://ptslink/elsewhere/;#"),), UNDO),
    Fault("px-location-404", (edit("s#location / {#location = /ptswebsocket {#"),), UNDO),
    Fault("px-default-server", (edit("s/server_name .*/server_name pts.example.test;/"),), UNDO),
    Fault("px-https-to-plain-upstream",
          (edit("s#proxy_pass http://ptslink;#proxy_pass https://ptslink;#"),), UNDO),
    Fault("px-http-to-tls-upstream",
          (server("openssl req -x509 -newkey rsa:2048 -nodes -keyout /run/doctor/k.pem "
                  "-out /run/doctor/c.pem -days 2 -subj /CN=x 2>/dev/null"),
           edit("s#server 127.0.0.1:3000;#server 127.0.0.1:3443;#",
                "$a server { listen 127.0.0.1:3443 ssl; ssl_certificate /run/doctor/c.pem; "
                "ssl_certificate_key /run/doctor/k.pem; location / { return 200; } }")),
          UNDO),
    Fault("px-limit-req",
          (edit("1i limit_req_zone $binary_remote_addr zone=fault:1m rate=1r/m;",
                in_location("limit_req zone=fault;")),
           controller("{simulate} ws://{server}/ptsWebSocket --once --timeout 3")),
          UNDO),
    Fault("px-limit-conn",
          (edit("1i limit_conn_zone $binary_remote_addr zone=fault:1m;",
                in_location("limit_conn fault 1;")),
           controller(STATION + " --duration 40", background=True), host("sleep 2")),
          UNDO),
    Fault("px-access-denied", (edit(in_location("deny all;")),), UNDO),
    Fault("px-access-denied", (edit(in_location('if ($http_user_agent = "") { return 403; }')),),
          UNDO, variant="no User-Agent"),
    Fault("px-auth-required",
          (edit(in_location("auth_basic x; auth_basic_user_file /dev/null;")),), UNDO),
    Fault("px-reload-shutdown",
          (edit("1i worker_shutdown_timeout 2s;", file=MAIN),
           controller(STATION + " -n 4 --duration 40", background=True), host("sleep 3"),
           server("systemctl reload nginx"), host("sleep 5")),
          UNDO, vantages=("server",)),
    Fault("px-restart",
          (controller(STATION + " -n 4 --duration 40", background=True), host("sleep 4"),
           server("systemctl restart nginx"), host("sleep 3")),
          (WASH,),
          vantages=("server",)),
    Fault("px-not-running-bad-config",
          (edit("s/proxy_buffering off;/proxy_buffering of;/",
                then="systemctl stop nginx; ! systemctl start nginx"),), UNDO),
    Fault("px-h2-only", (edit("s/listen 80;/listen 80 http2;/"),), UNDO),
)  # fmt: skip

NOT_INJECTED = (NotInjected("px-selinux-denied", "the kernel of this computer has no SELinux"),)
