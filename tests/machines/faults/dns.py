"""Between a name and an address."""

from __future__ import annotations

from machines.faults.fault import Fault, Step, cable, controller, host, router

_SERVE = "{python} {faults}/helpers.py"
_NAME = "pts.example.net"
_URL = f"ws://{_NAME}/ptsWebSocket"


def _resolver(address: str) -> Step:
    """The controllers' namespace asks *address*; one try of a second, to be quick."""
    return host(
        "mkdir -p /etc/netns/{controller_ns} && printf '%s\\n' "
        f"'nameserver {address}' 'options timeout:1 attempts:1' "
        "> /etc/netns/{controller_ns}/resolv.conf"
    )


_NO_RESOLVER = host(
    "rm -f /etc/netns/{controller_ns}/resolv.conf; rmdir /etc/netns/{controller_ns}"
)


def _names(*records: str) -> Step:
    return router(f"{_SERVE} names {{lan}} {' '.join(records)}", background=True)


_SIX_ON = (
    cable("ip -6 addr add fd77::10/64 dev eth0 nodad"),
    router("ip -6 addr add fd77::2/64 dev wan nodad; ip -6 addr add fd78::1/64 dev lan nodad; "
           "sysctl -qw net.ipv6.conf.all.forwarding=1"),
    controller("ip -6 addr add fd78::10/64 dev eth0 nodad; ip -6 route add default via fd78::1"),
    cable("ip -6 route replace fd78::/64 via fd77::2"),
)  # fmt: skip
_SIX_OFF = (
    cable("ip -6 route del fd78::/64; ip -6 addr del fd77::10/64 dev eth0"),
    router("ip -6 addr del fd77::2/64 dev wan; ip -6 addr del fd78::1/64 dev lan"),
    controller("ip -6 route del default; ip -6 addr del fd78::10/64 dev eth0"),
)

#: A resolver of the site that knows the server's name.
_KNOWN = (_resolver("{lan}"), _names(f"{_NAME}={{server}}"), host("sleep 0.5"))
_BOTH = (
    *_SIX_ON,
    _resolver("{lan}"),
    _names(f"{_NAME}={{server}}", f"{_NAME}=fd77::10"),
    host("sleep 0.5"),
)

FAULTS = (
    Fault(
        "dns-name-typo",
        (),
        url="ws://ptss.example.net/ptsWebSocket",
        setting=_KNOWN,
        clear=(_NO_RESOLVER,),
        twin_url=_URL,
    ),
    Fault(
        "dns-resolver-unreachable",
        (
            controller("nft 'add table inet fault; add chain inet fault out { type filter hook "
                       "output priority 0; }; add rule inet fault out udp dport 53 drop'"),
        ),
        (controller("nft delete table inet fault"),),
        url=_URL,
        setting=_KNOWN,
        clear=(_NO_RESOLVER,),
    ),
    Fault(
        "dns-stale-or-wrong-ip",
        (
            _names(f"{_NAME}={{lan}}"),
            router(f"{_SERVE} http 80 'Apache'", background=True),
            host("sleep 0.5"),
        ),
        url=_URL,
        variant="another web server",
        setting=(_resolver("{lan}"),),
        twin=_KNOWN,
        clear=(_NO_RESOLVER,),
    ),
    Fault(
        "dns-stale-or-wrong-ip",
        (_names(f"{_NAME}=10.77.{{slot}}.99"), host("sleep 0.5")),
        url=_URL,
        variant="dead address",
        setting=(_resolver("{lan}"),),
        twin=_KNOWN,
        clear=(_NO_RESOLVER,),
    ),
    # Its twin is served on both.
    Fault(
        "dns-aaaa-only-or-v6-first",
        (
            cable("nft 'add table ip6 fault; add chain ip6 fault input { type filter hook input "
                  "priority -10; }; add rule ip6 fault input tcp dport 80 drop'"),
        ),
        (cable("nft delete table ip6 fault"),),
        url=_URL,
        variant="IPv6 closed",
        setting=_BOTH,
        clear=(_NO_RESOLVER, *_SIX_OFF),
    ),
)  # fmt: skip
