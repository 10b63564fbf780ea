"""Links are left silent after a change on their way; where nothing changed nobody waits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WIRING = ROOT / "playbooks" / "roles" / "wiring" / "vars" / "main.yml"
#: What the roles of a run leave of what a link goes through.
SAID = re.findall(r"\((__\w+) \| default\(__wiring_\w+_not_said\)\)", WIRING.read_text())


def registered_by_roles() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "roles").glob("*/tasks/*.yml"):
        found |= set(re.findall(r"register: (__\w+)", path.read_text()))
    return found


def said(**changed: bool) -> dict[str, Any]:
    return {name: {"changed": changed.get(name, False)} for name in SAID}


#: What a look leaves of roles whose things are in place, and which say nothing then.
IN_PLACE = {
    "__preflight_in_place": {
        "seen": {
            "pts_server": {"release": {"changed": False}},
            "nginx_proxy": {"site": {"changed": False}},
            "host_firewall": {"rules": {"changed": False}},
        }
    }
}

HOSTS: dict[str, tuple[dict[str, Any], bool]] = {
    "nothing_changed": (said(), False),
    "nobody_said_anything": ({}, True),
    "all_is_in_place": (IN_PLACE, False),
    "all_else_is_in_place": ({**IN_PLACE, "__pts_server_laid": {"changed": True}}, True),
    "certificates_changed": ({**said(), "__tls_certificate_result": {"changed": True}}, True),
    "certificates_left_out": ({**said(), "__tls_certificate_result": {"changed": False}}, False),
    **{f"changed{name}": (said(**{name: True}), True) for name in SAID},
}


def test_what_the_wiring_looks_at_is_what_roles_say() -> None:
    assert SAID
    assert {*SAID, "__tls_certificate_result"} <= registered_by_roles()


@pytest.mark.parametrize("arguments", [[], ["--check"]], ids=["run", "dry run"])
def test_a_run_waits_for_silence_only_after_a_change(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"hosts": {name: facts for name, (facts, _) in HOSTS.items()}}})
    )
    (tmp_path / "play.yml").write_text(
        "- hosts: all\n"
        "  gather_facts: false\n"
        f"  vars_files: ['{WIRING}']\n"
        "  tasks:\n"
        "    - ansible.builtin.debug:\n"
        "        msg: 'told {{ {inventory_hostname: link_check_changed} | to_json }} end'\n"
    )
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            "-i",
            "hosts.yml",
            "play.yml",
            *arguments,
        ],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, bool] = {}
    for found in re.findall(r"told (\{.*?\}) end", done.stdout.replace('\\"', '"')):
        told |= json.loads(found)
    expected = {name: changed for name, (_, changed) in HOSTS.items()}
    # A dry run of verify.yml alone proves what is there.
    expected["nobody_said_anything"] = not arguments
    assert told == expected


@pytest.mark.parametrize(
    ("tags", "refused"),
    [
        ([], []),
        (["--tags=nginx_proxy"], ["bare"]),
        (["--tags=verify"], ["bare"]),
        (["--tags=provision,verify"], []),
        (["--tags=preflight"], []),
    ],
    ids=" ".join,
)
def test_a_part_of_a_run_is_refused_where_nothing_is_provisioned(
    tmp_path: Path, tags: list[str], refused: list[str]
) -> None:
    def seen(installed: bool) -> dict[str, Any]:
        return {"__preflight_look": {"seen": {"run_record": {"first": {"installed": installed}}}}}

    hosts = {"bare": seen(False), "provisioned": seen(True), "not_looked_at": {}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    (tmp_path / "play.yml").write_text(
        "- hosts: all\n"
        "  gather_facts: false\n"
        f"  vars_files: ['{WIRING}']\n"
        "  tasks:\n"
        "    - ansible.builtin.debug: {msg: '({{ inventory_hostname }} is refused)'}\n"
        "      when: preflight_limited | length > 0\n"
        "      tags: [always]\n"
    )
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yml", "play.yml", *tags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"\((\w+) is refused\)", done.stdout) == refused
