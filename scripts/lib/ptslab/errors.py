"""What can go wrong, in words meant for the person at the keyboard."""


class LabError(Exception):
    """Something failed. The message is one line: what, and what to do. Exit code 1."""

    exit_code = 1


class UsageError(LabError):
    """A bad argument or a missing prerequisite; nothing was changed. Exit code 2."""

    exit_code = 2
