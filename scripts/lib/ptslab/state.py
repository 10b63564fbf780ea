"""What a lab remembers: one JSON file a lab, and the directory it lives in."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from ptslab import host
from ptslab.errors import LabError
from ptslab.layout import Layout

HOME: Final = Path("/var/lib/ptslink-lab")
VERSION: Final = 2


@dataclass(frozen=True)
class Machine:
    """A machine of a lab. `index` decides its address and its kernel-visible names."""

    name: str
    suite: str
    index: int
    #: The image under its overlay.
    image: str
    #: The snapshots between the image and its own layer, the newest first.
    snapshots: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """Everything under the machine's own layer, the uppermost first."""
        return (*self.snapshots, self.image)


@dataclass(frozen=True)
class Running:
    """What a machine's supervisor last wrote about it."""

    supervisor: host.Process
    #: systemd-nspawn itself, None between two boots.
    nspawn: host.Process | None
    #: Boots so far, the first included.
    boots: int
    #: booting, running, halted or failed.
    phase: str
    #: Exit status of systemd-nspawn, once it has ended for good.
    exit_status: int | None
    cgroups: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Running:
        nspawn = data["nspawn"]
        return cls(
            supervisor=host.Process(**data["supervisor"]),
            nspawn=host.Process(**nspawn) if nspawn else None,
            boots=data["boots"],
            phase=data["phase"],
            exit_status=data["exit_status"],
            cgroups=tuple(data["cgroups"]),
        )

    def leader(self) -> int | None:
        """The machine's PID 1 as this computer numbers it, None when it is not up."""
        if self.nspawn is None or not self.nspawn.alive():
            return None
        found = host.children(self.nspawn.pid)
        return found[0] if found else None


@dataclass(frozen=True)
class Lab:
    """A lab as its state file describes it; everything else follows from name and slot."""

    name: str
    slot: int
    #: starting, up or stopping. Only `up` is a whole lab.
    phase: str
    #: Boot of this computer the lab was raised in; nothing of it outlives that but files.
    boot: str
    machines: tuple[Machine, ...] = field(default=())

    @property
    def layout(self) -> Layout:
        return Layout(self.name, self.slot)

    @property
    def directory(self) -> Path:
        return HOME / "labs" / self.name

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    @property
    def ssh_key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def control_sockets(self) -> Path:
        """Where ssh connections shared by Ansible keep their sockets."""
        return self.directory / "ssh"

    def machine(self, name: str) -> Machine:
        for machine in self.machines:
            if machine.name == name:
                return machine
        known = ", ".join(machine.name for machine in self.machines) or "none"
        raise LabError(f"lab {self.name!r} has no machine {name!r} (it has: {known})")

    def address(self, machine: Machine) -> IPv4Address:
        return self.layout.machine_address(machine.index)

    def machine_directory(self, machine: Machine) -> Path:
        return self.directory / "machines" / machine.name

    def root(self, machine: Machine) -> Path:
        """Where the machine's merged root file system is mounted."""
        return self.machine_directory(machine) / "root"

    def upper(self, machine: Machine) -> Path:
        """What the machine has written."""
        return self.machine_directory(machine) / "upper"

    def console(self, machine: Machine) -> Path:
        return self.machine_directory(machine) / "console.log"

    def running(self, machine: Machine) -> Running | None:
        try:
            text = (self.machine_directory(machine) / "running.json").read_text()
        except FileNotFoundError:
            return None
        return Running.from_json(json.loads(text))

    def save_running(self, machine: Machine, running: Running) -> None:
        write_json(self.machine_directory(machine) / "running.json", running.to_json())

    def save(self) -> None:
        """Write the state file, whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(self.directory / "lab.json", {"version": VERSION, **asdict(self)})


def write_json(path: Path, data: dict[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(data, indent=2) + "\n")
    partial.replace(path)


def load(name: str) -> Lab | None:
    """The lab called `name`, or None when there is none."""
    path = HOME / "labs" / name / "lab.json"
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LabError(f"{path}: cannot be read: {error}") from error
    if data.pop("version", None) != VERSION:
        raise LabError(f"{path}: written by another version of scripts/lab: take it down with that")
    machines = tuple(
        Machine(**{**machine, "snapshots": tuple(machine.get("snapshots", ()))})
        for machine in data.pop("machines")
    )
    return Lab(machines=machines, **data)


def names() -> list[str]:
    """The name of every lab that has left as much as a directory on this computer."""
    directory = HOME / "labs"
    if not directory.is_dir():
        return []
    return sorted(path.name for path in directory.iterdir() if path.is_dir())


def labs() -> list[Lab]:
    """Every lab on this computer, whole or not, by name."""
    return [lab for lab in map(load, names()) if lab is not None]
