"""Reading a journal beside the server that writes it: read-only, never in its way."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ptslink.jsonpts.confirmation import is_upload
from ptslink.jsonpts.envelope import decode


class JournalMissing(Exception):
    """There is no journal at the path."""


@contextmanager
def open_reader(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the journal file.

    Raises:
        JournalMissing: no file there.
        sqlite3.Error: it cannot be read.
    """
    if not path.is_file():
        raise JournalMissing(f"{path} does not exist; has the server run with this configuration?")
    uri = path.resolve().as_uri() + "?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=5.0)) as connection:
        connection.execute("PRAGMA query_only = ON")
        yield connection


def summary(connection: sqlite3.Connection) -> dict[str, Any]:
    """What the journal holds: ``{"messages": n, "records": {type: n}, "controllers": [...]}``.

    ``records`` counts facts by their Type. Of UploadStatus only the latest and samples are kept;
    it counts the samples. ``others`` counts, by Type, packets that are no uploads, such as replies
    to commands, in messages without a record.
    """
    execute = connection.execute
    (messages,) = execute("SELECT count(*) FROM messages").fetchone()
    records = dict(
        execute(
            "SELECT types.name, count(*) FROM records JOIN types ON types.id = records.type"
            " GROUP BY types.name ORDER BY types.name"
        )
    )
    (status,) = execute("SELECT count(*) FROM status_latest").fetchone()
    (samples,) = execute("SELECT count(*) FROM status_history").fetchone()
    if samples:
        records["UploadStatus"] = samples
    (variants,) = execute("SELECT count(*) FROM variants").fetchone()
    controllers = [
        row[0] for row in execute("SELECT pts_id FROM controllers WHERE pts_id <> '' ORDER BY 1")
    ]
    return {
        "messages": messages,
        "records": records,
        "others": _others(connection),
        "controllers": controllers,
        "controllers_with_status": status,
        "variants": variants,
    }


def _others(connection: sqlite3.Connection) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for (raw,) in connection.execute(
        "SELECT raw FROM messages WHERE id IN (SELECT id FROM messages"
        " EXCEPT SELECT message FROM records EXCEPT SELECT message FROM variants)"
    ):
        counts.update(one.type for one in decode(raw).packets if not is_upload(one.type))
    return dict(sorted(counts.items()))
