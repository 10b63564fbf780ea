"""link_check: the hops from the inside outwards, and which one is to blame."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ptslink.doctor.probe import frames
from ptslink.doctor.probe.frames import Frame
from unit.probe.scripted import Peer, Script, ScriptedServer, right, upgraded

SOURCE = Path(__file__).parents[3] / "src"


@pytest.fixture
def judge(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("link_check/filter_plugins/link_check")


def seen(name: str, ok: bool, status: int | None = 101, cause: str | None = None) -> dict[str, Any]:
    return {"name": name, "url": f"ws://h/{name}", "ok": ok, "status": status, "cause": cause}


def test_hops_go_from_the_server_to_the_proxy(judge: Any) -> None:
    assert judge.hops("h", "p", [80, 8080], 3000, "here") == [
        {"name": "server here", "url": "ws://h:3000/p"},
        {"name": "nginx here", "url": "ws://h/p"},
        {"name": "nginx here", "url": "ws://h:8080/p"},
    ]


def test_an_ipv6_address_is_written_in_brackets(judge: Any) -> None:
    assert judge.hops("2001:db8::1", "p", [], 3000, "x")[0]["url"] == "ws://[2001:db8::1]:3000/p"


def test_the_first_broken_hop_is_to_blame(judge: Any) -> None:
    hops = [
        seen("server", ok=True),
        seen("proxy", ok=False, status=502, cause="nothing answers"),
        seen("outside", ok=False, status=None, cause="refused"),
    ]
    assert judge.verdict(hops) == (
        'The link breaks at the hop "proxy" (ws://h/proxy): nothing answers'
    )
    assert judge.verdict(hops[:1]) == ""


def test_the_table_is_one_line_a_hop(judge: Any) -> None:
    assert judge.table([seen("server", ok=True), seen("out", ok=False, status=None)]) == [
        "ok     101  server                   ws://h/server",
        "BROKEN ---  out                      ws://h/out",
    ]


def impatient(peer: Peer) -> None:
    """As nginx with a proxy_read_timeout shorter than the link's silence."""
    peer.sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while (frame := peer.next_frame()) is not None:
            peer.send_frame(Frame(frames.PONG, frame.payload))


@pytest.fixture
def walked(plugin: Callable[[str], ModuleType]) -> Iterator[Callable[..., dict[str, Any]]]:
    """``walked(name, script, *arguments)``: what the module says of a hop to such a server."""
    probe = plugin("link_check/library/link_check_probe")
    with contextlib.ExitStack() as stack:

        def walk(name: str, script: Script, *arguments: str) -> dict[str, Any]:
            server = ScriptedServer(script, None)
            stack.callback(server.stop)
            hop = {"name": name, "url": server.url}
            seen: dict[str, Any] = probe.walk(
                sys.executable, {"PYTHONPATH": str(SOURCE)}, list(arguments), hop
            )
            return seen

        yield walk


def test_who_cuts_a_silent_link_is_to_blame(
    walked: Callable[..., dict[str, Any]], judge: Any
) -> None:
    hops = [
        walked("server", right, "--idle=0.6"),
        walked("nginx", upgraded(impatient), "--idle=0.6"),
    ]
    assert judge.cut_in_silence(hops)
    assert judge.verdict(hops).startswith('The link breaks at the hop "nginx"')
    assert "of idle" in judge.verdict(hops)


def test_a_link_that_is_not_left_silent_does_not_show_it(
    walked: Callable[..., dict[str, Any]], judge: Any
) -> None:
    hops = [walked("nginx", upgraded(impatient))]
    # It cuts, and does not answer our close: no fault of silence either way.
    assert not judge.cut_in_silence(hops)


def test_a_hop_that_never_opened_was_not_cut_in_silence(judge: Any) -> None:
    assert not judge.cut_in_silence([seen("server", ok=False, cause="refused")])
