"""The module of the same name, which is called again, with a word, while others install."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):
    """A module prints nothing while it runs: each call waits a while and says who is waited for."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Any:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        began = time.monotonic()
        while True:
            waited = int(time.monotonic() - began)
            result = self._execute_module(
                module_args={**self._task.args, "waited_seconds": waited}, task_vars=variables
            )
            if "waiting_for" not in result:
                return result
            Display().display(
                f"waiting: [{variables.get('inventory_hostname', 'the host')}]: "
                f"{result['waiting_for']} ({int(time.monotonic() - began)} s, "
                f"at most {self._task.args['lock_wait_seconds']})"
            )
