"""Which programs a fix may name, and what a command of one looks like."""

from __future__ import annotations

import shlex

from ptslink.doctor.cause import Fix

PROGRAMS = {
    "aa-status", "ansible-playbook", "awk", "cat", "chmod", "curl", "df", "dig", "du",
    "fail2ban-client", "findmnt", "firewall-cmd", "getent", "ip", "ip6tables", "iptables",
    "iptables-save", "journalctl", "kill", "ls", "mkdir", "mv", "nft", "nginx", "openssl", "ps",
    "ptslink", "py-spy", "sed", "setsebool", "ss", "sudo", "sysctl", "systemctl", "tail",
    "timedatectl", "tracepath", "ufw",
}  # fmt: skip
#: What only a shell knows.
OPERATORS = {"|", "||", "&", "&&", ";", "<", ">", ">>"}


def assert_runnable(fix: Fix) -> None:
    """Every command of *fix* is an argument vector of a known program."""
    for command in fix.commands:
        assert command[0] in PROGRAMS, command
        assert all(isinstance(word, str) and word.isprintable() for word in command), command
        assert not OPERATORS & set(command), command
        assert not any("$(" in word or "`" in word for word in command), command
    shown = (fix.command or "").splitlines()
    assert [tuple(shlex.split(line)) for line in shown] == list(fix.commands)
