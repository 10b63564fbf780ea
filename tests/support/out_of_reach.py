"""Watches a host's ssh port from outside until a file appears, and prints how long it was shut.

python tests/support/out_of_reach.py ADDRESS PORT FILE

Opens a new connection every two seconds, as nothing else proves that new ones get in. Prints the
seconds from the last answer before the longest silence to the first one after it, 0.0 where every
connection was answered; "inf" where the port was still shut at the end. Writes ``FILE.watching``
after the first answer.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

LONGEST_SECONDS = 900
#: A connection that does not log in costs its address a second (PerSourcePenalties of
#: sshd_config(5), OpenSSH 9.8): with more than one a second sshd itself shuts it out.
PAUSE_SECONDS = 1.9
#: Below the pause and the connect time-out together, so that a single lost packet is no silence.
ANSWER_SECONDS = 2.0


def answers(address: str, port: int) -> bool:
    """Whether sshd greets a new connection."""
    try:
        with socket.create_connection((address, port), ANSWER_SECONDS) as connection:
            connection.settimeout(ANSWER_SECONDS)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def watch(address: str, port: int, until: Path) -> float:
    """The longest silence in seconds, from answer to answer."""
    longest, last, silent = 0.0, time.monotonic(), False
    end = last + LONGEST_SECONDS
    while time.monotonic() < end:
        if answers(address, port):
            if silent:
                longest = max(longest, time.monotonic() - last)
            last, silent = time.monotonic(), False
            until.with_name(f"{until.name}.watching").touch()
        else:
            silent = True
        if until.exists():
            break
        time.sleep(PAUSE_SECONDS)
    return float("inf") if silent else longest


if __name__ == "__main__":
    print(f"{watch(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])):.1f}")
