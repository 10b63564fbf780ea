"""``ptslink ask``: a question to a connected controller, over the admin socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import click

from ptslink.escape import visible
from ptslink.server.config_option import config_option, load_or_exit
from ptslink.server.downlink import ALLOWED


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def put_question(
    path: Path, controller: str, question: str, seconds: float
) -> tuple[int, dict[str, Any]]:
    """The admin socket's answer: its HTTP status, and what it holds.

    Raises:
        OSError, ValueError, http.client.HTTPException: no answer, or not one of ours.
    """
    connection = _UnixConnection(path, seconds)
    try:
        body = json.dumps({"Type": question})
        connection.request("POST", f"/controllers/{controller}/command", body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@click.command()
@config_option()
@click.argument("controller")
@click.argument("question", type=click.Choice(ALLOWED))
def ask(config_path: Path, controller: str, question: str) -> None:
    """Ask a connected CONTROLLER a QUESTION and print its reply as JSON.

    The questions change nothing at the controller. Exit 1: no reply, or not connected.
    """
    admin = load_or_exit(config_path).admin
    if admin.socket is None:
        raise click.ClickException("admin.socket is empty; commands need it")
    try:
        status, content = put_question(
            admin.socket, controller, question, admin.command_seconds + 5
        )
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise click.ClickException(f"{admin.socket}: {error}") from error
    click.echo(visible(json.dumps(content, indent=2), keep="\n"))
    raise SystemExit(0 if status == 200 and not content.get("error") else 1)
