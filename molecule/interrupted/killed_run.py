"""A playbook run killed, with everything it started, the moment it announces a task.

    killed_run.py TASK COMMAND...

The host may still carry out that task, if it was sent already; nothing after it is begun.
Ends with 0 once the run is dead, with 1 if it ended before the task (its output is then shown).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def main(task: str, *command: str) -> int:
    said = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        # A master connection of its own would outlive the run in another session.
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"},
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            said.append(line)
            if line.startswith(("TASK [", "RUNNING HANDLER [")) and task in line:
                os.killpg(run.pid, signal.SIGKILL)
                print(f"killed at: {line.strip()}")
                return 0
    print("".join(said))
    print(f"The run ended with {run.returncode} and never came to {task!r}.")
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
