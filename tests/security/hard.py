"""Messages that are confirmed and hard to read back: each once kept somebody from reading."""

from __future__ import annotations

from typing import Final

CONTROLLER: Final = "00112233445566778899AABB"


def message(*packets: bytes) -> bytes:
    """A message of these packets."""
    return b'{"Protocol":"jsonPTS","PtsId":"%b","Packets":[%b]}' % (
        CONTROLLER.encode(),
        b",".join(packets),
    )


def sale(number: int, members: bytes = b"", time: bytes = b"2026-03-01T10:01:00") -> bytes:
    """A packet that tells of a sale, with further members such as ``,"Tag":"x"``."""
    return (
        b'{"Id":1,"Type":"UploadPumpTransaction","Data":{"DateTime":"%b","Transaction":%d%b}}'
        % (
            time,
            number,
            members,
        )
    )


def status(offset: int) -> bytes:
    """A packet that tells the controller's offset from UTC in minutes."""
    return b'{"Id":2,"Type":"UploadStatus","Data":{"UTCOffset":%d}}' % offset


#: What came -> the message. In the order in which one controller sends them.
HARD: Final[dict[str, bytes]] = {
    "east of Greenwich": message(status(120)),
    "a year that does not begin in UTC": message(sale(1, time=b"0001-01-01T00:00:00")),
    "west of Greenwich": message(status(-720)),
    "a year that does not end in UTC": message(sale(2, time=b"9999-12-31T23:59:59")),
    "half a character": message(sale(3, rb',"Tag":"\ud800"')),
    "half a character as a name": message(sale(4, rb',"\udfff":1')),
    "lines within Data": message(sale(5, b',\r\n"Tag":\n"x"')),
    "a return in a text": message(sale(6, rb',"Tag":"a\rb","FuelGradeName":"\u2028\u0000"')),
    "ends of lines that are none in JSON": message(
        sale(14, ',\t"Tag":"\x7f\x85\x9b2J\u2028"'.encode())
    ),
    "Data as deep as it may be": message(sale(7, b',"Tag":' + b"[" * 500 + b"]" * 500)),
    "a formula": message(sale(8, b',"Tag":"=1+1"')),
    "a national code page": message(sale(9, b',"FuelGradeName":"\xc0\xc8-95"')),
    "a number without an end": message(sale(10, b',"Volume":1.'), sale(11, b',"Volume":nan')),
    "a Type of line ends": message(rb'{"Id":1,"Type":"Upload\n\u001b[2J","Data":[1]}'),
    "a packet that is nothing": message(b'{"Data":null}', b"{}", sale(12)),
    "no JSON": b"\x00\xff\x1b]0;x\x07",
    "a sale": message(sale(13, b',"Amount":1')),
    "the same sale with another amount": message(sale(13, b',"Amount":2')),
}
