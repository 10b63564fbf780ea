"""``ptslink ask``: a question to a connected controller, over the admin socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

import click

from ptslink.server.command import load_or_exit
from ptslink.server.downlink import ALLOWED


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("/etc/ptslink/ptslink.toml"),
    show_default=True,
)
@click.argument("controller")
@click.argument("question", type=click.Choice(ALLOWED))
def ask(config_path: Path, controller: str, question: str) -> None:
    """Ask a connected CONTROLLER a QUESTION and print its reply as JSON.

    The questions change nothing at the controller. Exit 1: no reply, or not connected.
    """
    admin = load_or_exit(config_path).admin
    if admin.socket is None:
        raise click.ClickException("admin.socket is empty; commands need it")
    connection = _UnixConnection(admin.socket, admin.command_seconds + 5)
    try:
        body = json.dumps({"Type": question})
        connection.request("POST", f"/controllers/{controller}/command", body)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise click.ClickException(f"{admin.socket}: {error}") from error
    finally:
        connection.close()
    click.echo(json.dumps(content, indent=2))
    raise SystemExit(0 if answer.status == 200 and not content.get("error") else 1)
