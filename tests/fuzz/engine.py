"""One target under atheris: ``python -m tests.fuzz.engine TARGET LIBFUZZER_OPTION...``.

Started by ``python -m tests.fuzz``, which gives it its directories and its time.
"""

from __future__ import annotations

import sys

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

with atheris.instrument_imports(include=["ptslink", "websockets", "tomllib"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
