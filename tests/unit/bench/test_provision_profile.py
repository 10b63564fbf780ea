"""Where a run's time went is read from what Ansible prints."""

from __future__ import annotations

import pytest
from benchmarks.provision import profile, runs

OUTPUT = """\
PLAY [Proof] ******************************************************************

TASK [preflight : Facts the roles need are known] *****************************
Sunday 22 November 2026  21:00:00 +0000 (0:00:00.012)       0:00:00.012 *******
ok: [server]

TASK [nginx_proxy : The proxy nginx is installed] *****************************
Sunday 22 November 2026  21:00:01 +0000 (0:00:01.250)       0:00:01.262 *******
changed: [server]

RUNNING HANDLER [nginx_proxy : Reload] ****************************************
Sunday 22 November 2026  21:01:03 +0000 (0:01:02.500)       0:01:03.762 *******

TASK [What is left] ***********************************************************
Sunday 22 November 2026  21:01:04 +0000 (0:00:00.500)       0:01:04.262 *******

PLAY RECAP ********************************************************************
m1    : ok=95   changed=14   unreachable=0    failed=0    skipped=8
m2    : ok=95   changed=2    unreachable=0    failed=0    skipped=8
"""


def test_each_task_has_the_time_that_stands_above_the_next() -> None:
    assert profile.tasks(OUTPUT.splitlines()) == [
        ("preflight : Facts the roles need are known", 1.25),
        ("nginx_proxy : The proxy nginx is installed", 62.5),
        ("nginx_proxy : Reload", 0.5),
        ("What is left", 0.0),
    ]


def test_times_are_added_up_by_role() -> None:
    assert profile.by_role(profile.tasks(OUTPUT.splitlines())) == [
        ("nginx_proxy", pytest.approx(63.0), 2),
        ("preflight", pytest.approx(1.25), 1),
        ("playbook", 0.0, 1),
    ]


def test_changes_of_every_machine_count() -> None:
    assert runs.Timed(1.0, OUTPUT).changed() == 16
