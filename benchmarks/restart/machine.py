"""The machine whose server is restarted, and the controllers that watch it: a lab as scripts/lab
makes it, provisioned by site.yml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.crash.audit import Sent

ROOT: Final = Path(__file__).parents[2]
LAB: Final = ROOT / "scripts" / "lab"
JOURNAL: Final = "/var/lib/ptslink/journal.db"
#: TLS beside plain; its authority lives and goes with the lab.
VARIABLES: Final[Mapping[str, Any]] = {
    "nginx_proxy_listeners": [{"port": 80}, {"port": 443, "tls": True}],
    "pts_server_settings": {"limits": {"new_controllers_per_address": 100_000}},
    "tls_certificate_ca_directory": (
        "{{ hostvars[inventory_hostname]['ansible_ssh_private_key_file'] | dirname }}/tls"
    ),
}


class Failed(Exception):
    """Something that had to work before the promise could be looked at; the text says what."""


class Machine:
    """A machine of a lab, on which the server runs.

    Args:
        lab: the lab's name.
        name: the machine's in it.
    """

    def __init__(self, lab: str, name: str = "server") -> None:
        self.lab = lab
        self.name = name
        self._environment = {**os.environ, "PTSLINK_LAB": lab, "ANSIBLE_NOCOLOR": "1"}

    def _run(self, *command: str | Path, seconds: float = 300) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).splitlines()[-30:]
            raise Failed(
                f"{' '.join(map(str, command))}: exit {done.returncode}\n" + "\n".join(said)
            )
        return done.stdout

    def raise_up(self) -> None:
        """Boot it, unless it is up, and provision it by site.yml."""
        self._run(LAB, "up")
        self.provision()

    def provision(self, *arguments: str, **variables: object) -> None:
        """Run site.yml; keywords come in the place of, or beside, `VARIABLES`."""
        self._run(
            Path(sys.executable).with_name("ansible-playbook"),
            f"--inventory={ROOT / 'inventory' / 'lab'}",
            f"--extra-vars={json.dumps({**VARIABLES, **variables})}",
            *arguments,
            ROOT / "site.yml",
            seconds=600,
        )

    def down(self) -> None:
        """Leave no trace of it."""
        self._run(LAB, "down")

    @property
    def address(self) -> str:
        [status] = json.loads(self._run(LAB, "status", "--json", "--lab", self.lab))
        return str(status["machines"][self.name]["address"])

    def process(self, unit: str) -> str:
        """The number of a unit's main process."""
        return self.do(f"systemctl show --property MainPID --value {unit}")

    def do(self, line: str) -> str:
        """A shell line on the machine."""
        return self._run(LAB, "ssh", self.name, "--", line).strip()

    def fetch(self, path: str, to: Path) -> None:
        """Copy a file from the machine."""
        with to.open("wb") as file:
            subprocess.run(
                [LAB, "ssh", self.name, "--", f"cat {path}"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                check=True,
            )

    @contextmanager
    def controllers(self, url: str, count: int, ledger: Path, *, seed: str) -> Iterator[Crowd]:
        """Controllers behind the site's router; they are gone when the block is left."""
        process = subprocess.Popen(
            [
                *(LAB, "exec", "controller", "--", sys.executable, "-m"),
                *("benchmarks.restart.controllers", url, ledger),
                *("--controllers", str(count), "--seed", seed),
            ],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Crowd(process, count, ledger)
        finally:
            assert process.stdin is not None
            process.stdin.close()  # its end is an order to stop, too
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()


class Crowd:
    """The far end of `benchmarks.restart.controllers`."""

    def __init__(self, process: subprocess.Popen[str], count: int, ledger: Path) -> None:
        self._process = process
        self._ledger = ledger
        self.count = count

    def ask(self, word: str) -> dict[str, Any]:
        """``report`` or ``stop``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"the controllers ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def gather(self, seconds: float = 60) -> dict[str, Any]:
        """Wait until all are connected; all reports on the way as one."""
        until = time.monotonic() + seconds
        reports = [self.ask("report")]
        while reports[-1]["connected"] < self.count:
            if time.monotonic() > until:
                raise Failed(f"only {reports[-1]['connected']} of {self.count} connected")
            time.sleep(0.2)
            reports.append(self.ask("report"))
        return together(reports)

    def back(self, gone: int, seconds: float = 60) -> dict[str, Any]:
        """Wait until so many links ended and all are connected again; the reports as one."""
        until = time.monotonic() + seconds
        reports = [self.ask("report")]
        while (
            len(together(reports)["away"]) < gone or reports[-1]["connected"] < self.count
        ) and time.monotonic() < until:
            time.sleep(0.2)
            reports.append(self.ask("report"))
        return together(reports)

    def confirmed(self) -> list[Sent]:
        """What they saw confirmed; to be read after ``stop``."""
        return [Sent(*json.loads(line)) for line in self._ledger.read_text().splitlines()]


def together(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several reports in a row as one."""
    whole: dict[str, Any] = {**reports[-1], "attempts": 0, "away": []}
    for name in ("refused", "endings"):
        whole[name] = {}
        for report in reports:
            for key, count in report[name].items():
                whole[name][key] = whole[name].get(key, 0) + count
    for report in reports:
        whole["attempts"] += report["attempts"]
        whole["away"] += report["away"]
    whole["away"].sort()
    return whole
