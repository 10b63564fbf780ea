"""Reading the head of an HTTP response out of bytes, tolerantly: a probe must show bad ones too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: A response head longer than this is not waited for.
MAX_HEAD_BYTES = 65536


class NotHttpError(ValueError):
    """What came is not an HTTP response head; the text shows how it began, ``data`` is it."""

    def __init__(self, text: str, data: bytes) -> None:
        super().__init__(text)
        self.data = data


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status line and headers, with the letter case and order they came in."""

    version: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    #: What had already arrived behind the empty line.
    rest: bytes = b""

    @property
    def line(self) -> str:
        return f"HTTP {self.status} {self.reason}".rstrip()

    def values(self, name: str) -> Iterator[str]:
        return (value for n, value in self.headers if n.lower() == name.lower())

    def get(self, name: str) -> str | None:
        """The first value of header *name*, any letter case."""
        return next(self.values(name), None)

    def has_token(self, name: str, token: str) -> bool:
        """Whether the comma list in header *name* holds *token* (RFC 9110 5.6.1)."""
        tokens = (part.strip().lower() for value in self.values(name) for part in value.split(","))
        return token.lower() in tokens


def shown(data: bytes, limit: int = 60) -> str:
    """The first bytes of *data* as printable ASCII, anything else escaped."""
    text = "".join(
        chr(b) if 0x20 <= b < 0x7F and b != 0x5C else f"\\x{b:02x}" for b in data[:limit]
    )
    text = text.replace("\\x0d", "\\r").replace("\\x0a", "\\n")
    return text + ("..." if len(data) > limit else "")


def could_be_http(data: bytes) -> bool:
    """Whether *data* may still become an HTTP/1 response."""
    return data[:5] == b"HTTP/"[: len(data)]


def read_response_head(data: bytes) -> ResponseHead | None:
    """The head in *data*, or ``None`` while its end has not come.

    Bare LF line ends are read as well (RFC 9112 2.2), since the point is to show what was sent.

    Raises:
        NotHttpError: *data* is no HTTP response, or its head does not end within 64 KiB.
    """
    if not could_be_http(data):
        raise NotHttpError(f"not an HTTP response: {shown(data)}", data)
    crlf, lf = data.find(b"\r\n\r\n"), data.find(b"\n\n")
    if crlf < 0 and lf < 0:
        if len(data) > MAX_HEAD_BYTES:
            raise NotHttpError(f"a response head without end: {shown(data)}", data)
        return None
    if lf < 0 or 0 <= crlf < lf:
        head, rest = data[:crlf], data[crlf + 4 :]
    else:
        head, rest = data[:lf], data[lf + 2 :]
    lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    version, _, tail = lines[0].partition(" ")
    code, _, reason = tail.strip().partition(" ")
    if not (code.isascii() and code.isdigit() and len(code) == 3):
        raise NotHttpError(f"an HTTP status line without a status: {shown(data)}", data)
    headers = []
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers.append((name.strip(), value.strip()))
    return ResponseHead(version, int(code), reason.strip(), tuple(headers), rest)


def dechunk(data: bytes) -> bytes:
    """The body in a chunked transfer, as far as it has come (RFC 9112 7.1); raw if it is not."""
    body, rest = b"", data
    while True:
        size_line, found, rest = rest.partition(b"\r\n")
        try:
            size = int(size_line.partition(b";")[0].strip() or b"x", 16)
        except ValueError:
            return body or data
        if size == 0 or not found:
            return body
        body, rest = body + rest[:size], rest[size:].removeprefix(b"\r\n")
        if not rest:
            return body
