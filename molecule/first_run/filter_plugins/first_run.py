"""How two looks at a machine differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], of: Iterable[str]
) -> list[str]:
    """What went (-) and came (+) in each part that is compared, a line each."""
    lines = []
    for part in of:
        was, now = (
            {f"{name} {held}" for name, held in side[part].items()}
            if isinstance(side[part], Mapping)
            else set(side[part])
            for side in (before, after)
        )
        lines += [f"{part}: -{one}" for one in sorted(was - now)]
        lines += [f"{part}: +{one}" for one in sorted(now - was)]
    return lines


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Any]:
        return {"first_run_differences": differences}
