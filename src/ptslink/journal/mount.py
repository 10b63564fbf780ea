"""What a directory is mounted from.

Preflight sends this file to machines that have nothing of ours: the standard library alone.
"""

from __future__ import annotations

import re
from pathlib import Path


def mount_of(directory: Path, mounts: str) -> dict[str, str]:
    """Type, point and options of a directory's file system.

    Args:
        mounts: text of /proc/self/mountinfo (proc(5)).

    Returns:
        ``type``, ``point`` and ``options`` (those of the file system itself); empty where unknown.
    """
    found, longest = {"type": "", "point": "", "options": ""}, -1
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields.split()[4]))
        # Of two mounts at one place, the later one hides the other.
        if directory.is_relative_to(point) and len(point.parts) >= longest:
            words = rest.split()
            found = {"type": words[0], "point": str(point), "options": words[-1]}
            longest = len(point.parts)
    return found
