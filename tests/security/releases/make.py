"""Writes the journal of this release as SQL: ``python -m tests.security.releases.make``.

Run it once a release, before the schema changes, and keep what it writes:
`tests/security/test_read_back.py` reads the journal of every release with the code of today.
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from tests.security.hard import CONTROLLER, HARD
from tests.support.journals import NOW, put

from ptslink import version
from ptslink.journal.entry import Evidence
from ptslink.journal.store import Store


def main() -> None:
    """Write ``VERSION.sql`` beside this file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "journal.db")
        store = Store(path)
        put(store, *HARD.values())
        store.write([], [Evidence("attempt", NOW, CONTROLLER, "::1", "accepted", "{}")])
        store.close()
        with sqlite3.connect(path) as connection:
            lines = [*connection.iterdump()]
            for pragma in ("application_id", "user_version"):
                (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
                lines.append(f"PRAGMA {pragma} = {value};")
    Path(__file__).with_name(f"{version()}.sql").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
