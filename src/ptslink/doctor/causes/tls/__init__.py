"""Causes of the layer tls.

Facts used: attempts with nginx's events (``tls-failed``, ``tls-alert``, ``tls-rejected``,
``tls-closed``, ``plain-to-tls``, ``no-client-certificate``), ``nginx.config``, ``net.addresses``;
``tls.disk``, ``tls.served``, ``tls.offer`` (:mod:`ptslink.doctor.collect.tls`).
From the client's side, with the same keys:

``tls.handshake``    ``reason`` (OpenSSL's word), ``alert``? int received, ``errno``, ``port``,
    ``verify_code``; with ``variation`` true and ``variant`` (as ``tls.offer``), ``ok``
``tls.certificate``  ``subject``, ``issuer``, ``sans``, ``not_before``, ``not_after`` (epoch
    seconds), ``key``, ``chain``, ``chain_bytes`` [int], ``verify`` (OpenSSL's code), ``now``,
    ``name`` asked
"""

from __future__ import annotations

from ptslink.doctor.cause import Cause
from ptslink.doctor.causes.tls import certificates, handshake

CAUSES: tuple[Cause, ...] = (*handshake.CAUSES, *certificates.CAUSES)
