"""The process that keeps one machine: boots it, and boots it again when it reboots.

systemd-nspawn ends with status 133 when the machine asked for a reboot and 0 when
it was switched off; who started it must start it again. One supervisor a machine,
its own session, no terminal; it writes what it does to `running.json`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from ptslab import disk, host, machine, plan, state
from ptslab.errors import LabError
from ptslab.state import Lab, Machine, Running


class Supervisor:
    def __init__(self, lab: Lab, kept: Machine) -> None:
        self.lab = lab
        self.machine = kept
        self.stopping = False
        self.boots = 0
        me = host.Process.of(os.getpid())
        assert me is not None
        self.me = me
        self.cgroups: tuple[str, ...] = ()

    def run(self) -> int:
        """Boot until the machine is switched off or told to stop; return an exit code."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        while not self.stopping:
            self.boots += 1
            began = time.monotonic()
            self._note("booting")
            status = self._boot()
            if self.stopping or status == 0:
                self._note("halted", exit_status=status)
                return 0
            if status != machine.REBOOT:
                self._note("failed", exit_status=status)
                return 1
            if time.monotonic() - began < 2.0:  # a machine rebooting in circles
                time.sleep(1.0)
        self._note("halted")
        return 0

    def _boot(self) -> int:
        layout, index = self.lab.layout, self.machine.index
        remove_cable(self.lab, self.machine)
        for command in plan.machine_cable(layout, index):
            host.run(command)
        machine.mount(self.lab, self.machine)
        disk.detach(self.lab, self.machine)
        disk.attach_for_boot(self.lab, self.machine)
        own = layout.machine_namespace(index)
        groups = [] if host.systemd_runs_this_computer() else host.cgroup_roots()
        for root in groups:
            (root / own).mkdir(exist_ok=True)
        self.cgroups = tuple(str(root / own) for root in groups)

        def enter_cgroups() -> None:
            for group in self.cgroups:
                Path(group, "cgroup.procs").write_text("0")

        with self.lab.console(self.machine).open("ab") as console:
            process = subprocess.Popen(
                nspawn_command(self.lab, self.machine, self.boots),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                cwd="/",
                env={**host.environment(), "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
                preexec_fn=enter_cgroups,
            )
        self._note("running", nspawn=host.Process.of(process.pid))
        return process.wait()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        # Whoever stops the supervisor also ends the machine; it only must not boot again.
        self.stopping = True

    def _note(
        self, phase: str, *, nspawn: host.Process | None = None, exit_status: int | None = None
    ) -> None:
        self.lab.save_running(
            self.machine,
            Running(
                supervisor=self.me,
                nspawn=nspawn,
                boots=self.boots,
                phase=phase,
                exit_status=exit_status,
                cgroups=self.cgroups,
            ),
        )


def nspawn_command(lab: Lab, kept: Machine, boot: int) -> tuple[str, ...]:
    """The call that boots a machine, for the time given."""
    layout = lab.layout
    name = layout.machine_namespace(kept.index)
    scope: tuple[str, ...] = ()
    if host.systemd_runs_this_computer():
        # systemd hands out the control group; the machine manages what is below it. That of the
        # boot before may still be there for a moment.
        scope = ("systemd-run", "--scope", "--quiet", "--collect", f"--unit={name}-{boot}",
                 "--property=Delegate=yes")  # fmt: skip
    return (
        *scope,
        "systemd-nspawn",
        "--boot",
        "--quiet",
        "--settings=no",
        "--register=no",
        "--keep-unit",
        f"--machine={name}",
        f"--hostname={kept.name}",
        f"--directory={lab.root(kept)}",
        f"--network-namespace-path={host.NETNS_DIRECTORY / name}",
        "--capability=CAP_NET_ADMIN",
        "--resolv-conf=off",
        "--timezone=off",
        "--link-journal=no",
        "--console=passive",
    )


def remove_cable(lab: Lab, kept: Machine) -> None:
    """Remove the machine's namespace and its cable, if there are any."""
    host.run_quietly(("ip", "link", "delete", lab.layout.machine_link(kept.index)))
    host.run_quietly(("ip", "netns", "delete", lab.layout.machine_namespace(kept.index)))


def main(lab_name: str, machine_name: str) -> int:
    """Keep the machine once whoever started us has put us on record and says go."""
    if sys.stdin.readline() != "go\n":
        return 1
    lab = state.load(lab_name)
    if lab is None:
        print(f"no lab {lab_name!r}", flush=True)
        return 1
    supervisor = Supervisor(lab, lab.machine(machine_name))
    try:
        return supervisor.run()
    except (LabError, OSError) as error:
        print(error, flush=True)
        supervisor._note("failed")
        return 1
