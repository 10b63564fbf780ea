"""nginx's configuration: directives removed, doubled, changed, moved; other sites; more lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from machines.mutations.mutation import (
    PLAIN,
    SECURE,
    Edit,
    Mutation,
    Party,
    Truth,
    Way,
    kind,
)
from machines.mutations.system import Directive, System, directives, effective, replaced

_SITES = "/etc/nginx/conf.d/"
#: Directives that speak of TLS alone, which a plain link never meets.
_OF_TLS = re.compile(r"ssl|listen.*443")
#: Words that stand in so many messages that they name nothing.
_COMMON = frozenset({"server", "http", "events", "location", "listen", "user", "include", "map"})
#: Longer than any of these timers that a mutation sets, seconds.
_QUIET = 5.0
_TIMERS = re.compile(r"proxy_read_timeout|proxy_send_timeout|send_timeout|keepalive")


def _way(one: Directive) -> Way:
    return SECURE if _OF_TLS.search(one.words) else PLAIN


def things(one: Directive, *new: str) -> tuple[str, ...]:
    """What names *one*: its line, its words, its name where that is no common word."""
    name = PurePosixPath(one.file).name
    first = f"{one.name} {one.args[0]}" if one.args else one.name
    found = [f"{name}:{one.line}", f"{name} line {one.line}", first, *new]
    found += [value.strip("$") for value in new if value.startswith("$") and len(value) > 4]
    if one.name not in _COMMON:
        # Its messages write the names of some as words.
        found += [one.name, one.name.replace("_", " ")]
    if one.name == "include":
        found += one.args
    found += [arg.strip("$") for arg in one.args if arg.startswith("$") and len(arg) > 4]
    return tuple(dict.fromkeys(found))


def _mutation(
    kind_: str, what: str, one: Directive, told: str, edit: Edit, *new: str, way: Way | None = None
) -> Mutation:
    return Mutation(
        kind_,
        f"{PurePosixPath(one.file).name}:{one.line} {what}"[:120],
        Truth((Party.NGINX,), things(one, *new), told),
        edit.apply,
        edit.undo,
        way or _way(one),
        _QUIET if _TIMERS.search(what) else 0.0,
    )


@kind("nginx-removed")
def removed(system: System) -> Iterator[Mutation]:
    """Each directive is taken out, with its block where it has one."""
    for one in effective(system):
        text = replaced(system.nginx[one.file], one.start, one.end, "")
        yield _mutation("nginx-removed", one.words, one, f"{one.file}: without {one.words!r}",
                        Edit({one.file: text}))  # fmt: skip


@kind("nginx-doubled")
def doubled(system: System) -> Iterator[Mutation]:
    """Each directive stands there twice."""
    for one in effective(system):
        text = system.nginx[one.file]
        again = f"{text[one.start : one.end]}\n{text[one.start : one.end]}"
        yield _mutation("nginx-doubled", one.words, one, f"{one.file}: {one.words!r} twice",
                        Edit({one.file: replaced(text, one.start, one.end, again)}))  # fmt: skip


def other_values(arg: str) -> Iterator[str]:
    """What somebody could have written in place of *arg*."""
    if arg in ("on", "off"):
        yield "off" if arg == "on" else "on"
    elif number := re.fullmatch(r"(\d+)(ms|[smhdkgKMG]?)", arg):
        yield f"1{number[2]}"
        yield f"{int(number[1]) + 1}{number[2]}"
    elif re.fullmatch(r"\d+\.\d+", arg):
        yield "1.0"
    elif address := re.fullmatch(r"(.*):(\d+)", arg):
        yield f"{address[1]}:{int(address[2]) + 1}"
        yield f"192.0.2.1:{address[2]}"
    elif arg.startswith("http://"):
        yield arg.replace("http://", "https://")
        yield f"{arg}/elsewhere/"
        yield f"{arg}x"
    elif arg.startswith("$"):
        yield "''"
        yield f"{arg}x"
        yield "close"
    elif arg.startswith("/"):
        yield f"{arg.rstrip('/')}/missing"
    elif re.fullmatch(r"[\w.-]+", arg):
        yield f"{arg}x"


@kind("nginx-value")
def value(system: System) -> Iterator[Mutation]:
    """Each argument of each directive has another value."""
    for one in effective(system):
        text = system.nginx[one.file]
        head_end = one.body or one.end
        for place, arg in enumerate(one.args):
            for new in other_values(arg):
                args = [*one.args]
                args[place] = new
                words = " ".join((one.name, *args))
                head = f"{words} {{" if one.body else f"{words};"
                yield _mutation(
                    "nginx-value", f"{one.words} -> {words}", one,
                    f"{one.file}:{one.line}: {words!r} instead of {one.words!r}",
                    Edit({one.file: replaced(text, one.start, head_end, head)}),
                    f"{one.name} {args[0]}", new,
                )  # fmt: skip


@kind("nginx-moved")
def moved(system: System) -> Iterator[Mutation]:
    """Each directive within a block stands outside that block, before it."""
    for file, text in system.nginx.items():
        every = directives(file, text)
        chosen = {(one.start, one.end) for one in effective(system) if one.file == file}
        for one in every:
            if (one.start, one.end) not in chosen:
                continue
            around = [b for b in every if b.body and b.start < one.start and one.end <= b.end]
            if not around:
                continue
            block = around[-1]
            cut = replaced(text, one.start, one.end, "")
            new = replaced(cut, block.start, block.start, text[one.start : one.end] + "\n")
            yield _mutation("nginx-moved", f"{one.words} out of {block.name}", one,
                            f"{file}: {one.words!r} stands before its {block.words!r}",
                            Edit({file: new}),
                            f"{PurePosixPath(file).name}:{block.line}")  # fmt: skip


@kind("nginx-other-file")
def other_file(system: System) -> Iterator[Mutation]:
    """Each file that is included is called otherwise, or read before or after the others."""
    for file, text in system.nginx.items():
        if not file.startswith((_SITES, "/etc/nginx/sites-enabled/")):
            continue
        folder, name = str(PurePosixPath(file).parent), PurePosixPath(file).name
        for new in (f"{file}.bak", f"{folder}/.{name}", f"/etc/nginx/sites-available/{name}x",
                    f"{folder}/000-{name}", f"{folder}/zzz-{name}"):  # fmt: skip
            edit = Edit({new: text}, more=(f"rm -f {file}",), touched=(file,))
            read = new.startswith(folder) and new.endswith(".conf") and f"/.{name}" not in new
            told = f"{file} is {new} now" + ("" if read else ", which nothing includes")
            yield Mutation("nginx-other-file", f"{file} -> {new}",
                           Truth((Party.NGINX,), (file, new, "include"), told),
                           edit.apply, edit.undo)  # fmt: skip


def _link_ports(system: System) -> list[str]:
    """What the link's sites listen on, without options."""
    return list(dict.fromkeys(
        one.args[0] for one in effective(system)
        if one.name == "listen" and one.file.startswith(_SITES)
    ))  # fmt: skip


_BODIES = {
    "200": "return 200 ok;",
    "404": "return 404;",
    "444": "return 444;",
    "redirect": "return 301 https://$host$request_uri;",
    "files": "root /var/www/html;",
    "closed upstream": "location / { proxy_pass http://127.0.0.1:9; }",
    "no upgrade": "location / { proxy_pass http://127.0.0.1:3000; }",
    "http 1.0": "location / { proxy_pass http://127.0.0.1:3000; proxy_http_version 1.0; "
    "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }",
    "denied": "deny all;",
    "password": "auth_basic x; auth_basic_user_file /dev/null;",
}


@kind("nginx-second-site")
def second_site(system: System) -> Iterator[Mutation]:
    """A second server block on the same port or address takes the link's requests, or does not."""
    for listen in _link_ports(system):
        if listen.endswith("443") or listen.startswith("["):
            continue
        selectors = {
            "its name": f"listen {listen}; server_name {system.address};",
            "its address": f"listen {system.address}:{listen}; server_name _;",
            "default": f"listen {listen} default_server; server_name _;",
            "expression": f"listen {listen}; server_name ~.;",
            "proxy protocol": f"listen {listen} proxy_protocol; server_name _;",
            "ssl": f"listen {listen} ssl; server_name _;",
            "http2": f"listen {listen} http2; server_name _;",
        }
        for file in ("/etc/nginx/conf.d/aaa.conf", "/etc/nginx/conf.d/zzz.conf",
                     "/etc/nginx/sites-enabled/shop"):  # fmt: skip
            for how, selector in selectors.items():
                for what, body in _BODIES.items():
                    edit = Edit({file: f"server {{\n{selector}\n{body}\n}}\n"})
                    yield Mutation(
                        "nginx-second-site", f"{file} {listen} by {how}: {what}",
                        Truth((Party.NGINX,), (file, PurePosixPath(file).name),
                              f"{file}: server {{ {selector} {body} }}"),
                        edit.apply, edit.undo,
                    )  # fmt: skip


#: Header lines of a handshake, asked and answered (RFC 6455 4.1 and 4.2.2, PTS-2 protocol 1.1).
ASKED = ("Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version",
         "X-Pts-Id", "Origin")  # fmt: skip
ANSWERED = ("Upgrade", "Connection", "Sec-WebSocket-Accept", "Server", "Date")

_INSERTED = (
    *(f"return {code};" for code in (200, 204, 400, 401, 403, 404, 410, 418, 429, 444, 500, 503)),
    "return 301 https://$host$request_uri;",
    "return 308 /other;",
    "deny all;",
    "deny {site};",
    "allow 192.0.2.0/24; deny all;",
    "satisfy any; deny {site};",
    "auth_basic x; auth_basic_user_file /dev/null;",
    "if ($http_user_agent = '') { return 403; }",
    "if ($http_upgrade) { return 400; }",
    "if ($request_method = GET) { return 405; }",
    "rewrite ^ /elsewhere break;",
    "rewrite ^ /elsewhere redirect;",
    "internal;",
    "limit_except POST { deny all; }",
    "proxy_method POST;",
    "proxy_pass_request_headers off;",
    "proxy_bind 192.0.2.1;",
    "proxy_read_timeout 2s;",
    "proxy_send_timeout 1s;",
    "send_timeout 1s;",
    "proxy_connect_timeout 1s;",
    "limit_rate 1;",
    "client_max_body_size 1;",
    "large_client_header_buffers 1 64;",
    "client_header_buffer_size 64;",
    "client_header_timeout 1s;",
    "keepalive_timeout 0;",
    "proxy_buffering on;",
    "proxy_ignore_client_abort on;",
    "proxy_intercept_errors on;",
    "proxy_request_buffering off;",
    "proxy_buffer_size 64;",
    "proxy_ssl_verify on;",
    "proxy_socket_keepalive on;",
    "proxy_http_version 1.0;",
    "tcp_nodelay off;",
    "reset_timedout_connection on;",
    "gzip off;",
    "server_tokens off;",
    "add_header X-Frame-Options DENY always;",
    "access_log off;",
    "merge_slashes off;",
    "stub_status;",
    "empty_gif;",
    "try_files $uri =404;",
    "root /nonexistent;",
    "error_page 502 =200 /sorry;",
    *(f"proxy_set_header {name} '';" for name in ASKED),
    *(f"proxy_set_header {name} wrong;" for name in ASKED),
    *(f"proxy_hide_header {name};" for name in ANSWERED),
)


@kind("nginx-inserted")
def inserted(system: System) -> Iterator[Mutation]:
    """Lines that a person or another role could have added, at each level of the link's site."""
    for one in effective(system):
        if (
            not one.file.startswith(_SITES)
            or one.name not in ("server", "location")
            or not one.body
        ):
            continue
        if one.context == ("upstream",):
            continue
        text = system.nginx[one.file]
        for line in _INSERTED:
            told = line.replace("{site}", system.site)
            new = replaced(text, one.body, one.body, f"\n{told}\n")
            number = one.line + 1
            name = PurePosixPath(one.file).name
            first = told.split(";")[0]
            timed = bool(_TIMERS.search(told))
            edit = Edit({one.file: new})
            yield Mutation(
                "nginx-inserted", f"{one.name}: {line}",
                Truth((Party.NGINX,),
                      (f"{name}:{number}", first, " ".join(first.split()[:2]), *_names_of(first)),
                      f"{one.file}: {told!r} in {one.words!r}"),
                edit.apply, edit.undo, PLAIN, _QUIET if timed else 0.0,
            )  # fmt: skip


def _names_of(line: str) -> tuple[str, ...]:
    """The directive's name, where it is no common word."""
    name = line.split()[0]
    return (name,) if "_" in name or name in ("rewrite", "internal", "return") else ()


@kind("nginx-syntax")
def syntax(system: System) -> Iterator[Mutation]:
    """Each simple directive of the link's site lacks its semicolon, or each block its brace."""
    for one in effective(system):
        if not one.file.startswith(_SITES):
            continue
        text = system.nginx[one.file]
        what = "brace" if one.body else "semicolon"
        yield _mutation("nginx-syntax", f"{one.words} without its {what}", one,
                        f"{one.file}:{one.line}: {one.words!r} without its {what}",
                        Edit({one.file: replaced(text, one.end - 1, one.end, "")}),
                        PurePosixPath(one.file).name)  # fmt: skip
