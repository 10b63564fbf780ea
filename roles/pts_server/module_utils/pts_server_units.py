"""What systemd says of units, read."""

from __future__ import annotations


def blocks(shown: str) -> dict[str, dict[str, str]]:
    """What ``systemctl show`` prints of several units, by unit."""
    found = {}
    for block in shown.strip().split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        if "Id" in values:
            found[values.pop("Id")] = values
    return found
