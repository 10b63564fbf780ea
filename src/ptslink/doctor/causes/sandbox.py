"""A unit that its own systemd settings cut off the network: nginx's, and the service's.

Not in the catalogue by an id of their own: the third side of the pair errno 13 (SELinux) and
errno 111 (nobody listens). A setting alone is no fault: many units are hardened and work. It is
named where what it forbids is what failed.

Facts used: ``host.sandbox`` (:mod:`ptslink.doctor.collect.confinement`), ``host.unit`` ``active``
and ``denied``, ``net.listeners``, ``link.local``, attempts with nginx's events.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ptslink.doctor.attempts import Attempt
from ptslink.doctor.cause import CERTAIN, LIKELY, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import RETRY_AFTERMATH, failing, service_config
from ptslink.doctor.causes.reach import Reach, lines, listed, reach_of
from ptslink.doctor.commands import written
from ptslink.doctor.evidence import Case, Json

#: What nginx says where it may not connect, or is not let out.
_NOT_LET = ("connect-denied", "connect-failed", "connect-timeout")
_ERRNO = re.compile(r"(?:failed|timed out) \((\d+):")
#: System calls without which there is no network, and the group that holds them.
_NETWORK_CALLS = {"@network-io", "socket", "connect", "bind", "listen", "accept", "accept4"}
_RULED_OUT = (
    "px-selinux-denied", "px-upstream-refused", "px-upstream-timeout", "px-connect-failed",
    "tcp-wrong-port", "tcp-bind-loopback", "fw-ufw-drop", "fw-upstream-drop",
    "l3-no-return-route", "l3-rp-filter-asymmetric", "app-event-loop-blocked",
    "hs-slow-handshake",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A unit's sandboxing, as far as it concerns the network."""

    unit: str
    effective: Mapping[str, str]
    settings: Sequence[Mapping[str, Json]]

    def forbids_family(self, family: str) -> bool:
        """Whether the unit may not open a socket of *family*, e.g. ``AF_INET``."""
        told = self.effective.get("RestrictAddressFamilies", "~").split()
        if told[:1] and told[0].startswith("~"):
            return family in [told[0][1:], *told[1:]]
        return bool(told) and family not in told

    def forbids_address(self, address: str) -> bool:
        """Whether packets from and to *address* are dropped at the unit's sockets."""
        return _within(address, self.effective.get("IPAddressDeny", "")) and not _within(
            address, self.effective.get("IPAddressAllow", "")
        )

    @property
    def denies_everybody(self) -> bool:
        nets = self.effective.get("IPAddressDeny", "").split()
        return "0.0.0.0/0" in nets and not self.effective.get("IPAddressAllow", "").strip()

    @property
    def private(self) -> bool:
        return self.effective.get("PrivateNetwork") == "yes"

    def forbids_calls(self) -> bool:
        """Whether a list of forbidden system calls holds one of the network's."""
        for one in self.settings:
            value = str(one["value"])
            words = {word.partition(":")[0] for word in value.removeprefix("~").split()}
            forbidding = one["name"] == "SystemCallFilter" and value.startswith("~")
            if forbidding and words & _NETWORK_CALLS:
                return True
        return False

    def where(self, *names: str) -> list[Mapping[str, Json]]:
        """The lines that set *names*; what a later empty line takes back is left out."""
        found: list[Mapping[str, Json]] = []
        for one in self.settings:
            if one["name"] in names:
                found = [*found, one] if one["value"] else [
                    kept for kept in found if kept["name"] != one["name"]
                ]  # fmt: skip
        return found


@dataclass(frozen=True, slots=True)
class Cut:
    """What failed, and which settings forbid just that."""

    names: tuple[str, ...]
    what: str
    signs: tuple[str, ...]
    confidence: float = CERTAIN


def _within(address: str, nets: str) -> bool:
    try:
        host = ipaddress.ip_address(address.partition("%")[0])
        known = [ipaddress.ip_network(net, strict=False) for net in nets.split()]
    except ValueError:
        return False
    return any(host.version == net.version and host in net for net in known)


def _sandbox(case: Case, unit: str) -> Sandbox | None:
    for piece in case.all("host.sandbox"):
        if piece.facts["unit"] == unit:
            return Sandbox(unit, piece.facts["effective"], piece.facts["settings"])
    return None


def _judge(case: Case, unit: str) -> Match | None:
    box = _sandbox(case, unit)
    if box is None:
        return None
    cut = next(_cuts(case, box, reach_of(case)), None)
    if cut is None:
        return None
    places = box.where(*cut.names)
    return Match(
        cut.confidence,
        lines(
            *(
                f"server: {one['file']} line {one['line']}: {one['name']}={one['value']}"
                for one in places
            ),
            cut.what,
            *cut.signs,
        ),
        ruled_out=_RULED_OUT,
        fix=_undo(box, cut, places),
    )


def _cuts(case: Case, box: Sandbox, reach: Reach) -> Iterator[Cut]:
    yield from _families(case, box, reach)
    yield from _own_network(case, box, reach)
    yield from _addresses(case, box, reach)
    yield from _calls(case, box)


def _families(case: Case, box: Sandbox, reach: Reach) -> Iterator[Cut]:
    barred = [family for family in ("AF_INET", "AF_INET6") if box.forbids_family(family)]
    if not barred:
        return
    what = f"so {box.unit} may open no socket of {' and '.join(barred)}: errno 97, or 13 or 1 "
    what += "where SystemCallErrorNumber says so"
    names = ("RestrictAddressFamilies", "SystemCallErrorNumber")
    unit = reach.unit(box.unit)
    if unit is not None and unit["active"] not in ("active", "reloading"):
        said = [str(line) for line in unit.get("denied") or unit.get("last_lines") or ()]
        told = [line for line in said if "(97:" in line or "Errno 97" in line]
        state = f"server: {box.unit} is {unit['active']}, result {unit.get('result')}"
        yield Cut(names, what, lines(state, *told[-1:]), CERTAIN if told else LIKELY)
    elif (found := _refused(case, box, (97, 13, 1))) is not None:
        yield Cut(names, what, found)


def _own_network(case: Case, box: Sandbox, reach: Reach) -> Iterator[Cut]:
    unit = reach.unit(box.unit)
    if not box.private or unit is None or unit["active"] != "active" or reach.listeners is None:
        return
    missing = [port for port in _meant(case, box.unit) if not reach.listening(port, public=False)]
    if not missing:
        return
    ports = listed([str(port) for port in missing])
    failed = reach.failed("ECONNREFUSED")
    yield Cut(
        ("PrivateNetwork",),
        f"so {box.unit} has a network of its own that holds nothing but loopback; what it listens "
        "on there nobody reaches",
        lines(
            str(failed) if failed is not None else None,
            f"server: {box.unit} runs, and nothing listens on port {ports} of this machine",
        ),
    )


def _addresses(case: Case, box: Sandbox, reach: Reach) -> Iterator[Cut]:
    what = f"so packets from and to these addresses are dropped at the sockets of {box.unit}, "
    what += "behind the packet filter: connections time out on both sides"
    names = ("IPAddressDeny", "IPAddressAllow")
    failed = reach.failed("ETIMEDOUT")
    if failed is not None and _owns(case, reach, box.unit, failed.port):
        sources = [*reach.unanswered(failed.port)]
        if box.denies_everybody or any(box.forbids_address(source) for source in sources):
            arrived = f"server: SYN to port {failed.port} arrived from {listed(sources)}, and no "
            arrived += "SYN-ACK left"
            yield Cut(names, what, lines(str(failed), arrived if sources else None))
            return
    hop = "nginx" if box.unit == "nginx.service" else "service"
    for piece in case.all("link.local"):
        out = "ETIMEDOUT" in str(piece.facts.get("errno")) or piece.facts.get("ended") == "timeout"
        if piece.facts.get("hop") == hop and out and box.forbids_address("127.0.0.1"):
            yield Cut(names, what, (f"server: {piece.seen}",))
            return
    asks = box.unit == "nginx.service"
    denied = box.forbids_address("127.0.0.1") or box.forbids_address("::1")
    if denied and (found := _refused(case, box, (1, 110), ours=not asks)) is not None:
        yield Cut(names, what, found)


def _calls(case: Case, box: Sandbox) -> Iterator[Cut]:
    if not box.forbids_calls():
        return
    found = _refused(case, box, (1, 13, 97, 38))
    if found is not None:
        names = ("SystemCallFilter", "SystemCallErrorNumber")
        yield Cut(names, f"so the kernel refuses {box.unit} these system calls", found)


def _refused(
    case: Case, box: Sandbox, errnos: tuple[int, ...], *, ours: bool = False
) -> tuple[str, ...] | None:
    """nginx's failing connect to the service with one of *errnos*, as lines of evidence.

    nginx's own sandbox forbids the asking, the service's (*ours*) the answer.
    """
    if box.unit != "nginx.service" and not ours:
        return None

    def fits(attempt: Attempt) -> bool:
        event = attempt.event(*_NOT_LET)
        found = _ERRNO.search(str(event["text"])) if event is not None else None
        to_unix = event is not None and "unix:" in f"{event.get('upstream')}{event['text']}"
        return found is not None and int(found[1]) in errnos and not to_unix

    seen = failing(case, fits)
    event = seen.event(*_NOT_LET) if seen is not None else None
    if seen is None or event is None:
        return None
    return (seen.shown(), f"nginx: {event['text']}")


def _meant(case: Case, unit: str) -> list[int]:
    """The ports that *unit* is configured to listen on."""
    if unit != "nginx.service":
        port = service_config(case, "listen").get("port")
        return [int(port)] if port else []
    sites = case.fact("nginx.config", "sites") or ()
    ports = [entry["port"] for site in sites for entry in site["listen"] if entry["port"]]
    return list(dict.fromkeys(ports))


def _owns(case: Case, reach: Reach, unit: str, port: int) -> bool:
    """Whether the listener on *port* is the unit's."""
    process = "nginx" if unit == "nginx.service" else "ptslink"
    here = reach.listening(port, public=False)
    return any(
        one.get("unit") == unit or one.get("process") == process for one in here
    ) or (bool(here) and port in _meant(case, unit))  # fmt: skip


def _undo(box: Sandbox, cut: Cut, places: Sequence[Mapping[str, Json]]) -> Fix:
    names = list(dict.fromkeys(str(one["name"]) for one in places)) or [cut.names[0]]
    files: dict[str, list[str]] = {}
    for one in places:
        files.setdefault(str(one["file"]), []).append(str(one["name"]))
    shipped = [file for file in files if not file.startswith(("/etc/", "/run/"))]
    commands: list[tuple[str, ...]] = [
        ("sed", "-i", "-E", rf"/^\s*({'|'.join(dict.fromkeys(own))})\s*=/d", file)
        for file, own in files.items()
        if file not in shipped
    ]
    if shipped or not files:
        # A package's file comes back with the next update: its settings are taken back beside it.
        own = f"/etc/systemd/system/{box.unit}.d/zz-network.conf"
        reset = [f"{name}={'no' if name == 'PrivateNetwork' else ''}" for name in names]
        commands.append(("mkdir", "-p", own.rpartition("/")[0]))
        commands.append(written(own, "[Service]", *reset))
    commands += [("systemctl", "daemon-reload"), ("systemctl", "restart", box.unit)]
    kept = [f"{name}=" for name in names]
    return Fix(
        f"Take {' and '.join(kept)} out of {listed(list(files)) or f'the settings of {box.unit}'}, "
        "or let it allow what the link needs (RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX; "
        "IPAddressAllow= of the sites and of localhost); then restart the unit. Ask whoever put "
        "it there.",
        "The upgrade is answered with 101, and systemctl show "
        f"{box.unit} -p {','.join(names)} no longer forbids it.",
        Auto.ASK,
        commands=tuple(commands),
    )


_AFTERMATH = (
    *RETRY_AFTERMATH, "tcp-service-down", "host-crash-loop", "px-upstream-refused",
    "px-not-running-bad-config", "px-connect-failed",
)  # fmt: skip

NGINX = Cause(
    "px-sandboxed",
    Layer.PROXY,
    "systemd's sandboxing of nginx.service cuts nginx off the network",
    Fix("Take the setting back, reload systemd, restart nginx.", "The upgrade gets 101.", Auto.ASK),
    lambda case: _judge(case, "nginx.service"),
    _AFTERMATH,
)
SERVICE = Cause(
    "host-sandboxed",
    Layer.HOST,
    "systemd's sandboxing of ptslink.service cuts the service off the network",
    Fix("Take the setting back, reload systemd, restart it.", "The upgrade gets 101.", Auto.ASK),
    lambda case: _judge(case, "ptslink.service"),
    _AFTERMATH,
)
