"""Healthy systems, each configured and busy in a way of its own: the doctor has to stay silent.

Each case is examined from the site, from the server, and joined, the last through the command line
itself: no finding, exit status 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machines.faults import lab
from machines.faults.bench import ROOT, Bench, BenchError
from machines.faults.fault import Fault, Step, controller, host, server
from machines.faults.runner import today
from ptslink.doctor.causes import CAUSES
from ptslink.doctor.evidence import Case, Evidence
from ptslink.doctor.verdict import judge

#: The one controller that is let in where there is a list.
KNOWN = "00AA000000000000000000AA"


@dataclass(frozen=True)
class Configuration:
    """How a machine is provisioned."""

    name: str
    variables: Mapping[str, Any]
    suite: str = "bookworm"
    #: Run on the machine before it is provisioned; has nothing to do the second time.
    before: tuple[Step, ...] = ()


_APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y"

TLS = Configuration("Debian 12, ufw, TLS beside plain", {})
OTHER = Configuration(
    "Debian 12, ufw, other ports and path, short timers, no TLS",
    {
        "nginx_proxy_listeners": [{"port": 8080}],
        "pts_server_port": 3100,
        "pts_server_path": "station/7",
        "pts_server_ping_interval_seconds": 7,
        "pts_server_ping_timeout_seconds": 5,
        "nginx_proxy_idle_timeout_seconds": 30,
    },
)
STRICT = Configuration(
    "Debian 12, ufw, strict handshakes, an allow-list, loopback behind nginx, rare pings",
    {
        "pts_server_handshake_profile": "strict",
        "pts_server_listen_addresses": ["127.0.0.1"],
        "pts_server_settings": {"controllers": {"allowed": [KNOWN]}},
        "pts_server_ping_interval_seconds": 60,
    },
)
FIREWALLD = Configuration(
    "Debian 13, firewalld, TLS beside plain",
    {},
    suite="trixie",
    before=(server(f"systemctl -q is-active firewalld || ({_APT} update && {_APT} install "
                   "firewalld) >/dev/null 2>&1 && systemctl is-active firewalld"),),
)  # fmt: skip


def controllers(url: str, count: int = 5, more: str = "") -> Step:
    """A station's controllers, about their business."""
    return controller(
        f"{{simulate}} {url} -n {count} --status-period 1 --duration 90 {more}", background=True
    )


@dataclass(frozen=True)
class Healthy:
    """One case: what goes on while the doctor looks."""

    configuration: Configuration
    doing: str
    url: str
    steps: tuple[Step, ...] = ()
    site_options: tuple[str, ...] = ()
    reboots: bool = field(default=False)


PLAIN = "ws://{server}/ptsWebSocket"
DIRECT = "ws://{server}:3000/ptsWebSocket"
SECURE = "wss://{server}/ptsWebSocket"
TRUST = ("--ca", "{authority}/ca.pem")
BUSY = (controllers(PLAIN), host("sleep 4"))
BUSY_TLS = (controllers(SECURE, more="--ca {authority}/ca.pem"), host("sleep 4"))
BUSY_DIRECT = (controllers(DIRECT), host("sleep 4"))
_RESTART = (server("systemctl restart ptslink"), host("sleep 3"))
_RELOAD = (server("systemctl reload nginx"), host("sleep 2"))
_7 = "ws://{server}:8080/station/7"
_7_DIRECT = "ws://{server}:3100/station/7"

HEALTHY = (
    Healthy(TLS, "idle, by way of nginx", PLAIN),
    Healthy(TLS, "idle, straight to the service", DIRECT),
    Healthy(TLS, "idle, TLS", SECURE, site_options=TRUST),
    Healthy(TLS, "five controllers by way of nginx", PLAIN, BUSY),
    Healthy(TLS, "five controllers, TLS", SECURE, BUSY_TLS, TRUST),
    Healthy(TLS, "five controllers straight, the service just restarted", DIRECT,
            (*BUSY_DIRECT, *_RESTART)),
    Healthy(TLS, "five controllers by way of nginx, the service just restarted", PLAIN,
            (*BUSY, *_RESTART)),
    Healthy(TLS, "five controllers, nginx just reloaded", PLAIN, (*BUSY, *_RELOAD)),
    Healthy(TLS, "the machine just rebooted", PLAIN, reboots=True),
    Healthy(OTHER, "idle, by way of nginx", _7),
    Healthy(OTHER, "idle, straight to the service", _7_DIRECT),
    Healthy(OTHER, "a link without traffic for three ping intervals", _7,
            site_options=("--idle", "22")),
    Healthy(OTHER, "five controllers, the service just restarted", _7,
            (controllers(_7), host("sleep 4"), *_RESTART)),
    Healthy(STRICT, "tried by a stranger, who is turned away", PLAIN),
    Healthy(STRICT, "its controller connected, tried by a stranger", PLAIN,
            (controllers(PLAIN, 1, f"--id {KNOWN}"), host("sleep 4"))),
    Healthy(FIREWALLD, "idle, by way of nginx", PLAIN),
    Healthy(FIREWALLD, "idle, straight to the service", DIRECT),
    Healthy(FIREWALLD, "five controllers, TLS", SECURE, BUSY_TLS, TRUST),
    Healthy(FIREWALLD, "five controllers, nginx just reloaded", PLAIN, (*BUSY, *_RELOAD)),
    Healthy(FIREWALLD, "controllers come and go in good order", PLAIN,
            (controller("for n in 1 2 3; do {simulate} ws://{server}/ptsWebSocket -n 3 "
                        "--duration 1.5; done"),)),
)  # fmt: skip


def ready(lab_name: str, configuration: Configuration, say: Callable[[str], None]) -> Bench:
    """A machine of the lab, provisioned so; made where it is not there."""
    machine = f"healthy-{configuration.suite}"
    say(f"provisioning {machine}: {configuration.name}")
    if machine not in lab.machines(lab_name):
        lab.add(lab_name, machine, configuration.suite)
    Bench(lab_name, machine).run(configuration.before)
    lab.provision(lab_name, machine, configuration.variables)
    bench = Bench(lab_name, machine)
    bench.carry()
    return bench


#: The machine that a row names, where it is not that of most rows.
MACHINES = {"firewalld": FIREWALLD}


def run_all(
    lab_name: str, say: Callable[[str], None], keep: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Each case's result, on machines of the lab that are made for it."""
    bench: Bench | None = None
    current: Configuration | None = None
    for case in HEALTHY:
        if case.configuration is not current:
            current = case.configuration
            bench = ready(lab_name, current, say)
        assert bench is not None
        if case.reboots:
            lab.reboot(lab_name, bench.machine)
            bench.carry()
        yield run_one(bench, case, keep)


def run_one(bench: Bench, case: Healthy, keep: Path | None = None) -> dict[str, Any]:
    """One case: ``right`` where nobody found anything, else what was ``found`` from where."""
    result: dict[str, Any] = {
        "id": "healthy", "variant": f"{case.configuration.name}: {case.doing}", "layer": None,
        "configuration": case.configuration.name, "doing": case.doing, "twin": True,
        "day": today(),
    }  # fmt: skip
    try:
        bench.run(case.steps)
        started = time.monotonic()
        evidence = bench.examine(Fault("healthy", (), url=case.url, site_options=case.site_options))
        result["seconds"] = round(time.monotonic() - started, 1)
    except (BenchError, OSError, TimeoutError) as error:
        return result | {"right": False, "named": None, "error": str(error)}
    finally:
        bench.end_background()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        name = f"{case.configuration.name}, {case.doing}".replace("/", "_")
        (keep / f"healthy {name}.json").write_text(json.dumps(evidence, indent=1))
    found = {"joined": _command_line(evidence)}
    for vantage in ("site", "server"):
        own = [Evidence.from_json(piece) for piece in evidence if piece["vantage"] == vantage]
        found[vantage] = [f.id for f in judge(Case(bench.filled(case.url), own), CAUSES).findings]
    wrong = {where: ids for where, ids in found.items() if ids}
    named = next((ids[0] for ids in wrong.values()), None)
    return result | {"right": not wrong, "named": named, "found": wrong}


def _command_line(evidence: list[dict[str, Any]]) -> list[str]:
    """What the command line finds in *evidence*; its exit status where that is not as it says."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(evidence, file)
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", "ptslink.cli", "doctor", "--evidence", file.name, "--json"],
            capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
    try:
        ids = [str(finding["id"]) for finding in json.loads(done.stdout)["findings"]]
    except ValueError:
        return [f"exit status {done.returncode}: {done.stderr.strip()[-200:]}"]
    return ids if bool(ids) == bool(done.returncode) else [*ids, f"exit {done.returncode}"]
