"""An upgrade goes host by host, canary first, and ends where one fails.

The playbooks as they are, over roles that only say on which host they are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
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
PUT_BACK = """
- ansible.builtin.set_fact: {__run_record_back: {record: good, difference: the release}}
- ansible.builtin.debug: {msg: "({{ inventory_hostname }} has put_back)"}
"""


@dataclass(frozen=True)
class Ended:
    """How a run ended; ``done`` are (host, role) in order."""

    status: int
    said: str
    done: list[tuple[str, str]]

    def with_role(self, role: str) -> list[str]:
        return [host for host, done in self.done if done == role]


@pytest.fixture
def upgrade(tmp_path: Path) -> Callable[..., Ended]:
    """Runs playbooks/upgrade.yml for hosts a to d; keywords are variables of a host."""
    shutil.copytree(ROOT / "playbooks", tmp_path / "playbooks")
    shutil.copy(ROOT / "ansible.cfg", tmp_path)
    (tmp_path / "playbooks" / "vars" / "wiring.yml").write_text("__ptslink_bundle_given: false\n")
    for role in (ROOT / "roles").iterdir():
        for entry in (role / "tasks").glob("*.yml"):
            stub = tmp_path / "roles" / role.name / "tasks" / entry.name
            stub.parent.mkdir(parents=True, exist_ok=True)
            stub.write_text(ROLE.replace("ROLE", role.name) if entry.stem == "main" else "[]\n")
    (tmp_path / "roles" / "run_record" / "tasks" / "put_back.yml").write_text(PUT_BACK)

    def run(*arguments: str, **hosts: dict[str, str]) -> Ended:
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
        playbook = Path(sys.executable).with_name("ansible-playbook")
        ended = subprocess.run(
            [playbook, "--inventory=hosts.yml", "playbooks/upgrade.yml", *arguments],
            cwd=tmp_path,
            env={**os.environ, "ANSIBLE_CONFIG": "ansible.cfg", "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        done = re.findall(r"\((\w) has (\w+)\)", ended.stdout)
        return Ended(ended.returncode, " ".join((ended.stdout + ended.stderr).split()), done)

    return run


def batches(hosts: list[str], sizes: list[int]) -> list[set[str]]:
    """Hosts in order, cut into batches; within one there is no order."""
    found = []
    for size in sizes:
        found.append(set(hosts[:size]))
        hosts = hosts[size:]
    assert not hosts
    return found


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["a", "b", "c", "d"]),
        (["-e", "upgrade_batch=50%", "-e", "upgrade_canary=d"], ["d", "ab", "c"]),
    ],
)
def test_the_canary_comes_first_and_the_others_in_batches(
    upgrade: Callable[..., Ended], arguments: list[str], expected: list[str]
) -> None:
    ended = upgrade(*arguments)
    assert ended.status == 0, ended.said
    sizes = [len(batch) for batch in expected]
    assert batches(ended.with_role("pts_server"), sizes) == [set(batch) for batch in expected]
    # Each batch is proven before the next is touched.
    roles = [role for _, role in ended.done if role in ("pts_server", "link_check")]
    assert roles == [
        role for size in sizes for role in ("pts_server",) * size + ("link_check",) * size
    ]


def test_a_canary_that_fails_is_put_back_and_nobody_else_is_touched(
    upgrade: Callable[..., Ended],
) -> None:
    ended = upgrade(a={"fails": "link_check"})
    assert ended.status != 0
    assert ended.with_role("pts_server") == ["a"]
    assert ended.with_role("put_back") == ["a"]
    assert "Failed: link_check works: broken" in ended.said


def test_one_that_fails_later_ends_the_run_behind_its_batch(upgrade: Callable[..., Ended]) -> None:
    ended = upgrade("-e", "upgrade_batch=2", b={"fails": "nginx_proxy"})
    assert ended.status != 0
    assert set(ended.with_role("link_check")) == {"a", "c"}, "the other of its batch is finished"
    assert ended.with_role("put_back") == ["b"]
    assert set(ended.with_role("pts_server")) == {"a", "b", "c"}


def test_one_that_is_lost_on_the_way_ends_the_run(upgrade: Callable[..., Ended]) -> None:
    ended = upgrade("-e", "upgrade_batch=2", b={"lost": "pts_server"})
    assert ended.status != 0
    assert set(ended.with_role("pts_server")) == {"a", "c"}
    assert "b failed: nothing is done to d or any host after" in ended.said
    assert re.search("--limit '+all:!b'", ended.said)


def test_one_that_is_refused_leaves_all_as_they_are(upgrade: Callable[..., Ended]) -> None:
    ended = upgrade(d={"fails": "preflight"})
    assert ended.status != 0
    assert set(ended.with_role("preflight")) == set("abc")
    assert ended.with_role("pts_server") == []
    assert "d failed: nothing is done to a or any host after" in ended.said


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("upgrade_canary=x", "one host of a, b, c, d"),
        ("upgrade_batch=some", "a number of hosts such as 5"),
    ],
)
def test_what_cannot_be_done_is_refused(
    upgrade: Callable[..., Ended], wrong: str, says: str
) -> None:
    ended = upgrade("-e", wrong)
    assert ended.status != 0
    assert says in ended.said
    assert ended.done == []
