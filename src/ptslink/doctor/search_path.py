"""Where the programs are that the doctor asks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

#: sbin is not on everybody's path, and ss or nft may be there alone.
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def search_path(environment: Mapping[str, str] = os.environ) -> str:
    """Where programs are looked for: ``PATH``, then the system's directories.

    Only absolute ones: an empty part or a dot means the working directory, in which anybody may
    have put a program for root to run.
    """
    parts = f"{environment.get('PATH', '')}:{_SYSTEM_PATH}".split(":")
    return ":".join(dict.fromkeys(part for part in parts if part.startswith("/")))
