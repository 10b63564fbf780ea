"""nginx's own life: a configuration it refuses, its reloads and restarts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ptslink.doctor.cause import CERTAIN, STRONG, Auto, Cause, Fix, Layer, Match
from ptslink.doctor.causes.failing import match
from ptslink.doctor.causes.proxy.common import nginx_fix
from ptslink.doctor.commands import PROVISION_TLS, RELOAD
from ptslink.doctor.evidence import Case, Status
from ptslink.doctor.pattern import links, timers


def _map_missing(case: Case) -> Match | None:
    process = case.first("nginx.process")
    if process is None or not process.facts.get("running"):
        return None
    message = str(process.facts.get("test_message") or "")
    if process.facts.get("test_ok") is not False or not message:
        return None
    lines = [f"nginx -t: {message}", "nginx runs on with the configuration it had before."]
    return match(None, STRONG, *lines, ruled_out=("px-not-running-bad-config",))


def _not_running(case: Case) -> Match | None:
    process = case.first("nginx.process")
    if process is None or process.facts.get("running") or not process.facts.get("installed"):
        return None
    message = str(process.facts.get("test_message") or "")
    if process.facts.get("test_ok") is not False or not message:
        return None
    state = process.facts.get("active_state")
    lines = [f"nginx does not run (unit {state}); nginx -t: {message}"]
    if 'for the "listen ... ssl"' in message:
        # nginx names the default site of that port; which line switches TLS on, it does not say.
        lines += [
            f"{site['file']} line {site['line']}: listen {entry['port']} with ssl, and no "
            "certificate; that holds for every site on that address and port"
            for site in case.fact("nginx.config", "sites") or ()
            for entry in site["listen"]
            if entry["ssl"] and not site["settings"]["ssl_certificate"]
        ]
    if "duplicate default server" in message:
        lines += [
            f"{site['file']} line {entry.get('line') or site['line']}: default_server of port "
            f"{entry['port']}"
            for site in case.fact("nginx.config", "sites") or ()
            for entry in site["listen"]
            if entry["default"]
        ]
    return match(None, CERTAIN, *lines, ruled_out=("px-map-missing", "tcp-service-down"))


#: How nginx says that a certificate or its key is of no use (ngx_event_openssl.c).
_UNUSABLE = re.compile(r"cannot load certificate|SSL_CTX_use_\w+\(|key values mismatch")


def _certificate(case: Case) -> Match | None:
    process = case.first("nginx.process")
    message = str((process.facts if process else {}).get("test_message") or "")
    if process is None or not _UNUSABLE.search(message):
        return None
    state = "runs on with what it had before" if process.facts.get("running") else "does not run"
    lines = [f"nginx -t: {message}", f"nginx {state}."]
    lines += [f"{p.probe} from server: {p.seen}" for p in case.all("tls.disk")
              if p.status is Status.FAILED or p.facts.get("key_matches") is False]  # fmt: skip
    out = ("px-not-running-bad-config", "px-map-missing", "tcp-service-down")
    return match(None, CERTAIN, *lines, ruled_out=out)


def _reload_shutdown(case: Case) -> Match | None:
    grace = timers(case).worker_shutdown
    if not grace:
        return None
    for reload, slack in _reloads(case):
        hit = [
            link
            for link in links(case)
            if (link.lost or not link.code)
            and -slack <= link.at - reload - grace <= 2.5
            and link.began < reload
        ]
        if hit:
            lines = [
                f"nginx was told to reload; {hit[0].at - reload:.1f} s later "
                f"{len(hit)} links were lost without a closing frame.",
                f"worker_shutdown_timeout is {grace:g} s: old workers end their links then.",
            ]
            out = ("px-restart", "app-no-graceful-stop")
            return match(None, STRONG, hit[0].shown(), *lines, ruled_out=out)
    return None


def _reloads(case: Case) -> Iterator[tuple[float, float]]:
    """When nginx was reloaded, and how far the true moment may lie before it, in seconds."""
    for piece in case.all("nginx.error"):
        for event in piece.facts["events"]:
            if event["kind"] == "reloading":
                yield event["time"], 0.5
    # nginx tells of it at "notice", which is seldom kept; the age of its workers tells as well.
    started, reloaded = (case.fact("nginx.process", k) for k in ("started", "reloaded"))
    if reloaded and (started is None or reloaded - started > 2.0):
        yield float(reloaded), 1.5


def _restart(case: Case) -> Match | None:
    started = case.fact("nginx.process", "started")
    stops = [
        event["time"]
        for piece in case.all("nginx.error")
        for event in piece.facts["events"]
        if event["kind"] == "stopping"
    ]
    if started:
        stops.append(float(started))
    service = _service_started(case)
    for stop in stops:
        hit = [
            link
            for link in links(case)
            if (link.lost or not link.code) and link.proxied and abs(link.at - stop) <= 6.0
        ]
        hit = [link for link in hit if link.began < stop - 0.5]
        if not hit or len({link.controller for link in hit}) < min(3, _controllers(case)):
            continue
        if service is not None and abs(service - stop) <= 6.0:
            continue  # the service went as well: its own stop explains it
        lines = [
            f"{len(hit)} links ended within 6 s of nginx's own stop, without a closing frame.",
            "A reload would have kept them.",
        ]
        return match(
            None,
            STRONG,
            hit[0].shown(),
            *lines,
            ruled_out=("px-reload-shutdown", "app-no-graceful-stop"),
        )
    return None


def _service_started(case: Case) -> float | None:
    for piece in case.all("host.unit"):
        if piece.facts.get("unit") == "ptslink.service" and piece.facts.get("started"):
            return float(piece.facts["started"])
    return None


def _controllers(case: Case) -> int:
    """How many controllers are known from the links; at least one."""
    return max(1, len({link.controller for link in links(case)}))


CAUSES: tuple[Cause, ...] = (
    Cause(
        "px-map-missing",
        Layer.PROXY,
        "nginx's configuration on disk is refused; a reload keeps the old one",
        nginx_fix(
            "Repair the line nginx -t names (for the link: the map that defines the variable), "
            "then reload.",
            "nginx -t passes, and a reload takes the new configuration.",
        ),
        _map_missing,
    ),
    Cause(
        "px-certificate-unusable",
        Layer.PROXY,
        "nginx cannot use its certificate or the key of it",
        Fix(
            "Put the file named above right: a PEM certificate and the key that belongs to it. "
            "Provisioning lays those of tls_certificate anew.",
            "nginx -t passes, and the TLS port answers.",
            Auto.ASK,
            PROVISION_TLS,
        ),
        _certificate,
        ("tcp-service-down", "tcp-wrong-port", "px-not-running-bad-config", "px-map-missing"),
    ),
    Cause(
        "px-not-running-bad-config",
        Layer.PROXY,
        "nginx does not start: its configuration is refused",
        nginx_fix(
            "Repair the line nginx -t names, then start nginx.",
            "nginx -t passes and nginx runs.",
            commands=(("nginx", "-t"), ("systemctl", "start", "nginx")),
        ),
        _not_running,
        ("tcp-service-down", "tcp-wrong-port", "px-map-missing"),
    ),
    Cause(
        "px-reload-shutdown",
        Layer.PROXY,
        "A reload of nginx ends all links: worker_shutdown_timeout",
        nginx_fix(
            "Remove worker_shutdown_timeout (or make it hours): old workers may keep their links.",
            "Links survive the next reload.",
            commands=(
                ("sed", "-i", "/worker_shutdown_timeout/d", "/etc/nginx/nginx.conf"),
                *RELOAD,
            ),
        ),
        _reload_shutdown,
        ("dev-reconnect-storm",),
    ),
    Cause(
        "px-restart",
        Layer.PROXY,
        "nginx was restarted, and all links with it",
        Fix(
            "Reload instead of restarting, and keep nginx out of the nightly upgrades or give "
            "them a window.",
            "Links survive the next change of nginx.",
            Auto.YES,
            (("systemctl", "reload", "nginx"),),
        ),
        _restart,
        ("dev-reconnect-storm",),
    ),
)
