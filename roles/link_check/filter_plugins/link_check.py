"""The hops of a link, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def hops(
    host: str,
    path: str,
    proxy_ports: Iterable[int],
    service_port: int | None,
    where: str,
    tls_ports: Iterable[int] = (),
) -> list[dict[str, str]]:
    """Ways to the server at ``host``, the server's own port first; ``where`` ends their names."""
    secure = {int(port) for port in tls_ports}
    address = f"[{host}]" if ":" in host else host
    ways = [("server", service_port)] if service_port else []
    ways += [("nginx", port) for port in proxy_ports]
    return [
        {
            "name": f"{what} {where}",
            "url": url(address, int(port), path, tls=what == "nginx" and int(port) in secure),
        }
        for what, port in ways
    ]


def url(address: str, port: int, path: str, tls: bool) -> str:
    """A link as people write it: without the port everybody knows."""
    scheme, known = ("wss", 443) if tls else ("ws", 80)
    return f"{scheme}://{address}{'' if port == known else f':{port}'}/{path}"


def table(seen: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line a hop: verdict, HTTP status, what it is, where it leads; days left if it ends."""
    return [
        f"{'BROKEN' if not hop['ok'] else 'warn  ' if hop.get('warning') else 'ok    '} "
        f"{hop['status'] or '---'}  {hop['name']:<24} {hop['url']}"
        + (f", {hop['days']} days left" if hop.get("days") is not None else "")
        for hop in seen
    ]


def cut_in_silence(seen: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any link opened well and did not survive being left silent."""
    return any(
        step["name"] == "idle" and step["status"] == "failed"
        for hop in seen
        for step in hop.get("steps") or ()
    )


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
            "link_check_cut_in_silence": cut_in_silence,
            "link_check_hops": hops,
            "link_check_table": table,
            "link_check_verdict": verdict,
        }
