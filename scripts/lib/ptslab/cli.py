"""The command line of scripts/lab."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ptslab import host, lab, state
from ptslab.errors import LabError, UsageError
from ptslab.inventory import host_variables, inventory
from ptslab.layout import DEFAULT_LAB, DEFAULT_SUITE, SUITES, parse_machines

DESCRIPTION = """\
Throw-away Debian machines behind a site router, on this computer.

    controllers --- router ---- bridge ---- this computer ---- Internet
    (namespace)     (NAT)       |    |      (gateway, control node)
                            server  server2 ...   real systemd, real sshd
"""

EPILOG = """\
A first walk:

    scripts/lab prepare                      install what labs need (apt-get)
    scripts/lab up                           one Debian 12 machine called server
    scripts/lab ssh server -- uname -a
    scripts/lab exec controller -- curl http://10.77.0.10/
    ansible-playbook -i inventory/lab site.yml
    scripts/lab down                         removes every trace

Several labs stand side by side: --lab NAME, or PTSLINK_LAB in the environment.
Exit status: 0 done, 1 failed, 2 bad arguments or something missing on this
computer; ssh and exec give the status of the command they ran.
"""


OF = (
    "a file or directory that went into the snapshot, repeatable: it is used again only while "
    "these are what they were"
)


def parser() -> argparse.ArgumentParser:
    """The whole command line, with its help."""
    top = argparse.ArgumentParser(
        prog="scripts/lab",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, text: str, *, which_lab: bool = True) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if which_lab:
            made.add_argument(
                "--lab",
                default=os.environ.get("PTSLINK_LAB") or DEFAULT_LAB,
                metavar="NAME",
                help="which lab (default: $PTSLINK_LAB, else 'lab')",
            )
        return made

    verb("prepare", "install the Debian packages a lab needs", which_lab=False)

    cache = verb("cache", "make the root file systems only", which_lab=False)
    cache.add_argument(
        "--suite", action="append", choices=SUITES, help=f"repeatable (default {DEFAULT_SUITE})"
    )
    cache.add_argument("--refresh", action="store_true", help="make it anew though it is there")

    raise_ = verb("up", "raise a lab, or add machines to it, and wait for ssh")
    raise_.add_argument(
        "--machine",
        action="append",
        default=[],
        metavar="NAME[=SUITE]",
        help=f"repeatable; suites {', '.join(SUITES)} (default server={DEFAULT_SUITE})",
    )
    raise_.add_argument(
        "--no-mirror",
        action="store_true",
        help="new machines reach nothing beyond this computer and the lab",
    )
    raise_.add_argument(
        "--from",
        dest="begin_from",
        metavar="SNAPSHOT",
        help="new machines begin from this snapshot; with the --of it was taken with",
    )
    raise_.add_argument("--of", action="append", default=[], type=Path, metavar="PATH", help=OF)
    raise_.add_argument("--json", action="store_true", help="describe the lab as JSON on stdout")

    lower = verb("down", "take a lab down and remove every trace of it")
    lower.add_argument("--all", action="store_true", help="every lab on this computer")

    status = verb("status", "say what is up", which_lab=False)
    status.add_argument("--lab", metavar="NAME", help="this lab only (default: all)")
    status.add_argument("--json", action="store_true", help="as JSON")

    ssh = verb("ssh", "log in to a machine, or run a command there")
    ssh.add_argument("machine")
    ssh.add_argument(
        "command",
        nargs="*",
        help="after --; one word is a shell line, several words are passed on as they are",
    )

    enter = verb("exec", "run a command in the controllers' or the router's namespace, "
                         "or inside a machine past its sshd and firewall")  # fmt: skip
    enter.add_argument("where", help="controller, router or a machine")
    enter.add_argument("command", nargs="+", help="after --")

    listing = verb("inventory", "print the lab as an Ansible inventory (JSON)")
    listing.add_argument("--list", action="store_true", help="the whole inventory (the default)")
    listing.add_argument("--host", metavar="MACHINE", help="the variables of one machine")

    for name in ("log", "console"):
        log = verb(name, "print the console of a machine")
        log.add_argument("machine")
        log.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")

    for name, text in (
        ("reboot", "reboot a machine from inside and wait for ssh"),
        ("start", "switch a machine on again"),
    ):
        verb(name, text).add_argument("machine")
    stop = verb("stop", "switch a machine off; its disk stays")
    stop.add_argument("machine")
    stop.add_argument("--hard", action="store_true", help="pull the plug")

    taking = verb("snapshot", "keep what a machine is now, for others to begin from (up --from)")
    taking.add_argument("machine")
    taking.add_argument("name", help="the snapshot's")
    taking.add_argument("--of", action="append", default=[], type=Path, metavar="PATH", help=OF)

    disk = verb("disk", "mount a small disk in a running machine, to fill it")
    disk.add_argument("machine")
    disk.add_argument("path", help="directory of the machine, made if it is missing")
    disk.add_argument(
        "--megabytes", type=int, default=32, metavar="N", help="size (default %(default)s)"
    )

    cut = verb("cut-mirror", "leave machines nothing but this computer and the lab")
    cut.add_argument("machine", nargs="*", help="default: all of them")
    cut.add_argument(
        "--silent", action="store_true", help="drop without an answer instead of refusing"
    )
    verb("restore-mirror", "undo cut-mirror for every machine of the lab")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    chosen = parser().parse_args(arguments)
    try:
        return _run(chosen)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(f"lab: {note}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("lab: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1


def _run(chosen: argparse.Namespace) -> int:
    started = time.monotonic()
    match chosen.verb:
        case "prepare":
            return _prepare(started)
        case "cache":
            host.require_root("scripts/lab cache")
            host.require_tools()
            images = lab.make_images(
                chosen.suite or [DEFAULT_SUITE], started=started, refresh=chosen.refresh
            )
            print("\n".join(str(path) for path in images.values()))
            return 0
        case "up":
            raised = lab.up(
                chosen.lab,
                parse_machines(chosen.machine),
                mirror=not chosen.no_mirror,
                begin_from=chosen.begin_from,
                of=chosen.of,
                started=started,
            )
            if chosen.json:
                print(json.dumps(lab.describe(raised), indent=2))
            return 0
        case "down":
            return _down(chosen, started)
        case "status":
            return _status(chosen)
        case "inventory":
            found = lab.require(chosen.lab)
            data = (
                host_variables(found, found.machine(chosen.host))
                if chosen.host
                else inventory(found)
            )
            print(json.dumps(data, indent=2))
            return 0
    return _run_on_lab(chosen, lab.require(chosen.lab), started)


def _run_on_lab(chosen: argparse.Namespace, found: state.Lab, started: float) -> int:
    match chosen.verb:
        case "ssh":
            found.machine(chosen.machine)
            command = ["ssh", "-F", str(found.ssh_config), chosen.machine]
            if chosen.command:
                line = chosen.command
                command += ["--", line[0] if len(line) == 1 else shlex.join(line)]
            os.execvp("ssh", command)
        case "exec":
            entered = lab.enter_command(found, chosen.where, chosen.command)
            os.execvp(entered[0], entered)
        case "log" | "console":
            path = found.console(found.machine(chosen.machine))
            os.execvp("tail", ["tail", "-n", "+1", *(["-F"] if chosen.follow else []), str(path)])
        case "reboot":
            lab.reboot_machine(found, chosen.machine, started=started)
        case "start":
            lab.start_machine(found, chosen.machine, started=started)
        case "stop":
            lab.stop_machine(found, chosen.machine, hard=chosen.hard)
        case "snapshot":
            print(
                lab.take_snapshot(found, chosen.machine, chosen.name, of=chosen.of, started=started)
            )
        case "disk":
            lab.add_disk(found, chosen.machine, chosen.path, chosen.megabytes)
        case "cut-mirror":
            lab.cut_mirror(found, chosen.machine, silent=chosen.silent)
        case "restore-mirror":
            lab.restore_mirror(found)
        case other:
            raise UsageError(f"verb {other!r} is not known")
    return 0


def _prepare(started: float) -> int:
    host.require_root("scripts/lab prepare")
    packages = host.missing_packages()
    if not packages:
        host.say("everything a lab needs is installed", started=started)
        return 0
    host.say(f"installing {' '.join(packages)}", started=started)
    settings = {**host.environment(), "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "-q", "update"],
        ["apt-get", "-q", "install", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(
            command, env=settings, check=False, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode != 0:
            print("\n".join(done.stdout.splitlines()[-15:]), file=sys.stderr)
            raise LabError(f"{' '.join(command)} failed; its last lines are above")
    host.require_tools()
    host.say("installed", started=started)
    return 0


def _down(chosen: argparse.Namespace, started: float) -> int:
    names = state.names() if chosen.all else [chosen.lab]
    host.require_root("scripts/lab down")
    for name in names:
        if not lab.down(name, started=started):
            host.say(f"lab {name}: not up", started=started)
    if chosen.all and not names:
        host.say("no lab is up", started=started)
    return 0


def _status(chosen: argparse.Namespace) -> int:
    host.require_root("scripts/lab status")
    found = [lab.describe(one) for one in state.labs() if chosen.lab in (None, one.name)]
    if chosen.json:
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        print("no lab is up")
    for one in found:
        print(f"{one['lab']}: {one['phase']}, slot {one['slot']}, {one['network']}, "
              f"controllers behind {one['router']['wan_address']}")  # fmt: skip
        for name, m in one["machines"].items():
            how = f"running, boot {m['boots']}" if m["running"] else "off"
            print(f"    {name:<16} {m['address']:<13} {m['suite']:<9} {how}")
        print(f"    ssh -F {one['ssh_config']} MACHINE")
    return 0
