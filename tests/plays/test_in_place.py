"""A role does nothing only where a look found all of its things in place."""

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
ROLES = ROOT / "roles"
LOOKING = ["pts_server", "nginx_proxy", "host_firewall"]
SAME = {"changed": False}
OTHER = {"changed": True}
RELEASE = {**SAME, "installed": True, "ready": True}
IN_FORCE = {**SAME, "stale": {}, "running": ["ptslink.service", "ptslink.socket"]}
SERVER = {"release": RELEASE, "in_force": IN_FORCE, "configuration": SAME, "files": SAME}
PROXY = {"site": {**SAME, "runs": True}, "logs": SAME}
FIREWALL = {"rules": {**SAME, "pending": "", "strangers": []}}

#: (case, role, what was seen, whether it is in place)
CASES: list[tuple[str, str, dict[str, Any], bool]] = [
    ("all is right", "pts_server", SERVER, True),
    ("nobody looked", "pts_server", {}, False),
    ("another release", "pts_server", {**SERVER, "release": {**RELEASE, **OTHER}}, False),
    ("half a release", "pts_server", {**SERVER, "release": {**RELEASE, "installed": False}}, False),
    ("no user", "pts_server", {**SERVER, "release": {**RELEASE, "ready": False}}, False),
    ("another configuration", "pts_server", {**SERVER, "configuration": OTHER}, False),
    ("another unit", "pts_server", {**SERVER, "files": OTHER}, False),
    (
        "not restarted",
        "pts_server",
        {**SERVER, "in_force": {**IN_FORCE, "stale": {"ptslink.service": "newer"}}},
        False,
    ),
    ("does not run", "pts_server", {**SERVER, "in_force": {**IN_FORCE, "running": []}}, False),
    ("all is right", "nginx_proxy", PROXY, True),
    ("nobody looked", "nginx_proxy", {}, False),
    ("another site", "nginx_proxy", {**PROXY, "site": {**OTHER, "runs": True}}, False),
    ("does not run", "nginx_proxy", {**PROXY, "site": {**SAME, "runs": False}}, False),
    ("other logs", "nginx_proxy", {**PROXY, "logs": OTHER}, False),
    ("all is right", "host_firewall", FIREWALL, True),
    ("nobody looked", "host_firewall", {}, False),
    ("other rules", "host_firewall", {"rules": {**OTHER, "pending": ""}}, False),
    ("not confirmed", "host_firewall", {"rules": {**SAME, "pending": "ptslink-undo"}}, False),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """Case by number -> whether its role takes its things for being in place."""
    directory = tmp_path_factory.mktemp("in-place")
    hosts = {
        f"case{number}": {**{f"{name}_seen": {} for name in LOOKING}, f"{role}_seen": seen}
        | {"__asked": f"{{{{ __{role}_in_place }}}}"}
        for number, (_, role, seen, _) in enumerate(CASES)
    }
    (directory / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"hosts": hosts, "vars": {"__nginx_proxy_selinux": False}}})
    )
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars_files": [str(ROLES / role / "vars" / "main.yml") for role in LOOKING],
        "tasks": [
            {
                "ansible.builtin.debug": {
                    "msg": "told {{ {inventory_hostname: __asked} | to_json }} end"
                },
                "vars": {"ansible_facts": {"os_family": "Debian"}},
            }
        ],
    }
    (directory / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "hosts.yml", "play.yml"],
        cwd=directory,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, bool] = {}
    for text in re.findall(r"told (\{.*?\}) end", done.stdout.replace('\\"', '"')):
        told |= json.loads(text)
    return told


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        pytest.param(number, expected, id=f"{role}: {case}")
        for number, (case, role, _, expected) in enumerate(CASES)
    ],
)
def test_a_role_rests_only_where_all_its_things_are_in_place(
    found: dict[str, bool], number: int, expected: bool
) -> None:
    assert found[f"case{number}"] is expected
