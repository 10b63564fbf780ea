"""The hops of a link, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def hops(
    host: str, path: str, proxy_ports: Iterable[int], service_port: int | None, where: str
) -> list[dict[str, str]]:
    """Ways to the server at ``host``, the server's own port first; ``where`` ends their names."""
    address = f"[{host}]" if ":" in host else host
    ways = [("server", service_port)] if service_port else []
    ways += [("nginx", port) for port in proxy_ports]
    return [
        {
            "name": f"{what} {where}",
            "url": f"ws://{address}{'' if port == 80 else f':{port}'}/{path}",
        }
        for what, port in ways
    ]


def table(seen: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line a hop: verdict, HTTP status, what it is, where it leads."""
    return [
        f"{'ok    ' if hop['ok'] else 'BROKEN'} {hop['status'] or '---'}  "
        f"{hop['name']:<24} {hop['url']}"
        for hop in seen
    ]


def verdict(seen: Iterable[Mapping[str, Any]]) -> str:
    """Nothing where every hop works, or the sentence that names the first broken one."""
    for hop in seen:
        if not hop["ok"]:
            return f'The link breaks at the hop "{hop["name"]}" ({hop["url"]}): {hop["cause"]}'
    return ""


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "link_check_hops": hops,
            "link_check_table": table,
            "link_check_verdict": verdict,
        }
