"""Where a journal is: on a disk of this machine, for one process alone, not for others to read."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ptslink.journal.mount import mount_of
from ptslink.journal.schema import JournalRefused

#: The journal holds names and tag numbers.
MODE: Final = 0o640
#: Bytes written between two reports of progress.
_PIECE: Final = 1 << 20
#: What SQLite puts beside a database.
_BESIDE: Final = ("", "-wal", "-shm")
#: File systems of other machines: their locks and syncs are not what SQLite counts on, and a
#: write-ahead log works on one machine only (https://sqlite.org/wal.html).
_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs"})


class Claim:
    """The journal at the path is this process's own until `release`.

    Args:
        path: the database file; the claim is a lock on ``PATH.lock``.

    Attributes:
        before: identity of the journal that was here when the last claim ended, or "".

    Raises:
        JournalRefused: another process has it.
        OSError: the lock file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._descriptor = self._locked()
        os.fchmod(self._descriptor, MODE)
        self.before = os.pread(self._descriptor, 100, 0).decode("ascii", "replace").strip()

    def _locked(self) -> int:
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, MODE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Somebody may have taken the file away meanwhile: the lock must be on what others
                # find at the path.
                if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                    return descriptor
            except BlockingIOError as error:
                os.close(descriptor)
                raise JournalRefused(
                    "another process writes this journal; there may be one at a time. Find it with"
                    f" `fuser -v {self._path}`, and stop it or give this one another journal.path"
                ) from error
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def remember(self, identity: str) -> None:
        """Keep the identity of the journal that is here for who claims it next."""
        if identity != self.before:
            # Without room on the disk, the next one has nothing to compare with.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, os.pwrite(self._descriptor, identity.encode(), 0))

    def release(self) -> None:
        """Give the journal up. May be called more than once."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def require_local(path: Path) -> None:
    """See that the path is on a disk of this machine.

    Raises:
        JournalRefused: it is on NFS or CIFS.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return
    kind = mount_of(path.parent.resolve(), mounts)["type"]
    if kind in _REMOTE:
        raise JournalRefused(
            f"{path.parent} is on {kind}, a disk of another machine, where no sync can be relied"
            " on; set journal.path to a directory on a disk of this machine"
        )


def make_private(path: Path) -> None:
    """Let nobody else read the database, nor what SQLite puts beside it, whatever the umask.

    A new one is made empty before SQLite opens it: a file's mode is also that of those beside it.

    Raises:
        OSError: it cannot be made, or is not ours.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE))
    for end in _BESIDE:
        # By name: to open and close the database here would end the locks SQLite has on it.
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).chmod(MODE)


def renew_log(path: Path, working: Callable[[], None]) -> None:
    """Bring the write-ahead log that was left behind to the disk, before SQLite reads it.

    After a sync that failed, Linux takes what it could not write for written: SQLite would find
    commits in the page cache that are not on the disk, and put others behind them that a power cut
    then takes away as well. So every byte of the log is written once more and synced. Must be
    called while nobody else writes the journal.

    Args:
        working: called now and then.

    Raises:
        OSError: it cannot be written.
    """
    try:
        descriptor = os.open(path.with_name(path.name + "-wal"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        at = 0
        while piece := os.pread(descriptor, _PIECE, at):
            at += os.pwrite(descriptor, piece, at)
            working()
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
