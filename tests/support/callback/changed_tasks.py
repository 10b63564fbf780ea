"""Writes which tasks of a run changed something, or would have, for tests to compare runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: changed_tasks
type: aggregate
short_description: Appends a line of JSON for each run and each changed task of a host
description:
  - >-
    The file is named by the environment variable C(PTSLINK_CHANGED_TASKS); without it nothing is
    written. A run begins with C({"playbook": ..., "check": ...}); each task of a host that changed
    something follows as C({"host": ..., "task": ...}). A run is written whole, when it ends: it may
    have started others.
author: ptslink authors
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible has no types
    """What Ansible looks for."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "changed_tasks"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._path = os.environ.get("PTSLINK_CHANGED_TASKS")
        self._lines: list[str] = []

    def _write(self, **line: Any) -> None:
        self._lines.append(json.dumps(line) + "\n")

    def v2_playbook_on_start(self, playbook: Any) -> None:
        name = Path(playbook._file_name).name
        self._write(playbook=name, check=bool(context.CLIARGS.get("check")))

    def v2_runner_on_ok(self, result: Any) -> None:
        if result._result.get("changed"):
            self._write(host=result._host.get_name(), task=result._task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ARG002
        if self._path:
            with Path(self._path).open("a", encoding="utf-8") as file:
                file.write("".join(self._lines))
