"""nginx's configuration, logs and processes are read as nginx itself means them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import crossplane
import pytest

from ptslink.doctor.collect.nginx import info_hidden, read_processes, read_test
from ptslink.doctor.collect.nginx_config import (
    location_for,
    passes_to,
    read_config,
    seconds,
    site_for,
)
from ptslink.doctor.collect.nginx_log import read_access, read_error
from unit.doctor.traces import CAPTURES, captured_access, captured_config, captured_error


def configured(text: str, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "nginx.conf"
    file.write_text(text)
    return read_config(crossplane.parse(str(file), combine=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("60", 60.0), ("60s", 60.0), ("1h 30m", 5400.0), ("1h30m", 5400.0), ("500ms", 0.5),
     ("2d", 172800.0), ("soon", None), ("", None)],
)  # fmt: skip
def test_nginx_times_are_seconds(text: str, expected: float | None) -> None:
    assert seconds(text) == expected


def test_headers_are_inherited_only_where_a_level_sets_none_of_its_own(tmp_path: Path) -> None:
    facts = configured(
        """events {} http {
        proxy_set_header Upgrade $http_upgrade; proxy_read_timeout 2h;
        server { listen 80;
          location /inherits { proxy_pass http://127.0.0.1:3000; }
          location /own { proxy_set_header Host $host; proxy_pass http://127.0.0.1:3000; } } }""",
        tmp_path,
    )
    inherits, own = (place["settings"] for place in facts["sites"][0]["locations"])
    assert inherits["set_header"] == {"upgrade": "$http_upgrade"}
    assert own["set_header"] == {"host": "$host"}
    assert inherits["proxy_read_timeout"] == own["proxy_read_timeout"] == 7200.0


def test_a_timeout_that_nobody_sets_is_nginxs_default(tmp_path: Path) -> None:
    facts = configured("events {} http { server { listen 80; location / {} } }", tmp_path)
    settings = facts["sites"][0]["locations"][0]["settings"]
    assert settings["proxy_read_timeout"] == 60.0
    assert settings["keepalive_timeout"] == 75.0
    assert facts["worker_connections"] == 512


def test_every_form_of_listen_is_read(tmp_path: Path) -> None:
    facts = configured(
        """events {} http { server { listen 127.0.0.1:8080; listen [::]:81 default_server;
        listen 443 ssl http2; listen 10.0.0.1; listen 9000 proxy_protocol; } }""",
        tmp_path,
    )
    listens = facts["sites"][0]["listen"]
    assert [(entry["address"], entry["port"]) for entry in listens] == [
        ("127.0.0.1", 8080), ("[::]", 81), ("*", 443), ("10.0.0.1", 80), ("*", 9000)
    ]  # fmt: skip
    assert [entry["default"] for entry in listens] == [False, True, False, False, False]
    assert [entry["ssl"] for entry in listens] == [False, False, True, False, False]
    assert listens[2]["http2"]
    assert listens[4]["proxy_protocol"]


def test_an_unclosed_brace_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    facts = configured("events {} http { server { listen 80; }", tmp_path)
    assert any("nginx.conf" in error for error in facts["errors"])


SERVERS = """events {} http {
    server { listen 80 default_server; server_name _; location / { return 444; } }
    server { listen 80; server_name pts.example.test; location / { proxy_pass http://a; } }
    server { listen 80; server_name *.example.test; location / { proxy_pass http://b; } }
    server { listen 80; server_name ~^sta(?<number>\\d+)$; location / { proxy_pass http://c; } }
    server { listen 81; location = /x { } location /x { } location ~* ^/Y { } location ^~ /y/z { } }
}"""


@pytest.mark.parametrize(
    ("host", "line"),
    [("pts.example.test:80", 3), ("PTS.example.test", 3), ("other.example.test", 4),
     ("sta17", 5), ("192.0.2.7", 2), ("", 2)],
)  # fmt: skip
def test_the_server_block_is_picked_in_nginxs_order(host: str, line: int, tmp_path: Path) -> None:
    site = site_for(configured(SERVERS, tmp_path), 80, host)
    assert site is not None
    assert site["line"] == line


@pytest.mark.parametrize(
    ("path", "picked"),
    [("/x", ("=", "/x")), ("/x/more", ("", "/x")), ("//x?a=b", ("=", "/x")),
     ("/yes", ("~*", "^/Y")), ("/y/z/more", ("^~", "/y/z")), ("/none", None)],
)  # fmt: skip
def test_the_location_is_picked_in_nginxs_order(
    path: str, picked: tuple[str, str] | None, tmp_path: Path
) -> None:
    site = site_for(configured(SERVERS, tmp_path), 81, "any")
    assert site is not None
    place = location_for(site, path)
    assert (place and (place["modifier"], place["match"])) == picked


def test_a_location_passes_to_the_service_directly_or_through_an_upstream(tmp_path: Path) -> None:
    facts = configured(
        """events {} http { upstream ptslink { server 127.0.0.1:3000; }
        server { listen 80; location /a { proxy_pass http://ptslink; }
          location /b { proxy_pass http://127.0.0.1:3000; }
          location /c { proxy_pass http://127.0.0.1:8080; } location /d { return 200; } } }""",
        tmp_path,
    )
    places = facts["sites"][0]["locations"]
    assert [passes_to(facts, place, 3000) for place in places] == [True, True, False, False]


def test_an_error_log_above_info_hides_the_idle_cut(tmp_path: Path) -> None:
    server = "server {{ listen 80; {log} location / {{ proxy_pass http://127.0.0.1:3000; }} }}"
    for log, hidden in (("", True), ("error_log /x warn;", True), ("error_log /x info;", False)):
        facts = configured(f"events {{}} http {{ {server.format(log=log)} }}", tmp_path)
        assert info_hidden(facts) is hidden


def test_the_whole_captured_configuration_is_understood() -> None:
    facts = captured_config()
    assert facts["errors"] == []
    assert len(facts["sites"]) == 31
    assert facts["zones"]["r"].startswith("limit_req_zone")


def test_only_the_upstreams_header_time_tells_whose_status_it_is() -> None:
    by = {(line["port"], line["status"]): line["by"] for line in captured_access()}
    # An own 502 and 504 of nginx have an upstream_status of the same value.
    assert by[(8003, 502)] == by[(8004, 504)] == by[(8007, 301)] == "nginx"
    assert by[(8001, 426)] == by[(8002, 505)] == by[(8008, 404)] == "backend"


def test_a_line_of_the_combined_format_is_read_as_far_as_it_goes() -> None:
    line = '198.51.100.20 - - [22/Nov/2026:20:16:27 +0100] "GET /pts HTTP/1.1" 502 157 "-" "-"'
    (entry,) = read_access(line)
    assert (entry["client"], entry["status"], entry["path"]) == (
        "198.51.100.20",
        502,
        "/pts",
    )
    assert entry["by"] is None
    assert entry["time"] == 1795374987.0


def test_what_is_no_log_line_is_left_out() -> None:
    assert read_access("nonsense\n{\n[]\n{}") == []
    assert read_error("nonsense\n") == []


def test_the_lines_a_real_nginx_wrote_are_all_of_a_known_kind() -> None:
    kinds = {event["kind"] for event in captured_error()}
    assert kinds >= {
        "upgraded-timeout", "connect-refused", "header-timeout", "connect-timeout",
        "connect-denied", "no-file", "upstream-tls", "plain-to-tls", "limit-req", "limit-conn",
        "denied-by-rule", "auth-required", "http2-preface", "proxy-protocol", "upstream-closed",
        "upgraded-reset", "invalid-request", "client-left", "header-slow", "tls-failed",
        "tls-rejected", "tls-alert", "no-client-certificate", "reloading", "stopping",
        "worker-leaving",
    }  # fmt: skip


def test_an_alert_keeps_its_number_and_its_port() -> None:
    alerts = [(e["alert"], e["port"]) for e in captured_error() if e["kind"] == "tls-alert"]
    assert (45, 8450) in alerts
    assert (48, 8443) in alerts
    assert (42, 8443) in alerts


def test_local_times_of_the_error_log_become_utc() -> None:
    line = "2026/11/22 20:16:27 [error] 7#7: *9 connect() failed (111: Connection refused) while x"
    (utc,), (ahead,) = read_error(line), read_error(line, utc_offset=7200.0)
    assert utc["time"] - ahead["time"] == 7200.0


PS = """\
  100     1    3600 nginx: master process /usr/sbin/nginx -g daemon on;
  101   100      10 nginx: worker process
  102   100    3600 nginx: worker process is shutting down
  200   190    9000 nginx: master process nginx -c /container.conf
  201   200    9000 nginx: worker process
"""


def test_the_newest_worker_tells_the_last_reload() -> None:
    facts = read_processes(PS, now=10_000.0)
    assert facts["running"]
    assert (facts["started"], facts["reloaded"]) == (6400.0, 9990.0)
    assert [worker["shutting_down"] for worker in facts["workers"]] == [False, True]


def test_an_nginx_of_a_container_is_not_taken_for_the_hosts() -> None:
    assert read_processes(PS, 10_000.0, main_pid=200)["master"] == 200
    assert read_processes(PS, 10_000.0, main_pid=100)["master"] == 100


def test_no_process_means_not_running() -> None:
    assert not read_processes("", 0.0)["running"]


def test_a_failed_configuration_test_says_why() -> None:
    text = (
        'nginx: [emerg] unknown "connection_upgrade" variable\nnginx: configuration file failed\n'
    )
    assert read_test(1, text) == {
        "test_ok": False, "test_message": 'unknown "connection_upgrade" variable'
    }  # fmt: skip
    assert read_test(0, "") == {"test_ok": True, "test_message": ""}


def test_captures_hold_no_private_key() -> None:
    for file in CAPTURES.rglob("*"):
        assert file.is_dir() or b"PRIVATE KEY" not in file.read_bytes(), file.name


def test_unprintable_bytes_of_a_combined_line_are_bytes_again() -> None:
    line = r'192.0.2.9 - - [24/Nov/2026:07:44:37 +0000] "\x16\x03\x01\x00\xB7 a" 400 157 "-" "-"'
    (entry,) = read_access(line)
    assert entry["request"] == "\x16\x03\x01\x00\xb7 a"
    assert entry["method"] is None
