"""Every cause the doctor knows, one module a layer. One is an entry here, a row that injects it."""

from __future__ import annotations

from ptslink.doctor.cause import Cause
from ptslink.doctor.causes import (
    application,
    controller,
    dns,
    firewall,
    host,
    http_upgrade,
    l3,
    listener,
    nat,
    proxy,
    sandbox,
    tls,
    ws_protocol,
)

#: Outermost layer first.
CAUSES: tuple[Cause, ...] = (
    *dns.CAUSES,
    *l3.CAUSES,
    *listener.CAUSES,
    *firewall.CAUSES,
    *nat.CAUSES,
    *tls.CAUSES,
    *proxy.CAUSES,
    sandbox.NGINX,
    *http_upgrade.CAUSES,
    *ws_protocol.CAUSES,
    *application.CAUSES,
    *host.CAUSES,
    sandbox.SERVICE,
    *controller.CAUSES,
)
