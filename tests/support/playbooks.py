"""Runs of playbooks, and how they ended."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a run ended; ``done`` are (host, role) in order."""

    status: int
    said: str
    done: list[tuple[str, str]]

    def with_role(self, role: str) -> list[str]:
        return [host for host, done in self.done if done == role]


def ansible_playbook(
    *arguments: str | Path, cwd: Path, configuration: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A run, with all it says in ``stdout``.

    Args:
        configuration: the ansible.cfg that counts; with None Ansible looks for one itself.
    """
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
    environment.pop("ANSIBLE_CONFIG", None)
    if configuration:
        environment["ANSIBLE_CONFIG"] = str(configuration)
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def let_it_reload(role: Path) -> None:
    """Have a role change something, and a handler of it say so."""
    with (role / "tasks" / "main.yml").open("a") as tasks:
        tasks.write("- ansible.builtin.debug:\n  changed_when: true\n  notify: Reload\n")
    (role / "handlers").mkdir()
    (role / "handlers" / "main.yml").write_text(
        "- name: Reload\n"
        '  ansible.builtin.debug: {msg: "({{ inventory_hostname }} has reloaded)"}\n'
    )
