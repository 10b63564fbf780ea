"""Whether this computer can build what a server is installed from."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODULE = Path(__file__).parents[1] / "library" / "pts_server_wheelhouse.py"
#: What the module builds with, beside this Python.
BUILDERS = ("pip", "hatchling")


def built(source: Path, cache: Path) -> bool:
    """Whether any archive of this checkout's release is there."""
    spec = importlib.util.spec_from_file_location(f"{MODULE.stem}_named", MODULE)
    assert spec
    assert spec.loader
    wheelhouse = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(wheelhouse)
    return any(cache.glob(f"py*/ptslink-{wheelhouse.release_name(source)}.tar"))


def builder_complaint(cache: str, source: str) -> str:
    """What this run's Python lacks to build a wheelhouse, or nothing.

    Args:
        cache: where wheelhouses are kept; with one of this release none is built.
        source: the ptslink checkout.
    """
    lacking = [name for name in BUILDERS if importlib.util.find_spec(name) is None]
    if not lacking or built(Path(source), Path(cache)):
        return ""
    return f"{sys.executable} is not the locked environment: it lacks {' and '.join(lacking)}"


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pts_server_builder_complaint": builder_complaint}
