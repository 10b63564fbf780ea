#!/usr/bin/python
"""The project's own probe, run over several ways to the server at once."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: link_check_probe
short_description: Walks ways to the server as a controller would
description:
  - >-
    Runs C(python -m ptslink.doctor.probe URL --json) for each hop, all at once, and changes
    nothing. A broken hop is a result, not a failure: C(hops) says of each C(ok), C(status) and
    C(cause).
options:
  interpreter: {type: path, required: true, description: A Python that runs the probe.}
  source: {type: path, description: Directory holding the ptslink package if it is not installed.}
  arguments: {type: list, elements: str, default: [], description: Further arguments.}
  credentials:
    type: str
    default: ""
    description: "C(login:password) to come with; never on a command line, never shown."
  trust: {type: str, default: "", description: PEM of the authorities for wss; empty, the system's.}
  in_check_mode:
    type: bool
    default: true
    description: >-
      Whether a dry run walks too. Where it told of changes it did not make, these ways may not be
      there yet; then, and where nothing is installed, C(installed) is false.
  hops:
    type: list
    elements: dict
    required: true
    description: The ways to walk.
    options:
      name: {type: str, required: true, description: What the hop is called.}
      url: {type: str, required: true, description: "Where it leads, as ws://HOST:PORT/PATH."}
author: ptslink authors
"""

#: No probe takes longer, idle period included, before it is given up.
TIME_LIMIT_SECONDS = 180
#: The variable the probe finds its credentials in.
CREDENTIALS = "PTSLINK_LINK_CHECK"


def walk(
    interpreter: str, environment: dict[str, str], arguments: list[str], hop: dict[str, str]
) -> dict[str, Any]:
    """One hop, as the probe saw it."""
    seen: dict[str, Any] = {**hop, "ok": False, "status": None, "accept_ok": False, "steps": []}
    try:
        done = subprocess.run(
            [interpreter, "-m", "ptslink.doctor.probe", hop["url"], "--json", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
            timeout=TIME_LIMIT_SECONDS,
        )
        report = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        said = getattr(error, "stderr", None)
        if isinstance(error, ValueError):
            said = " | ".join(done.stderr.strip().splitlines()[-2:])
        seen["cause"] = f"the probe could not work: {said or error}"
        return seen
    for key in ("ok", "status", "accept_ok", "cause", "steps", "body"):
        seen[key] = report.get(key)
    if not seen["ok"] and not seen["cause"]:
        seen["cause"] = "the probe saw a broken link and named no cause"
    return seen


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "interpreter": {"type": "path", "required": True},
            "source": {"type": "path"},
            "arguments": {"type": "list", "elements": "str", "default": []},
            "credentials": {"type": "str", "default": "", "no_log": True},
            "trust": {"type": "str", "default": ""},
            "in_check_mode": {"type": "bool", "default": True},
            "hops": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "url": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    interpreter, hops = module.params["interpreter"], module.params["hops"]
    there = module.params["in_check_mode"] and Path(interpreter).exists()
    if module.check_mode and not there:
        module.exit_json(changed=False, hops=[], installed=False)
    arguments = list(module.params["arguments"])
    environment = {}
    if module.params["source"]:
        environment["PYTHONPATH"] = module.params["source"]
    if module.params["credentials"]:
        environment[CREDENTIALS] = module.params["credentials"]
        arguments.append(f"--basic-env={CREDENTIALS}")
    with (
        tempfile.NamedTemporaryFile("w", suffix=".pem") as trust,
        ThreadPoolExecutor(max_workers=len(hops) or 1) as pool,
    ):
        if module.params["trust"]:
            trust.write(module.params["trust"])
            trust.flush()
            arguments.append(f"--ca={trust.name}")
        seen = list(pool.map(lambda hop: walk(interpreter, environment, arguments, hop), hops))
    module.exit_json(changed=False, hops=seen, installed=True)


if __name__ == "__main__":
    main()
