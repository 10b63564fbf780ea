#!/usr/bin/python
"""Which firewalls a host has, and which of them are on. Looks only; needs no root."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: host_firewall_found
short_description: Which firewalls a host has, and which of them are on
description:
  - Returns C(installed) and C(active), lists of C(ufw) and C(firewalld) in that order.
options: {}
author: ptslink authors
"""

UFW_CONF = Path("/etc/ufw/ufw.conf")


def ufw_enabled(configuration: str) -> bool:
    """Whether ufw's own file says it is on, now and after a reboot."""
    return re.search(r"^ENABLED=['\"]?yes", configuration, re.MULTILINE | re.IGNORECASE) is not None


def firewalld_on(words: str) -> bool:
    """Whether `systemctl show` says it runs."""
    shown = dict(line.partition("=")[::2] for line in words.splitlines())
    return shown.get("ActiveState") in ("active", "activating", "reloading")


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    installed, active = [], []
    if module.get_bin_path("ufw"):
        installed.append("ufw")
        try:
            if ufw_enabled(UFW_CONF.read_text(encoding="utf-8")):
                active.append("ufw")
        except OSError:
            pass  # installed and never configured
    if module.get_bin_path("firewall-cmd"):
        installed.append("firewalld")
        shown = subprocess.run(
            ["systemctl", "show", "--property=ActiveState", "firewalld.service"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        if firewalld_on(shown):
            active.append("firewalld")
    module.exit_json(changed=False, installed=installed, active=active)


if __name__ == "__main__":
    main()
