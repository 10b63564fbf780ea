"""Small disks: what is asked for is checked before anything is made."""

from __future__ import annotations

import pytest

from ptslab import disk
from ptslab.errors import UsageError


@pytest.mark.parametrize(("path", "size"), [("/var/lib/ptslink", 8), ("/srv", 4096)])
def test_accepted(path: str, size: int) -> None:
    disk.check(path, size)


@pytest.mark.parametrize(
    ("path", "size", "says"),
    [
        ("/", 16, "not / itself"),
        ("var", 16, "absolute"),
        ("/a/../../b", 16, "absolute"),
        ("", 16, "absolute"),
        ("/srv", 7, "8 to 4096"),
        ("/srv", 4097, "8 to 4096"),
    ],
)
def test_refused(path: str, size: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        disk.check(path, size)
