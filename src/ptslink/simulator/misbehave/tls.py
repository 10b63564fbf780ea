"""Deviations in how a controller speaks TLS (PTS-2 protocol 1.4)."""

from __future__ import annotations

import ssl
import warnings
from datetime import datetime

from ptslink.simulator.manner import Manner
from ptslink.simulator.misbehave.deviation import Deviation, count

CERTIFICATE_EXPIRED, RECORD_OVERFLOW = 45, 22


def _old(newest: ssl.TLSVersion) -> object:
    def change(context: ssl.SSLContext) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old is the point here
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = newest
        context.set_ciphers("ALL:@SECLEVEL=0")

    return change


def _ciphers(names: str) -> object:
    def change(context: ssl.SSLContext) -> None:
        context.set_ciphers(names)

    return change


def _distrust(context: ssl.SSLContext) -> None:
    """Verify against a trust store that holds nothing."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED


def _wrong_clock(manner: Manner, value: str) -> Manner:
    return manner.but(
        tls_alert=CERTIFICATE_EXPIRED, clock=datetime.fromisoformat(value).replace(tzinfo=None)
    )


def _small(manner: Manner, value: str) -> Manner:
    size, comma, word = value.partition(",")
    if comma and word != "silent":
        raise ValueError(f"{word!r} is not 'silent'")
    return manner.but(tls_record_bytes=count(size, 1, 16384), tls_record_alert=not comma)


DEVIATIONS = (
    Deviation(
        "tls-client-version-too-old",
        "offers TLS 1.0 and 1.1 only",
        lambda manner, _: manner.but(tls=_old(ssl.TLSVersion.TLSv1_1)),
    ),
    Deviation(
        "tls-seclevel-mismatch",
        "offers TLS 1.0 only, which OpenSSL 3 refuses at its usual security level",
        lambda manner, _: manner.but(tls=_old(ssl.TLSVersion.TLSv1)),
    ),
    Deviation(
        "tls-ecdsa-cert-rsa-client",
        "accepts RSA certificates only",
        lambda manner, _: manner.but(tls=_ciphers("aRSA")),
    ),
    Deviation(
        "tls-no-shared-cipher",
        "offers AES-CBC with RSA key exchange only",
        lambda manner, _: manner.but(tls=_ciphers("AES128-SHA:AES256-SHA")),
    ),
    Deviation(
        "tls-untrusted-ca",
        "verifies the certificate and does not know its issuer (alert 48)",
        lambda manner, _: manner.but(tls=_distrust),
    ),
    Deviation(
        "tls-root-rotated",
        "knows only a root that is no longer in use (alert 48)",
        lambda manner, _: manner.but(tls=_distrust),
    ),
    Deviation(
        "tls-device-clock",
        "has a dead clock and takes a valid certificate for invalid (alert 45)",
        _wrong_clock,
        "YYYY-MM-DDThh:mm:ss",
        "2000-01-01T00:00:00",
    ),
    Deviation(
        "tls-sni-missing",
        "sends no server name",
        lambda manner, _: manner.but(sni=False),
    ),
    Deviation(
        "tls-record-too-large",
        "leaves at a TLS record above its buffer, by alert 22 or silently",
        _small,
        "BYTES[,silent]",
        "4096",
    ),
)
