"""nginx before the service: its handshake, limits, timers, life; and the proxies of others."""

from __future__ import annotations

from machines.faults.bench import REMOTE_PYTHON, WASH
from machines.faults.fault import (
    Fault,
    NotInjected,
    Step,
    controller,
    host,
    router,
    server,
    well_behaved,
)
from machines.faults.http_upgrade import UNDO_CONFIG, pinged_every

SITE = "/etc/nginx/conf.d/ptslink.conf"
MAIN = "/etc/nginx/nginx.conf"
_KEPT = "/run/doctor/nginx.kept"
_KEY = "/etc/ptslink/tls/live/rsa.key"
_BALANCED = "/etc/nginx/sites-enabled/balanced"
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


def haproxy(timeout: str = "1h", *, lower_case: bool = False) -> Step:
    """HAProxy on port 80, which ends what was silent for *timeout*; of itself it writes the names
    of headers in lower case."""
    kept = ("global", *(f"h1-case-adjust {name.lower()} {name}" for name in
                        ("Sec-WebSocket-Accept", "Upgrade", "Connection")))  # fmt: skip
    lines = (
        *kept, "defaults", "mode http", "timeout connect 5s", f"timeout client {timeout}",
        f"timeout server {timeout}", "frontend link", "bind :80", "default_backend nginx",
        *(() if lower_case else ("option h1-case-adjust-bogus-client",)),
        "backend nginx", "server local 127.0.0.1:8080",
    )  # fmt: skip
    quoted = " ".join(f"'{line}'" for line in lines)
    return server(
        f"printf '%s\\n' {quoted} > /run/doctor/haproxy.cfg && "
        "{ systemctl -q stop fault-haproxy 2>/dev/null; systemd-run -q --collect "
        "--unit fault-haproxy haproxy -db -f /run/doctor/haproxy.cfg; } && sleep 0.5 "
        "&& systemctl is-active -q fault-haproxy"
    )


#: nginx behind another proxy, which has patience.
BEHIND_HAPROXY = (
    # The distribution's own site holds port 80 as well.
    server("mv /etc/nginx/sites-enabled/default /run/doctor/default.kept", may_fail=True),
    edit("s/listen 80;/listen 8080;/", "s/listen \\[::\\]:80;/listen [::]:8080;/"),
    haproxy(),
)
NO_HAPROXY = (
    server("systemctl stop fault-haproxy"),
    server("mv /run/doctor/default.kept /etc/nginx/sites-enabled/default", may_fail=True),
    *UNDO,
)


def divert(line: str) -> tuple[Step, ...]:
    """The site's router takes all web traffic to a stranger of its own, whatever the address."""
    return (
        router("{python} {faults}/helpers.py " + line.replace("PORT", "8000", 1), background=True),
        router(
            "nft 'add chain ip site diverted { type nat hook prerouting priority dstnat; }; "
            'add rule ip site diverted iifname "lan" tcp dport 80 dnat to {lan}:8000\''
        ),
    )


STRAIGHT = (router("nft delete chain ip site diverted"), WASH)

URL = "ws://{server}/ptsWebSocket"
STATION = f"{{simulate}} {URL} --status-period 1"
#: Four controllers that stay connected through a reload.
RELOADED = (*well_behaved(URL, count=4), server("systemctl reload nginx"), host("sleep 3"))
#: Controllers with nothing to say; apart, or it would look like one event for all.
SILENT = controller(
    "for n in 1 2 3; do while :; do env PYTHONPATH={root}/src {python} -m "
    "ptslink.cli probe ws://{server}/ptsWebSocket --idle 30 --controller-id "
    "00AA0000000000000000001$n; done & sleep 1.7; done; wait",
    background=True,
)
PARTICULAR = controller(
    f"{{simulate}} {URL} --misbehave px-header-case --duration 60", background=True
)
_AS_UNIT = "/run/systemd/system/nginx.service.d"


def sandboxed(*lines: str) -> Step:
    """nginx's unit with more lines in its [Service], started again with them."""
    written = " ".join(f"'{line}'" for line in ("[Service]", *lines))
    return server(
        f"mkdir -p {_AS_UNIT} && printf '%s\\n' {written} > {_AS_UNIT}/fault.conf && "
        "systemctl daemon-reload && { systemctl restart nginx; sleep 0.5; }"
    )


OUT_OF_THE_BOX = (
    server(
        f"rm -r {_AS_UNIT} && systemctl daemon-reload && systemctl reset-failed nginx; "
        "systemctl restart nginx && sleep 0.5"
    ),
    WASH,
)

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
    # As nginx has it where nobody sets it; pings would keep the link.
    Fault("px-read-timeout-60", (edit("/proxy_read_timeout/d"), pinged_every(0)),
          (UNDO_CONFIG, *UNDO), site_options=("--idle", "63"), variant="60 s, no pings"),
    Fault("px-upstream-refused", (server("systemctl stop ptslink.socket ptslink.service"),),
          (server("systemctl start ptslink.socket ptslink.service && sleep 1"),)),
    Fault("px-upstream-timeout",
          (server(f"systemd-run -q --collect --unit fault-mute {REMOTE_PYTHON} -c "
                  "'import socket, time; "
                  "s = socket.create_server((\"127.0.0.1\", 3009), backlog=0); "
                  "held = [socket.create_connection((\"127.0.0.1\", 3009))]; time.sleep(600)' "
                  "&& sleep 0.5"),
           edit("s#server 127.0.0.1:3000;#server 127.0.0.1:3009;#")),
          (*UNDO, server("systemctl stop fault-mute")), site_options=("--timeout", "8"),
          variant="a program that accepts nobody"),
    # What nginx reports as its timeout is the rule's doing.
    Fault("fw-answers-taken",
          (server("nft add table inet fault && nft add chain inet fault i "
                  "'{ type filter hook input priority -10; }' && "
                  "nft add rule inet fault i iif lo tcp dport 3000 drop"),),
          (server("nft delete table inet fault"),), site_options=("--timeout", "8"),
          variant="arriving on loopback"),
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
          UNDO, twin=well_behaved(URL)),
    Fault("px-access-denied", (edit(in_location("deny all;")),), UNDO),
    Fault("px-access-denied", (edit(in_location('if ($http_user_agent = "") { return 403; }')),),
          UNDO, variant="no User-Agent"),
    Fault("px-auth-required",
          (edit(in_location("auth_basic x; auth_basic_user_file /dev/null;")),), UNDO),
    # A reload alone costs nobody a link.
    Fault("px-reload-shutdown",
          (edit("1i worker_shutdown_timeout 2s;", file=MAIN),
           controller(STATION + " -n 4 --duration 40", background=True), host("sleep 3"),
           server("systemctl reload nginx"), host("sleep 5")),
          UNDO, vantages=("server",), twin=RELOADED),
    Fault("px-restart",
          (controller(STATION + " -n 4 --duration 40", background=True), host("sleep 4"),
           server("systemctl restart nginx"), host("sleep 3")),
          (WASH,),
          vantages=("server",), twin=RELOADED),
    Fault("px-not-running-bad-config",
          (edit("s/proxy_buffering off;/proxy_buffering of;/",
                then="systemctl stop nginx; ! systemctl start nginx"),), UNDO),
    Fault("px-h2-only", (edit("s/listen 80;/listen 80 http2;/"),), UNDO),
    Fault("px-emfile",
          (edit("/^worker_rlimit_nofile/d", "1i worker_rlimit_nofile 24;", file=MAIN),
           controller("{python} -c 'import socket, time; "
                      'held = [socket.create_connection(("{server}", 80)) for _ in range(80)]; '
                      "time.sleep(60)'", background=True), host("sleep 2")),
          UNDO),
    Fault("px-error-held-open",
          (edit(in_location("return 503;"), in_location("keepalive_timeout 3s;")),), UNDO,
          site_options=("--idle", "6")),
    Fault("px-other-idle-timeout", (haproxy("4s"),), (haproxy(), WASH),
          site_options=("--idle", "7"), needs=("haproxy",),
          setting=BEHIND_HAPROXY, clear=NO_HAPROXY),
    Fault("px-other-idle-timeout",
          (haproxy("4s"), SILENT, host("sleep 14")), (haproxy(), WASH),
          vantages=("server",), needs=("haproxy",), variant="from the server",
          setting=BEHIND_HAPROXY, clear=NO_HAPROXY, twin=(SILENT, host("sleep 10"))),
    # Its twin's controller is as particular.
    Fault("px-header-case", (haproxy(lower_case=True), PARTICULAR, host("sleep 4")),
          (haproxy(), WASH), needs=("haproxy",), setting=BEHIND_HAPROXY, clear=NO_HAPROXY,
          twin=(PARTICULAR, host("sleep 4"))),
    Fault("px-sandboxed", (sandboxed("RestrictAddressFamilies=AF_UNIX"),), OUT_OF_THE_BOX,
          variant="no IP at all: 97"),
    # A socket for both families is enough to listen; the service's own address is of the other.
    Fault("px-sandboxed",
          (edit("/listen 80;/d", "s/listen \\[::\\]:80;/listen [::]:80 ipv6only=off;/",
                "/listen 443/d", "/listen \\[::\\]:443/d", then="true"),
           sandboxed("RestrictAddressFamilies=AF_UNIX AF_INET6 AF_NETLINK")),
          (*OUT_OF_THE_BOX, *UNDO), variant="IPv6 alone: 97"),
    Fault("px-sandboxed",
          (sandboxed("SystemCallFilter=~connect", "SystemCallErrorNumber=EACCES"),),
          OUT_OF_THE_BOX, variant="no connect: 13"),
    Fault("px-sandboxed",
          (sandboxed("SystemCallFilter=~connect", "SystemCallErrorNumber=EPERM"),),
          OUT_OF_THE_BOX, variant="no connect: 1"),
    # IPAddressDeny has no effect in a machine of the lab: it needs BPF programs there.
    Fault("px-forward-proxy", divert("relay PORT {server} 80"), STRAIGHT, settle=0.5,
          variant="drops the Upgrade"),
    Fault("px-forward-proxy",
          divert("http PORT squid/5.7 '403 Forbidden' 'X-Squid-Error: ERR_ACCESS_DENIED 0' "
                 "'Via: 1.1 site-gateway (squid/5.7)'"),
          STRAIGHT, settle=0.5, variant="refuses"),
    Fault("px-forward-proxy",
          (controller("{simulate} ws://{server}/ptsWebSocket --misbehave px-forward-proxy "
                      "--duration 12 --timeout 3", background=True), host("sleep 4")),
          (WASH,), vantages=("server",), variant="from the server"),
    Fault("px-include-missing",
          (edit("s|include /etc/nginx/conf.d/|#&|", file=MAIN),), UNDO),
    Fault("px-certificate-unusable",
          (server(f"cp -a $(readlink -f {_KEY}) /run/doctor/rsa.key && "
                  f"echo none > $(readlink -f {_KEY}); systemctl restart nginx", may_fail=True),),
          (server(f"cp -a /run/doctor/rsa.key $(readlink -f {_KEY}); systemctl reset-failed nginx; "
                  "systemctl restart nginx"), WASH)),
    Fault("px-proxy-protocol-expected",
          (server("printf '%s\\n' 'server { listen 80 proxy_protocol; return 200 x; }' "
                  f"> {_BALANCED} && systemctl restart nginx"),),
          (server(f"rm {_BALANCED}; systemctl restart nginx"), WASH)),
    Fault("px-proxy-protocol-sent",
          (controller("{python} {mutations}/device.py {server} 80 before "
                      "'PROXY TCP4 198.51.100.9 192.0.2.2 40000 80\\r\\n'", background=True),
           host("sleep 6")),
          (WASH,), vantages=("server",)),
    Fault("px-captive-portal",
          divert("http PORT lighttpd/1.4.69 '302 Found' 'Location: http://login.example.net/'"),
          STRAIGHT, settle=0.5),
    Fault("px-captive-portal", divert("http PORT lighttpd/1.4.69 '200 OK'"), STRAIGHT, settle=0.5,
          variant="its own page"),
)  # fmt: skip

NOT_INJECTED = (
    NotInjected(
        "px-selinux-denied",
        "not in this lab, whose machines share the kernel of the computer: it has no SELinux",
    ),
)
