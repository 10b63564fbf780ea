"""What keeps a run from root, and how it confirms a firewall, with a sudo and an ssh of our own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def run(directory: Path, tasks: list[object], **variables: object) -> str:
    """What a play of these tasks on a host of that name prints; it fails."""
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable, **variables},
        "tasks": tasks,
    }
    (directory / "play.yml").write_text(yaml.safe_dump([play]))
    (directory / "roles").symlink_to(ROOT / "roles")
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "station-12,", "play.yml"],
        cwd=directory,
        env={
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_ARGS": "-o ProxyJump=gate",
            "ANSIBLE_BECOME_ALLOW_SAME_USER": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout
    return done.stdout


def stand_in(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason="sudo is asked of root to become another")
def test_a_sudo_that_wants_a_terminal_is_named(tmp_path: Path) -> None:
    sudo = stand_in(
        tmp_path / "sudo", "echo 'sudo: sorry, you must have a tty to run sudo' >&2; exit 1"
    )
    said = run(
        tmp_path,
        [
            {"ansible.builtin.set_fact": {"user_id": "op", "user_uid": 1000, "cacheable": True}},
            {"ansible.builtin.import_role": {"name": "preflight", "tasks_from": "root"}},
        ],
        ansible_connection="local",
        ansible_become_exe=str(sudo),
        ansible_pipelining=True,
        preflight_python="",
    )
    assert "sudo on station-12 wants a terminal (requiretty)" in said
    assert "ANSIBLE_PIPELINING=false" in said
    assert "Defaults:op !requiretty" in said


@pytest.mark.parametrize("by", ["the environment", "the inventory"])
def test_the_confirming_connection_goes_the_way_all_others_go(tmp_path: Path, by: str) -> None:
    asked, armed = tmp_path / "asked", tmp_path / "armed"
    armed.touch()
    here = 'for last; do :; done; PATH=${0%/*}:$PATH exec sh -c "$last"'
    ssh = stand_in(tmp_path / "ssh", f'echo "$*" >>{asked}; {here}')
    jump = {} if by == "the environment" else {"ansible_ssh_args": "-o ProxyJump=door"}
    said = run(
        tmp_path,
        [
            {"ansible.builtin.include_role": {"name": "host_firewall", "tasks_from": "confirm"}},
            {
                "ansible.builtin.fail": {
                    "msg": "{{ __host_firewall_disarmed.rc }} was the end of it"
                }
            },
        ],
        ansible_connection="ssh",
        ansible_ssh_executable=str(ssh),
        ansible_pipelining=True,
        __host_firewall_result={"armed": str(armed)},
        **jump,
    )
    assert "0 was the end of it" in said
    assert not armed.exists(), "the switch is disarmed"
    gate = "ProxyJump=gate" if by == "the environment" else "ProxyJump=door"
    (line,) = [line for line in asked.read_text().splitlines() if "python" in line]
    assert line.index("ControlPath=none") < line.index(gate), "ssh takes the first of two"
