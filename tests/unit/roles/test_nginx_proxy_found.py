"""What other sites of nginx the link would collide with is named by file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MAIN = "events {}\nhttp {\n    include /etc/nginx/conf.d/*.conf;\n    include sites-enabled/*;\n}\n"
DIRECTORY = Path("/etc/nginx")
OURS = "conf.d/ptslink.conf"


@pytest.fixture
def found(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("nginx_proxy/library/nginx_proxy_found")


def dumped(**files: str) -> str:
    """What ``nginx -T`` prints; keywords are files of sites-enabled."""
    return "".join(
        f"# configuration file {file}:\n{text}\n"
        for file, text in {
            "/etc/nginx/nginx.conf": MAIN,
            **{f"/etc/nginx/sites-enabled/{name}": text for name, text in files.items()},
        }.items()
    )


def read(found: Any, dump: str) -> list[Any]:
    return [
        one for file, text in found.files_in(dump).items() for one in found.directives(file, text)
    ]


def test_a_site_that_awaits_the_proxy_protocol_on_the_links_port_is_refused(found: Any) -> None:
    dump = dumped(
        balanced="# theirs\nserver {\n  server_name a;\n  listen [::]:80 proxy_protocol;\n}\n"
    )
    [refusal] = found.collisions(read(found, dump), {80, 443})
    assert "/etc/nginx/sites-enabled/balanced:4 has `listen [::]:80 proxy_protocol;`" in refusal
    assert "nginx_proxy_listeners" in refusal
    assert found.collisions(read(found, dump), {8080}) == []


@pytest.mark.parametrize(
    "site",
    [
        "server { listen 80; }",
        "# listen 80 proxy_protocol;\n",
        'server { listen 81 proxy_protocol; return 200 "listen 80 proxy_protocol;"; }',
        "server { listen unix:/run/x.sock proxy_protocol; }",
        "stream { server { listen 80 proxy_protocol; } }",
    ],
)
def test_what_does_not_touch_the_link_is_not_refused(found: Any, site: str) -> None:
    assert found.collisions(read(found, dumped(site=site)), {80}) == []


@pytest.mark.parametrize(
    ("main", "read_by_nginx"),
    [
        (MAIN, True),
        ("http { include conf.d/*.conf; }", True),
        ("http { include /etc/nginx/conf.d/ptslink.conf; }", True),
        ("http { include sites-enabled/*; }", False),
        ("# include conf.d/*.conf;\nhttp { }", False),
        ("stream { include conf.d/*.conf; }", False),
        ("http { server { include conf.d/*.conf; } }", False),
    ],
)
def test_whether_nginx_would_read_our_file(found: Any, main: str, read_by_nginx: bool) -> None:
    directives = list(found.directives("/etc/nginx/nginx.conf", main))
    assert found.reads(directives, DIRECTORY, OURS) == read_by_nginx


def test_a_site_for_every_name_is_found_and_others_are_not(found: Any) -> None:
    dump = dumped(
        all="server { listen 80 default_server; }",
        named="server { listen 80; server_name shop.example; }",
        elsewhere="server { listen 8080 default_server; }",
    )
    [place] = found.catch_alls(read(found, dump), {80})
    assert place.place == "/etc/nginx/sites-enabled/all:1"


@pytest.mark.parametrize(
    ("address", "port"),
    [("80", 80), ("[::]:443", 443), ("10.0.0.1:8080", 8080), ("10.0.0.1", 80), ("unix:/x:1", 0)],
)
def test_the_port_of_a_listener(found: Any, address: str, port: int) -> None:
    assert found.port_of(address) == port


@pytest.fixture
def reload(plugin: Callable[[str], ModuleType]) -> Any:
    return plugin("nginx_proxy/library/nginx_proxy_reload")


def test_why_nginx_did_not_take_its_configuration_is_read_from_what_it_wrote_since(
    reload: Any, tmp_path: Path
) -> None:
    log = tmp_path / "error.log"
    before = "2026/11/30 10:00:00 [emerg] 1#1: of another day\n"
    line = "2026/12/01 10:00:00 [emerg] 7#7: bind() to 0.0.0.0:8090 failed (98: Address in use)\n"
    log.write_text(f"{before}{line}{line}2026/12/01 10:00:01 [notice] 7#7: signal\n")
    said = reload.complaints({log: len(before), tmp_path / "gone.log": 0})
    assert said == ["bind() to 0.0.0.0:8090 failed (98: Address in use)"]
