"""Rendering HTTP answers: every refusal says what was wrong and what was expected."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from ptslink.handshake.judge import Rules, Verdict


def phrase(status: int) -> str:
    """The reason phrase of a status code."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def render(
    status: int,
    headers: Iterable[tuple[str, str]],
    body: bytes = b"",
    *,
    keep: bool = True,
    with_body: bool = True,
) -> bytes:
    """A whole answer. Content-Length is always there: the controller insists (PTS-2 protocol 2.5).

    Args:
        keep: whether the TCP connection stays open after it; if not, the answer says so.
        with_body: False for the answer to a HEAD, which has the length but not the body.
    """
    lines = [f"HTTP/1.1 {status} {phrase(status)}"]
    listed = list(headers)
    if not keep:
        named = [value for name, value in listed if name.lower() == "connection"]
        listed = [pair for pair in listed if pair[0].lower() != "connection"]
        listed.append(("Connection", ", ".join(["close", *named])))
    lines += [f"{name}: {value}" for name, value in listed]
    lines.append(f"Content-Length: {len(body)}")
    text = "\r\n".join(lines) + "\r\n\r\n"
    return text.encode("latin-1") + (body if with_body else b"")


def switching(verdict: Verdict) -> bytes:
    """The 101 answer: no length, no body, nothing the controller did not ask for."""
    lines = ["HTTP/1.1 101 Switching Protocols"]
    lines += [f"{name}: {value}" for name, value in verdict.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def document(content: Mapping[str, Any]) -> bytes:
    """A JSON body, one line, ended by a newline so that curl leaves a clean prompt."""
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def explain(verdict: Verdict, rules: Rules, *, port: int) -> dict[str, Any]:
    """The JSON body of a refusal: the fault by name, in words, and how to connect instead.

    Paths and protocol are repeated as the controller's own settings page asks for them: the URI
    without its leading slash (PTS-2 protocol 1.1).
    """
    return {
        "error": verdict.code,
        "message": verdict.reason,
        "expected": {
            "method": "GET",
            "path": f"/{rules.path}",
            "port": port,
            "headers": {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "16 random bytes in base64",
                "X-Pts-Id": "the controller's 24 hexadecimal digits",
            },
        },
        "controller_settings": {
            "server_port": port,
            "request_uri_without_starting_slash": rules.path,
            "use_websocket_communication": True,
        },
    }
