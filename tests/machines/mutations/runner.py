"""One mutation: made, judged by a controller, asked about, mended where that is offered, undone."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from machines.faults.bench import NOBODY_LEAVING, Bench, BenchError
from machines.faults.fault import Fault, Step, controller, host, server
from machines.faults.playbooks import provisioned_by
from machines.faults.runner import verdict_of
from machines.mutations import oracle
from machines.mutations.figures import score
from machines.mutations.mutation import WAYS, Mutation
from machines.mutations.system import System, split_configuration
from ptslink.doctor.cause import Auto
from ptslink.doctor.verdict import Verdict

#: What the machine is left with after a mutation has this long to be healthy again, seconds.
HEALTHY_SECONDS = 8.0
#: How long a device that is itself the mutation tries before somebody looks, seconds.
DEVICE_SECONDS = 4
#: What some mutations run on the machine.
TOOLS = (Path(__file__).with_name("squatter.py"),)
_TROUBLE = (BenchError, OSError, subprocess.SubprocessError)


class NotHealthyError(Exception):
    """The machine is not what it was before a mutation."""


def read(bench: Bench) -> System:
    """The healthy system, as the machine's own tools tell it."""

    def said(line: str) -> str:
        return bench.output(server(line)).stdout

    nginx = {
        path: text
        for path, text in split_configuration(said("nginx -T 2>/dev/null")).items()
        if not path.endswith("mime.types")
    }
    units = {unit: said(f"cat $(systemctl show -p FragmentPath --value {unit})")
             for unit in ("ptslink.service", "ptslink.socket", "nginx.service")}  # fmt: skip
    shown = {
        unit: dict(line.partition("=")[::2] for line in
                   said(f"systemctl show {unit}").splitlines() if "=" in line)
        for unit in units if unit.endswith(".service")
    }  # fmt: skip
    (toml_path,) = re.findall(r"--config (\S+)", units["ptslink.service"])
    toml = said(f"cat {toml_path}")
    return System(
        nginx=nginx,
        units=units,
        toml=toml,
        toml_path=toml_path,
        shown=shown,
        ruleset=said("nft -a list ruleset 2>/dev/null"),
        user_rules=said("cat /etc/ufw/user.rules"),
        files=said(_needed(nginx, toml_path, toml)),
        routes=said("ip route"),
        address=bench.names["server"],
        site=bench.names["wan"],
    )


def _needed(nginx: dict[str, str], toml_path: str, toml: str) -> str:
    """A shell line that tells owner and mode of what the link needs, directories above included."""
    paths = [
        *nginx,
        toml_path,
        # Without its Python the doctor itself could not look.
        "/opt/ptslink/current/bin/ptslink",
    ]
    for text in (*nginx.values(), toml):
        paths += re.findall(r"(?:ssl_certificate\w*|path =|directory =|error_log|access_log)\s+\"?"
                            r"(/[^\s\";]+)", text)  # fmt: skip
    every = {str(above) for path in paths for above in (Path(path), *Path(path).parents)}
    kept = " ".join(sorted(every - {"/", "/etc", "/opt", "/var", "/run", "/var/lib", "/var/log"}))
    return f"stat -L -c '%n|%U|%G|%a|%F' {kept} 2>/dev/null"


def run_one(bench: Bench, mutation: Mutation, keep: Path | None = None) -> dict[str, Any]:
    """One mutation: its result, ready to be written. *keep*: where a miss goes.

    Raises:
        NotHealthyError: the machine was not healthy again afterwards.
    """
    result: dict[str, Any] = {"name": mutation.name, "kind": mutation.kind,
                              "told": mutation.truth.told}  # fmt: skip
    bench.wash()
    try:
        try:
            bench.run(mutation.apply)
            result |= _asked(bench, mutation, keep)
        except _TROUBLE as error:
            result["error"] = str(error)
    finally:
        bench.end_background()
        undone = _undone(bench, mutation)
    if undone:
        raise NotHealthyError(f"{mutation.name}: {undone}")
    return result


def _asked(bench: Bench, mutation: Mutation, keep: Path | None) -> dict[str, Any]:
    """What the controller and the doctor say of a system that is mutated."""
    if mutation.device:
        words = shlex.join(mutation.device)
        bench.run([controller(f"{{python}} {{mutations}}/device.py {words}", background=True),
                   host(f"sleep {DEVICE_SECONDS}")])  # fmt: skip
    outcome = oracle.of(bench, mutation)
    others = [way for way in WAYS if way != mutation.way] if outcome.works else []
    fault = Fault(
        mutation.name, (), url=mutation.way.url,
        vantages=("server",) if mutation.device else ("site", "control", "server"),
        site_options=(*map(bench.filled, mutation.way.doctor),
                      *(("--idle", f"{mutation.quiet:g}") if mutation.quiet else ())),
    )  # fmt: skip
    verdict, seconds, found = verdict_of(bench, fault)
    told = verdict.to_json()
    first = told["findings"][0] if told["findings"] else None
    scored = score(mutation.truth, first) if first else None
    result: dict[str, Any] = {
        "works": outcome.works,
        "why": outcome.why,
        # The way that was looked at is whole; what the server says of another is no false alarm.
        "elsewhere": mutation.chance or not all(oracle.asked(bench, way).works for way in others),
        "healthy": verdict.healthy and verdict.examined,
        "named": first["id"] if first else None,
        "others": [one["id"] for one in told["findings"][1:]],
        "confidence": first["confidence"] if first else None,
        "party": bool(scored and scored.party),
        "exact": bool(scored and scored.exact),
        "seconds": round(seconds, 1),
    }
    if not outcome.works:
        result["mended"] = _mended(bench, mutation, verdict)
    if missed(result):
        _keep(keep, mutation, result | {"findings": told["findings"]}, found)
    return result


def missed(result: dict[str, Any]) -> bool:
    """Whether the doctor was wrong, or less exact than it should be."""
    if "error" in result:
        return False
    if result["works"]:
        return not result["healthy"] and not result["elsewhere"]
    return not result["exact"] or result["mended"] is False


def _mended(bench: Bench, mutation: Mutation, verdict: Verdict) -> bool | None:
    """Whether the fixes that may be applied unasked mend what they claim; None without any.

    Each is run as it is printed; then the controller is asked again.
    """
    fixes = [one.fix for one in verdict.findings if one.fix.auto is Auto.YES]
    if not fixes or mutation.device:
        return None
    for fix in fixes:
        for command in fix.commands:
            if command[0] == "ansible-playbook":
                provisioned_by(bench, command)
            else:
                bench.output(Step("server", _shell(command)))
    deadline = time.monotonic() + HEALTHY_SECONDS
    while time.monotonic() < deadline:
        if oracle.of(bench, mutation).works:
            return True
    return False


def _shell(command: Iterable[str]) -> str:
    words = [word for word in command if word != "sudo"]
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)


def _undone(bench: Bench, mutation: Mutation) -> str:
    """Undo *mutation*, and see the link work by every way; else why not."""
    troubles = []
    for step in (*mutation.undo, NOBODY_LEAVING):
        try:
            bench.run([step])
        except _TROUBLE as error:
            troubles.append(str(error))
    deadline = time.monotonic() + HEALTHY_SECONDS
    waiting = [*WAYS]
    while waiting:
        outcome = oracle.asked(bench, waiting[0])
        if outcome.works:
            del waiting[0]
        elif time.monotonic() > deadline:
            return "; ".join([*troubles, f"{waiting[0].url}: {outcome.why}"])
    return ""


def _keep(
    folder: Path | None, mutation: Mutation, result: dict[str, Any], found: list[dict[str, Any]]
) -> None:
    """A miss as a directory: what is true, what was said, and the evidence."""
    if folder is None:
        return
    room = folder / re.sub(r"[^\w.:-]+", "_", mutation.name)[:120]
    room.mkdir(parents=True, exist_ok=True)
    truth = {
        "mutation": mutation.name,
        "told": mutation.truth.told,
        "parties": [*mutation.truth.parties],
        "things": [*mutation.truth.things],
        "said": result,
    }
    (room / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    (room / "evidence.json").write_text(json.dumps(found, indent=1) + "\n")
