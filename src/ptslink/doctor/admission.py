"""Which evidence is let in: what a place may speak of, and the types of what fixes are made of.
Pure.

Evidence is text that another machine sent. Whoever joins it says where it came from; what it says
of its own place is not believed. A place away from the server cannot speak of the server's
firewall, bans, files or units. Where a value may become an argument of a command, a file name or a
variable, its type is checked here, once, for all causes. What does not fit is put aside as a piece
``evidence.refused`` that says why, and nothing is inferred from it.

Text that nothing is made of (words of a log, a header, a reason) is let in as it is: it is escaped
where it is shown.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ptslink.doctor.collect.confinement import SETTINGS
from ptslink.doctor.evidence import Case, Evidence, Json, Status

REFUSED = "evidence.refused"
ELSEWHERE = ("site", "control")
VANTAGES = (*ELSEWHERE, "server")

#: What is seen of a link away from the server: the room of a probe, or the probe.
_SEEN_ELSEWHERE = frozenset(
    {
        "capture", "dns", "http", "place", "route", "survey", "tcp", "ws",
        "tls.certificate", "tls.handshake", "tls.offer", REFUSED,
    }
)  # fmt: skip

_Check = Callable[[Json], None]


# --- Types -------------------------------------------------------------------------------------

_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.(?!-)[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
_URI_PATH = re.compile(r"[A-Za-z0-9._~/-]{0,255}", re.ASCII)
_ZONE = re.compile(r"%[A-Za-z0-9_.-]{1,15}", re.ASCII)
#: systemd.unit(5), without those that begin as an option does.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]{0,240}\.[a-z]{4,9}", re.ASCII)
#: Where systemd reads units and drop-ins from (systemd.unit(5), "Unit File Load Path").
_UNIT_FILE = re.compile(
    r"/(?:etc|run|lib|usr/lib|usr/local/lib)/systemd(?:/(?!\.)[A-Za-z0-9:_.\\@-]+){2,6}", re.ASCII
)
_JAIL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)


def is_address(text: str) -> bool:
    """Whether it is an IP address, with or without a zone."""
    address, percent, _ = text.partition("%")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return not percent or _ZONE.fullmatch(text, len(address)) is not None


def is_host(text: str) -> bool:
    """Whether it is a host name or an IP address, and can be no option."""
    return is_address(text) or (len(text) <= 253 and _HOST.fullmatch(text) is not None)


def _is_name(text: str) -> bool:
    """Whether a resolver can be asked for it: international names are letters once encoded."""
    try:
        return is_host(text) or is_host(text.encode("idna").decode("ascii"))
    except UnicodeError:
        return False


def is_uri_path(text: str) -> bool:
    """Whether it is a path that needs no escape anywhere; the leading slash may be missing."""
    return _URI_PATH.fullmatch(text) is not None


def is_port(value: Json) -> bool:
    """Whether it is the number of a TCP port."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def is_network(text: str) -> bool:
    """Whether it is an IP address or a network of them."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _short(value: Json) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _text(what: str, fits: Callable[[str], object]) -> _Check:
    def check(value: Json) -> None:
        if not isinstance(value, str) or not fits(value):
            raise ValueError(f"{_short(value)} is no {what}")

    return check


def _number(what: str, fits: Callable[[Json], object]) -> _Check:
    def check(value: Json) -> None:
        if not fits(value):
            raise ValueError(f"{_short(value)} is no {what}")

    return check


def _each(inner: _Check) -> _Check:
    def check(value: Json) -> None:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{_short(value)} is no list")
        for one in value:
            inner(one)

    return check


def _table(key: _Check, inner: _Check | None = None) -> _Check:
    def check(value: Json) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{_short(value)} is no table")
        for name, one in value.items():
            key(name)
            if inner is not None:
                inner(one)

    return check


def _record(**fields: _Check) -> _Check:
    """A table of which *fields* have a type; what is missing or null was not seen."""

    def check(value: Json) -> None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{_short(value)} is no table")
        for name, inner in fields.items():
            if value.get(name) is not None:
                try:
                    inner(value[name])
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None

    return check


_address = _text("IP address", is_address)
_network = _text("IP address or network", is_network)
_host = _text("host name", _is_name)
_unit = _text("name of a systemd unit", _UNIT.fullmatch)
_file = _text("file of a systemd unit", _UNIT_FILE.fullmatch)
_directory = _text("directory", re.compile(r"/[A-Za-z0-9._/@+-]{0,255}", re.ASCII).fullmatch)
_jail = _text("name of a jail", _JAIL.fullmatch)
_setting = _text("setting of the sandbox", SETTINGS.__contains__)
_manager = _text(
    "name of a firewall", ("ufw", "firewalld", "nftables", "iptables", "none").__contains__
)
_chain = _text("name of a chain", re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}").fullmatch)
_errno = _text("name of an error", re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII).fullmatch)
_words = _text("text", lambda _: True)
_port = _number("port", is_port)
_whole = _number("number", lambda value: type(value) is int and 0 <= value < 1 << 63)
_flag = _number("yes or no", lambda value: isinstance(value, bool))

_ends = _record(address=_address, family=_words, port=_port, errno=_errno, source=_address)
_answer = _record(
    port=_port,
    path=_words,
    status=_whole,
    errno=_errno,
    controller_id=_words,
    scheme=_words,
    address=_address,
)
_offer = _record(port=_port)
_of_unit = _record(unit=_unit, pid=_whole)

_filter = _record(
    port=_port, source=_address, manager=_manager, verdict=_words, rule=_words, answer=_words,
    maybe=_each(_words), dnat=_words, redirect=_port, sent_by=_words, gone=_manager, way=_words,
    at=_record(family=_chain, table=_chain, chain=_chain, dialect=_chain),
)  # fmt: skip

#: What values that fixes are made of, or chosen by, look like, by probe; others have no type.
_SHAPES: Mapping[str, _Check] = {
    "dns.resolve": _record(host=_host, is_address=_flag, addresses=_each(_address), errno=_errno),
    "dns.server": _record(server=_address, rcode=_errno),
    "route.to": _record(address=_address, source=_address, gateway=_address),
    "tcp.connect": _ends,
    "tcp.port": _ends,
    "tcp.nobody": _ends,
    "tcp.banner": _record(address=_address, port=_port, text=_words),
    "tcp.again": _record(port=_port, attempts=_each(_record(errno=_errno))),
    "tcp.packets": _record(address=_address),
    "http.upgrade": _answer,
    "http.get": _answer,
    "link.local": _answer,
    "tls.handshake": _offer,
    "tls.certificate": _offer,
    "tls.offer": _offer,
    "tls.served": _offer,
    "net.addresses": _record(addresses=_each(_record(address=_address, prefix=_whole))),
    "net.bans": _record(jails=_table(_jail, _each(_network)), rules=_each(_network)),
    "net.firewall": _filter,
    "net.filter": _filter,
    "net.listeners": _record(
        listeners=_each(
            _record(address=_address, port=_port, unit=_unit, pid=_whole, process=_words)
        ),
        ports=_each(_port),
    ),
    "net.route_to": _record(peer=_address),
    "net.watch": _record(
        ports=_each(_port), syn_in=_table(_address), syn_ack_out=_table(_address),
        rst_out=_table(_address),
    ),
    "host.descriptors": _of_unit,
    "host.sandbox": _record(unit=_unit, settings=_each(_record(file=_file, name=_setting))),
    "host.unit": _record(
        unit=_unit, pid=_whole, active=_words, load=_words,
        closed=_each(_record(directory=_directory)),
    ),
}  # fmt: skip


# --- Reading -----------------------------------------------------------------------------------


def read(
    text: str,
    source: str,
    *,
    vantage: str | None = None,
    places: Sequence[str] = VANTAGES,
    own: bool = False,
) -> list[Evidence]:
    """The evidence in *text*, a JSON list; what is no evidence in it as ``evidence.refused``.

    Args:
        source: where it came from, for people: a host, a file.
        vantage: the place it came from; None believes each piece's own word, which is one of
            *places*.
        own: it was fetched from the server by whoever judges.

    Raises:
        ValueError: *text* is not a JSON list.
    """
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(data, list):
        raise ValueError("not a list")
    return [_piece(item, source, vantage, places, own) for item in data]


def _piece(
    item: Json, source: str, vantage: str | None, places: Sequence[str], own: bool
) -> Evidence:
    try:
        piece = Evidence.from_json(item)
        if vantage is None and piece.vantage not in places:
            raise ValueError(f"of {_short(piece.vantage)}; taken is that of {' or '.join(places)}")
        return replace(piece, vantage=vantage or piece.vantage, source=source, own=own)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        what = Evidence("", Status.UNKNOWN, "", vantage=vantage or "site", source=source, own=own)
        return _refused(what, f"not what the doctor writes ({type(error).__name__}: {error})")


def admitted(case: Case) -> Case:
    """The case without what its places may not speak of or what has not the type it should have.

    In its stead is one piece ``evidence.refused`` (``source``, ``why``) for each reason.
    """
    kept: dict[object, Evidence] = {}
    for number, piece in enumerate(case.evidence):
        why = _wrong(piece)
        if why:
            piece = _refused(piece, f"{piece.probe}: {why}")
        kept.setdefault(piece.seen if piece.probe == REFUSED else number, piece)
    return replace(case, evidence=tuple(kept.values()))


def _wrong(piece: Evidence) -> str:
    """Why *piece* is not let in, or empty."""
    room = piece.probe.partition(".")[0]
    if piece.vantage != "server" and not {room, piece.probe} & _SEEN_ELSEWHERE:
        return f"only the server itself can tell that, not a {piece.vantage}"
    shape = _SHAPES.get(piece.probe)
    try:
        if shape is not None:
            shape(piece.facts)
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""


def _refused(piece: Evidence, why: str) -> Evidence:
    who, why = piece.source or piece.vantage, why[:300]
    seen = f"evidence from {who} was refused: {why}"
    return replace(
        piece, probe=REFUSED, status=Status.UNKNOWN, seen=seen, facts={"source": who, "why": why}
    )


# --- The server's own word ---------------------------------------------------------------------


def _is_own(piece: Evidence) -> bool:
    return piece.own and piece.vantage == "server"


def reduced(case: Case) -> Case | None:
    """The case as the server itself could have told it; None where nobody else has spoken.

    Of all others the probes and how they went are left, and of their facts what is a choice (yes,
    no, the name of an error) or a value that the server's own evidence holds as well.
    """
    own = [piece for piece in case.evidence if _is_own(piece)]
    if len(own) == len(case.evidence):
        return None
    known: set[str] = set()
    for piece in own:
        _values(piece.facts, known)
    return replace(
        case,
        evidence=tuple(
            piece if _is_own(piece) else replace(piece, facts=_less(piece.facts, known))
            for piece in case.evidence
        ),
    )


def _values(value: Json, into: set[str]) -> None:
    if isinstance(value, Mapping):
        into.update(map(str, value))
        value = value.values()
    if isinstance(value, str | int | float):
        into.add(str(value))
    elif value is not None:
        for one in value:
            _values(one, into)


_CHOICE = re.compile(r"E[A-Z]{2,14}|ws|wss|ipv4|ipv6", re.ASCII)
_NAME = re.compile(r"[A-Za-z_-]{1,40}", re.ASCII)
_NOTHING = object()


def _less(value: Json, known: set[str]) -> Json:
    if isinstance(value, Mapping):
        named = {key: one for key, one in value.items() if key in known or _NAME.fullmatch(key)}
        pairs = ((key, _less(one, known)) for key, one in named.items())
        return {key: one for key, one in pairs if one is not _NOTHING}
    if isinstance(value, list | tuple):
        return [one for one in (_less(one, known) for one in value) if one is not _NOTHING]
    if value is None or isinstance(value, bool):
        return value
    text = str(value)
    return value if text in known or _CHOICE.fullmatch(text) else _NOTHING
