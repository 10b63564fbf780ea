"""Reading the head of an HTTP request while keeping every byte of it.

The raw bytes stay available because the controller signs them (PTS-2 protocol 1.2) and because a
refusal must show what was really sent. Limits and grammar follow RFC 9112; what this hardware is
known to get wrong is reported in `Head.flaws` for the judge to weigh, not refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

#: Flaw: at least one line ended in LF alone (RFC 9112 section 2.2 lets a server accept it).
BARE_LF: Final = "bare-lf"
#: Flaw: empty lines came before the request line (RFC 9112 section 2.2: ignore them).
LEADING_EMPTY_LINES: Final = "leading-empty-lines"
#: Flaw: a field name holds blanks (RFC 9112 section 5.1 forbids them); the line is left out.
BLANK_IN_NAME: Final = "blank-in-header-name"
#: Flaw: bytes outside ASCII in a field value (RFC 9110 section 5.5: opaque, obsolete).
NON_ASCII_VALUE: Final = "non-ascii-value"

#: Fault: what a proxy puts before a connection, in its versions 1 and 2 (the PROXY protocol's
#: specification, sections 2.1 and 2.2).
PROXY_PROTOCOL: Final = "proxy-protocol"
_PROXY_1: Final = b"PROXY "
_PROXY_2: Final = b"\r\n\r\n\x00\r\nQUIT\n"

MAX_FIELDS: Final = 100
MAX_REQUEST_LINE: Final = 8192

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VERSION = re.compile(r"HTTP/(\d)\.(\d)")
_LEADING = re.compile(rb"(?:\r?\n)+")
#: What an HTTP method may begin with; anything else in the first byte is no HTTP request.
_FIRST_BYTE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z\r\n]")

#: A line whose name holds blanks but does not begin with one (that would be a folded line).
_BLANK_NAME = re.compile(rb"\n([^\s:][^\r\n:]*[ \t][^\r\n:]*):")
#: Fields that say where a request ends. One that is left out would let two readers of the same
#: bytes see different requests (RFC 9112 section 11.2).
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})

#: Field names whose values never reach a log (PTS-2 protocol, quirk 16).
SECRET_FIELDS: Final = frozenset(
    {"authorization", "proxy-authorization", "x-data-signature", "cookie"}
)


#: The line of a key as RFC 6455 section 4.1 asks for it: 16 bytes in base64.
_KEY_LINE = re.compile(rb"\r\nSec-WebSocket-Key: ([A-Za-z0-9+/]{21}[AQgw]==)\r\n")
_SOME_KEY: Final = "AAAAAAAAAAAAAAAAAAAAAA=="
#: Heads remembered, some 4 KiB each, and the most bytes of one: as many as come back at once from a
#: short break, and no more than a few megabytes, whoever fills them.
_KIN_AT_MOST: Final = 512
_KIN_BYTES: Final = 1024


class HeadError(Exception):
    """A head that cannot be read as HTTP/1.x.

    Attributes:
        status: the HTTP status that answers it.
        code: short stable name of the fault, such as ``tls-on-plain-port``.
        reason: one sentence for a person.
    """

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Head:
    """One request head, as sent.

    Attributes:
        raw: every byte from the method to the empty line, leading empty lines left out.
        method, target, version: the three parts of the request line; version as ``1.1``.
        fields: (name, value) in the order and letter case of the wire, values stripped.
        flaws: names of tolerated deviations, in the order they were met.
        kin: what is known of heads that are the same but for their key, where there may be some.
    """

    raw: bytes
    method: str
    target: str
    version: str
    fields: tuple[tuple[str, str], ...]
    flaws: tuple[str, ...] = ()
    kin: Kin | None = field(default=None, init=False, repr=False, compare=False)
    _values: dict[str, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A judge asks for some thirty fields by name; their names are lowered once.
        values: dict[str, list[str]] = {}
        for name, value in self.fields:
            values.setdefault(name.lower(), []).append(value)
        object.__setattr__(self, "_values", values)

    def get(self, name: str) -> str | None:
        """The first value of the field (lower-case name), or None."""
        values = self._values.get(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """Every value of the field (lower-case name), in order."""
        return list(self._values.get(name, ()))

    def tokens(self, name: str) -> list[str]:
        """The field's comma separated list as lower-case tokens, over all its lines."""
        return [
            token
            for value in self._values.get(name, ())
            for part in value.split(",")
            if (token := part.strip().lower())
        ]

    def redacted(self) -> list[tuple[str, str]]:
        """The fields fit for a log: credentials and signatures replaced, and of a line that was
        left out the name alone."""
        return [
            (name, "<redacted>" if name.lower() in SECRET_FIELDS else value)
            for name, value in self.fields
        ] + [(name, "<left out>") for name in self.blank_names()]

    def blank_names(self) -> list[str]:
        """The names of the lines that were left out for the blanks in them."""
        if BLANK_IN_NAME not in self.flaws:
            return []
        return [name.decode("latin-1") for name in _BLANK_NAME.findall(self.raw)]


@dataclass(slots=True)
class Kin:
    """Heads that differ in nothing but a whole Sec-WebSocket-Key.

    A controller that comes again, as some do every second, sends the head it sent before with
    another key: it is read once, and judged once.

    Attributes:
        head: theirs, with some key.
        at: which of its fields is the key.
        judged: the judge's own note: the rules it judged by, and its verdict.
    """

    head: Head
    at: int
    judged: tuple[object, object] | None = None

    def member(self, raw: bytes, key: str) -> Head:
        """The head of theirs that has the key."""
        like = self.head
        name, _ = like.fields[self.at]
        # As Head(...) would make it, but for reading its fields again.
        made = object.__new__(Head)
        put = object.__setattr__
        put(made, "raw", raw)
        put(made, "method", like.method)
        put(made, "target", like.target)
        put(made, "version", like.version)
        put(made, "fields", (*like.fields[: self.at], (name, key), *like.fields[self.at + 1 :]))
        put(made, "flaws", like.flaws)
        put(made, "kin", self)
        put(made, "_values", {**like._values, name.lower(): [key]})
        return made


def looks_wrong(start: bytes | bytearray | memoryview) -> HeadError | None:
    """Judge the first bytes of a connection before a whole head is there.

    A TLS ClientHello or binary noise would otherwise sit until the head timeout, and the record
    would only say "slow". Returns None while the bytes may still become a request.
    """
    first = bytes(start[:24])
    proxy = _proxy_fault(first)
    if proxy is not None:
        return proxy
    if first[:2] == b"\x16\x03":
        return HeadError(
            400, "tls-on-plain-port", "A TLS handshake arrived on a port that speaks plain HTTP."
        )
    if first and not _FIRST_BYTE.match(first):
        return HeadError(
            400, "not-http", "The first byte cannot begin an HTTP request (RFC 9112 section 3)."
        )
    return None


def _proxy_fault(start: bytes) -> HeadError | None:
    version = 1 if start.startswith(_PROXY_1) else 2 if start.startswith(_PROXY_2) else 0
    if not version:
        return None
    return HeadError(
        400,
        PROXY_PROTOCOL,
        f"The connection begins with a PROXY protocol line of version {version}, which is not"
        " spoken here; switch it off in the proxy or load balancer (HAProxy: send-proxy; nginx:"
        " proxy_protocol), which may send X-Real-IP instead.",
    )


def head_end(buffer: bytes | bytearray, start: int = 0) -> int:
    """Where the head ends: the index just after its empty line, or -1 while it is not there.

    Args:
        buffer: bytes received so far.
        start: index up to which an earlier call found nothing; looked at again by a few bytes, as
            the empty line may straddle two segments.
    """
    at = max(start - 3, 0)
    lead = _LEADING.match(buffer)
    if lead is not None:
        at = max(at, lead.end())
    full = buffer.find(b"\n\r\n", at)
    # Lines that end in LF alone are rare: where the first full end is known, look no further.
    bare = buffer.find(b"\n\n", at, full + 1 if full >= 0 else len(buffer))
    return bare + 2 if bare >= 0 else full + 3 if full >= 0 else -1


def parse_head(raw: bytes) -> Head:
    """Parse a whole head.

    Args:
        raw: bytes up to and including the empty line.

    Raises:
        HeadError: 400 for broken grammar, 414 and 431 for excess, 505 for another HTTP version.
    """
    key = _KEY_LINE.search(raw) if len(raw) <= _KIN_BYTES else None
    if key is not None:
        kin = _kin(raw[: key.start(1)], raw[key.end(1) :])
        if kin is not None:
            return kin.member(raw, key[1].decode())
    return _parse(raw)


@lru_cache(maxsize=_KIN_AT_MOST)
def _kin(before: bytes, after: bytes) -> Kin | None:
    """Those whose heads are these bytes with a key between them; None where it is not their only
    key, or where the head begins with what is dropped."""
    head = _parse(before + _SOME_KEY.encode() + after)
    keys = [at for at, (name, _) in enumerate(head.fields) if name.lower() == "sec-websocket-key"]
    if len(keys) != 1 or LEADING_EMPTY_LINES in head.flaws:
        return None
    return Kin(head, keys[0])


def _parse(raw: bytes) -> Head:
    flaws: list[str] = []
    proxy = _proxy_fault(raw)
    if proxy is not None:
        raise proxy
    lead = _LEADING.match(raw)
    if lead is not None:
        flaws.append(LEADING_EMPTY_LINES)
        raw = raw[lead.end() :]
    text = raw.decode("latin-1")
    lines = text.split("\r\n")
    if len(lines) <= text.count("\n"):
        flaws.append(BARE_LF)
        lines = [line.removesuffix("\r") for line in text.split("\n")]
    # The split leaves two empty strings after the last field: the empty line and what follows it.
    lines = lines[:-2] if lines[-1] == "" else lines
    method, target, version = _request_line(lines[0])
    fields = _fields(lines[1:])
    if len(fields) < len(lines) - 1:
        flaws.append(BLANK_IN_NAME)
    if not text.isascii():
        flaws.append(NON_ASCII_VALUE)
    return Head(raw, method, target, version, fields, tuple(flaws))


def _request_line(line: str) -> tuple[str, str, str]:
    if len(line) > MAX_REQUEST_LINE:
        raise HeadError(
            414,
            "request-line-too-long",
            f"The request line has {len(line)} bytes; at most {MAX_REQUEST_LINE} are accepted.",
        )
    parts = line.split(" ")
    if len(parts) != 3 or not all(parts):
        raise HeadError(
            400,
            "malformed-request-line",
            "The request line is not METHOD, one space, TARGET, one space, HTTP/1.1.",
        )
    method, target, version = parts
    if not _TOKEN.fullmatch(method):
        raise HeadError(400, "malformed-method", "The method is not an HTTP token.")
    matched = _VERSION.fullmatch(version)
    if matched is None:
        raise HeadError(
            400, "malformed-version", "The request line does not end in HTTP/1.1 or HTTP/1.0."
        )
    if matched[1] != "1":
        raise HeadError(505, "http-version", f"{version} is not spoken here; use HTTP/1.1.")
    if not target.isascii() or not target.isprintable():
        raise HeadError(
            400, "malformed-target", "The request target holds bytes that a URI may not hold."
        )
    return method, target, f"{matched[1]}.{matched[2]}"


@lru_cache(maxsize=256)  # every controller sends the same few names
def _is_token(name: str) -> bool:
    return _TOKEN.fullmatch(name) is not None


def _fields(lines: list[str]) -> tuple[tuple[str, str], ...]:
    if len(lines) > MAX_FIELDS:
        raise HeadError(
            431, "too-many-fields", f"{len(lines)} header lines; at most {MAX_FIELDS} are accepted."
        )
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        if line.startswith((" ", "\t")):
            raise HeadError(
                400, "folded-field", "A header line begins with white space (RFC 9112 section 5.2)."
            )
        if not colon:
            raise HeadError(400, "field-without-colon", "A header line has no colon.")
        if not _is_token(name):
            bare = re.sub("[ \t]", "", name)
            if _is_token(bare) and bare.lower() not in _FRAMING:
                continue  # the caller sees that it is missing
            raise HeadError(
                400,
                "malformed-field-name",
                f"The header name {name[:40]!r} is empty or holds white space or a forbidden "
                "character.",
            )
        value = value.strip(" \t")
        if "\0" in value or "\r" in value:
            raise HeadError(
                400, "malformed-field-value", f"The value of {name} holds a NUL or a lone CR."
            )
        fields.append((name, value))
    return tuple(fields)
