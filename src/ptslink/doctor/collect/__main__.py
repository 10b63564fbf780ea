"""``python -m ptslink.doctor.collect``: what a server shows, where only Python is installed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ptslink.doctor.collect import gather
from ptslink.escape import visible

_DESCRIPTION = """\
Look at this server from inside, read-only, and print what was seen as the JSON
list that `ptslink doctor --evidence FILE` reads. Best as root; without root some
looks are skipped and say so. Concludes nothing.
"""


def parser() -> argparse.ArgumentParser:
    """The options: those of ``ptslink doctor --server`` that concern gathering."""
    parsed = argparse.ArgumentParser(
        prog="python -m ptslink.doctor.collect", description=_DESCRIPTION, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parsed.add_argument(
        "--port", dest="ports", type=int, action="append", default=[], metavar="N",
        help="a port the link uses, repeatable (those nginx and the service listen on)",
    )  # fmt: skip
    parsed.add_argument(
        "--peer", dest="peers", action="append", default=[], metavar="ADDRESS",
        help="a site's address as seen here, repeatable",
    )  # fmt: skip
    parsed.add_argument(
        "--watch", type=float, default=0.0, metavar="S", help="count packets for S seconds first"
    )
    parsed.add_argument(
        "--watch-until", type=Path, metavar="FILE", help="end the watch when FILE is there"
    )
    parsed.add_argument(
        "--ask", action="store_true",
        help="ask connected controllers for their settings (changes nothing)",
    )  # fmt: skip
    return parsed


def main(arguments: Sequence[str]) -> int:
    """Gather and print. Bad arguments raise ``SystemExit(2)``."""
    options = parser().parse_args(arguments)
    found = gather(
        ports=tuple(options.ports),
        peers=tuple(options.peers),
        watch=options.watch,
        until=options.watch_until,
        ask=options.ask,
    )
    print(visible(json.dumps([piece.to_json() for piece in found], ensure_ascii=False)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
