"""What a certificate says, read from its DER bytes (RFC 5280 4.1) with the standard library.

``ssl`` shows a certificate's fields only when it was verified; a probe must show those of the
certificate that was not.
"""

from __future__ import annotations

import calendar
import hashlib
import ipaddress
import time
from collections.abc import Iterable
from typing import Any

_NAME_PARTS = {"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
               "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.5": "serialNumber"}  # fmt: skip
_KEYS = {"1.2.840.113549.1.1.1": "rsa", "1.2.840.10045.2.1": "ecdsa",
         "1.3.101.112": "ed25519", "1.3.101.113": "ed448"}  # fmt: skip
_CURVES = {"1.2.840.10045.3.1.7": 256, "1.3.132.0.34": 384, "1.3.132.0.35": 521}
_SUBJECT_ALT_NAME, _AUTHORITY_KEY = "2.5.29.17", "2.5.29.35"

_SEQUENCE, _INTEGER, _BIT_STRING, _OID, _UTC_TIME = 0x30, 0x02, 0x03, 0x06, 0x17
_VERSION, _EXTENSIONS, _DNS, _IP, _KEY_IDENTIFIER = 0xA0, 0xA3, 0x82, 0x87, 0x80
#: What a chain is told apart by.
_OF_A_CHAIN = ("subject", "issuer", "not_before", "not_after", "authority_key")


class NotACertificateError(ValueError):
    """The bytes cannot be read as an X.509 certificate."""


def _items(data: bytes) -> list[tuple[int, bytes]]:
    """The elements in *data*: tag and content (X.690 8.1, definite lengths)."""
    found, at = [], 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size & 0x80:
            width = size & 0x7F
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        if at + size > len(data):
            raise IndexError("an element longer than what holds it")
        found.append((tag, data[at : at + size]))
        at += size
    return found


def _oid(content: bytes) -> str:
    parts = [min(content[0] // 40, 2)]
    parts.append(content[0] - 40 * parts[0])
    number = 0
    for byte in content[1:]:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            parts.append(number)
            number = 0
    return ".".join(map(str, parts))


def _name(content: bytes) -> str:
    """A distinguished name as ``C = XX, O = Some, CN = host``."""
    shown = []
    for _, group in _items(content):
        for _, pair in _items(group):
            (_, kind), (tag, value) = _items(pair)
            text = value.decode("utf-16-be" if tag == 0x1E else "utf-8", "replace")
            shown.append(f"{_NAME_PARTS.get(_oid(kind), _oid(kind))} = {text}")
    return ", ".join(shown)


def _moment(tag: int, content: bytes) -> float:
    """Epoch seconds of a UTCTime or GeneralizedTime."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))


def _key(content: bytes) -> tuple[str, int | None]:
    """Kind and size in bits of a SubjectPublicKeyInfo."""
    (_, algorithm), (_, bits) = _items(content)
    parts = _items(algorithm)
    kind = _KEYS.get(_oid(parts[0][1]), _oid(parts[0][1]))
    if kind == "rsa":
        [(_, sequence)] = _items(bits[1:])
        modulus = _items(sequence)[0][1]
        return kind, int.from_bytes(modulus, "big").bit_length()
    if kind == "ecdsa" and len(parts) > 1 and parts[1][0] == _OID:
        return kind, _CURVES.get(_oid(parts[1][1]))
    return kind, None


def _extension(content: bytes, wanted: str) -> list[tuple[int, bytes]]:
    """The elements of one extension, [] where the certificate has none."""
    if not content:
        return []
    [(_, extensions)] = _items(content)
    for _, extension in _items(extensions):
        parts = _items(extension)
        if _oid(parts[0][1]) == wanted:
            [(_, inner)] = _items(parts[-1][1])
            return _items(inner)
    return []


def _sans(extensions: bytes) -> list[str]:
    found = []
    for tag, value in _extension(extensions, _SUBJECT_ALT_NAME):
        if tag == _DNS:
            found.append("DNS:" + value.decode("ascii", "replace"))
        elif tag == _IP and len(value) in (4, 16):
            found.append(f"IP Address:{ipaddress.ip_address(value)}")
    return found


def _authority_key(extensions: bytes) -> str | None:
    parts = dict(_extension(extensions, _AUTHORITY_KEY))
    return parts[_KEY_IDENTIFIER].hex().upper() if _KEY_IDENTIFIER in parts else None


def read_chain(ders: Iterable[bytes]) -> list[dict[str, Any]]:
    """Of each certificate ``subject``, ``issuer``, ``not_before``, ``not_after`` and
    ``authority_key``, as :func:`read_certificate` has them.

    Raises:
        NotACertificateError: one of *ders* is none.
    """
    return [{key: facts[key] for key in _OF_A_CHAIN} for facts in map(read_certificate, ders)]


def read_certificate(der: bytes) -> dict[str, Any]:
    """The facts of one certificate, plain JSON data.

    ``subject``, ``issuer``, ``serial`` (hex), ``not_before`` and ``not_after`` (epoch seconds),
    ``sans`` [``DNS:x``, ``IP Address:y``], ``key`` (rsa, ecdsa, ...), ``key_bits``,
    ``fingerprint`` (SHA-256), ``self_signed``: subject and issuer are the same,
    ``authority_key``: the issuer's key (RFC 5280 4.2.1.1, hex) or None.

    Raises:
        NotACertificateError: *der* is none.
    """
    try:
        [(_, certificate)] = _items(der)
        fields = _items(_items(certificate)[0][1])
        if fields[0][0] == _VERSION:
            fields = fields[1:]
        (_, serial), _, (_, issuer), (_, validity), (_, subject), (_, key), *more = fields
        (start_tag, start), (end_tag, end) = _items(validity)
        kind, bits = _key(key)
        extensions = next((content for tag, content in more if tag == _EXTENSIONS), b"")
        digest = hashlib.sha256(der).hexdigest().upper()
        return {
            "subject": _name(subject),
            "issuer": _name(issuer),
            "serial": serial.hex().upper(),
            "not_before": _moment(start_tag, start),
            "not_after": _moment(end_tag, end),
            "sans": _sans(extensions),
            "authority_key": _authority_key(extensions),
            "key": kind,
            "key_bits": bits,
            "fingerprint": ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)),
            "self_signed": subject == issuer,
        }
    except (IndexError, ValueError) as error:
        raise NotACertificateError(f"not a certificate: {error}") from error
