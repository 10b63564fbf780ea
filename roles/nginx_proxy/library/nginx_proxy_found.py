#!/usr/bin/python
"""What nginx has on a host already, and what of it the link would collide with. Changes nothing."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.nginx_proxy_limits import TOKEN

DOCUMENTATION = r"""
module: nginx_proxy_found
short_description: Says what other sites of nginx the link would collide with
description:
  - Reads what C(nginx -T) prints, before anything is changed, and changes nothing.
  - >-
    Returns C(refusals), sentences with file and line for what would keep controllers out, and
    C(displaced), sentences for the catch-all sites of others whose requests the link's server
    block would take. Both are empty where nginx is not installed, or our file has the ports.
options:
  directory: {type: path, default: /etc/nginx, description: The configuration tree.}
  binary: {type: str, default: nginx, description: The nginx to ask.}
  path: {type: str, required: true, description: Our file, below the tree.}
  ports: {type: list, elements: int, required: true, description: Ports of the link.}
  takes_every_name:
    {type: bool, default: true, description: Whether the link's server block takes every name.}
author: ptslink authors
"""

#: What nginx prints before each file of its configuration.
HEADER = re.compile(r"^# configuration file (.*):$", re.MULTILINE)
DPKG = "dpkg-query"


@dataclass(frozen=True)
class Directive:
    """One directive: where it stands, in which blocks, and its words."""

    file: str
    line: int
    context: tuple[str, ...]
    words: tuple[str, ...]
    #: Which server block of the file it is in, as the number of its first token.
    block: int = 0

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def files_in(dump: str) -> dict[str, str]:
    """What ``nginx -T`` printed -> file -> text."""
    parts = HEADER.split(dump)
    return dict(zip(parts[1::2], (part.removeprefix("\n") for part in parts[2::2]), strict=True))


def directives(file: str, text: str) -> Iterator[Directive]:
    """The directives of one file, those that open a block among them."""
    context: list[str] = []
    blocks: list[int] = []
    words: list[str] = []
    line = 1
    for token in TOKEN.finditer(text):
        said = token[0]
        if said.startswith("#"):
            continue
        if not words:
            line = text.count("\n", 0, token.start()) + 1
        if said not in "{};":
            words.append(said.strip("\"'"))
            continue
        if words:
            block = blocks[-1] if blocks else 0
            yield Directive(file, line, tuple(context), tuple(words), block)
        if said == "{":
            context.append(words[0] if words else "")
            blocks.append(token.start() if context[-1] == "server" else (blocks or [0])[-1])
        elif said == "}" and context:
            context.pop()
            blocks.pop()
        words = []


def port_of(address: str) -> int:
    """The port of what ``listen`` is given; 0 of a socket file."""
    if address.startswith("unix:"):
        return 0
    found = re.search(r"(?:^|:)(\d+)$", address)
    return int(found[1]) if found else 80


def reads(found: Collection[Directive], directory: Path, path: str) -> bool:
    """Whether nginx would read a new file of its tree, in the http block."""
    ours = str(directory / path)
    return any(
        fnmatch.fnmatchcase(ours, str(directory / one.words[1]))
        for one in found
        if one.words[0] == "include"
        and len(one.words) > 1
        and not {"server", "location", "stream", "mail", "events"} & set(one.context)
    )


def collisions(found: Collection[Directive], ports: Collection[int]) -> list[str]:
    """Sentences for what others ask of the link's ports that no controller does."""
    return [
        f"{one.place} has `{' '.join(one.words)};`: nginx then awaits the PROXY protocol of "
        f"everybody on port {port_of(one.words[1])}, and controllers do not speak it. Fix: take "
        "controllers on another port (nginx_proxy_listeners), or that site"
        for one in found
        if one.words[0] == "listen"
        and "server" in one.context
        and "stream" not in one.context
        and "proxy_protocol" in one.words
        and port_of(one.words[1]) in ports
    ]


def catch_alls(found: Collection[Directive], ports: Collection[int]) -> list[Directive]:
    """Where sites are the default of a port of the link's."""
    return [
        one
        for one in found
        if one.words[0] == "listen"
        and "server" in one.context
        and {"default_server", "default"} & set(one.words)
        and port_of(one.words[1]) in ports
    ]


def distributions(file: str) -> bool:
    """Whether a file is as the distribution's package brought it."""
    try:
        digest = hashlib.md5(Path(file).resolve().read_bytes(), usedforsecurity=False).hexdigest()
        done = subprocess.run(
            [DPKG, "--show", "--showformat=${Conffiles}\n", "nginx-common"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return False
    return f"{Path(file).resolve()} {digest}" in done.stdout


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "default": "/etc/nginx"},
            "binary": {"type": "str", "default": "nginx"},
            "path": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
            "takes_every_name": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    directory, path = Path(module.params["directory"]), module.params["path"]
    ports = set(module.params["ports"])
    result: dict[str, Any] = {"changed": False, "refusals": [], "displaced": []}
    binary = module.get_bin_path(module.params["binary"])
    ours = directory / path
    old = ours.read_text(encoding="utf-8", errors="replace") if ours.is_file() else ""
    taken = {port_of(one.words[1]) for one in directives(path, old) if one.words[0] == "listen"}
    if binary is None or ports <= taken:
        module.exit_json(**result)
    done = subprocess.run(
        [binary, "-T", "-q"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        if not old:  # ours may be what is wrong, and about to be put right
            result["refusals"] = [
                "nginx refuses its configuration as it is: "
                f"{' | '.join(done.stderr.strip().splitlines())}. Fix: mend it first (nginx -t "
                "says when)"
            ]
        module.exit_json(**result)
    found = [
        one
        for file, text in files_in(done.stdout).items()
        if file != str(ours)
        for one in directives(file, text)
    ]
    if not reads(found, directory, path):
        result["refusals"].append(
            f"nothing in {directory}/nginx.conf includes {ours.parent}/*.conf: nginx would not "
            f"read our file. Fix: put `include {ours.parent}/*.conf;` into its http block"
        )
    result["refusals"] += collisions(found, ports)
    if module.params["takes_every_name"] and not old:
        result["displaced"] = [
            f"{one.place} is the site for every name no other has on port {port_of(one.words[1])}"
            for one in catch_alls(found, ports)
            if not distributions(one.file)
        ]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
