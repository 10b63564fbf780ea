"""Between an address and an open connection: listeners, firewalls, forwards, NAT memory."""

from __future__ import annotations

from machines.faults.bench import REMOTE_PYTHON, WASH
from machines.faults.fault import (
    ROUTER_CLEAN,
    Fault,
    Step,
    cable,
    controller,
    host,
    router,
    router_rule,
    server,
)
from machines.faults.http_upgrade import UNDO_CONFIG, pinged_every

_URL = "ws://{server}/ptsWebSocket"
_DIRECT = "ws://{server}:3000/ptsWebSocket"
_SERVE = "{python} {faults}/helpers.py"

_FORGETFUL = (
    router(
        "sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_established=2 "
        "net.netfilter.nf_conntrack_tcp_loose=0"
    ),
    router_rule("ct state invalid drop"),
)
_MINDFUL = (
    router(
        "sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_established=432000 "
        "net.netfilter.nf_conntrack_tcp_loose=1"
    ),
    ROUTER_CLEAN,
)
_SILENT_STATION = controller(
    "{simulate} ws://{server}/ptsWebSocket --id 00AA00000000000000000001 "
    "--status-period 3600 --ping-period 3600 --duration 90 --reconnect 2",
    background=True,
)  # fmt: skip


def rich_rule(verb: str, how: str) -> Step:
    """firewalld has a rule of its richer language against one site, or no longer has it."""
    return server(
        f"firewall-cmd -q --{verb}-rich-rule='rule family=ipv4 source address={{wan}} "
        f"port port=80 protocol=tcp {how}'"
    )


def _table(chain: str, hook: str, rule: str) -> Step:
    """A table of no manager's, with one rule."""
    return server(f"nft 'add table ip fault; add chain ip fault {chain} {{ {hook}; }}; "
                  f"add rule ip fault {chain} {rule}'")  # fmt: skip


_NO_TABLE = server("nft delete table ip fault")


FAULTS = (
    # The bound is the whole computer's; what is counted against it, each machine's own.
    Fault(
        "tcp-conntrack-full",
        (cable("{python} {faults}/helpers.py fill 120"),),
        (cable("{python} {faults}/helpers.py forget"), WASH),
    ),
    Fault(
        "tcp-port-taken",
        (server("systemctl stop nginx; systemd-run -q --collect --unit fault-shop "
                f"{REMOTE_PYTHON} -m http.server 80 && sleep 1; systemctl start nginx",
                may_fail=True),),
        (server("systemctl stop fault-shop; systemctl reset-failed nginx; systemctl start nginx"),
         WASH),
    ),
    Fault(
        "tcp-service-down",
        (server("systemctl stop nginx"),),
        (server("systemctl start nginx"),),
    ),
    Fault(
        "tcp-service-down",
        (server("systemctl stop ptslink.socket ptslink.service"),),
        (server("systemctl start ptslink.socket ptslink.service"),),
        url=_DIRECT,
        variant="direct",
    ),
    Fault(
        "tcp-service-down",
        (server("systemctl stop nginx ptslink.socket ptslink.service"),),
        (server("systemctl start ptslink.socket ptslink.service nginx"),),
        vantages=("server",),
        variant="from the server",
    ),
    Fault(
        "tcp-bind-loopback",
        (
            server(
                "mkdir -p /run/systemd/system/ptslink.socket.d && printf '%s\\n' '[Socket]' "
                "'ListenStream=' 'ListenStream=127.0.0.1:3000' "
                "> /run/systemd/system/ptslink.socket.d/fault.conf && systemctl daemon-reload "
                "&& systemctl stop ptslink.service ptslink.socket "
                "&& systemctl start ptslink.socket ptslink.service"
            ),
        ),
        (
            server(
                "rm -r /run/systemd/system/ptslink.socket.d && systemctl daemon-reload "
                "&& systemctl stop ptslink.service ptslink.socket "
                "&& systemctl start ptslink.socket ptslink.service"
            ),
        ),
        url=_DIRECT,
    ),
    Fault("tcp-wrong-port", (), url="ws://{server}:81/ptsWebSocket", variant="closed",
          twin_url=_URL),
    Fault(
        "tcp-wrong-port",
        (server("ufw allow 8080/tcp"),),
        (server("ufw delete allow 8080/tcp"),),
        url="ws://{server}:8080/ptsWebSocket",
        variant="open",
        twin_url=_URL,
    ),
    Fault(
        "fw-ufw-drop",
        (server("ufw deny 80/tcp"),),
        (server("ufw allow 80/tcp comment 'ptslink: controllers'"),),
    ),
    Fault(
        "fw-ufw-drop",
        (server("ufw delete allow 3000/tcp"),),
        (server("ufw allow 3000/tcp comment 'ptslink: controllers'"),),
        url=_DIRECT,
        variant="direct",
    ),
    Fault(
        "fw-ufw-drop",
        (server("ufw insert 1 deny from {wan}"),),
        (server("ufw delete deny from {wan}"),),
        variant="one site",
    ),
    Fault(
        "fw-firewalld-reject",
        (
            server(
                "nft 'add table inet fault; add chain inet fault input { type filter hook input "
                "priority 10; }; add rule inet fault input tcp dport 80 reject with icmpx "
                "admin-prohibited'"
            ),
        ),
        (server("nft delete table inet fault"),),
    ),
    # The same by firewalld's own hand.
    Fault(
        "fw-firewalld-reject",
        (
            server(
                "firewall-cmd -q --policy=ptslink "
                "--remove-rich-rule='rule port port=80 protocol=tcp accept'"
            ),
        ),
        (server("firewall-cmd -q --reload"),),
        variant="firewalld, the port taken out",
        machine="firewalld",
    ),
    Fault(
        "fw-firewalld-reject",
        (rich_rule("add", "reject type=icmp-admin-prohibited"),),
        (rich_rule("remove", "reject type=icmp-admin-prohibited"),),
        variant="firewalld, one site by a rich rule",
        machine="firewalld",
    ),
    Fault(
        "fw-reject-other",
        (rich_rule("add", "reject"),),
        (rich_rule("remove", "reject"),),
        variant="firewalld, a rich rule",
        machine="firewalld",
    ),
    Fault(
        "fw-reject-other",
        (server("ufw reject 80/tcp"),),
        (server("ufw allow 80/tcp comment 'ptslink: controllers'"),),
        variant="ufw",
    ),
    Fault(
        "fw-reject-other",
        (
            server(
                "nft 'add table inet fault; add chain inet fault input { type filter hook input "
                "priority 10; }; add rule inet fault input tcp dport 80 reject with tcp reset'"
            ),
        ),
        (server("nft delete table inet fault"),),
        variant="tcp reset",
    ),
    Fault(
        "fw-ufw-limit-lockout",
        (
            server("ufw limit 80/tcp"),
            controller(
                "for n in 1 2 3 4 5 6 7 8; do timeout 1 bash -c ': </dev/tcp/{server}/80'; done",
                may_fail=True,
            ),
        ),
        (
            server("ufw allow 80/tcp comment 'ptslink: controllers'"),
            server("echo / > /proc/net/xt_recent/DEFAULT", may_fail=True),
        ),
    ),
    Fault(
        "fw-docker-path",
        (
            server(
                "nft 'add table ip fault; add chain ip fault pre { type nat hook prerouting "
                "priority dstnat; }; add rule ip fault pre tcp dport 80 dnat to 172.18.0.2:80'"
            ),
        ),
        (server("nft delete table ip fault"),),
    ),
    Fault(
        "fw-docker-path",
        (_table("pre", "type nat hook prerouting priority dstnat",
                "iifname eth0 tcp dport 80 redirect to :443"),),
        (_NO_TABLE,),
        variant="to another port",
    ),
    Fault(
        "fw-answers-taken",
        (_table("out", "type filter hook output priority 5", "tcp sport 80 drop"),),
        (_NO_TABLE,),
    ),
    Fault(
        "fw-answers-taken",
        (_table("in", "type filter hook input priority 5",
                "tcp dport 80 ct state established drop"),),
        (_NO_TABLE,),
        variant="after the first packet",
    ),
    Fault(
        "fw-answers-taken",
        (_table("out", "type filter hook output priority 5", "oifname lo tcp dport 3000 drop"),),
        (_NO_TABLE,),
        variant="between nginx and the service",
    ),
    Fault(
        "fw-upstream-drop",
        (
            host(
                "nft 'add table netdev fault_{cable}; add chain netdev fault_{cable} out { type "
                "filter hook egress device {cable} priority 0; }; add rule netdev fault_{cable} "
                "out tcp dport 80 drop'"
            ),
        ),
        (host("nft delete table netdev fault_{cable}"),),
        vantages=("site", "control", "server"),
    ),
    Fault(
        "fw-site-egress-block",
        (router_rule("tcp dport 80 drop"),),
        (ROUTER_CLEAN,),
        vantages=("site", "control", "server"),
    ),
    Fault(
        "fw-fail2ban-ban",
        (server("fail2ban-client set nginx-limit-req banip {wan}"),),
        (server("fail2ban-client set nginx-limit-req unbanip {wan}"),),
        needs=("fail2ban",),
    ),
    Fault(
        "nat-forward-wrong-host",
        (
            router(_SERVE + " banner 2222 'SSH-2.0-OpenSSH_9.2p1'", background=True),
            router(
                "nft 'add chain ip site diverted { type nat hook prerouting priority dstnat; }; "
                "add rule ip site diverted ip daddr {server} tcp dport 80 dnat to {lan}:2222'"
            ),
        ),
        (router("nft delete chain ip site diverted"),),
        settle=0.5,
    ),
    Fault(
        "nat-forward-wrong-host",
        (
            router(_SERVE + " http 8000 'GoAhead-Webs'", background=True),
            router(
                "nft 'add chain ip site diverted { type nat hook prerouting priority dstnat; }; "
                "add rule ip site diverted ip daddr {server} tcp dport 80 dnat to {lan}:8000'"
            ),
        ),
        (router("nft delete chain ip site diverted"),),
        settle=0.5,
        variant="web server",
    ),
    Fault(
        "nat-forward-missing-or-hairpin",
        (
            router(
                "nft 'add chain ip site forwarded { type nat hook prerouting priority dstnat; }; "
                'add rule ip site forwarded iifname "lan" ip daddr {wan} tcp dport 80 dnat to '
                "{server}:80'"
            ),
        ),
        (router("nft delete chain ip site forwarded"),),
        url="ws://{wan}/ptsWebSocket",
        twin_url=_URL,
        vantages=("site", "control", "server"),
        # A device in the server's own network dials the router's address; others come from beyond.
        places={"site": "host", "control": "controller"},
    ),
    # The router forgets what was silent for longer than two seconds, or keeps it for days.
    Fault(
        "nat-idle-silent",
        (*_FORGETFUL, _SILENT_STATION),
        (*_MINDFUL, WASH),
        settle=17.0,
        setting=(pinged_every(5),),
        clear=(UNDO_CONFIG, WASH),
        twin=(_SILENT_STATION, host("sleep 8")),
    ),
    Fault(
        "nat-idle-silent",
        (*_FORGETFUL, _SILENT_STATION),
        (*_MINDFUL, WASH),
        settle=46.0,
        variant="pings each 20 s",
        setting=(pinged_every(20),),
        clear=(UNDO_CONFIG, WASH),
        twin=(_SILENT_STATION, host("sleep 24")),
    ),
    Fault(
        "tcp-half-open-ghost",
        (
            controller("{simulate} ws://{server}/ptsWebSocket --id 00AA00000000000000000002 "
                       "--status-period 0.5 --duration 60", background=True),
            host("sleep 3"),
            router_rule("tcp sport 80 drop"),
            router_rule("tcp dport 80 drop"),
        ),
        (
            ROUTER_CLEAN,
            server("systemctl stop ptslink && rm -f /var/lib/ptslink/journal.db* "
                   "&& systemctl start ptslink; systemctl restart nginx"),
            server("truncate -s0 /var/log/nginx/ptslink.access.log "
                   "/var/log/nginx/ptslink.error.log"),
        ),
        vantages=("server",),
        settle=24.0,
    ),
)  # fmt: skip
