"""The playbooks as they are, over roles that only say on which host they are."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.playbooks import Ended, ansible_playbook

ROOT = Path(__file__).parents[2]
#: What a role does here: say that it was there, and fail or find nobody where a host is to.
ROLE = """
- ansible.builtin.raw: "true"
  when: lost | default('') == 'ROLE'
  vars: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}
- name: ROLE works
  ansible.builtin.fail: {msg: broken}
  when: fails | default('') == 'ROLE'
- ansible.builtin.debug: {msg: "({{ inventory_hostname }} has ROLE)"}
"""
#: Entry points beside the main one that a host may fail in; the others do nothing.
ENTRY = """
- name: ROLE/ENTRY works
  ansible.builtin.fail: {msg: broken}
  when: fails | default('') == 'ROLE/ENTRY'
- ansible.builtin.debug: {msg: "({{ inventory_hostname }} has ENTRY)"}
"""
ENTRIES = [
    ("preflight", "reach"),
    ("preflight", "root"),
    ("pts_server", "builder"),
    ("pts_server", "check"),
    ("run_record", "told"),
]
#: A machine is bare to its proof where a host is to be.
LINK_CHECK = """
- ansible.builtin.set_fact: {__link_check_host: {installed: "{{ not bare | default(false) }}"}}
"""
WIRING = """
__ptslink_bundle_given: false
run_record_link: {proven: []}
__wiring_first_run: "{{ first | default(false) }}"
"""
PUT_BACK = """
- ansible.builtin.fail: {msg: "no good run"}
  when: fails | default('') == 'put_back'
- ansible.builtin.set_fact: {__run_record_back: {record: good, difference: the release, notes: {}}}
- ansible.builtin.debug: {msg: "({{ inventory_hostname }} has put_back)"}
"""
TAKE_BACK = """
- ansible.builtin.fail: {msg: "Not all is as it was before this run"}
  when: fails_then | default('') == 'take_back'
- ansible.builtin.set_fact: {__run_record_taken_back: {done: ["no user ptslink"], left: []}}
- ansible.builtin.debug: {msg: "({{ inventory_hostname }} has take_back)"}
"""
LIFT_MASK = """
- ansible.builtin.debug: {msg: "({{ inventory_hostname }} has lift_mask)"}
"""


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Ended]:
    """Runs a playbook of the tree for hosts a to d; keywords are variables of a host.

    Of the keywords, ``cwd`` is where it is started and ``configuration`` the ansible.cfg that
    counts; with None Ansible looks for one itself.
    """
    shutil.copytree(ROOT / "playbooks", tmp_path / "playbooks", symlinks=True)
    for name in ("ansible.cfg", "site.yml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "playbooks" / "roles" / "wiring" / "vars" / "main.yml").write_text(WIRING)
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "controller-settings.txt.j2").write_text("what to type\n")
    for role in (ROOT / "roles").iterdir():
        for entry in (role / "tasks").glob("*.yml"):
            stub = tmp_path / "roles" / role.name / "tasks" / entry.name
            stub.parent.mkdir(parents=True, exist_ok=True)
            stub.write_text(ROLE.replace("ROLE", role.name) if entry.stem == "main" else "[]\n")
    for role_name, entry_point in ENTRIES:
        (tmp_path / "roles" / role_name / "tasks" / f"{entry_point}.yml").write_text(
            ENTRY.replace("ROLE", role_name).replace("ENTRY", entry_point)
        )
    (tmp_path / "roles" / "run_record" / "tasks" / "put_back.yml").write_text(PUT_BACK)
    (tmp_path / "roles" / "run_record" / "tasks" / "take_back.yml").write_text(TAKE_BACK)
    (tmp_path / "roles" / "host_firewall" / "tasks" / "lift_mask.yml").write_text(LIFT_MASK)
    with (tmp_path / "roles" / "link_check" / "tasks" / "main.yml").open("a") as stub_of_proof:
        stub_of_proof.write(LINK_CHECK)

    def run(
        name: str | Path,
        *arguments: str,
        cwd: Path = tmp_path,
        configuration: Path | None = tmp_path / "ansible.cfg",
        **hosts: dict[str, Any],
    ) -> Ended:
        (tmp_path / "hosts.yml").write_text(
            yaml.safe_dump(
                {
                    "forecourt_servers": {
                        "hosts": {host: hosts.get(host, {}) for host in "abcd"},
                        "vars": {
                            "ansible_connection": "local",
                            "ansible_python_interpreter": sys.executable,
                        },
                    }
                }
            )
        )
        inventory = f"--inventory={tmp_path}/hosts.yml"
        ended = ansible_playbook(inventory, name, *arguments, cwd=cwd, configuration=configuration)
        done = re.findall(r"\((\w) has (\w+)\)", ended.stdout)
        return Ended(ended.returncode, " ".join(ended.stdout.split()), done)

    return run
