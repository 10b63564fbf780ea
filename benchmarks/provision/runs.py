"""What is timed: machines raised, a playbook run, the bare script, and the proof after each."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "scripts" / "lab"
BIN = Path(sys.executable).parent
STOCK = ROOT / "benchmarks" / "provision" / "stock.yml"
NAME = "bench-provision"
PATH = "ptsWebSocket"
#: Default of link_check_idle_seconds, in seconds.
SILENCE = 5
#: What site.yml puts on a machine apart from packages and the release.
FILES = (
    "etc/ptslink/ptslink.toml",
    "etc/systemd/system/ptslink.service",
    "etc/systemd/system/ptslink.socket",
    "etc/systemd/journald.conf.d/ptslink.conf",
    "etc/systemd/system/ptslink-nginx-logs.service",
    "etc/systemd/system/ptslink-nginx-logs.timer",
    "etc/ptslink/nginx-logs.conf",
    "etc/nginx/conf.d/ptslink.conf",
)
_RECAP = re.compile(r"^(?P<host>\S+)\s+: ok=\d+\s+changed=(?P<changed>\d+)", re.MULTILINE)


class RunFailed(Exception):
    """Something that was to be timed did not work; the message holds its last lines."""


@dataclass(frozen=True)
class Timed:
    """A run that ended well: its wall time, and what it printed."""

    seconds: float
    output: str

    def changed(self) -> int:
        """Changes on all machines, by Ansible's own recap."""
        return sum(int(match["changed"]) for match in _RECAP.finditer(self.output))


def environment() -> Mapping[str, str]:
    return {
        **os.environ,
        "PTSLINK_LAB": NAME,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }


def run(
    command: Sequence[str | Path], *, stdin: bytes = b"", more: Mapping[str, str] | None = None
) -> bytes:
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        check=False,
        env={**environment(), **(more or {})},
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").splitlines()
        raise RunFailed(
            f"`{' '.join(map(str, command))[:160]}` ended with {done.returncode}\n"
            + "\n".join(f"    {line}" for line in said[-25:])
        )
    return done.stdout


@contextlib.contextmanager
def machines(count: int) -> Iterator[dict[str, Any]]:
    """``count`` bare Debian 12 machines: their ssh_config and their addresses by name."""
    names = [f"--machine=m{number}" for number in range(1, count + 1)]
    try:
        lab = json.loads(run([LAB, "up", "--json", *names]))
        yield {
            "ssh_config": lab["ssh_config"],
            "addresses": {name: m["address"] for name, m in lab["machines"].items()},
        }
    finally:
        run([LAB, "down"])


def ssh(lab: Mapping[str, Any], machine: str, command: str, stdin: bytes = b"") -> bytes:
    return run(["ssh", "-F", lab["ssh_config"], machine, command], stdin=stdin)


def playbook(name: Path, *options: str, more: Mapping[str, str] | None = None) -> Timed:
    """A run of a playbook on every machine of the lab."""
    started = time.monotonic()
    inventory = ROOT / "inventory" / "lab"
    output = run([BIN / "ansible-playbook", "-i", inventory, name, *options], more=more)
    return Timed(time.monotonic() - started, output.decode(errors="replace"))


def site(*, profile: bool = False) -> Timed:
    """The very run a user does, on every machine of the lab."""
    more = {"ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks"} if profile else {}
    return playbook(ROOT / "site.yml", more=more)


@dataclass(frozen=True)
class Outcome:
    """What a run of site.yml left on a machine, for the comparator to do the same."""

    release: str
    files: bytes
    wheelhouse: bytes


def outcome(lab: Mapping[str, Any], machine: str) -> Outcome:
    release = ssh(lab, machine, "readlink /opt/ptslink/current").decode().strip().split("/")[-1]
    version = ssh(lab, machine, "/opt/ptslink/current/bin/python --version").decode()
    python = ".".join(version.split()[1].split(".")[:2])
    archive = ROOT / "build" / "wheelhouse" / f"py{python}-{os.uname().machine}"
    return Outcome(
        release=release,
        files=ssh(lab, machine, f"tar -c -C / {' '.join(FILES)}"),
        wheelhouse=(archive / f"ptslink-{release}.tar").read_bytes(),
    )


def bare(lab: Mapping[str, Any], machine: str, wanted: Outcome) -> Timed:
    """The comparator: everything over in one connection, one script, the same proof."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in (
            ("bare.sh", (ROOT / "benchmarks" / "provision" / "bare.sh").read_bytes()),
            ("files.tar", wanted.files),
            ("wheelhouse.tar", wanted.wheelhouse),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    started = time.monotonic()
    output = ssh(
        lab,
        machine,
        f"mkdir bare && tar -x -C bare && bash bare/bare.sh {wanted.release}",
        packed.getvalue(),
    )
    prove(lab["addresses"][machine])
    return Timed(time.monotonic() - started, output.decode(errors="replace"))


def stock(lab: Mapping[str, Any], machine: str, wanted: Outcome) -> Timed:
    """The second comparator: an ordinary playbook of stock modules, and the same proof."""
    with tempfile.TemporaryDirectory(prefix="ptslink-stock-") as place:
        run(["tar", "-x", "-C", place], stdin=wanted.files)
        Path(place, "wheelhouse.tar").write_bytes(wanted.wheelhouse)
        ran = playbook(
            STOCK, f"--extra-vars=stock_directory={place} stock_release={wanted.release}"
        )
    started = time.monotonic()
    prove(lab["addresses"][machine])
    return Timed(ran.seconds + time.monotonic() - started, ran.output)


def prove(address: str) -> None:
    """Both ways in from outside answer with 101 and the right hash; else RunFailed.

    One of them, and so the proof, lasts as long as link_check leaves its links silent.
    """
    for url, silence in ((f"ws://{address}:3000/{PATH}", 0), (f"ws://{address}/{PATH}", SILENCE)):
        run([BIN / "ptslink", "probe", url, "--json", f"--idle={silence}"])


def quick_test() -> Timed:
    started = time.monotonic()
    output = run([ROOT / "scripts" / "test", "--quick"])
    return Timed(time.monotonic() - started, output.decode(errors="replace"))
