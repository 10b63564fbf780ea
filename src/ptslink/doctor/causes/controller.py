"""Causes in the controller's own settings and state, as far as they show from outside.

``controller.config`` (vantage ``server``, from a connected controller's own answer; or ``site``):
    see :mod:`ptslink.doctor.collect.controllers`; what was not told is missing
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence

from ptslink.doctor.attempts import PROBE_ID_PREFIX, Attempt, attempts
from ptslink.doctor.cause import CERTAIN, LIKELY, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.reach import lines, listed
from ptslink.doctor.commands import PROVISION_NGINX, PROVISION_SERVER
from ptslink.doctor.evidence import Case, Json
from ptslink.doctor.pattern import Link, by_controller, constant, current, links

#: Attempts of one controller closer together than this are a storm, seconds.
STORM_SECONDS = 3.0
#: A storm whose last attempt is older than this is over, seconds.
STORM_OVER_SECONDS = 60.0
#: So many of them make one.
STORM_TRIES = 8
#: So many starts in a row make a loop of reboots.
REBOOTS = 3


def _traced(case: Case) -> dict[str, list[Attempt]]:
    """Attempts by controller, those of probes left out."""
    found: dict[str, list[Attempt]] = {}
    for attempt in attempts(case):
        known = attempt.controller and not attempt.controller.startswith(PROBE_ID_PREFIX)
        if known and attempt.at is not None and attempt.source not in ("site", "control", "local"):
            found.setdefault(str(attempt.controller), []).append(attempt)
    return found


def _settings(case: Case) -> list[Mapping[str, Json]]:
    """The settings of controllers that are not connected: those that are have the right ones."""
    told = (piece.facts for piece in case.all("controller.config"))
    return [facts for facts in told if not facts.get("connected")]


def _ws_disabled(case: Case) -> Match | None:
    for facts in _settings(case):
        if facts.get("websockets") is False:
            return Match(
                CERTAIN,
                lines(f"{facts.get('controller')}: UseWebsocketsCommunication is off"),
                ruled_out=("l3-device-offline", "fw-upstream-drop"),
            )
    live = case.fact("service.live", "controllers") or ()
    linked = {str(one.get("controller") or one.get("id")) for one in live}
    linked |= {link.controller for link in links(case)}
    for controller, tries in _traced(case).items():
        uploads = [a for a in tries if a.method == "POST" and a.status == 200]
        if len(uploads) >= 2 and controller not in linked and not any(a.upgrade for a in tries):
            return Match(
                LIKELY,
                lines(
                    f"{controller}: {len(uploads)} HTTP uploads arrived and were taken, the last "
                    f"to {uploads[-1].path}",
                    f"{controller}: not one attempt to make a WebSocket link is on record",
                    "so the network, the name and the port of HTTP are right",
                ),
                ruled_out=("l3-device-offline", "fw-upstream-drop", "fw-site-egress-block",
                           "dns-name-typo"),
            )  # fmt: skip
    return None


def _ip_and_domain(case: Case) -> Match | None:
    for facts in _settings(case):
        address, name = str(facts.get("ip_address") or ""), str(facts.get("domain_name") or "")
        if name and address not in ("", "0.0.0.0"):
            return Match(
                STRONG,
                lines(
                    f"{facts.get('controller')}: DomainName is {name!r} while IpAddress is "
                    f"{address}",
                    "the controller decides by itself which of the two it dials",
                ),
            )
    return None


def _storm(case: Case) -> Match | None:
    for controller, tries in _traced(case).items():
        moments = sorted({round(a.at or 0.0, 1) for a in tries})[-40:]
        if len(moments) < STORM_TRIES:
            continue
        periods = [b - a for a, b in itertools.pairwise(moments)]
        # The newest run of quick attempts; one from hours ago is over.
        run = list(
            itertools.takewhile(lambda period: period <= 2 * STORM_SECONDS, reversed(periods))
        )
        if len(run) + 1 < STORM_TRIES or statistics.median(run) > STORM_SECONDS:
            continue
        last = [a for a in tries if (a.at or 0.0) >= moments[-(len(run) + 1)] - 0.1]
        refused = [a for a in last if not a.succeeded]
        now = case.fact("service.records", "now") or case.fact("host.clock", "now")
        if now is not None and float(now) - moments[-1] > STORM_OVER_SECONDS:
            continue
        first = refused[0] if refused else last[0]
        return Match(
            LIKELY,
            lines(
                f"{controller}: {len(run) + 1} attempts, one every {statistics.median(run):.1f} s",
                f"{len(refused)} of them were refused; the first of the burst: {first.shown()}",
                "this is what follows from a first fault, and it makes limits and bans strike",
            ),
        )
    return None


def _reboot_loop(case: Case) -> Match | None:
    for controller, own in by_controller(current(case)).items():
        # Lines that only nginx has tell nothing of what was uploaded.
        last = _newest_run([link for link in own if link.code])
        if len(last) < REBOOTS or len({link.peer for link in last}) > 1:
            continue
        if len({link.firmware for link in last if link.firmware}) > 1:
            continue
        period = constant([b.began - a.began for a, b in itertools.pairwise(last)]) or (
            statistics.median([b.began - a.began for a, b in itertools.pairwise(last)])
        )
        return Match(
            LIKELY,
            lines(
                f"{controller}: {len(last)} links in a row, each begun with its configuration and "
                f"ended without a word, one every {period:.1f} s",
                *(link.shown() for link in last[-2:]),
                f"all from the same address {last[-1].peer}, with the same firmware",
            ),
            ruled_out=("app-dup-id-replaced", "nat-idle-silent", "tcp-half-open-ghost",
                       "app-ghost-blocks"),
        )  # fmt: skip
    return None


def _newest_run(own: Sequence[Link]) -> list[Link]:
    """The newest links in a row that start with a configuration and end by vanishing."""
    run: list[Link] = []
    for link in reversed(own):
        replaced = link.close_sent is not None and "replaced" in link.close_sent[1]
        vanished = link.close_rcvd is None and (
            replaced
            or link.code in ("ping-timeout", "lost-rst", "lost-timeout")
            or link.transport in ("rst", "timeout")
            # nginx makes a FIN of whatever broke on its other side.
            or (link.lost and link.proxied)
        )
        if not (link.types.get("UploadConfiguration") and vanished):
            break
        run.insert(0, link)
    return run


def _no_reconnect(case: Case) -> Match | None:
    live = case.fact("service.live", "controllers")
    now = case.fact("service.live", "now") or case.fact("service.records", "now")
    if live is None or now is None:
        return None
    linked = {str(one.get("controller") or one.get("id")) for one in live}
    peers_here = {str(one.get("peer") or one.get("remote")) for one in live}
    for controller, own in by_controller(links(case)).items():
        if controller in linked or len(own) < 3:
            continue
        gaps = [b.began - a.at for a, b in itertools.pairwise(own) if b.began >= a.at]
        if len(gaps) < 2:
            continue
        usual = max(statistics.median(gaps), 1.0)
        silent = float(now) - own[-1].at
        tried = [a for a in _traced(case).get(controller, ()) if (a.at or 0.0) > own[-1].at + 0.5]
        if silent < 10 * usual or tried or own[-1].peer not in peers_here:
            continue
        return Match(
            LIKELY,
            lines(
                f"{controller}: gone for {silent:.0f} s; it used to be back within {usual:.0f} s",
                f"its last link: {own[-1].shown()}",
                f"another controller of the same site ({own[-1].peer}) is connected, so the site "
                "is on the network",
            ),
            ruled_out=("l3-device-offline", "fw-upstream-drop", "fw-fail2ban-ban"),
        )
    return None


def _shared_nat(case: Case) -> Match | None:
    by_peer: dict[str, dict[str, list[Attempt]]] = {}
    for controller, tries in _traced(case).items():
        for attempt in tries:
            # Each try of a probe has an id of its own: they are no controllers of one site.
            if attempt.client and not attempt.by_probe:
                row = by_peer.setdefault(attempt.client, {})
                row.setdefault(controller, []).append(attempt)
    for peer, row in by_peer.items():
        limited = {c: [a for a in tries if a.limited] for c, tries in row.items()}
        hit = {c: found for c, found in limited.items() if found}
        well = [c for c, tries in row.items() if any(a.succeeded for a in tries)]
        others = [c for c in well if c not in hit] or [c for c in well if len(row) > 1]
        if hit and others and len(row) > 1:
            first = next(iter(hit.values()))[-1]
            return Match(
                STRONG,
                lines(
                    f"{len(row)} controllers come from one address, {peer}",
                    f"{listed(sorted(others))} got in, {listed(sorted(hit))} were refused by a "
                    "limit on that address",
                    first.shown(),
                ),
                ruled_out=("app-dup-id-replaced",),
                fix=_NGINX_LIMIT if first.by == "nginx" else _SERVICE_LIMIT,
            )
    return None


_ALL_CONNECTED = "Every controller of the site is connected."
_NGINX_LIMIT = Fix(
    "Take the limit per address off the location of the link, as provisioning writes it: a whole "
    "station shares one address. A limit that must stay is to count by X-Pts-Id.",
    _ALL_CONNECTED,
    Auto.YES,
    PROVISION_NGINX,
)
_SERVICE_LIMIT = Fix(
    "Raise the service's limits per address to what the site's controllers need, or put them on "
    "the allow-list (known ones are never limited).",
    _ALL_CONNECTED,
    Auto.YES,
    PROVISION_SERVER,
    {"pts_server_settings": {"limits": {"failures_per_minute": 600,
                                        "connections_per_address": 1000}}},
)  # fmt: skip


CAUSES: tuple[Cause, ...] = (
    Cause(
        "dev-ws-disabled",
        Layer.CONTROLLER,
        "The controller is told not to use WebSocket; its HTTP uploads arrive",
        Fix(
            "Switch WebSocket communication on: read the whole remote-server configuration, "
            "change this one field, write the whole back (a partial write resets the rest).",
            "An Upgrade request of this controller arrives within its reconnect period.",
            Auto.ASK,
            controller="RemoteServerConfiguration: UseWebsocketsCommunication = true",
        ),
        _ws_disabled,
    ),
    Cause(
        "dev-ip-vs-domain",
        Layer.CONTROLLER,
        "Both an IP address and a domain name are set in the controller",
        Fix(
            "Clear the one that is not meant, in one write of the whole configuration.",
            "The controller dials the one that is left.",
            Auto.ASK,
            controller='RemoteServerConfiguration: IpAddress = 0.0.0.0, or DomainName = ""',
        ),
        _ip_and_domain,
    ),
    Cause(
        "dev-reconnect-storm",
        Layer.CONTROLLER,
        "A controller tries again every second, which turns any fault into a lock-out",
        Fix(
            "Mend the first error of the burst; then give the controller a longer reconnect "
            "period.",
            "Attempts are at least ten seconds apart.",
            Auto.ASK,
            controller="RemoteServerConfiguration: WebsocketsReconnectPeriod = 10 to 30 s",
        ),
        _storm,
    ),
    Cause(
        "dev-reboot-loop",
        Layer.CONTROLLER,
        "The controller restarts over and over",
        Fix(
            "Look at its power supply and cabling at the site; then at its own log.",
            "One link lives on; the configuration is uploaded once.",
            Auto.NO,
        ),
        _reboot_loop,
        aftermath=("tcp-half-open-ghost", "app-dup-id-replaced", "nat-idle-silent",
                   "dev-reconnect-storm"),
    ),
    Cause(
        "dev-no-reconnect",
        Layer.CONTROLLER,
        "The controller does not come back after it lost its link",
        Fix(
            "Restart the controller. Keep the server's pings on: a link that is closed with a "
            "close frame is noticed by the controller.",
            "A SYN of this controller arrives within its reconnect period.",
            Auto.NO,
        ),
        _no_reconnect,
    ),
    Cause(
        "dev-site-shared-nat",
        Layer.CONTROLLER,
        "Several controllers share one address and a limit per address strikes them",
        _NGINX_LIMIT,
        _shared_nat,
        aftermath=("px-limit-conn", "app-rate-lockout"),
    ),
)  # fmt: skip
