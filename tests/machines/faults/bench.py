"""The lab as a bench: run lines in its places, and the doctor from its vantage points."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machines.faults.fault import Fault, Step
from ptslab.lab import enter_command, require

ROOT = Path(__file__).parents[3]
LAB = ROOT / "scripts" / "lab"
#: Where the doctor under test lies on the machine; the installed release lends its Python.
CARRIED = "/run/doctor"
#: What some rows run on the machine.
TOOLS = ("guide.py", "bugs.py", "asgi.py")
REMOTE_PYTHON = "/opt/ptslink/current/bin/python"
#: The longest any single line may take, seconds.
LINE_SECONDS = 180.0
#: Bound of the doctor's steps at the site: short, because whole cases are to take seconds.
SITE_TIMEOUT = "2"


#: The service's records of attempts and links, and nginx's log lines.
WASH = Step(
    "server",
    "truncate -s0 /var/log/nginx/*.log; "
    f"{REMOTE_PYTHON} -c 'import sqlite3; "
    'd = sqlite3.connect("/var/lib/ptslink/journal.db", timeout=5); '
    'd.execute("DELETE FROM evidence"); d.commit()\' && '
    "journalctl -q --rotate --vacuum-time=1s",
    may_fail=True,
)


#: Waits until the kernel has said its last word for every connection that its owner left: at most
#: 30 seconds. What a ghost never acknowledged is sent again for some seconds more.
NOBODY_LEAVING = Step(
    "server",
    "for n in $(seq 60); do ss -Htn state fin-wait-1 | grep -q . || exit 0; sleep 0.5; done",
    may_fail=True,
)


#: Waits until somebody watches packets of every kind (0003) in the machine: at most 15 seconds.
#: systemd-networkd has a socket of its own, for LLDP.
WATCHING = (
    "for n in $(seq 150); do grep -q ' 0003 ' /proc/net/packet && exit; sleep 0.1; done; "
    "echo nobody watches >&2; exit 1"
)


class BenchError(Exception):
    """The bench itself failed: a line that had to work did not."""


class Bench:
    """One lab, up and provisioned."""

    def __init__(self, lab: str, machine: str = "server") -> None:
        self.lab, self.machine = lab, machine
        (told,) = json.loads(self._lab("status", "--lab", lab, "--json").stdout)
        own = told["machines"][machine]
        # Removed with this object.
        self._scratch = tempfile.TemporaryDirectory(prefix="ptslink-faults-")
        self.names = {
            "server": own["address"],
            "wan": told["router"]["wan_address"],
            "lan": told["router"]["lan_address"],
            "gateway": told["gateway"],
            "slot": str(told["slot"]),
            "site": told["controller"]["addresses"][0],
            "cable": own["namespace"],
            "router_ns": told["router"]["namespace"],
            "controller_ns": told["controller"]["namespace"],
            "work": self._scratch.name,
            "python": sys.executable,
            "root": str(ROOT),
            "simulate": f"env PYTHONPATH={ROOT / 'src'} {sys.executable} -m ptslink.cli simulate",
            "faults": str(Path(__file__).parent),
            "mutations": str(Path(__file__).parents[1] / "mutations"),
            # The authority that signed the machine's certificates, where it speaks TLS.
            "authority": str(Path(told["ssh_key"]).parent / "tls"),
            # A line inside the machine, for what is piped into it.
            "enter": shlex.join([sys.executable, str(LAB), "exec", "--lab", lab, machine, "--"]),
        }
        self._namespace = own["namespace"]
        self._background: list[subprocess.Popen[bytes]] = []

    def _lab(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(LAB), *words], capture_output=True, text=True, check=True
        )

    def carry(self, *more: Path) -> None:
        """Put the doctor of this checkout, the tools and *more* beside the installed release."""
        words = ["tar", "-c", "--exclude=__pycache__", "-C", str(ROOT / "src"), "ptslink"]
        words += ["-C", str(Path(__file__).parent), *TOOLS]
        for one in more:
            words += ["-C", str(one.parent), one.name]
        pack = subprocess.run(words, capture_output=True, check=True)
        line = f"rm -rf {CARRIED}; mkdir -p {CARRIED} && tar -C {CARRIED} -x"
        subprocess.run(
            self._command(Step("server", line)), input=pack.stdout, check=True, timeout=60,
            capture_output=True,
        )  # fmt: skip

    def filled(self, text: str) -> str:
        """*text* with the lab's names in it: by hand, as lines hold braces of nft and shell."""
        for name, value in self.names.items():
            text = text.replace("{" + name + "}", value)
        return text

    def target(self, fault: Fault) -> str:
        """What the doctor is told of the link: on the server alone it gets no URL."""
        return self.filled(fault.url) if {"site", "control"} & {*fault.vantages} else "this server"

    def _command(self, step: Step) -> list[str]:
        line = self.filled(step.line)
        shell = ["sh", "-c", line]
        match step.place:
            case "server":
                return self._enter(self.machine, "sh", "-c", f"cd /; {line}")
            case "server-net":
                return ["ip", "netns", "exec", self._namespace, *shell]
            case "router" | "controller":
                return self._enter(step.place, *shell)
            case "host":
                return shell
        raise BenchError(f"place {step.place!r} is not known")

    def _enter(self, where: str, *command: str) -> list[str]:
        """What `scripts/lab exec` does, without a Python of its own for each line."""
        return [*enter_command(require(self.lab), where, command)]

    def output(self, step: Step) -> subprocess.CompletedProcess[str]:
        """Run one line to its end, however that is; what it printed."""
        return subprocess.run(
            self._command(step), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=LINE_SECONDS, check=False,
        )  # fmt: skip

    def run(self, steps: Sequence[Step]) -> None:
        """Run lines in order; BenchError names the first that had to work and did not."""
        for step in steps:
            if step.background:
                self._background.append(
                    subprocess.Popen(
                        self._command(step), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL, start_new_session=True,
                    )
                )  # fmt: skip
                continue
            done = self.output(step)
            if done.returncode != 0 and not step.may_fail:
                said = (done.stderr or done.stdout).strip().splitlines()[-3:]
                raise BenchError(f"{step.place}: {step.line!r} gave {done.returncode}: {said}")

    @property
    def background(self) -> int:
        """How much runs in the background: what comes later can be ended apart."""
        return len(self._background)

    def end_background(self, since: int = 0) -> None:
        """End what runs in the background, but for the first *since*, each by its own process
        group."""
        ending, self._background = self._background[since:], self._background[:since]
        for process in ending:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in ending:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def wash(self) -> None:
        """Take away the traces of earlier cases, so that each case begins on a clean record."""
        self.run([WASH])

    # The doctor.

    def examine(self, fault: Fault) -> list[dict[str, Any]]:
        """Evidence from every vantage point of *fault*, the server's last."""
        url = self.filled(fault.url)
        watching = None
        stop = f"{CARRIED}/stop-{time.monotonic_ns()}"
        if "server" in fault.vantages:
            watching = self._watch(fault, stop, url if "site" in fault.vantages else None)
        found: list[dict[str, Any]] = []
        for vantage, usual in (("site", "controller"), ("control", "host")):
            if vantage in fault.vantages:
                found += self._survey(url, vantage, fault.places.get(vantage, usual), fault)
        if watching is not None:
            self.run([Step("server", f"touch {stop}")])
            found += self._read(watching)
        return found

    def _survey(self, url: str, vantage: str, place: str, fault: Fault) -> list[dict[str, Any]]:
        words = [sys.executable, "-m", "ptslink.cli", "doctor", url, "--vantage", vantage,
                 "--save-evidence", "-", "--timeout", SITE_TIMEOUT,
                 *fault.site_options]  # fmt: skip
        line = f"cd / && PYTHONPATH={ROOT / 'src'} {shlex.join(words)}"
        done = subprocess.run(
            self._command(Step(place, line)), capture_output=True, text=True,
            timeout=LINE_SECONDS + fault.idle, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return self._json(done.stdout, done.stderr)

    def _watch(self, fault: Fault, stop: str, url: str | None) -> subprocess.Popen[str]:
        words = [REMOTE_PYTHON, "-m", "ptslink.cli", "doctor", "--server", "--save-evidence", "-"]
        if url is not None:
            from ptslink.doctor.probe.target import parse_target

            words += ["--port", str(parse_target(url).port)]
            words += ["--watch", f"{60 + fault.idle:g}", "--watch-until", stop]
        words += fault.server_options
        line = f"PYTHONPATH={CARRIED} {shlex.join(words)}"
        process = subprocess.Popen(
            self._command(Step("server", line)), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        if url is not None:
            # Its packet socket shows that it watches; what comes before, it does not see.
            self.run([Step("server", WATCHING)])
        return process

    def _read(self, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
        out, error = process.communicate(timeout=LINE_SECONDS)
        return self._json(out, error)

    def _json(self, text: str, error: str) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = json.loads(text)
        except json.JSONDecodeError as problem:
            raise BenchError(f"no evidence: {error.strip()[-400:] or problem}") from problem
        return found
