"""The server's configuration: one TOML file, every key optional, every mistake named.

A wrong key or value is reported with the key, the value and what is accepted; all mistakes of a
file are reported at once.
"""

# setting() declares a dataclass field; the rule cannot see that.
# ruff: noqa: RUF009

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from ptslink.handshake.judge import Profile, Rules
from ptslink.journal.entry import Retention
from ptslink.server import settings as s
from ptslink.server.settings import setting


class ConfigError(Exception):
    """A configuration that cannot be used.

    Attributes:
        mistakes: one line each, naming key, value and accepted form.
    """

    def __init__(self, source: str, mistakes: list[str]) -> None:
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Listen:
    """``[listen]``: where controllers dial in."""

    addresses: tuple[str, ...] = setting(
        ("0.0.0.0", "::"),
        s.listed(s.ADDRESS, "a list of at least one IPv4 or IPv6 address", least=1),
        "addresses to listen on; not used under socket activation",
    )
    port: int = setting(3000, s.whole(0, 65535), "TCP port; 0 lets the system choose")
    path: str = setting("ptsWebSocket", s.URI, "path of the link, as typed into the controller")
    alternative_paths: tuple[str, ...] = setting(
        ("pts", "websocket", ""),
        s.listed(s.URI_OR_EMPTY, "a list of paths, each as listen.path or empty"),
        "other paths accepted for the link",
    )
    upload_paths: tuple[str, ...] = setting(
        ("jsonPTS",),
        s.listed(s.URI_OR_EMPTY, "a list of paths, each as listen.path or empty"),
        "further paths that accept HTTP uploads (POST) besides those of the link",
    )
    handshake_profile: Profile = setting(
        "lenient",
        s.choice("strict", "lenient"),
        "strict: RFC 6455 to the letter; lenient: named deviations accepted",
    )
    subprotocols: tuple[str, ...] = setting(
        (),
        s.listed(
            s.text(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", "a token"), "a list of sub-protocol names"
        ),
        "the only sub-protocols echoed; empty echoes the first one offered",
    )
    event_loop: Literal["asyncio", "uvloop"] = setting(
        "asyncio",
        s.choice("asyncio", "uvloop"),
        "asyncio: Python's own; uvloop: somewhat faster, must be installed",
    )
    tolerate_rsv1: bool = setting(
        False, s.BOOLEAN, "accept and count frames with a stray RSV1 bit instead of closing 1002"
    )
    validate_utf8: bool = setting(
        False, s.BOOLEAN, "true: close 1007 on text that is not UTF-8; false keeps it as it came"
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = setting(
        (),
        s.listed(s.NETWORK, "a list of addresses or networks"),
        "proxies whose X-Real-IP is believed, besides loopback",
    )


@dataclass(frozen=True, slots=True)
class Tls:
    """``[tls]``: certificates for a TLS listener; without them there is none."""

    port: int = setting(0, s.whole(0, 65535), "TCP port for TLS; 0 for no TLS listener")
    rsa_certificate: Path | None = setting(None, s.OPTIONAL_PATH, "full chain, PEM, RSA")
    rsa_key: Path | None = setting(None, s.OPTIONAL_PATH, "its private key, PEM")
    ecdsa_certificate: Path | None = setting(None, s.OPTIONAL_PATH, "full chain, PEM, ECDSA")
    ecdsa_key: Path | None = setting(None, s.OPTIONAL_PATH, "its private key, PEM")


@dataclass(frozen=True, slots=True)
class Controllers:
    """``[controllers]``: who may connect."""

    allowed: tuple[str, ...] = setting(
        (),
        s.listed(s.CONTROLLER, "a list of controller ids, 1 to 24 hexadecimal digits each"),
        "the only controllers accepted; empty accepts any",
    )
    users: dict[str, str] = setting({}, s.USERS, "Basic credentials; empty asks for none")
    secret: str = setting("", s.SECRET, "secret key of the signatures; empty checks none")
    secret_required: bool = setting(True, s.BOOLEAN, "with a secret set, refuse what is not signed")
    time_zone: str = setting("", s.ZONE, "zone of controllers that do not tell their UTC offset")
    code_page: str = setting(
        "", s.CODE_PAGE, "how text that is not UTF-8 is shown; the bytes that came are kept"
    )


@dataclass(frozen=True, slots=True)
class Journal:
    """``[journal]``: the durable record."""

    path: Path = setting(
        Path("/var/lib/ptslink/journal.db"), s.ABSOLUTE_PATH, "the SQLite database"
    )
    status_history_seconds: int = setting(
        300, s.whole(1, 86400, "seconds"), "one UploadStatus is kept as history per this time"
    )
    status_history_days: int = setting(
        90, s.whole(1, 3650, "days"), "age at which that history is deleted"
    )
    status_history_megabytes: int = setting(
        2000, s.whole(1, 1_000_000, "megabytes"), "size of that history at most; oldest goes first"
    )
    evidence_days: int = setting(
        90, s.whole(1, 3650, "days"), "age at which evidence is deleted; records never are"
    )
    evidence_rows: int = setting(
        1_000_000, s.whole(1000, 100_000_000), "evidence kept at most, the newest"
    )
    evidence_megabytes: int = setting(
        500, s.whole(1, 1_000_000, "megabytes"), "size of the evidence at most; oldest goes first"
    )
    waiting_megabytes: int = setting(
        64,
        s.whole(1, 100_000, "megabytes"),
        "messages that wait for a disk at most; beyond, controllers are told to send again",
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """``[limits]``: what a peer may take."""

    message_bytes: int = setting(
        1_048_576,
        s.whole(65_536, 67_108_864, "bytes"),
        "largest message or upload; a UploadConfiguration has tens of kilobytes",
    )
    head_bytes: int = setting(16_384, s.whole(1024, 262_144, "bytes"), "largest request head")
    head_seconds: float = setting(
        10.0,
        s.number(0.1, 300, "seconds"),
        "time for a whole request, its body too, and between requests",
    )
    idle_seconds: float = setting(
        0.0,
        s.number(0, 604_800, "seconds"),
        "close a link on which no message came for so long; 0 never does",
    )
    close_seconds: float = setting(
        10.0, s.number(0.1, 60, "seconds"), "time for the peer to finish a closing handshake"
    )
    connections: int = setting(
        10_000,
        s.whole(1, 1_000_000),
        "connections in all; beyond, the one that has waited longest without a request gives way; "
        "a tenth is for links of known controllers alone",
    )
    connections_per_address: int = setting(
        1000,
        s.whole(1, 1_000_000),
        "links per address (of IPv6 per /64), known controllers excepted; and connections per "
        "address that are no link yet: beyond, the one that has waited longest gives way",
    )
    failures_per_minute: int = setting(
        600,
        s.whole(1, 100_000),
        "refused or unfinished handshakes per address and minute before 429; "
        "known controllers excepted",
    )
    new_controllers_per_address: int = setting(
        50,
        s.whole(0, 100_000),
        "controllers never seen before that are taken in per address (IPv6: /64) and day; beyond, "
        "they are told to send again",
    )
    drain_seconds: float = setting(
        10.0, s.number(0.1, 300, "seconds"), "time for all links to close when the server stops"
    )


@dataclass(frozen=True, slots=True)
class Keepalive:
    """``[keepalive]``: WebSocket pings to the controllers."""

    ping_interval_seconds: float = setting(
        20.0, s.number(0, 3600, "seconds"), "time between pings; 0 sends none"
    )
    ping_timeout_seconds: float = setting(
        20.0, s.number(0.1, 3600, "seconds"), "time for any sign of life after a ping"
    )


@dataclass(frozen=True, slots=True)
class Admin:
    """``[admin]``: health, metrics, records and commands, for this machine only."""

    address: str = setting("127.0.0.1", s.ADDRESS, "address of the admin listener")
    port: int = setting(9180, s.whole(0, 65535), "its TCP port; 0 lets the system choose")
    socket: Path | None = setting(
        Path("/run/ptslink/admin.sock"),
        s.OPTIONAL_PATH,
        "Unix socket; the only place for records and commands",
    )
    command_seconds: float = setting(
        15.0, s.number(1, 120, "seconds"), "time for a controller to reply to a command"
    )


@dataclass(frozen=True, slots=True)
class Logs:
    """``[logs]``: the files people read when a link misbehaves."""

    directory: Path | None = setting(
        Path("/var/log/ptslink"), s.OPTIONAL_PATH, "directory of the log files"
    )
    keep_days: int = setting(30, s.whole(1, 3650, "days"), "age at which a file is deleted")
    keep_megabytes: int = setting(
        500, s.whole(1, 1_000_000, "megabytes"), "size of all files together; oldest go first"
    )
    short_connection_seconds: float = setting(
        5.0, s.number(0, 3600, "seconds"), "links that lasted less also go to ShortConnection"
    )
    message_text: bool = setting(
        False, s.BOOLEAN, "write the messages themselves to the per-type logs (personal data)"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    listen: Listen = field(default_factory=Listen)
    tls: Tls = field(default_factory=Tls)
    controllers: Controllers = field(default_factory=Controllers)
    journal: Journal = field(default_factory=Journal)
    limits: Limits = field(default_factory=Limits)
    keepalive: Keepalive = field(default_factory=Keepalive)
    admin: Admin = field(default_factory=Admin)
    logs: Logs = field(default_factory=Logs)

    def rules(self) -> Rules:
        """What the handshake is judged by."""
        return Rules(
            path=self.listen.path,
            alternatives=self.listen.alternative_paths,
            profile=self.listen.handshake_profile,
            subprotocols=self.listen.subprotocols,
            users=self.controllers.users,
            allowed=frozenset(item.upper() for item in self.controllers.allowed),
            secret=self.controllers.secret,
            secret_required=self.controllers.secret_required,
        )

    def retention(self) -> Retention:
        """How much is kept of what is not a record."""
        journal = self.journal
        return Retention(
            evidence_days=journal.evidence_days,
            evidence_rows=journal.evidence_rows,
            evidence_bytes=journal.evidence_megabytes * 1_000_000,
            status_days=journal.status_history_days,
            status_bytes=journal.status_history_megabytes * 1_000_000,
        )

    def zone(self) -> ZoneInfo | None:
        """The configured zone of the controllers, or None."""
        return ZoneInfo(self.controllers.time_zone) if self.controllers.time_zone else None


#: The tables of the file, in the order of `Config`.
TABLES: Mapping[str, type] = {
    "listen": Listen,
    "tls": Tls,
    "controllers": Controllers,
    "journal": Journal,
    "limits": Limits,
    "keepalive": Keepalive,
    "admin": Admin,
    "logs": Logs,
}

#: Keys whose value must not be repeated in an error.
_SECRET_KEYS = frozenset({"controllers.secret", "controllers.users"})


def load(path: Path) -> Config:
    """Read and check a file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or holds a mistake.
    """
    try:
        text = path.read_text("utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), ["is not UTF-8 text"]) from error
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        # First words alone: what comes behind may be secret. What was left open began before.
        lines = text.splitlines()[: int(at[1])][-3:] if at else []
        words = [word[1] for line in lines if (word := re.match(r"\s*(\[?[\w.-]+\]?)", line))]
        told = f"; the lines up to it begin with {', '.join(words)}" if words else ""
        raise ConfigError(str(path), [f"is not TOML: {error}{told}"]) from error
    return parse(content, source=str(path))


def parse(content: Mapping[str, Any], *, source: str = "configuration") -> Config:
    """Check the content of a file.

    Raises:
        ConfigError: with every mistake found.
    """
    mistakes: list[str] = []
    tables: dict[str, Any] = {}
    for name, table in content.items():
        known = TABLES.get(name)
        if known is None:
            mistakes.append(
                f"unknown table [{name}]; accepted: {', '.join(f'[{t}]' for t in TABLES)}"
            )
        elif not isinstance(table, dict):
            mistakes.append(f"{name} = {table!r} is not a table; write [{name}]")
        else:
            tables[name] = _table(name, known, table, mistakes)
    config = Config(**tables) if not mistakes else Config()
    if not mistakes:
        mistakes += _contradictions(config)
    if mistakes:
        raise ConfigError(source, mistakes)
    return config


def _table(name: str, known: type, table: Mapping[str, Any], mistakes: list[str]) -> Any:
    keys = s.declared(known)
    values = {}
    for key, value in table.items():
        if key not in keys:
            mistakes.append(f"unknown key {name}.{key}; accepted in [{name}]: {', '.join(keys)}")
            continue
        form = keys[key][1]
        try:
            values[key] = form.read(value)
        except s.Unacceptable:
            shown = "(not shown)" if f"{name}.{key}" in _SECRET_KEYS else repr(value)
            mistakes.append(f"{name}.{key} = {shown} is not accepted; it must be {form.accepted}")
    return known(**values)


def _contradictions(config: Config) -> list[str]:
    found = []
    tls = config.tls
    for kind in ("rsa", "ecdsa"):
        certificate, key = getattr(tls, f"{kind}_certificate"), getattr(tls, f"{kind}_key")
        if (certificate is None) != (key is None):
            found.append(f"tls.{kind}_certificate and tls.{kind}_key must both be set, or neither")
    if tls.port and tls.rsa_certificate is None and tls.ecdsa_certificate is None:
        found.append(
            f"tls.port = {tls.port} needs a certificate; set tls.rsa_certificate and tls.rsa_key, "
            "or the ecdsa pair, or both"
        )
    if config.listen.event_loop == "uvloop" and find_spec("uvloop") is None:
        found.append(
            'listen.event_loop = "uvloop" needs the Python package uvloop, which is not installed'
            ' here; install it beside ptslink or write "asyncio"'
        )
    if tls.port and tls.port == config.listen.port:
        found.append(f"tls.port = {tls.port} is also listen.port; they must differ")
    return found
