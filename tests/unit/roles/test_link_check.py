"""link_check: the hops from the inside outwards, and which one is to blame."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


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
