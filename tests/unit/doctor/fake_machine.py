"""A machine that answers collectors with captured outputs."""

from __future__ import annotations

from collections.abc import Mapping

from ptslink.doctor.collect.edge import Output


class FakeMachine:
    """Commands answer by their longest known beginning; any other is not installed."""

    def __init__(
        self,
        commands: Mapping[str, Output] | None = None,
        files: Mapping[str, str] | None = None,
        root: bool = True,
    ) -> None:
        self.commands = dict(commands or {})
        self.files = dict(files or {})
        self.root = root
        self.ran: list[str] = []

    def run(self, *command: str, seconds: float = 5.0) -> Output:  # noqa: ARG002
        line = " ".join(command)
        self.ran.append(line)
        known = [words for words in self.commands if line.startswith(words)]
        if not known:
            return Output("", None, f"{command[0]} is not installed")
        return self.commands[max(known, key=len)]

    def read(self, path: str, *, tail: bool = False) -> str | None:  # noqa: ARG002
        return self.files.get(path)

    def names(self, path: str) -> list[str] | None:  # noqa: ARG002
        return None

    def is_root(self) -> bool:
        return self.root
