"""The probe runs this package where nothing is installed: standard library only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[3] / "src" / "ptslink" / "handshake"
FORBIDDEN = {"msgspec", "websockets", "click", "prometheus_client", "asyncio", "sqlite3"}


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOM.glob("[a-z]*.py")))
def test_each_module_needs_the_standard_library_alone(name: str) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOM.parents[1])!r});"
        f"import ptslink.handshake.{name};"
        f"print(*({FORBIDDEN!r} & set(sys.modules)))"
    )
    # -I -S: neither the environment's packages nor the current directory.
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True
    )
    assert found.stdout.split() == []
