"""Records as files: each written whole, readable by its owner alone, the oldest forgotten."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def name_of(kind: str) -> str:
    """A name for a record made now (UTC); names sort by time."""
    now = time.time_ns()
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now // 10**9))
    return f"{kind}-{stamp}-{now % 10**9:09}.json"


class Records:
    """Record files in a directory, oldest first by their names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self, kind: str) -> list[str]:
        return sorted(path.name for path in self.directory.glob(f"{kind}-*.json"))

    def read(self, name: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.directory / name).read_text(encoding="utf-8"))
        return record

    def write(self, kind: str, record: Mapping[str, Any], keep: int, name: str = "") -> str:
        """Keep a record and forget the oldest of its kind beyond ``keep``; its name."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = name or name_of(kind)
        partial = self.directory / f".{name}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.directory / name)
        for old in self.names(kind)[:-keep]:
            (self.directory / old).unlink(missing_ok=True)
        return name
