"""Argument vectors that fixes share. Pure.

They are run in order, each by itself and without a shell, whatever became of the one before. Text
of evidence stands in one only as a single argument whose type
:mod:`ptslink.doctor.admission` has checked.
"""

from __future__ import annotations

Commands = tuple[tuple[str, ...], ...]


def provision(*tags: str) -> Commands:
    """Run the playbook again, those *tags* alone if any are given."""
    chosen = ("--tags", ",".join(tags)) if tags else ()
    return (("ansible-playbook", "-i", "INVENTORY", "site.yml", *chosen),)


#: Puts nginx's site file back as the role writes it, tests, and reloads.
PROVISION_NGINX = provision("nginx_proxy")
PROVISION_SERVER = provision("pts_server")
PROVISION_TLS = provision("tls_certificate", "nginx_proxy")
#: A configuration that does not pass is not taken over by the reload either.
RELOAD: Commands = (("nginx", "-t"), ("systemctl", "reload", "nginx"))


def journal(*units: str, lines: int = 100) -> tuple[str, ...]:
    """Show the last *lines* of what *units* wrote."""
    chosen = [word for unit in units for word in ("-u", unit)]
    return ("journalctl", *chosen, "-n", str(lines), "--no-pager")


def written(file: str, *lines: str) -> tuple[str, ...]:
    """Write *lines* into *file*, both without quotes and backslashes: awk needs no shell for it."""
    shown = "\\n".join(lines)
    return ("awk", f'BEGIN {{ print "{shown}" > "{file}" }}')
