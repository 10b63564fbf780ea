"""Between two addresses: links, routes, packet sizes, losses."""

from __future__ import annotations

from machines.faults.fault import (
    ROUTER_CLEAN,
    Fault,
    cable,
    controller,
    router_rule,
    server,
)

_URL = "ws://{server}/ptsWebSocket"
_DEFAULT = controller("ip route replace default via {lan}")

FAULTS = (
    Fault(
        "l3-device-offline",
        (controller("ip link set eth0 down"),),
        (controller("ip link set eth0 up"), _DEFAULT),
    ),
    Fault("l3-device-no-default-route", (controller("ip route del default"),), (_DEFAULT,)),
    Fault(
        "l3-device-wrong-gateway",
        (controller("ip route replace default via 10.78.{slot}.250"),),
        (_DEFAULT,),
        site_options=("--timeout", "4"),
    ),
    Fault(
        "l3-wrong-server-ip",
        (),
        url="ws://10.77.{slot}.77/ptsWebSocket",
        variant="nobody",
        twin_url=_URL,
    ),
    Fault(
        "l3-wrong-server-ip",
        (),
        url="ws://{gateway}:3999/ptsWebSocket",
        variant="another host",
        twin_url=_URL,
    ),
    Fault(
        "l3-no-return-route",
        (server("ip route add unreachable {wan}/32"),),
        (server("ip route del unreachable {wan}/32"),),
    ),
    Fault(
        "l3-interface-unfit",
        (server("ip link set eth0 arp off"),),
        (server("ip link set eth0 arp on"),),
    ),
    Fault(
        "l3-rp-filter-asymmetric",
        (
            cable(
                "ip link add fault0 type veth peer name fault1 && ip link set fault0 up "
                "&& ip link set fault1 up && ip addr add 10.99.0.1/30 dev fault0 "
                "&& ip neigh add 10.99.0.2 lladdr 02:00:00:00:00:99 dev fault0 "
                "&& ip route add {wan}/32 via 10.99.0.2 dev fault0 "
                "&& sysctl -qw net.ipv4.conf.all.rp_filter=1"
            ),
        ),
        (cable("sysctl -qw net.ipv4.conf.all.rp_filter=0"), cable("ip link del fault0")),
    ),
    Fault(
        "l3-asymmetric-stateful-fw",
        (router_rule("iifname wan oifname lan tcp flags syn,ack / syn,ack drop"),),
        (ROUTER_CLEAN,),
    ),
    Fault(
        "l3-mtu-blackhole",
        (router_rule("iifname lan oifname wan tcp dport 80 meta length > 1000 drop"),),
        (ROUTER_CLEAN,),
        variant="towards the server",
    ),
    Fault(
        "l3-packet-loss",
        (router_rule("numgen random mod 100 < 40 drop"),),
        (ROUTER_CLEAN,),
        site_options=("--timeout", "8"),
    ),
)
