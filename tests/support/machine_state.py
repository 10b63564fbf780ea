"""What a failed first run must leave as it was, printed as JSON: files, rules, units, listeners.

Runs on the machine, by its own Python. Left out is what packages and the system itself keep.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

PLACES = ("/etc", "/opt", "/usr/local", "/var/lib", "/var/log", "/root", "/home", "/run/systemd")
#: What packages, systemd and logins write while they work.
OTHERS = re.compile(
    r"/etc/[^/]*-$|/etc/(ssl/certs|alternatives|rc.\.d|init\.d|apparmor\.d|ld\.so|mtab|\.pwd\.lock)|"
    r"/var/lib/(dpkg|apt|systemd|ucf|logrotate|pam|private|dbus|polkit|command-not-found)|"
    r"/var/log/(journal|apt|dpkg|alternatives|wtmp|btmp|lastlog|nginx/(access|error)|ufw|private)|"
    r"/run/systemd/(?!transient/ptslink|system)|/root/\.ansible|__pycache__"
)


def said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def files() -> Iterator[tuple[str, list[str]]]:
    """Each path with its kind, mode, owner, and content or target."""
    for place in PLACES:
        for path in [Path(place), *Path(place).rglob("*")]:
            if OTHERS.search(str(path)):
                continue
            try:
                status = path.lstat()
                held = (
                    str(path.readlink())
                    if path.is_symlink()
                    else hashlib.sha256(path.read_bytes()).hexdigest()
                    if path.is_file()
                    else ""
                )
            except OSError:  # it went meanwhile
                continue
            yield str(path), [oct(status.st_mode), f"{status.st_uid}:{status.st_gid}", held]


def rules() -> list[str]:
    """The rules that are loaded, without what traffic counts."""
    printed = said("iptables-save") + said("ip6tables-save") + said("nft", "list", "ruleset")
    lines = re.sub(r"\[\d+:\d+\]|packets \d+ bytes \d+|expires \w+", "", printed).splitlines()
    return [line for line in lines if not line.startswith("#")]


def main() -> None:
    listening = {line.split()[3] for line in said("ss", "-ltnH").splitlines()}
    units = said("systemctl", "list-unit-files", "--state=enabled", "--plain", "--no-legend")
    active = said(
        *("systemctl", "list-units", "--state=active,failed", "--type=service,socket,timer"),
        *("--plain", "--no-legend"),
    )
    state = {
        "files": dict(files()),
        "rules": rules(),
        "enabled": sorted(line.split()[0] for line in units.splitlines()),
        # Those of a login, or that run now and then, come and go.
        "active": sorted(
            line.split()[0]
            for line in active.splitlines()
            if not re.search(r"user@|user-runtime|session|apt-daily|tmpfiles|logrotate|run-", line)
        ),
        "listeners": sorted(listening),
    }
    print(json.dumps(state))


if __name__ == "__main__":
    main()
