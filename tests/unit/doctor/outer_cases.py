"""Evidence by hand for causes of the outer layers, of the host and of the controller."""

from __future__ import annotations

from typing import Any

from ptslink.doctor.evidence import Case, Evidence, Status

SITE, SERVER = "10.77.1.2", "10.77.1.10"
NOW = 1_800_000_000.0


def piece(
    probe: str, vantage: str = "server", status: Status = Status.OK, ms: float = 1.0, **facts: Any
) -> Evidence:
    return Evidence(probe, status, f"{probe} was seen", facts, ms, vantage)


def connect(
    errno: str | None = None, ms: float = 1.0, vantage: str = "site", **facts: Any
) -> Evidence:
    merged = {"address": SERVER, "family": "ipv4", "port": 80, "errno": errno} | facts
    status = Status.OK if errno is None else Status.FAILED
    return Evidence("tcp.connect", status, errno or "connected", merged, ms, vantage)


def unit(name: str = "ptslink.service", **facts: Any) -> Evidence:
    merged: dict[str, Any] = {
        "unit": name, "load": "loaded", "active": "active", "sub": "running", "enabled": "enabled",
        "result": "success", "restarts": 0, "pid": 300, "started": NOW - 9000, "drop_ins": [],
        "stock": {"MemoryMax": "infinity", "LimitNOFILE": "65536"},
    }  # fmt: skip
    return piece("host.unit", **(merged | facts))


def listener(port: int, address: str = "0.0.0.0", process: str = "nginx", **facts: Any) -> Any:
    merged = {
        "address": address, "port": port, "family": "ipv4", "process": process, "pid": 1,
        "unit": "nginx.service", "queue": 0, "backlog": 511,
    }  # fmt: skip
    return merged | facts


LISTENERS = [
    listener(80),
    listener(3000, process="ptslink", unit="ptslink.service"),
    listener(22, process="sshd"),
]


def firewall(verdict: str = "accept", port: int = 80, **facts: Any) -> Evidence:
    merged = {
        "port": port, "family": "ipv4", "source": None, "manager": "ufw", "verdict": verdict,
        "rule": "ip filter ufw-user-input: the rule", "answer": "", "packets": None, "maybe": [],
        "dnat": "",
    }  # fmt: skip
    return piece("net.firewall", **(merged | facts))


def healthy() -> list[Evidence]:
    """A provisioned server behind nginx with a link that works, seen from site and server."""
    counters = {"IpOutNoRoutes": 0, "TcpExtIPReversePathFilter": 0, "TcpExtListenOverflows": 0}
    return [
        piece("dns.resolve", "site", host=SERVER, is_address=True, addresses=[SERVER], errno=None),
        piece("route.links", "site", interfaces=[{"name": "eth0", "up": True}]),
        connect(),
        Evidence("http.upgrade", Status.OK, "101", {"status": 101}, 1.0, "site"),
        piece("net.counters", counters=counters, at=1.0),
        piece("net.watch", seconds=3.0, ports=[80], syn_in={SITE: {"80": 3}},
              syn_ack_out={SITE: {"80": 3}}, rst_out={}, rst_in={}, icmp_out={}),
        piece("net.addresses", addresses=[{"address": SERVER, "family": "ipv4", "prefix": 24,
              "interface": "eth0", "scope": "global"}], interfaces=[]),
        piece("net.listeners", listeners=LISTENERS, ports=[80, 3000]),
        piece("net.sockets", sockets=[], syn_recv=0, total=0),
        piece("net.counters", counters=counters, at=5.0),
        piece("net.rp_filter", interfaces={"eth0": 0}),
        firewall(),
        firewall(port=3000),
        piece("net.bans", jails={}, rules=[]),
        piece("net.conntrack", count=41, max=262144, dropped=0, full_lines=0),
        piece("net.limited", lines=[], recent=[]),
        unit(),
        unit("nginx.service"),
        piece("host.descriptors", unit="ptslink.service", pid=300, open=13, limit=65536),
        piece("host.oom", kills=[]),
        piece("host.trouble", lines={}),
        piece("host.memory", total=2 << 30, available=1 << 30),
        piece("host.cpu", cpus=2, load=[0.1, 0.1, 0.1], some10=1.0, steal=0.0, throttled={}),
        piece("host.disk", file_systems=[{"path": "/", "size": 1 << 34, "free": 1 << 33,
              "inodes": 1000, "inodes_free": 900, "read_only": False}]),
        piece("host.clock", now=NOW, synchronized=True, can_sync=True, ntp=True, virtual=False,
              newest_seen=NOW - 10),
        piece("host.upgrades", runs=[], timers=False),
    ]  # fmt: skip


def changed(*pieces: Evidence, without: tuple[str, ...] = ()) -> Case:
    """The healthy case with every probe that *pieces* name replaced by them."""
    named = {one.probe for one in pieces} | set(without)
    kept = [one for one in healthy() if one.probe not in named]
    return Case("ws://10.77.1.10/ptsWebSocket", [*kept, *pieces])
