"""Causes of the layer proxy: nginx before the service, and the proxies of others on the way.

Facts used: those of ``nginx.*`` (:mod:`ptslink.doctor.collect.nginx`), ``link.local`` and
``service.*`` (:mod:`ptslink.doctor.collect.service`), attempts
(:mod:`ptslink.doctor.attempts`), links and timers (:mod:`ptslink.doctor.pattern`); ``net.sockets``
``recv_q``; ``host.unit`` ``started``. From the client's side:

``http.upgrade``  ``status``, ``headers``, ``body``, ``first_bytes``, ``ended``, ``host``;
    ``held_seconds``: how long the connection stayed open after an answer that was not 101
``http.upgrade`` with ``variation`` true and ``tried``: what was different, such as ``user-agent``
``ws.idle``       ``seconds`` asked for, ``after_seconds`` at which it ended, ``ended`` fin/rst
"""

from __future__ import annotations

from ptslink.doctor.cause import Cause
from ptslink.doctor.causes.proxy import foreign, life, limits, routing, timers, upstream

CAUSES: tuple[Cause, ...] = (
    *upstream.CAUSES,
    *routing.CAUSES,
    *limits.CAUSES,
    *timers.CAUSES,
    *life.CAUSES,
    *foreign.CAUSES,
)
