"""How many connections a second one address may open: an nft table of our own, for any backend.

ufw can only limit to 6 in 30 seconds, and firewalld's rich rules count all addresses together, so
neither is used: a site whose controllers sit behind one router would lock itself out, or everybody
else. The table stands ahead of both firewalls and only ever drops: it lets nothing in. What comes
by the loopback is nginx speaking to the server, and is never counted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils import host_firewall_guard as guard
from ansible.module_utils.host_firewall_guard import Refused, keep

FILE = Path("/etc/ptslink-firewall-rate.nft")
SYSTEMD = Path("/etc/systemd/system")
UNIT = "ptslink-firewall-rate.service"
#: An address that has been quiet for this long is forgotten; its allowance was whole long before.
FORGOTTEN_SECONDS = 10
#: How many addresses a port remembers. A flood of more is not limited: nobody is refused for it.
ADDRESSES = 65535


@dataclass(frozen=True)
class Limit:
    """A port, and how many connections a second one address may open to it."""

    port: int
    protocol: str
    rate: int

    @property
    def burst(self) -> int:
        """At once, after a quiet time: all controllers of a site that lost their link together."""
        return 2 * self.rate

    def __str__(self) -> str:
        return f"at most {self.rate} a second from one address to {self.port}/{self.protocol}"


def limits(rules: Iterable[Mapping[str, Any]], ssh_ports: Iterable[int]) -> list[Limit]:
    """The limits that rules ask for, by port; Refused where one would slow ssh down."""
    wanted: dict[tuple[int, str], Limit] = {}
    for rule in rules:
        if rule.get("rate"):
            limit = Limit(rule["port"], rule["protocol"], rule["rate"])
            wanted[limit.port, limit.protocol] = limit
    shut = sorted({port for port, protocol in wanted if protocol == "tcp"} & set(ssh_ports))
    if shut:
        raise Refused(
            f"sshd listens on port {shut[0]}, and ssh is never limited: the next run may need "
            "many connections. Fix: take the rate out of that port's rule"
        )
    return [wanted[key] for key in sorted(wanted)]


def table(wanted: Iterable[Limit], mark: str) -> str:
    """What nft reads: the whole table anew, in one step. Empty where there is no limit."""
    sets, rules = [], []
    for limit in wanted:
        name = f"{limit.protocol}_{limit.port}"
        # One site has a whole /64 of IPv6 addresses, as it has one of IPv4.
        families = (("v4", "ipv4_addr", "ip saddr"),
                    ("v6", "ipv6_addr", "ip6 saddr & ffff:ffff:ffff:ffff::"))  # fmt: skip
        for family, kind, key in families:
            sets.append(
                f"    set {name}_{family} {{ type {kind}; size {ADDRESSES}; "
                f"flags dynamic,timeout; timeout {FORGOTTEN_SECONDS}s; }}"
            )
            rules.append(
                f"        {limit.protocol} dport {limit.port} update @{name}_{family} {{ {key} "
                f"limit rate over {limit.rate}/second burst {limit.burst} packets }} "
                f'counter drop comment "{mark}: {limit}"'
            )
    if not rules:
        return ""
    body = "\n".join(
        [
            *sets,
            "    chain input {",
            "        type filter hook input priority filter - 10; policy accept;",
            '        iifname "lo" accept',
            "        ct state != new accept",
            *rules,
            "    }",
        ]
    )
    fingerprint = hashlib.sha256(body.encode()).hexdigest()[:12]
    return (
        f"# Written by {mark}, which rewrites it on its next run.\n"
        f"table inet {mark}\n"
        f"delete table inet {mark}\n"
        f"table inet {mark} {{\n"
        f'    comment "{mark} {fingerprint}"\n'
        f"{body}\n"
        "}\n"
    )


def unit(nft: str, mark: str) -> str:
    """What brings the table back after a reboot; stopped by hand, it takes the table away."""
    return f"""\
# Written by {mark}, which rewrites it on its next run.
[Unit]
Description=How many connections a second one address may open to {mark}
DefaultDependencies=no
# nftables.service empties everything there is when it starts.
After=local-fs.target nftables.service
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={nft} -f {FILE}
ExecReload={nft} -f {FILE}
ExecStop=-{nft} delete table inet {mark}

[Install]
WantedBy=multi-user.target
"""


def loaded(printed: str, mark: str) -> str:
    """The fingerprint of a table as `nft list table` prints it, and the comment of each rule.

    The sets are not read: their elements are the addresses that connected within the last seconds.
    """
    found = re.search(rf'^\s*comment "{re.escape(mark)} (\w+)"', printed, re.MULTILINE)
    rules = re.findall(rf'\bdrop comment "{re.escape(mark)}: ([^"]+)"', printed)
    return "; ".join([found.group(1) if found else "?", *rules])


@dataclass(frozen=True)
class Held:
    """What the host has of a table of ours: on disk, after a reboot, in force."""

    file: str
    unit: str
    enabled: bool
    loaded: str

    @property
    def lines(self) -> list[str]:
        """For a diff a person reads."""
        named = re.findall(r'comment "[^":]+: (at most [^"]+)"', self.file)
        return list(dict.fromkeys(named))


NOTHING = Held("", "", False, "")


def wanted_held(wanted: Iterable[Limit], nft: str | None, mark: str) -> Held:
    """What there shall be. Where nft is not installed yet, a dry run goes by its usual place."""
    text = table(wanted, mark)
    if not text:
        return NOTHING
    return Held(text, unit(nft or "/usr/sbin/nft", mark), True, loaded(text, mark))


def read(nft: str | None, mark: str) -> Held:
    """What the host has; changes nothing."""
    status, printed = guard.said(nft, "list", "table", "inet", mark) if nft else (1, "")
    return Held(
        file=FILE.read_text(encoding="utf-8") if FILE.exists() else "",
        unit=(SYSTEMD / UNIT).read_text(encoding="utf-8") if (SYSTEMD / UNIT).exists() else "",
        enabled=(SYSTEMD / "multi-user.target.wants" / UNIT).is_symlink(),
        loaded=loaded(printed, mark) if status == 0 else "",
    )


def way_back(now: Held, nft: str | None, mark: str) -> list[str]:
    """The shell lines that put back the table there was, or none."""
    kept = keep([str(FILE), str(SYSTEMD / UNIT)])
    if now.file and now.unit:
        return [
            *kept,
            "systemctl daemon-reload",
            f"systemctl {'enable' if now.enabled else 'disable'} {UNIT}",
            f"systemctl {'reload-or-restart' if now.loaded else 'stop'} {UNIT}",
        ]
    return [
        f"test ! -e {SYSTEMD / UNIT} || systemctl disable --now {UNIT}",
        *kept,
        *([f"{nft} delete table inet {mark} 2>/dev/null"] if nft else []),
        "systemctl daemon-reload",
    ]


def write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.new")
    partial.write_text(text, encoding="utf-8")
    partial.chmod(0o644)
    partial.replace(path)


def check(wanted: Held, nft: str | None) -> None:
    """Refused where nft, or this kernel, would not take the table; nothing has changed then."""
    if not wanted.file:
        return
    if nft is None:
        raise Refused("nft is not installed")
    status, words = guard.said(nft, "--check", "--file", "-", given=wanted.file)
    if status:
        raise Refused(f"`nft --check` said of the limits: {words}")


def bring(now: Held, wanted: Held, nft: str | None, mark: str) -> None:
    """Put the limits in force, for this boot and the next; the caller has armed a way back."""
    if now == wanted:
        return
    if wanted.file:
        write(FILE, wanted.file)
        write(SYSTEMD / UNIT, wanted.unit)
        guard.must("systemctl", "daemon-reload")
        guard.must("systemctl", "enable", UNIT)
        guard.must("systemctl", "reload-or-restart", UNIT)
    else:
        if now.unit:
            guard.must("systemctl", "disable", "--now", UNIT)
        (SYSTEMD / UNIT).unlink(missing_ok=True)
        (SYSTEMD / "multi-user.target.wants" / UNIT).unlink(missing_ok=True)
        FILE.unlink(missing_ok=True)
        guard.must("systemctl", "daemon-reload")
        if nft and read(nft, mark).loaded:
            # Loaded by other hands than the unit's.
            guard.must(nft, "delete", "table", "inet", mark)
    left = read(nft, mark)
    if left != wanted:
        raise Refused(f"after the change the limits are: {left.lines or left.loaded or 'none'}")
