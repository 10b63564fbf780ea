#!/usr/bin/python
"""Evidence of several vantage points, judged together."""

from __future__ import annotations

import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: doctor_verdict
short_description: Judges what was seen of one link from several places
description:
  - >-
    Runs on the control node. Joins the evidence that C(python -m ptslink.doctor.collect) and
    C(python -m ptslink.doctor.probe URL --survey) printed, and returns the doctor's verdict and
    which of its fixes may be applied unasked. A piece of evidence is of the place it came from,
    whatever it says itself, and only the server speaks of the server.
options:
  source: {type: path, required: true, description: Directory holding the ptslink package.}
  target: {type: str, required: true, description: What was examined.}
  seconds: {type: float, default: 0.0, description: How long gathering the evidence took.}
  seen:
    type: list
    elements: dict
    required: true
    description: What each place printed.
    options:
      place: {type: str, required: true, description: "Who looked: a host's name."}
      vantage:
        type: str
        required: true
        choices: [site, control, server]
        description: Where it looked from.
      printed: {type: str, default: "", description: The JSON list it printed.}
      trouble: {type: str, default: "", description: Why it printed nothing.}
author: ptslink authors
"""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "target": {"type": "str", "required": True},
            "seconds": {"type": "float", "default": 0.0},
            "seen": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "place": {"type": "str", "required": True},
                    "vantage": {
                        "type": "str",
                        "required": True,
                        "choices": ["site", "control", "server"],
                    },
                    "printed": {"type": "str", "default": ""},
                    "trouble": {"type": "str", "default": ""},
                },
            },
        },
        supports_check_mode=True,
    )
    given = module.params
    sys.path.insert(0, given["source"])
    from ptslink.doctor.admission import read
    from ptslink.doctor.causes import CAUSES
    from ptslink.doctor.evidence import Case, Evidence, Status
    from ptslink.doctor.remedy import remedies
    from ptslink.doctor.report import render
    from ptslink.doctor.verdict import judge

    evidence: list[Any] = []
    for place in given["seen"]:
        try:
            evidence += read(
                place["printed"],
                place["place"],
                vantage=place["vantage"],
                own=place["vantage"] == "server",
            )
        except ValueError as error:
            why = place["trouble"].strip().splitlines()
            said = why[-1] if why else f"what it printed is no evidence ({error})"
            evidence.append(
                Evidence(
                    probe="place.reached",
                    status=Status.SKIPPED,
                    seen=f"{place['place']} could not look: {said}",
                    vantage=place["vantage"],
                    source=place["place"],
                )
            )
    verdict = judge(Case(given["target"], evidence), CAUSES, given["seconds"])
    titles = {cause.id: cause.title for cause in CAUSES}
    chosen = [remedy.to_json() for remedy in remedies(verdict)]
    module.exit_json(
        changed=False,
        verdict=verdict.to_json(),
        examined=verdict.examined,
        report=render(verdict, titles=titles).splitlines(),
        remedies=[remedy for remedy in chosen if not remedy["refused"]],
        refused=[remedy for remedy in chosen if remedy["refused"]],
    )


if __name__ == "__main__":
    main()
