"""What the tasks of a run did on each host, and how long they took: for the record of the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: run_record_tasks
type: aggregate
short_description: Remembers which tasks changed something, their differences and times
description:
  - >-
    Says nothing and writes nothing. What it remembers is asked for by the role run_record, whose
    plugins are found wherever the role is; nothing has to be enabled.
  - What a task hides (no_log) never gets here.
author: ptslink authors
"""


@dataclass
class Deeds:
    """What was done on one host."""

    changed: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    #: Role -> seconds its tasks took, waiting for other hosts included.
    roles: dict[str, float] = field(default_factory=dict)


class Run:
    """One run of a playbook as it is seen so far.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._begun: float | None = None
        self._playbook = ""
        self._under_way: dict[tuple[str, str], float] = {}
        self._turns: dict[tuple[str, str], list[Any]] = {}
        self._hosts: dict[str, Deeds] = {}

    def begin(self, playbook: str) -> None:
        self._begun, self._playbook = self._clock(), playbook

    def task_begins(self, host: str, task: str) -> None:
        self._under_way[host, task] = self._clock()

    def item_changed(self, host: str, task: str, result: Mapping[str, Any]) -> None:
        """One turn of a loop changed something."""
        self._turns.setdefault((host, task), []).append(result.get("diff"))

    def task_ends(
        self,
        host: str,
        task: str,
        name: str,
        role: str,
        result: Mapping[str, Any],
        failed: bool = False,
    ) -> None:
        """A task is over on a host."""
        deeds = self._hosts.setdefault(host, Deeds())
        took = self._clock() - self._under_way.pop((host, task), self._clock())
        deeds.roles[role] = deeds.roles.get(role, 0.0) + took
        diffs = [*self._turns.pop((host, task), []), result.get("diff")]
        if failed:
            deeds.failed.append(name)
        if result.get("changed"):
            deeds.changed.append(
                {"task": name, "seconds": round(took, 2), "diffs": [one for one in diffs if one]}
            )

    def of(self, host: str) -> dict[str, Any] | None:
        """What is known of a host so far, differences as they are; None before a run begins."""
        if self._begun is None:
            return None
        deeds = self._hosts.get(host, Deeds())
        return {
            "playbook": self._playbook,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._begun)),
            "seconds": {
                "run": round(self._clock() - self._begun, 2),
                "roles": {role: round(took, 2) for role, took in deeds.roles.items()},
            },
            "changed": list(deeds.changed),
            "failed": list(deeds.failed),
        }


class CallbackModule(CallbackBase):
    """Passes on what Ansible tells."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "run_record_tasks"

    #: Of the class: whoever works for a task is a fork of this process, and finds it there.
    run: ClassVar[Run] = Run()

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self.run.begin(str(getattr(playbook, "_file_name", "")).rpartition("/")[2])

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self.run.task_begins(host.get_name(), task._uuid)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if result.result.get("changed"):
            self.run.item_changed(result.host.get_name(), result.task._uuid, result.result)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._over(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._over(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._over(result, failed=not ignore_errors)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._over(result, failed=True)

    def _over(self, result: Any, failed: bool = False) -> None:
        task = result.task
        role = task._role.get_name() if task._role else "playbook"
        self.run.task_ends(
            result.host.get_name(),
            task._uuid,
            task.get_name(),
            role,
            result.result,
            failed,
        )
